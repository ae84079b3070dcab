"""The parts of a Suricata EVE line that we read, as types that msgspec checks while it decodes.

Fields that are not named here are skipped without being built. The shapes cover EVE of Suricata
4 to 8: DNS version 1 (one record per answer), 2 (grouped) and 3 (`queries`), and `arp` events.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

# Bounds keep every number printable, hashable and exact in the JSON of others.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
SignatureId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=4096)]


class Alert(Struct):
    """The rule that matched."""

    signature_id: SignatureId
    signature: Text = ""
    category: Text = ""
    severity: Count = 3
    action: Text = ""
    metadata: dict[str, list[str] | str] = field(default_factory=dict)


class Flow(Struct):
    """The flow's totals, or so far in alerts."""

    start: str = ""
    end: str = ""
    state: str = ""
    reason: str = ""
    pkts_toserver: Count = 0
    pkts_toclient: Count = 0
    bytes_toserver: Count = 0
    bytes_toclient: Count = 0
    src_ip: str = ""
    dest_ip: str = ""
    dest_port: Port = 0


class Tcp(Struct):
    """TCP flags as hex digits: all, to the server, to the client."""

    tcp_flags: str = "00"
    tcp_flags_ts: str = "00"
    tcp_flags_tc: str = "00"


class DnsQuestion(Struct):
    """One question of a version 3 record."""

    rrname: Text = ""
    rrtype: Text = ""


class Dns(Struct):
    """A question or an answer."""

    type: str = ""
    id: Count = 0
    tx_id: Count = 0
    rrname: Text = ""
    rrtype: Text = ""
    queries: list[DnsQuestion] = field(default_factory=list)


class Ja3(Struct):
    """A JA3 fingerprint."""

    hash: Text = ""


class Tls(Struct):
    """A handshake and the certificate it showed."""

    sni: Text = ""
    subject: Text = ""
    notafter: str = ""
    ja3: Ja3 | None = None
    ja4: Text = ""


class Http(Struct):
    """A request and its status."""

    hostname: Text = ""
    url: str = ""
    http_method: Text = ""
    status: Count = 0


class Ftp(Struct):
    """A command and its reply codes."""

    command: Text = ""
    completion_code: list[str] = field(default_factory=list)


class Dhcp(Struct):
    """A message."""

    type: str = ""
    dhcp_type: str = ""
    id: Count = 0
    client_mac: Text = ""
    assigned_ip: str = ""
    routers: list[str] = field(default_factory=list)


class Arp(Struct):
    """A packet (Suricata 8)."""

    opcode: str = ""
    src_mac: Text = ""
    src_ip: str = ""
    dest_ip: str = ""


class Capture(Struct):
    """Counters of the capture method."""

    kernel_packets: Count = 0
    kernel_drops: Count = 0


class Decoder(Struct):
    """Counters of the packet decoder."""

    pkts: Count = 0
    invalid: Count = 0


class Detect(Struct):
    """Counters of the rule engine."""

    alert_queue_overflow: Count = 0


class Stats(Struct):
    """The engine's counters."""

    capture: Capture = field(default_factory=Capture)
    decoder: Decoder = field(default_factory=Decoder)
    detect: Detect = field(default_factory=Detect)


class EveLine(Struct):
    """What every line has, and the parts that some have."""

    event_type: Annotated[str, Meta(max_length=64)]
    timestamp: str
    flow_id: Count = 0
    in_iface: Text = ""
    src_ip: str = ""
    src_port: Port = 0
    dest_ip: str = ""
    dest_port: Port = 0
    proto: Text = ""
    community_id: Text = ""
    app_proto: Text = ""
    tx_id: Count = 0
    direction: str = ""
    alert: Alert | None = None
    flow: Flow | None = None
    tcp: Tcp | None = None
    dns: Dns | None = None
    tls: Tls | None = None
    http: Http | None = None
    ftp: Ftp | None = None
    dhcp: Dhcp | None = None
    arp: Arp | None = None
    stats: Stats | None = None

"""The parts of a Suricata EVE line that we read, as types that msgspec checks while it decodes.

Fields that are not named here are skipped without being built. The shapes cover EVE of Suricata
4 to 8: DNS version 1 (one record per answer), 2 (grouped) and 3 (`queries`), and `arp` events.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=4096)]


class Alert(Struct):
    signature_id: Count
    signature: Text = ""
    category: Text = ""
    severity: Count = 3
    action: Text = ""
    metadata: dict[str, list[str] | str] = field(default_factory=dict)


class Flow(Struct):
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
    tcp_flags: str = "00"
    tcp_flags_ts: str = "00"
    tcp_flags_tc: str = "00"


class DnsQuestion(Struct):
    rrname: Text = ""
    rrtype: Text = ""


class Dns(Struct):
    type: str = ""
    id: Count = 0
    tx_id: Count = 0
    rrname: Text = ""
    rrtype: Text = ""
    queries: list[DnsQuestion] = field(default_factory=list)


class Ja3(Struct):
    hash: Text = ""


class Tls(Struct):
    sni: Text = ""
    subject: Text = ""
    notafter: str = ""
    ja3: Ja3 | None = None
    ja4: Text = ""


class Http(Struct):
    hostname: Text = ""
    url: str = ""
    http_method: Text = ""
    status: Count = 0


class Ftp(Struct):
    command: Text = ""
    completion_code: list[str] = field(default_factory=list)


class Dhcp(Struct):
    type: str = ""
    dhcp_type: str = ""
    id: Count = 0
    client_mac: Text = ""
    assigned_ip: str = ""
    routers: list[str] = field(default_factory=list)


class Arp(Struct):
    opcode: str = ""
    src_mac: Text = ""
    src_ip: str = ""
    dest_ip: str = ""


class Capture(Struct):
    kernel_packets: Count = 0
    kernel_drops: Count = 0


class Decoder(Struct):
    pkts: Count = 0
    invalid: Count = 0


class Detect(Struct):
    alert_queue_overflow: Count = 0
    alerts_suppressed: Count = 0


class Stats(Struct):
    capture: Capture = field(default_factory=Capture)
    decoder: Decoder = field(default_factory=Decoder)
    detect: Detect = field(default_factory=Detect)


class EveLine(Struct):
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

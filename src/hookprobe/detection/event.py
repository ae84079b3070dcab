"""What a sensor saw, in one vocabulary for every sensor. Raw, local, without an encoder.

Records hold addresses as `Address`, which refuses to be serialised. What may leave the edge is made
from an incident by `privacy.anonymize`, and by nothing else.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, unique
from typing import TypeAlias

from hookprobe.detection.address import Address
from hookprobe.wire.instant import Instant


@unique
class Severity(IntEnum):
    """How bad; ordered."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        return self.name.lower()


@unique
class Format(Enum):
    """How a sensor writes its lines."""

    EVE = "eve"
    ZEEK_JSON = "zeek-json"
    ZEEK_TSV = "zeek-tsv"


@dataclass(frozen=True, slots=True)
class Sensor:
    """One stream of lines.

    Args:
        name: The sensor; streams of one name share de-duplication and detectors.
        format: How the lines are written.
        log: Zeek's log name (`conn`, `dns`, ...) where the lines do not carry it.
    """

    name: str
    format: Format = Format.EVE
    log: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Between whom: the sender or initiator first. Ports are 0 where the protocol has none."""

    src: Address
    src_port: int
    dst: Address
    dst_port: int
    proto: str
    community_id: str
    flow_id: str
    in_iface: str

    @property
    def flow_key(self) -> tuple[str, bytes, int, bytes, int]:
        """Names the flow on any interface: the community id where there is one."""
        if self.community_id:
            return (self.community_id, b"", 0, b"", 0)
        return (self.proto, self.src.packed, self.src_port, self.dst.packed, self.dst_port)


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """A rule of the sensor matched.

    `initiator` and `responder` are the ends of the flow, whichever way the matching packet went.
    """

    at: Instant
    conversation: Conversation | None
    signature_id: int
    signature: str
    category: str
    severity: Severity
    techniques: tuple[str, ...]
    initiator: Address | None
    responder: Address | None
    responder_port: int
    blocked: bool
    tx_id: int


@unique
class Outcome(Enum):
    """How far a flow came."""

    UNANSWERED = "unanswered"
    REFUSED = "refused"
    HALF_OPEN = "half-open"
    UNTRACKED = "untracked"  # packets without a handshake: stealth scans, but also stray answers
    ESTABLISHED = "established"


@dataclass(frozen=True, slots=True)
class FlowSeen:
    """A finished flow; `at` is its start."""

    at: Instant
    end: Instant
    conversation: Conversation
    outcome: Outcome
    packets_out: int
    packets_back: int
    bytes_out: int
    bytes_back: int
    app_proto: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class DnsSeen:
    """A DNS question, or the answer to one."""

    at: Instant
    conversation: Conversation
    name: str
    rrtype: str
    is_answer: bool
    tx_id: int


@dataclass(frozen=True, slots=True)
class TlsSeen:
    """A TLS handshake; `not_after` is 0 where the sensor did not say."""

    at: Instant
    conversation: Conversation
    server_name: str
    subject: str
    not_after: Instant
    ja3: str
    ja4: str


@dataclass(frozen=True, slots=True)
class HttpSeen:
    """An HTTP request with its answer's status, 0 where none was seen."""

    at: Instant
    conversation: Conversation
    method: str
    host: str
    path: str
    status: int
    tx_id: int


@dataclass(frozen=True, slots=True)
class LoginSeen:
    """An attempt to log in; `failed` is None where the sensor cannot tell."""

    at: Instant
    conversation: Conversation
    service: str
    failed: bool | None
    tx_id: int


@dataclass(frozen=True, slots=True)
class DhcpSeen:
    """A DHCP message; `server` and `assigned` are None where the message names none."""

    at: Instant
    kind: str
    client_mac: str
    server: Address | None
    assigned: Address | None
    routers: tuple[bytes, ...]
    transaction: int


@dataclass(frozen=True, slots=True)
class ArpSeen:
    """An ARP packet: `mac` claims to own `address` and asks for `target`."""

    at: Instant
    operation: str
    address: Address
    mac: str
    target: Address | None


@dataclass(frozen=True, slots=True)
class SensorHealth:
    """The sensor's own counters since it started."""

    at: Instant
    packets: int
    dropped: int
    invalid: int
    alerts_lost: int


@dataclass(frozen=True, slots=True)
class Unused:
    """A line of a kind that no detector reads; `known` is False for kinds new to us."""

    kind: str
    known: bool


Activity: TypeAlias = (
    SecurityEvent
    | FlowSeen
    | DnsSeen
    | TlsSeen
    | HttpSeen
    | LoginSeen
    | DhcpSeen
    | ArpSeen
    | SensorHealth
)

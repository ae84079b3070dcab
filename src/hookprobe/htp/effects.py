"""What an endpoint asks its host to do, and what it tells it: frozen values, executed in order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from hookprobe.htp.channels import Channel
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class Address(NamedTuple):
    """An IPv4 or IPv6 address in text, and a UDP port."""

    host: str
    port: int


class DropReason(Enum):
    """Why a packet was dropped; every drop is silent on the wire."""

    MALFORMED = "malformed"
    NOT_ANSWERING = "not_answering"
    MAC1 = "mac1"
    COOKIE = "cookie"
    RATE = "rate"
    BUSY = "busy"
    HANDSHAKE = "handshake"
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 (the name of a reason, not a secret)
    REPLAY = "replay"
    SEAL = "seal"
    RESET = "reset"
    EXPIRED = "expired"


class DownReason(Enum):
    """Why a session ended; messages not yet delivered are lost and the layer above re-syncs."""

    CLOSED_HERE = "closed_here"
    CLOSED_BY_PEER = "closed_by_peer"
    RESET = "reset"
    SILENT = "silent"
    IDLE = "idle"
    EXPIRED = "expired"
    REPLACED = "replaced"
    PROTOCOL = "protocol"
    RESONANCE = "resonance"
    TRUST = "trust"


class RefusedReason(Enum):
    """Why a message was not taken for sending."""

    NO_SESSION = "no_session"
    QUEUE_FULL = "queue_full"
    TRUST = "trust"


class RejectCode(Enum):
    """Reasons carried by REJECT."""

    VERSION = 1
    BUSY = 2
    UNKNOWN = 3
    NOT_ACTIVE = 4
    FINGERPRINT = 5
    RESONANCE = 6
    CROSSED = 7  # the other end dials too, and its dial has precedence
    TRUST = 8


class Transmit(NamedTuple):
    """Send one datagram."""

    address: Address
    data: bytes


class TransmitRun(NamedTuple):
    """Send datagrams of one size, in order: hosts that can take them in one call."""

    address: Address
    packets: Sequence[bytes]


Leaving: TypeAlias = Transmit | TransmitRun


def each_datagram(leaving: Iterable[Leaving]) -> Iterator[Transmit]:
    """Yield the datagrams one by one."""
    for one in leaving:
        if isinstance(one, TransmitRun):
            for data in one.packets:
                yield Transmit(one.address, data)
        else:
            yield one


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """The next message of a channel, complete and in order."""

    peer: NodeId
    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A message that was sent once; others may have been lost or overtaken."""

    peer: NodeId
    channel: Channel
    data: bytes


class BulkFragment(NamedTuple):
    """Fragment `place`, and those that follow it, of `last` + 1 equal ones of the chunk of `head`.

    Attributes:
        head: The 16 bytes in front of every fragment.
        place: Of the first of `pieces`.
        last: Number of fragments of the chunk less one.
        pieces: Neighbours that arrived together, at least one.
    """

    head: bytes
    place: int
    last: int
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FragmentsReceived:
    """Fragments of chunks that one read of the socket brought, in order of arrival."""

    peer: NodeId
    fragments: tuple[BulkFragment, ...]


@dataclass(frozen=True, slots=True)
class SessionUp:
    """Messages can flow; both ends are authenticated. `dialled`: we started it."""

    peer: NodeId
    address: Address
    dialled: bool
    suite: int


@dataclass(frozen=True, slots=True)
class SessionRenewed:
    """New keys took over; channels continue without a gap."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class SessionDown:
    """The session ended and what was not acknowledged is lost."""

    peer: NodeId
    reason: DownReason


@dataclass(frozen=True, slots=True)
class SendRefused:
    """A message was not taken; the caller keeps it or drops it knowingly."""

    peer: NodeId
    channel: Channel
    reason: RefusedReason


@dataclass(frozen=True, slots=True)
class ConnectRejected:
    """The peer refused us in a sealed REJECT; the next attempt is at `retry_at`."""

    peer: NodeId
    code: RejectCode
    retry_at: Instant


@dataclass(frozen=True, slots=True)
class BareRejectSeen:
    """An unauthenticated REJECT arrived: a hint for the operator, nothing more."""

    peer: NodeId
    code: RejectCode


@dataclass(frozen=True, slots=True)
class AttestRefused:
    """We refused a peer that proved its address and our key."""

    peer: NodeId
    code: RejectCode


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """A peer's packets come from a new address that has answered a probe."""

    peer: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class ResonanceMismatch:
    """A session packet carried a beacon that is not the peer's; it was asked to attest again."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class TrustReported:
    """The answering peer's trust in us changed, in 1/65535."""

    peer: NodeId
    trust: int


@dataclass(frozen=True, slots=True)
class LevelChanged:
    """What a dialling end may do changed; said once behind every `SessionUp`.

    Attributes:
        peer: The other end; if it dialled, the level is its own, else it is ours.
        permitted: A `trust.Level`.
    """

    peer: NodeId
    permitted: int


@dataclass(frozen=True, slots=True)
class MessageWithheld:
    """A peer sent on a channel that its level does not permit; the message was not delivered."""

    peer: NodeId
    channel: Channel


@dataclass(frozen=True, slots=True)
class VitalsReported:
    """What a heartbeat says about the dialling peer; unverified."""

    peer: NodeId
    ter_sequence: int
    battery: int
    power: int
    load: int
    qsecbit: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A packet was dropped."""

    reason: DropReason


Effect: TypeAlias = (
    Transmit
    | TransmitRun
    | MessageReceived
    | DatagramReceived
    | FragmentsReceived
    | SessionUp
    | SessionRenewed
    | SessionDown
    | SendRefused
    | ConnectRejected
    | BareRejectSeen
    | AttestRefused
    | PeerMoved
    | ResonanceMismatch
    | TrustReported
    | LevelChanged
    | MessageWithheld
    | VitalsReported
    | Dropped
)

"""What the NEURO machines ask for and what they observed; executed in order.

A crash may fall between any two. What must survive (`AppendRecord`, `SaveSnapshot`,
`AppendVerified`, `SaveStanding`) comes before what depends on it (`SendBatch`, `SendAnswer`).
"""

from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.neuro.answer import Answer
from hookprobe.neuro.batch import TerBatch
from hookprobe.neuro.messages import Place
from hookprobe.neuro.quote_documents import Challenge
from hookprobe.neuro.quotes import BootChanged, TpmQuoted, TpmRefused
from hookprobe.neuro.ter import Ter
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

# What a device asks for.


@dataclass(frozen=True, slots=True)
class AppendRecord:
    """Write one record durably, then call `receive_appended`; it is not applied before."""

    epoch: int
    index: int
    record: Ter


@dataclass(frozen=True, slots=True)
class SaveSnapshot:
    """Replace the device's snapshot as a whole; secret."""

    epoch: int
    index: int
    data: bytes

    def __repr__(self) -> str:
        return f"SaveSnapshot(epoch={self.epoch}, index={self.index})"


@dataclass(frozen=True, slots=True)
class TrimLog:
    """Records below this index are no longer needed; after `SaveSnapshot`."""

    epoch: int
    first_index: int


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Send a batch to the verifier."""

    batch: TerBatch


@dataclass(frozen=True, slots=True)
class FindOpening:
    """Look up what opens the commitment of a record, then call `receive_opening`."""

    place: Place


@dataclass(frozen=True, slots=True)
class MeasureHost:
    """Read the sensors and the integrity measurement, then call `measure`."""


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The clock went back behind the last record; the record says last + 1 us instead."""

    last: Instant
    now: Instant


@dataclass(frozen=True, slots=True)
class ClockAwaited:
    """No record: the clock is not set yet and may become so."""

    until: Instant


@dataclass(frozen=True, slots=True)
class BacklogFull:
    """No record: as many as may wait are waiting for the verifier."""

    waiting: int


@dataclass(frozen=True, slots=True)
class ResyncNeeded:
    """Device and verifier cannot go on from here; an operator opens a new epoch."""

    reason: str


@dataclass(frozen=True, slots=True)
class VerdictHeard:
    """The verifier answered."""

    verdict: Verdict | None
    next_index: int


@dataclass(frozen=True, slots=True)
class AskTpm:
    """Have the TPM open a credential and quote over it, then call `receive_quote`.

    `w_fingerprint` is the state the device shows at this moment.
    """

    challenge: Challenge
    w_fingerprint: bytes


HostRequest: TypeAlias = AppendRecord | SaveSnapshot | TrimLog | MeasureHost | FindOpening | AskTpm

# What a verifier asks for.


@dataclass(frozen=True, slots=True)
class AppendVerified:
    """Keep accepted records durably, in the order given."""

    node: NodeId
    epoch: int
    first_index: int
    records: tuple[Ter, ...]


@dataclass(frozen=True, slots=True)
class SaveStanding:
    """Replace what is kept about a device as a whole; secret."""

    node: NodeId
    data: bytes

    def __repr__(self) -> str:
        return f"SaveStanding(node={self.node!r})"


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """Answer a device."""

    node: NodeId
    answer: Answer


@dataclass(frozen=True, slots=True)
class Appraised:
    """A batch was judged. `first_bad` is the first measurement that is not golden."""

    node: NodeId
    verdict: Verdict
    next_index: int
    first_bad: int | None
    substituted: bool


@dataclass(frozen=True, slots=True)
class Rebased:
    """An approved update, or an operator, made another measurement golden."""

    node: NodeId
    index: int
    golden: bytes


@dataclass(frozen=True, slots=True)
class ForkFound:
    """Two records under one index, both signed by the device: evidence of a clone."""

    node: NodeId
    index: int
    ours: Ter
    theirs: TerBatch


@dataclass(frozen=True, slots=True)
class ClockAstray:
    """A batch that came in on time ends far from now."""

    node: NodeId
    behind_us: int


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """A device's trust in basis points."""

    node: NodeId
    basis_points: int


@dataclass(frozen=True, slots=True)
class DeviceSilent:
    """Nothing that resonates was heard of a device for too long."""

    node: NodeId
    since: Instant


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """A batch that could not be laid to any enrolled device's charge."""

    reason: str


@dataclass(frozen=True, slots=True)
class Certified:
    """The verifier's word about a device's state, good or bad, for everybody who counts on it."""

    node: NodeId
    status: Verdict
    data: bytes


@dataclass(frozen=True, slots=True)
class BaselineLearned:
    """The first measurement of a device became golden without anybody having looked at it."""

    node: NodeId
    golden: bytes


Observation: TypeAlias = (
    ClockStepped | ClockAwaited | BacklogFull | ResyncNeeded | VerdictHeard | Appraised | Rebased
    | ForkFound | ClockAstray | TrustChanged | DeviceSilent | BatchRefused | BaselineLearned
    | TpmQuoted | TpmRefused | BootChanged
)  # fmt: skip

DeviceEffect: TypeAlias = HostRequest | Observation | SendBatch
VerifierEffect: TypeAlias = Observation | AppendVerified | SaveStanding | SendAnswer | Certified
Effect: TypeAlias = DeviceEffect | VerifierEffect

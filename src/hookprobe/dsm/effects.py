"""What the ledger's machines return besides `Persist`: messages to send and what they observed.

Effects are executed in order and a crash may fall between any two. `Send` names one peer.
Observations report what happened; logs, metrics, webhooks and invariants read them, and nothing
depends on somebody doing so.
"""

from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.dsm.messages import BlockEntry, Message
from hookprobe.dsm.microblock import LaneKey, SignedBlock
from hookprobe.dsm.store import Persist
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message to one connected peer."""

    peer: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link to a peer and refuse it until then."""

    peer: NodeId
    until: Instant


@dataclass(frozen=True, slots=True)
class BlockAppended:
    """This node wrote a block of its own."""

    signed: SignedBlock


@dataclass(frozen=True, slots=True)
class BlockAccepted:
    """A validator verified and took a block, with its payload if that came along."""

    entry: BlockEntry


@dataclass(frozen=True, slots=True)
class BlockRefused:
    """A validator refused a block."""

    lane: LaneKey
    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """A validator sent its CUT for an epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CheckpointProposed:
    """This validator, as leader, proposed a checkpoint."""

    epoch: int
    view: int
    header_hash: bytes


@dataclass(frozen=True, slots=True)
class Voted:
    """This validator cast a vote; `kind` is the vote's name."""

    epoch: int
    view: int
    kind: str
    header_hash: bytes


@dataclass(frozen=True, slots=True)
class CertificateFormed:
    """A certificate became known to this validator."""

    epoch: int
    view: int
    kind: str
    header_hash: bytes
    voters: int


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """This validator entered a later view."""

    epoch: int
    view: int


@dataclass(frozen=True, slots=True)
class CheckpointFinalized:
    """An epoch is decided; `latency_us` counts from opening, 0 when it was synchronised."""

    epoch: int
    blocks: int
    voters: int
    header_hash: bytes
    latency_us: int


@dataclass(frozen=True, slots=True)
class EpochCompleted:
    """All blocks of a final epoch that were missing have arrived."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RangeFilled:
    """Blocks first..last of a final epoch that were missing have arrived; `linked` to its head."""

    epoch: int
    lane: LaneKey
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class QuorumLost:
    """An open epoch cannot gather a quorum: `heard` of the `needed` validators."""

    epoch: int
    heard: int
    needed: int


@dataclass(frozen=True, slots=True)
class ForkDetected:
    """A node signed two blocks with one number."""

    lane: LaneKey
    seq: int


@dataclass(frozen=True, slots=True)
class MisbehaviourDetected:
    """Evidence against a validator was made or learned."""

    offender: str
    fault: str


@dataclass(frozen=True, slots=True)
class NodeQuarantined:
    """From this checkpoint on no block of the node counts."""

    node_id: NodeId
    epoch: int


@dataclass(frozen=True, slots=True)
class NodeRevoked:
    """An authority revoked a node: from the checkpoint after `epoch` on no block of it counts."""

    node_id: NodeId
    epoch: int


@dataclass(frozen=True, slots=True)
class SlashDue:
    """Evidence against a validator is final: whoever holds its stake may act. Not consensus."""

    validator_id: NodeId
    fault: str
    epoch: int
    evidence_id: bytes


@dataclass(frozen=True, slots=True)
class ValidatorApplied:
    """An application to the validator set is final; `application` is what approvals name."""

    validator_id: NodeId
    application: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class ValidatorSetChanged:
    """From `epoch` on other validators, or other keys of theirs, decide."""

    epoch: int
    added: tuple[NodeId, ...]
    removed: tuple[NodeId, ...]
    rotated: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class PartitionsDropped:
    """Chain time opened a partition of the store, and those too old to keep are gone."""

    partition: int


@dataclass(frozen=True, slots=True)
class VotingSuspended:
    """The vote log is older than what peers saw of this key: abstain before epoch `until`."""

    until: int


@dataclass(frozen=True, slots=True)
class PeerPenalised:
    """A peer broke a rule."""

    peer: NodeId
    reason: str
    score: int


@dataclass(frozen=True, slots=True)
class ReceiptReceived:
    """This node's blocks first..last are proven to be in a final checkpoint."""

    epoch: int
    lane: LaneKey
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class IncarnationStarted:
    """This node begins incarnation `inc`; `recovered` when it names a lost head."""

    inc: int
    recovered: bool


Observation: TypeAlias = (
    BlockAppended
    | BlockAccepted
    | BlockRefused
    | EpochOpened
    | CheckpointProposed
    | Voted
    | CertificateFormed
    | ViewChanged
    | CheckpointFinalized
    | EpochCompleted
    | RangeFilled
    | QuorumLost
    | ForkDetected
    | MisbehaviourDetected
    | NodeQuarantined
    | NodeRevoked
    | SlashDue
    | ValidatorApplied
    | ValidatorSetChanged
    | PartitionsDropped
    | VotingSuspended
    | PeerPenalised
    | ReceiptReceived
    | IncarnationStarted
)

Effect: TypeAlias = Persist | Send | Disconnect | Observation

"""Every message of the ledger (DSM spec 2.5, 2.8, 2.10); `dsm.frames` has their encoding.

| kind | message | class | says |
|---|---|---|---|
| 1 | Blocks | data | blocks, pushed (request 0) or as the answer to a request |
| 2 | Have | data | contiguous verified heads that changed; to an edge: what arrived |
| 3 | GetRange | data | blocks first..last of a chain; a `head` names the branch |
| 4 | CutMessage | consensus | one validator's CUT |
| 5 | Proposal | consensus | a checkpoint for (epoch, view) with what justifies it |
| 6 | Vote | consensus | one vote |
| 7 | CertificateMessage | consensus | a quorum certificate |
| 8 | Status | sync | the next epoch, the last header hash, a hash of all heads |
| 9 | GetCheckpoints | sync | final checkpoints from an epoch on |
| 10 | Checkpoints | sync | the answer |
| 11 | Receipt | sync | proof that a checkpoint holds an edge's blocks |
| 12 | GetHeads | sync | an edge asks what is known of its own chain |
| 13 | HeadsReply | sync | the answer |
| 14 | GetReceipts | sync | an edge asks for receipts from a block on |
| 15 | GetChanges | sync | an edge asks for the validator-set changes from an epoch on |
| 16 | Changes | sync | the answer; also sent when the set changes |
| 17 | GetRelics | sync | what is kept for ever of the blocks of epochs first..last |
| 18 | Relics | sync | the answer, possibly of fewer epochs |
| 19 | GetPack | data | blocks first..last of a final range that ends in `head` |
| 20 | Pack | data | the answer, as bytes, from the head down as far as a frame goes |

Authenticity of the sender is the link's business; everything
that outlives the link is signed.
"""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TypeAlias

from hookprobe.dsm.certificate import (
    QuorumCertificate,
    VoteKind,
)
from hookprobe.dsm.checkpoint import (
    Checkpoint,
    FinalCheckpoint,
    Range,
)
from hookprobe.dsm.cut import SignedCut
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.linked import LinkedBlock
from hookprobe.dsm.microblock import (
    LaneKey,
    Payload,
    SignedBlock,
)
from hookprobe.dsm.roll import SetChange

VERSION = 1
FRAME_MAX_BYTES = 1 << 20
ANSWER_MAX_BYTES = 960 << 10
BLOCKS_MAX = 500
HAVE_MAX = 4096
CHECKPOINTS_MAX = 256
JUSTIFICATION_MAX = 1024
INCARNATIONS_MAX = 64
CHANGES_MAX = 64
RELICS_MAX = 4096
PACK_MAX = 4096


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """A block and, where the receiver may read it, its payload."""

    signed: SignedBlock
    payload: Payload | None = None

    def size(self) -> int:
        """Return an upper bound of the encoded bytes."""
        return len(self.signed.raw) + 128 + (len(self.payload.data) if self.payload else 0)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of one chain in ascending order."""

    request: int
    entries: tuple[BlockEntry, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """Heads that the sender holds without a gap."""

    heads: tuple[tuple[LaneKey, int], ...]


@dataclass(frozen=True, slots=True)
class GetRange:
    """A request for blocks first..last; `head` is the id of block `last`, or zeros for any."""

    request: int
    lane: LaneKey
    first: int
    last: int
    head: bytes


@dataclass(frozen=True, slots=True)
class GetPack:
    """A request for blocks first..last of a final range; `head` is the id of block `last`."""

    request: int
    lane: LaneKey
    first: int
    last: int
    head: bytes


@dataclass(frozen=True, slots=True)
class PackEntry:
    """A block as bytes and, where the receiver may read it, its payload."""

    signed: LinkedBlock
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Pack:
    """Blocks of one chain in ascending order, the last one asked for among them."""

    request: int
    lane: LaneKey
    entries: tuple[PackEntry, ...]


@dataclass(frozen=True, slots=True)
class CutMessage:
    """A CUT."""

    signed: SignedCut


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a leader proposes in (epoch, view).

    `base_view` is the view whose NOTARIZATION it repeats, 0 for a fresh checkpoint; the
    certificates justify that (R2). The signature is over `proposal_statement`.
    """

    epoch: int
    view: int
    checkpoint: Checkpoint
    base_view: int
    certificates: tuple[QuorumCertificate, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote of the validator with number `voter`."""

    kind: VoteKind
    epoch: int
    view: int
    digest: bytes
    voter: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class CertificateMessage:
    """A certificate that the sender holds."""

    certificate: QuorumCertificate


@dataclass(frozen=True, slots=True)
class Status:
    """Where the sender stands.

    `seen_epochs` is one more than the last epoch in which the sender saw a vote or CUT of the
    receiver, 0 for none: a receiver whose own vote log ends earlier has lost it (R8).
    """

    next_epoch: int
    header_hash: bytes
    heads_hash: bytes
    seen_epochs: int


@dataclass(frozen=True, slots=True)
class GetCheckpoints:
    """A request for `count` final checkpoints from epoch `first` on."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Final checkpoints of consecutive epochs."""

    items: tuple[FinalCheckpoint, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof for all blocks of one chain in one epoch: one range proof in the epoch tree."""

    header_raw: bytes
    certificate: QuorumCertificate
    range: Range
    start: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetHeads:
    """The sender asks for the heads of its own incarnations."""


@dataclass(frozen=True, slots=True)
class HeadsReply:
    """All incarnations of the receiver that the sender knows, ascending."""

    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class GetReceipts:
    """The sender asks for receipts of its own incarnation from block `first` on."""

    inc: int
    first: int


@dataclass(frozen=True, slots=True)
class GetChanges:
    """A request for the set changes that headers from epoch `first` on made."""

    first: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Validator-set changes, ascending."""

    items: tuple[SetChange, ...]


@dataclass(frozen=True, slots=True)
class GetRelics:
    """A request for the first and governance blocks of the epochs first..last."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Relics:
    """All such blocks of the epochs first..last, each with its epoch, in order."""

    first: int
    last: int
    blocks: tuple[tuple[int, SignedBlock], ...]


SyncMessage: TypeAlias = (
    Status
    | GetCheckpoints
    | Checkpoints
    | Receipt
    | GetHeads
    | HeadsReply
    | GetReceipts
    | GetChanges
    | Changes
    | GetRelics
    | Relics
)
Message: TypeAlias = (
    Blocks
    | Have
    | GetRange
    | GetPack
    | Pack
    | CutMessage
    | Proposal
    | Vote
    | CertificateMessage
    | SyncMessage
)


@unique
class ChannelClass(IntEnum):
    """Which queue a message belongs to; the smaller number goes first."""

    CONSENSUS = 0
    SYNC = 1
    DATA = 2


_OF_CONSENSUS = (Vote, Proposal, CertificateMessage, CutMessage)
_OF_DATA = (Blocks, Have, GetRange, GetPack, Pack)


def channel_class(message: Message) -> ChannelClass:
    """Return the queue of a message."""
    if isinstance(message, _OF_CONSENSUS):
        return ChannelClass.CONSENSUS
    if isinstance(message, _OF_DATA):
        return ChannelClass.DATA
    return ChannelClass.SYNC

"""The seam between the agreement machine and the ledger around it.

The ledger judges content and reaches peers; the machine returns steps, in order: effects that go
out unchanged, and requests that the ledger turns into effects.
"""

from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol, TypeAlias

from hookprobe.crypto.bls import VoteSigner
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.certificate import QuorumCertificate
from hookprobe.dsm.checkpoint import Checkpoint
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.messages import Message
from hookprobe.wire.instant import Instant


@unique
class Opinion(Enum):
    """What the ledger thinks of a checkpoint's content."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    WAIT = "wait"


class Judge(Protocol):
    """The content rules of DSM spec 2.3 and 2.4."""

    def draft(self, now: Instant) -> Checkpoint | None:
        """Return a fresh checkpoint, or None while CUTs or blocks are missing."""

    def examine(self, checkpoint: Checkpoint) -> Opinion:
        """Judge a proposed checkpoint; WAIT means that blocks are being fetched."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every connected validator; the ledger turns it into `Send`s."""

    message: Message


@dataclass(frozen=True, slots=True)
class Decided:
    """R7: the epoch is final. `checkpoint` is None when the content never arrived."""

    certificate: QuorumCertificate
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class Accused:
    """Evidence against a validator, or a vote of it that is not genuine (evidence None)."""

    place: int
    evidence: bytes | None


Step: TypeAlias = Effect | Broadcast | Decided | Accused


@dataclass(frozen=True, slots=True)
class Seat:
    """This validator's place in the set and its keys."""

    place: int
    signer: Signer
    vote_signer: VoteSigner

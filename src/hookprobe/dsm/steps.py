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
from hookprobe.dsm.enrolment import Enrolment
from hookprobe.dsm.messages import Message
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.errors import LocalError
from hookprobe.wire.identifiers import NodeId
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


NOBODY = -1  # the place of a node that is not in the set: it leads no view and casts no vote


@dataclass(frozen=True, slots=True)
class ValidatorKeys:
    """Who a validator is.

    Args:
        validator_id: Its name.
        signer: Signs CUTs, proposals and the node's own chain.
        vote_signer: Signs votes.
        enrolment: The authority's word for `signer`; without it the node writes no chain.
        spare: Other pairs that were or will be in the set, for the time of a rotation.
    """

    validator_id: NodeId
    signer: Signer
    vote_signer: VoteSigner
    enrolment: Enrolment | None = None
    spare: tuple[tuple[Signer, VoteSigner], ...] = ()

    def seat(self, validators: ValidatorSet) -> Seat | None:
        """Return the place in a set with the keys that it names; None when we are not in it.

        Raises:
            LocalError: The set names us with keys that are not at hand.
        """
        place = validators.place(self.validator_id)
        if place is None:
            return None
        entry = validators.members[place]
        for signer, vote_signer in ((self.signer, self.vote_signer), *self.spare):
            if (signer.public_key, vote_signer.public_key) == (entry.key, entry.vote_key):
                return Seat(place, signer, vote_signer)
        raise LocalError(
            f"the keys at hand are not those of {self.validator_id}",
            hint="keep the old keys until the set names the new ones",
        )

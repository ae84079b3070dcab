"""Counting the votes of one epoch, verified lazily (DSM spec 2.5, R9).

Votes on one (view, kind, digest) are collected unverified. When q of them are there they are
aggregated and checked at once: one pairing instead of q. If that fails, each is checked, the false
ones are dropped and named, and counting goes on. A validator's first two different votes per
(view, kind) are kept, so that contradictions can be shown; more are dropped.
"""

from dataclasses import dataclass, field

from hookprobe.dsm.certificate import (
    QuorumCertificate,
    VoteKind,
    encode_bitmap,
    vote_message,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.messages import Vote
from hookprobe.dsm.misbehaviour import contradict, vote_evidence
from hookprobe.errors import MalformedError

Slot = tuple[int, VoteKind]
VIEWS_AHEAD_MAX = 64
RIVALS_MAX = 2


@dataclass(slots=True)
class Count:
    """What came of one vote."""

    certificate: QuorumCertificate | None = None
    forgers: list[int] = field(default_factory=list)
    evidence: bytes | None = None


class Ballots:
    """The votes of one epoch.

    Args:
        court: Chain, validators and vote scheme.
        epoch: The epoch.
    """

    def __init__(self, court: Court, epoch: int) -> None:
        self._court = court
        self._epoch = epoch
        self._votes: dict[Slot, dict[bytes, dict[int, Vote]]] = {}
        self._verified: dict[tuple[Slot, bytes, int], bool] = {}
        self.heard: dict[int, bool] = {}

    def add(self, vote: Vote) -> Count:
        """Count one vote of a member of the set; duplicates change nothing."""
        slot = (vote.view, vote.kind)
        options = self._votes.setdefault(slot, {})
        held = [digest for digest, voters in options.items() if vote.voter in voters]
        if vote.digest in held or len(held) >= RIVALS_MAX:
            return Count()
        options.setdefault(vote.digest, {})[vote.voter] = vote
        self.heard[vote.voter] = True
        count = Count()
        self._seek_contradiction(vote, count)
        if len(options.get(vote.digest, ())) >= self._court.validators.quorum:
            self._seek_certificate(slot, vote.digest, count)
        return count

    def trust(self, vote: Vote) -> None:
        """Note that a vote is genuine: our own."""
        self._verified[((vote.view, vote.kind), vote.digest, vote.voter)] = True

    def prune(self, below: int) -> None:
        """Forget the votes of views below `below` that can no longer matter, except FINALIZE."""
        for slot in [s for s in self._votes if s[0] < below and s[1] is not VoteKind.FINALIZE]:
            del self._votes[slot]

    def _seek_certificate(self, slot: Slot, digest: bytes, count: Count) -> None:
        voters = self._votes[slot][digest]
        certificate = self._aggregate(slot, digest)
        if certificate is None:
            false = [voter for voter, vote in voters.items() if not self._genuine(vote)]
            for voter in false:
                del voters[voter]
            count.forgers += false
            if len(voters) >= self._court.validators.quorum:
                certificate = self._aggregate(slot, digest)
        count.certificate = certificate

    def _aggregate(self, slot: Slot, digest: bytes) -> QuorumCertificate | None:
        """Return a certificate of the votes held; None when one of them is false."""
        voters = self._votes[slot][digest]
        signers = sorted(voters)
        scheme, validators = self._court.votes, self._court.validators
        try:
            signature = scheme.aggregate([voters[signer].signature for signer in signers])
        except MalformedError:
            return None
        view, kind = slot
        message = vote_message(self._court.chain, kind, self._epoch, view, digest)
        keys = [validators.vote_keys[signer] for signer in signers]
        if not scheme.verify_aggregate(keys, message, signature):
            return None
        bitmap = encode_bitmap(signers, validators.size)
        return QuorumCertificate(kind, self._epoch, view, digest, bitmap, signature)

    def _genuine(self, vote: Vote) -> bool:
        key = ((vote.view, vote.kind), vote.digest, vote.voter)
        if key not in self._verified:
            message = vote_message(
                self._court.chain, vote.kind, self._epoch, vote.view, vote.digest
            )
            public_key = self._court.validators.vote_keys[vote.voter]
            self._verified[key] = self._court.votes.verify(public_key, message, vote.signature)
        return self._verified[key]

    def _seek_contradiction(self, vote: Vote, count: Count) -> None:
        for rival in self._rivals(vote):
            if not contradict((vote.kind, vote.digest), (rival.kind, rival.digest)):
                continue
            pair = [item for item in (vote, rival) if not self._genuine(item)]
            for item in pair:
                self._votes[(item.view, item.kind)][item.digest].pop(item.voter, None)
                count.forgers.append(item.voter)
            if not pair:
                slot = (self._epoch, vote.view)
                count.evidence = vote_evidence(vote.voter, slot, _half(vote), _half(rival))
            return

    def _rivals(self, vote: Vote) -> list[Vote]:
        votes = [
            voters.get(vote.voter)
            for kind in VoteKind
            for voters in self._votes.get((vote.view, kind), {}).values()
        ]
        return [rival for rival in votes if rival is not None and rival is not vote]


def _half(vote: Vote) -> bytes:
    return bytes((vote.kind,)) + vote.digest + vote.signature

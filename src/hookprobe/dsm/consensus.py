"""Simplex-E: agreement on one checkpoint per epoch (DSM spec 2.5).

n validators, f = (n-1)//3 of them Byzantine, q = n - f. One machine decides one epoch.

| rule | |
|---|---|
| R1 | enter v: 1 at opening, then u+1 on holding NOTARIZATION(u) or NULLIFICATION(u) |
| R2 | leader: repeat C of the highest notarised w < v with all views between nullified; |
|    | none notarised and all u < v nullified: a fresh C; attach these certificates |
| R3 | first valid proposal of the current view: NOTARIZE(v,d), once per view |
| R4 | NOTARIZATION(v,d): broadcast; unless NULLIFY(v) was cast, FINALIZE(v,d); enter v+1 |
| R5 | timer T(v) = min(4 s * 1.5^(v-1), 60 s), or invalid content: NULLIFY(v), unless |
|    | FINALIZE(v) was cast; rebroadcast what others may have missed |
| R6 | NULLIFICATION(v): broadcast; enter v+1 |
| R7 | FINALIZATION(v,d): final; broadcast |
| R8 | a vote is durable before it is sent, and never contradicted after a restart |
| R9 | votes are verified lazily; those for a certificate already held are dropped unread |

Safety. If FINALIZATION(v,d) exists, q-f >= f+1 honest validators cast FINALIZE(v,d) and never
NULLIFY(v), so at most n-(f+1) < q NULLIFY votes exist and NULLIFICATION(v) cannot. A valid
proposal at v' > v then rests on a NOTARIZATION at some w >= v; at v only d can be notarised (one
NOTARIZE per view, two quorums share an honest validator), and by induction every value notarised
at or above v is d.

Liveness. Certificates are broadcast, so honest validators enter a view within one delay; timers
grow until the first honest leader's view outlasts three delays and the fetching of blocks.

What C may contain is judged by the ledger through `Judge`.
"""

from collections.abc import Callable

from hookprobe.dsm.ballots import VIEWS_AHEAD_MAX, Ballots, Count
from hookprobe.dsm.certificate import (
    NO_DIGEST,
    QuorumCertificate,
    VoteKind,
    vote_message,
)
from hookprobe.dsm.checkpoint import Checkpoint
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Court
from hookprobe.dsm.effects import (
    CertificateFormed,
    CheckpointProposed,
    ViewChanged,
    Voted,
)
from hookprobe.dsm.messages import CertificateMessage, Message, Proposal, Vote
from hookprobe.dsm.misbehaviour import proposal_evidence, proposal_statement
from hookprobe.dsm.steps import Accused, Broadcast, Decided, Judge, Opinion, Seat, Step
from hookprobe.dsm.store import Persist, Table, Write
from hookprobe.dsm.votelog import Memory, pledge_row, slot_row, voted_row
from hookprobe.errors import VerificationError
from hookprobe.wire.instant import Instant

RECENT_VIEWS = 8
CANDIDATES_MAX = 32
GROWTH_VIEWS_MAX = 30  # 1.5^30 * 1 ms is above every cap; larger exponents only cost time


class Simplex:
    """The machine of one epoch.

    Args:
        court: Chain, validators, schemes.
        epoch: The epoch to decide.
        seat: Who we are.
        judge: Makes and judges content.
        config: Timers.
    """

    def __init__(
        self,
        court: Court,
        epoch: int,
        seat: Seat,
        judge: Judge,
        config: LedgerConfig,
    ) -> None:
        self.epoch = epoch
        self.view = 0
        self.abstain = False
        self.decided = False
        self._court = court
        self._seat = seat
        self._judge = judge
        self._config = config
        self._deadline: Instant | None = None
        self._rebroadcast = Instant(0)
        self._votes: dict[tuple[int, VoteKind], Vote] = {}
        self._notarizations: dict[int, QuorumCertificate] = {}
        self._nullifications: dict[int, QuorumCertificate] = {}
        self._finalization: QuorumCertificate | None = None
        self._proposals: dict[int, Proposal] = {}
        self._candidates: dict[bytes, Checkpoint] = {}
        self._refused: dict[int, bool] = {}
        self._proposed: dict[int, bytes] = {}
        self._pledged: dict[int, bytes] = {}
        self._ballots = Ballots(court, epoch)
        self.leader_timeout: Callable[[int], int | None] = lambda _place: None

    @property
    def heard(self) -> int:
        """How many validators this epoch heard a vote from."""
        return len(self._ballots.heard)

    @property
    def voted(self) -> bool:
        """Whether we cast a vote in this epoch, in this life or an earlier one."""
        return bool(self._votes)

    def restore(self, memory: Memory) -> None:
        """Take over what an earlier life of this validator stored."""
        self._pledged = dict(memory.pledges)
        for checkpoint in memory.candidates:
            self._candidates[checkpoint.hash] = checkpoint
        for key, vote in sorted(memory.votes.items()):
            self._votes[key] = vote
            self._ballots.trust(vote)
            self._ballots.add(vote)
        for certificate in memory.certificates:
            self._hold(certificate)

    def open(self, now: Instant) -> list[Step]:
        """Begin voting: enter the view behind the last certificate held (R1)."""
        held = [*self._notarizations, *self._nullifications]
        return self._enter(max(held, default=0) + 1, now)

    # -- messages ---------------------------------------------------------------------------

    def receive_proposal(self, proposal: Proposal, now: Instant) -> list[Step]:
        """Take a proposal of this epoch.

        Raises:
            VerificationError: Its leader did not sign it.
        """
        view = proposal.view
        if self.decided or not self.view - RECENT_VIEWS <= view <= self.view + VIEWS_AHEAD_MAX:
            return []
        held = self._proposals.get(view)
        if held is not None and held.checkpoint.hash == proposal.checkpoint.hash:
            return []
        leader = self._court.validators.leader(self.epoch, view)
        statement = proposal_statement(
            self._court.chain, self.epoch, view, proposal.checkpoint.hash
        )
        key = self._court.validators.members[leader].key
        if view < 1 or not self._court.signatures.verify(key, statement, proposal.signature):
            raise VerificationError(f"proposal of epoch {self.epoch}: not signed by its leader")
        self._add_candidate(proposal.checkpoint)
        if held is not None:
            return [Accused(leader, _rival_proposals(held, proposal))]
        self._proposals[view] = proposal
        return self._adopt(proposal, now)

    def _add_candidate(self, checkpoint: Checkpoint) -> None:
        if len(self._candidates) >= CANDIDATES_MAX:
            notarized = [item.digest for item in self._notarizations.values()]
            spare = next((key for key in self._candidates if key not in notarized), None)
            if spare is None:
                return
            del self._candidates[spare]
        self._candidates.setdefault(checkpoint.hash, checkpoint)

    def _adopt(self, proposal: Proposal, now: Instant) -> list[Step]:
        steps: list[Step] = []
        for certificate in proposal.certificates:
            if certificate.epoch == self.epoch and certificate.view < proposal.view:
                steps += self.receive_certificate(certificate, now)
        return steps + self._try_vote(now) + self._try_conclude()

    def receive_vote(self, vote: Vote, now: Instant) -> list[Step]:
        """Count a vote of this epoch; `vote.voter` is the authenticated sender's number."""
        if self.decided or vote.view < 1 or vote.view > self.view + VIEWS_AHEAD_MAX:
            return []
        if self._superfluous(vote):
            return []
        if (vote.kind is VoteKind.NULLIFY) != (vote.digest == NO_DIGEST):
            raise VerificationError("vote: digest does not fit the kind")
        return self._counted(self._ballots.add(vote), now)

    def _superfluous(self, vote: Vote) -> bool:
        """R9: tell whether the vote's certificate is held; then it can change nothing."""
        if vote.kind is VoteKind.NOTARIZE:
            held = self._notarizations.get(vote.view)
            return held is not None and held.digest == vote.digest
        if vote.kind is VoteKind.NULLIFY:
            return vote.view in self._nullifications
        return False

    def _counted(self, count: Count, now: Instant) -> list[Step]:
        steps: list[Step] = [Accused(place, None) for place in count.forgers]
        if count.evidence is not None:
            place = int.from_bytes(count.evidence[3:5], "big")
            steps.append(Accused(place, count.evidence))
        if count.certificate is not None:
            steps += self._accept(count.certificate, now)
        return steps

    def receive_certificate(self, certificate: QuorumCertificate, now: Instant) -> list[Step]:
        """Take a certificate of this epoch.

        Raises:
            VerificationError: It does not hold.
        """
        if self.decided or self._holds(certificate):
            return []
        self._court.validators.check_certificate(certificate, self._court.chain, self._court.votes)
        return self._accept(certificate, now)

    def _holds(self, certificate: QuorumCertificate) -> bool:
        match certificate.kind:
            case VoteKind.NOTARIZE:
                return certificate.view in self._notarizations
            case VoteKind.NULLIFY:
                return certificate.view in self._nullifications
            case VoteKind.FINALIZE:
                return self._finalization is not None

    def _hold(self, certificate: QuorumCertificate) -> None:
        match certificate.kind:
            case VoteKind.NOTARIZE:
                self._notarizations[certificate.view] = certificate
            case VoteKind.NULLIFY:
                self._nullifications[certificate.view] = certificate
            case VoteKind.FINALIZE:
                self._finalization = certificate

    # -- rules ------------------------------------------------------------------------------

    def _accept(self, certificate: QuorumCertificate, now: Instant) -> list[Step]:
        """Act on a certificate that is verified and new (R4, R6, R7)."""
        self._hold(certificate)
        view, kind = certificate.view, certificate.kind
        voters = len(certificate.signers())
        steps: list[Step] = [
            CertificateFormed(self.epoch, view, kind.name, certificate.digest, voters)
        ]
        if kind is VoteKind.FINALIZE:
            return [*steps, Broadcast(CertificateMessage(certificate)), *self._try_conclude()]
        row: Write = (Table.CERTIFICATES, slot_row(self.epoch, view, kind), certificate.encode())
        if kind is VoteKind.NOTARIZE and self._may_finalize(view):
            steps += self._cast(view, VoteKind.FINALIZE, certificate.digest, (row,), now)
        else:
            steps.append(Persist((row,)))
        steps.append(Broadcast(CertificateMessage(certificate)))
        if view >= self.view > 0 and not self.decided:
            steps += self._enter(view + 1, now)
        return steps

    def _may_finalize(self, view: int) -> bool:
        """R4: never after a NULLIFY of the same view."""
        return (view, VoteKind.NULLIFY) not in self._votes and self._unvoted(
            view, VoteKind.FINALIZE
        )

    def _may_nullify(self, view: int) -> bool:
        """R5: never after a FINALIZE of the same view."""
        return (view, VoteKind.FINALIZE) not in self._votes and self._unvoted(
            view, VoteKind.NULLIFY
        )

    def _unvoted(self, view: int, kind: VoteKind) -> bool:
        return not self.abstain and (view, kind) not in self._votes

    def _cast(
        self, view: int, kind: VoteKind, digest: bytes, rows: tuple[Write, ...], now: Instant
    ) -> list[Step]:
        """Sign a vote; it is durable before it is sent (R8). `rows` go into the same batch."""
        message = vote_message(self._court.chain, kind, self.epoch, view, digest)
        signature = self._seat.vote_signer.sign(message)
        vote = Vote(kind, self.epoch, view, digest, self._seat.place, signature)
        self._votes[(view, kind)] = vote
        self._ballots.trust(vote)
        row: Write = (Table.VOTES, slot_row(self.epoch, view, kind), digest + signature)
        steps: list[Step] = [
            Persist((*rows, row, voted_row(self.epoch))),
            Voted(self.epoch, view, kind.name, digest),
            Broadcast(vote),
        ]
        return steps + self._counted(self._ballots.add(vote), now)

    def _enter(self, view: int, now: Instant) -> list[Step]:
        """R1."""
        self.view = view
        self._deadline = Instant(now + self._timeout(view))
        self._rebroadcast = Instant(now + self._config.rebroadcast_us)
        self._ballots.prune(view - RECENT_VIEWS)
        old = view - RECENT_VIEWS
        self._proposals = {key: item for key, item in self._proposals.items() if key >= old}
        return [ViewChanged(self.epoch, view), *self.reconsider(now)]

    def _timeout(self, view: int) -> int:
        """Return T(v) in microseconds, shorter for a leader that has long been silent (R10)."""
        growth = min(view - 1, GROWTH_VIEWS_MAX)
        factor: int = 3**growth
        grown = self._config.view_timeout_us * factor // (1 << growth)
        leader = self._court.validators.leader(self.epoch, view)
        short = self.leader_timeout(leader)
        return min(grown, self._config.view_timeout_max_us, grown if short is None else short)

    def reconsider(self, now: Instant) -> list[Step]:
        """Try again what waited for CUTs or blocks."""
        if self.view == 0 or self.decided:
            return []
        return self._try_propose(now) + self._try_vote(now)

    def _try_propose(self, now: Instant) -> list[Step]:
        """R2."""
        view = self.view
        leads = self._court.validators.leader(self.epoch, view) == self._seat.place
        if not leads or view in self._proposed or self.abstain:
            return []
        base = self._base_view()
        if base is None:
            return []
        checkpoint = self._choose(base, now)
        if checkpoint is None:
            return []
        statement = proposal_statement(self._court.chain, self.epoch, view, checkpoint.hash)
        proposal = Proposal(
            self.epoch,
            view,
            checkpoint,
            base,
            self._justification(base),
            self._seat.signer.sign(statement),
        )
        self._proposed[view] = checkpoint.hash
        self._candidates[checkpoint.hash] = checkpoint
        self._proposals[view] = proposal
        pledge: Write = (Table.VOTES, pledge_row(self.epoch, view), checkpoint.hash)
        return [
            Persist((pledge, self._candidate_row(checkpoint), voted_row(self.epoch))),
            CheckpointProposed(self.epoch, view, checkpoint.hash),
            Broadcast(proposal),
        ]

    def _base_view(self) -> int | None:
        """Return w of R2, 0 for a fresh proposal, None when nothing may be proposed yet."""
        for view in range(self.view - 1, 0, -1):
            if view in self._notarizations:
                return view
            if view not in self._nullifications:
                return None
        return 0

    def _choose(self, base: int, now: Instant) -> Checkpoint | None:
        pledged = self._pledged.get(self.view)
        if pledged is not None:
            return self._candidates.get(pledged)
        if base:
            return self._candidates.get(self._notarizations[base].digest)
        return self._judge.draft(now)

    def _justification(self, base: int) -> tuple[QuorumCertificate, ...]:
        notarized = (self._notarizations[base],) if base else ()
        between = range(base + 1, self.view)
        return notarized + tuple(self._nullifications[view] for view in between)

    def _try_vote(self, now: Instant) -> list[Step]:
        """R3, and the NULLIFY of R5 for invalid content."""
        view = self.view
        proposal = self._proposals.get(view)
        if proposal is None or view in self._refused:
            return []
        if self.decided or not self._unvoted(view, VoteKind.NOTARIZE):
            return []
        opinion = Opinion.REFUSE
        if self._justified(proposal):
            opinion = self._judge.examine(proposal.checkpoint)
        if opinion is Opinion.WAIT:
            return []
        if opinion is Opinion.REFUSE:
            self._refused[view] = True
            return self._nullify(now)
        row = self._candidate_row(proposal.checkpoint)
        return self._cast(view, VoteKind.NOTARIZE, proposal.checkpoint.hash, (row,), now)

    def _justified(self, proposal: Proposal) -> bool:
        """R2 from the voter's side; certificates in a proposal were verified on receipt."""
        base, view, digest = proposal.base_view, proposal.view, proposal.checkpoint.hash
        if not 0 <= base < view:
            return False
        if any(skipped not in self._nullifications for skipped in range(base + 1, view)):
            return False
        if base:
            held = self._notarizations.get(base)
            return held is not None and held.digest == digest
        leader = self._court.validators.leader(self.epoch, view)
        author = self._court.validators.members[leader].validator_id
        return proposal.checkpoint.header.validator_id == author

    def _nullify(self, now: Instant) -> list[Step]:
        if not self._may_nullify(self.view):
            return []
        return self._cast(self.view, VoteKind.NULLIFY, NO_DIGEST, (), now)

    def _try_conclude(self) -> list[Step]:
        """R7, as soon as the content is here."""
        certificate = self._finalization
        if certificate is None or self.decided:
            return []
        checkpoint = self._candidates.get(certificate.digest)
        self.decided = checkpoint is not None
        return [Decided(certificate, checkpoint)]

    def _candidate_row(self, checkpoint: Checkpoint) -> Write:
        key = self.epoch.to_bytes(8, "big") + checkpoint.hash
        return (Table.PROPOSALS, key, checkpoint.encode())

    # -- time -------------------------------------------------------------------------------

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        if self.view == 0 or self.decided:
            return None
        if self._deadline is None:
            return self._rebroadcast
        return min(self._deadline, self._rebroadcast)

    def handle_timeout(self, now: Instant) -> list[Step]:
        """R5."""
        steps: list[Step] = []
        if self.view == 0 or self.decided:
            return steps
        if self._deadline is not None and self._deadline <= now:
            self._deadline = None
            steps += self._nullify(now)
        if self._rebroadcast <= now and not self.decided:
            self._rebroadcast = Instant(now + self._config.rebroadcast_us)
            steps += self.recent()
        return steps

    def recent(self) -> list[Step]:
        """Return what the others may have missed: our votes, certificates of recent views."""
        low = self.view - RECENT_VIEWS
        held = [*self._notarizations.items(), *self._nullifications.items()]
        certificates = [item for view, item in sorted(held, key=_by_view) if view >= low]
        if self._finalization is not None:
            certificates.append(self._finalization)
        votes = [
            vote
            for (view, kind), vote in sorted(self._votes.items())
            if view == self.view or (kind is VoteKind.FINALIZE and view >= low)
        ]
        proposal = self._proposals.get(self.view) if self.view in self._proposed else None
        messages: list[Message] = [CertificateMessage(item) for item in certificates]
        messages += votes
        if proposal is not None:
            messages.append(proposal)
        return [Broadcast(message) for message in messages]


def _by_view(item: tuple[int, QuorumCertificate]) -> tuple[int, int]:
    return item[0], item[1].kind


def _rival_proposals(one: Proposal, other: Proposal) -> bytes:
    return proposal_evidence(
        one.epoch,
        one.view,
        one.checkpoint.hash + one.signature,
        other.checkpoint.hash + other.signature,
    )

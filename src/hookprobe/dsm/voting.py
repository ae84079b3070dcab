"""One validator's part in the agreement: when to open an epoch, what to report, when to abstain.

Epoch e opens at start + (e+1) D by the local clock, or when f+1 CUTs for it are here, and only
after e-1 is final; after a stall epochs run back to back with a gap (DSM spec 2.3). At opening the
validator signs one CUT, durably before it is sent.

Each epoch has the validators of its own set, so places are numbers in that set and everything that
outlives an epoch is kept by name. A node that is not in the set watches: it neither opens epochs
nor votes.

A validator votes only after f+1 peers said what they saw of its key. If f+1 of them saw it sign in
an epoch beyond its own vote log, the log was lost or rolled back, and it abstains until that
epoch + 2 (DSM spec 2.5, R8). A ledger put back from a copy names an epoch to abstain before, so
that this holds when all peers have forgotten what they saw.
"""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.consensus import Simplex
from hookprobe.dsm.content import ContentJudge, Want
from hookprobe.dsm.cut import Cut, SignedCut, parse_cut, sign_cut
from hookprobe.dsm.effects import EpochOpened, QuorumLost, VotingSuspended
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.history import History
from hookprobe.dsm.messages import (
    CertificateMessage,
    CutMessage,
    Message,
    Proposal,
    Status,
    Vote,
)
from hookprobe.dsm.microblock import SIGNATURE_BYTES, LaneKey
from hookprobe.dsm.misbehaviour import cut_evidence
from hookprobe.dsm.peers import Peer
from hookprobe.dsm.steps import NOBODY, Accused, Broadcast, Seat, Step, ValidatorKeys
from hookprobe.dsm.store import Persist, StoreReader, Table
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.dsm.votelog import ABSTAIN_KEY, VOTED_KEY, load_memory, voted_row
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant, earliest
from hookprobe.wire.reader import Writer

EARLY_MAX = 64
CUTS_BUDGET_BYTES = 600_000
EVIDENCE_BUDGET_BYTES = 100_000
HEAD_BYTES = 64

Consensus = Vote | Proposal | CertificateMessage | CutMessage


@dataclass(frozen=True, slots=True)
class Terms:
    """What never changes while a validator runs."""

    genesis: Genesis
    keys: ValidatorKeys
    config: LedgerConfig
    reader: StoreReader


class Voting:
    """Everything that is per epoch.

    Args:
        terms: Who we are and under which rules.
        history: The agreed past.
        judge: Makes and judges content.
        gossip: Where new evidence waits.
        now: When we start.
    """

    simplex_type: ClassVar[type[Simplex]] = Simplex

    def __init__(
        self, terms: Terms, history: History, judge: ContentJudge, gossip: Gossip, now: Instant
    ) -> None:
        self.opened_at: Instant | None = None
        self._terms = terms
        self._history = history
        self._judge = judge
        self._gossip = gossip
        self._own_id = terms.keys.validator_id
        voted = terms.reader.get(Table.META, VOTED_KEY)
        self._voted_epochs = int.from_bytes(voted, "big") + 1 if voted is not None else 0
        self._seen: dict[NodeId, int] = {}
        self._reports: dict[NodeId, int] = {}
        self._active: dict[NodeId, int] = {}
        self._started_epoch = history.next_epoch
        silent = terms.reader.get(Table.META, ABSTAIN_KEY)
        self._suspended_until = int.from_bytes(silent or b"", "big")
        self._told_until = 0
        self._early: dict[NodeId, deque[Consensus | Status]] = {}
        self._last_open: Instant | None = None
        self._alarm_at: Instant | None = None
        self._recut_at = now
        self.simplex = self._new_simplex()

    def _new_simplex(self) -> Simplex:
        terms, epoch, court = self._terms, self._history.next_epoch, self._history.court
        seat = terms.keys.seat(court.validators)
        self.seated = seat is not None
        self.cleared = self._clear()
        self.seat = seat or Seat(NOBODY, terms.keys.signer, terms.keys.vote_signer)
        simplex = self.simplex_type(court, epoch, self.seat, self._judge, terms.config)
        simplex.leader_timeout = self._leader_timeout
        simplex.abstain = self._must_abstain(epoch)
        if self.seated:
            simplex.restore(load_memory(terms.reader, epoch, self.seat.place))
        return simplex

    @property
    def _validators(self) -> ValidatorSet:
        return self._history.court.validators

    @property
    def epoch(self) -> int:
        return self.simplex.epoch

    def _must_abstain(self, epoch: int) -> bool:
        """R8: tell whether a vote might contradict one that a lost log knew; no seat, no vote."""
        return not self.seated or not self.cleared or epoch < self._suspended_until

    def _clear(self) -> bool:
        """Tell whether enough peers of the set told what they saw of our key."""
        validators = self._validators
        heard = sum(self._is_member(node) for node in self._reports)
        return heard >= min(validators.faults + 1, validators.size - 1)

    def begin(self) -> list[tuple[NodeId, Consensus | Status]]:
        """Turn to the next epoch and return the messages for it that came early."""
        self._voted_epochs = self._voted()
        self._judge.new_epoch()
        self.opened_at = None
        self._alarm_at = None
        self.simplex = self._new_simplex()
        early = [(node, message) for node, queue in self._early.items() for message in queue]
        self._early = {}
        return early

    # -- opening ----------------------------------------------------------------------------

    def open_at(self) -> Instant:
        """Return when the clock opens the epoch."""
        genesis = self._terms.genesis
        due = genesis.start + (self.epoch + 1) * genesis.epoch_duration_us
        if self._last_open is not None:
            due = max(due, self._last_open + self._terms.config.epoch_gap_us)
        return Instant(due)

    def _try_open(self, now: Instant) -> list[Step]:
        enough = len(self._judge.cuts) > self._validators.faults
        if self.opened_at is not None or not self.seated or not self.cleared:
            return []
        if not enough and now < self.open_at():
            return []
        return self._open(now)

    def _open(self, now: Instant) -> list[Step]:
        config = self._terms.config
        self.opened_at = self._last_open = now
        self._alarm_at = Instant(now + config.quorum_alarm_us)
        self._recut_at = Instant(now + config.rebroadcast_us)
        steps: list[Step] = [EpochOpened(self.epoch)]
        if self.simplex.abstain and self._told_until < self._suspended_until:
            steps.append(self._suspended())  # by a restored backup; peers need not have said so
        if not self.simplex.abstain:
            steps += self._report(now)
        return steps + self.simplex.open(now)

    def _report(self, now: Instant) -> list[Step]:
        """Sign our CUT, or take the one that we signed before a restart."""
        key = self.epoch.to_bytes(8, "big")
        stored = self._terms.reader.get(Table.CUTS, key)
        if stored is not None:
            signed = parse_cut(stored[SIGNATURE_BYTES:], stored[:SIGNATURE_BYTES])
            self._add_cut(self.seat.place, signed, now)
            return [Broadcast(CutMessage(signed))]
        signed = sign_cut(self._cut(now), self.seat.signer)
        self._voted_epochs = max(self._voted_epochs, self.epoch + 1)
        self._add_cut(self.seat.place, signed, now)
        rows = Persist(((Table.CUTS, key, signed.signature + signed.raw), voted_row(self.epoch)))
        return [rows, Broadcast(CutMessage(signed))]

    def _cut(self, now: Instant) -> Cut:
        return Cut(
            self._history.court.chain,
            self.epoch,
            self._history.last_hash,
            now // MILLISECOND,
            self._own_id,
            tuple(self._heads()),
            tuple(self._evidence()),
        )

    def _heads(self) -> list[tuple[LaneKey, int]]:
        """Return what advanced, as much as lets all CUTs fit one proposal.

        When there is more, the epoch number decides where the list begins, so that every chain
        gets its turn.
        """
        heads = self._gossip.advanced()
        most = max(1, CUTS_BUDGET_BYTES // (HEAD_BYTES * self._validators.size))
        if len(heads) <= most:
            return heads
        start = self.epoch * most % len(heads)
        return sorted((heads + heads)[start : start + most])

    def _evidence(self) -> list[bytes]:
        """Return pending evidence against offenders that are not settled, sorted, bounded."""
        room = max(1, EVIDENCE_BUDGET_BYTES // self._validators.size)
        chosen: list[bytes] = []
        offenders: dict[str, bool] = {}
        for key in sorted(self._gossip.evidence):
            evidence = self._gossip.evidence[key]
            verdict = self._judge.verdict(evidence)
            if verdict is None or verdict.offender in self._history.settled:
                continue
            if verdict.offender in offenders or (chosen and len(evidence) > room):
                continue
            offenders[verdict.offender] = True
            room -= len(evidence)
            chosen.append(evidence)
        return sorted(chosen)

    # -- messages ---------------------------------------------------------------------------

    def hold_early(self, peer: Peer, message: Consensus | Status) -> None:
        """Keep a message of a later epoch; the oldest goes when a peer sends too many."""
        queue = self._early.setdefault(peer.node_id, deque(maxlen=EARLY_MAX))
        queue.append(message)

    def receive(self, peer: Peer, message: Consensus, now: Instant) -> list[Step]:
        """Take a consensus message of the current epoch from a validator.

        Raises:
            VerificationError: It does not hold, or speaks for another validator.
        """
        place = peer.place
        if place is None:
            raise VerificationError("consensus message from an edge")
        if not self.seated:
            return []
        match message:
            case CutMessage(signed):
                return self._receive_cut(place, signed, now)
            case Vote():
                if message.voter != place:
                    raise VerificationError("vote sent by another validator")
                self._note_activity(place)
                return self.simplex.receive_vote(message, now)
            case Proposal():
                leader = self._validators.leader(message.epoch, message.view)
                if leader != place or message.checkpoint.header.epoch != message.epoch:
                    raise VerificationError("proposal sent by another validator")
                self._note_activity(place)
                return self.simplex.receive_proposal(message, now)
            case CertificateMessage(certificate):
                return self.simplex.receive_certificate(certificate, now)

    def _receive_cut(self, place: int, signed: SignedCut, now: Instant) -> list[Step]:
        if self._judge.verify_cut(signed) != place:
            raise VerificationError("cut sent by another validator")
        self._note_activity(place)
        held = self._judge.cuts.get(place)
        if held is not None and held.id != signed.id:
            return [Accused(place, cut_evidence(_encode(held), _encode(signed)))]
        if held is not None:
            return []
        self._add_cut(place, signed, now)
        steps = self._try_open(now)
        return steps or self.simplex.reconsider(now)

    def _add_cut(self, place: int, signed: SignedCut, now: Instant) -> None:
        self._judge.cuts[place] = signed
        if len(self._judge.cuts) == self._validators.quorum:
            self._judge.ready_at = Instant(now + self._terms.config.cut_grace_us)

    def _note_activity(self, place: int) -> None:
        node = self._validators.ids[place]
        self._seen[node] = self._active[node] = self.epoch + 1

    def seen_epochs(self, node: NodeId) -> int:
        """Return one more than the last epoch in which we saw a validator sign; 0 for never."""
        return self._seen.get(node, 0)

    def note_signers(self, nodes: list[NodeId], epoch: int) -> None:
        """Note who signed a checkpoint that became final."""
        for node in nodes:
            self._seen[node] = max(self._seen.get(node, 0), epoch + 1)
            self._active[node] = max(self._active.get(node, 0), epoch + 1)

    def _leader_timeout(self, place: int) -> int | None:
        """R10: a leader silent for long while others were active gets little time."""
        config, leader = self._terms.config, self._validators.ids[place]
        # Silence counts from when the leader could be heard: not before its set, nor before us.
        since = max(self._started_epoch, self._history.roll.since)
        silent = self.epoch - self._active.get(leader, since)
        others = any(
            self.epoch - last < config.silent_epochs
            for other, last in self._active.items()
            if other not in (leader, self._own_id)
        )
        if silent >= config.silent_epochs and others and leader != self._own_id:
            return config.silent_leader_timeout_us
        return None

    def receive_report(self, peer: Peer, status: Status, now: Instant) -> list[Step]:
        """Take what a member saw of our key (R8); of one to come, when its epoch begins here."""
        if peer.place is None:
            if status.next_epoch > self.epoch:
                self.hold_early(peer, status)
            return []
        seen_epochs = self._reports[peer.node_id] = status.seen_epochs
        if not self.cleared:
            self.cleared = self._clear()
            self.simplex.abstain = self._must_abstain(self.epoch)
        voted = self._voted()
        if seen_epochs <= voted:  # adds nothing to the reports that say more
            return self._try_open(now)
        faults = self._validators.faults
        known = [seen for node, seen in self._reports.items() if self._is_member(node)]
        ordered = sorted(known, reverse=True)
        claim = ordered[faults] if len(ordered) > faults else 0
        steps: list[Step] = []
        if claim > voted and claim + 1 > self._suspended_until:
            self._suspended_until = claim + 1
            self.simplex.abstain = self._must_abstain(self.epoch)
            steps.append(self._suspended())
        return steps + self._try_open(now)

    def _suspended(self) -> Step:
        self._told_until = self._suspended_until
        return VotingSuspended(self._suspended_until)

    def _is_member(self, node: NodeId) -> bool:
        return self._validators.place(node) is not None

    def _voted(self) -> int:
        """Return one more than the last epoch in which we signed a CUT or a vote.

        A certificate may draw a FINALIZE before the epoch is open.
        """
        reported = self.opened_at is not None and not self.simplex.abstain
        signed = reported or self.simplex.voted
        return max(self._voted_epochs, self.epoch + 1 if signed else 0)

    def reconsider(self, now: Instant) -> list[Step]:
        """Try again what waited for blocks."""
        return self.simplex.reconsider(now)

    def sources(self, want: Want) -> list[NodeId]:
        """Return whom to ask for blocks: the leader first, then who reported them, then all."""
        validators, simplex = self._validators, self.simplex
        leader = validators.leader(simplex.epoch, max(simplex.view, 1))
        reporters = [
            place
            for place, signed in sorted(self._judge.cuts.items())
            if any(lane == want.lane and seq >= want.last for lane, seq in signed.cut.heads)
        ]
        places = dict.fromkeys([leader, *reporters, *range(validators.size)])
        return [validators.ids[place] for place in places if place != self.seat.place]

    # -- time -------------------------------------------------------------------------------

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        if not self.seated:
            return None
        if self.opened_at is None:
            return self.open_at() if self.cleared else self._unopened_alarm()
        ready_at, agree_at = self._judge.ready_at, self.simplex.next_timeout()
        return earliest(self._alarm_at, self._recut_at, ready_at, agree_at)

    def handle_timeout(self, now: Instant) -> list[Step]:
        """Open, rebroadcast, raise the alarm, and let the agreement machine act."""
        config = self._terms.config
        if not self.seated:
            return []
        if self.opened_at is None:
            if self.cleared or now < self._unopened_alarm():
                return self._try_open(now)
            self._alarm_at = Instant(now + config.quorum_alarm_us)
            return [self._alarm()]
        steps: list[Step] = []
        if self._judge.ready_at is not None and self._judge.ready_at <= now:
            # The grace is over: with ready_at in the past a leader proposes what it has.
            self._judge.grace_over = True
            self._judge.ready_at = None
            steps += self.simplex.reconsider(now)
        if self._recut_at <= now:
            self._recut_at = Instant(now + config.rebroadcast_us)
            own = self._judge.cuts.get(self.seat.place)
            steps += [Broadcast(CutMessage(own))] if own is not None else []
        if self._alarm_at is not None and self._alarm_at <= now:
            self._alarm_at = Instant(now + config.quorum_alarm_us)
            steps.append(self._alarm())
        return steps + self.simplex.handle_timeout(now)

    def _unopened_alarm(self) -> Instant:
        """Return when an epoch that is due but cannot open, for want of peers, raises the alarm."""
        if self._alarm_at is not None:
            return self._alarm_at
        return Instant(self.open_at() + self._terms.config.quorum_alarm_us)

    def _alarm(self) -> QuorumLost:
        heard = max(len(self._judge.cuts), self.simplex.heard)
        return QuorumLost(self.epoch, heard, self._validators.quorum)


def _encode(signed: SignedCut) -> bytes:
    writer = Writer()
    signed.write(writer)
    return writer.finish()


def epoch_of(message: Message) -> int | None:
    """Return the epoch of a consensus message."""
    match message:
        case Vote() | Proposal():
            return message.epoch
        case CutMessage(signed):
            return signed.cut.epoch
        case CertificateMessage(certificate):
            return certificate.epoch
        case _:
            return None

"""The ledger of a validator: blocks in, checkpoints agreed, receipts out.

It composes the machines of the room: `Gossip` brings blocks, `ContentJudge` makes and judges
content, `Voting` with `Simplex` agrees per epoch, `Synchronizer` catches up, `History` is the
result. It knows its connected peers and turns offences into scores. Restart = a new object over
the same store, then `start`.
"""

from dataclasses import dataclass

from hookprobe.crypto.bls import VoteSigner
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.checkpoint import FinalCheckpoint, Range
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import ContentJudge, Want
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.effects import (
    CheckpointFinalized,
    Disconnect,
    Effect,
    MisbehaviourDetected,
    NodeQuarantined,
    PeerPenalised,
    Send,
)
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import (
    Blocks,
    CertificateMessage,
    ChannelClass,
    Checkpoints,
    CutMessage,
    GetCheckpoints,
    GetHeads,
    GetRange,
    GetReceipts,
    Have,
    HeadsReply,
    Message,
    Proposal,
    Receipt,
    Status,
    Vote,
    channel_class,
    decode,
)
from hookprobe.dsm.microblock import lane_row
from hookprobe.dsm.misbehaviour import Fault
from hookprobe.dsm.peers import (
    PENALTY_INVALID,
    PENALTY_LIMIT,
    PENALTY_UNREQUESTED,
    Budget,
    Peer,
    PeerBook,
)
from hookprobe.dsm.receipts import ReceiptDesk
from hookprobe.dsm.steps import Accused, Broadcast, Decided, Seat, Step
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.dsm.sync import Synchronizer
from hookprobe.dsm.votelog import forget_rows
from hookprobe.dsm.voting import Consensus, Terms, Voting, epoch_of
from hookprobe.errors import LimitExceededError, LocalError, RemoteError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

ANSWER_EVERY_US = 500 * MILLISECOND


@dataclass(frozen=True, slots=True)
class ValidatorKeys:
    """Who a validator is."""

    validator_id: NodeId
    signer: Signer
    vote_signer: VoteSigner


class ValidatorLedger:
    """One validator.

    Args:
        genesis: The agreed start of the chain.
        keys: Who we are.
        schemes: How to check signatures.
        reader: The store as it was left.
        config: Timers and limits.

    Raises:
        VerificationError: The genesis document does not hold.
        LocalError: We are not in its validator set, or hold other keys.
    """

    voting_type: type[Voting] = Voting

    def __init__(
        self,
        genesis: Genesis,
        keys: ValidatorKeys,
        schemes: Schemes,
        reader: StoreReader,
        config: LedgerConfig,
    ) -> None:
        self.court = convene(genesis, schemes)
        validators = self.court.validators
        place = validators.place(keys.validator_id)
        if place is None:
            raise LocalError(f"{keys.validator_id} is not a validator of this chain")
        entry = validators.members[place]
        if (entry.key, entry.vote_key) != (keys.signer.public_key, keys.vote_signer.public_key):
            raise LocalError(f"the keys at hand are not those of {keys.validator_id}")
        self.history = History(self.court, reader)
        self.book = LaneBook(self.court, reader, config)
        self.book.revoked = self.history.revoked()
        self.peers = PeerBook(config)
        self.gossip = Gossip(self.book, self.peers, reader, config)
        self.judge = ContentJudge(
            self.court,
            self.history,
            self.book,
            (keys.validator_id, keys.signer),
            genesis.floor_cap,
        )
        seat = Seat(place, keys.signer, keys.vote_signer)
        self._terms = Terms(genesis, self.court, seat, config, reader)
        self._sync = Synchronizer(self.history, config)
        self._reader = reader
        self._config = config
        self.receipts = ReceiptDesk(self.history, self.peers, reader)
        self._last_final = self.history.latest()
        self._status_at = Instant(0)
        self.voting = self.voting_type(
            self._terms, self.history, self.judge, self.gossip, Instant(0)
        )

    # -- links ------------------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Begin; with a set of one validator this opens epochs without hearing anybody."""
        self._status_at = Instant(now + self._config.status_us)
        return self.handle_timeout(now)

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Take a new, authenticated link."""
        place = self.court.validators.place(node_id)
        peer = self.peers.admit(node_id, place, now)
        if peer is None:
            return [Disconnect(node_id, Instant(now + self._config.disconnect_us))]
        if place is None:
            return []
        effects: list[Effect] = [self._status(peer)]
        effects += self.gossip.all_heads(node_id)
        steps = self.voting.simplex.recent() if self.voting.opened_at is not None else []
        own = self.judge.cuts.get(self._terms.seat.place)
        messages: list[Message] = [CutMessage(own)] if own is not None else []
        messages += [step.message for step in steps if isinstance(step, Broadcast)]
        effects += [Send(node_id, message) for message in messages]
        return effects + self.gossip.fetch_missing(now)

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Forget a link; what was asked of it is asked of others."""
        self.peers.remove(node_id)
        self._sync.peer_disconnected(node_id)
        return list(self.gossip.puller.peer_disconnected(node_id, now))

    def _status(self, peer: Peer) -> Send:
        seen = self.voting.seen_epochs(peer.place) if peer.place is not None else 0
        history = self.history
        status = Status(history.next_epoch, history.last_hash, self.gossip.heads_hash(), seen)
        return Send(peer.node_id, status)

    # -- messages in ------------------------------------------------------------------------

    def receive_frame(self, node_id: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame from a connected peer; what breaks the rules lowers its score."""
        peer = self.peers.peers.get(node_id)
        if peer is None or not peer.buckets[Budget.BYTES].take(len(frame), now):
            return []
        try:
            message = decode(frame)
        except RemoteError as error:
            return self._penalise(node_id, error, now)
        return self.receive_message(node_id, message, now)

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        """Take one message from a connected peer."""
        peer = self.peers.peers.get(node_id)
        if peer is None:
            return []
        consensus = channel_class(message) is ChannelClass.CONSENSUS
        budget = Budget.CONSENSUS if consensus else Budget.MESSAGES
        if not peer.buckets[budget].take(1, now):
            return []
        try:
            effects = self._dispatch(peer, message, now)
        except RemoteError as error:
            effects = self._penalise(node_id, error, now)
        return effects + self._settle(now)

    def _dispatch(self, peer: Peer, message: Message, now: Instant) -> list[Effect]:
        match message:
            case Vote() | Proposal() | CertificateMessage() | CutMessage():
                return self._receive_consensus(peer, message, now)
            case Blocks():
                return self._receive_blocks(peer, message, now)
            case Have():
                return self.gossip.receive_have(peer, message, now)
            case GetRange():
                return self.gossip.receive_get_range(peer, message)
            case _:
                return self._dispatch_sync(peer, message, now)

    def _dispatch_sync(
        self,
        peer: Peer,
        message: Status
        | GetCheckpoints
        | Checkpoints
        | Receipt
        | GetHeads
        | HeadsReply
        | GetReceipts,
        now: Instant,
    ) -> list[Effect]:
        match message:
            case Status():
                return self._receive_status(peer, message, now)
            case GetCheckpoints():
                return self._sync.receive_get(peer, message)
            case Checkpoints():
                return self._receive_checkpoints(peer, message, now)
            case GetHeads():
                return [Send(peer.node_id, HeadsReply(self.book.incarnations(peer.node_id)))]
            case GetReceipts():
                return self.receipts.receive_get(peer, message)
            case Receipt() | HeadsReply():
                raise VerificationError("a validator takes no receipts and asked for no heads")

    def _receive_blocks(self, peer: Peer, message: Blocks, now: Instant) -> list[Effect]:
        effects = self.gossip.receive_blocks(peer, message, now)
        return effects + self._carry_out(self.voting.reconsider(now), now)

    def _receive_consensus(self, peer: Peer, message: Consensus, now: Instant) -> list[Effect]:
        epoch = epoch_of(message)
        if peer.place is None or epoch is None:
            raise VerificationError("consensus message from an edge")
        if epoch < self.voting.epoch:
            return self._answer_late(peer, message, now)
        if epoch > self.voting.epoch:
            self.voting.hold_early(peer, message)
            return self._sync.want(peer.node_id, now)
        return self._carry_out(self.voting.receive(peer, message, now), now)

    def _answer_late(self, peer: Peer, message: Consensus, now: Instant) -> list[Effect]:
        """R7: tell a peer that the epoch it speaks of is final."""
        final = isinstance(message, CertificateMessage)
        if final or self._last_final is None or now - peer.answered_at < ANSWER_EVERY_US:
            return []
        peer.answered_at = now
        return [Send(peer.node_id, CertificateMessage(self._last_final.certificate))]

    def _receive_status(self, peer: Peer, status: Status, now: Instant) -> list[Effect]:
        if peer.place is None:
            raise VerificationError("status from an edge")
        effects: list[Effect] = []
        if status.next_epoch > self.history.next_epoch:
            effects += self._sync.want(peer.node_id, now)
        elif status.next_epoch < self.history.next_epoch:
            effects.append(self._status(peer))
        if status.heads_hash != self.gossip.heads_hash():
            effects += self.gossip.all_heads(peer.node_id)
        steps = self.voting.receive_report(peer.place, status.seen_epochs, now)
        return effects + self._carry_out(steps, now)

    def _receive_checkpoints(self, peer: Peer, message: Checkpoints, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for final in self._sync.receive_checkpoints(peer, message):
            if final.checkpoint.header.epoch < self.history.next_epoch:
                continue
            self.history.check_next(final)
            effects += self._finalize(final, now)
        if effects:
            effects += self._sync.want(peer.node_id, now)
        return effects

    # -- what follows -------------------------------------------------------------------------

    def _carry_out(self, steps: list[Step], now: Instant) -> list[Effect]:
        """Turn steps of the agreement machine into effects, in order."""
        effects: list[Effect] = []
        for step in steps:
            match step:
                case Broadcast(message):
                    effects += [Send(node, message) for node in self.peers.validators()]
                case Decided(certificate, checkpoint):
                    if checkpoint is None:
                        effects += self._ask_signers(certificate.signers(), now)
                    else:
                        effects += self._finalize(FinalCheckpoint(checkpoint, certificate), now)
                case Accused(place, evidence):
                    effects += self._accuse(place, evidence, now)
                case _:
                    effects.append(step)
        return effects + self._fetch_wants(now)

    def _ask_signers(self, places: list[int], now: Instant) -> list[Effect]:
        for place in places:
            node = self.court.validators.ids[place]
            if node in self.peers.peers:
                return self._sync.want(node, now)
        return []

    def _accuse(self, place: int, evidence: bytes | None, now: Instant) -> list[Effect]:
        offender = self.court.validators.ids[place]
        if evidence is None:
            return self._penalise(offender, VerificationError("vote that is not genuine"), now)
        verdict = self.judge.verdict(evidence)
        if verdict is None or offender in self.history.settled:
            return []
        rows = self.gossip.add_evidence(evidence)
        if not rows:
            return []
        return [Persist(tuple(rows)), MisbehaviourDetected(offender, verdict.fault.name)]

    def _fetch_wants(self, now: Instant) -> list[Effect]:
        """Ask for the blocks that content needs: the leader first, then who reported them."""
        wants, self.judge.wants = self.judge.wants, []
        effects: list[Effect] = []
        for want in wants:
            effects += self.gossip.fetch(want, self._sources(want), now)
        return effects

    def _sources(self, want: Want) -> list[NodeId]:
        validators, simplex = self.court.validators, self.voting.simplex
        leader = validators.leader(simplex.epoch, max(simplex.view, 1))
        reporters = [
            place
            for place, signed in sorted(self.judge.cuts.items())
            if any(lane == want.lane and seq >= want.last for lane, seq in signed.cut.heads)
        ]
        places = dict.fromkeys([leader, *reporters, *range(validators.size)])
        return [validators.ids[place] for place in places if place != self._terms.seat.place]

    def _finalize(self, final: FinalCheckpoint, now: Instant) -> list[Effect]:
        """Make a checkpoint, certified and next in line, part of the history."""
        content, header = final.checkpoint.content, final.checkpoint.header
        opened_at = self.voting.opened_at
        verdicts = [
            found for item in content.evidence if (found := self.judge.verdict(item)) is not None
        ]
        writes: list[Write] = list(forget_rows(self._reader, header.epoch))
        block_ids: list[bytes] = []
        complete = True
        for covered in content.ranges:
            path, rows = self.book.finalize(covered)
            writes += rows
            writes.append(_coverage(covered, header.epoch))
            if path is None:
                complete = False
                writes.append(self.gossip.remember_missing(header.epoch, covered))
            block_ids += [signed.id for signed in path or ()]
        writes += self.history.advance(final, verdicts)
        self.book.revoked = self.history.revoked()
        writes += self.gossip.drop_settled(self.history.settled, self.judge)
        self._last_final = final
        latency = now - opened_at if opened_at is not None else 0
        voters = final.certificate.signers()
        effects: list[Effect] = [
            Persist(tuple(writes)),
            CheckpointFinalized(
                header.epoch, header.count, len(voters), final.checkpoint.hash, latency
            ),
        ]
        effects += [
            NodeQuarantined(NodeId(found.offender), header.epoch)
            for found in verdicts
            if found.fault is Fault.FORK
        ]
        if complete:
            effects += self.receipts.push(final, block_ids)
        else:
            effects += self.gossip.fetch_missing(now)
        self.voting.note_signers(voters, header.epoch)
        return effects + self._next_epoch(now)

    def _next_epoch(self, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for node_id, message in self.voting.begin():
            peer = self.peers.peers.get(node_id)
            if peer is None:
                continue
            try:
                effects += self._receive_consensus(peer, message, now)
            except RemoteError as error:
                effects += self._penalise(node_id, error, now)
        return effects

    # -- scores and time ----------------------------------------------------------------------

    def _penalise(self, node_id: NodeId, error: RemoteError, now: Instant) -> list[Effect]:
        peer = self.peers.peers.get(node_id)
        if peer is None:
            return []
        return self._score(peer, _points(error), error.message, now)

    def _score(self, peer: Peer, points: int, reason: str, now: Instant) -> list[Effect]:
        until = self.peers.penalise(peer, points, now)
        effects: list[Effect] = [PeerPenalised(peer.node_id, reason, peer.score)]
        if until is not None:
            effects.append(Disconnect(peer.node_id, until))
            effects += self.peer_disconnected(peer.node_id, now)
        return effects

    def _settle(self, now: Instant) -> list[Effect]:
        """Turn offences found while blocks were taken into scores."""
        offences, self.gossip.offences = self.gossip.offences, []
        effects: list[Effect] = []
        for node_id, error in offences:
            effects += self._penalise(node_id, error, now)
        return effects

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        times = [
            self._status_at,
            self.voting.next_timeout(),
            self.gossip.next_timeout(),
            self._sync.next_timeout(),
        ]
        return min(item for item in times if item is not None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        late, effects = self.gossip.handle_timeout(now)
        for node_id in [*late, *self._sync.handle_timeout(now)]:
            peer = self.peers.peers.get(node_id)
            if peer is not None:
                self.peers.silent(peer, now)
                effects.append(PeerPenalised(node_id, "request not answered", peer.score))
        if self._status_at <= now:
            self._status_at = Instant(now + self._config.status_us)
            effects += self._statuses()
            effects += self.gossip.fetch_missing(now)
        return effects + self._carry_out(self.voting.handle_timeout(now), now)

    def _statuses(self) -> list[Effect]:
        return [self._status(self.peers.peers[node]) for node in self.peers.validators()]


def _points(error: RemoteError) -> int:
    if isinstance(error, LimitExceededError):
        return PENALTY_LIMIT
    if "not asked for" in error.message:
        return PENALTY_UNREQUESTED
    return PENALTY_INVALID


def _coverage(covered: Range, epoch: int) -> Write:
    key = lane_row(covered.lane) + covered.last.to_bytes(8, "big")
    return (Table.COVERAGE, key, epoch.to_bytes(8, "big"))

"""The ledger of a validator: blocks in, checkpoints agreed, receipts out.

It composes the machines of the room: `Gossip` brings blocks, `ContentJudge` makes and judges
content, `Voting` with `Simplex` agrees per epoch, `Finality` carries what was agreed into
`History`, which knows the validators of every epoch; `Synchronizer` catches up, `Clerk` writes our
own chain. It knows its connected peers and turns offences into scores. Restart = a new object over
the same store, then `start`.
"""

from collections.abc import Sequence
from typing import ClassVar

from hookprobe.dsm.answers import AnswerDesk
from hookprobe.dsm.backlog import Backlog
from hookprobe.dsm.chain import Author, Event
from hookprobe.dsm.checkpoint import FinalCheckpoint
from hookprobe.dsm.clerk import Clerk
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import ContentJudge
from hookprobe.dsm.court import Court, Schemes, convene
from hookprobe.dsm.effects import (
    CheckpointFinalized,
    Disconnect,
    Effect,
    MisbehaviourDetected,
    PeerPenalised,
    Send,
)
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.finality import Finality
from hookprobe.dsm.frames import decode
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.governance import EVENT_TYPE, Governance
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import (
    Blocks,
    CertificateMessage,
    Changes,
    ChannelClass,
    Checkpoints,
    CutMessage,
    GetPack,
    GetRange,
    Have,
    HeadsReply,
    Message,
    Pack,
    Proposal,
    Receipt,
    Relics,
    Status,
    SyncMessage,
    Vote,
    channel_class,
)
from hookprobe.dsm.peers import (
    Budget,
    Peer,
    PeerBook,
    points_of,
)
from hookprobe.dsm.receipts import ReceiptDesk
from hookprobe.dsm.relics import RelicDesk
from hookprobe.dsm.scribe import ChainHost, Scribe
from hookprobe.dsm.steps import Accused, Broadcast, Decided, Step, ValidatorKeys
from hookprobe.dsm.store import Persist
from hookprobe.dsm.sync import Synchronizer
from hookprobe.dsm.voting import Consensus, Terms, Voting, epoch_of
from hookprobe.errors import LocalError, RemoteError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant, earliest

ANSWER_EVERY_US = 500 * MILLISECOND


class ValidatorLedger:
    """One validator.

    Args:
        genesis: The agreed start of the chain.
        keys: Who we are.
        schemes: How to check signatures.
        host: The store as it was left, and randomness.
        config: Timers and limits.

    A node that is not in the validator set watches: it follows the history, writes its own chain
    and takes its seat when the set names it.

    Raises:
        VerificationError: The genesis document does not hold.
        LocalError: The set names us with other keys than those at hand.
    """

    voting_type: ClassVar[type[Voting]] = Voting

    def __init__(
        self,
        genesis: Genesis,
        keys: ValidatorKeys,
        schemes: Schemes,
        host: ChainHost,
        config: LedgerConfig,
    ) -> None:
        court, reader = convene(genesis, schemes), host.reader
        self.keys = keys
        self.history = History(genesis, court, reader)
        self.book = LaneBook(court, reader, config)
        self.book.revoked = self.history.revoked()
        self.book.dead_keys = self.history.registry.dead_keys
        self.peers = PeerBook(config)
        self.gossip = Gossip(self.book, self.peers, reader, config)
        self.backlog = Backlog(self.book, self.peers, reader, config)
        author = (keys.validator_id, keys.signer)
        self.judge = ContentJudge(self.history, self.book, author, genesis.floor_cap)
        self.receipts = ReceiptDesk(self.history, self.peers, self.backlog, reader)
        self.clerk: Clerk | None = None
        if keys.enrolment is not None:
            pen = Author(court.chain, keys.validator_id, keys.signer, keys.enrolment)
            scribe = Scribe(pen, host, config.recovery_wait_us)
            self.clerk = Clerk(keys.validator_id, scribe, self.gossip, self.book, self.peers)
        self._sync = Synchronizer(self.history, config)
        blocks = (self.gossip, self.backlog)
        self._finality = Finality(self.history, self.book, blocks, self.judge, reader, config)
        self._relics = RelicDesk(self.history, self._finality, self.peers, reader)
        self._answers = AnswerDesk(
            self.history, self.book, blocks, self._sync, self.receipts, self._relics
        )
        self._config = config
        self._last_final = self.history.latest()
        self._status_at = Instant(0)
        terms = Terms(genesis, keys, config, reader)
        self.voting = self.voting_type(terms, self.history, self.judge, self.gossip, Instant(0))
        self._reseat()

    @property
    def court(self) -> Court:
        """The court of the open epoch."""
        return self.history.court

    def _reseat(self) -> None:
        """Take the places that the set of the open epoch gives."""
        self.peers.reseat(self.court.validators)
        self.gossip.only = None if self.voting.seated else self.keys.validator_id
        self.judge.author = (self.keys.validator_id, self.voting.seat.signer)

    def append(self, events: Sequence[Event], now: Instant) -> list[Effect]:
        """Write events into this validator's own chain.

        Raises:
            LocalError: The node was started without its enrolment.
            UnavailableError: The own head is not known yet and too many events are waiting.
        """
        if self.clerk is None:
            raise LocalError(
                f"{self.keys.validator_id} has no enrolment, so it writes no chain",
                hint="start it from the folder in which it was enrolled",
            )
        return self.clerk.append(events, now)

    def act(self, what: Governance, now: Instant) -> list[Effect]:
        """Apply, approve, remove or revoke: write it into this validator's own chain."""
        return self.append([Event(EVENT_TYPE, b"", body=what.to_body())], now)

    # -- links ------------------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Begin; with a set of one validator this opens epochs without hearing anybody."""
        self._status_at = Instant(now + self._config.status_us)
        effects = self._finality.start()
        self.backlog.start(now)
        if self.clerk is not None:
            # Who is no validator yet is known to them by its enrolment only.
            effects += self.clerk.start(now, writes_at_once=not self.voting.seated)
        return effects + self.handle_timeout(now)

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
        if self.clerk is not None:
            effects += self.clerk.greet(node_id)
        steps = self.voting.simplex.recent() if self.voting.opened_at is not None else []
        own = self.judge.cuts.get(self.voting.seat.place)
        messages: list[Message] = [CutMessage(own)] if own is not None else []
        messages += [step.message for step in steps if isinstance(step, Broadcast)]
        effects += [Send(node_id, message) for message in messages]
        return effects + self.backlog.fetch(now)

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Forget a link; what was asked of it is asked of others."""
        self.peers.remove(node_id)
        self._sync.peer_disconnected(node_id)
        sends = self.gossip.puller.peer_disconnected(node_id, now)
        return [*sends, *self.backlog.puller.peer_disconnected(node_id, now)]

    def _status(self, peer: Peer) -> Send:
        seen = self.voting.seen_epochs(peer.node_id)
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
            case Pack():
                return self._receive_pack(peer, message, now)
            case _:
                return self._dispatch_sync(peer, message, now)

    def _dispatch_sync(
        self, peer: Peer, message: SyncMessage | GetRange | GetPack, now: Instant
    ) -> list[Effect]:
        match message:
            case Status():
                return self._receive_status(peer, message, now)
            case Checkpoints():
                return self._receive_checkpoints(peer, message, now)
            case HeadsReply(heads):
                return self._receive_heads(peer, heads, now)
            case Relics():
                return self._relics.receive(peer, message)
            case Receipt() | Changes():
                if self.clerk is None or not self.clerk.has_chain:
                    raise VerificationError("receipts and changes are for edges")
                return []  # for a node with a chain; a validator has the headers themselves
            case _:
                return self._answers.receive_get(peer, message, now)

    def _receive_heads(self, peer: Peer, heads: tuple[Head, ...], now: Instant) -> list[Effect]:
        if peer.place is None or self.clerk is None:
            raise VerificationError("heads that were not asked for")
        faults = self.court.validators.faults
        return self.clerk.receive_heads(peer.node_id, heads, faults, now)

    def _receive_blocks(self, peer: Peer, message: Blocks, now: Instant) -> list[Effect]:
        effects = self.gossip.receive_blocks(peer, message, now)
        return effects + self._carry_out(self.voting.reconsider(now), now)

    def _receive_pack(self, peer: Peer, message: Pack, now: Instant) -> list[Effect]:
        effects = self.backlog.receive_pack(peer, message, now)
        filled, self.backlog.filled = self.backlog.filled, []
        for epoch, covered, blocks in filled:
            effects += self._finality.filled(epoch, covered, blocks)
        return effects + self._carry_out(self.voting.reconsider(now), now)

    def _receive_consensus(self, peer: Peer, message: Consensus, now: Instant) -> list[Effect]:
        epoch = epoch_of(message)
        if epoch is None or not self._is_kin(peer):
            raise VerificationError("consensus message from an edge")
        if epoch < self.voting.epoch:
            return self._answer_late(peer, message, now)
        if epoch > self.voting.epoch:
            if peer.place is not None:
                self.voting.hold_early(peer, message)
            return self._sync.want(peer.node_id, now)
        return self._carry_out(self.voting.receive(peer, message, now), now)

    def _is_kin(self, peer: Peer) -> bool:
        """Tell whether a peer is, was, or is enrolled to become a validator."""
        if peer.place is not None or self.history.roll.knows(peer.node_id):
            return True
        return self.book.role(peer.node_id) == "validator"

    def _answer_late(self, peer: Peer, message: Consensus, now: Instant) -> list[Effect]:
        """R7: tell a peer that the epoch it speaks of is final."""
        final = isinstance(message, CertificateMessage)
        if final or self._last_final is None or now - peer.answered_at < ANSWER_EVERY_US:
            return []
        peer.answered_at = now
        return [Send(peer.node_id, CertificateMessage(self._last_final.certificate))]

    def _receive_status(self, peer: Peer, status: Status, now: Instant) -> list[Effect]:
        if self.book.role(peer.node_id) == "edge" and peer.place is None:
            raise VerificationError("status from an edge")
        if not self._is_kin(peer):
            return []  # enrolled to become one, perhaps: its first block is on its way
        effects: list[Effect] = []
        if status.next_epoch > self.history.next_epoch:
            effects += self._sync.want(peer.node_id, now)
        elif status.next_epoch < self.history.next_epoch:
            effects.append(self._status(peer))
        if status.heads_hash != self.gossip.heads_hash():
            effects += self.gossip.all_heads(peer.node_id)
        return effects + self._carry_out(self.voting.receive_report(peer, status, now), now)

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
                        effects += self._decided(FinalCheckpoint(checkpoint, certificate), now)
                case Accused(place, evidence):
                    effects += self._accuse(place, evidence, now)
                case _:
                    effects.append(step)
        return effects + self._fetch_wants(now)

    def _decided(self, final: FinalCheckpoint, now: Instant) -> list[Effect]:
        header = final.checkpoint.header
        changes = header.next_validators_hash != header.validators_hash
        if changes and not self.history.complete:
            # We do not know the next set yet: whoever signed sends its members along.
            return self._ask_signers(final.certificate.signers(), now)
        return self._finalize(final, now)

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
            effects += self.gossip.fetch(want, self.voting.sources(want), now)
        return effects

    def _finalize(self, final: FinalCheckpoint, now: Instant) -> list[Effect]:
        """Make a checkpoint, certified and next in line, part of the history."""
        header, opened_at = final.checkpoint.header, self.voting.opened_at
        voters = [self.court.validators.ids[place] for place in final.certificate.signers()]
        since = self.history.roll.since
        effects, block_ids = self._finality.apply(final)
        self._last_final = final
        latency = now - opened_at if opened_at is not None else 0
        told = CheckpointFinalized(
            header.epoch, header.count, len(voters), final.checkpoint.hash, latency
        )
        effects.insert(1, told)
        if self.history.roll.since != since:
            for node in [node for node, peer in self.peers.peers.items() if peer.place is None]:
                effects += self._answers.changes(node, header.epoch)
        if block_ids is not None:
            effects += self.receipts.push(final, block_ids)
        else:
            effects += self.backlog.fetch(now)
        self.voting.note_signers(voters, header.epoch)
        effects += self._next_epoch(now)
        if self.history.roll.since != since:
            return effects + self._statuses()  # R8: new members are to say what they saw
        # Who only watches hears of it at once and not with the next STATUS.
        return effects + [self._status(peer) for peer in self._watchers()]

    def _watchers(self) -> list[Peer]:
        others = [peer for peer in self.peers.peers.values() if peer.place is None]
        return sorted(filter(self._is_kin, others), key=lambda peer: peer.node_id)

    def _next_epoch(self, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        early = self.voting.begin()
        self._reseat()
        for node_id, message in early:
            peer = self.peers.peers.get(node_id)
            if peer is None:
                continue
            try:
                if isinstance(message, Status):
                    steps = self.voting.receive_report(peer, message, now)
                    effects += self._carry_out(steps, now)
                else:
                    effects += self._receive_consensus(peer, message, now)
            except RemoteError as error:
                effects += self._penalise(node_id, error, now)
        return effects

    # -- scores and time ----------------------------------------------------------------------

    def _penalise(self, node_id: NodeId, error: RemoteError, now: Instant) -> list[Effect]:
        peer = self.peers.peers.get(node_id)
        if peer is None:
            return []
        until = self.peers.penalise(peer, points_of(error), now)
        effects: list[Effect] = [PeerPenalised(node_id, error.message, peer.score)]
        if until is not None:
            effects.append(Disconnect(node_id, until))
            effects += self.peer_disconnected(node_id, now)
        return effects

    def _settle(self, now: Instant) -> list[Effect]:
        """Turn offences found while blocks were taken into scores."""
        effects: list[Effect] = []
        for node_id, error in self.peers.take_offences():
            effects += self._penalise(node_id, error, now)
        return effects

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        return earliest(
            self._status_at,
            self.voting.next_timeout(),
            self.gossip.next_timeout(),
            self.backlog.next_timeout(),
            self._sync.next_timeout(),
            self.clerk.next_timeout() if self.clerk is not None else None,
        )

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        late, effects = self.gossip.handle_timeout(now)
        later, more = self.backlog.handle_timeout(now)
        effects += more
        for node_id in [*late, *later, *self._sync.handle_timeout(now)]:
            peer = self.peers.peers.get(node_id)
            if peer is not None:
                self.peers.silent(peer, now)
                effects.append(PeerPenalised(node_id, "request not answered", peer.score))
        if self.clerk is not None:
            effects += self.clerk.handle_timeout(self.court.validators.faults, now)
        if self._status_at <= now:
            self._status_at = Instant(now + self._config.status_us)
            effects += self._statuses()
            effects += self.backlog.fetch(now)
            effects += self._relics.ask()
        effects += self._carry_out(self.voting.handle_timeout(now), now)
        return effects + self._settle(now)

    def _statuses(self) -> list[Effect]:
        members = [self.peers.peers[node] for node in self.peers.validators()]
        effects: list[Effect] = [self._status(peer) for peer in [*members, *self._watchers()]]
        if not self.voting.seated:
            # Nobody asks who is not enrolled yet, so its heads are told until they are heard.
            effects += [item for peer in members for item in self.gossip.all_heads(peer.node_id)]
        return effects

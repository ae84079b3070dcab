"""The ledger of an edge: its chain, pushed to validators, proven by receipts.

At start the edge asks f+1 validators for its own head. If theirs is higher or other than its own
record, or there is no record, it begins a new incarnation with a RECOVER block; it never uses a
sequence number twice. Without answers within the recovery wait it also begins a new incarnation:
that is always safe. Events that come before are held, up to a limit.

Blocks go in batches to two of the connected validators, chosen by hash. A HAVE acknowledges what
arrived; what is not acknowledged is sent again. Receipts are checked against the edge's own blocks
before they are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.chain import Author, Binder, Chain, Event
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.effects import Effect, PeerPenalised, ReceiptReceived, Send
from hookprobe.dsm.enrolment import Enrolment, Head
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.messages import (
    BLOCKS_MAX,
    BlockEntry,
    Blocks,
    GetHeads,
    GetRange,
    GetReceipts,
    Have,
    HeadsReply,
    Message,
    Receipt,
    decode,
)
from hookprobe.dsm.receipts import check_receipt, encode_receipt
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.errors import RemoteError, UnavailableError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

HELD_EVENTS_MAX = 4096
PUSH_BUDGET_BYTES = 900 << 10


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """Who an edge is, the CA's word for it, and what binds its blocks to its weights."""

    node_id: NodeId
    signer: Signer
    enrolment: Enrolment
    bind: Binder | None = None


@dataclass(slots=True)
class Progress:
    """How far one validator got one incarnation."""

    acked: int
    sent: int
    retry_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class EdgeHost:
    """What the host lends: the store as it was left, and a source of salts."""

    reader: StoreReader
    random_bytes: Callable[[int], bytes]


class EdgeLedger:
    """One edge.

    Args:
        genesis: The agreed start of the chain.
        keys: Who we are.
        schemes: How to check receipts.
        host: Store and randomness.
        config: Timers and limits.

    Raises:
        VerificationError: The genesis document does not hold.
    """

    def __init__(
        self,
        genesis: Genesis,
        keys: EdgeKeys,
        schemes: Schemes,
        host: EdgeHost,
        config: LedgerConfig,
    ) -> None:
        self.court = convene(genesis, schemes)
        author = Author(self.court.chain, keys.node_id, keys.signer, keys.enrolment, keys.bind)
        self.chain = Chain(author, host.reader, host.random_bytes)
        self.writing = False
        self._node_id = keys.node_id
        self._config = config
        self._peers: list[NodeId] = []
        self._answers: dict[NodeId, tuple[Head, ...]] = {}
        self._held: list[Event] = []
        self._progress: dict[tuple[NodeId, int], Progress] = {}
        self._recover_at: Instant | None = None
        self._push_at: Instant | None = None
        self._ask_at: Instant | None = None

    # -- start and links ----------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Begin: nothing is written before the own head is known to be the last."""
        self._recover_at = Instant(now + self._config.recovery_wait_us)
        self._ask_at = Instant(now + self._config.status_us)
        return []

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Take a link to a validator; others are ignored."""
        if self.court.validators.place(node_id) is None or node_id in self._peers:
            return []
        self._peers = sorted([*self._peers, node_id])
        effects: list[Effect] = []
        if not self.writing:
            effects.append(Send(node_id, GetHeads()))
        effects += self._ask_receipts(node_id)
        self._schedule_push(now)
        return effects

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Forget a link; another validator takes its place."""
        if node_id in self._peers:
            self._peers.remove(node_id)
        self._progress = {key: item for key, item in self._progress.items() if key[0] != node_id}
        self._schedule_push(now)
        return []

    def _targets(self) -> list[NodeId]:
        """Return the validators to push to: the nearest by hash, so that edges spread."""
        ordered = sorted(self._peers, key=self._distance)
        return ordered[: self._config.push_validators]

    def _distance(self, validator_id: NodeId) -> bytes:
        return digest(Domain.HEADS, f"{self._node_id} {validator_id}".encode())

    # -- events -----------------------------------------------------------------------------

    def append(self, events: Sequence[Event], now: Instant) -> list[Effect]:
        """Write events down and push them soon.

        Raises:
            UnavailableError: The own head is not known yet and too many events are waiting.
            LimitExceededError: An event is too large.
        """
        if not self.writing:
            if len(self._held) + len(events) > HELD_EVENTS_MAX:
                raise UnavailableError("ledger: the last head of this node is not known yet")
            self._held += events
            return []
        effects = self.chain.append(events, now)
        self._schedule_push(now)
        if self._waiting_blocks() >= self._config.push_blocks_max:
            effects += self._push(now)
        return effects

    def _waiting_blocks(self) -> int:
        head = self.chain.open_head
        if head is None:
            return 0
        sent = [
            self._progress[(peer, head.inc)].sent
            for peer in self._targets()
            if (peer, head.inc) in self._progress
        ]
        return head.seq - min(sent, default=head.receipted)

    def _schedule_push(self, now: Instant) -> None:
        if self._push_at is None:
            self._push_at = Instant(now + self._config.push_delay_us)

    def _push(self, now: Instant) -> list[Effect]:
        """Send what the targets lack, oldest incarnation first, within the window."""
        self._push_at = None
        effects: list[Effect] = []
        for peer in self._targets():
            for inc in sorted(self.chain.heads):
                effects += self._push_lane(peer, inc, now)
        return effects

    def _push_lane(self, peer: NodeId, inc: int, now: Instant) -> list[Effect]:
        head = self.chain.heads[inc]
        progress = self._progress.setdefault((peer, inc), Progress(head.receipted, head.receipted))
        last = min(head.seq, progress.acked + self._config.push_window_blocks)
        effects: list[Effect] = []
        while progress.sent < last:
            stop = min(last, progress.sent + self._config.push_blocks_max)
            entries = self._fitting(self.chain.entries(inc, progress.sent + 1, stop))
            if not entries:
                break
            effects.append(Send(peer, Blocks(0, tuple(entries))))
            progress.sent = entries[-1].signed.seq
        if progress.acked < head.seq and progress.retry_at is None:
            progress.retry_at = Instant(now + self._config.push_retry_us)
        return effects

    def _fitting(self, entries: Sequence[BlockEntry]) -> list[BlockEntry]:
        room = PUSH_BUDGET_BYTES
        chosen: list[BlockEntry] = []
        for entry in entries:
            kept = entry if self._config.share_payloads else BlockEntry(entry.signed)
            room -= kept.size()
            if room < 0:
                break
            chosen.append(kept)
        return chosen

    # -- messages ---------------------------------------------------------------------------

    def receive_frame(self, node_id: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame from a connected validator."""
        try:
            return self.receive_message(node_id, decode(frame), now)
        except RemoteError as error:
            return [PeerPenalised(node_id, error.message, 0)]

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        """Take one message from a connected validator; edges ignore what is not for them."""
        if node_id not in self._peers:
            return []
        try:
            match message:
                case Have():
                    return self._receive_have(node_id, message, now)
                case HeadsReply(heads):
                    return self._receive_heads(node_id, heads, now)
                case Receipt():
                    return self._receive_receipt(message)
                case GetRange():
                    return self._receive_get_range(node_id, message)
                case _:
                    return []
        except RemoteError as error:
            return [PeerPenalised(node_id, error.message, 0)]

    def _receive_have(self, peer: NodeId, message: Have, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for (node, inc), seq in message.heads:
            progress = self._progress.get((peer, inc))
            if node != self._node_id or progress is None:
                continue
            progress.acked = max(progress.acked, min(seq, self.chain.heads[inc].seq))
            progress.sent = max(progress.sent, progress.acked)
            progress.retry_at = None
            effects += self._push_lane(peer, inc, now)
        return effects

    def _receive_get_range(self, peer: NodeId, message: GetRange) -> list[Effect]:
        node, inc = message.lane
        if node != self._node_id or inc not in self.chain.heads:
            raise VerificationError("range of another node asked of an edge")
        last = min(message.last, message.first + BLOCKS_MAX - 1)
        entries = self._fitting(self.chain.entries(inc, message.first, last))
        return [Send(peer, Blocks(message.request, tuple(entries)))]

    def _receive_heads(self, peer: NodeId, heads: tuple[Head, ...], now: Instant) -> list[Effect]:
        if self.writing:
            return []
        self._answers[peer] = heads
        if len(self._answers) <= self.court.validators.faults:
            return []
        return self._begin(now)

    def _begin(self, now: Instant) -> list[Effect]:
        """Continue our chain if nobody knows more of it than we do; else start anew."""
        own = self.chain.open_head
        known = [head for heads in self._answers.values() for head in heads]
        enough = len(self._answers) > self.court.validators.faults
        self.writing = True
        self._recover_at = None
        effects: list[Effect] = []
        if own is None or not enough or any(self._surprises(head) for head in known):
            effects += self.chain.begin(known, now)
        events, self._held = self._held, []
        if events:
            effects += self.chain.append(events, now)
        self._schedule_push(now)
        return effects

    def _surprises(self, head: Head) -> bool:
        """Tell whether a reported head is beyond or beside our own record."""
        own = self.chain.heads.get(head.inc)
        if own is None or head.seq > own.seq:
            return True
        return head.seq == own.seq and head.block_id != own.block_id

    def _receive_receipt(self, receipt: Receipt) -> list[Effect]:
        """Check a receipt against our own blocks and keep it.

        Raises:
            VerificationError: It is not about our blocks, or does not hold.
        """
        covered = receipt.range
        head = self.chain.heads.get(covered.inc)
        if covered.node_id != self._node_id or head is None or covered.last > head.seq:
            raise VerificationError("receipt of blocks that are not ours")
        if covered.last <= head.receipted:
            return []
        entries = self.chain.entries(covered.inc, covered.first, covered.last)
        header = check_receipt(receipt, [entry.signed.id for entry in entries], self.court)
        key = covered.inc.to_bytes(4, "big") + covered.first.to_bytes(8, "big")
        writes: list[Write] = [(Table.RECEIPTS, key, encode_receipt(receipt))]
        row = self.chain.receipted(covered.inc, covered.first, covered.last)
        if row is not None:
            writes.append(row)
        found = ReceiptReceived(header.epoch, covered.lane, covered.first, covered.last)
        return [Persist(tuple(writes)), found]

    def _ask_receipts(self, peer: NodeId) -> list[Effect]:
        return [
            Send(peer, GetReceipts(head.inc, head.receipted + 1))
            for head in (self.chain.heads[inc] for inc in sorted(self.chain.heads))
            if head.receipted < head.seq
        ]

    # -- time -------------------------------------------------------------------------------

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        retries = [item.retry_at for item in self._progress.values()]
        times = [self._recover_at, self._push_at, self._ask_at, *retries]
        return min((item for item in times if item is not None), default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Begin without answers, push, push again, ask for receipts."""
        effects: list[Effect] = []
        if self._recover_at is not None and self._recover_at <= now and not self.writing:
            effects += self._begin(now)
        for _, progress in sorted(self._progress.items()):
            if progress.retry_at is not None and progress.retry_at <= now:
                progress.retry_at = None
                progress.sent = progress.acked
                self._push_at = now
        if self._push_at is not None and self._push_at <= now:
            effects += self._push(now)
        if self._ask_at is not None and self._ask_at <= now:
            self._ask_at = Instant(now + self._config.status_us)
            for peer in self._targets():
                effects += self._ask_receipts(peer)
            if not self.writing:
                effects += [Send(peer, GetHeads()) for peer in self._peers]
        return effects

"""The ledger of an edge: its chain, pushed to validators, proven by receipts.

At start the edge asks f+1 validators for its own head before it writes (`dsm.scribe`). It follows
the validator set as a light client (`dsm.roll`): validators send it the changes, and a receipt of a
set that it does not know yet makes it ask for them.

Blocks go in batches to two of the connected validators, chosen by hash. A HAVE acknowledges what
arrived; what is not acknowledged is sent again. Receipts are checked against the edge's own blocks
before they are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.chain import Author, Binder, Chain, Event
from hookprobe.dsm.checkpoint import parse_header
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.effects import Effect, PeerPenalised, ReceiptReceived, Send
from hookprobe.dsm.enrolment import Enrolment
from hookprobe.dsm.frames import decode
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.messages import (
    BLOCKS_MAX,
    BlockEntry,
    Blocks,
    Changes,
    GetChanges,
    GetHeads,
    GetRange,
    GetReceipts,
    Have,
    HeadsReply,
    Message,
    Receipt,
)
from hookprobe.dsm.receipts import check_receipt, encode_receipt
from hookprobe.dsm.roll import Roll, decode_change
from hookprobe.dsm.scribe import ChainHost, Scribe
from hookprobe.dsm.store import Persist, Table, Write
from hookprobe.errors import RemoteError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant, earliest

CHANGES_KEPT_MAX = 1_000_000
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
        host: ChainHost,
        config: LedgerConfig,
    ) -> None:
        court = convene(genesis, schemes)
        self.roll = Roll(court)
        for _, value in host.reader.scan(Table.CHANGES, b"", b"\xff" * 9, CHANGES_KEPT_MAX):
            self.roll.restore(decode_change(value))
        author = Author(court.chain, keys.node_id, keys.signer, keys.enrolment, keys.bind)
        self._scribe = Scribe(author, host, config.recovery_wait_us)
        self._node_id = keys.node_id
        self._config = config
        self._links: dict[NodeId, bool] = {}
        self._progress: dict[tuple[NodeId, int], Progress] = {}
        self._push_at: Instant | None = None
        self._ask_at: Instant | None = None

    @property
    def chain(self) -> Chain:
        """The chain that this edge writes."""
        return self._scribe.chain

    @property
    def writing(self) -> bool:
        """Whether the own head is known, so that events become blocks at once."""
        return self._scribe.writing

    @property
    def _peers(self) -> list[NodeId]:
        """The linked validators of the latest set known, sorted."""
        return sorted(node for node in self._links if self._is_validator(node))

    def _is_validator(self, node: NodeId) -> bool:
        return self.roll.latest.place(node) is not None

    # -- start and links ----------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """Begin: nothing is written before the own head is known to be the last."""
        self._scribe.start(now)
        self._ask_at = Instant(now + self._config.status_us)
        return []

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Take a link; only those to validators are used, now or once they are in the set."""
        if node_id in self._links:
            return []
        self._links[node_id] = True
        return self._greet(node_id, now) if self._is_validator(node_id) else []

    def _greet(self, node_id: NodeId, now: Instant) -> list[Effect]:
        effects: list[Effect] = [Send(node_id, GetChanges(self.roll.since))]
        if not self.writing:
            effects.append(Send(node_id, GetHeads()))
        effects += self._ask_receipts(node_id)
        self._schedule_push(now)
        return effects

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        """Forget a link; another validator takes its place."""
        self._links.pop(node_id, None)
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
        effects = self._scribe.append(events, now)
        if not self.writing:
            return effects
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
                    faults = self.roll.latest.faults
                    effects = self._scribe.receive_heads(node_id, heads, faults, now)
                    return effects + self._begun(now)
                case Changes():
                    return self._receive_changes(message, now)
                case Receipt():
                    return self._receive_receipt(node_id, message)
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

    def _begun(self, now: Instant) -> list[Effect]:
        if self.writing:
            self._schedule_push(now)
        return []

    def _receive_changes(self, message: Changes, now: Instant) -> list[Effect]:
        """Follow changes of the validator set, greeting those who are new in it."""
        before, writes = self._peers, []
        for change in message.items:
            if self.roll.accept(change):
                key = (self.roll.since - 1).to_bytes(8, "big")
                write: Write = (Table.CHANGES, key, change.encode())
                writes.append(write)
        if not writes:
            return []
        effects: list[Effect] = [Persist(tuple(writes))]
        for peer in self._peers:
            effects += self._greet(peer, now) if peer not in before else self._ask_receipts(peer)
        return effects

    def _receive_receipt(self, peer: NodeId, receipt: Receipt) -> list[Effect]:
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
        told = parse_header(receipt.header_raw)
        if told.validators_hash != self.roll.at(told.epoch).hash:
            # Of a set that we have not heard of: whoever sent it can prove the change.
            return [Send(peer, GetChanges(self.roll.since))]
        entries = self.chain.entries(covered.inc, covered.first, covered.last)
        header = check_receipt(receipt, [entry.signed.id for entry in entries], self.roll)
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
        begin_at = self._scribe.begin_at
        return earliest(begin_at, self._push_at, self._ask_at, *retries)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Begin without answers, push, push again, ask for receipts."""
        effects: list[Effect] = []
        begin_at = self._scribe.begin_at
        if begin_at is not None and begin_at <= now:
            effects += self._scribe.begin(self.roll.latest.faults, now) + self._begun(now)
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

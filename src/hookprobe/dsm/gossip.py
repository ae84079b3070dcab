"""How blocks spread: pushes from edges, HAVE deltas and range pulls between validators.

* An edge pushes its own blocks; the answer is a HAVE with what arrived without a gap.
* Validators tell each other, at most every 200 ms, which heads changed, and pull what they lack.
  Chains are sequential, so a vector of heads is complete; on a mismatch of the vectors' hashes the
  whole vector is sent.
* Blocks that nobody asked for are taken only from the node that wrote them (DSM spec 2.10).

Ranges that a final checkpoint names and we do not hold are the backlog's business.
"""

from collections.abc import Container, Sequence

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.announcements import Announcements
from hookprobe.dsm.backlog import may_pull
from hookprobe.dsm.checkpoint import evidence_id
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import ContentJudge, Want
from hookprobe.dsm.effects import (
    BlockAccepted,
    BlockRefused,
    Effect,
    ForkDetected,
    Send,
)
from hookprobe.dsm.lanes import Insertion, LaneBook, Status
from hookprobe.dsm.messages import (
    ANSWER_MAX_BYTES,
    HAVE_MAX,
    BlockEntry,
    Blocks,
    GetRange,
    Have,
)
from hookprobe.dsm.microblock import (
    NO_PARENT,
    LaneKey,
    Payload,
    SignedBlock,
    decode_payload,
    encode_payload,
    lane_row,
)
from hookprobe.dsm.peers import Budget, Peer, PeerBook
from hookprobe.dsm.pulls import Pull, Puller
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.errors import RemoteError, UnauthorizedError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant, earliest
from hookprobe.wire.reader import Writer

EVIDENCE_ROWS_MAX = 100_000
EVIDENCE_PENDING_MAX = 1024
EARLY_PAYLOADS_MAX = 4096


class Gossip:
    """The block exchange of one validator.

    Args:
        book: The blocks held.
        peers: The connected peers.
        reader: The store, for payloads and what is final.
        config: Timers and limits.
    """

    def __init__(
        self, book: LaneBook, peers: PeerBook, reader: StoreReader, config: LedgerConfig
    ) -> None:
        self.evidence: dict[bytes, bytes] = {}
        self.only: NodeId | None = None  # whose heads alone we tell, while we are no validator
        self.puller: Puller[BlockEntry] = Puller(config)
        self.announcements = Announcements(self.puller, book, peers, config)
        self._early_payloads: dict[bytes, Payload] = {}
        self._book = book
        self._peers = peers
        self._reader = reader
        self._config = config
        self._dirty: dict[LaneKey, bool] = {}
        self._have_at: Instant | None = None
        self._load()

    def _load(self) -> None:
        for key, value in self._reader.scan(Table.EVIDENCE, b"", b"\xff" * 33, EVIDENCE_ROWS_MAX):
            self.evidence[key] = value

    # -- blocks in --------------------------------------------------------------------------

    def receive_blocks(self, peer: Peer, message: Blocks, now: Instant) -> list[Effect]:
        """Take pushed blocks or an answer.

        Raises:
            VerificationError: Nobody asked this peer for it.
            UnauthorizedError: A push of blocks that another node wrote.
        """
        entries = message.entries
        if not peer.buckets[Budget.CHECKS].take(len(entries), now):
            return []
        if message.request:
            delivery, sends = self.puller.receive_blocks(peer.node_id, message, now)
            effects: list[Effect] = list(sends)
            if delivery is not None:
                effects += self._take(peer, delivery.entries, now, solicited=delivery.bound)
            return effects + self.announcements.go_on(now)
        if any(entry.signed.block.node_id != peer.node_id for entry in entries):
            raise UnauthorizedError("pushed blocks of another node")
        effects = self._take(peer, entries, now, solicited=False)
        return effects + self._acknowledge(peer, entries)

    def take_own(self, blocks: Sequence[SignedBlock], now: Instant) -> list[Effect]:
        """Take blocks that this node wrote and has made durable; payloads are stored already."""
        writes: list[Write] = []
        accepted: list[Effect] = []
        for signed in blocks:
            if self._book.insert(signed, solicited=False).status is not Status.ACCEPTED:
                continue
            writes += self._rows(BlockEntry(signed))
            accepted.append(BlockAccepted(self._entry(signed)))
            self._mark(signed.lane, now)
        return [Persist(tuple(writes)), *accepted] if writes else []

    def _acknowledge(self, peer: Peer, entries: Sequence[BlockEntry]) -> list[Effect]:
        lanes = sorted({entry.signed.lane: True for entry in entries})
        held = [(lane, self._book.lanes[lane].head_seq) for lane in lanes if self._holds(lane)]
        return [Send(peer.node_id, Have(tuple(held)))] if held else []

    def _holds(self, lane: LaneKey) -> bool:
        return lane in self._book.lanes

    def _take(
        self, peer: Peer, entries: Sequence[BlockEntry], now: Instant, *, solicited: bool
    ) -> list[Effect]:
        writes: list[Write] = []
        after: list[Effect] = []
        for entry in entries:
            try:
                result = self._book.insert(entry.signed, solicited=solicited)
            except RemoteError as failure:
                after.append(BlockRefused(entry.signed.lane, entry.signed.seq, failure.message))
                self._peers.accuse(peer.node_id, failure)
                break
            self._note(peer, entry, result, (writes, after), now)
        effects: list[Effect] = [Persist(tuple(writes))] if writes else []
        return effects + after

    def _note(
        self,
        peer: Peer,
        entry: BlockEntry,
        result: Insertion,
        out: tuple[list[Write], list[Effect]],
        now: Instant,
    ) -> None:
        writes, after = out
        for signed in result.accepted:
            early = self._early_payloads.pop(signed.id, None)
            payload = entry.payload if signed is entry.signed else early
            genuine = payload is not None and payload.hash() == signed.block.payload_hash
            kept = BlockEntry(signed, payload if genuine else None)
            writes += self._rows(kept)
            after.append(BlockAccepted(kept))
            self._mark(signed.lane, now)
        if result.status is Status.WAITING and entry.payload is not None:
            self._keep_payload(entry.signed.id, entry.payload)
        if result.fork is not None:
            writes += self.add_evidence(result.fork)
            after.append(ForkDetected(entry.signed.lane, result.fork_seq))
        if result.missing is not None:
            first, last, head = result.missing
            pull = Pull(entry.signed.lane, first, last, head, [peer.node_id])
            after += self.puller.want(pull, now)

    def _keep_payload(self, block_id: bytes, payload: Payload) -> None:
        """Keep the payload of a block that waits for its parent."""
        if len(self._early_payloads) < EARLY_PAYLOADS_MAX:
            self._early_payloads[block_id] = payload

    def _rows(self, entry: BlockEntry) -> list[Write]:
        signed = entry.signed
        rows: list[Write] = [(Table.BLOCKS, signed.row_key(), signed.encode())]
        if signed.seq == 1:
            rows.append(self._book.lanes[signed.lane].row())
        if entry.payload is not None:
            rows.append((Table.PAYLOADS, signed.id, encode_payload(entry.payload)))
        return rows

    def add_evidence(self, evidence: bytes) -> list[Write]:
        """Keep evidence for the next CUT and return its row."""
        key = evidence_id(evidence)
        if key in self.evidence or len(self.evidence) >= EVIDENCE_PENDING_MAX:
            return []
        self.evidence[key] = evidence
        return [(Table.EVIDENCE, key, evidence)]

    def _mark(self, lane: LaneKey, now: Instant) -> None:
        self._dirty[lane] = True
        if self._have_at is None:
            self._have_at = Instant(now + self._config.have_us)

    # -- HAVE and ranges ----------------------------------------------------------------------

    def receive_have(self, peer: Peer, message: Have, now: Instant) -> list[Effect]:
        """Pull what a validator holds and we do not.

        Raises:
            UnauthorizedError: An edge has no heads to tell but its own.
        """
        foreign = any(lane[0] != peer.node_id for lane, _ in message.heads)
        if peer.place is None and foreign:
            raise UnauthorizedError("heads of another node from an edge")
        return self.announcements.take(peer, message.heads, now)

    def fetch(self, want: Want, sources: Sequence[NodeId], now: Instant) -> list[Effect]:
        """Fetch what a proposal needs, from the sources in order, offenders last."""
        pull = Pull(want.lane, want.first, want.last, want.head, self._peers.ranked(sources))
        return list(self.puller.want(pull, now, urgent=True))

    def receive_get_range(self, peer: Peer, message: GetRange) -> list[Effect]:
        """Answer a validator, or who is enrolled to become one, as much as a frame takes.

        Raises:
            UnauthorizedError: Edges are not served.
            VerificationError: Numbers out of order.
        """
        blocks: list[SignedBlock] = []
        if may_pull(self._book, peer, message):
            blocks = self._book.branch(message.lane, message.first, message.last, message.head)
        entries = [self._entry(signed) for signed in blocks]
        named = message.head != NO_PARENT
        chosen = _fitting(entries[::-1])[::-1] if named else _fitting(entries)
        return [Send(peer.node_id, Blocks(message.request, tuple(chosen)))]

    def _entry(self, signed: SignedBlock) -> BlockEntry:
        data = self._reader.get(Table.PAYLOADS, signed.id)
        return BlockEntry(signed, decode_payload(data) if data is not None else None)

    def advanced(self) -> list[tuple[LaneKey, int]]:
        """Return the heads that a CUT reports."""
        return self._book.advanced()

    def heads_hash(self) -> bytes:
        """Return the hash that tells equal vectors of heads from different ones."""
        writer = Writer()
        for lane, seq in self._book.heads():
            writer.put(lane_row(lane)).u64(seq)
        return digest(Domain.HEADS, writer.finish())

    def drop_settled(self, settled: Container[str], judge: ContentJudge) -> list[Write]:
        """Forget evidence against offenders that a final checkpoint has settled."""
        deletions: list[Write] = []
        for key in list(self.evidence):
            verdict = judge.verdict(self.evidence[key])
            if verdict is None or verdict.offender in settled:
                del self.evidence[key]
                deletions.append((Table.EVIDENCE, key, None))
        return deletions

    def all_heads(self, peer: NodeId) -> list[Effect]:
        """Return the whole vector for one peer."""
        heads = [item for item in self._book.heads() if self._tells(item[0])]
        return [
            Send(peer, Have(tuple(heads[at : at + HAVE_MAX])))
            for at in range(0, len(heads), HAVE_MAX)
        ]

    def _tells(self, lane: LaneKey) -> bool:
        return self.only is None or lane[0] == self.only

    # -- time -------------------------------------------------------------------------------

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        return earliest(self._have_at, self.puller.next_timeout())

    def handle_timeout(self, now: Instant) -> tuple[list[NodeId], list[Effect]]:
        """Return the peers that did not answer, and what to do."""
        late, sends = self.puller.handle_timeout(now)
        effects = [*sends, *self.announcements.go_on(now)]
        if self._have_at is not None and self._have_at <= now:
            self._have_at = None
            lanes = [lane for lane in sorted(self._dirty) if self._tells(lane)]
            heads = [(lane, self._book.lanes[lane].head_seq) for lane in lanes]
            self._dirty = {}
            for at in range(0, len(heads), HAVE_MAX):
                message = Have(tuple(heads[at : at + HAVE_MAX]))
                effects += [Send(peer, message) for peer in self._peers.validators()]
        return late, effects


def _fitting(entries: Sequence[BlockEntry]) -> list[BlockEntry]:
    """Return the longest prefix that fits an answer."""
    room = ANSWER_MAX_BYTES
    chosen: list[BlockEntry] = []
    for entry in entries:
        room -= entry.size()
        if room < 0:
            break
        chosen.append(entry)
    return chosen

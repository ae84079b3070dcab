"""The chain that a node writes (DSM spec 2.2).

Blocks, payloads and the new head are one batch, returned before anything that announces them: a
sequence number is never used twice, wherever a crash falls. Many events share one batch.

An incarnation begins with an ENROL block, or with a RECOVER block that names the last head known
when the node's own record is lost, rolled back or in doubt. Its number is the larger of the highest
number known plus one and the second at which it starts: also when nobody answers, no incarnation
is used twice.

Rows of `Table.CHAIN`: inc[4] -> seq u64, id[32], timestamp u64, receipted u64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hookprobe.crypto.signing import Signer
from hookprobe.dsm.effects import BlockAppended, Effect, IncarnationStarted
from hookprobe.dsm.enrolment import Enrolment, Head
from hookprobe.dsm.messages import BlockEntry
from hookprobe.dsm.microblock import (
    NO_PARENT,
    SALT_BYTES,
    LaneKey,
    Microblock,
    NeuroBinding,
    Payload,
    SignedBlock,
    decode_block,
    decode_payload,
    encode_payload,
    lane_row,
    sign_block,
)
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.errors import LocalError
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant
from hookprobe.wire.reader import Reader, Writer

INCARNATIONS_MAX = 1024
RECENT_BLOCKS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """Something to write down; `payload` stays beside the chain, only its hash is in it."""

    event_type: str
    payload: bytes
    neuro: NeuroBinding | None = None
    body: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Where one incarnation stands; blocks up to `receipted` are proven to be final."""

    inc: int
    seq: int
    block_id: bytes
    timestamp_ms: int
    receipted: int

    def row(self) -> Write:
        writer = Writer().u64(self.seq).put(self.block_id)
        value = writer.u64(self.timestamp_ms).u64(self.receipted).finish()
        return (Table.CHAIN, self.inc.to_bytes(4, "big"), value)


Binder = Callable[[bytes, bytes, int], NeuroBinding]
"""Binds a block to the device's weights: payload hash, parent's id and number in, binding out."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: the node, its key, the CA's word for it, and its weights where it has any."""

    chain: bytes
    node_id: NodeId
    signer: Signer
    enrolment: Enrolment
    bind: Binder | None = None


class Chain:
    """All incarnations of this node's chain; the last one is open for writing after `begin`.

    Args:
        author: Who writes.
        reader: The store as it was left.
        random_bytes: Source of salts.
    """

    def __init__(
        self, author: Author, reader: StoreReader, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.heads: dict[int, ChainHead] = {}
        self._author = author
        self._reader = reader
        self._random_bytes = random_bytes
        self._recent: dict[tuple[int, int], BlockEntry] = {}
        rows = reader.scan(Table.CHAIN, b"", b"\xff" * 5, INCARNATIONS_MAX)
        for key, value in rows:
            inc, fields = int.from_bytes(key, "big"), Reader(value, "stored chain head")
            self.heads[inc] = ChainHead(
                inc, fields.u64(), fields.take(32), fields.u64(), fields.u64()
            )

    @property
    def open_head(self) -> ChainHead | None:
        """The head of the last incarnation; None before the first."""
        return self.heads[max(self.heads)] if self.heads else None

    def lane(self, inc: int) -> LaneKey:
        return (self._author.node_id, inc)

    def begin(self, known: Sequence[Head], now: Instant) -> list[Effect]:
        """Start a new incarnation.

        Args:
            known: Heads of this node that validators reported; may be empty.
            now: The time.
        """
        own = [Head(head.inc, head.seq, head.block_id) for head in self.heads.values()]
        heads = [*own, *known]
        last = max(heads, key=lambda head: (head.inc, head.seq), default=None)
        inc = max([now // SECOND, 1, *(head.inc + 1 for head in heads)])
        self.heads[inc] = ChainHead(inc, 0, NO_PARENT, 0, 0)
        enrolment = replace(self._author.enrolment, lost=last)
        event = Event("enrol" if last is None else "recover", b"", body=enrolment.to_body())
        started = IncarnationStarted(inc, recovered=last is not None)
        return [*self.append([event], now), started]

    def append(self, events: Sequence[Event], now: Instant) -> list[Effect]:
        """Write events as blocks: one durable batch, then one observation each.

        Raises:
            LocalError: No incarnation has begun.
            LimitExceededError: An event is too large; none of the batch is written.
        """
        head = self.open_head
        if head is None:
            raise LocalError("chain: no incarnation has begun")
        writes: list[Write] = []
        appended: list[BlockEntry] = []
        for event in events:
            entry = self._block(head, event, now)
            signed = entry.signed
            head = replace(
                head,
                seq=signed.seq,
                block_id=signed.id,
                timestamp_ms=signed.block.timestamp_ms,
            )
            writes.append((Table.BLOCKS, signed.row_key(), signed.encode()))
            if entry.payload is not None:
                writes.append((Table.PAYLOADS, signed.id, encode_payload(entry.payload)))
            appended.append(entry)
        writes.append(head.row())
        self.heads[head.inc] = head
        self._remember(appended)
        batch: list[Effect] = [Persist(tuple(writes))]
        return batch + [BlockAppended(entry.signed) for entry in appended]

    def _block(self, head: ChainHead, event: Event, now: Instant) -> BlockEntry:
        payload = Payload(self._random_bytes(SALT_BYTES), event.payload)
        payload_hash, bind, neuro = payload.hash(), self._author.bind, event.neuro
        if neuro is None and bind is not None:
            neuro = bind(payload_hash, head.block_id, head.seq + 1)
        block = Microblock(
            chain=self._author.chain,
            node_id=self._author.node_id,
            inc=head.inc,
            seq=head.seq + 1,
            prev=head.block_id,
            # A clock that was set back must not make time run backwards in the chain.
            timestamp_ms=max(now // MILLISECOND, head.timestamp_ms),
            event_type=event.event_type,
            payload_hash=payload_hash,
            neuro=neuro,
            body=event.body,
        )
        return BlockEntry(sign_block(block, self._author.signer), payload)

    def _remember(self, entries: Sequence[BlockEntry]) -> None:
        for entry in entries:
            self._recent[(entry.signed.block.inc, entry.signed.seq)] = entry
        while len(self._recent) > RECENT_BLOCKS_MAX:
            del self._recent[next(iter(self._recent))]

    def entries(self, inc: int, first: int, last: int) -> list[BlockEntry]:
        """Return blocks first..last of an incarnation with their payloads."""
        found = []
        for seq in range(first, last + 1):
            entry = self._recent.get((inc, seq)) or self._stored(inc, seq)
            if entry is None:
                break
            found.append(entry)
        return found

    def _stored(self, inc: int, seq: int) -> BlockEntry | None:
        prefix = lane_row(self.lane(inc)) + seq.to_bytes(8, "big")
        rows = self._reader.scan(Table.BLOCKS, prefix, prefix + b"\xff" * 33, 1)
        if not rows:
            return None
        signed: SignedBlock = decode_block(rows[0][1])
        data = self._reader.get(Table.PAYLOADS, signed.id)
        return BlockEntry(signed, decode_payload(data) if data is not None else None)

    def oldest_waiting_ms(self) -> int | None:
        """Return when the oldest block without a receipt was written; None if all have one."""
        for inc in sorted(self.heads):
            head = self.heads[inc]
            following = head.receipted + 1
            if following <= head.seq and (found := self.entries(inc, following, following)):
                return found[0].signed.block.timestamp_ms
        return None

    def receipted(self, inc: int, first: int, last: int) -> Write | None:
        """Note that blocks first..last are proven to be final; returns the head's row."""
        head = self.heads[inc]
        if not first <= head.receipted + 1 <= last:
            return None
        self.heads[inc] = replace(head, receipted=last)
        return self.heads[inc].row()

"""Reading a node's ledger: the one place that knows how questions become reads of its tables.

Everything here is a read through `StoreReader`; which store it is does not matter, and the node may
be writing. A checkpoint is named by its epoch, a block by (epoch, index) where order matters and by
its chain, incarnation and number where that is asked. Each read is bounded: by rows returned, and
by rows looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hookprobe.crypto import merkle
from hookprobe.dsm.checkpoint import (
    HEADER_MAX_BYTES,
    FinalCheckpoint,
    Range,
    header_hash,
    parse_header,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.enrolment import parse_enrolment
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.history import SETTLED_MAX, SETTLED_PREFIX, STATE_KEY, History
from hookprobe.dsm.messages import Receipt
from hookprobe.dsm.microblock import (
    Payload,
    SignedBlock,
    decode_block,
    decode_payload,
    lane_row,
)
from hookprobe.dsm.misbehaviour import Fault
from hookprobe.dsm.notes import parse_head, parse_note
from hookprobe.dsm.receipts import build_tree, make_receipt
from hookprobe.dsm.roll import Roll, SetChange
from hookprobe.dsm.store import StoreReader, Table, prefix_end
from hookprobe.dsm.tree_log import NOTE_ROW, BlockPlace, TreeLog, parse_tile_path
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.errors import (
    LimitExceededError,
    LocalError,
    MalformedError,
    NotFoundError,
    RemoteError,
    UnavailableError,
)
from hookprobe.wire.identifiers import NodeId, pack_node_id
from hookprobe.wire.reader import Reader

LOOKED_AT_MAX = 5_000
PROVEN_BLOCKS_MAX = 250_000
_EPOCHS_CACHED = 4
_TENANTS_CACHED = 4_096
_ROWS_PER_READ = 256
_INCARNATIONS_MAX = 1024
_BLOCK_ID_BYTES = 32

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """A block, and where it is: epoch and index; -1 while no final checkpoint is known to hold it.

    Only `LedgerQuery.by_epoch` fills them in; the chain order does not look for them.
    """

    signed: SignedBlock
    epoch: int = -1
    index: int = -1


@dataclass(frozen=True, slots=True)
class Ask:
    """Which blocks are wanted.

    Attributes:
        start: Where to begin: (0, 0), or where a page ended.
        limit: The most blocks of a page.
        wanted: Which of those looked at.
    """

    start: tuple[int, int]
    limit: int
    wanted: Callable[[SignedBlock], bool]


@dataclass(frozen=True, slots=True)
class Page:
    """Some answers, and where to go on; an empty `next` is the end."""

    items: tuple[Found, ...]
    next: str


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A block, and the RFC 6962 path from its id to the root of a final checkpoint."""

    signed: SignedBlock
    index: int
    path: merkle.Proof
    final: FinalCheckpoint


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the history of `new` checkpoints continues the history of `old` ones."""

    old: int
    new: int
    old_root: bytes
    new_root: bytes
    proof: merkle.Proof


@dataclass(frozen=True, slots=True)
class _Epoch:
    """A final epoch with the ids of its blocks in the order of the tree."""

    final: FinalCheckpoint
    ids: tuple[bytes, ...]


@dataclass(slots=True)
class _Look:
    """What one request has found, and how much it may still look at."""

    limit: int
    left: int
    found: list[Found] = field(default_factory=list)

    def take(self, item: Found, *, wanted: bool) -> bool:
        """Look at one block; True when the page ends behind it."""
        if wanted:
            self.found.append(item)
        return self.spend() or len(self.found) >= self.limit

    def spend(self) -> bool:
        """Count one look; True when that was the last."""
        self.left -= 1
        return self.left <= 0


class LedgerQuery:
    """Answers questions about one node's ledger.

    Args:
        genesis: The chain's genesis document.
        court: Its court.
        reader: The node's store.
    """

    def __init__(self, genesis: Genesis, court: Court, reader: StoreReader) -> None:
        self.genesis = genesis
        self._court = court
        self._reader = reader
        self._history = History(genesis, court, reader)
        self._log = TreeLog(self._history, reader, (), court.signatures)
        self._epochs: dict[int, _Epoch] = {}
        self._tenants: dict[NodeId, str] = {}
        self._hashes: list[bytes] = []

    # -- the history as a transparency log --------------------------------------------------

    def log_checkpoint(self) -> bytes:
        """Return the last checkpoint of the log that this validator signed, with cosignatures.

        Raises:
            NotFoundError: It signs none.
        """
        note = self._reader.get(Table.META, NOTE_ROW)
        if note is None:
            raise NotFoundError("this node signs no checkpoints", hint="ask a validator")
        return note

    def log_tile(self, path: str) -> bytes:
        """Return a tile, or a bundle of entries, by its path in tlog-tiles.

        Raises:
            MalformedError: Not such a path.
            NotFoundError: The log is not that large.
        """
        level, index, width = parse_tile_path(path)
        try:
            if level is None:
                return self._log.entries(index, width)
            return self._log.tile(level, index, width)
        except LocalError as error:
            raise NotFoundError(error.message) from error

    def log_proof(self, found: Inclusion) -> bytes:
        """Return the .tlog-proof of a block: by the log's checkpoint, with its place in `extra`.

        Raises:
            NotFoundError: This node signs no checkpoints, or none yet that has the block.
        """
        note, made = parse_note(self.log_checkpoint()), found.final.checkpoint
        if made.header.epoch >= parse_head(note.text).size:
            raise NotFoundError("no checkpoint of the log has this block yet", hint="ask again")
        place = BlockPlace(made.raw, found.index, found.path)
        return self._log.proof(made.header.epoch, note, place.encode())

    # -- validators -------------------------------------------------------------------------

    def validators(self) -> ValidatorSet:
        """Return the set that decides the next epoch."""
        roll = Roll(self._court)
        for change in self.changes(0):
            roll.restore(change)
        return roll.at(self.next_epoch())

    def changes(self, epoch: int) -> list[SetChange]:
        """Return the changes of the validator set that headers from an epoch on made."""
        return self._history.changes(epoch)

    # -- checkpoints ------------------------------------------------------------------------

    def next_epoch(self) -> int:
        """Return the number of final epochs that this node holds; edges hold none."""
        state = self._reader.get(Table.META, STATE_KEY)
        return Reader(state, "stored history").u64() if state is not None else 0

    def checkpoint(self, epoch: int) -> FinalCheckpoint:
        """Return a final checkpoint.

        Raises:
            NotFoundError: This node does not hold it.
        """
        final = self._history.checkpoint(epoch)
        if final is None:
            raise NotFoundError(
                f"no checkpoint of epoch {epoch}",
                hint=f"this node holds {self.next_epoch()} final epochs; edges hold receipts only",
            )
        return final

    def checkpoints(self, first: int, limit: int) -> list[FinalCheckpoint]:
        """Return final checkpoints from epoch `first` on, ascending."""
        stop = min(first + limit, self.next_epoch())
        found = [self._history.checkpoint(epoch) for epoch in range(first, stop)]
        return [final for final in found if final is not None]

    def _header_raw(self, epoch: int) -> bytes:
        value = self._reader.get(Table.CHECKPOINTS, _u64(epoch))
        if value is None:
            raise UnavailableError(f"checkpoint {epoch} is not here")
        return Reader(value, "stored checkpoint").block16(HEADER_MAX_BYTES)

    def epoch_at(self, timestamp_ms: int) -> int:
        """Return the first epoch whose checkpoint is of this time or later.

        Time stamps of checkpoints grow strictly (DSM spec 2.3), so halving finds it.
        """
        low, high = 0, self.next_epoch()
        while low < high:
            middle = (low + high) // 2
            if parse_header(self._header_raw(middle)).timestamp_ms < timestamp_ms:
                low = middle + 1
            else:
                high = middle
        return low

    def settled(self) -> dict[str, tuple[int, Fault]]:
        """Return who was convicted by evidence: offender to epoch and fault."""
        rows = self._reader.scan(
            Table.META, SETTLED_PREFIX, prefix_end(SETTLED_PREFIX), SETTLED_MAX
        )
        return {
            key[len(SETTLED_PREFIX) :].decode(): (int.from_bytes(value[:8], "big"), Fault(value[8]))
            for key, value in rows
        }

    # -- blocks -----------------------------------------------------------------------------

    def by_chain(self, node: NodeId, span: tuple[int, int], ask: Ask) -> Page:
        """Return blocks of one node in the order of its chain.

        Args:
            node: Whose.
            span: First and last number, both included, of every incarnation.
            ask: What is wanted; `start` is an incarnation and a number.
        """
        look = _Look(ask.limit, LOOKED_AT_MAX)
        for inc in self._incarnations(node):
            if inc < ask.start[0]:
                continue
            first = max(span[0], ask.start[1] if inc == ask.start[0] else 0)
            lane = lane_row((node, inc))
            key, stop = lane + _u64(first), lane + _u64(span[1] + 1)
            while rows := self._reader.scan(Table.BLOCKS, key, stop, _ROWS_PER_READ):
                for row, value in rows:
                    signed = decode_block(value)
                    if look.take(Found(signed), wanted=ask.wanted(signed)):
                        return Page(tuple(look.found), f"{inc}.{signed.seq + 1}")
                    key = row + b"\0"
        return Page(tuple(look.found), "")

    def _incarnations(self, node: NodeId) -> list[int]:
        found: list[int] = []
        lanes, inc = pack_node_id(node), 0
        stop = lanes + b"\xff" * 45
        while len(found) < _INCARNATIONS_MAX:
            rows = self._reader.scan(Table.BLOCKS, lanes + inc.to_bytes(4, "big"), stop, 1)
            if not rows:
                break
            found.append(int.from_bytes(rows[0][0][32:36], "big"))
            inc = found[-1] + 1
        return found

    def by_epoch(self, stop_epoch: int, ask: Ask) -> Page:
        """Return blocks of final epochs in the order of the epoch trees.

        Args:
            stop_epoch: The epoch to end before.
            ask: What is wanted; `start` is an epoch and an index in its tree.
        """
        epoch, skip = ask.start
        look = _Look(ask.limit, LOOKED_AT_MAX)
        while epoch < min(stop_epoch, self.next_epoch()):
            final = self._history.checkpoint(epoch)
            for index, signed in self._blocks_of(final, skip) if final is not None else ():
                if look.take(Found(signed, epoch, index), wanted=ask.wanted(signed)):
                    return Page(tuple(look.found), f"{epoch}.{index + 1}")
            epoch, skip = epoch + 1, 0
            if look.spend():
                return Page(tuple(look.found), f"{epoch}.0")
        return Page(tuple(look.found), "")

    def _blocks_of(self, final: FinalCheckpoint, skip: int) -> Iterator[tuple[int, SignedBlock]]:
        index = 0
        for item in final.checkpoint.content.ranges:
            if index + item.count > skip:
                for number, (_, value) in enumerate(self._rows(item)):
                    if index + number >= skip:
                        yield index + number, decode_block(value)
            index += item.count

    def _rows(self, item: Range) -> Sequence[Row]:
        """Return the rows of a range; of a forked number the row that leads to the head."""
        lane = lane_row(item.lane)
        start, stop = lane + _u64(item.first), lane + _u64(item.last + 1)
        rows = self._reader.scan(Table.BLOCKS, start, stop, 2 * item.count)
        if len(rows) <= item.count:
            return rows
        parent, branch = item.head, []
        for key, value in reversed(rows):
            if key[-_BLOCK_ID_BYTES:] == parent:
                branch.append((key, value))
                parent = decode_block(value).block.prev
        return branch[::-1]

    def payload(self, block_id: bytes) -> Payload | None:
        """Return what a block is about, if this node was told."""
        row = self._reader.get(Table.PAYLOADS, block_id)
        return decode_payload(row) if row is not None else None

    def enrolments(self, node: NodeId) -> list[SignedBlock]:
        """Return the first block of each incarnation of a node: it carries the certificate."""
        found: list[SignedBlock] = []
        for inc in self._incarnations(node):
            lane = lane_row((node, inc))
            rows = self._reader.scan(Table.BLOCKS, lane + _u64(1), lane + _u64(2), 1)
            found += [decode_block(value) for _, value in rows]
        return found

    def tenant(self, node: NodeId) -> str:
        """Return the tenant's pseudonym in a node's certificate; empty when it is not known."""
        known = self._tenants.get(node)
        if known is not None:
            return known
        first = next(iter(self.enrolments(node)), None)
        if first is None:
            return ""
        try:
            tenant = parse_enrolment(first.block.body or {}).certificate.tenant
        except RemoteError:
            return ""
        if len(self._tenants) >= _TENANTS_CACHED:
            del self._tenants[next(iter(self._tenants))]
        self._tenants[node] = tenant
        return tenant

    # -- proofs -----------------------------------------------------------------------------

    def inclusion(self, epoch: int, block_id: bytes) -> Inclusion:
        """Prove that a final checkpoint holds a block.

        Raises:
            NotFoundError: It does not, or the checkpoint is not here.
            UnavailableError: This node does not hold all blocks of the epoch.
        """
        found = self._epoch(epoch)
        if block_id not in found.ids:
            raise NotFoundError(f"checkpoint {epoch} does not hold block {block_id.hex()[:16]}")
        index = found.ids.index(block_id)
        signed = next(signed for at, signed in self._blocks_of(found.final, index) if at == index)
        return Inclusion(signed, index, merkle.prove_inclusion(found.ids, index), found.final)

    def receipt(self, epoch: int, node: NodeId, inc: int) -> Receipt:
        """Prove all blocks of a chain in an epoch at once.

        Raises:
            NotFoundError: The checkpoint is not here or holds nothing of this chain.
            UnavailableError: This node does not hold all blocks of the epoch.
        """
        found = self._epoch(epoch)
        ranges = found.final.checkpoint.content.ranges
        covered = next((item for item in ranges if item.lane == (node, inc)), None)
        if covered is None:
            raise NotFoundError(f"checkpoint {epoch} holds nothing of {node}/{inc}")
        return make_receipt(found.final, build_tree(ranges, found.ids), covered)

    def consistency(self, old: int, new: int) -> Consistency:
        """Prove that a longer history continues a shorter one; sizes count checkpoints.

        Raises:
            MalformedError: Sizes out of order.
            NotFoundError: The history is not that long.
            UnavailableError: Checkpoints of it are not here.
        """
        if not 1 <= old <= new:
            raise MalformedError(f"consistency: sizes {old} and {new}; 1 <= old <= new is wanted")
        if new > self.next_epoch():
            raise NotFoundError(f"the history has {self.next_epoch()} checkpoints, not {new}")
        self._read_hashes(new)
        hashes = self._hashes[:new]
        proof = merkle.prove_consistency(hashes, old)
        return Consistency(old, new, merkle.root(hashes[:old]), merkle.root(hashes), proof)

    def _read_hashes(self, size: int) -> None:
        for epoch in range(len(self._hashes), size):
            self._hashes.append(header_hash(self._header_raw(epoch)))

    def _epoch(self, epoch: int) -> _Epoch:
        known = self._epochs.get(epoch)
        if known is not None:
            return known
        final = self.checkpoint(epoch)
        header = final.checkpoint.header
        if header.count > PROVEN_BLOCKS_MAX:
            raise LimitExceededError(f"checkpoint {epoch} holds {header.count} blocks")
        ids = tuple(
            key[-_BLOCK_ID_BYTES:]
            for item in final.checkpoint.content.ranges
            for key, _ in self._rows(item)
        )
        if merkle.root(ids) != header.merkle_root:
            raise UnavailableError(
                f"blocks of epoch {epoch} are missing here", hint="ask another validator"
            )
        if len(self._epochs) >= _EPOCHS_CACHED:
            del self._epochs[next(iter(self._epochs))]
        self._epochs[epoch] = _Epoch(final, ids)
        return self._epochs[epoch]


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")

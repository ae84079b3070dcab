"""What the ledger keeps: tables, atomic writes, and the synchronous reads that a machine may do.

Rules:
* `Persist` is one atomic batch. When the host has executed it, it is durable.
* Reads see only executed batches. A machine keeps what it has just returned in memory and reads
  the store when it starts, or for what it no longer holds.
* Keys of one table sort as bytes; `scan` returns them in that order.

Partitions, for whoever writes a backend:

* Some tables (`PARTITIONS`) are kept in parts so that old rows go by dropping a part as a whole:
  deleting row by row gives no space back in most stores (DSM spec 2.9).
* A store has one open partition, 0 at first, and remembers it. `Persist.opens` opens another one
  before the writes of that batch. The number is chain time, in days for the real ledger, and never
  goes back.
* A row belongs to the slot (open partition) // `PARTITIONS[table]`, the number of partitions that
  share one part. `Persist.drops` names (table, partition): all slots below that of the partition
  are gone, whole; nothing else is. It is never above the open partition.
* Reads know nothing of partitions: `get` and `scan` look into all of them. Rows of partitioned
  tables never change, so a row written again may stand in two slots; `scan` shows it once, and it
  is gone when the newer slot is. Deleting a row deletes it everywhere.
* A batch is atomic with its `opens` and `drops`; drops take effect after the writes.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol


@unique
class Table(Enum):
    """Every table of the ledger; the key layout is stated behind each."""

    META = "meta"  # name
    CHAIN = "chain"  # what this node wrote itself: name
    BLOCKS = "blocks"  # node[32] inc[4] seq[8] id[32]
    PAYLOADS = "payloads"  # block id[32]
    LANES = "lanes"  # node[32] inc[4]
    VOTES = "votes"  # epoch[8] view[4] kind[1]
    CUTS = "cuts"  # epoch[8]: our own CUT
    PROPOSALS = "proposals"  # epoch[8] header hash[32]
    CERTIFICATES = "certificates"  # epoch[8] view[4] kind[1]
    CHECKPOINTS = "checkpoints"  # epoch[8]: header, author's signature and certificate, for ever
    CONTENTS = "contents"  # epoch[8]: ranges, CUTs and evidence
    COVERAGE = "coverage"  # node[32] inc[4] last seq[8]: the epoch that holds the range
    CHANGES = "changes"  # epoch[8]: the header that changes the validator set, and the new set
    RELICS = "relics"  # epoch[8] node[32] inc[4] seq[8]: first and governance blocks, for ever
    EVIDENCE = "evidence"  # digest[32]
    RECEIPTS = "receipts"  # inc[4] first seq[8]
    NODE = "node"  # what the node keeps beside the ledger: name

    # That of `Enum` is Python and hashes the name; every read and write asks for it.
    __hash__ = object.__hash__


Write = tuple[Table, bytes, bytes | None]


# How many partitions share one slot: blocks go by the day, what is kept for a year by the month.
PARTITIONS = {Table.BLOCKS: 1, Table.PAYLOADS: 1, Table.CONTENTS: 30, Table.COVERAGE: 30}


@dataclass(frozen=True, slots=True)
class Persist:
    """Write these rows in one durable batch; a value of None deletes the row.

    Args:
        writes: The rows.
        opens: The partition that is open from this batch on; None leaves it.
        drops: Tables whose slots below that of a partition go, after the writes.
    """

    writes: tuple[Write, ...]
    opens: int | None = None
    drops: tuple[tuple[Table, int], ...] = ()


class StoreReader(Protocol):
    """The reads of a machine."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(
        self, table: Table, start: bytes, stop: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return at most `limit` rows with start <= key < stop, in key order."""


class MemoryStore:
    """A store in memory: for tests, the simulator and short-lived nodes."""

    def __init__(self) -> None:
        self.partition = 0
        self._rows: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}
        self._slots: dict[Table, dict[bytes, int]] = {table: {} for table in PARTITIONS}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._rows[table].get(key)

    def scan(
        self, table: Table, start: bytes, stop: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        keys, rows = self._keys[table], self._rows[table]
        first = bisect_left(keys, start)
        last = min(bisect_left(keys, stop), first + limit)
        return [(key, rows[key]) for key in keys[first:last]]

    def apply(self, batch: Persist) -> None:
        self.partition = self.partition if batch.opens is None else batch.opens
        for table, key, value in batch.writes:
            if value is None:
                self._delete(table, key)
                continue
            if key not in self._rows[table]:
                insort(self._keys[table], key)
            self._rows[table][key] = value
            if table in PARTITIONS:
                self._slots[table][key] = self.partition // PARTITIONS[table]
        for table, partition in batch.drops:
            lowest = partition // PARTITIONS[table]
            for key in [key for key, slot in self._slots[table].items() if slot < lowest]:
                self._delete(table, key)

    def _delete(self, table: Table, key: bytes) -> None:
        if self._rows[table].pop(key, None) is None:
            return
        keys = self._keys[table]
        del keys[bisect_left(keys, key)]
        if table in PARTITIONS:
            del self._slots[table][key]


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key behind all keys that start with `prefix` (not all 0xff bytes)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))

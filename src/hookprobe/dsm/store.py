"""What the ledger keeps: tables, atomic writes, and the synchronous reads that a machine may do.

Rules:
* `Persist` is one atomic batch. When the host has executed it, it is durable.
* Reads see only executed batches. A machine keeps what it has just returned in memory and reads
  the store when it starts, or for what it no longer holds.
* Keys of one table sort as bytes; `scan` returns them in that order.
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
    CHECKPOINTS = "checkpoints"  # epoch[8]
    COVERAGE = "coverage"  # node[32] inc[4] last seq[8]: the epoch that holds the range
    EVIDENCE = "evidence"  # digest[32]
    RECEIPTS = "receipts"  # inc[4] first seq[8]
    NODE = "node"  # what the node keeps beside the ledger: name


Write = tuple[Table, bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Persist:
    """Write these rows in one durable batch; a value of None deletes the row."""

    writes: tuple[Write, ...]


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
        self._rows: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}

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
        for table, key, value in batch.writes:
            rows, keys = self._rows[table], self._keys[table]
            if value is None:
                if rows.pop(key, None) is not None:
                    del keys[bisect_left(keys, key)]
                continue
            if key not in rows:
                insort(keys, key)
            rows[key] = value


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key behind all keys that start with `prefix` (not all 0xff bytes)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))

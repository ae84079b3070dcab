"""Which store a node's ledger is in, and what every such store can do.

`dsm.storage.microblocks.backend` chooses. The file of marks beside the lock says which one holds
this node's ledger already: starting with another one would be starting with an empty ledger, so it
is refused. `hookprobe dsm backup` and `restore` move a ledger from one backend to another.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hookprobe.config.load import Config
from hookprobe.dsm.store import PARTITIONS, Persist, StoreReader, Table
from hookprobe.errors import ConfigError, HostError
from hookprobe.runtime import sqlite_store
from hookprobe.runtime.sqlite_store import SqliteStore
from hookprobe.runtime.store_lock import RESTORING, read_mark, write_mark

SQLITE, ROCKSDB = "sqlite", "rocksdb"
ROCKS_FOLDER = "ledger.rocksdb"
_ROWS_PER_READ = 1024

Row = tuple[bytes, bytes]


class LedgerStore(StoreReader, Protocol):
    """What every store of a ledger can do; `dsm.store` has the rules."""

    @property
    def partition(self) -> int: ...

    def slots(self, table: Table) -> list[int]:
        """Return the slots that a table may have rows in, newest first."""

    def scan_slot(self, table: Table, slot: int, start: bytes, limit: int) -> Sequence[Row]:
        """Return at most `limit` rows of one slot from a key on, in key order."""

    def check_pages(self) -> None:
        """Check what the store itself can tell of the health of its files."""

    def hold_still(self) -> None:
        """For readers: see one state of the ledger from here on."""

    def apply(self, batches: Sequence[Persist]) -> None:
        """Write all batches durably and together, or nothing of them."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where a node's ledger is.

    Attributes:
        state: The node's state folder; lock and mark are there.
        backend: sqlite or rocksdb.
        path: RocksDB's folder; None: in the state folder.
    """

    state: Path
    backend: str = SQLITE
    path: Path | None = None

    @property
    def mark(self) -> str:
        return SQLITE if self.backend == SQLITE else f"{ROCKSDB} {self.folder.resolve()}"

    @property
    def folder(self) -> Path:
        """The folder of RocksDB."""
        return self.path or self.state / ROCKS_FOLDER

    def exists(self) -> bool:
        """Whether a ledger is there."""
        if self.backend == SQLITE:
            return (self.state / sqlite_store.FILE_NAME).exists()
        return (self.folder / "CURRENT").exists()


def place_of(config: Config) -> StorePlace:
    """Return where the settings put a node's ledger."""
    path = config.text("dsm.storage.microblocks.path")
    backend = config.text("dsm.storage.microblocks.backend")
    return StorePlace(config.file("state.path"), backend, config.folder / path if path else None)


def open_store(place: StorePlace, *, read_only: bool = False) -> LedgerStore:
    """Open a node's ledger.

    Args:
        place: Where it is; its state folder must exist.
        read_only: For whoever looks at a running node's ledger.

    Raises:
        ConfigError: The package of the backend is not installed.
        HostError: The ledger is somewhere else, held by another process, damaged, or newer.
    """
    _check_mark(place)
    if place.backend == SQLITE:
        store: LedgerStore = SqliteStore(place.state, read_only=read_only)
    else:
        store = _open_rocks(place, read_only=read_only)
    if not read_only and read_mark(place.state) != place.mark:
        write_mark(place.state, place.mark)
    return store


def _open_rocks(place: StorePlace, *, read_only: bool) -> LedgerStore:
    if importlib.util.find_spec("rocksdict") is None:
        raise ConfigError(
            ["dsm.storage.microblocks.backend: the package rocksdict is not installed"],
            hint="pip install 'hookprobe[rocksdb]', or set sqlite",
        )
    from hookprobe.runtime.rocks_store import RocksStore

    return RocksStore(place.state, place.folder, read_only=read_only)


def _check_mark(place: StorePlace) -> None:
    mark = read_mark(place.state)
    if not mark and StorePlace(place.state).exists():
        mark = SQLITE  # of a node that is older than marks
    if mark == RESTORING:
        raise HostError(
            f"{place.state}: a restore was interrupted", hint="run `hookprobe dsm restore` again"
        )
    if mark == place.mark and not place.exists():
        raise HostError(
            f"{place.state}: the ledger is gone, ledger.place says {mark}",
            hint="`hookprobe dsm restore` puts a backup; with the whole state folder gone a node"
            " starts anew",
        )
    if mark and mark != place.mark:
        raise HostError(
            f"{place.state}: this node's ledger is in {mark}, the settings say {place.mark}",
            hint="set dsm.storage.microblocks back; `hookprobe dsm backup` and `restore` move it",
        )


def all_rows(store: LedgerStore, table: Table, slot: int) -> Iterator[Row]:
    """Return every row of a slot, in key order."""
    start = b""
    while rows := store.scan_slot(table, slot, start, _ROWS_PER_READ):
        yield from rows
        start = rows[-1][0] + b"\0"


def all_slots(store: LedgerStore) -> list[tuple[int, Table, int]]:
    """Return (first partition, table, slot) of all there are, oldest first."""
    return sorted(
        (
            (slot * PARTITIONS.get(table, 1), table, slot)
            for table in Table
            for slot in store.slots(table)
        ),
        key=lambda item: (item[0], item[1].value),
    )

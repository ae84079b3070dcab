"""The ledger's tables in RocksDB (extra `rocksdb`): for nodes that write much.

* Tables that are not partitioned share the default column family, keys behind the table's name and
  a zero byte. Each slot of a partitioned table is a column family (`blocks_19683`); dropping it
  deletes its files, which gives the space back at once.
* `apply` is one write batch with a synced log: all of it is durable when it returns, or none.
  Column families cannot be part of a batch, so new ones are made before it, and old ones go after
  it: the batch notes the lowest slot that counts (`dropped`), and what is below is not read any
  more. What a crash leaves of it is dropped at the next start.
* Readers in other processes are RocksDB secondaries: they follow the log of the writer and are at
  most `BEHIND_S` old. While a writer opens, what it recovers is in no file for a moment: a reader
  that comes then waits for it.
* A damaged log is refused, except for the end that a power cut tore: what stood there was never
  acknowledged.
"""

import heapq
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from hookprobe.dsm.store import PARTITIONS, Persist, Table
from hookprobe.errors import HostError
from hookprobe.runtime.store_lock import StoreLock

FORMAT = 1
BEHIND_S = 0.05
OPENING_S = 5.0
MEMTABLE_BYTES = 2 << 20
MEMTABLES_BYTES = 8 << 20  # of all column families together
CACHE_BYTES = 4 << 20
LOG_BYTES = 16 << 20
_DEFAULT = "default"
_FORMAT_KEY = b"\0format"
_PARTITION_KEY = b"\0partition"
_DROPPED = b"\0dropped/"
_HINT = "check free space, rights and health of the disk; `hookprobe dsm restore` puts a backup"

Row = tuple[bytes, bytes]


class RocksStore:
    """Implements the ledger's reads and executes its `Persist` effects.

    Args:
        state: The node's state folder; it must exist. The lock is there.
        path: The folder of the database; made by the first writer.
        read_only: For commands that look at a running node's ledger.

    Raises:
        HostError: Not writable, held by another process, damaged, or of a newer version.
    """

    def __init__(self, state: Path, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._still = False
        self._read_at = 0.0
        self._scratch: Path | None = None
        self._families: dict[tuple[Table, int], Rdict] = {}
        if read_only and not (path / "CURRENT").exists():
            raise HostError(f"no ledger in {path}", hint="has this node ever been started?")
        self._lock = None if read_only else StoreLock(state)
        try:
            with self._failing():
                self._open()
        except HostError:
            self._unlock()
            raise

    # -- opening ----------------------------------------------------------------------------

    def _open(self) -> None:
        self._open_database()
        deadline = time.monotonic() + OPENING_S
        while self._read_only and not self._number(_FORMAT_KEY) and time.monotonic() < deadline:
            time.sleep(BEHIND_S)
            self._close_database()
            self._open_database()
        self._check_format()
        self._partition = self._number(_PARTITION_KEY)
        if not self._read_only:
            self._drop_dead()
            for table in PARTITIONS:
                self._ensure(table, self._partition // PARTITIONS[table])

    def _open_database(self) -> None:
        fresh = not (self._path / "CURRENT").exists()
        if fresh:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = [_DEFAULT] if fresh else Rdict.list_cf(str(self._path))
        self._database = Rdict(
            str(self._path),
            options=_options(reading=self._read_only),
            column_families={name: _options(reading=self._read_only) for name in names},
            access_type=self._access(),
        )
        self._names = frozenset(names)
        self._families = {
            _family(name): self._database.get_column_family(name)
            for name in names
            if name != _DEFAULT
        }

    def _access(self) -> AccessType:
        if not self._read_only:
            return AccessType.read_write()
        self._scratch = Path(tempfile.mkdtemp(prefix="hookprobe-reader-"))
        return AccessType.secondary(str(self._scratch))

    def _check_format(self) -> None:
        # A crash may have come between making the database and this, its first row.
        if not self._read_only and next(_from(self._database, b""), None) is None:
            self._database.put(_FORMAT_KEY, FORMAT.to_bytes(8, "big"), write_opt=_synced())
        found = self._number(_FORMAT_KEY)
        if not found and self._read_only:
            raise HostError(
                f"{self._path}: nothing can be read of it yet",
                hint="is its node starting? try again; if it never did, start it",
            )
        if found != FORMAT:
            raise HostError(
                f"{self._path}: ledger format {found}, this program knows {FORMAT}",
                hint="run the version of hookprobe that wrote it",
            )

    def _number(self, key: bytes) -> int:
        found: bytes | None = self._database.get(key)
        return int.from_bytes(found, "big") if found is not None else 0

    def _failing(self) -> "_Failing":
        return _Failing(self._path)

    # -- column families ----------------------------------------------------------------------

    def _ensure(self, table: Table, slot: int) -> Rdict:
        found = self._families.get((table, slot))
        if found is None:
            options = _options(reading=False)
            found = self._database.create_column_family(f"{table.value}_{slot}", options)
            self._families[(table, slot)] = found
        return found

    def _lowest(self, table: Table) -> int:
        return self._number(_DROPPED + table.value.encode())

    def _drop_dead(self) -> None:
        for table, slot in [key for key in self._families if key[1] < self._lowest(key[0])]:
            del self._families[(table, slot)]
            self._database.drop_column_family(f"{table.value}_{slot}")

    def slots(self, table: Table) -> list[int]:
        """Return the slots that a table may have rows in, newest first."""
        if table not in PARTITIONS:
            return [0]
        with self._failing():
            self._refresh()
            lowest = self._lowest(table)
        return sorted(
            (slot for of, slot in self._families if of is table and slot >= lowest), reverse=True
        )

    # -- reading ------------------------------------------------------------------------------

    @property
    def partition(self) -> int:
        """The open partition."""
        with self._failing():
            self._refresh()
            return self._number(_PARTITION_KEY)

    def _refresh(self) -> None:
        if not self._read_only or self._still or time.monotonic() - self._read_at < BEHIND_S:
            return
        self._database.try_catch_up_with_primary()
        if frozenset(Rdict.list_cf(str(self._path))) != self._names:
            self._close_database()  # a secondary follows only the column families it began with
            self._open()
        self._read_at = time.monotonic()

    def check_pages(self) -> None:
        """Do nothing: RocksDB compares the checksum of every block that it reads."""

    def hold_still(self) -> None:
        """Read one state of the ledger from here on, whatever is written meanwhile."""
        with self._failing():
            self._read_at = 0.0
            self._refresh()
            self._still = True

    def get(self, table: Table, key: bytes) -> bytes | None:
        found: bytes | None = None
        slots = self.slots(table)
        with self._failing():
            if table not in PARTITIONS:
                self._refresh()
                found = self._database.get(_plain(table, key))
            else:
                values = (self._families[(table, slot)].get(key) for slot in slots)
                found = next((value for value in values if value is not None), None)
        return found

    def scan(self, table: Table, start: bytes, stop: bytes, limit: int) -> Sequence[Row]:
        slots = self.slots(table)
        with self._failing():
            if table not in PARTITIONS:
                self._refresh()
                return list(islice(self._plain_rows(table, start, stop), limit))
            parts = [self._rows(table, slot, start, stop) for slot in slots]
            return list(islice(_once(heapq.merge(*parts)), limit))

    def scan_slot(self, table: Table, slot: int, start: bytes, limit: int) -> Sequence[Row]:
        """Return at most `limit` rows of one slot from a key on, in key order."""
        with self._failing():
            if table not in PARTITIONS:
                return list(islice(self._plain_rows(table, start, None), limit))
            return list(islice(self._rows(table, slot, start, None), limit))

    def _rows(self, table: Table, slot: int, start: bytes, stop: bytes | None) -> Iterator[Row]:
        rows = _from(self._families[(table, slot)], start)
        return takewhile(lambda row: stop is None or row[0] < stop, rows)

    def _plain_rows(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[Row]:
        prefix = _plain(table, b"")
        for key, value in _from(self._database, prefix + start):
            if not key.startswith(prefix) or (stop is not None and key >= prefix + stop):
                return
            yield key[len(prefix) :], value

    # -- writing ------------------------------------------------------------------------------

    def apply(self, batches: Sequence[Persist]) -> None:
        """Write all batches durably and together.

        Raises:
            HostError: The disk is full or failed; nothing of these batches was written.
        """
        partition = self._partition
        with self._failing():
            together = WriteBatch(raw_mode=True)
            for batch in batches:
                partition = partition if batch.opens is None else batch.opens
                self._add(together, batch, partition)
            self._note_drops(together, batches)
            if partition != self._partition:
                together.put(_PARTITION_KEY, partition.to_bytes(8, "big"))
            self._database.write(together, _synced())
            self._partition = partition
            if any(batch.drops for batch in batches):
                self._drop_dead()

    def _add(self, together: WriteBatch, batch: Persist, partition: int) -> None:
        for table, key, value in batch.writes:
            if table not in PARTITIONS:
                if value is None:
                    together.delete(_plain(table, key))
                else:
                    together.put(_plain(table, key), value)
                continue
            if value is None:
                for of, slot in self._families:
                    if of is table:
                        together.delete(key, self._handle(table, slot))
            else:
                slot = partition // PARTITIONS[table]
                self._ensure(table, slot)
                together.put(key, value, self._handle(table, slot))

    def _note_drops(self, together: WriteBatch, batches: Sequence[Persist]) -> None:
        # No batch writes below what one before it dropped, so all drops can come last.
        lowest: dict[Table, int] = {}
        for table, below in (drop for batch in batches for drop in batch.drops):
            before = lowest.get(table, self._lowest(table))
            lowest[table] = max(before, below // PARTITIONS[table])
        for table, slot in lowest.items():
            together.put(_DROPPED + table.value.encode(), slot.to_bytes(8, "big"))

    def _handle(self, table: Table, slot: int) -> ColumnFamily:
        return self._database.get_column_family_handle(f"{table.value}_{slot}")

    # -- closing ------------------------------------------------------------------------------

    def _close_database(self) -> None:
        self._families = {}
        self._database.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def close(self) -> None:
        self._close_database()
        self._unlock()

    def _unlock(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _from(family: Rdict, start: bytes) -> Iterator[Row]:
    """Return the rows from a key on; `items()` of the library would end at a damaged block."""
    place = family.iter()
    place.seek(start)
    while place.valid():
        yield place.key(), place.value()
        place.next()
    place.status()  # raises if it was not the end


def _plain(table: Table, key: bytes) -> bytes:
    return table.value.encode() + b"\0" + key


def _family(name: str) -> tuple[Table, int]:
    stem, _, slot = name.partition("_")
    return Table(stem), int(slot)


class _Failing:
    """Turns what RocksDB says into what an operator can act on.

    The library raises plain `Exception`, and others for rows that are not bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if kind in (Exception, TypeError, ValueError, DbClosedError):
            raise HostError(f"{self._path}: {error}", hint=_HINT) from error


def _once(rows: Iterator[Row]) -> Iterator[Row]:
    last: bytes | None = None
    for row in rows:
        if row[0] != last:
            yield row
        last = row[0]


def _synced() -> WriteOptions:
    options = WriteOptions()
    options.sync = True
    return options


def _options(*, reading: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(not reading)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_db_write_buffer_size(MEMTABLES_BYTES)
    options.set_max_total_wal_size(LOG_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    # A reader keeps files open that the writer deletes meanwhile.
    options.set_max_open_files(-1 if reading else 64)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_compression_type(DBCompressionType.lz4())
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(CACHE_BYTES))
    blocks.set_bloom_filter(10, block_based=False)
    options.set_block_based_table_factory(blocks)
    return options

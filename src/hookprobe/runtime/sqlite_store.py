"""The ledger's tables in one SQLite file: the embedded default store.

* One SQL table per `Table`, or per slot of a partitioned one (`blocks_19683`), clustered by key;
  keys compare as bytes. Dropping a slot drops its SQL table; the pages are used again.
* `apply` writes any number of batches in one transaction with a full sync: when it returns they
  are durable, together (group commit). A crash leaves all of them or none.
* Other processes may read at the same time (`read_only`); a second writer is refused by a lock
  beside the file, because two processes signing as one node would fork its chain.
* A file of an older format is brought to the present one in place (`sqlite_formats`).
* Rows carry checksums, which are compared at every read (`sqlite_checks`).
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hookprobe.dsm.store import PARTITIONS, Persist, Table
from hookprobe.errors import HostError
from hookprobe.runtime import sqlite_checks
from hookprobe.runtime.sqlite_checks import check_row, partition_check, row_check
from hookprobe.runtime.sqlite_formats import (
    READABLE,
    SCHEMA_VERSION,
    create_table,
    prepare,
    sql_table,
    upgrade,
)
from hookprobe.runtime.store_lock import StoreLock

FILE_NAME = "ledger.sqlite"
_RESTORE = "check free space, rights and health of the disk; `hookprobe dsm restore` puts a backup"


class SqliteStore:
    """Implements the ledger's reads and executes its `Persist` effects.

    Args:
        folder: The node's state folder; it must exist.
        read_only: For commands that look at a running node's ledger.

    Raises:
        HostError: Not writable, held by another process, damaged, or of a newer version.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._path = folder / FILE_NAME
        self._read_only = read_only
        self._lock = None if read_only else StoreLock(folder)
        try:
            with self._failing():
                self._database = self._open(read_only=read_only)
                if not read_only:
                    sqlite_checks.check_sums(self._database)
                self._partition = self._stored_partition()
                self._slots = self._stored_slots()
        except HostError:
            self._unlock()
            raise

    def _open(self, *, read_only: bool) -> sqlite3.Connection:
        if read_only and not self._path.exists():
            raise HostError(
                f"no ledger in {self._path.parent}", hint="has this node ever been started?"
            )
        if not read_only:
            upgrade(self._path)
        mode = "ro" if read_only else "rwc"
        database = sqlite3.connect(
            f"file:{self._path}?mode={mode}", uri=True, isolation_level=None, timeout=5
        )
        try:
            if not read_only:
                prepare(database)
                self._check_length(database)
            self._check_version(database)
        except (sqlite3.Error, HostError):
            database.close()
            raise
        return database

    def _check_length(self, database: sqlite3.Connection) -> None:
        # SQLite finds a page behind the end of its file only when it reads it, perhaps in a month.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        pages = int(database.execute("PRAGMA page_count").fetchone()[0])
        size = int(database.execute("PRAGMA page_size").fetchone()[0])
        if self._path.stat().st_size < pages * size:
            raise HostError(f"{self._path}: the file is cut short", hint=_RESTORE)

    def _check_version(self, database: sqlite3.Connection) -> None:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        self._checked = found == SCHEMA_VERSION
        if self._checked or (self._read_only and found in READABLE):
            return
        older = found < SCHEMA_VERSION
        raise HostError(
            f"{self._path}: ledger format {found}, this program knows {SCHEMA_VERSION}",
            hint="start the node once: it brings its ledger to this format"
            if older
            else "run the version of hookprobe that wrote it",
        )

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what SQLite says, also of rows that are not bytes, into what one can act on."""
        try:
            yield
        except (sqlite3.Error, TypeError) as error:
            raise HostError(f"{self._path}: {error}", hint=_RESTORE) from error

    @property
    def partition(self) -> int:
        """The open partition."""
        return self._stored_partition() if self._read_only else self._partition

    def _stored_partition(self) -> int:
        rows = self._database.execute(f"SELECT partition, {self._crc} FROM storage").fetchall()  # noqa: S608 (our own name)
        if len(rows) == 1 and isinstance(rows[0][0], int) and rows[0][0] >= 0:
            partition, kept = rows[0]
            if not self._checked or kept == partition_check(partition):
                return int(partition)
        raise HostError("ledger: the open partition is damaged", hint=_RESTORE)

    @property
    def _crc(self) -> str:
        """The column of checksums; files of format 2 have none."""
        return "crc" if self._checked else "NULL"

    def _row(self, table: Table, row: tuple[bytes, bytes, int | None]) -> tuple[bytes, bytes]:
        return check_row(table, *row) if self._checked else (row[0], row[1])

    def _stored_slots(self) -> dict[Table, list[int]]:
        """Return the slots there are of each partitioned table, newest first."""
        names = self._database.execute("SELECT name FROM sqlite_master WHERE type='table'")
        found: dict[Table, list[int]] = {table: [] for table in PARTITIONS}
        stems = {table.value: table for table in PARTITIONS}
        for (name,) in names:
            stem, _, slot = name.partition("_")
            if stem in stems and slot:
                found[stems[stem]].append(int(slot))
        return {table: sorted(slots, reverse=True) for table, slots in found.items()}

    def slots(self, table: Table) -> list[int]:
        """Return the slots that a table may have rows in, newest first; 0 is always one."""
        if table not in PARTITIONS:
            return [0]
        if self._read_only:
            with self._failing():
                self._slots = self._stored_slots()
        return [*self._slots[table], 0]

    def _parts(self, table: Table) -> list[str]:
        return [sql_table(table, slot) for slot in self.slots(table)]

    def get(self, table: Table, key: bytes) -> bytes | None:
        with self._failing():
            for part in self._parts(table):
                query = f"SELECT key, value, {self._crc} FROM {part} WHERE key=?"  # noqa: S608 (our own name)
                row = self._database.execute(query, (key,)).fetchone()
                if row is not None:
                    return self._row(table, row)[1]
        return None

    def scan(
        self, table: Table, start: bytes, stop: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        parts = [
            f"SELECT key, value, {self._crc} FROM {part} WHERE key>=?1 AND key<?2"  # noqa: S608 (our own name)
            for part in self._parts(table)
        ]
        query = " UNION ".join(parts) + " ORDER BY key LIMIT ?3"
        with self._failing():
            rows = self._database.execute(query, (start, stop, limit)).fetchall()
        return [self._row(table, row) for row in rows]

    def scan_slot(
        self, table: Table, slot: int, start: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return at most `limit` rows of one slot from a key on, in key order."""
        part = sql_table(table, slot)
        query = f"SELECT key, value, {self._crc} FROM {part} WHERE key>=? ORDER BY key LIMIT ?"  # noqa: S608 (our own name)
        with self._failing():
            rows = self._database.execute(query, (start, limit)).fetchall()
        return [self._row(table, row) for row in rows]

    def check_pages(self) -> None:
        """Check the structure of the whole file, and that the rows are those that were written.

        Raises:
            HostError: They are not.
        """
        with self._failing():
            if self._checked:
                sqlite_checks.check_pages(self._database)

    def apply(self, batches: Sequence[Persist]) -> None:
        """Write all batches durably and together.

        Raises:
            HostError: The disk is full or failed; nothing of these batches was written.
        """
        database = self._database
        before = self._partition, {table: list(slots) for table, slots in self._slots.items()}
        try:
            with self._failing():
                database.execute("BEGIN IMMEDIATE")
                for group in _groups(batches):
                    self._open_partition(group[0].opens)
                    self._write(group)
                    for table, partition in group[-1].drops:
                        self._drop(table, partition // PARTITIONS[table])
                database.execute("COMMIT")
        except HostError:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._partition, self._slots = before
            raise

    def _write(self, batches: Sequence[Persist]) -> None:
        # One transaction shows only the last write of a key, so one pass per table is the same.
        rows: dict[Table, dict[bytes, bytes | None]] = {}
        for batch in batches:
            for table, key, value in batch.writes:
                rows.setdefault(table, {})[key] = value
        for table, last in rows.items():
            gone = [(key,) for key, value in last.items() if value is None]
            kept = [
                (key, value, row_check(table.value, key, value))
                for key, value in last.items()
                if value is not None
            ]
            for part in self._parts(table) if gone else ():
                self._database.executemany(f"DELETE FROM {part} WHERE key=?", gone)  # noqa: S608 (our own name)
            target = sql_table(table, self._partition // PARTITIONS.get(table, 1))
            self._database.executemany(
                f"INSERT INTO {target} VALUES (?, ?, ?) ON CONFLICT (key)"  # noqa: S608 (our own name)
                " DO UPDATE SET value=excluded.value, crc=excluded.crc",
                kept,
            )

    def _open_partition(self, partition: int | None) -> None:
        if partition is None or partition == self._partition:
            return
        self._partition = partition
        row = (partition, partition_check(partition))
        self._database.execute("UPDATE storage SET partition=?, crc=?", row)
        for table, span in PARTITIONS.items():
            slot = partition // span
            if slot and slot not in self._slots[table]:
                self._database.execute(create_table(sql_table(table, slot)))
                self._slots[table] = sorted([slot, *self._slots[table]], reverse=True)

    def _drop(self, table: Table, lowest: int) -> None:
        for slot in [slot for slot in self._slots[table] if slot < lowest]:
            self._database.execute(f"DROP TABLE {sql_table(table, slot)}")
            self._slots[table].remove(slot)
        if lowest:
            self._database.execute(f"DELETE FROM {table.value}")  # noqa: S608 (an enum's own value)

    def hold_still(self) -> None:
        """Read one state of the ledger from here on, whatever is written meanwhile."""
        with self._failing():
            self._database.execute("BEGIN")
            self._stored_partition()

    def close(self) -> None:
        self._database.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _groups(batches: Sequence[Persist]) -> list[list[Persist]]:
    """Cut batches where a partition opens or something is dropped; between, order is all one."""
    groups: list[list[Persist]] = []
    for batch in batches:
        if not groups or batch.opens is not None or groups[-1][-1].drops:
            groups.append([])
        groups[-1].append(batch)
    return groups

"""The ledger's tables in one SQLite file: the embedded default store.

* One SQL table per `Table`, or per slot of a partitioned one (`blocks_19683`), clustered by key;
  keys compare as bytes. Dropping a slot drops its SQL table; the pages are used again.
* `apply` writes any number of batches in one transaction with a full sync: when it returns they
  are durable, together (group commit). A crash leaves all of them or none.
* Other processes may read at the same time (`read_only`); a second writer is refused by a lock
  beside the file, because two processes signing as one node would fork its chain.
"""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from hookprobe.dsm.store import PARTITIONS, Persist, Table
from hookprobe.errors import HostError

SCHEMA_VERSION = 2
FILE_NAME = "ledger.sqlite"
LOCK_NAME = "ledger.lock"


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
        self._lock = None if read_only else _lock(folder / LOCK_NAME)
        try:
            self._database = self._open(read_only=read_only)
            self._partition = self._stored_partition()
            self._slots = self._stored_slots()
        except (sqlite3.Error, HostError) as error:
            self._unlock()
            raise error if isinstance(error, HostError) else self._failure(error) from error

    def _open(self, *, read_only: bool) -> sqlite3.Connection:
        if read_only and not self._path.exists():
            raise HostError(
                f"no ledger in {self._path.parent}", hint="has this node ever been started?"
            )
        mode = "ro" if read_only else "rwc"
        database = sqlite3.connect(
            f"file:{self._path}?mode={mode}", uri=True, isolation_level=None, timeout=5
        )
        try:
            if not read_only:
                self._prepare(database)
            self._check_version(database)
        except (sqlite3.Error, HostError):
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        # FULL syncs the log at every commit; NORMAL would lose the last blocks with the power.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
            for table in Table:
                database.execute(_create(table.value))
            database.execute("CREATE TABLE IF NOT EXISTS storage (partition INTEGER NOT NULL)")
            database.execute(
                "INSERT INTO storage SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM storage)"
            )
            database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _check_version(self, database: sqlite3.Connection) -> None:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found != SCHEMA_VERSION:
            raise HostError(
                f"{self._path}: ledger format {found}, this program knows {SCHEMA_VERSION}",
                hint="run the version of hookprobe that wrote it",
            )

    def _stored_partition(self) -> int:
        return int(self._database.execute("SELECT partition FROM storage").fetchone()[0])

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

    def _parts(self, table: Table) -> list[str]:
        """Return the SQL tables of a table, newest first; slot 0 has the plain name."""
        if table not in PARTITIONS:
            return [table.value]
        if self._read_only:
            self._slots = self._stored_slots()
        return [_part(table, slot) for slot in (*self._slots[table], 0)]

    def get(self, table: Table, key: bytes) -> bytes | None:
        for part in self._parts(table):
            query = f"SELECT value FROM {part} WHERE key=?"  # noqa: S608 (our own name)
            row = self._database.execute(query, (key,)).fetchone()
            if row is not None:
                return bytes(row[0])
        return None

    def scan(
        self, table: Table, start: bytes, stop: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        parts = [
            f"SELECT key, value FROM {part} WHERE key>=?1 AND key<?2"  # noqa: S608 (our own name)
            for part in self._parts(table)
        ]
        query = " UNION ".join(parts) + " ORDER BY key LIMIT ?3"
        return self._database.execute(query, (start, stop, limit)).fetchall()

    def apply(self, batches: Sequence[Persist]) -> None:
        """Write all batches durably and together.

        Raises:
            HostError: The disk is full or failed; nothing of these batches was written.
        """
        database = self._database
        before = self._partition, {table: list(slots) for table, slots in self._slots.items()}
        try:
            database.execute("BEGIN IMMEDIATE")
            for group in _groups(batches):
                self._open_partition(group[0].opens)
                self._write(group)
                for table, partition in group[-1].drops:
                    self._drop(table, partition // PARTITIONS[table])
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._partition, self._slots = before
            raise self._failure(error) from error

    def _write(self, batches: Sequence[Persist]) -> None:
        # One transaction shows only the last write of a key, so one pass per table is the same.
        rows: dict[Table, dict[bytes, bytes | None]] = {}
        for batch in batches:
            for table, key, value in batch.writes:
                rows.setdefault(table, {})[key] = value
        for table, last in rows.items():
            gone = [(key,) for key, value in last.items() if value is None]
            kept = [(key, value) for key, value in last.items() if value is not None]
            for part in self._parts(table) if gone else ():
                self._database.executemany(f"DELETE FROM {part} WHERE key=?", gone)  # noqa: S608 (our own name)
            target = _part(table, self._partition // PARTITIONS.get(table, 1))
            self._database.executemany(f"INSERT OR REPLACE INTO {target} VALUES (?, ?)", kept)  # noqa: S608 (our own name)

    def _open_partition(self, partition: int | None) -> None:
        if partition is None or partition == self._partition:
            return
        self._partition = partition
        self._database.execute("UPDATE storage SET partition=?", (partition,))
        for table, span in PARTITIONS.items():
            slot = partition // span
            if slot and slot not in self._slots[table]:
                self._database.execute(_create(_part(table, slot)))
                self._slots[table] = sorted([slot, *self._slots[table]], reverse=True)

    def _drop(self, table: Table, lowest: int) -> None:
        for slot in [slot for slot in self._slots[table] if slot < lowest]:
            self._database.execute(f"DROP TABLE {_part(table, slot)}")
            self._slots[table].remove(slot)
        if lowest:
            self._database.execute(f"DELETE FROM {table.value}")  # noqa: S608 (an enum's own value)

    def _failure(self, error: sqlite3.Error) -> HostError:
        return HostError(
            f"{self._path}: {error}", hint="check free space, rights and health of the disk"
        )

    def close(self) -> None:
        self._database.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _part(table: Table, slot: int) -> str:
    return f"{table.value}_{slot}" if slot and table in PARTITIONS else table.value


def _create(name: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {name}"
        " (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
    )


def _groups(batches: Sequence[Persist]) -> list[list[Persist]]:
    """Cut batches where a partition opens or something is dropped; between, order is all one."""
    groups: list[list[Persist]] = []
    for batch in batches:
        if not groups or batch.opens is not None or groups[-1][-1].drops:
            groups.append([])
        groups[-1].append(batch)
    return groups


def _lock(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check the state folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise HostError(
            f"{path.parent} is in use by another hookprobe process",
            hint="stop it first; two processes of one node would fork its chain",
        ) from error
    return handle

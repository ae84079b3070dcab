"""The ledger's tables in one SQLite file: the embedded default store.

* One SQL table per `Table`, clustered by key; keys compare as bytes.
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

from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import HostError

SCHEMA_VERSION = 1
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
        self._lock = None if read_only else _lock(folder / LOCK_NAME)
        try:
            self._database = self._open(read_only=read_only)
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
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {table.value}"
                    " (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
            database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _check_version(self, database: sqlite3.Connection) -> None:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found != SCHEMA_VERSION:
            raise HostError(
                f"{self._path}: ledger format {found}, this program knows {SCHEMA_VERSION}",
                hint="run the version of hookprobe that wrote it",
            )

    def get(self, table: Table, key: bytes) -> bytes | None:
        query = f"SELECT value FROM {table.value} WHERE key=?"  # noqa: S608 (an enum's own value)
        row = self._database.execute(query, (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def scan(
        self, table: Table, start: bytes, stop: bytes, limit: int
    ) -> Sequence[tuple[bytes, bytes]]:
        query = f"SELECT key, value FROM {table.value} WHERE key>=? AND key<? ORDER BY key LIMIT ?"  # noqa: S608 (an enum's own value)
        return self._database.execute(query, (start, stop, limit)).fetchall()

    def apply(self, batches: Sequence[Persist]) -> None:
        """Write all batches durably and together.

        Raises:
            HostError: The disk is full or failed; nothing of these batches was written.
        """
        # One transaction shows only the last write of a key, so one pass per table is the same.
        rows: dict[Table, dict[bytes, bytes | None]] = {}
        for batch in batches:
            for table, key, value in batch.writes:
                rows.setdefault(table, {})[key] = value
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            for table, last in rows.items():
                gone = [(key,) for key, value in last.items() if value is None]
                kept = [(key, value) for key, value in last.items() if value is not None]
                database.executemany(_DELETE[table], gone)
                database.executemany(_PUT[table], kept)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise self._failure(error) from error

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


_PUT = {
    table: f"INSERT OR REPLACE INTO {table.value} VALUES (?, ?)"  # noqa: S608 (an enum's own value)
    for table in Table
}
_DELETE = {
    table: f"DELETE FROM {table.value} WHERE key=?"  # noqa: S608 (an enum's own value)
    for table in Table
}


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

"""Formats of the SQLite ledger file, and how an older one becomes the present one.

| format | what |
|---|---|
| 1 | one SQL table per ledger table; a row of `checkpoints` is a whole final checkpoint |
| 2 | partitioned tables have one SQL table per slot; `storage` remembers the open partition; |
|   | contents apart from `checkpoints`; first blocks of final chains among `relics` |
| 3 | every row carries a checksum, and tables that decide what is signed a sum (`sqlite_checks`) |

`user_version` of the file is its format. The upgrade first writes a copy of the old file beside it
(`ledger.sqlite.format-1`, whole and synced before it gets that name) and then changes the file in
one transaction: a crash at any point leaves the old format or the new one, and starting again
finishes. Rows of format 1 belong to slot 0 and go with the first partition that is dropped.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from hookprobe.dsm.certificate import read_certificate
from hookprobe.dsm.checkpoint import FinalCheckpoint, encode_content, read_checkpoint
from hookprobe.dsm.microblock import lane_row
from hookprobe.dsm.store import PARTITIONS, Table
from hookprobe.errors import HostError, RemoteError
from hookprobe.runtime.sqlite_checks import guard, partition_check, row_check
from hookprobe.wire.reader import Reader

SCHEMA_VERSION = 3
READABLE = (2, 3)  # without changing anything: backups are of any of these


def sql_table(table: Table, slot: int) -> str:
    """Return the SQL table that holds a slot; slot 0 has the plain name."""
    return f"{table.value}_{slot}" if slot and table in PARTITIONS else table.value


def create_table(name: str) -> str:
    """Return the statement that makes a table of rows if it is not there."""
    return (
        f"CREATE TABLE IF NOT EXISTS {name}"
        " (key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL DEFAULT 0)"
        " WITHOUT ROWID"
    )


def prepare(database: sqlite3.Connection) -> None:
    """Make a file durable, and a new one of the present format."""
    # FULL syncs the log at every commit; NORMAL would lose the last blocks with the power.
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    if _format(database) == 0:
        _create(database)


def _create(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    _create_tables(database)
    database.execute("UPDATE storage SET crc=?", (partition_check(0),))
    guard(database)
    database.execute("COMMIT")


def _create_tables(database: sqlite3.Connection) -> None:
    for table in Table:
        database.execute(create_table(table.value))
    database.execute(
        "CREATE TABLE IF NOT EXISTS storage"
        " (partition INTEGER NOT NULL, crc INTEGER NOT NULL DEFAULT 0)"
    )
    database.execute(
        "INSERT INTO storage (partition) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM storage)"
    )
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _format(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def upgrade(path: Path) -> None:
    """Bring a file of an older format to the present one; the caller holds the ledger's lock.

    Raises:
        HostError: There is no room for the copy; the file is as it was.
        sqlite3.Error: The file is damaged, or the disk failed; it is as it was.
    """
    if not path.exists():
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as database:
        found = _format(database)
        if not 0 < found < SCHEMA_VERSION:
            return
        database.execute("PRAGMA synchronous=FULL")
        _keep_copy(database, path.with_name(f"{path.name}.format-{found}"))
        database.execute("BEGIN IMMEDIATE")
        try:
            _create_tables(database)
            if found == 1:
                _split_checkpoints(database)
            _add_checks(database)
        except RemoteError as error:
            raise HostError(
                f"{path}: a checkpoint of format {found} cannot be read: {error.message}",
                hint="the file was not changed; put a backup back",
            ) from error
        database.execute("COMMIT")


def _split_checkpoints(database: sqlite3.Connection) -> None:
    for epoch, row in database.execute("SELECT key, value FROM checkpoints").fetchall():
        reader = Reader(row, "checkpoint of format 1")
        final = FinalCheckpoint(read_checkpoint(reader), read_certificate(reader))
        reader.finish()
        content = final.checkpoint.content
        database.execute(
            "UPDATE checkpoints SET value=? WHERE key=?", (final.sealed().encode(), epoch)
        )
        database.execute(
            "INSERT INTO contents (key, value) VALUES (?, ?)", (epoch, encode_content(content))
        )
        for covered in content.ranges:
            if covered.first == 1:
                first = lane_row(covered.lane) + covered.first.to_bytes(8, "big")
                _keep_relic(database, epoch, first)


def _keep_relic(database: sqlite3.Connection, epoch: bytes, first: bytes) -> None:
    # Of a chain that forked at its first block the evidence is kept, and it counts no more.
    query = "SELECT value FROM blocks WHERE key>=? AND key<?"
    rows = database.execute(query, (first, first + b"\xff" * 33)).fetchall()
    if len(rows) == 1:
        database.execute(
            "INSERT INTO relics (key, value) VALUES (?, ?)", (epoch + first, rows[0][0])
        )


def _add_checks(database: sqlite3.Connection) -> None:
    """Give every row its checksum: it is trusted as it stands, there is nothing to compare with."""
    database.create_function("row_check", 3, row_check, deterministic=True)
    database.create_function("partition_check", 1, partition_check, deterministic=True)
    stems = {table.value for table in Table}
    query = "SELECT name FROM sqlite_master WHERE type='table'"
    for (name,) in database.execute(query).fetchall():
        stem = name.partition("_")[0]
        if stem not in stems and name != "storage":
            continue
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
        if "crc" not in columns:
            database.execute(f"ALTER TABLE {name} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
        if stem in stems:
            database.execute(f"UPDATE {name} SET crc=row_check('{stem}', key, value)")  # noqa: S608 (our own names)
    database.execute("UPDATE storage SET crc=partition_check(partition)")
    guard(database)


def _keep_copy(database: sqlite3.Connection, target: Path) -> None:
    if target.exists():
        return  # of an upgrade that a crash interrupted: that file was whole before it got its name
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as copy:
            database.backup(copy)
        partial.chmod(0o600)
        sync_path(partial)
        partial.replace(target)
        sync_path(target.parent)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise HostError(
            f"{target}: {error}; the ledger was not changed",
            hint="make room for a copy of the ledger and start again",
        ) from error


def sync_path(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

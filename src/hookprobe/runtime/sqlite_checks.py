"""What SQLite does not check: that a row is the one that was written, and that none has gone.

SQLite's pages carry no checksum. What the ledger hashes and signs is safe anyway; a vote, a state
row or one's own chain head is not, and a validator that forgets a vote may contradict itself. So

* every row carries CRC-32 over its table's name, key and value, compared whenever it is read;
* of the tables that decide what may be signed (`GUARDED`) the number of rows and the sum of their
  CRCs are kept by triggers, and compared when the ledger is opened for writing and by fsck.

This finds what decays. It is no protection from somebody who writes into the file on purpose.
"""

import sqlite3
import zlib
from collections.abc import Iterator

from hookprobe.dsm.store import Table
from hookprobe.errors import HostError

GUARDED = (Table.META, Table.CHAIN, Table.VOTES, Table.CUTS)
HINT = "check the health of the disk; `hookprobe dsm restore` puts a backup"
_STORAGE = "storage"


def row_check(table: str, key: bytes, value: bytes) -> int:
    """Return the CRC-32 of a row: table name, length of the key, key and value."""
    head = zlib.crc32(b"%s\0%d\0" % (table.encode(), len(key)))
    return zlib.crc32(value, zlib.crc32(key, head))


def partition_check(partition: int) -> int:
    """Return the CRC-32 of the number of the open partition."""
    return row_check(_STORAGE, b"", partition.to_bytes(8, "big"))


def check_row(table: Table, key: object, value: object, kept: object) -> tuple[bytes, bytes]:
    """Return a row's key and value.

    Raises:
        HostError: The row is not the one that was written.
    """
    if isinstance(key, bytes) and isinstance(value, bytes):
        if kept == row_check(table.value, key, value):
            return key, value
        raise HostError(f"ledger: row {key.hex()[:48]} of {table.value} is damaged", hint=HINT)
    raise HostError(f"ledger: a row of {table.value} is damaged", hint=HINT)


def guard(database: sqlite3.Connection) -> None:
    """Make the sums of the guarded tables and the triggers that keep them, if there are none."""
    database.execute(
        "CREATE TABLE IF NOT EXISTS sums"
        " (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, total INTEGER NOT NULL) WITHOUT ROWID"
    )
    for table in GUARDED:
        name = table.value
        database.execute(
            f"INSERT OR IGNORE INTO sums SELECT '{name}', count(*), total(crc) FROM {name}"  # noqa: S608 (an enum's own value)
        )
        for when, change in _changes():
            database.execute(
                f"CREATE TRIGGER IF NOT EXISTS {name}_{when} AFTER {when} ON {name}"  # noqa: S608 (an enum's own value)
                f" BEGIN UPDATE sums SET {change} WHERE name='{name}'; END"
            )


def _changes() -> Iterator[tuple[str, str]]:
    yield "insert", "rows=rows+1, total=total+NEW.crc"
    yield "delete", "rows=rows-1, total=total-OLD.crc"
    yield "update", "total=total-OLD.crc+NEW.crc"


def check_sums(database: sqlite3.Connection) -> None:
    """Check that the guarded tables hold what was written into them, no more and no less.

    Raises:
        HostError: A row is damaged, gone or came from nowhere.
        sqlite3.Error: The file cannot be read.
    """
    kept = {name: (rows, total) for name, rows, total in database.execute("SELECT * FROM sums")}
    for table in GUARDED:
        rows = total = 0
        query = f"SELECT key, value, crc FROM {table.value}"  # noqa: S608 (an enum's own value)
        for key, value, crc in database.execute(query):
            check_row(table, key, value, crc)
            rows, total = rows + 1, total + crc
        if kept.get(table.value) != (rows, total):
            raise HostError(
                f"ledger: {table.value} does not hold the rows that were written", hint=HINT
            )


def check_pages(database: sqlite3.Connection) -> None:
    """Check the structure of the whole file, and the guarded tables.

    Raises:
        HostError: Pages, rows or indexes do not fit together.
        sqlite3.Error: The file cannot be read.
    """
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise HostError(f"ledger: {found}", hint=HINT)
    check_sums(database)

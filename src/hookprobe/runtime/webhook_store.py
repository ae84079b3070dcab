"""Where webhook deliveries are kept: one SQLite file in the node's state folder."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookprobe.errors import HostError
from hookprobe.runtime.webhook_outbox import Delivery, State
from hookprobe.wire.instant import Instant

FILE_NAME = "webhooks.sqlite"
FORMAT = 1
_COLUMNS = "id, hook, event, body, created, state, attempts, refusals, due, error"


class WebhookStore:
    """Keeps deliveries; each call is durable when it returns.

    Args:
        folder: The node's state folder.

    Raises:
        HostError: The file cannot be used, or is of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None, timeout=5)
            self._prepare()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _prepare(self) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found not in {0, FORMAT}:
            raise HostError(f"{self._path}: format {found}, this program knows {FORMAT}")
        database.execute(
            "CREATE TABLE IF NOT EXISTS deliveries (id TEXT PRIMARY KEY, hook TEXT NOT NULL,"
            " event TEXT NOT NULL, body BLOB NOT NULL, created INTEGER NOT NULL,"
            " state TEXT NOT NULL, attempts INTEGER NOT NULL, refusals INTEGER NOT NULL,"
            " due INTEGER NOT NULL, error TEXT NOT NULL) WITHOUT ROWID"
        )
        database.execute("CREATE INDEX IF NOT EXISTS by_state ON deliveries (state)")
        database.execute(f"PRAGMA user_version={FORMAT}")

    def keep(self, item: Delivery) -> None:
        """Write a delivery down."""
        row = (
            item.id,
            item.hook,
            item.event,
            item.body,
            item.created,
            item.state.value,
            item.attempts,
            item.refusals,
            item.due,
            item.error,
        )
        marks = ", ".join("?" * len(row))
        self._execute(
            f"INSERT OR REPLACE INTO deliveries ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 (our own column names)
            row,
        )

    def forget(self, delivery_id: str) -> None:
        """Remove a delivery."""
        self._execute("DELETE FROM deliveries WHERE id=?", (delivery_id,))

    def all(self, state: State | None = None) -> list[Delivery]:
        """Return what is kept, oldest first."""
        query = f"SELECT {_COLUMNS} FROM deliveries"  # noqa: S608 (our own column names)
        rows = self._execute(
            query + (" WHERE state=?" if state else "") + " ORDER BY created, id",
            (state.value,) if state else (),
        )
        return [
            Delivery(
                id=row[0],
                hook=row[1],
                event=row[2],
                body=bytes(row[3]),
                created=Instant(row[4]),
                state=State(row[5]),
                attempts=row[6],
                refusals=row[7],
                due=Instant(row[8]),
                error=row[9],
            )
            for row in rows
        ]

    def ask_again(self, hook: str = "", delivery_id: str = "") -> int:
        """Ask the node to send dead deliveries again; returns how many."""
        rows = self._execute(
            "UPDATE deliveries SET state='asked' WHERE state='dead'"
            " AND (?1='' OR hook=?1) AND (?2='' OR id=?2) RETURNING 1",
            (hook, delivery_id),
        )
        return len(rows)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many deliveries there are by receiver and state."""
        rows = self._execute("SELECT hook, state, COUNT(*) FROM deliveries GROUP BY 1, 2", ())
        return {(hook, state): count for hook, state, count in rows}

    def _execute(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> HostError:
        return HostError(f"{self._path}: {error}", hint="check free space and rights")

    def close(self) -> None:
        self._database.close()

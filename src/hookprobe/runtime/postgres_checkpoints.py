"""A copy of the final checkpoints in PostgreSQL (extra `postgresql`), for people and their SQL.

The table is `dsm_checkpoints`, one row an epoch, appended in order without a gap; `sealed` and
`content` are the very bytes that the ledger holds, so that every row can be verified, and the other
columns are read out of them. Times are whole microseconds since 1970, hashes and keys lower case
hex, the status is lower case.

It is a copy and nothing else: a node writes its own ledger first, durably, and this table after
(see `checkpoint_copy`). So the table may lack the last epochs; agreement never reads it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import LiteralString

import psycopg

from hookprobe.dsm.checkpoint import NO_CHECKPOINT, Content, SealedHeader, decode_content
from hookprobe.errors import HostError
from hookprobe.wire.instant import MILLISECOND, Instant

FORMAT = "hookprobe format 1"
CONNECT_S = 5
_LOCK_NAME = hashlib.sha256(b"hookprobe dsm_checkpoints").digest()
_LOCK = int.from_bytes(_LOCK_NAME[:8], "big", signed=True)

_OPTIONS = "-c synchronous_commit=on -c statement_timeout=30000 -c lock_timeout=5000"
_CREATE: LiteralString = """
CREATE TABLE dsm_checkpoints (
    epoch BIGINT PRIMARY KEY,
    chain TEXT NOT NULL,
    checkpoint_hash TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    merkle_root TEXT NOT NULL,
    block_count BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    validator_id TEXT NOT NULL,
    validator_count INTEGER NOT NULL,
    agg_signature TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status = lower(status)),
    included_ranges JSONB,
    recorded_at BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    content BYTEA
)
"""
_INSERT: LiteralString = """
INSERT INTO dsm_checkpoints VALUES
    (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'finalized', %s, %s, %s, %s)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint as the ledger holds it; `content` is None where it was pruned."""

    sealed: SealedHeader
    content: bytes | None


class PostgresCheckpoints:
    """One connection to the table.

    Args:
        url: libpq's URL; empty: as PGHOST, PGDATABASE and their like say.
        read_only: Whoever only looks needs no lock and creates nothing.

    Raises:
        HostError: No server, no rights, another writer, or a table of another format.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        with _Failing():
            self._database = psycopg.connect(url, connect_timeout=CONNECT_S, options=_OPTIONS)
        try:
            with _Failing():
                self._prepare(read_only=read_only)
        except HostError:
            self._database.close()
            raise

    def _prepare(self, *, read_only: bool) -> None:
        if not read_only:
            (free,) = self._one("SELECT pg_try_advisory_lock(%s)", (_LOCK,)) or (False,)
            if not free:
                raise HostError(
                    "dsm_checkpoints is written by another node",
                    hint="each validator needs a database of its own",
                )
        (found,) = self._one("SELECT obj_description(to_regclass('dsm_checkpoints'))") or (None,)
        (there,) = self._one("SELECT to_regclass('dsm_checkpoints') IS NOT NULL") or (False,)
        if not there and not read_only:
            self._database.execute(_CREATE)
            self._database.execute("COMMENT ON TABLE dsm_checkpoints IS 'hookprobe format 1'")
        elif found != FORMAT:
            raise HostError(
                f"dsm_checkpoints: format {found}, this program knows {FORMAT}",
                hint="run the version of hookprobe that wrote it, or name another database",
            )
        self._database.commit()

    def _one(
        self, query: LiteralString, values: Sequence[object] = ()
    ) -> tuple[object, ...] | None:
        return self._database.execute(query, values).fetchone()

    def tip(self) -> tuple[int, bytes]:
        """Return the number of epochs that are here and the hash of the last header."""
        with _Failing():
            last = self._one(
                "SELECT epoch, checkpoint_hash FROM dsm_checkpoints ORDER BY epoch DESC LIMIT 1"
            )
            self._database.commit()
        return (int(str(last[0])) + 1, bytes.fromhex(str(last[1]))) if last else (0, NO_CHECKPOINT)

    def hash_at(self, epoch: int) -> bytes | None:
        """Return the header hash of an epoch; None where it is not here."""
        with _Failing():
            query: LiteralString = "SELECT checkpoint_hash FROM dsm_checkpoints WHERE epoch = %s"
            found = self._one(query, (epoch,))
            self._database.commit()
        return bytes.fromhex(str(found[0])) if found else None

    def scan(self, first: int, limit: int) -> list[tuple[int, bytes, bytes | None]]:
        """Return at most `limit` rows (epoch, sealed, content) from an epoch on, ascending."""
        with _Failing():
            query: LiteralString = (
                "SELECT epoch, sealed, content FROM dsm_checkpoints"
                " WHERE epoch >= %s ORDER BY epoch LIMIT %s"
            )
            rows = self._database.execute(query, (first, limit)).fetchall()
            self._database.commit()
        return [(int(epoch), bytes(sealed), content) for epoch, sealed, content in rows]

    def append(self, rows: Sequence[Row], now: Instant) -> None:
        """Add the next checkpoints, all of them or none, durably.

        Raises:
            HostError: They do not continue what is here, or the server failed; nothing was added.
        """
        epoch, last = self.tip()
        for row in rows:
            header = row.sealed.header
            if header.epoch != epoch or header.prev != last:
                raise HostError(
                    f"dsm_checkpoints: epoch {header.epoch} does not continue what is there",
                    hint="the database belongs to another ledger; name another one",
                )
            epoch, last = epoch + 1, row.sealed.hash
        with _Failing(), self._database.transaction(), self._database.cursor() as cursor:
            cursor.executemany(_INSERT, [_values(row, now) for row in rows])

    def drop_contents(self, before: Instant) -> None:
        """Forget ranges, CUTs and evidence of older checkpoints; headers stay for ever."""
        with _Failing(), self._database.transaction():
            self._database.execute(
                "UPDATE dsm_checkpoints SET content = NULL, included_ranges = NULL"
                " WHERE timestamp < %s AND content IS NOT NULL",
                (before,),
            )

    def close(self) -> None:
        self._database.close()


def _values(row: Row, now: Instant) -> tuple[object, ...]:
    header, certificate = row.sealed.header, row.sealed.certificate
    ranges = None if row.content is None else _ranges(decode_content(row.content))
    return (
        header.epoch,
        header.chain.hex(),
        row.sealed.hash.hex(),
        header.prev.hex(),
        header.merkle_root.hex(),
        header.count,
        header.timestamp_ms * MILLISECOND,
        header.validator_id,
        len(certificate.signers()),
        certificate.signature.hex(),
        ranges,
        now,
        row.sealed.encode(),
        row.content,
    )


def _ranges(content: Content) -> str:
    return json.dumps(
        [
            {
                "node_id": item.node_id,
                "inc": item.inc,
                "from": item.first,
                "to": item.last,
                "head": item.head.hex(),
            }
            for item in content.ranges
        ]
    )


class _Failing:
    """Turns what libpq says into what an operator can act on; it never quotes the URL."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, psycopg.Error):
            said = str(error).strip().splitlines()
            raise HostError(
                f"postgresql: {said[0] if said else type(error).__name__}",
                hint="check the server and dsm.storage.checkpoints.url; the ledger itself is whole",
            ) from error

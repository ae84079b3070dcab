"""A ledger for anybody: what others may have of it in one file, verified by whoever takes it in.

Gzipped lines of canonical JSON, without votes, the node's own notes and, unless wanted, payloads:

    {"chain": hex, "payloads": bool, "type": "hookprobe-ledger", "v": 1}
    {"k": hex, "p": partition, "t": table, "v": hex}     one for each row, oldest partition first
    {"digest": hex, "rows": N}                           SHA-256 of all lines before

The digest finds accidents. What makes an import true is that all of it is checked against the
genesis document of the importing node, as `hookprobe dsm fsck` does.
"""

import gzip
import hashlib
import itertools
import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from hookprobe.dsm.history import STATE_KEY
from hookprobe.dsm.store import Persist, Table
from hookprobe.dsm.votelog import ABSTAIN_KEY, VOTED_KEY, abstain_row
from hookprobe.errors import HostError, MalformedError, VerificationError
from hookprobe.runtime.fsck_blocks import Audit
from hookprobe.runtime.ledger_fsck import check_ledger
from hookprobe.runtime.ledger_moves import Row, Terms, fill, rows_in_order, stage, take_over
from hookprobe.runtime.ledger_store import StorePlace, open_store
from hookprobe.runtime.sqlite_formats import sync_path
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields

LINE_MAX_BYTES = 8 << 20
_PUBLIC = (
    Table.META,
    Table.BLOCKS,
    Table.PAYLOADS,
    Table.LANES,
    Table.CHECKPOINTS,
    Table.CONTENTS,
    Table.COVERAGE,
    Table.CHANGES,
    Table.RELICS,
    Table.EVIDENCE,
)
_PRIVATE_META = (VOTED_KEY, ABSTAIN_KEY)


def export(place: StorePlace, target: Path, chain: bytes, *, payloads: bool) -> int:
    """Write what others may have of a ledger; the node may be running. Return the rows.

    Raises:
        HostError: A disk failed.
    """
    partial = target.with_name(target.name + ".partial")
    digest, count = hashlib.sha256(), 0
    head: JsonObject = {
        "chain": chain.hex(),
        "payloads": payloads,
        "type": "hookprobe-ledger",
        "v": 1,
    }
    try:
        with closing(open_store(place, read_only=True)) as ledger, gzip.open(partial, "wb") as file:
            ledger.hold_still()
            lines = (
                _line(row) for row in rows_in_order(ledger) if _is_public(row, payloads=payloads)
            )
            for line in itertools.chain([canonical.encode(head) + b"\n"], lines):
                digest.update(line)
                file.write(line)
                count += 1
            end: JsonObject = {"digest": digest.hexdigest(), "rows": count - 1}
            file.write(canonical.encode(end) + b"\n")
        sync_path(partial)
        partial.replace(target)
    except OSError as error:
        raise HostError(f"{target}: {error.strerror}") from error
    return count - 1


def _is_public(row: Row, *, payloads: bool) -> bool:
    _, table, key, _ = row
    if table is Table.META:
        return key not in _PRIVATE_META
    return table in _PUBLIC and (payloads or table is not Table.PAYLOADS)


def _line(row: Row) -> bytes:
    partition, table, key, value = row
    content: JsonObject = {"k": key.hex(), "p": partition, "t": table.value, "v": value.hex()}
    return canonical.encode(content) + b"\n"


def import_file(source: Path, place: StorePlace, terms: Terms, until: int) -> Audit:
    """Make a node's ledger of an export, if all of it holds; there must be none yet.

    Returns:
        What is wrong; the ledger is there only if nothing is.

    Raises:
        HostError: There is a ledger, or a disk failed.
        RemoteError: The file is not a whole export, or of another chain.
    """
    if place.exists():
        raise HostError(
            f"{place.state}: there is a ledger already",
            hint="restore replaces one; import does not",
        )
    staging = stage(place)
    with closing(open_store(staging)) as ledger:
        rows = _read_export(source, terms.court.chain)
        fill(ledger, rows, 0)
        state = ledger.get(Table.META, STATE_KEY)
        audit = check_ledger(terms.genesis, terms.court, ledger, terms.retention)
        if state is None:
            audit.add(
                "export", "holds no checkpoints; an edge's proof is `hookprobe evidence export`"
            )
        ledger.apply([Persist((abstain_row(until),))])
    if not audit.faults:
        take_over(staging, place)
    shutil.rmtree(staging.state, ignore_errors=True)
    return audit


def _read_export(source: Path, chain: bytes) -> Iterator[Row]:
    digest, count = hashlib.sha256(), 0
    try:
        with gzip.open(source, "rb") as file:
            line = file.readline(LINE_MAX_BYTES)
            _check_head(_fields(line), chain)
            while True:
                digest.update(line)
                line = file.readline(LINE_MAX_BYTES)
                fields = _fields(line)
                if fields.has("digest"):
                    break
                count += 1
                yield _read_row(fields)
            _check_end(fields, digest.digest(), count)
            if file.read(1):
                raise MalformedError(f"{source}: goes on behind its end")
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedError(f"{source}: {error}") from error


def _fields(line: bytes) -> Fields:
    if not line.endswith(b"\n"):
        raise MalformedError("ledger export: its end is missing, or a line is too long")
    content = canonical.decode_object(line[:-1], limit=LINE_MAX_BYTES)
    return Fields(content, "ledger export")


def _check_head(head: Fields, chain: bytes) -> None:
    head.literal("type", "hookprobe-ledger")
    head.literal("v", 1)
    head.flag("payloads")
    if head.hex("chain", 32) != chain:
        raise VerificationError("ledger export: of another chain")
    head.finish()


def _read_row(fields: Fields) -> Row:
    name = fields.text("t")
    table = next((table for table in _PUBLIC if table.value == name), None)
    if table is None:
        raise MalformedError(f"ledger export: no table {name[:40]} is in one")
    key, value = (_bytes(fields.text(part, limit=LINE_MAX_BYTES)) for part in "kv")
    row = (fields.integer("p"), table, key, value)
    fields.finish()
    if not _is_public(row, payloads=True):
        raise MalformedError("ledger export: it holds a vote log")
    return row


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise MalformedError("ledger export: not hex") from error


def _check_end(fields: Fields, digest: bytes, count: int) -> None:
    if fields.hex("digest", 32) != digest or fields.integer("rows") != count:
        raise VerificationError("ledger export: it was changed since")
    fields.finish()

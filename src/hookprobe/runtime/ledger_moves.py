"""Backup and restore of a ledger, and how a ledger takes the place of another.

A backup is a folder, for this node alone: `ledger.sqlite` with every row as of one moment, and
`backup.json` that says what it is. It is checked whole, against the genesis document that is here,
before anything is replaced. The new ledger is made beside the old one and then takes its place
under the mark `restoring`: a crash leaves a node that refuses to start until the restore is run
again, never one that starts from half a ledger or from an empty one. What was there is kept in a
folder `replaced-N`.

A safe with the node's identity may lie beside the ledger; see `identity_backup`.

A ledger of the past does not know what its key signed since (R8). So the new one carries the first
epoch in which this validator may vote again: no epoch opens before its time, so none beyond that of
the clock can hold a vote of ours, and two more are left out.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hookprobe.dsm.court import Court
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.store import Persist, Table
from hookprobe.dsm.votelog import abstain_row
from hookprobe.errors import HostError, MalformedError, VerificationError
from hookprobe.runtime.fsck_blocks import Audit
from hookprobe.runtime.identity_backup import SAFE_FILE
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.runtime.ledger_fsck import Retention, check_ledger
from hookprobe.runtime.ledger_store import (
    SQLITE,
    LedgerStore,
    StorePlace,
    all_rows,
    all_slots,
    open_store,
)
from hookprobe.runtime.sqlite_formats import sync_path
from hookprobe.runtime.store_lock import RESTORING, StoreLock, write_mark
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.instant import Instant

MANIFEST = "backup.json"
STAGING = "restoring"
ROWS_PER_BATCH = 512


@dataclass(frozen=True, slots=True)
class Terms:
    """What a copy is checked against.

    Attributes:
        genesis: The chain's genesis document, as it is here.
        court: Its court.
        retention: What may be gone from it.
    """

    genesis: Genesis
    court: Court
    retention: Retention


Row = tuple[int, Table, bytes, bytes]


def backup(
    place: StorePlace, target: Path, chain: bytes, now: Instant, safe: bytes | None = None
) -> int:
    """Write a backup of one moment; the node may be running. Return the number of rows.

    Args:
        place: Where the ledger is.
        target: A new folder.
        chain: The chain's id.
        now: When.
        safe: The node's identity, sealed; see `identity_backup`.

    Raises:
        HostError: The folder is there already, or a disk failed.
    """
    if target.exists():
        raise HostError(f"{target} exists", hint="name a folder that does not exist yet")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise HostError(f"{partial}: {error.strerror}") from error
    with closing(open_store(place, read_only=True)) as ledger:
        ledger.hold_still()
        with closing(open_store(StorePlace(partial))) as copy:
            rows = fill(copy, rows_in_order(ledger), ledger.partition)
    content: JsonObject = {
        "at": now,
        "chain": chain.hex(),
        "rows": rows,
        "sha256": _digest(partial / "ledger.sqlite"),
        "type": "hookprobe-backup",
        "v": 1,
    }
    if safe is not None:
        write_atomically(partial / SAFE_FILE, safe, mode=0o600)
        content["identity"] = _digest(partial / SAFE_FILE)
    write_atomically(partial / MANIFEST, canonical.encode(content))
    sync_path(partial)
    partial.replace(target)
    sync_path(target.parent)
    return rows


def rows_in_order(ledger: LedgerStore) -> Iterator[Row]:
    """Return all rows of a ledger, oldest partition first."""
    for partition, table, slot in all_slots(ledger):
        for key, value in all_rows(ledger, table, slot):
            yield partition, table, key, value


def fill(ledger: LedgerStore, rows: Iterable[Row], partition: int) -> int:
    """Write rows, oldest partition first, and leave `partition` open."""
    total, held, batch = 0, 0, list[tuple[Table, bytes, bytes | None]]()
    for opens, table, key, value in rows:
        if opens < held:
            raise MalformedError("ledger copy: its rows are out of order")
        if batch and (opens != held or len(batch) == ROWS_PER_BATCH):
            ledger.apply([Persist(tuple(batch), opens=held)])
            batch = []
        held = opens
        batch.append((table, key, value))
        total += 1
    ledger.apply([Persist(tuple(batch), opens=held), Persist((), opens=max(held, partition))])
    return total


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def check_backup(folder: Path, terms: Terms) -> Audit:
    """Check a backup and everything in it.

    Raises:
        HostError: It cannot be read.
        RemoteError: It is not a whole backup, or of another chain.
    """
    fields = Fields(canonical.decode_object(read_file(folder / MANIFEST, limit=1 << 16)), MANIFEST)
    fields.literal("type", "hookprobe-backup")
    fields.literal("v", 1)
    fields.integer("at")
    rows = fields.integer("rows")
    if fields.hex("chain", 32) != terms.court.chain:
        raise VerificationError(f"{folder}: backup of another chain")
    if fields.hex("sha256", 32).hex() != _digest(folder / "ledger.sqlite"):
        raise VerificationError(f"{folder}: ledger.sqlite is not the one that was backed up")
    if fields.has("identity") and fields.hex("identity", 32).hex() != _digest(folder / SAFE_FILE):
        raise VerificationError(f"{folder}: {SAFE_FILE} is not the one that was backed up")
    fields.finish()
    with closing(open_store(StorePlace(folder), read_only=True)) as ledger:
        found = sum(1 for _ in rows_in_order(ledger))
        if found != rows:
            raise VerificationError(f"{folder}: {found} rows, {rows} were backed up")
        return check_ledger(terms.genesis, terms.court, ledger, terms.retention)


# -- putting a ledger in its place ------------------------------------------------------------


def silent_until(genesis: Genesis, now: Instant) -> int:
    """Return the first epoch in which a key may sign again whose votes up to now are unknown."""
    return max(0, now - genesis.start) // genesis.epoch_duration_us + 2


def restore(folder: Path, place: StorePlace, until: int) -> Path | None:
    """Put a backup, which was checked, in the place of a node's ledger; the node must not run.

    Args:
        folder: The backup.
        place: Where the node's settings want its ledger.
        until: The first epoch in which it may vote.

    Returns:
        Where the ledger that was there is now; None if there was none.

    Raises:
        HostError: The node runs, or a disk failed.
    """
    staging = stage(place)
    backed_up = open_store(StorePlace(folder), read_only=True)
    with closing(backed_up), closing(open_store(staging)) as ledger:
        fill(ledger, rows_in_order(backed_up), backed_up.partition)
        ledger.apply([Persist((abstain_row(until),))])
    return take_over(staging, place)


def stage(place: StorePlace) -> StorePlace:
    """Return an empty place beside a ledger's, where its successor is made."""
    folder = place.state / STAGING
    try:
        place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        StoreLock(place.state).release()  # a node that runs is told before the work begins
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from error
    path = place.folder.with_name(place.folder.name + ".restoring")
    shutil.rmtree(path, ignore_errors=True)
    return StorePlace(folder, place.backend, path)


def take_over(staging: StorePlace, place: StorePlace) -> Path | None:
    """Put a ledger that was made in `stage` in its place; return where the old one is now."""
    lock = StoreLock(place.state)
    try:
        write_mark(place.state, RESTORING)
        replaced = _put_aside(place)
        if place.backend == SQLITE:
            (staging.state / "ledger.sqlite").replace(place.state / "ledger.sqlite")
        else:
            place.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            staging.folder.replace(place.folder)
            sync_path(place.folder.parent)
        sync_path(place.state)
        write_mark(place.state, place.mark)
        shutil.rmtree(staging.state, ignore_errors=True)
        return replaced
    except OSError as error:
        raise HostError(
            f"{place.state}: {error}", hint="the node does not start; run the restore again"
        ) from error
    finally:
        lock.release()


def _put_aside(place: StorePlace) -> Path | None:
    old = sorted(place.state.glob("ledger.sqlite*"))
    old += [path for path in {place.folder, place.state / "ledger.rocksdb"} if path.exists()]
    if not old:
        return None
    number = 1 + sum(1 for _ in place.state.glob("replaced-*"))
    target = place.state / f"replaced-{number}"
    target.mkdir(mode=0o700)
    for path in old:
        path.replace(target / path.name)
    sync_path(target)
    return target

"""Flipped bits in a ledger's file: each is noticed, or changes nothing that anybody reads."""

import gzip
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hookprobe.dsm.store import PARTITIONS, Persist, Table
from hookprobe.errors import HookProbeError, HostError
from hookprobe.runtime.ledger_store import StorePlace, all_rows, all_slots, open_store
from hookprobe.runtime.sqlite_checks import GUARDED
from hookprobe.runtime.sqlite_store import FILE_NAME, SqliteStore

DATA = Path(__file__).resolve().parents[2] / "data" / "ledgers"
FLIPS_PER_KIND = 40


def everything(store: SqliteStore) -> list[object]:
    return [
        (slot, table, list(all_rows(store, table, slot))) for _, table, slot in all_slots(store)
    ]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ledger with rows in every table, interior, overflow and free pages."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / FILE_NAME).write_bytes(gzip.decompress((DATA / "format-1.sqlite.gz").read_bytes()))
    store = SqliteStore(folder)
    dice = random.Random(7)
    for table in Table:
        if table in PARTITIONS or table in {Table.CHECKPOINTS, Table.RELICS, Table.CHANGES}:
            continue
        writes = [(table, b"\xfe" + dice.randbytes(12), dice.randbytes(60)) for _ in range(120)]
        store.apply([Persist((*writes, (table, b"\xfelong", dice.randbytes(9000))))])
    gone = [(Table.NODE, b"\xff%d" % number, dice.randbytes(3000)) for number in range(8)]
    store.apply([Persist(tuple(gone))])
    store.apply([Persist(tuple((table, key, None) for table, key, _ in gone), opens=19_000)])
    store.close()
    return folder


def kinds_of_pages(data: bytes) -> dict[str, list[int]]:
    """Return where each kind of page begins, read from the file's own format."""
    size = int.from_bytes(data[16:18], "big")
    names = {2: "interior", 5: "interior of schema", 10: "leaf", 13: "leaf of schema"}
    found: dict[str, list[int]] = {"header": [0]}
    for at in range(size, len(data), size):
        found.setdefault(names.get(data[at], "overflow or free"), []).append(at)
    return found


def notices(folder: Path, before: list[object]) -> bool:
    """Whether opening or checking says so; otherwise every row must be what it was."""
    try:
        with closing(SqliteStore(folder)) as store:
            store.check_pages()
            return everything(store) == before
    except HookProbeError:
        return True


def test_every_flipped_bit_is_noticed_or_means_nothing(ledger: Path, tmp_path: Path) -> None:
    data = (ledger / FILE_NAME).read_bytes()
    pages = kinds_of_pages(data)
    assert {"header", "interior", "leaf", "overflow or free"} <= set(pages)
    with closing(SqliteStore(ledger)) as store:
        before = everything(store)
    size, dice = int.from_bytes(data[16:18], "big"), random.Random(11)
    for kind, starts in pages.items():
        for number in range(FLIPS_PER_KIND):
            span = 100 if kind == "header" and number % 2 else size
            if kind == "interior" and number % 2:
                span = 40
            at = dice.choice(starts) + dice.randrange(span)
            changed = bytearray(data)
            changed[at] ^= 1 << dice.randrange(8)
            folder = tmp_path / "flipped"
            folder.mkdir()
            (folder / FILE_NAME).write_bytes(changed)
            assert notices(folder, before), f"{kind}: byte {at}"
            shutil.rmtree(folder)


@pytest.mark.parametrize("table", GUARDED)
@pytest.mark.parametrize(
    "story",
    [
        "DELETE FROM {t} WHERE key=(SELECT min(key) FROM {t})",
        "UPDATE {t} SET value=CAST(x'00' || value AS BLOB) WHERE key=(SELECT min(key) FROM {t})",
        "UPDATE {t} SET key=CAST(x'01' || key AS BLOB) WHERE key=(SELECT max(key) FROM {t})",
        "INSERT INTO {t} SELECT x'ee', value, crc FROM {t} LIMIT 1",
        "UPDATE {t} SET crc=crc+1 WHERE key=(SELECT min(key) FROM {t})",
    ],
)
def test_no_decided_row_changes_or_goes_unseen(
    ledger: Path, tmp_path: Path, table: Table, story: str
) -> None:
    """Triggers are what a decaying disk does not run."""
    shutil.copy(ledger / FILE_NAME, tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f"DROP TRIGGER {name}")
        database.execute(story.format(t=table.value))
    with pytest.raises(HostError, match=r"damaged|does not hold") as caught:
        SqliteStore(tmp_path)
    assert "restore" in caught.value.hint


def test_sums_follow_writes_replacements_and_deletions(tmp_path: Path) -> None:
    dice = random.Random(3)
    store = SqliteStore(tmp_path)
    for _ in range(60):
        rows = [
            (
                dice.choice(GUARDED),
                bytes([dice.randrange(12)]),
                dice.choice([None, dice.randbytes(9)]),
            )
            for _ in range(8)
        ]
        store.apply([Persist(tuple(rows))])
        store.check_pages()
    store.close()
    SqliteStore(tmp_path).close()


def test_a_file_of_format_2_is_read_and_upgraded(ledger: Path, tmp_path: Path) -> None:
    shutil.copy(ledger / FILE_NAME, tmp_path)
    with closing(SqliteStore(tmp_path)) as store:
        before, partition = everything(store), store.partition
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        as_format_2(database)
    with closing(open_store(StorePlace(tmp_path), read_only=True)) as reader:
        assert isinstance(reader, SqliteStore)
        assert (everything(reader), reader.partition) == (before, partition)
        reader.check_pages()
    with closing(SqliteStore(tmp_path)) as store:
        assert (everything(store), store.partition) == (before, partition)
        store.check_pages()
    assert (tmp_path / f"{FILE_NAME}.format-2").exists()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        assert database.execute("SELECT count(*) FROM votes WHERE crc=0").fetchone() == (0,)


def as_format_2(database: sqlite3.Connection) -> None:
    """Take everything away that format 3 brought."""
    kinds = (
        "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'trigger') ORDER BY type DESC"
    )
    for kind, name in database.execute(kinds).fetchall():
        if kind == "trigger":
            database.execute(f"DROP TRIGGER {name}")
        elif name == "sums":
            database.execute("DROP TABLE sums")
        else:
            database.execute(f"ALTER TABLE {name} DROP COLUMN crc")
    database.execute("PRAGMA user_version=2")

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hookprobe.dsm.store import PARTITIONS, MemoryStore, Persist, StoreReader, Table, Write
from hookprobe.errors import HostError
from hookprobe.runtime.sqlite_store import FILE_NAME, SqliteStore

BATCHES = [
    Persist(((Table.BLOCKS, b"\x00b", b"1"), (Table.BLOCKS, b"\x00a", b"2"))),
    Persist(((Table.META, b"\x00a", b"meta"),)),
    Persist(((Table.BLOCKS, b"\xffz", b""), (Table.BLOCKS, b"\x00b", b"3"))),
    Persist(((Table.BLOCKS, b"\x00a", None),)),
]


def contents(store: StoreReader) -> list[object]:
    return [
        store.get(Table.BLOCKS, b"\x00a"),
        store.get(Table.BLOCKS, b"\x00b"),
        list(store.scan(Table.BLOCKS, b"", b"\xff\xff", 10)),
        list(store.scan(Table.BLOCKS, b"", b"\xff\xff", 1)),
        list(store.scan(Table.BLOCKS, b"\x00b", b"\xff", 10)),
        store.get(Table.META, b"\x00a"),
    ]


def test_answers_like_the_store_in_memory(tmp_path: Path) -> None:
    sqlite, memory = SqliteStore(tmp_path), MemoryStore()
    sqlite.apply(BATCHES)
    for batch in BATCHES:
        memory.apply(batch)
    assert contents(sqlite) == contents(memory)
    sqlite.close()
    reopened = SqliteStore(tmp_path)
    assert contents(reopened) == contents(memory)
    reopened.close()


def everything(store: StoreReader) -> dict[Table, list[tuple[bytes, bytes]]]:
    return {table: list(store.scan(table, b"", b"\xff" * 9, 1000)) for table in Table}


def drawn_batch(dice: random.Random, partition: int) -> Persist:
    # Rows of partitioned tables never change, so the value is a function of the key.
    keys = [bytes([dice.randrange(40)]) for _ in range(6)]
    tables = [Table.BLOCKS, Table.CONTENTS, Table.META]
    writes: list[Write] = [
        (dice.choice(tables), key, None if dice.random() < 0.2 else b"value of " + key)
        for key in keys
    ]
    if dice.random() < 0.5:
        return Persist(tuple(writes))
    drops = [(table, partition - dice.randrange(3) * span) for table, span in PARTITIONS.items()]
    return Persist(tuple(writes), partition, tuple(drops) if dice.random() < 0.7 else ())


@pytest.mark.parametrize("seed", range(20))
def test_partitions_open_and_drop_like_those_in_memory(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    sqlite, memory = SqliteStore(tmp_path), MemoryStore()
    partition = 19_000
    for _ in range(25):
        batches = []
        for _ in range(dice.randrange(1, 4)):
            partition += dice.choice((0, 0, 1, 1, 2, 31))
            batches.append(drawn_batch(dice, partition))
        sqlite.apply(batches)
        for batch in batches:
            memory.apply(batch)
        assert everything(sqlite) == everything(memory)
        if dice.random() < 0.2:
            sqlite.close()
            sqlite = SqliteStore(tmp_path)
    reader = SqliteStore(tmp_path, read_only=True)
    assert everything(reader) == everything(memory)
    reader.close()
    sqlite.close()


def test_a_dropped_partition_takes_its_rows_and_no_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.apply([Persist(((Table.BLOCKS, b"old", b"1"), (Table.META, b"old", b"1")))])
    store.apply([Persist(((Table.BLOCKS, b"day 7", b"2"),), opens=7)])
    store.apply([Persist(((Table.BLOCKS, b"day 8", b"3"),), opens=8, drops=((Table.BLOCKS, 7),))])
    kept = [key for key, _ in store.scan(Table.BLOCKS, b"", b"\xff", 9)]
    assert kept == [b"day 7", b"day 8"]
    assert store.get(Table.META, b"old") == b"1"
    store.apply([Persist((), drops=((Table.BLOCKS, 8),))])
    assert store.get(Table.BLOCKS, b"day 7") is None
    store.close()


def test_a_failed_batch_opens_and_drops_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.apply([Persist(((Table.BLOCKS, b"k", b"x"),), opens=3)])
    bad = Persist(((Table.BLOCKS, b"bad", object()),), 9, ((Table.BLOCKS, 9),))  # type: ignore[arg-type]
    with pytest.raises(HostError):
        store.apply([bad])
    assert store.get(Table.BLOCKS, b"k") == b"x"
    store.apply([Persist(((Table.BLOCKS, b"l", b"y"),))])
    store.apply([Persist((), drops=((Table.BLOCKS, 4),))])
    assert store.get(Table.BLOCKS, b"l") is None
    store.close()


def test_a_second_process_is_refused_but_may_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.apply(BATCHES)
    with pytest.raises(HostError, match="in use"):
        SqliteStore(tmp_path)
    reader = SqliteStore(tmp_path, read_only=True)
    assert contents(reader) == contents(store)
    reader.close()
    store.close()
    SqliteStore(tmp_path).close()


def test_a_reader_needs_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no ledger") as caught:
        SqliteStore(tmp_path, read_only=True)
    assert caught.value.hint


def test_a_newer_format_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(HostError, match="format 99"):
        SqliteStore(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(HostError, match="not a database"):
        SqliteStore(tmp_path)


def test_a_failed_write_leaves_nothing_of_its_batches(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.apply([Persist(((Table.BLOCKS, b"k", b"x"),))])
    bad = Persist(((Table.BLOCKS, b"new", b"1"), (Table.BLOCKS, b"bad", object())))  # type: ignore[arg-type]
    with pytest.raises(HostError):
        store.apply([bad])
    assert store.get(Table.BLOCKS, b"new") is None
    assert store.get(Table.BLOCKS, b"k") == b"x"
    store.close()


WRITER = """
import sys
from pathlib import Path
from hookprobe.dsm.store import Persist, Table
from hookprobe.runtime.sqlite_store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
for i in range(100_000):
    key = i.to_bytes(4, "big")
    store.apply([Persist(((Table.BLOCKS, key, key), (Table.META, key, key)))])
    print(i, flush=True)
"""


def test_kill_at_any_moment_loses_no_acknowledged_batch(tmp_path: Path) -> None:
    for round_number in range(5):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = -1
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged >= 20 + 7 * round_number:
                os.kill(writer.pid, signal.SIGKILL)
                break
        for line in writer.stdout:
            acknowledged = int(line)
        writer.stdout.close()
        writer.wait()
        store = SqliteStore(folder)
        blocks = store.scan(Table.BLOCKS, b"", b"\xff" * 5, 200_000)
        assert len(blocks) in (acknowledged + 1, acknowledged + 2)
        assert len(store.scan(Table.META, b"", b"\xff" * 5, 200_000)) == len(blocks)
        store.close()

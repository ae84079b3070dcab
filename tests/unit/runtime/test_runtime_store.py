import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hookprobe.dsm.store import MemoryStore, Persist, StoreReader, Table
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

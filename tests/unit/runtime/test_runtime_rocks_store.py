"""RocksDB alone: what a crash, or a reader, finds between a database and its first row."""

import threading
import time
from pathlib import Path

import pytest
from rocksdict import AccessType, Options, Rdict

from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import HostError
from hookprobe.runtime import rocks_store
from hookprobe.runtime.rocks_store import RocksStore

ROW = [Persist(((Table.META, b"key", b"value"),))]


def bare(path: Path) -> Rdict:
    """Return a database as it is before the writer has put the format into it."""
    return Rdict(str(path), options=Options(raw_mode=True), access_type=AccessType.read_write())


def test_a_crash_before_the_first_row_costs_nothing(tmp_path: Path) -> None:
    bare(tmp_path / "ledger").close()
    store = RocksStore(tmp_path, tmp_path / "ledger", read_only=False)
    store.apply(ROW)
    assert store.get(Table.META, b"key") == b"value"
    store.close()


def test_rows_without_a_format_are_not_ours(tmp_path: Path) -> None:
    database = bare(tmp_path / "ledger")
    database[b"row"] = b"of somebody"
    database.close()
    with pytest.raises(HostError, match="format 0, this program knows 1"):
        RocksStore(tmp_path, tmp_path / "ledger", read_only=False)


def test_a_reader_waits_for_a_writer_that_is_opening(tmp_path: Path) -> None:
    database = bare(tmp_path / "ledger")

    def open_at_last() -> None:
        time.sleep(0.4)
        database.close()
        store = RocksStore(tmp_path, tmp_path / "ledger", read_only=False)
        store.apply(ROW)
        store.close()

    writer = threading.Thread(target=open_at_last)
    writer.start()
    reader = RocksStore(tmp_path, tmp_path / "ledger", read_only=True)
    writer.join()
    wanted = time.monotonic() + 10
    while reader.get(Table.META, b"key") is None:
        assert time.monotonic() < wanted
        time.sleep(0.05)
    reader.close()


def test_a_reader_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocks_store, "OPENING_S", 0.2)
    bare(tmp_path / "ledger").close()
    with pytest.raises(HostError, match="nothing can be read of it yet"):
        RocksStore(tmp_path, tmp_path / "ledger", read_only=True)

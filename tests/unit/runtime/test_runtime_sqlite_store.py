import gzip
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.store import Table
from hookprobe.errors import HostError
from hookprobe.runtime import sqlite_formats
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.runtime.sqlite_store import FILE_NAME, SqliteStore

DATA = Path(__file__).resolve().parents[2] / "data" / "ledgers"
COPY = FILE_NAME + ".format-1"


def format_1() -> bytes:
    return gzip.decompress((DATA / "format-1.sqlite.gz").read_bytes())


def test_newer_and_unknown_files_are_named(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("PRAGMA user_version=99")
    for read_only in (False, True):
        with pytest.raises(HostError, match="format 99, this program knows 3") as caught:
            SqliteStore(tmp_path, read_only=read_only)
        assert "version of hookprobe that wrote it" in caught.value.hint
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(HostError, match="not a database"):
        SqliteStore(tmp_path)


def check_upgraded(folder: Path) -> None:
    store = SqliteStore(folder)
    genesis = decode_genesis((DATA / "format-1-genesis.json").read_bytes())
    query = LedgerQuery(genesis, convene(genesis, Schemes(Ed25519(), Bls())), store)
    assert query.next_epoch() == 14
    blocks = []
    for epoch in range(14):
        final = query.checkpoint(epoch)
        final.checkpoint.check_content()
        for covered in final.checkpoint.content.ranges:
            query.receipt(epoch, *covered.lane)  # all blocks of the epoch are there
            blocks.append(covered.count)
    assert sum(blocks) == 13
    assert len(store.scan(Table.RELICS, b"", b"\xff" * 60, 9)) == 1
    store.close()


def test_format_1_becomes_the_present_one_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(format_1())
    with pytest.raises(HostError, match="format 1") as caught:
        SqliteStore(tmp_path, read_only=True)
    assert "start the node once" in caught.value.hint
    check_upgraded(tmp_path)
    with closing(sqlite3.connect(tmp_path / COPY)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT count(*) FROM checkpoints").fetchone() == (14,)
    check_upgraded(tmp_path)


# Ends the process at the n-th statement or file operation of the upgrade, without any clean-up.
CRASHING = """
import os, sys, sqlite3, pathlib
from hookprobe.runtime import sqlite_formats
left = int(sys.argv[2])
def step(frame, event, argument):
    global left
    if event == "line" and frame.f_code.co_filename == sqlite_formats.__file__:
        left -= 1
        if left == 0:
            os._exit(9)
    return step
sys.settrace(step)
sqlite_formats.upgrade(pathlib.Path(sys.argv[1]))
sys.exit(0)
"""


@pytest.mark.slow
def test_a_crash_anywhere_in_the_upgrade_is_made_good(tmp_path: Path) -> None:
    old, crashed = format_1(), 0
    for steps in range(3, 400, 14):
        folder = tmp_path / str(steps)
        folder.mkdir()
        (folder / FILE_NAME).write_bytes(old)
        command = [sys.executable, "-c", CRASHING, str(folder / FILE_NAME), str(steps)]
        code = subprocess.run(command, check=False).returncode
        assert code in (0, 9)
        crashed += code == 9
        check_upgraded(folder)
        with closing(sqlite3.connect(folder / COPY)) as copy:
            assert copy.execute("SELECT count(*) FROM checkpoints").fetchone() == (14,)
        if code == 0:
            break
    assert crashed > 8


def test_a_checkpoint_that_cannot_be_read_stops_the_upgrade(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(format_1())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE checkpoints SET value=x'00ff'")
    with pytest.raises(HostError, match="cannot be read"):
        SqliteStore(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    assert "contents" not in names


def test_no_room_for_the_copy_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / FILE_NAME
    path.write_bytes(format_1())
    monkeypatch.setattr(sqlite_formats, "sync_path", full)
    with pytest.raises(HostError, match="was not changed") as caught:
        SqliteStore(tmp_path)
    assert "make room" in caught.value.hint
    assert not (tmp_path / COPY).exists()
    monkeypatch.undo()
    check_upgraded(tmp_path)


def test_the_sealed_header_is_the_old_one(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(format_1())
    store = SqliteStore(tmp_path)
    state = store.get(Table.META, b"history")
    last = store.get(Table.CHECKPOINTS, (13).to_bytes(8, "big"))
    assert state is not None
    assert last is not None
    assert state[8:40] == decode_sealed(last).hash
    store.close()

"""The copy of checkpoints, against a real server that is started, killed and filled here."""

import contextlib
import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from tests.servers import Postgres, postgres

from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import HostError
from hookprobe.runtime.checkpoint_copy import CheckpointCopy, CopyTask
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.ledger_store import StorePlace, open_store
from hookprobe.runtime.postgres_checkpoints import PostgresCheckpoints, Row
from hookprobe.runtime.sqlite_store import FILE_NAME
from hookprobe.wire.instant import Instant

ROOT = Path(__file__).resolve().parents[3]
NOW = Instant(1_700_000_000_000_000)
EPOCHS = 14


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> str:
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP TABLE IF EXISTS dsm_checkpoints")
    return server.url


@pytest.fixture
def place(tmp_path: Path) -> StorePlace:
    packed = ROOT / "tests/data/ledgers/format-1.sqlite.gz"
    (tmp_path / FILE_NAME).write_bytes(gzip.decompress(packed.read_bytes()))
    found = StorePlace(tmp_path)
    open_store(found).close()  # brings it to the present format
    return found


@pytest.fixture
def rows(place: StorePlace) -> list[Row]:
    with closing(open_store(place, read_only=True)) as store:
        found = store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 100)
        return [Row(decode_sealed(value), store.get(Table.CONTENTS, key)) for key, value in found]


def copier(place: StorePlace, url: str, keep_days: int = 0) -> CheckpointCopy:
    return CheckpointCopy(CopyTask(place, url, keep_days), Clock(), lambda _: None)


def test_rows_come_back_as_they_were_in_order_and_limited(url: str, rows: list[Row]) -> None:
    table = PostgresCheckpoints(url)
    assert table.tip() == (0, bytes(32))
    table.append(rows[:5], NOW)
    table.append(rows[5:], NOW)
    table.append([], NOW)
    assert table.tip() == (EPOCHS, rows[-1].sealed.hash)
    with closing(PostgresCheckpoints(url, read_only=True)) as reader:
        found = reader.scan(0, 100)
        assert [(row[1], row[2]) for row in found] == [(r.sealed.encode(), r.content) for r in rows]
        assert [row[0] for row in reader.scan(3, 4)] == [3, 4, 5, 6]
        assert reader.scan(EPOCHS, 4) == []
        assert reader.hash_at(2) == rows[2].sealed.hash
        assert reader.hash_at(99) is None
    table.close()


def test_what_does_not_continue_the_table_is_refused_whole(url: str, rows: list[Row]) -> None:
    table = PostgresCheckpoints(url)
    table.append(rows[:3], NOW)
    for wrong in ([rows[4]], [rows[2]], [rows[3], rows[5]], [rows[0]]):
        with pytest.raises(HostError, match="does not continue"):
            table.append(wrong, NOW)
        assert table.tip()[0] == 3
    broken = Row(rows[4].sealed, "text")  # type: ignore[arg-type]
    with pytest.raises((HostError, TypeError)):
        table.append([rows[3], broken], NOW)
    assert table.tip()[0] == 3
    table.append(rows[3:5], NOW)
    table.close()


def test_a_second_writer_is_refused_until_the_first_is_gone(url: str) -> None:
    table = PostgresCheckpoints(url)
    with pytest.raises(HostError, match="another node") as caught:
        PostgresCheckpoints(url)
    assert "of its own" in caught.value.hint
    table.close()
    PostgresCheckpoints(url).close()


def test_another_format_is_refused(url: str) -> None:
    PostgresCheckpoints(url).close()
    with psycopg.connect(url) as connection:
        connection.execute("COMMENT ON TABLE dsm_checkpoints IS 'hookprobe format 2'")
    for read_only in (False, True):
        with pytest.raises(HostError, match="format 2, this program knows"):
            PostgresCheckpoints(url, read_only=read_only)


def test_the_page_of_the_operators_has_sql_that_runs(place: StorePlace, url: str) -> None:
    copy = copier(place, url)
    assert copy.step() is False
    copy.close()
    page = (ROOT / "docs/operate/storage.md").read_text(encoding="utf-8")
    statements = [line for line in page.splitlines() if line.startswith("SELECT")]
    assert len(statements) == 5
    with psycopg.connect(url) as connection:
        answers = [connection.execute(line.encode()).fetchall() for line in statements]
    assert [row[0] for row in answers[0]] == list(range(13, 3, -1))
    assert {row[3] for row in answers[0]} == {"finalized"}
    assert answers[1] == [("finalized", EPOCHS)]
    assert answers[2][0][1].timestamp() > 1e9
    assert sum(row[2] for row in answers[3]) == 13
    assert [row[1:] for row in answers[4]] == [("edge", "1", "5"), ("edge", "6", "13")]


def test_the_copy_goes_on_where_it_was(place: StorePlace, url: str, rows: list[Row]) -> None:
    with closing(PostgresCheckpoints(url)) as table:
        table.append(rows[:6], NOW)
    copy = copier(place, url)
    copy.step()
    assert copy.copied == EPOCHS
    copy.step()
    copy.close()
    with closing(PostgresCheckpoints(url, read_only=True)) as table:
        assert table.tip() == (EPOCHS, rows[-1].sealed.hash)


def test_contents_go_after_their_time_and_headers_stay(place: StorePlace, url: str) -> None:
    with closing(PostgresCheckpoints(url)) as table:
        copy_rows = place
        with closing(open_store(copy_rows, read_only=True)) as store:
            found = store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 100)
            table.append(
                [Row(decode_sealed(v), store.get(Table.CONTENTS, k)) for k, v in found], NOW
            )
        times = [decode_sealed(sealed).header.timestamp_ms for _, sealed, _ in table.scan(0, 100)]
        table.drop_contents(Instant(times[4] * 1000))
        kept = [content is not None for _, _, content in table.scan(0, 100)]
        assert kept == [False] * 4 + [True] * 10


def test_a_table_ahead_of_a_restored_ledger_waits_and_another_ledger_is_refused(
    place: StorePlace, url: str, rows: list[Row]
) -> None:
    copy = copier(place, url)
    copy.step()
    copy.close()
    store = open_store(place)
    state = store.get(Table.META, b"history")
    assert state is not None
    gone = [(Table.CHECKPOINTS, epoch.to_bytes(8, "big"), None) for epoch in range(9, EPOCHS)]
    store.apply([Persist((*gone, (Table.META, b"history", (9).to_bytes(8, "big") + state[8:])))])
    copy.step()
    copy.close()
    with closing(PostgresCheckpoints(url)) as table:
        assert table.tip()[0] == EPOCHS
    forged = bytearray(rows[8].sealed.encode())
    digit = forged.index(b'"prev":"') + 8
    forged[digit] = ord("1") if forged[digit] == ord("0") else ord("0")
    store.apply([Persist(((Table.CHECKPOINTS, (8).to_bytes(8, "big"), bytes(forged)),))])
    store.close()
    with pytest.raises(HostError, match="is another one than in this ledger"):
        copy.step()
    copy.close()


def test_no_server_is_an_error_that_shows_no_password() -> None:
    with pytest.raises(HostError, match="postgresql") as caught:
        PostgresCheckpoints("postgresql://who:secret-word@127.0.0.1:1/x")
    assert "secret-word" not in caught.value.message + caught.value.hint
    assert "the ledger itself is whole" in caught.value.hint


COPIER = """
import sys
from pathlib import Path
from hookprobe.runtime import checkpoint_copy
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.ledger_store import StorePlace
checkpoint_copy.BATCH = 1
task = checkpoint_copy.CopyTask(StorePlace(Path(sys.argv[1])), sys.argv[2], 0)
copy = checkpoint_copy.CheckpointCopy(task, Clock(), print)
while copy.step():
    print(copy.copied, flush=True)
"""


def test_kill_anywhere_between_the_two_stores_leaves_a_prefix(
    place: StorePlace, url: str, server: Postgres, rows: list[Row]
) -> None:
    for acknowledged in (2, 5, 9):
        command = [sys.executable, "-c", COPIER, str(place.state), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= acknowledged:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            told = [int(line) for line in process.stdout]
        # The power goes too: what was acknowledged is on the server's disk.
        server.stop(signal.SIGKILL)
        server.start()
        with closing(PostgresCheckpoints(url, read_only=True)) as table:
            there = table.scan(0, 100)
        assert [row[1] for row in there] == [row.sealed.encode() for row in rows[: len(there)]]
        assert len(there) >= max([acknowledged, *told])
    copy = copier(place, url)
    copy.step()
    copy.close()
    with closing(PostgresCheckpoints(url, read_only=True)) as table:
        assert table.tip()[0] == EPOCHS


FILLING = """
INSERT INTO dsm_checkpoints
    SELECT -i - %s, '', '', '', '', 0, 0, '', 0, '', '', NULL, 0, decode(repeat('ab', 1500), 'hex')
    FROM generate_series(1, %s) i
"""


def fill(url: str) -> None:
    """Add rows of no epoch until not a single one finds room."""
    used = 0
    with psycopg.connect(url, autocommit=True) as connection:
        for step in (2000, 100, 10, 1):
            with contextlib.suppress(psycopg.Error):
                while True:
                    connection.execute(FILLING, (used, step))
                    used += step
            used += step


def test_a_full_disk_of_the_server_leaves_no_half_batch(rows: list[Row]) -> None:
    with (
        postgres(file_bytes_max=16 << 20) as small,
        closing(PostgresCheckpoints(small.url)) as table,
    ):
        table.append(rows[:2], NOW)
        fill(small.url)
        with pytest.raises(HostError, match="could not extend file"):
            table.append(rows[2:], NOW)
        assert table.tip()[0] == 2
        with psycopg.connect(small.url, autocommit=True) as connection:
            connection.execute("DELETE FROM dsm_checkpoints WHERE epoch < 0")
            connection.execute("VACUUM dsm_checkpoints")
        table.append(rows[2:], NOW)
        assert table.tip()[0] == EPOCHS

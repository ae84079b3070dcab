"""What every store of a ledger must do, run over each of them; `dsm/store.py` has the rules."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hookprobe.dsm.store import PARTITIONS, MemoryStore, Persist, StoreReader, Table, Write
from hookprobe.errors import HostError
from hookprobe.runtime.ledger_store import LedgerStore, StorePlace, all_rows, all_slots, open_store
from hookprobe.runtime.store_lock import write_mark

BACKENDS = ("sqlite", "rocksdb")
BATCHES = [
    Persist(((Table.BLOCKS, b"\x00b", b"1"), (Table.BLOCKS, b"\x00a", b"2"))),
    Persist(((Table.META, b"\x00a", b"meta"),)),
    Persist(((Table.BLOCKS, b"\xffz", b""), (Table.BLOCKS, b"\x00b", b"3"))),
    Persist(((Table.BLOCKS, b"\x00a", None),)),
]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    return StorePlace(tmp_path, request.param)


def contents(store: StoreReader) -> list[object]:
    return [
        store.get(Table.BLOCKS, b"\x00a"),
        store.get(Table.BLOCKS, b"\x00b"),
        list(store.scan(Table.BLOCKS, b"", b"\xff\xff", 10)),
        list(store.scan(Table.BLOCKS, b"", b"\xff\xff", 1)),
        list(store.scan(Table.BLOCKS, b"\x00b", b"\xff", 10)),
        list(store.scan(Table.BLOCKS, b"", b"\xff\xff", 0)),
        store.get(Table.META, b"\x00a"),
        store.get(Table.META, b""),
    ]


def everything(store: StoreReader) -> dict[Table, list[tuple[bytes, bytes]]]:
    return {table: list(store.scan(table, b"", b"\xff" * 9, 1000)) for table in Table}


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_answers_like_the_store_in_memory(place: StorePlace) -> None:
    store, memory = open_store(place), MemoryStore()
    store.apply(BATCHES)
    for batch in BATCHES:
        memory.apply(batch)
    assert contents(store) == contents(memory)
    store.close()
    reopened = open_store(place)
    assert contents(reopened) == contents(memory)
    reopened.close()


def test_tables_do_not_see_each_other(place: StorePlace) -> None:
    store = open_store(place)
    store.apply([Persist(tuple((table, b"k", table.value.encode()) for table in Table))])
    for table in Table:
        assert list(store.scan(table, b"", b"\xff", 9)) == [(b"k", table.value.encode())]
        assert store.get(table, b"k") == table.value.encode()
    store.close()


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


@pytest.mark.parametrize("seed", range(12))
def test_partitions_open_and_drop_like_those_in_memory(place: StorePlace, seed: int) -> None:
    dice = random.Random(seed)
    store, memory = open_store(place), MemoryStore()
    partition = 19_000
    for _ in range(20):
        batches = []
        for _ in range(dice.randrange(1, 4)):
            partition += dice.choice((0, 0, 1, 1, 2, 31))
            batches.append(drawn_batch(dice, partition))
        store.apply(batches)
        for batch in batches:
            memory.apply(batch)
        assert everything(store) == everything(memory)
        if dice.random() < 0.2:
            store.close()
            store = open_store(place)
    reader = open_store(place, read_only=True)
    assert everything(reader) == everything(memory)
    assert reader.partition == store.partition == memory.partition
    reader.close()
    store.close()


def test_rows_by_slot_are_all_rows(place: StorePlace) -> None:
    store = open_store(place)
    store.apply([Persist(((Table.BLOCKS, b"old", b"1"), (Table.META, b"m", b"1")))])
    store.apply([Persist(((Table.BLOCKS, b"7", b"2"), (Table.CONTENTS, b"c", b"3")), opens=67)])
    found = {
        (partition, table, row)
        for partition, table, slot in all_slots(store)
        for row in all_rows(store, table, slot)
    }
    assert found == {
        (0, Table.META, (b"m", b"1")),
        (0, Table.BLOCKS, (b"old", b"1")),
        (67, Table.BLOCKS, (b"7", b"2")),
        (60, Table.CONTENTS, (b"c", b"3")),
    }
    assert [item[0] for item in all_slots(store)] == sorted(item[0] for item in all_slots(store))
    store.close()


def test_a_dropped_partition_takes_its_rows_and_no_others(place: StorePlace) -> None:
    store = open_store(place)
    store.apply([Persist(((Table.BLOCKS, b"old", b"1"), (Table.META, b"old", b"1")))])
    store.apply([Persist(((Table.BLOCKS, b"day 7", b"2"),), opens=7)])
    store.apply([Persist(((Table.BLOCKS, b"day 8", b"3"),), opens=8, drops=((Table.BLOCKS, 7),))])
    kept = [key for key, _ in store.scan(Table.BLOCKS, b"", b"\xff", 9)]
    assert kept == [b"day 7", b"day 8"]
    assert store.get(Table.META, b"old") == b"1"
    store.apply([Persist((), drops=((Table.BLOCKS, 8),))])
    assert store.get(Table.BLOCKS, b"day 7") is None
    store.close()


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_dropping_keeps_the_store_from_growing(place: StorePlace) -> None:
    store = open_store(place)
    dice = random.Random(1)
    sizes = []
    for day in range(1, 16):
        rows: tuple[Write, ...] = tuple(
            (Table.BLOCKS, dice.randbytes(16), dice.randbytes(4000)) for _ in range(400)
        )
        drops = ((Table.BLOCKS, day - 1),) if day > 1 else ()
        store.apply([Persist(rows, opens=day, drops=drops)])
        sizes.append(used_bytes(place.state))
    assert len(store.scan(Table.BLOCKS, b"", b"\xff" * 20, 10_000)) == 800
    store.close()
    # 15 days are 24 MB; two are kept, with what logs and free pages add.
    assert used_bytes(place.state) < 14 << 20, sizes


def test_a_failed_batch_writes_opens_and_drops_nothing(place: StorePlace) -> None:
    store = open_store(place)
    store.apply([Persist(((Table.BLOCKS, b"k", b"x"),), opens=3)])
    good = Persist(((Table.BLOCKS, b"new", b"1"), (Table.META, b"new", b"1")))
    wrong = Persist(((Table.BLOCKS, b"bad", object()),), 9, ((Table.BLOCKS, 9),))  # type: ignore[arg-type]
    with pytest.raises(HostError):
        store.apply([good, wrong])
    assert store.get(Table.BLOCKS, b"new") is None
    assert store.get(Table.META, b"new") is None
    assert store.get(Table.BLOCKS, b"k") == b"x"
    assert store.partition == 3
    store.apply([Persist(((Table.BLOCKS, b"l", b"y"),))])
    store.apply([Persist((), drops=((Table.BLOCKS, 3),))])
    assert store.get(Table.BLOCKS, b"l") == b"y"
    store.close()


def test_a_second_writer_is_refused_but_may_read(place: StorePlace) -> None:
    store = open_store(place)
    store.apply(BATCHES)
    with pytest.raises(HostError, match="in use"):
        open_store(place)
    reader = open_store(place, read_only=True)
    assert contents(reader) == contents(store)
    reader.close()
    store.close()
    open_store(place).close()


def test_another_backend_is_refused_where_a_ledger_is(place: StorePlace) -> None:
    open_store(place).close()
    other = StorePlace(place.state, next(name for name in BACKENDS if name != place.backend))
    for read_only in (False, True):
        with pytest.raises(HostError, match="this node's ledger is in") as caught:
            open_store(other, read_only=read_only)
        assert "restore" in caught.value.hint
    moved = StorePlace(place.state, "rocksdb", place.state / "elsewhere")
    with pytest.raises(HostError, match=r"the settings say rocksdb .*elsewhere"):
        open_store(moved)


def test_a_reader_follows_the_writer_through_partitions(place: StorePlace) -> None:
    store = open_store(place)
    reader = open_store(place, read_only=True)
    for day in range(1, 6):
        key = b"day %d" % day
        drops = ((Table.BLOCKS, day - 1),) if day > 1 else ()
        batch = Persist(((Table.BLOCKS, key, key), (Table.META, b"day", key)), day, drops)
        store.apply([batch])
        wait_for(lambda key=key: reader.get(Table.META, b"day") == key)  # type: ignore[misc]
        assert everything(reader) == everything(store)
        assert reader.get(Table.BLOCKS, key) == key
    reader.close()
    store.close()


def test_a_reader_that_holds_still_sees_one_state(place: StorePlace) -> None:
    store = open_store(place)
    store.apply(BATCHES)
    reader = open_store(place, read_only=True)
    reader.hold_still()
    before = everything(reader)
    assert before == everything(store)
    store.apply([Persist(((Table.BLOCKS, b"later", b"1"), (Table.META, b"\0a", b"2")))])
    store.apply([Persist(((Table.BLOCKS, b"k", b"1"),), 9, ((Table.BLOCKS, 9),))])
    time.sleep(0.1)
    assert everything(reader) == before
    reader.close()
    store.close()


def test_a_reader_needs_a_ledger(place: StorePlace) -> None:
    with pytest.raises(HostError, match="no ledger") as caught:
        open_store(place, read_only=True)
    assert caught.value.hint


def filled(place: StorePlace, count: int = 3000) -> None:
    """Leave a store whose rows are in its files and not only in its log."""
    store = open_store(place)
    dice = random.Random(3)
    for at in range(0, count, 500):
        rows = [(Table.BLOCKS, b"%06d" % n, dice.randbytes(3000)) for n in range(at, at + 500)]
        store.apply([Persist(tuple(rows))])
    store.close()


def files_of(place: StorePlace) -> list[Path]:
    if place.backend == "sqlite":
        return [place.state / "ledger.sqlite"]
    return sorted([*place.folder.glob("*.sst"), *place.folder.glob("MANIFEST*")])


def read_all(place: StorePlace) -> None:
    store = open_store(place)
    try:
        everything(store)
        assert len(store.scan(Table.BLOCKS, b"", b"\xff", 10_000)) == 3000
    finally:
        store.close()


def problem_of(place: StorePlace) -> HostError | None:
    """Return why not all rows can be read; None where they are all there."""
    try:
        read_all(place)
    except HostError as error:
        return error
    return None


def test_a_cut_file_is_named_with_what_to_do_or_lost_nothing(place: StorePlace) -> None:
    filled(place)
    read_all(place)
    for path in files_of(place):
        whole = path.read_bytes()
        refused = 0
        for length in (7, len(whole) // 2, len(whole) - 50):
            path.write_bytes(whole[:length])
            error = problem_of(place)
            if error is not None:
                refused += 1
                assert str(place.state) in error.message
                assert "restore" in error.hint
        assert refused >= 2, path
        path.write_bytes(whole)
    read_all(place)


def test_flipped_bytes_are_found_when_they_are_read(place: StorePlace) -> None:
    filled(place)
    path = files_of(place)[0]
    whole = bytearray(path.read_bytes())
    if place.backend == "sqlite":
        whole[4096 * 3 : 4096 * 4] = bytes(4096)  # SQLite sums no pages: only structure shows
    else:
        whole[len(whole) // 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(HostError, match=str(place.state)):
        read_all(place)


WRITER = """
import sys
from pathlib import Path
from hookprobe.dsm.store import Persist, Table
from hookprobe.runtime.ledger_store import StorePlace, open_store
store = open_store(StorePlace(Path(sys.argv[1]), sys.argv[2]))
print("open", flush=True)
for i in range(100_000):
    key = i.to_bytes(4, "big")
    day = i // 10
    drops = ((Table.PAYLOADS, day - 1),) if day > 1 else ()
    writes = tuple((table, key, key * int(sys.argv[3]))
                   for table in (Table.BLOCKS, Table.META, Table.PAYLOADS))
    store.apply([Persist(writes, day, drops)])
    print(i, flush=True)
"""


def run_writer(place: StorePlace, size: int, limit: int | None = None) -> subprocess.Popen[str]:
    def lower() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", WRITER, str(place.state), place.backend, str(size)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=lower)  # noqa: PLW1509


def killed_after(place: StorePlace, batches: int) -> int:
    """Kill a writer when it has acknowledged some batches; return the last it did."""
    writer = run_writer(place, 1)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    acknowledged = -1
    for line in writer.stdout:
        acknowledged = int(line)
        if acknowledged >= batches:
            os.kill(writer.pid, signal.SIGKILL)
            break
    for line in writer.stdout:
        acknowledged = int(line)
    writer.communicate()
    return acknowledged


def check_prefix(place: StorePlace, acknowledged: int, size: int) -> None:
    store = open_store(place)
    blocks = store.scan(Table.BLOCKS, b"", b"\xff" * 5, 200_000)
    assert [key for key, _ in blocks] == [i.to_bytes(4, "big") for i in range(len(blocks))]
    assert len(blocks) in (acknowledged + 1, acknowledged + 2)
    assert all(value == key * size for key, value in blocks)
    assert store.scan(Table.META, b"", b"\xff" * 5, 200_000) == blocks
    last = len(blocks) - 1
    assert store.partition == last // 10
    kept = [row for row in blocks if int.from_bytes(row[0], "big") // 10 >= last // 10 - 1]
    assert store.scan(Table.PAYLOADS, b"", b"\xff" * 5, 200_000) == kept
    store.apply([Persist(((Table.META, b"\xff\xffalive", b"1"),))])
    store.close()


@pytest.mark.parametrize("round_number", range(4))
def test_kill_at_any_moment_loses_no_acknowledged_batch(
    place: StorePlace, round_number: int
) -> None:
    check_prefix(place, killed_after(place, 18 + 7 * round_number), 1)


def test_a_full_disk_stops_the_writer_and_leaves_no_half_batch(place: StorePlace) -> None:
    writer = run_writer(place, 5000, 400_000)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    out, err = writer.communicate(timeout=60)
    assert "HostError" in err
    assert str(place.state) in err
    check_prefix(place, len(out.split()) - 1, 5000)


def test_a_torn_end_of_the_log_is_what_was_never_acknowledged(place: StorePlace) -> None:
    acknowledged = killed_after(place, 12)
    log = place.state / "ledger.sqlite-wal"
    if place.backend == "rocksdb":
        log = max(place.folder.glob("*.log"))
    with log.open("ab") as file:
        file.write(b"\x17half a record")
    check_prefix(place, acknowledged, 1)


def test_marks_name_the_place(tmp_path: Path) -> None:
    store: LedgerStore = open_store(StorePlace(tmp_path))
    store.close()
    assert (tmp_path / "ledger.place").read_text() == "sqlite\n"
    write_mark(tmp_path, "rocksdb /somewhere")
    with pytest.raises(HostError, match="/somewhere"):
        open_store(StorePlace(tmp_path))

"""fsck, backup, restore, export and import over a real ledger of 14 epochs, and its forgeries."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.dsm.kit import EDGE, QUICK, Net, mesh_of
from tests.unit.dsm.ledger_net import V0
from tests.unit.dsm.test_dsm_changes import V4, admit, later
from tests.unit.dsm.test_dsm_changes import net_of as changing_net

from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import HostError, RemoteError
from hookprobe.runtime import ledger_export, ledger_moves
from hookprobe.runtime.ledger_fsck import Retention, check_ledger
from hookprobe.runtime.ledger_moves import Terms
from hookprobe.runtime.ledger_store import LedgerStore, StorePlace, all_rows, all_slots, open_store
from hookprobe.runtime.sqlite_store import FILE_NAME
from hookprobe.runtime.store_lock import MARK_NAME, RESTORING, write_mark
from hookprobe.wire.instant import SECOND, Instant

DATA = Path(__file__).resolve().parents[2] / "data" / "ledgers"
GENESIS = decode_genesis((DATA / "format-1-genesis.json").read_bytes())
TERMS = Terms(GENESIS, convene(GENESIS, Schemes(Ed25519(), Bls())), Retention())
CHAIN = TERMS.court.chain
NOW = Instant(GENESIS.start + 100 * SECOND)


@pytest.fixture
def place(tmp_path: Path) -> StorePlace:
    state = tmp_path / "state"
    state.mkdir()
    (state / FILE_NAME).write_bytes(gzip.decompress((DATA / "format-1.sqlite.gz").read_bytes()))
    open_store(StorePlace(state)).close()
    return StorePlace(state)


@pytest.fixture
def ledger(place: StorePlace) -> Iterator[LedgerStore]:
    with closing(open_store(place)) as store:
        yield store


def faults(store: LedgerStore) -> list[tuple[str, str]]:
    return check_ledger(GENESIS, TERMS.court, store).faults


def first(store: LedgerStore, table: Table, number: int = 0) -> tuple[bytes, bytes]:
    return store.scan(table, b"", b"\xff" * 96, 100)[number]


def everything(store: LedgerStore) -> list[object]:
    return [
        (partition, table, row)
        for partition, table, slot in all_slots(store)
        for row in all_rows(store, table, slot)
    ]


def test_a_true_ledger_has_no_faults(ledger: LedgerStore) -> None:
    audit = check_ledger(GENESIS, TERMS.court, ledger)
    assert audit.faults == []
    assert audit.counts == {"blocks": 13, "payloads": 13, "checkpoints": 14}


def test_every_changed_byte_of_every_row_is_found(ledger: LedgerStore) -> None:
    tables = (Table.CHECKPOINTS, Table.CONTENTS, Table.BLOCKS, Table.PAYLOADS, Table.RELICS)
    for table in tables:
        key, value = first(ledger, table)
        for at in range(0, len(value), max(1, len(value) // 5)):
            changed = bytearray(value)
            changed[at] ^= 1
            ledger.apply([Persist(((table, key, bytes(changed)),))])
            assert faults(ledger), f"{table.value} byte {at}"
        ledger.apply([Persist(((table, key, value),))])
    assert faults(ledger) == []


def test_rows_that_are_gone_or_elsewhere_are_named(ledger: LedgerStore) -> None:
    block = first(ledger, Table.BLOCKS, 7)
    content = first(ledger, Table.CONTENTS, 10)
    header = first(ledger, Table.CHECKPOINTS, 5)
    state = ledger.get(Table.META, b"history")
    assert state is not None
    stories: list[tuple[Table, bytes, bytes | None, str]] = [
        (Table.BLOCKS, block[0], None, "edge/"),
        (Table.CONTENTS, content[0], None, "checkpoint 10"),
        (Table.CHECKPOINTS, header[0], None, "checkpoint 5"),
        (Table.CHECKPOINTS, header[0], first(ledger, Table.CHECKPOINTS, 4)[1], "checkpoint 5"),
        (Table.BLOCKS, block[0], first(ledger, Table.BLOCKS, 6)[1], "blocks row"),
        (Table.META, b"history", state[:8] + bytes(32) + state[40:], "state"),
        (Table.EVIDENCE, bytes(32), b"no evidence", "evidence"),
    ]
    for table, key, value, where in stories:
        before = ledger.get(table, key)
        ledger.apply([Persist(((table, key, value),))])
        found = faults(ledger)
        assert any(place.startswith(where) for place, _ in found), (where, found)
        ledger.apply([Persist(((table, key, before),))])
    assert faults(ledger) == []


def test_another_chain_vouches_for_nothing(ledger: LedgerStore) -> None:
    other = decode_genesis((DATA.parent / "bundles/edge-a-genesis.json").read_bytes())
    audit = check_ledger(other, convene(other, Schemes(Ed25519(), Bls())), ledger)
    assert len(audit.faults) > 20


@pytest.mark.parametrize("backend", ["sqlite", "rocksdb"])
def test_a_backup_of_a_written_ledger_comes_back_on_either_backend(
    place: StorePlace, ledger: LedgerStore, tmp_path: Path, backend: str
) -> None:
    ledger.apply([Persist(((Table.PAYLOADS, b"late" * 8, b"x"),), opens=19_000)])
    before = everything(ledger)
    assert ledger_moves.backup(place, tmp_path / "copy", CHAIN, NOW) == len(before)
    ledger.apply([Persist(((Table.META, b"after", b"x"),))])
    assert ledger_moves.check_backup(tmp_path / "copy", TERMS).faults == []
    with pytest.raises(HostError, match="in use"):
        ledger_moves.restore(tmp_path / "copy", place, 9)
    ledger.close()
    target = StorePlace(place.state, backend)
    replaced = ledger_moves.restore(tmp_path / "copy", target, 9)
    assert replaced is not None
    assert (replaced / FILE_NAME).exists()
    with closing(open_store(target)) as restored:
        assert restored.get(Table.META, b"abstain") == (9).to_bytes(8, "big")
        restored.apply([Persist(((Table.META, b"abstain", None),))])
        assert everything(restored) == before
        assert restored.partition == 19_000
    assert not (place.state / "restoring").exists()


def test_a_backup_that_was_touched_is_refused(place: StorePlace, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    ledger_moves.backup(place, target, CHAIN, NOW)
    with pytest.raises(HostError, match="exists"):
        ledger_moves.backup(place, target, CHAIN, NOW)
    whole = (target / FILE_NAME).read_bytes()
    (target / FILE_NAME).write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(RemoteError, match="not the one that was backed up"):
        ledger_moves.check_backup(target, TERMS)
    (target / FILE_NAME).write_bytes(whole)
    manifest = json.loads((target / "backup.json").read_bytes())
    for field, value in (("chain", "00" * 32), ("rows", 3), ("v", 2), ("more", 1)):
        text = json.dumps({**manifest, field: value}, sort_keys=True, separators=(",", ":"))
        (target / "backup.json").write_text(text)
        with pytest.raises(RemoteError):
            ledger_moves.check_backup(target, TERMS)


def test_a_crash_anywhere_in_a_restore_never_starts_from_less(
    place: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(place)) as store:
        before = everything(store)
    ledger_moves.backup(place, tmp_path / "copy", CHAIN, NOW)
    real: Callable[..., Path] = Path.replace
    crashes = 0
    for crash_at in range(1, 9):
        left = crash_at
        (place.state / MARK_NAME).unlink()  # as in a node that is older than marks

        def replace(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        try:
            ledger_moves.restore(tmp_path / "copy", place, 9)
        except KeyboardInterrupt:
            crashes += 1
        monkeypatch.setattr(Path, "replace", real)
        try:
            found = open_store(place)
        except HostError as error:
            assert "restore" in error.message + error.hint  # noqa: PT017
            ledger_moves.restore(tmp_path / "copy", place, 9)
            found = open_store(place)
        with closing(found):
            found.apply([Persist(((Table.META, b"abstain", None),))])
            assert everything(found) == before
    assert crashes >= 2


def test_an_interrupted_restore_and_a_lost_ledger_stop_the_node(place: StorePlace) -> None:
    write_mark(place.state, RESTORING)
    with pytest.raises(HostError, match="interrupted"):
        open_store(place)
    write_mark(place.state, place.mark)
    for path in place.state.glob("ledger.sqlite*"):
        path.unlink()
    for read_only in (False, True):
        with pytest.raises(HostError, match="the ledger is gone"):
            open_store(place, read_only=read_only)


def test_an_export_is_taken_in_only_if_all_of_it_holds(place: StorePlace, tmp_path: Path) -> None:
    with closing(open_store(place)) as store:
        secrets = ((Table.VOTES, b"v" * 13, b"x"), (Table.META, b"voted", bytes(8)))
        store.apply([Persist((*secrets, (Table.NODE, b"n", b"x")))])
    source = tmp_path / "ledger.hpl"
    ledger_export.export(place, source, CHAIN, payloads=False)
    lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
    tables = {json.loads(line).get("t") for line in lines}
    assert tables & {"votes", "node", "payloads"} == set()
    assert "blocks" in tables
    assert b"voted".hex().encode() not in b"".join(lines)

    new = StorePlace(tmp_path / "new")
    audit = ledger_export.import_file(source, new, TERMS, 77)
    assert audit.faults == []
    with closing(open_store(new)) as store:
        assert faults(store) == []
        assert store.get(Table.META, b"abstain") == (77).to_bytes(8, "big")
    with pytest.raises(HostError, match="a ledger already"):
        ledger_export.import_file(source, new, TERMS, 77)

    ledger_export.export(place, source, CHAIN, payloads=True)
    assert b'"t":"payloads"' in gzip.decompress(source.read_bytes())


def test_forged_exports_leave_nothing(place: StorePlace, tmp_path: Path) -> None:
    source = tmp_path / "ledger.hpl"
    ledger_export.export(place, source, CHAIN, payloads=False)
    lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
    vote = b'{"k":"00","p":0,"t":"votes","v":"00"}\n'
    forgeries = {
        "cut": lines[:-1],
        "torn": [*lines[:-1], lines[-1][:-2]],
        "missing row": [*lines[:9], *lines[10:]],
        "changed row": [*lines[:9], lines[9].replace(b"0", b"1", 1), *lines[10:]],
        "behind": [*lines, b"{}\n"],
        "vote": [lines[0], vote, *lines[1:]],
        "other chain": [lines[0].replace(CHAIN.hex().encode(), b"00" * 32), *lines[1:]],
        "not json": [b"nonsense\n", *lines[1:]],
    }
    for what, forged in forgeries.items():
        source.write_bytes(gzip.compress(b"".join(forged)))
        new = StorePlace(tmp_path / what)
        with pytest.raises(RemoteError):
            ledger_export.import_file(source, new, TERMS, 1)
        assert not new.exists()
    source.write_bytes(gzip.compress(b"".join(lines))[:-20])
    with pytest.raises(RemoteError):
        ledger_export.import_file(source, StorePlace(tmp_path / "gzip"), TERMS, 1)


def test_a_whole_export_of_a_false_ledger_is_refused_by_its_content(
    place: StorePlace, tmp_path: Path
) -> None:
    with closing(open_store(place)) as store:
        key, value = first(store, Table.BLOCKS, 3)
        store.apply([Persist(((Table.BLOCKS, key, value[:-1] + bytes((value[-1] ^ 1,))),))])
    source = tmp_path / "ledger.hpl"
    ledger_export.export(place, source, CHAIN, payloads=False)
    new = StorePlace(tmp_path / "new")
    audit = ledger_export.import_file(source, new, TERMS, 1)
    assert audit.faults
    assert not new.exists()
    shutil.rmtree(place.state)


def test_a_pruned_ledger_holds_and_one_with_a_hole_does_not() -> None:
    config = replace(QUICK, partition_us=SECOND, keep_blocks=5, keep_contents=40)
    net = Net(mesh_of(), config=config)
    net.add_validators()
    edge = net.boot_edge()
    net.run(Instant(net.now + SECOND))
    for _ in range(60):
        net.write(edge, b"one", b"two")
        net.run(Instant(net.now + 2 * SECOND))
    store = net.stores[V0]
    court = convene(net.mesh.genesis, net.mesh.keys.schemes)
    kept = Retention(5, 40, SECOND)
    audit = check_ledger(net.mesh.genesis, court, store, kept)
    assert audit.faults == []
    assert audit.counts["checkpoints"] > 50
    rows = store.scan(Table.CONTENTS, b"", b"\xff" * 9, 10_000)
    assert 0 < len(rows) < audit.counts["checkpoints"]
    assert check_ledger(net.mesh.genesis, court, store, Retention(0, 0, SECOND)).faults
    for table in (Table.CONTENTS, Table.BLOCKS):
        rows = store.scan(table, b"", b"\xff" * 96, 10_000)
        key, value = rows[len(rows) // 2]
        store.apply(Persist(((table, key, None),)))
        assert check_ledger(net.mesh.genesis, court, store, kept).faults, table
        store.apply(Persist(((table, key, value),)))


def test_a_ledger_whose_validators_changed_holds_for_validators_and_edges() -> None:
    net = changing_net()
    net.boot_edge()
    net.deliver()
    admit(net)
    later(net, 4)
    court = convene(net.mesh.genesis, net.mesh.keys.schemes)
    for name in (V0, V4, EDGE):
        audit = check_ledger(net.mesh.genesis, court, net.stores[name])
        assert audit.faults == [], name
    store = net.stores[V0]
    key, value = store.scan(Table.CHANGES, b"", b"\xff" * 9, 9)[0]
    for changed in (None, value[:-9] + bytes((value[-9] ^ 1,)) + value[-8:]):
        store.apply(Persist(((Table.CHANGES, key, changed),)))
        assert check_ledger(net.mesh.genesis, court, store).faults
        store.apply(Persist(((Table.CHANGES, key, value),)))


def test_the_first_epoch_to_sign_again_is_beyond_all_that_can_be_open() -> None:
    duration = GENESIS.epoch_duration_us
    for epoch in (0, 1, 50):
        opens = Instant(GENESIS.start + (epoch + 1) * duration)
        assert ledger_moves.silent_until(GENESIS, opens) >= epoch + 2
        assert ledger_moves.silent_until(GENESIS, Instant(opens - 1)) >= epoch + 1
    assert ledger_moves.silent_until(GENESIS, Instant(0)) == 2

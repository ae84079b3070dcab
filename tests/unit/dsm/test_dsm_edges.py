"""Edges and what they prove, over a network without faults."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, QUICK, Net, chain_of, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, net_of, running, validator

from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.chain import Event
from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.effects import (
    BlockAccepted,
    BlockAppended,
    ForkDetected,
    IncarnationStarted,
    NodeQuarantined,
    PeerPenalised,
    ReceiptReceived,
)
from hookprobe.dsm.messages import (
    BlockEntry,
    Blocks,
    GetRange,
    Have,
    Status,
    Vote,
)
from hookprobe.dsm.receipts import check_receipt, decode_receipt, encode_receipt
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.errors import RemoteError, UnavailableError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant
from hookprobe.wire.reader import Writer


def test_the_edge_gets_receipts_that_prove_its_blocks() -> None:
    net, edge = running()
    receipts = [item for item in net.of(ReceiptReceived) if isinstance(item, ReceiptReceived)]
    assert receipts
    assert receipts[-1].last == 4
    head = edge.chain.open_head
    assert head is not None
    assert head.receipted == 4
    assert edge.chain.oldest_waiting_ms() is None
    edge.append([Event("ids_alert", b"late")], net.now)
    edge.append([Event("ids_alert", b"later")], Instant(net.now + 9 * SECOND))
    assert edge.chain.oldest_waiting_ms() == net.now // MILLISECOND


def test_a_bundle_from_the_edge_verifies_and_no_changed_byte_does() -> None:
    net, _ = running()
    data = export_bundle(net.mesh.genesis, EDGE, net.stores[EDGE])
    verifier = BundleVerifier(net.mesh.keys.schemes, net.mesh.chain)
    assert verifier.check(data).blocks == 4
    for place in range(0, len(data), 3):
        changed = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        with pytest.raises(RemoteError):
            verifier.check(changed)
    lines = data.splitlines(keepends=True)
    for place in range(len(lines)):
        with pytest.raises(RemoteError):
            verifier.check(b"".join(lines[:place] + lines[place + 1 :]))
    with pytest.raises(RemoteError):
        BundleVerifier(net.mesh.keys.schemes, b"x" * 32).check(data)


def test_a_receipt_for_other_blocks_is_refused() -> None:
    net, edge = running()
    row = net.stores[EDGE].scan(Table.RECEIPTS, b"", b"\xff" * 13, 1)[0][1]
    receipt = decode_receipt(row)
    assert encode_receipt(receipt) == row
    covered = receipt.range
    ids = [
        entry.signed.id for entry in edge.chain.entries(covered.inc, covered.first, covered.last)
    ]
    check_receipt(receipt, ids, edge.roll)
    with pytest.raises(VerificationError, match="these blocks"):
        check_receipt(receipt, ids[:-1], edge.roll)
    with pytest.raises(VerificationError):
        check_receipt(receipt, [b"x" * 32, *ids[1:]], edge.roll)
    other = replace(receipt.certificate, view=receipt.certificate.view + 1)
    with pytest.raises(VerificationError, match="aggregate"):
        check_receipt(replace(receipt, certificate=other), ids, edge.roll)


def test_a_receipt_as_it_was_stored_in_2026_still_proves_its_blocks() -> None:
    net, _ = running()
    row = net.stores[EDGE].scan(Table.RECEIPTS, b"", b"\xff" * 13, 1)[0][1]
    receipt = decode_receipt(row)
    writer = Writer().block16(receipt.header_raw)
    receipt.certificate.write(writer)
    receipt.range.write(writer)
    older = writer.u64(receipt.start).u8(0).finish()
    assert not receipt.proof
    assert decode_receipt(older) == receipt
    assert len(row) < 0.6 * len(older)
    with pytest.raises(RemoteError):
        decode_receipt(b"\xff\xff" + older[2:])


def test_no_byte_of_a_receipt_can_be_changed() -> None:
    net, edge = running()
    row = net.stores[EDGE].scan(Table.RECEIPTS, b"", b"\xff" * 13, 1)[0][1]
    covered = decode_receipt(row).range
    ids = [
        entry.signed.id for entry in edge.chain.entries(covered.inc, covered.first, covered.last)
    ]
    outside = range(row.index(covered.head) - 52, row.index(covered.head))
    for place in range(len(row)):
        for changed in (row[:place], row[:place] + bytes((row[place] ^ 1,)) + row[place + 1 :]):
            if place in outside and len(changed) == len(row):
                continue  # names the chain, which the blocks do themselves
            with pytest.raises(RemoteError):
                check_receipt(decode_receipt(changed), ids, edge.roll)


def test_an_edge_ignores_a_forged_receipt() -> None:
    net, edge = running()
    net.write(edge, b"later")
    lane = edge.chain.open_head
    assert lane is not None
    row = net.stores[EDGE].scan(Table.RECEIPTS, b"", b"\xff" * 13, 1)[0][1]
    forged = replace(
        decode_receipt(row), range=Range(EDGE, lane.inc, lane.seq, lane.seq, lane.block_id)
    )
    effects = edge.receive_message(V0, forged, net.now)
    assert [type(item) for item in effects] == [PeerPenalised]


def test_an_edge_that_forks_is_found_and_put_in_quarantine() -> None:
    net = net_of()
    net.run(NOW)
    one, other = chain_of(net.mesh, 3), chain_of(net.mesh, 3, salt=7)
    for target, blocks in ((V0, one), (V1, one), (V2, other), (V3, other)):
        ledger = validator(net, target)
        net.execute(target, ledger.peer_connected(EDGE, net.now))
        message = Blocks(0, tuple(BlockEntry(block) for block in blocks))
        net.execute(target, ledger.receive_message(EDGE, message, net.now))
    net.run(NOW + 4 * SECOND)
    assert net.of(ForkDetected)
    assert {who for who, item in net.seen if isinstance(item, NodeQuarantined)} == {V0, V1, V2, V3}
    revoked = {name: dict(validator(net, name).book.revoked) for name in net.mesh.names}
    assert all(list(item) == [EDGE] for item in revoked.values())
    epoch = validator(net, V0).book.revoked[EDGE]
    later = validator(net, V0).history.checkpoint(epoch + 1)
    assert later is not None
    assert later.checkpoint.content.ranges == ()
    net.kill(V0)
    assert EDGE in net.boot_validator(V0).book.revoked


def test_edges_are_not_served_ranges_and_may_not_speak_of_others() -> None:
    net, _ = running()
    ledger = validator(net, V0)
    for message in (
        GetRange(1, (EDGE, 1), 1, 1, bytes(32)),
        Have((((NodeId("other"), 1), 5),)),
        Status(0, bytes(32), bytes(32), 0),
        Vote(VoteKind.NOTARIZE, 0, 1, b"d" * 32, 0, bytes(96)),
    ):
        effects = ledger.receive_message(EDGE, message, net.now)
        assert PeerPenalised in [type(item) for item in effects], message


def test_payloads_reach_validators_with_the_blocks_and_must_match() -> None:
    net, _ = running()
    taken = [item.entry for item in net.of(BlockAccepted, V0) if isinstance(item, BlockAccepted)]
    texts = [entry.payload.data for entry in taken if entry.payload is not None]
    assert b"event 1" in texts
    ledger = validator(net, V0)
    lane = ledger.book.heads()[0][0]
    stored = ledger.book.branch(lane, 2, 2, bytes(32))
    assert net.stores[V0].get(Table.PAYLOADS, stored[0].id) is not None


def test_an_edge_writes_nothing_before_it_knows_its_own_head() -> None:
    net = Net(mesh_of())
    edge = net.boot_edge()
    net.write(edge, b"early")
    assert net.of(BlockAppended) == []
    net.run(NOW + SECOND)
    written = [item for item in net.of(BlockAppended) if isinstance(item, BlockAppended)]
    assert [item.signed.block.event_type for item in written] == ["enrol", "ids_alert"]


def test_events_that_wait_for_the_own_head_are_limited() -> None:
    waiting = Net(mesh_of()).boot_edge()
    with pytest.raises(UnavailableError):
        waiting.append([Event("ids_alert", b"")] * 5000, NOW)


def test_an_edge_restarted_over_its_store_goes_on_in_the_same_incarnation() -> None:
    net, edge = running()
    net.kill(EDGE)
    again = net.boot_edge()
    net.deliver()
    net.write(again, b"after the restart")
    assert again.chain.open_head is not None
    assert edge.chain.open_head is not None
    assert again.chain.open_head.inc == edge.chain.open_head.inc
    assert again.chain.open_head.seq == 5
    net.run(net.now + 3 * SECOND)
    assert not net.of(ForkDetected)


@pytest.mark.parametrize("rolled_back", [False, True])
def test_an_edge_that_lost_its_store_recovers_without_a_fork(rolled_back: bool) -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    old = MemoryStore()
    for table in (Table.CHAIN, Table.BLOCKS, Table.PAYLOADS):
        rows = net.stores[EDGE].scan(table, b"", b"\xff" * 80, 99)
        old.apply(Persist(tuple((table, key, value) for key, value in rows)))
    net.write(edge, b"two", b"three")
    net.run(NOW + 3 * SECOND)
    net.kill(EDGE)
    net.stores[EDGE] = old if rolled_back else MemoryStore()
    again = net.boot_edge()
    net.deliver()
    net.write(again, b"four")
    net.run(net.now + 3 * SECOND)
    starts = [item for item in net.of(IncarnationStarted) if isinstance(item, IncarnationStarted)]
    assert [item.recovered for item in starts] == [False, True]
    assert not net.of(ForkDetected)
    lanes = [lane for lane, _ in validator(net, V0).book.heads()]
    assert len(lanes) == 2
    first = validator(net, V0).book.branch(lanes[1], 1, 1, bytes(32))[0]
    assert first.block.body is not None
    assert first.block.body["last_seq"] == 4


def test_edges_above_the_limit_are_turned_away() -> None:
    net = Net(mesh_of(), replace(QUICK, edges_max=2))
    net.add_validators()
    ledger = validator(net, V0)
    answers = [ledger.peer_connected(NodeId(f"e{number}"), net.now) for number in range(4)]
    assert [bool(answer) for answer in answers] == [False, False, True, True]


def test_a_lost_store_never_leads_to_a_number_that_was_used_even_if_nobody_answers() -> None:
    net = Net(mesh_of())
    edge = net.boot_edge()
    net.run(NOW + 2 * SECOND)
    first = edge.chain.open_head
    net.kill(EDGE)
    net.stores[EDGE] = MemoryStore()
    again = net.boot_edge()
    net.run(net.now + 2 * SECOND)
    second = again.chain.open_head
    assert first is not None
    assert second is not None
    assert second.inc > first.inc

"""Validators and edges together, over a network without faults."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, QUICK, Net, chain_of, enrolment_of, mesh_of

from hookprobe.crypto import merkle
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.chain import Event
from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.cut import Cut, sign_cut
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import (
    BlockAccepted,
    BlockAppended,
    CheckpointFinalized,
    Disconnect,
    ForkDetected,
    IncarnationStarted,
    MisbehaviourDetected,
    NodeQuarantined,
    PeerPenalised,
    QuorumLost,
    ReceiptReceived,
    Send,
    ViewChanged,
    VotingSuspended,
)
from hookprobe.dsm.messages import (
    BlockEntry,
    Blocks,
    Checkpoints,
    CutMessage,
    GetRange,
    Have,
    Receipt,
    Status,
    Vote,
)
from hookprobe.dsm.receipts import check_receipt, decode_receipt, encode_receipt
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.errors import LocalError, RemoteError, UnavailableError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

V0, V1, V2, V3 = (NodeId(f"v0{place}") for place in range(4))


def net_of(size: int = 4) -> Net:
    net = Net(mesh_of(size))
    net.add_validators()
    return net


def validator(net: Net, name: NodeId) -> ValidatorLedger:
    node = net.nodes[name]
    assert isinstance(node, ValidatorLedger)
    return node


def finals(net: Net, name: NodeId) -> list[CheckpointFinalized]:
    return [
        item for item in net.of(CheckpointFinalized, name) if isinstance(item, CheckpointFinalized)
    ]


def running(events: int = 3) -> tuple[Net, EdgeLedger]:
    """Four validators, one edge, some events and two epochs."""
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, *(b"event %d" % number for number in range(events)))
    net.run(NOW + 3 * SECOND)
    return net, edge


def test_four_validators_agree_on_what_an_edge_wrote() -> None:
    net, _ = running()
    histories = [validator(net, name).history.last_hash for name in net.mesh.names]
    assert len(set(histories)) == 1
    assert sum(final.blocks for final in finals(net, V0)) == 4
    assert all(final.voters >= 3 for final in finals(net, V0))


def test_empty_epochs_have_checkpoints_too() -> None:
    net = net_of()
    net.run(NOW + 3 * SECOND)
    assert [final.epoch for final in finals(net, V2)] == [0, 1, 2, 3]
    final = validator(net, V2).history.checkpoint(2)
    assert final is not None
    assert final.checkpoint.header.merkle_root == merkle.EMPTY_ROOT


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_development_meshes_run(size: int) -> None:
    net = net_of(size)
    net.run(NOW + 2 * SECOND)
    assert len(finals(net, V0)) >= 2


def test_the_edge_gets_receipts_that_prove_its_blocks() -> None:
    net, edge = running()
    receipts = [item for item in net.of(ReceiptReceived) if isinstance(item, ReceiptReceived)]
    assert receipts
    assert receipts[-1].last == 4
    head = edge.chain.open_head
    assert head is not None
    assert head.receipted == 4


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
    check_receipt(receipt, ids, edge.court)
    with pytest.raises(VerificationError, match="these blocks"):
        check_receipt(receipt, ids[:-1], edge.court)
    with pytest.raises(VerificationError):
        check_receipt(receipt, [b"x" * 32, *ids[1:]], edge.court)
    other = replace(receipt.certificate, view=receipt.certificate.view + 1)
    with pytest.raises(VerificationError, match="aggregate"):
        check_receipt(replace(receipt, certificate=other), ids, edge.court)


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


def test_a_dead_leader_costs_one_view() -> None:
    net = net_of()
    net.kill(V0)
    net.run(NOW + 2 * SECOND)
    assert finals(net, V1)
    views = [item.view for item in net.of(ViewChanged, V1) if isinstance(item, ViewChanged)]
    assert 2 in views


@pytest.mark.parametrize("met_before", [False, True])
def test_with_two_of_four_down_nothing_is_final_and_the_alarm_is_raised(met_before: bool) -> None:
    net = net_of()
    if met_before:
        net.deliver()
    before = len(finals(net, V2))
    net.kill(V0)
    net.kill(V1)
    net.run(NOW + 12 * SECOND)
    assert len(finals(net, V2)) == before
    assert QuorumLost(before, 2 if met_before else 0, 3) in net.of(QuorumLost, V2)
    net.boot_validator(V0)
    net.run(net.now + 20 * SECOND)
    assert len(finals(net, V2)) > before


def test_a_validator_that_was_away_catches_up_and_serves_what_it_missed() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.kill(V3)
    net.deliver()
    net.write(edge, b"one", b"two")
    net.run(NOW + 5 * SECOND)
    late = net.boot_validator(V3)
    net.run(net.now + 3 * SECOND)
    assert late.history.last_hash == validator(net, V0).history.last_hash
    assert late.gossip.missing == {}
    assert late.book.heads() == validator(net, V0).book.heads()
    inc = next(iter(edge.chain.heads))
    epochs = [epoch for epoch in range(9) if late.receipts.receipt((EDGE, inc), epoch)]
    assert epochs


def test_a_restart_over_the_same_store_continues() -> None:
    net, _ = running()
    before = validator(net, V1).history.next_epoch
    net.kill(V1)
    again = net.boot_validator(V1)
    assert again.history.next_epoch == before
    assert again.book.heads() == validator(net, V0).book.heads()
    net.run(net.now + 2 * SECOND)
    assert again.history.next_epoch > before
    assert again.history.last_hash == validator(net, V0).history.last_hash


def test_a_validator_that_lost_its_disk_abstains_for_two_epochs() -> None:
    net, _ = running()
    net.kill(V1)
    net.stores[V1] = MemoryStore()
    net.boot_validator(V1)
    net.run(net.now + 4 * SECOND)
    suspensions = [
        item for item in net.of(VotingSuspended, V1) if isinstance(item, VotingSuspended)
    ]
    assert suspensions
    assert not net.of(MisbehaviourDetected)
    assert validator(net, V1).history.last_hash == validator(net, V0).history.last_hash


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


def test_a_second_cut_of_one_epoch_is_evidence_and_lands_in_a_checkpoint() -> None:
    net = net_of()
    net.run(NOW + 100 * MILLISECOND)
    ledger = validator(net, V0)
    epoch, prev = ledger.history.next_epoch, ledger.history.last_hash
    for stamp in (1, 2):
        cut = Cut(net.mesh.chain, epoch, prev, stamp, V3, (), ())
        signed = sign_cut(cut, net.mesh.keys.signer(V3))
        net.execute(V0, ledger.receive_message(V3, CutMessage(signed), net.now))
    assert MisbehaviourDetected(V3, "CUTS") in net.of(MisbehaviourDetected, V0)
    net.kill(V3)
    net.run(net.now + 4 * SECOND)
    assert V3 in validator(net, V1).history.settled


@pytest.mark.parametrize(
    "change",
    [{"chain": b"x" * 32}, {"epoch": 99}, {"prev": b"x" * 32}, {"validator_id": NodeId("nobody")}],
)
def test_cuts_of_another_chain_epoch_history_or_author_are_refused(
    change: dict[str, object],
) -> None:
    net = net_of()
    ledger = validator(net, V0)
    good = Cut(net.mesh.chain, 0, bytes(32), 5, V1, (), ())
    bad = sign_cut(replace(good, **change), net.mesh.keys.signer(V1))  # type: ignore[arg-type]
    with pytest.raises(VerificationError):
        ledger.judge.verify_cut(bad)
    forged = replace(sign_cut(good, net.mesh.keys.signer(V2)))
    with pytest.raises(VerificationError, match="signature"):
        ledger.judge.verify_cut(forged)


def test_a_vote_is_taken_from_its_own_voter_only() -> None:
    net = net_of()
    net.run(NOW + 100 * MILLISECOND)
    ledger = validator(net, V0)
    vote = Vote(VoteKind.NOTARIZE, ledger.voting.epoch, 1, b"d" * 32, 2, bytes(96))
    effects = ledger.receive_message(V1, vote, net.now)
    assert [item.score for item in effects if isinstance(item, PeerPenalised)] == [-10]


@pytest.mark.parametrize(
    "message",
    [
        Blocks(77, (BlockEntry(chain_of(mesh_of(), 1)[0]),)),
        Checkpoints(()),
        Blocks(0, (BlockEntry(chain_of(mesh_of(), 1, node="other")[0]),)),
    ],
)
def test_bulk_that_nobody_asked_for_lowers_the_score(
    message: Blocks | Checkpoints,
) -> None:
    net = net_of()
    effects = validator(net, V0).receive_message(V1, message, net.now)
    scores = [item.score for item in effects if isinstance(item, PeerPenalised)]
    assert len(scores) == 1
    assert scores[0] < 0


def test_rubbish_closes_the_link_for_ten_minutes() -> None:
    net = net_of()
    ledger = validator(net, V0)
    effects = [item for _ in range(6) for item in ledger.receive_frame(V1, b"rubbish", net.now)]
    until = Instant(net.now + QUICK.disconnect_us)
    assert Disconnect(V1, until) in effects
    refused = ledger.peer_connected(V1, net.now)
    assert [type(item) for item in refused] == [Disconnect]
    assert ledger.peer_connected(V1, until) != []


def test_silence_never_closes_a_link() -> None:
    net = net_of()
    ledger = validator(net, V0)
    peer = ledger.peers.peers[V1]
    for _ in range(100):
        ledger.peers.silent(peer, net.now)
    assert peer.score == -50
    assert V1 in ledger.peers.peers


def test_a_flood_of_messages_is_dropped_unread() -> None:
    net = Net(mesh_of(), replace(QUICK, messages_per_s=5))
    net.add_validators()
    ledger = validator(net, V0)
    answers = [
        ledger.receive_message(V1, GetRange(number, (EDGE, 1), 1, 5, bytes(32)), net.now)
        for number in range(20)
    ]
    assert sum(bool(answer) for answer in answers) <= 5


@pytest.mark.parametrize(("first", "last"), [(0, 5), (6, 5), (2**60, 1)])
def test_range_requests_with_wrong_numbers_are_refused(first: int, last: int) -> None:
    net, _ = running()
    ledger = validator(net, V0)
    effects = ledger.receive_message(V1, GetRange(1, (EDGE, 1), first, last, bytes(32)), net.now)
    assert [type(item) for item in effects] == [PeerPenalised]


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


def test_a_huge_range_is_answered_in_parts() -> None:
    net, _ = running(events=700)
    ledger = validator(net, V0)
    lane = ledger.book.heads()[0][0]
    answer = ledger.receive_message(V1, GetRange(9, lane, 1, 2**40, bytes(32)), net.now)
    sends = [item for item in answer if isinstance(item, Send)]
    assert isinstance(sends[0].message, Blocks)
    assert len(sends[0].message.entries) == 500


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


def test_keys_that_are_not_those_of_the_genesis_document_are_refused() -> None:
    mesh = mesh_of()
    keys = replace(mesh.validator_keys(V0), signer=mesh.keys.signer("somebody"))
    with pytest.raises(LocalError, match="keys"):
        ValidatorLedger(mesh.genesis, keys, mesh.keys.schemes, MemoryStore(), QUICK)
    with pytest.raises(LocalError, match="not a validator"):
        ValidatorLedger(
            mesh.genesis,
            replace(keys, validator_id=NodeId("stranger")),
            mesh.keys.schemes,
            MemoryStore(),
            QUICK,
        )


def test_edges_above_the_limit_are_turned_away() -> None:
    net = Net(mesh_of(), replace(QUICK, edges_max=2))
    net.add_validators()
    ledger = validator(net, V0)
    answers = [ledger.peer_connected(NodeId(f"e{number}"), net.now) for number in range(4)]
    assert [bool(answer) for answer in answers] == [False, False, True, True]


def test_a_receipt_and_heads_reply_sent_to_a_validator_are_offences() -> None:
    net, _ = running()
    row = net.stores[EDGE].scan(Table.RECEIPTS, b"", b"\xff" * 13, 1)[0][1]
    receipt: Receipt = decode_receipt(row)
    effects = validator(net, V0).receive_message(V1, receipt, net.now)
    assert [type(item) for item in effects] == [PeerPenalised]


def test_real_signatures_finalise_the_same_way() -> None:
    net = Net(mesh_of(real=True))
    net.add_validators()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"real")
    net.run(NOW + 2 * SECOND)
    assert finals(net, V0)
    assert net.of(ReceiptReceived)
    assert enrolment_of(net.mesh).certificate.node_id == EDGE


def test_a_checkpoint_must_continue_the_history_that_is_held() -> None:
    net = net_of()
    net.run(NOW + 3 * SECOND)
    history = validator(net, V0).history
    final = history.checkpoint(2)
    assert final is not None
    fresh = Net(net.mesh)
    fresh.add_validators()
    other = validator(fresh, V0).history
    first, second = history.checkpoint(0), history.checkpoint(1)
    assert first is not None
    assert second is not None
    with pytest.raises(VerificationError, match="not epoch 0"):
        other.check_next(second)
    other.check_next(first)
    other.advance(first, [])
    other.check_next(second)
    with pytest.raises(VerificationError, match=r"FINALIZE certificate|another header"):
        other.check_next(replace(second, certificate=first.certificate))
    other.last_hash = b"x" * 32
    with pytest.raises(VerificationError, match="continue our history"):
        other.check_next(second)
    other.last_hash = first.checkpoint.hash
    other.tree.append(b"x" * 32)
    with pytest.raises(VerificationError, match="continue our history"):
        other.check_next(second)
    torn = replace(final.checkpoint.content, cuts=final.checkpoint.content.cuts[1:])
    with pytest.raises(VerificationError, match="cuts_root"):
        replace(final.checkpoint, content=torn).check_content()


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


def test_a_push_of_blocks_that_another_node_wrote_is_refused() -> None:
    net = net_of()
    ledger = validator(net, V0)
    block = chain_of(net.mesh, 1, node="other")[0]
    effects = ledger.receive_message(V1, Blocks(0, (BlockEntry(block),)), net.now)
    assert [type(item) for item in effects] == [PeerPenalised]
    assert ledger.book.heads() == []

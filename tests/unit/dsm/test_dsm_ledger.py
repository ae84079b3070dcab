"""Validators together, over a network without faults."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, QUICK, Net, chain_of, enrolment_of, host_of, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, finals, net_of, running, validator

from hookprobe.crypto import merkle
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.cut import Cut, sign_cut
from hookprobe.dsm.effects import (
    BlockRefused,
    Disconnect,
    MisbehaviourDetected,
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
    Receipt,
    Vote,
)
from hookprobe.dsm.receipts import decode_receipt
from hookprobe.dsm.store import MemoryStore, Table
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.errors import LocalError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant


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
    assert late.backlog.missing == {}
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


def test_a_huge_range_is_answered_in_parts() -> None:
    net, _ = running(events=700)
    ledger = validator(net, V0)
    lane = ledger.book.heads()[0][0]
    answer = ledger.receive_message(V1, GetRange(9, lane, 1, 2**40, bytes(32)), net.now)
    sends = [item for item in answer if isinstance(item, Send)]
    assert isinstance(sends[0].message, Blocks)
    assert len(sends[0].message.entries) == 500


def test_keys_that_are_not_those_of_the_set_are_refused() -> None:
    mesh = mesh_of()
    keys = replace(mesh.validator_keys(V0), signer=mesh.keys.signer("somebody"))
    with pytest.raises(LocalError, match="keys"):
        ValidatorLedger(mesh.genesis, keys, mesh.keys.schemes, host_of(MemoryStore()), QUICK)


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


def test_a_push_of_blocks_that_another_node_wrote_is_refused() -> None:
    net = net_of()
    ledger = validator(net, V0)
    block = chain_of(net.mesh, 1, node="other")[0]
    effects = ledger.receive_message(V1, Blocks(0, (BlockEntry(block),)), net.now)
    assert [type(item) for item in effects] == [PeerPenalised]
    assert ledger.book.heads() == []


def test_a_block_with_a_forged_signature_is_refused_and_named() -> None:
    net = net_of()
    ledger = validator(net, V0)
    first, second = chain_of(net.mesh, 2)
    edge = NodeId(EDGE)
    ledger.peer_connected(edge, net.now)
    forged = replace(second, signature=bytes(64))
    entries = (BlockEntry(first), BlockEntry(forged))
    effects = ledger.receive_message(edge, Blocks(0, entries), net.now)
    refused = [item for item in effects if isinstance(item, BlockRefused)]
    assert [(item.lane, item.seq) for item in refused] == [((edge, 1), 2)]
    assert "signature" in refused[0].reason
    assert [item.reason for item in effects if isinstance(item, PeerPenalised)]
    assert ledger.book.lanes[(edge, 1)].head_seq == 1

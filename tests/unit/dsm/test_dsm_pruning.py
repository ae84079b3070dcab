"""What goes with time, what stays for ever, and who comes late."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, QUICK, Net, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, validator
from tests.unit.dsm.test_dsm_changes import V4, act, admit, application, later, members

from hookprobe.crypto.merkle import CompactRange
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.effects import Effect, PartitionsDropped, PeerPenalised, Send
from hookprobe.dsm.governance import Approve
from hookprobe.dsm.messages import GetPack, GetRelics, Relics
from hookprobe.dsm.peers import Peer
from hookprobe.dsm.store import PARTITIONS, Table
from hookprobe.wire.instant import SECOND

SHORT = replace(QUICK, partition_us=SECOND, keep_blocks=5, keep_contents=40)


def net_of(size: int = 4) -> Net:
    net = Net(mesh_of(size), config=SHORT)
    net.add_validators()
    net.run(NOW + SECOND)
    return net


def count(net: Net, table: Table) -> int:
    return len(net.stores[V0].scan(table, b"", b"\xff" * 80, 100_000))


def test_blocks_and_payloads_go_and_what_they_were_proven_with_stays() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one", b"two")
    later(net)
    exported = export_bundle(net.mesh.genesis, EDGE, net.stores[EDGE])
    assert count(net, Table.BLOCKS) == 3
    later(net, 10)
    assert count(net, Table.BLOCKS) == count(net, Table.PAYLOADS) == 0
    assert net.of(PartitionsDropped, V0)
    epochs = validator(net, V0).history.next_epoch
    assert count(net, Table.CHECKPOINTS) == count(net, Table.CONTENTS) == epochs
    later(net, 90)
    history = validator(net, V0).history
    assert count(net, Table.CHECKPOINTS) == history.next_epoch
    assert count(net, Table.CONTENTS) < 40 + PARTITIONS[Table.CONTENTS] + 2
    tree = CompactRange()
    for epoch in range(history.next_epoch):
        sealed = history.sealed(epoch)
        assert sealed is not None
        assert sealed.header.history_root == tree.root()
        tree.append(sealed.hash)
    verifier = BundleVerifier(net.mesh.keys.schemes, net.mesh.chain)
    assert verifier.check(exported).blocks == 3
    assert export_bundle(net.mesh.genesis, EDGE, net.stores[EDGE]) == exported


def test_the_chain_goes_on_over_what_was_pruned_and_after_a_restart() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    later(net, 12)
    assert count(net, Table.BLOCKS) == 0
    for name in (V0, V1):
        net.kill(name)
        net.boot_validator(name)
    later(net)
    net.write(edge, b"two")
    later(net)
    head = edge.chain.open_head
    assert head is not None
    assert (head.seq, head.receipted) == (3, 3)


def test_nothing_goes_by_the_clock_while_no_epoch_is_final() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    later(net)
    for name in (V2, V3):
        net.kill(name)
    before = count(net, Table.BLOCKS)
    later(net, 60)
    assert count(net, Table.BLOCKS) == before > 0


def test_zero_keeps_for_ever() -> None:
    net = Net(mesh_of(), config=replace(SHORT, keep_blocks=0, keep_contents=0))
    net.add_validators()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    later(net, 20)
    assert count(net, Table.BLOCKS) == 2


def test_a_validator_that_comes_after_the_pruning_learns_what_outlived_it() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    net.boot_validator(V4)
    later(net)
    act(net, V4, application(net, V4))
    later(net)
    wanted = next(iter(validator(net, V0).history.registry.applications))
    act(net, V0, Approve(wanted))
    later(net, 15)
    assert count(net, Table.BLOCKS) == 0
    net.kill(V3)
    net.stores.pop(V3)
    late = net.boot_validator(V3)
    later(net, 8)
    assert late.history.complete
    known, wise = late.history.registry, validator(net, V0).history.registry
    assert known._encode() == wise._encode()
    assert known.applications[wanted].approvals == (V0,)
    # The newcomer knows the edge's key although the first block is gone, and may approve.
    net.write(edge, b"two")
    for name in (V1, V2):
        act(net, name, Approve(wanted))
    later(net, 8)
    assert V4 in members(net, V3)
    head = edge.chain.open_head
    assert head is not None
    assert head.receipted == head.seq


def test_edges_get_no_relics_and_no_packs() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    later(net)
    for message in (GetRelics(0, 9), GetPack(1, (EDGE, 1), 1, 2, bytes(32))):
        effects = validator(net, V0).receive_message(EDGE, message, net.now)
        assert [type(item) for item in effects] == [PeerPenalised]


def test_one_liar_does_not_decide_what_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of()
    admit(net)
    later(net, 15)
    net.kill(V3)
    net.stores.pop(V3)
    honest = validator(net, V0)._relics.receive_get

    def lying(peer: Peer, message: GetRelics) -> list[Effect]:
        (answer,) = honest(peer, message)
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Relics)
        return [Send(answer.peer, replace(answer.message, blocks=()))]

    monkeypatch.setattr(validator(net, V0)._relics, "receive_get", lying)
    late = net.boot_validator(V3)
    later(net, 8)
    assert late.history.complete
    assert late.history.registry._encode() == validator(net, V1).history.registry._encode()
    offended = late.receive_message(V1, Relics(0, 0, ()), net.now)
    assert offended == []
    assert late.peers.peers[V1].score == 0

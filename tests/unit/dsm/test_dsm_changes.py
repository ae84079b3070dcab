"""Running meshes whose validator set changes: nothing stops, nobody votes who may not."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, Net, host_of, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, finals, validator

from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.effects import (
    NodeRevoked,
    ValidatorApplied,
    ValidatorSetChanged,
)
from hookprobe.dsm.governance import Apply, Approve, Governance, Remove, revoke
from hookprobe.dsm.steps import ValidatorKeys
from hookprobe.dsm.store import MemoryStore
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.errors import LocalError, RemoteError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND

V4, V5 = NodeId("v04"), NodeId("v05")


def net_of(size: int = 4) -> Net:
    net = Net(mesh_of(size))
    net.add_validators()
    net.run(NOW + SECOND)
    return net


def act(net: Net, name: NodeId, what: Governance) -> None:
    net.execute(name, validator(net, name).act(what, net.now))
    net.deliver()


def later(net: Net, seconds: int = 3) -> None:
    net.run(net.now + seconds * SECOND)


def application(net: Net, name: NodeId, key: str = "") -> Apply:
    voter = net.mesh.keys.vote_signer(key or name)
    return Apply(voter.public_key, voter.prove_possession(), b"quote")


def apply(net: Net, name: NodeId = V4) -> bytes:
    """Boot a candidate, let it apply, and return what approvals name."""
    net.boot_validator(name)
    later(net)
    act(net, name, application(net, name))
    later(net)
    found = [item for item in net.of(ValidatorApplied, V0) if isinstance(item, ValidatorApplied)]
    assert found[-1].validator_id == name
    return found[-1].application


def admit(net: Net, name: NodeId = V4) -> None:
    wanted = apply(net, name)
    for voter in validator(net, V0).court.validators.ids:
        act(net, voter, Approve(wanted))
    later(net, 6)


def members(net: Net, name: NodeId = V0) -> tuple[NodeId, ...]:
    return validator(net, name).court.validators.ids


def test_a_node_outside_the_set_watches_and_follows() -> None:
    net = net_of()
    net.boot_validator(V4)
    later(net, 4)
    watcher = validator(net, V4)
    assert not watcher.voting.seated
    assert watcher.history.next_epoch >= validator(net, V0).history.next_epoch - 1
    assert watcher.history.complete


def test_an_applicant_approved_by_a_quorum_votes_two_epochs_later() -> None:
    net = net_of()
    wanted = apply(net)
    for voter in (V0, V1):
        act(net, voter, Approve(wanted))
    later(net, 5)
    assert members(net) == (V0, V1, V2, V3)  # two of four are no quorum
    act(net, V2, Approve(wanted))
    epoch = validator(net, V0).voting.epoch
    later(net, 6)
    assert members(net) == members(net, V4) == (V0, V1, V2, V3, V4)
    change = net.of(ValidatorSetChanged, V0)[-1]
    assert isinstance(change, ValidatorSetChanged)
    assert (change.added, change.removed, change.epoch) == ((V4,), (), epoch + 2)
    newcomer = validator(net, V4)
    assert newcomer.voting.seated
    sealed = validator(net, V0).history.sealed(change.epoch - 1)
    assert sealed is not None
    assert sealed.header.validators_hash != sealed.header.next_validators_hash
    signers = [final.certificate.signers() for final in finals_of(net, change.epoch)]
    assert any(4 in places for places in signers)


def finals_of(net: Net, first: int) -> list:  # type: ignore[type-arg]
    history = validator(net, V0).history
    found = [history.sealed(epoch) for epoch in range(first, history.next_epoch)]
    return [item for item in found if item is not None]


def test_the_newcomer_carries_the_quorum_when_others_are_down() -> None:
    net = net_of()
    admit(net)
    admit(net, V5)
    assert len(members(net)) == 6
    net.kill(V0)
    before = validator(net, V1).history.next_epoch
    later(net, 8)
    assert validator(net, V1).history.next_epoch > before + 2  # five of six, two of them new


def test_validators_leave_by_vote_or_by_themselves_but_never_below_four() -> None:
    net = net_of()
    admit(net)
    act(net, V4, Remove(V4))
    later(net, 5)
    assert members(net) == (V0, V1, V2, V3)
    assert not validator(net, V4).voting.seated
    for voter in (V0, V1, V2):
        act(net, voter, Remove(V3))
    later(net, 6)
    assert members(net) == (V0, V1, V2, V3)  # it waits for a fifth
    admit(net, V5)
    later(net, 4)
    assert members(net) == (V0, V1, V2, V5)


def test_keys_that_left_never_come_back() -> None:
    net = net_of()
    admit(net)
    act(net, V4, Remove(V4))
    later(net, 5)
    act(net, V4, application(net, V4))
    later(net, 4)
    assert not validator(net, V0).history.registry.applications


def test_a_validator_rotates_its_vote_key_by_itself() -> None:
    net = net_of()
    keys = net.mesh.validator_keys(V1)
    fresh = net.mesh.keys.vote_signer("fresh")
    node = validator(net, V1)
    spare = ((keys.signer, fresh),)
    object.__setattr__(node.voting._terms, "keys", replace(keys, spare=spare))
    act(net, V1, application(net, V1, "fresh"))
    later(net, 6)
    entry = validator(net, V0).court.validators.entry(V1)
    assert entry is not None
    assert entry.vote_key == fresh.public_key
    assert node.voting.seat.vote_signer is fresh
    before = validator(net, V0).history.next_epoch
    net.kill(V3)
    later(net, 6)
    assert validator(net, V0).history.next_epoch > before  # V1 votes with the new key


def test_a_restart_without_the_keys_that_the_set_names_is_refused() -> None:
    net = net_of()
    admit(net)
    keys = net.mesh.validator_keys(V4)
    wrong = replace(keys, vote_signer=net.mesh.keys.vote_signer("other"))
    with pytest.raises(LocalError, match="keys at hand"):
        ValidatorLedger(
            net.mesh.genesis, wrong, net.mesh.keys.schemes, host_of(net.stores[V0]), net.config
        )


def test_restarts_remember_sets_registry_and_chain() -> None:
    net = net_of()
    wanted = apply(net)
    act(net, V0, Approve(wanted))
    later(net)
    for name in (V0, V1, V4):
        old = validator(net, name)
        state = old.history.registry._encode()
        chain = old.book.incarnations(name)
        net.kill(name)
        again = net.boot_validator(name)
        assert again.history.registry._encode() == state
        assert again.history.registry.next_epoch == old.history.registry.next_epoch
        assert again.book.incarnations(name) == chain
        later(net)
    for name in (V1, V2):
        act(net, name, Approve(wanted))
    later(net, 6)
    assert V4 in members(net)
    net.kill(V4)
    net.boot_validator(V4)
    later(net)
    assert validator(net, V4).voting.seated


def test_an_edge_follows_the_set_and_its_bundle_proves_across_the_change() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"before")
    later(net)
    admit(net)
    net.write(edge, b"after")
    later(net)
    assert edge.roll.latest.ids == (V0, V1, V2, V3, V4)
    head = edge.chain.open_head
    assert head is not None
    assert head.receipted == head.seq
    data = export_bundle(net.mesh.genesis, EDGE, net.stores[EDGE])
    lines = data.splitlines(keepends=True)
    changes = [place for place, line in enumerate(lines) if b'"type":"change"' in line]
    assert changes == [2]
    verifier = BundleVerifier(net.mesh.keys.schemes, net.mesh.chain)
    report = verifier.check(data)
    assert report.blocks == head.seq
    with pytest.raises(RemoteError):
        verifier.check(b"".join([*lines[:2], *lines[3:]]))
    net.kill(EDGE)
    again = net.boot_edge()
    assert again.roll.latest.ids == edge.roll.latest.ids


def test_an_edge_that_slept_through_changes_catches_up() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"before")
    later(net)
    net.kill(EDGE)
    admit(net)
    act(net, V4, Remove(V0))
    for voter in (V1, V2, V3):
        act(net, voter, Remove(V0))
    later(net, 6)
    assert members(net, V1) == (V1, V2, V3, V4)
    again = net.boot_edge()
    net.deliver()
    net.write(again, b"after")
    later(net, 4)
    assert again.roll.latest.ids == (V1, V2, V3, V4)
    heads = again.chain.heads.values()
    assert [head.receipted for head in heads] == [head.seq for head in heads]


def test_a_lagging_validator_syncs_across_changes() -> None:
    net = net_of(7)
    net.kill(NodeId("v06"))
    net.boot_validator(NodeId("v07"))
    later(net)
    act(net, NodeId("v07"), application(net, NodeId("v07")))
    later(net)
    wanted = next(iter(validator(net, V0).history.registry.applications))
    for voter in members(net)[:6]:
        act(net, voter, Approve(wanted))
    later(net, 6)
    assert len(members(net)) == 8
    late = net.boot_validator(NodeId("v06"))
    later(net, 6)
    assert late.history.complete
    assert late.history.next_epoch >= validator(net, V0).history.next_epoch - 1
    assert late.court.validators.hash == validator(net, V0).court.validators.hash


def test_a_revoked_node_counts_no_more_and_only_an_authority_revokes() -> None:
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, b"one")
    later(net)
    forged = revoke(net.mesh.chain, EDGE, net.mesh.keys.signer("mallory"))
    act(net, V0, forged)
    later(net, 4)
    assert net.of(NodeRevoked) == []
    act(net, V1, revoke(net.mesh.chain, EDGE, net.mesh.authority))
    later(net, 4)
    assert {item.node_id for item in net.of(NodeRevoked) if isinstance(item, NodeRevoked)} == {EDGE}
    head = edge.chain.open_head
    assert head is not None
    net.write(edge, b"two")
    later(net, 4)
    assert edge.chain.heads[head.inc].receipted == head.seq
    assert finals(net, V0)[-1].blocks == 0


def test_a_ledger_without_enrolment_writes_no_chain() -> None:
    mesh = mesh_of()
    keys = mesh.validator_keys(V0)
    bare = ValidatorKeys(V0, keys.signer, keys.vote_signer)
    node = ValidatorLedger(
        mesh.genesis, bare, mesh.keys.schemes, host_of(MemoryStore()), Net(mesh).config
    )
    with pytest.raises(LocalError, match="enrolment"):
        node.act(Remove(V1), NOW)

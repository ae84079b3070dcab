"""A revoked or convicted key is dead under every name; genesis version 1 knows names only."""

from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, Net, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, validator
from tests.unit.dsm.test_dsm_registry import COURT, MESH, act, application

from hookprobe.dsm.dead_keys import KeyBook, KeyUse
from hookprobe.dsm.effects import NodeRevoked
from hookprobe.dsm.enrolment import Enrolment, issue
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.governance import Approve, Remove, revoke
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.registry import Registry
from hookprobe.dsm.steps import ValidatorKeys
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.errors import RemoteError
from hookprobe.sim.mesh import Mesh
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
K1, K2, K3 = (bytes([number]) * 32 for number in (1, 2, 3))
V4, OTHER = NodeId("v04"), NodeId("edge-other")


def mesh_of_version(version: int, size: int = 4) -> Mesh:
    mesh = mesh_of(size)
    mesh.genesis = replace(mesh.genesis, version=version)
    mesh.chain = mesh.genesis.chain_id()
    return mesh


def book_of(*uses: KeyUse) -> KeyBook:
    return KeyBook(uses, MemoryStore())


# -- the book -----------------------------------------------------------------------------------


def test_a_buried_node_takes_its_keys_and_whoever_shares_them() -> None:
    book = book_of(KeyUse(A, K1), KeyUse(B, K1), KeyUse(B, K2), KeyUse(C, K3))
    _, fallen = book.bury([A], 7)
    assert fallen == [A, B]
    assert book.dead == {K1: 7, K2: 7}
    _, fallen = book.learn([KeyUse(C, K2)], 9)
    assert fallen == [C]
    assert book.dead == {K1: 7, K2: 7, K3: 9}


def test_a_key_that_evidence_convicts_is_dead_though_no_checkpoint_showed_it() -> None:
    book = book_of(KeyUse(A, K1))
    _, fallen = book.learn([KeyUse(A, K2, convicted=True)], 3)
    assert fallen == [A]
    assert book.dead == {K1: 3, K2: 3}
    assert book.learn([KeyUse(B, K3)], 4)[1] == []


def test_a_book_is_stored_and_read_as_it_is() -> None:
    store, book = MemoryStore(), book_of(KeyUse(A, K1))
    for writes, _ in (
        book.learn([KeyUse(B, K1), KeyUse(B, K2), KeyUse(C, K3)], 1),
        book.bury([A], 2),
    ):
        store.apply(Persist(tuple(writes)))
    again = KeyBook([KeyUse(A, K1)], store)
    assert again.dead == book.dead == {K1: 2, K2: 2}
    assert again.learn([KeyUse(C, K2)], 3)[1] == book.learn([KeyUse(C, K2)], 3)[1] == [C]


def test_the_order_in_an_epoch_decides_nothing() -> None:
    uses = [KeyUse(A, K1), KeyUse(B, K1), KeyUse(B, K2), KeyUse(C, K2, convicted=True)]
    books = [book_of(), book_of()]
    first = books[0].learn(uses, 5)[1]
    assert first == books[1].learn(uses[::-1], 5)[1] == [A, B, C]
    assert books[0].dead == books[1].dead


# -- the registry -------------------------------------------------------------------------------


def registry_of(version: int) -> Registry:
    by_key = version >= 2
    return Registry(COURT, MemoryStore(), dev=False, patience_epochs=100, by_key=by_key)


def key_of(mesh: Mesh, name: str) -> bytes:
    return mesh.keys.signer(name).public_key


@pytest.mark.parametrize("version", [1, 2])
def test_another_name_with_a_revoked_key_gets_no_seat(version: int) -> None:
    registry = registry_of(version)
    stolen = key_of(MESH, "stolen")
    asking = act(V4, application(V4), key="stolen")
    registry.read([], [], [KeyUse(EDGE, stolen)])
    registry.read([act(V0, revoke(COURT.chain, EDGE, MESH.authority))], [])
    registry.read([asking], [], [KeyUse(V4, stolen)])
    registry.read([act(name, Approve(asking.block_id)) for name in (V0, V1, V2)], [])
    assert (V4 in registry.following.ids) is (version == 1)
    assert (V4 in registry.revoked) is (version == 2)


def test_a_validator_cannot_rotate_to_a_dead_key() -> None:
    registry = registry_of(2)
    registry.read([], [EDGE], [KeyUse(NodeId(EDGE), key_of(MESH, "stolen"), convicted=True)])
    before = registry.following.entry(V1)
    registry.read([act(V1, application(V1), key="stolen")], [])
    registry.read([act(name, Approve(b"V1 0".ljust(32, b"."))) for name in (V0, V2, V3)], [])
    assert registry.following.entry(V1) == before


def test_founders_keys_are_known_though_they_never_wrote() -> None:
    registry = registry_of(2)
    registry.read([], [V3], [KeyUse(V3, key_of(MESH, V3), convicted=True)])
    assert key_of(MESH, V3) in registry.dead_keys
    assert V3 not in registry.revoked  # in quarantine by its conviction
    registry.read([], [], [KeyUse(OTHER, key_of(MESH, V3))])
    assert OTHER in registry.revoked


# -- a running mesh -----------------------------------------------------------------------------


def under_another_name(mesh: Mesh, name: NodeId, owner: str) -> Enrolment:
    """A genuine certificate for another name over a key that somebody had already."""
    certificate = replace(mesh.enrolment(name, "validator").certificate, key=key_of(mesh, owner))
    return issue(certificate, mesh.authority)


def net_of(version: int) -> Net:
    net = Net(mesh_of_version(version))
    net.add_validators()
    net.run(NOW + SECOND)
    return net


def enrol_again(net: Net, owner: str) -> None:
    """Boot a node that uses another's key under a name of its own, and let it write."""
    mesh = net.mesh
    signer = mesh.keys.signer(owner)
    keys = ValidatorKeys(
        OTHER, signer, mesh.keys.vote_signer(OTHER), under_another_name(mesh, OTHER, owner)
    )
    original = mesh.validator_keys
    mesh.validator_keys = (  # type: ignore[method-assign]
        lambda name: keys if name == OTHER else original(name)
    )
    net.boot_validator(OTHER)
    net.run(net.now + 4 * SECOND)


def covered(net: Net, name: NodeId) -> list[int]:
    history = validator(net, V0).history
    found = [history.checkpoint(epoch) for epoch in range(history.next_epoch)]
    return [
        item.last
        for final in found
        if final is not None
        for item in final.checkpoint.content.ranges
        if item.node_id == name
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_a_revoked_key_under_another_name_enters_no_checkpoint(version: int) -> None:
    net = net_of(version)
    net.boot_validator(V4)
    net.run(net.now + 3 * SECOND)
    what = revoke(net.mesh.chain, V4, net.mesh.authority)
    net.execute(V0, validator(net, V0).act(what, net.now))
    net.run(net.now + 3 * SECOND)
    assert net.of(NodeRevoked, V1)
    enrol_again(net, V4)
    assert bool(covered(net, OTHER)) is (version == 1)
    for name in (V0, V1, V2, V3):
        held = validator(net, name).history.registry
        assert (key_of(net.mesh, V4) in held.dead_keys) is (version == 2)
        assert validator(net, name).history.next_epoch > 5, "the others go on"


def test_where_such_a_chain_enters_all_the_same_its_node_is_revoked_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if more than f validators lagged or lied: what counts is decided by the checkpoint."""
    monkeypatch.setattr(LaneBook, "_dead", lambda *_: False)
    net = net_of(2)
    net.boot_validator(V4)
    net.run(net.now + 3 * SECOND)
    what = revoke(net.mesh.chain, V4, net.mesh.authority)
    net.execute(V0, validator(net, V0).act(what, net.now))
    net.run(net.now + 3 * SECOND)
    enrol_again(net, V4)
    first = covered(net, OTHER)
    assert first
    for _ in range(3):
        net.execute(OTHER, validator(net, OTHER).act(Remove(V0), net.now))
        net.run(net.now + 2 * SECOND)
    assert covered(net, OTHER) == first
    for name in (V0, V1, V2, V3):
        assert OTHER in validator(net, name).history.revoked()


# -- the genesis document -------------------------------------------------------------------------


def test_old_genesis_documents_keep_their_chain_and_their_rules() -> None:
    old, new = mesh_of_version(1).genesis, mesh_of_version(2).genesis
    assert b'"v":1' in old.encode()
    assert decode_genesis(old.encode()) == old
    assert decode_genesis(new.encode()) == new
    assert old.chain_id() != new.chain_id()
    for wrong in (b'"v":0', b'"v":3', b'"v":"2"'):
        with pytest.raises(RemoteError):
            decode_genesis(old.encode().replace(b'"v":1', wrong))

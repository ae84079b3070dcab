"""The registry: what governance blocks and evidence do to the validator set, and cannot do."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.dsm.kit import chain_of, court_of, mesh_of

from hookprobe.dsm.enrolment import Enrolment
from hookprobe.dsm.governance import (
    Act,
    Apply,
    Approve,
    Governance,
    Remove,
    act_of,
    parse_governance,
    revoke,
)
from hookprobe.dsm.registry import APPLICATIONS_MAX, Registry
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.dsm.validators import ValidatorSet, decode_set
from hookprobe.errors import RemoteError
from hookprobe.sim.mesh import Mesh
from hookprobe.wire.identifiers import NodeId

MESH = mesh_of(4)
COURT = court_of(MESH)
V0, V1, V2, V3 = MESH.names
V4, V5 = NodeId("v04"), NodeId("v05")


def registry_of(
    mesh: Mesh = MESH, store: MemoryStore | None = None, *, dev: bool = False
) -> Registry:
    return Registry(court_of(mesh), store or MemoryStore(), dev=dev, patience_epochs=100)


def enrolment(name: str, role: str = "validator", key: str = "") -> Enrolment:
    found = MESH.enrolment(NodeId(name), role)
    if not key:
        return found
    certificate = replace(found.certificate, key=MESH.keys.signer(key).public_key)
    return replace(found, certificate=certificate)


def application(name: str, key: str = "") -> Apply:
    voter = MESH.keys.vote_signer(key or name)
    return Apply(voter.public_key, voter.prove_possession())


def act(name: str, what: Governance, number: int = 0, **how: str) -> Act:
    block_id = f"{name} {number}".encode().ljust(32, b".")
    return Act(enrolment(name, **how), block_id, what)


def approvals(application: bytes, voters: Sequence[str]) -> list[Act]:
    return [act(name, Approve(application)) for name in voters]


def admitted(registry: Registry, name: str) -> None:
    asking = act(name, application(name))
    registry.read([asking], [])
    registry.read(approvals(asking.block_id, registry.following.ids), [])


def test_what_is_read_in_epoch_e_decides_from_e_plus_two_on() -> None:
    registry = registry_of()
    asking = act(V4, application(V4))
    registry.read([asking, *approvals(asking.block_id, (V0, V1, V2))], [])
    assert registry.next_epoch == 1
    assert V4 not in registry.current.ids  # of epoch 1
    assert V4 in registry.following.ids  # of epoch 2
    registry.read([], [])
    assert V4 in registry.current.ids


@pytest.mark.parametrize("voters", [(), (V0,), (V0, V1), (V0, V1, V1), (V0, V1, V4), (V0, V1, V5)])
def test_less_than_a_quorum_of_members_admits_nobody(voters: tuple[str, ...]) -> None:
    registry = registry_of()
    asking = act(V4, application(V4))
    registry.read([asking, *approvals(asking.block_id, voters)], [])
    assert registry.following.ids == MESH.names


def test_an_approval_signed_with_another_key_does_not_count() -> None:
    registry = registry_of()
    asking = act(V4, application(V4))
    stolen = act(V2, Approve(asking.block_id), key="mallory")
    registry.read([asking, *approvals(asking.block_id, (V0, V1)), stolen], [])
    assert registry.following.ids == MESH.names


def test_only_who_is_enrolled_as_validator_and_proves_its_key_applies() -> None:
    registry = registry_of()
    rogue = Apply(application(V4).vote_key, application(V5).possession_proof)
    known = Apply(application(V0).vote_key, application(V0).possession_proof)
    acts = [
        act(V4, application(V4), role="edge"),
        act(V4, rogue),
        act(V4, known),
        act(V4, application(V4), key=V0),
    ]
    registry.read(acts, [])
    assert registry.applications == {}


def test_one_application_a_node_and_a_bounded_number_in_all() -> None:
    registry = registry_of()
    registry.read([act(V4, application(V4), 1), act(V4, application(V4, "new"), 2)], [])
    assert [item.entry.vote_key for item in registry.applications.values()] == [
        application(V4, "new").vote_key
    ]
    for start in range(0, 2 * APPLICATIONS_MAX, 8):
        names = [f"n{number}" for number in range(start, start + 8)]
        registry.read([act(name, application(name)) for name in names], [])
    assert len(registry.applications) == APPLICATIONS_MAX


def test_applications_lapse() -> None:
    registry = registry_of()
    registry.read([act(V4, application(V4))], [])
    for _ in range(100):
        registry.read([], [])
    assert registry.applications == {}


def test_at_most_f_changes_an_epoch_and_removals_first() -> None:
    mesh = mesh_of(7)
    registry = registry_of(mesh)
    joining = [NodeId("x1"), NodeId("x2")]
    for name in joining:
        mesh.keys.vote_signer(name)  # the simulated scheme knows the keys that it made
    acts = [act(name, application(name)) for name in joining]
    votes = [item for asking in acts for item in approvals(asking.block_id, mesh.names)]
    registry.read([*acts, *votes], [mesh.names[6]])
    assert registry.following.ids == (*mesh.names[:6], "x1")
    registry.read([], [])
    assert registry.following.ids == (*mesh.names[:6], "x1", "x2")


def test_a_convicted_member_of_four_goes_when_a_fifth_has_come() -> None:
    registry = registry_of()
    registry.read([], [V3])
    assert registry.following.ids == MESH.names
    admitted(registry, V4)
    assert registry.following.ids == (*MESH.names, V4)
    registry.read([], [])
    assert registry.following.ids == (V0, V1, V2, V4)


def test_a_mesh_for_development_may_shrink_to_one() -> None:
    registry = registry_of(dev=True)
    for name in (V3, V2, V1, V0):
        registry.read([act(name, Remove(name))], [])
    assert registry.following.ids == (V0,)


def test_keys_that_left_are_refused_for_ever_also_after_a_restart() -> None:
    store = MemoryStore()
    registry = registry_of(store=store)
    asking = act(V4, application(V4))
    for acts in (
        [asking, *approvals(asking.block_id, (V0, V1, V2))],
        [act(V4, Remove(V4))],
    ):
        store.apply(Persist(tuple(registry.read(acts, []))))
    assert registry.following.ids == MESH.names
    again = registry_of(store=store)
    stolen = act(V5, application(V5, V4))
    again.read([act(V4, application(V4), 2), stolen], [])
    assert again.applications == {}


def test_a_rotation_needs_no_vote_with_the_current_key_and_a_quorum_with_another() -> None:
    registry = registry_of()
    registry.read([act(V1, application(V1, "fresh"))], [])
    entry = registry.following.entry(V1)
    assert entry is not None
    assert entry.vote_key == application(V1, "fresh").vote_key
    asking = act(V2, application(V2, "also fresh"), key="new key")
    registry.read([asking], [])
    assert registry.following.entry(V2) == MESH.genesis.validators[2]
    registry.read(approvals(asking.block_id, (V0, V1, V3)), [])
    entry = registry.following.entry(V2)
    assert entry is not None
    assert entry.key == MESH.keys.signer("new key").public_key
    registry.read([act(V2, application(V2), 2, key="new key")], [])
    assert registry.following.entry(V2) == entry  # its first vote key is a tombstone


def test_who_is_convicted_cannot_rotate_away() -> None:
    registry = registry_of()
    registry.read([act(V1, application(V1, "fresh"))], [V1])
    assert registry.following.ids == MESH.names
    assert registry.following.entry(V1) == MESH.genesis.validators[1]


def test_revocation_needs_an_authority_and_silences() -> None:
    registry = registry_of()
    by_nobody = revoke(MESH.chain, V1, MESH.keys.signer("mallory"))
    elsewhere = revoke(b"x" * 32, V1, MESH.authority)
    registry.read([act(V0, by_nobody), act(V0, elsewhere)], [])
    assert registry.revoked == {}
    registry.read([act(V0, revoke(MESH.chain, V1, MESH.authority))], [])
    assert registry.revoked == {V1: 1}
    assert V1 in registry.following.ids  # an authority does not choose validators
    registry.read([act(V1, Remove(V1))], [])
    assert registry.doomed == {}


def test_the_stored_state_is_the_state() -> None:
    store = MemoryStore()
    registry = registry_of(store=store)
    asking = act(V4, application(V4))
    steps: list[tuple[list[Act], list[str]]] = [
        ([asking, *approvals(asking.block_id, (V0,))], []),
        ([act(V0, Remove(V2))], [V3]),
        (approvals(asking.block_id, (V1, V2)), []),
        ([act(V0, revoke(MESH.chain, V5, MESH.authority))], []),
        ([], []),
    ]
    for acts, offenders in steps:
        store.apply(Persist(tuple(registry.read(acts, offenders))))
        again = registry_of(store=store)
        for name in ("next_epoch", "applications", "removals", "doomed", "revoked"):
            assert getattr(again, name) == getattr(registry, name)
        assert again.current.hash == registry.current.hash
        assert again.following.hash == registry.following.hash


def test_bodies_have_one_form_and_others_mean_nothing() -> None:
    revocation = revoke(b"c" * 32, V1, MESH.authority)
    for what in (application(V4), Approve(b"a" * 32), Remove(V1), revocation):
        body = what.to_body()
        assert parse_governance(body) == what
        for name in body:
            with pytest.raises(RemoteError):
                parse_governance({key: value for key, value in body.items() if key != name})
        with pytest.raises(RemoteError):
            parse_governance({**body, "extra": 1})
    with pytest.raises(RemoteError):
        parse_governance({"kind": "apply", "attestation": "AA"})
    blocks = chain_of(MESH, 2)
    assert [act_of(block, enrolment(V0)) for block in blocks] == [None, None]


def test_a_set_has_one_encoding() -> None:
    found = ValidatorSet(MESH.genesis.validators)
    assert decode_set(found.encode()).hash == found.hash
    for wrong in (b"{}", b"[]", b"[1]", found.encode() + b" "):
        with pytest.raises(RemoteError):
            decode_set(wrong)

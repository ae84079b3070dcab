from itertools import product

import pytest
from tests.unit.dsm.kit import mesh_of

from hookprobe.dsm.cut import Cut, floor_of, floors, median_timestamp, parse_cut, sign_cut
from hookprobe.errors import LimitExceededError, MalformedError, RemoteError
from hookprobe.wire.identifiers import NodeId

LANE = (NodeId("edge"), 1)
OTHER = (NodeId("edge"), 2)


def cut(validator: str, heads: dict[tuple[NodeId, int], int], stamp: int = 5) -> Cut:
    return Cut(b"c" * 32, 0, bytes(32), stamp, NodeId(validator), tuple(sorted(heads.items())), ())


@pytest.mark.parametrize(("size", "most"), [(4, 3), (7, 2)])
def test_the_floor_lies_between_honest_reports_in_every_small_case(size: int, most: int) -> None:
    # All reports of all quorums, with every choice of f liars: neither inflated nor suppressed.
    faults = (size - 1) // 3
    quorum = size - faults
    cases = 0
    for honest in product(range(most + 1), repeat=quorum - faults):
        for lies in product(range(most + 3), repeat=faults):
            floor = floor_of([*honest, *lies], 0, faults, 50)
            assert min(honest) <= floor <= max(honest)
            cases += 1
    assert cases > 90


def test_the_floor_is_capped() -> None:
    assert floor_of([900, 900, 900], 100, 1, 50) == 150


def test_reports_below_the_last_checkpoint_count_as_absent() -> None:
    assert floor_of([3, 3, 12], 10, 1, 50) == 10


def test_one_liar_of_four_cannot_raise_a_floor() -> None:
    cuts = [cut("v00", {LANE: 10**9}), cut("v01", {LANE: 4}), cut("v02", {})]
    assert floors(cuts, {LANE: 2}, 1, 50_000) == {LANE: 4}


def test_one_liar_of_four_cannot_hide_what_the_honest_hold() -> None:
    cuts = [cut("v00", {}), cut("v01", {LANE: 6}), cut("v02", {LANE: 7})]
    assert floors(cuts, {}, 1, 50_000) == {LANE: 6}


def test_floors_are_sorted_and_name_only_chains_that_advance() -> None:
    heads = {OTHER: 2, LANE: 9}
    cuts = [cut(name, heads) for name in ("v00", "v01", "v02")]
    assert list(floors(cuts, {OTHER: 2}, 1, 50)) == [LANE]
    assert list(floors(cuts, {}, 1, 50)) == [LANE, OTHER]


def test_the_median_is_between_honest_clocks_and_later_than_before() -> None:
    cuts = [cut("v00", {}, 5), cut("v01", {}, 9), cut("v02", {}, 10**12)]
    assert median_timestamp(cuts, 0) == 9
    assert median_timestamp(cuts, 9) == 10


def test_a_cut_survives_its_encoding() -> None:
    signed = sign_cut(cut("v00", {LANE: 3}), mesh_of().keys.signer("v00"))
    assert parse_cut(signed.raw, signed.signature) == signed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'[["edge",1,3],["edge",2,3]]', b'[["edge",2,3],["edge",1,3]]'),
        (b'[["edge",1,3],["edge",2,3]]', b'[["edge",1,3],["edge",1,3]]'),
        (b'[["edge",1,3],["edge",2,3]]', b'[["edge",1,0]]'),
        (b'[["edge",1,3],["edge",2,3]]', b'[["edge",true,3]]'),
        (b'"type":"K"', b'"type":"C"'),
        (b'"epoch":0', b'"epoch":-1'),
        (b'"epoch":0', b'"epoch":0.0'),
        (b'"evidence":[]', b'"evidence":["AA"]'),
        (b'"evidence":[]', b'"evidence":["bb","aa"]'),
        (b'"v":1', b'"v":1,"w":2'),
    ],
)
def test_cuts_in_another_form_are_malformed(old: bytes, new: bytes) -> None:
    signed = sign_cut(cut("v00", {LANE: 3, OTHER: 3}), mesh_of().keys.signer("v00"))
    raw = signed.raw.replace(old, new)
    assert raw != signed.raw
    with pytest.raises(RemoteError):
        parse_cut(raw, signed.signature)


def test_a_cut_names_a_limited_number_of_chains() -> None:
    heads = {(NodeId(f"n{number}"), 1): 1 for number in range(4097)}
    signed = sign_cut(cut("v00", heads), mesh_of().keys.signer("v00"))
    with pytest.raises((MalformedError, LimitExceededError)):
        parse_cut(signed.raw, signed.signature)

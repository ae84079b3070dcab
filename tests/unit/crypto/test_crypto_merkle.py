import base64
import json
from pathlib import Path
from typing import Any

import pymerkle
import pytest

from hookprobe.crypto import merkle
from hookprobe.errors import LocalError, MalformedError, VerificationError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data/vectors/merkle_proofs.json").read_text(encoding="utf-8")
)
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31]


def leaves(count: int) -> list[bytes]:
    return [bytes([i]) * 32 for i in range(count)]


def b64(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def case_name(case: dict[str, Any]) -> str:
    return str(case["case"])


def textbook_root(items: list[bytes]) -> bytes:
    """MTH straight from RFC 6962 section 2.1."""
    if not items:
        return merkle.EMPTY_ROOT
    if len(items) == 1:
        return merkle.leaf_hash(items[0])
    k = 1
    while k * 2 < len(items):
        k *= 2
    return merkle.node_hash(textbook_root(items[:k]), textbook_root(items[k:]))


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=case_name)
def test_published_inclusion_cases(case: dict[str, Any]) -> None:
    proof = [b64(item) for item in case["proof"] or []]
    held = _check_hashed_inclusion(
        b64(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, b64(case["root"])
    )
    assert held is not case["wantErr"]


def _check_hashed_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: list[bytes], root: bytes
) -> bool:
    # The vectors give the leaf's hash, not its data, so hashing the leaf is switched off.
    original = merkle.leaf_hash
    merkle.leaf_hash = lambda data: data
    try:
        merkle.check_inclusion(leaf_hash, index, size, proof, root)
    except VerificationError:
        return False
    finally:
        merkle.leaf_hash = original
    return True


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=case_name)
def test_published_consistency_cases(case: dict[str, Any]) -> None:
    proof = [b64(item) for item in case["proof"] or []]
    try:
        merkle.check_consistency(
            case["size1"], case["size2"], b64(case["root1"]), b64(case["root2"]), proof
        )
        held = True
    except VerificationError:
        held = False
    assert held is not case["wantErr"]


@pytest.mark.parametrize("size", [0, *SIZES])
def test_root_is_the_textbook_root(size: int) -> None:
    assert merkle.root(leaves(size)) == textbook_root(leaves(size))


@pytest.mark.parametrize("size", SIZES)
def test_root_agrees_with_an_independent_library(size: int) -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in leaves(size):
        tree.append_entry(leaf)
    assert merkle.root(leaves(size)) == tree.get_root()


def test_odd_leaf_is_not_duplicated() -> None:
    three = leaves(3)
    assert merkle.root(three) != merkle.root([*three, three[-1]])


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_holds_and_no_other_leaf_does(size: int) -> None:
    items = leaves(size)
    root = merkle.root(items)
    for index in range(size):
        proof = merkle.prove_inclusion(items, index)
        merkle.check_inclusion(items[index], index, size, proof, root)
        for other in range(size):
            if other != index:
                with pytest.raises(VerificationError):
                    merkle.check_inclusion(items[other], index, size, proof, root)
                with pytest.raises(VerificationError):
                    merkle.check_inclusion(items[index], other, size, proof, root)


def test_inclusion_proof_cannot_be_cut_extended_or_reordered() -> None:
    items = leaves(13)
    root = merkle.root(items)
    proof = merkle.prove_inclusion(items, 5)
    for forged in (proof[:-1], (*proof, proof[0]), proof[::-1], ()):
        with pytest.raises(VerificationError):
            merkle.check_inclusion(items[5], 5, 13, forged, root)


def test_an_inner_node_is_not_a_leaf() -> None:
    items = leaves(4)
    inner = merkle.leaf_hash(items[0]) + merkle.leaf_hash(items[1])
    proof = merkle.prove_inclusion(items, 0)[1:]
    with pytest.raises(VerificationError):
        merkle.check_inclusion(inner, 0, 2, proof, merkle.root(items))


@pytest.mark.parametrize("size", SIZES)
def test_every_range_proof_holds_and_a_changed_range_does_not(size: int) -> None:
    items = leaves(size)
    root = merkle.root(items)
    for start in range(size):
        for stop in range(start + 1, size + 1):
            proof = merkle.prove_range(items, start, stop)
            merkle.check_range(items[start:stop], start, size, proof, root)
            changed = [*items[start : stop - 1], b"other"]
            with pytest.raises(VerificationError):
                merkle.check_range(changed, start, size, proof, root)
            if stop - start > 1:
                with pytest.raises(VerificationError):
                    merkle.check_range(items[start : stop - 1], start, size, proof, root)
                with pytest.raises(VerificationError):
                    merkle.check_range(items[start:stop][::-1], start, size, proof, root)


def test_a_range_proof_is_short() -> None:
    items = [i.to_bytes(32, "big") for i in range(1000)]
    assert len(merkle.prove_range(items, 300, 700)) <= 2 * 10


@pytest.mark.parametrize("size", SIZES)
def test_every_consistency_proof_holds_and_none_hides_a_change(size: int) -> None:
    items = leaves(size)
    new_root = merkle.root(items)
    for old in range(1, size + 1):
        proof = merkle.prove_consistency(items, old)
        merkle.check_consistency(old, size, merkle.root(items[:old]), new_root, proof)
        if old < size:
            changed = merkle.root([*items[: old - 1], b"other"])
            with pytest.raises(VerificationError):
                merkle.check_consistency(old, size, changed, new_root, proof)
            with pytest.raises(VerificationError):
                merkle.check_consistency(old, size, merkle.root(items[:old]), new_root, proof[:-1])


@pytest.mark.parametrize("size", [0, *SIZES])
def test_compact_range_grows_to_the_same_root(size: int) -> None:
    log = merkle.CompactRange()
    for leaf in leaves(size):
        log.append(leaf)
    assert (log.size, log.root()) == (size, merkle.root(leaves(size)))
    assert merkle.CompactRange.decode(log.encode()).root() == log.root()


def test_compact_range_refuses_another_number_of_hashes() -> None:
    log = merkle.CompactRange()
    log.append(b"a")
    for broken in (log.encode()[:-1], log.encode() + b"\0", b""):
        with pytest.raises(MalformedError):
            merkle.CompactRange.decode(broken)


def test_a_proof_outside_the_tree_is_the_callers_mistake() -> None:
    with pytest.raises(LocalError):
        merkle.prove_inclusion(leaves(3), 3)
    with pytest.raises(LocalError):
        merkle.prove_range(leaves(3), 2, 2)
    for old in (0, 4):
        with pytest.raises(LocalError):
            merkle.prove_consistency(leaves(3), old)


def test_proofs_of_absurd_length_are_refused() -> None:
    with pytest.raises(VerificationError):
        merkle.check_inclusion(b"x", 0, 2, [b"\0" * 32] * 129, b"\0" * 32)
    with pytest.raises(VerificationError):
        merkle.check_inclusion(b"x", 0, 2, [b"\0" * 31], b"\0" * 32)

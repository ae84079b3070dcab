import json
from pathlib import Path
from typing import Any

import pytest
from eth_typing import BLSSignature
from py_arkworks_bls12381 import G1Point, G2Point
from py_ecc.bls.ciphersuites import G2ProofOfPossession as Oracle

from hookprobe.crypto import bls
from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.errors import LocalError, MalformedError

DATA = Path(__file__).parents[2] / "data/vectors"
POP = json.loads((DATA / "bls_sig_g2_pop_verify_test.json").read_text(encoding="utf-8"))
HASH = json.loads((DATA / "bls_hash_to_g2_test.json").read_text(encoding="utf-8"))
POP_CASES = [
    (group["publicKey"]["pk"], test) for group in POP["testGroups"] for test in group["tests"]
]
HASH_CASES = [(group["dst"], test) for group in HASH["testGroups"] for test in group["tests"]]

scheme = Bls()
signers = [BlsSigner(bytes([i]) * 32) for i in range(4)]
keys = [signer.public_key for signer in signers]
MESSAGE = b"checkpoint"
signatures = [signer.sign(MESSAGE) for signer in signers]
INFINITY_KEY = b"\xc0" + bytes(47)
INFINITY_SIGNATURE = b"\xc0" + bytes(95)


@pytest.mark.parametrize("case", POP_CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_signature_cases(case: tuple[str, dict[str, Any]]) -> None:
    key, test = case
    held = scheme.verify(bytes.fromhex(key), bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    assert held is (test["result"] == "valid")


@pytest.mark.parametrize("case", HASH_CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_hash_to_curve_cases(case: tuple[str, dict[str, Any]]) -> None:
    dst, test = case
    point = G2Point.hash_to_curve(bytes.fromhex(test["msg"]), dst.encode())
    assert point.to_compressed_bytes().hex() == test["expected"]


def test_same_bytes_as_the_reference_implementation() -> None:
    secret = Oracle.KeyGen(b"\1" * 32)
    assert bls.derive_secret(b"\1" * 32) == secret
    assert bytes(Oracle.SkToPk(secret)) == keys[1]
    assert bytes(Oracle.Sign(secret, MESSAGE)) == signatures[1]
    assert bytes(Oracle.PopProve(secret)) == signers[1].prove_possession()
    assert bytes(
        Oracle.Aggregate([BLSSignature(item) for item in signatures[:2]])
    ) == scheme.aggregate(signatures[:2])


def test_aggregate_stands_for_exactly_its_signers() -> None:
    total = scheme.aggregate(signatures)
    assert scheme.verify_aggregate(keys, MESSAGE, total)
    assert not scheme.verify_aggregate(keys[:3], MESSAGE, total)
    assert not scheme.verify_aggregate(keys, b"other", total)
    three = scheme.aggregate(signatures[:3])
    assert scheme.verify_aggregate(keys[:3], MESSAGE, three)
    assert not scheme.verify_aggregate(keys, MESSAGE, three)
    assert not scheme.verify_aggregate(keys[1:], MESSAGE, three)


def test_a_signer_counts_once() -> None:
    doubled = scheme.aggregate([signatures[0], signatures[0], signatures[1]])
    assert not scheme.verify_aggregate([keys[0], keys[0], keys[1]], MESSAGE, doubled)


def test_rogue_key_needs_a_proof_of_possession_it_cannot_have() -> None:
    # rogue = x*G - sum(honest): with it one attacker signature verifies as everybody's.
    attacker = BlsSigner(b"\x77" * 32)
    point = G1Point.from_compressed_bytes(attacker.public_key)
    for key in keys[:3]:
        point = point - G1Point.from_compressed_bytes(key)
    rogue = point.to_compressed_bytes()
    assert scheme.verify_aggregate([*keys[:3], rogue], MESSAGE, attacker.sign(MESSAGE))
    assert not scheme.check_key(rogue, attacker.prove_possession())
    assert not scheme.check_key(rogue, attacker.sign(rogue))


def test_possession_proof_is_bound_to_its_key_and_purpose() -> None:
    assert scheme.check_key(keys[0], signers[0].prove_possession())
    assert not scheme.check_key(keys[0], signers[1].prove_possession())
    assert not scheme.check_key(keys[0], signers[0].sign(keys[0]))
    assert not scheme.verify(keys[0], keys[0], signers[0].prove_possession())


def test_infinity_signs_nothing() -> None:
    assert not scheme.verify(INFINITY_KEY, MESSAGE, INFINITY_SIGNATURE)
    assert not scheme.verify_aggregate([INFINITY_KEY], MESSAGE, INFINITY_SIGNATURE)
    assert not scheme.check_key(INFINITY_KEY, INFINITY_SIGNATURE)
    with pytest.raises(MalformedError):
        scheme.aggregate([INFINITY_SIGNATURE])


def test_keys_that_cancel_sign_nothing() -> None:
    point = G1Point.from_compressed_bytes(keys[0])
    negative = (-point).to_compressed_bytes()
    assert not scheme.verify_aggregate([keys[0], negative], MESSAGE, INFINITY_SIGNATURE)


def test_non_canonical_infinity_is_refused() -> None:
    for first in (0xC0, 0xE0):
        for tail in (b"\1", b"\0"):
            key = bytes([first]) + bytes(46) + tail
            assert not scheme.verify(key, MESSAGE, signatures[0])


def test_empty_aggregates_are_refused() -> None:
    with pytest.raises(MalformedError):
        scheme.aggregate([])
    assert not scheme.verify_aggregate([], MESSAGE, INFINITY_SIGNATURE)


def test_wrong_lengths_and_non_points_are_refused_not_raised() -> None:
    for bad in (b"", keys[0][:-1], keys[0] + b"\0", bytes(48), b"\xff" * 48):
        assert not scheme.verify(bad, MESSAGE, signatures[0])
        assert not scheme.check_key(bad, signatures[0])
        assert not scheme.verify_aggregate([bad], MESSAGE, signatures[0])
    for bad in (b"", signatures[0][:-1], signatures[0] + b"\0", bytes(96), b"\xff" * 96):
        assert not scheme.verify(keys[0], MESSAGE, bad)
        with pytest.raises(MalformedError):
            scheme.aggregate([signatures[0], bad])


def test_a_point_outside_the_subgroup_is_refused() -> None:
    # Search x until a curve point that is not of order r appears (there are ~2^125 per good one).
    for x in range(1, 200):
        encoded = bytearray(x.to_bytes(48, "big"))
        encoded[0] |= 0x80
        try:
            point = G1Point.from_compressed_bytes_unchecked(bytes(encoded))
        except ValueError:
            continue
        if not point.is_in_subgroup():
            assert not scheme.check_key(bytes(encoded), signatures[0])
            assert not scheme.verify(bytes(encoded), MESSAGE, signatures[0])
            return
    pytest.fail("no point outside the subgroup found")


def test_short_seeds_are_refused() -> None:
    with pytest.raises(LocalError):
        BlsSigner(b"\1" * 31)

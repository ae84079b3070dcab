"""The stand-alone verifier's own mathematics against published vectors and other libraries."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from py_arkworks_bls12381 import G1Point, G2Point
from py_ecc.bls.hash_to_curve import map_to_curve_G2
from py_ecc.fields import optimized_bls12_381_FQ2 as FQ2
from py_ecc.optimized_bls12_381 import constants
from py_ecc.optimized_bls12_381.optimized_curve import normalize
from tools import verify_bundle as tool

from hookprobe.crypto import merkle
from hookprobe.crypto.bls import POSSESSION_DST, SIGNATURE_DST, Bls, BlsSigner
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.errors import VerificationError

VECTORS = Path(__file__).parents[2] / "data/vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / name).read_text(encoding="utf-8"))[
        "testGroups"
    ]
    return found


POP_CASES = [
    (group["publicKey"]["pk"], test)
    for group in vectors("bls_sig_g2_pop_verify_test.json")
    for test in group["tests"]
]
HASH_CASES = [
    (group["dst"], test) for group in vectors("bls_hash_to_g2_test.json") for test in group["tests"]
]
ED_CASES = [
    (group["publicKey"]["pk"], test)
    for group in vectors("ed25519_test.json")
    for test in group["tests"]
]
signers = [BlsSigner(bytes([place]) * 32) for place in range(3)]
MESSAGE = b"checkpoint"


def compressed(point: tool.Point) -> bytes:
    """Write a point of G2 the way signatures are written."""
    assert point is not None
    (x0, x1), y = point
    larger = (y[1], y[0]) > (-y[1] % tool.P, -y[0] % tool.P)
    return ((0b101 if larger else 0b100) << 765 | x1 << 384 | x0).to_bytes(96, "big")


def test_constants_follow_from_the_curve_parameter() -> None:
    assert FQ2.field_modulus == tool.P
    order = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
    assert order == tool.R
    assert 3 * (tool.X**2 - 1) * tool.COFACTOR == constants.H_EFF_G2
    generator = G1Point().to_compressed_bytes()
    minus = (-G1Point()).to_compressed_bytes()
    assert tool.decompress(minus, tool.G1_B) == tool.MINUS_G1
    assert tool.add(tool.MINUS_G1, tool.decompress(generator, tool.G1_B)) is None


def test_the_isogeny_is_the_published_one() -> None:
    # RFC 9380 lists polynomials; the tool uses their closed form.
    numbers = random.Random(1)
    for _ in range(5):
        t = (numbers.randrange(tool.P), numbers.randrange(tool.P))
        x, y = normalize(map_to_curve_G2(FQ2(t)))
        assert tool.map_to_curve(t) == (x.coeffs, y.coeffs)


@pytest.mark.parametrize("case", HASH_CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_hash_to_curve_cases(case: tuple[str, dict[str, Any]]) -> None:
    dst, test = case
    point = tool.hash_to_g2(bytes.fromhex(test["msg"]), dst.encode())
    assert compressed(point).hex() == test["expected"]


@pytest.mark.slow
@pytest.mark.parametrize("case", POP_CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_signature_cases(case: tuple[str, dict[str, Any]]) -> None:
    key, test = case
    point = tool.decompress(bytes.fromhex(key), tool.G1_B)
    signature = bytes.fromhex(test["sig"])
    held = len(signature) == 96 and tool.bls_holds(
        point, bytes.fromhex(test["msg"]), SIGNATURE_DST, signature
    )
    assert held is (test["result"] == "valid")


@pytest.mark.slow
def test_aggregates_hold_for_exactly_their_signers() -> None:
    keys = [tool.decompress(signer.public_key, tool.G1_B) for signer in signers]
    two = Bls().aggregate([signer.sign(MESSAGE) for signer in signers[:2]])
    pair = tool.add(keys[0], keys[1])
    assert tool.bls_holds(pair, MESSAGE, SIGNATURE_DST, two)
    assert not tool.bls_holds(tool.add(pair, keys[2]), MESSAGE, SIGNATURE_DST, two)
    assert not tool.bls_holds(keys[0], MESSAGE, SIGNATURE_DST, two)
    assert not tool.bls_holds(pair, b"else", SIGNATURE_DST, two)
    assert not tool.bls_holds(pair, MESSAGE, POSSESSION_DST, two)
    assert not tool.bls_holds(None, MESSAGE, SIGNATURE_DST, two)


@pytest.mark.slow
def test_possession_is_bound_to_key_and_purpose() -> None:
    key, proof = signers[0].public_key, signers[0].prove_possession()
    point = tool.decompress(key, tool.G1_B)
    assert tool.bls_holds(point, key, POSSESSION_DST, proof)
    assert not tool.bls_holds(point, key, POSSESSION_DST, signers[1].prove_possession())
    assert not tool.bls_holds(point, key, POSSESSION_DST, signers[0].sign(key))


def test_points_in_any_but_their_one_form_are_refused() -> None:
    key, signature = signers[0].public_key, signers[0].sign(MESSAGE)
    for data, b in ((key, tool.G1_B), (signature, tool.G2_B)):
        assert tool.decompress(data, b) is not None
        number = int.from_bytes(data, "big")
        top = 8 * len(data)
        for flags in (0b000, 0b001, 0b010, 0b011, 0b110, 0b111):
            changed = number % 2 ** (top - 3) | flags << (top - 3)
            assert tool.decompress(changed.to_bytes(len(data), "big"), b) is None
        infinity = b"\xc0" + bytes(len(data) - 1)
        assert tool.decompress(infinity, b) is None
        # x + P is the same number, written otherwise; where it still fits below the flags.
        last = int.from_bytes(data[-48:], "big")
        if len(data) == 96 and last + tool.P < 2**384:
            assert tool.decompress(data[:48] + (last + tool.P).to_bytes(48, "big"), b) is None


def test_points_outside_the_subgroup_are_refused() -> None:
    refused = 0
    for x in range(1, 30):
        for size, b, kind in ((48, tool.G1_B, G1Point), (96, tool.G2_B, G2Point)):
            data = (x | 0b100 << (8 * size - 3)).to_bytes(size, "big")
            try:
                inside = kind.from_compressed_bytes_unchecked(data).is_in_subgroup()
            except ValueError:
                inside = False
            else:
                refused += not inside
            assert (tool.decompress(data, b) is not None) is inside
    assert refused > 10


@pytest.mark.parametrize("case", ED_CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_ed25519_cases(case: tuple[str, dict[str, Any]]) -> None:
    key, message = bytes.fromhex(case[0]), bytes.fromhex(case[1]["msg"])
    signature = bytes.fromhex(case[1]["sig"])
    held = len(signature) == 64 and tool.ed25519_holds(key, message, signature)
    assert held is (case[1]["result"] == "valid")
    assert held is Ed25519().verify(key, message, signature)


SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_keys_of_small_order_sign_nothing(key: str) -> None:
    # Under the neutral key, S = 0 and R = the neutral point satisfy the equation for any message.
    for r in SMALL_ORDER[:4]:
        signature = bytes.fromhex(r) + bytes(32)
        assert not tool.ed25519_holds(bytes.fromhex(key), MESSAGE, signature)
        assert not Ed25519().verify(bytes.fromhex(key), MESSAGE, signature)


@pytest.mark.parametrize("key", SMALL_ORDER[:8])
def test_keys_of_small_order_sign_nothing_by_chance_either(key: str) -> None:
    # Where k is a multiple of 8, [k]A vanishes and S = r satisfies the equation.
    public = bytes.fromhex(key)
    found = 0
    for nonce in range(2, 40):
        r = tool.ed_encode(tool.ed_times(nonce, tool.BASE))
        hashed = hashlib.sha512(r + public + MESSAGE).digest()
        found += int.from_bytes(hashed, "little") % tool.L % 8 == 0
        signature = r + nonce.to_bytes(32, "little")
        assert not tool.ed25519_holds(public, MESSAGE, signature)
        assert not Ed25519().verify(public, MESSAGE, signature)
    assert found


def test_commitments_of_small_order_and_large_scalars_are_refused() -> None:
    signer = Ed25519Signer(b"\1" * 32)
    signature = signer.sign(MESSAGE)
    assert tool.ed25519_holds(signer.public_key, MESSAGE, signature)
    scalar = int.from_bytes(signature[32:], "little") + tool.L
    larger = signature[:32] + scalar.to_bytes(32, "little")
    assert not tool.ed25519_holds(signer.public_key, MESSAGE, larger)
    # R neutral and S = k*a satisfy the equation, and say nothing about who knows what.
    seed = hashlib.sha512(b"\1" * 32).digest()
    secret = int.from_bytes(seed[:32], "little") & (2**254 - 8) | 2**254
    neutral = bytes.fromhex(SMALL_ORDER[0])
    hashed = hashlib.sha512(neutral + signer.public_key + MESSAGE).digest()
    forged = neutral + (int.from_bytes(hashed, "little") * secret % tool.L).to_bytes(32, "little")
    assert not tool.ed25519_holds(signer.public_key, MESSAGE, forged)
    assert not Ed25519().verify(signer.public_key, MESSAGE, forged)


def test_keys_with_a_part_of_small_order_are_judged_alike() -> None:
    # A + T with T of order 8: whether a signature holds depends on k mod 8; both must agree.
    torsion = tool.ed_decode(bytes.fromhex(SMALL_ORDER[6]))
    own = tool.ed_decode(Ed25519Signer(b"\1" * 32).public_key)
    assert torsion is not None
    assert own is not None
    mixed = tool.ed_encode(tool.ed_add(own, torsion))
    seed = hashlib.sha512(b"\1" * 32).digest()
    secret = int.from_bytes(seed[:32], "little") & (2**254 - 8) | 2**254
    answers = []
    for nonce in range(2, 34):
        r = tool.ed_encode(tool.ed_times(nonce, tool.BASE))
        k = int.from_bytes(hashlib.sha512(r + mixed + MESSAGE).digest(), "little") % tool.L
        signature = r + ((nonce + k * secret) % tool.L).to_bytes(32, "little")
        answers.append(tool.ed25519_holds(mixed, MESSAGE, signature))
        assert answers[-1] is Ed25519().verify(mixed, MESSAGE, signature)
    assert True in answers
    assert False in answers


def test_range_proofs_agree_with_the_product() -> None:
    numbers = random.Random(7)
    leaves = [bytes([place]) * 32 for place in range(20)]
    for size in range(1, 20):
        root = merkle.root(leaves[:size])
        for start in range(size):
            for stop in range(start + 1, size + 1):
                proof = list(merkle.prove_range(leaves[:size], start, stop))
                ids = leaves[start:stop]
                tool.check_range(ids, start, size, proof, root)
                wrong = (numbers.randrange(size + 1), numbers.randrange(1, 24))
                assert tool_takes(ids, wrong, proof, root) is product_takes(ids, wrong, proof, root)
                with pytest.raises(tool.BundleError):
                    tool.check_range(ids, start, size, [*proof, root], root)


def tool_takes(ids: list[bytes], place: tuple[int, int], proof: list[bytes], root: bytes) -> bool:
    try:
        tool.check_range(ids, *place, proof, root)
    except tool.BundleError:
        return False
    return True


def product_takes(
    ids: list[bytes], place: tuple[int, int], proof: list[bytes], root: bytes
) -> bool:
    try:
        merkle.check_range(ids, *place, proof, root)
    except VerificationError:
        return False
    return True


def test_points_with_a_second_spelling_are_refused() -> None:
    # y + Q is the same number and fits into 255 bits for y < 19 only.
    points = 0
    for y in range(19):
        points += tool.ed_decode(y.to_bytes(32, "little")) is not None
        assert tool.ed_decode((y + tool.Q).to_bytes(32, "little")) is None
    assert points > 5

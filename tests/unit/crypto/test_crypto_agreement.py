"""X25519, ML-KEM-768 and HKDF: vectors, and no library exception gets out."""

import json
from pathlib import Path
from typing import Any

import pytest

from hookprobe.crypto.agreement import (
    KEM_CIPHERTEXT_BYTES,
    KEM_PUBLIC_BYTES,
    AgreementKey,
    MlKem,
    hkdf_expand,
    hkdf_extract,
)
from hookprobe.errors import MalformedError, VerificationError

FOLDER = Path("tests/data/wycheproof")

# The points of order 1, 2, 4 and 8, and their non-canonical forms (RFC 7748 section 6.1;
# curve25519 "may the fourth" list of Bernstein).
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def vectors(name: str) -> list[dict[str, Any]]:
    groups = json.loads((FOLDER / f"{name}_test.json").read_text())["testGroups"]
    return [test for group in groups for test in group["tests"]]


def test_x25519_agrees_with_wycheproof_and_refuses_zero_secrets() -> None:
    refused = agreed = 0
    for case in vectors("x25519"):
        key = AgreementKey(bytes.fromhex(case["private"]))
        if "ZeroSharedSecret" in case["flags"]:
            with pytest.raises(VerificationError):
                key.exchange(bytes.fromhex(case["public"]))
            refused += 1
        else:
            assert key.exchange(bytes.fromhex(case["public"])).hex() == case["shared"]
            agreed += 1
    assert (refused, agreed) >= (10, 200)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_are_refused(point: str) -> None:
    with pytest.raises(VerificationError):
        AgreementKey(b"k" * 32).exchange(bytes.fromhex(point))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_x25519_keys_of_another_length_are_malformed(size: int) -> None:
    with pytest.raises(MalformedError):
        AgreementKey(b"k" * 32).exchange(b"9" * size)


def test_hkdf_expand_agrees_with_wycheproof() -> None:
    checked = 0
    for case in vectors("hkdf_sha256"):
        if case["result"] != "valid":
            continue
        prk = hkdf_extract(bytes.fromhex(case["salt"]), bytes.fromhex(case["ikm"]))
        okm = hkdf_expand(prk, bytes.fromhex(case["info"]), case["size"])
        assert okm.hex() == case["okm"], case["tcId"]
        checked += 1
    assert checked >= 40


def test_hkdf_expand_has_its_limit() -> None:
    assert len(hkdf_expand(b"k" * 32, b"", 255 * 32)) == 255 * 32
    with pytest.raises(AssertionError):
        hkdf_expand(b"k" * 32, b"", 255 * 32 + 1)


def test_kem_round_trip_and_repeatable_key() -> None:
    kem = MlKem()
    key = kem.generate(b"s" * 64)
    assert kem.generate(b"s" * 64).public_key == key.public_key
    secret, ciphertext = kem.encapsulate(key.public_key)
    assert (len(key.public_key), len(ciphertext)) == (KEM_PUBLIC_BYTES, KEM_CIPHERTEXT_BYTES)
    assert key.decapsulate(ciphertext) == secret
    assert kem.generate(b"t" * 64).decapsulate(ciphertext) != secret


@pytest.mark.parametrize("public", [b"", b"\xff" * KEM_PUBLIC_BYTES, bytes(KEM_PUBLIC_BYTES - 1)])
def test_a_malformed_kem_key_is_refused(public: bytes) -> None:
    with pytest.raises(MalformedError):
        MlKem().encapsulate(public)


@pytest.mark.parametrize("size", [0, KEM_CIPHERTEXT_BYTES - 1, KEM_CIPHERTEXT_BYTES + 1])
def test_a_malformed_kem_ciphertext_is_refused(size: int) -> None:
    with pytest.raises(MalformedError):
        MlKem().generate(b"s" * 64).decapsulate(bytes(size))


def test_a_changed_kem_ciphertext_gives_an_unrelated_secret() -> None:
    # FIPS 203 rejects implicitly: no error that an attacker could watch, just another secret.
    kem = MlKem()
    key = kem.generate(b"s" * 64)
    secret, ciphertext = kem.encapsulate(key.public_key)
    assert key.decapsulate(bytes((ciphertext[0] ^ 1,)) + ciphertext[1:]) != secret

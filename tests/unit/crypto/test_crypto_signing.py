import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.errors import LocalError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data/vectors/ed25519_test.json").read_text(encoding="utf-8")
)
CASES = [
    (group["publicKey"]["pk"], test) for group in VECTORS["testGroups"] for test in group["tests"]
]
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER_Y = [
    0,
    1,
    P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303021957,
    55188659117513257062467267217118295137698188065244968500265048394206261417992,
]

scheme = Ed25519()
signer = Ed25519Signer(b"\1" * 32)
signature = signer.sign(b"message")


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[1]["tcId"]))
def test_published_cases(case: tuple[str, dict[str, Any]]) -> None:
    key, test = case
    held = scheme.verify(bytes.fromhex(key), bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    assert held is (test["result"] == "valid")


def test_sign_then_verify() -> None:
    assert scheme.verify(signer.public_key, b"message", signature)


def test_other_message_and_other_key() -> None:
    assert not scheme.verify(signer.public_key, b"Message", signature)
    assert not scheme.verify(Ed25519Signer(b"\2" * 32).public_key, b"message", signature)


def test_every_flipped_bit_of_the_signature_is_refused() -> None:
    for bit in range(512):
        forged = bytearray(signature)
        forged[bit // 8] ^= 1 << (bit % 8)
        assert not scheme.verify(signer.public_key, b"message", bytes(forged))


def test_wrong_lengths_are_refused_not_raised() -> None:
    for cut in (b"", signature[:-1], signature + b"\0"):
        assert not scheme.verify(signer.public_key, b"message", cut)
    for key in (b"", signer.public_key[:-1], signer.public_key + b"\0"):
        assert not scheme.verify(key, b"message", signature)


def test_scalar_above_the_group_order_is_refused() -> None:
    scalar = int.from_bytes(signature[32:], "little") + L
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    assert not scheme.verify(signer.public_key, b"message", malleable)


@pytest.mark.parametrize("y", SMALL_ORDER_Y)
@pytest.mark.parametrize("sign_bit", [0, 1])
def test_small_order_keys_sign_nothing(y: int, sign_bit: int) -> None:
    # With A of small order, R = [S]B - [k]A hits R = [S]B for one message in eight: such a "key"
    # would sign almost anything. 64 messages make a lucky pass of a lax verifier certain.
    for shift in (0, P):
        if y + shift >= 2**255:
            continue
        key = (y + shift | sign_bit << 255).to_bytes(32, "little")
        base = b"\x58" + b"\x66" * 31  # the base point B, so S = 1 and R = B
        forged = base + (1).to_bytes(32, "little")
        assert not any(scheme.verify(key, bytes([i]), forged) for i in range(64))


@pytest.mark.parametrize("y", SMALL_ORDER_Y)
def test_small_order_r_is_refused(y: int) -> None:
    # R of small order with S = k*a verifies under cofactored rules.
    key_hash = hashlib.sha512(b"\1" * 32).digest()
    a = int.from_bytes(key_hash[:32], "little") & ((1 << 254) - 8) | 1 << 254
    r = y.to_bytes(32, "little")
    for i in range(32):
        message = bytes([i])
        k = int.from_bytes(hashlib.sha512(r + signer.public_key + message).digest(), "little")
        s = (k * a) % L
        assert not scheme.verify(signer.public_key, message, r + s.to_bytes(32, "little"))


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(LocalError):
        Ed25519Signer(b"short")


def test_labels_separate() -> None:
    from hookprobe.crypto.digest import digest
    from hookprobe.crypto.domains import Domain

    assert digest(Domain.CUT, b"x") == hashlib.sha256(b"hookprobe/dsm/cut/v1\0x").digest()
    found = [digest(domain, b"x") for domain in Domain]
    assert len(dict.fromkeys(found)) == len(found)

"""ChaCha20-Poly1305 with counters: vectors, binding, and nonces that cannot repeat."""

import json
from pathlib import Path
from typing import Any

import pytest

from hookprobe.crypto.sealing import COUNTER_MAX, CipherCache, OpeningKey, SealingKey
from hookprobe.errors import LimitExceededError, VerificationError

VECTORS = Path("tests/data/wycheproof/chacha20_poly1305_test.json")
KEY, SALT = bytes(range(32)), b"salt"


def keys() -> tuple[SealingKey, OpeningKey]:
    ciphers = CipherCache(8)
    return SealingKey(KEY, SALT, ciphers), OpeningKey(KEY, SALT, ciphers)


def wycheproof() -> list[dict[str, Any]]:
    groups = json.loads(VECTORS.read_text())["testGroups"]
    return [
        {
            name: value if name in {"tcId", "result"} else bytes.fromhex(value)
            for name, value in test.items()
            if name not in {"comment", "flags"}
        }
        for group in groups
        if group["ivSize"] == 96
        for test in group["tests"]
    ]


def test_wycheproof_vectors_open_exactly_when_valid() -> None:
    cases = wycheproof()
    assert len(cases) > 140
    for case in cases:
        iv = case["iv"]
        opening = OpeningKey(case["key"], iv[:4], CipherCache(1))
        arguments = (int.from_bytes(iv[4:]), case["ct"] + case["tag"], case["aad"])
        if case["result"] == "valid":
            assert opening.open(*arguments) == case["msg"], case["tcId"]
        else:
            with pytest.raises(VerificationError):
                opening.open(*arguments)


@pytest.mark.parametrize("change", ["counter", "associated", "first", "last", "short", "empty"])
def test_anything_changed_does_not_open(change: str) -> None:
    sealing, opening = keys()
    sealed = sealing.seal(0, b"text", b"header")
    assert opening.open(0, sealed, b"header") == b"text"
    changed = {
        "counter": (1, sealed, b"header"),
        "associated": (0, sealed, b"headeR"),
        "first": (0, bytes((sealed[0] ^ 1,)) + sealed[1:], b"header"),
        "last": (0, sealed[:-1] + bytes((sealed[-1] ^ 1,)), b"header"),
        "short": (0, sealed[:-1], b"header"),
        "empty": (0, b"", b"header"),
    }[change]
    with pytest.raises(VerificationError):
        opening.open(*changed)


def test_another_salt_does_not_open() -> None:
    sealing, _ = keys()
    sealed = sealing.seal(0, b"text", b"")
    with pytest.raises(VerificationError):
        OpeningKey(KEY, b"SALT", CipherCache(1)).open(0, sealed, b"")


@pytest.mark.parametrize("counter", [0, 2])
def test_a_counter_cannot_be_repeated_or_skipped(counter: int) -> None:
    sealing, _ = keys()
    sealing.seal(0, b"one", b"")
    with pytest.raises(AssertionError):
        sealing.seal(counter, b"two", b"")


def test_the_last_counter_ends_the_key() -> None:
    sealing, _ = keys()
    sealing.counter = COUNTER_MAX - 1
    sealing.seal(COUNTER_MAX - 1, b"", b"")
    with pytest.raises(LimitExceededError):
        sealing.seal(COUNTER_MAX, b"", b"")


def test_the_cache_is_bounded_and_forgets() -> None:
    ciphers = CipherCache(2)
    first = ciphers.get(bytes(32))
    assert ciphers.get(bytes(32)) is first
    ciphers.get(b"1" * 32)
    ciphers.get(b"2" * 32)
    assert len(ciphers) == 2
    assert ciphers.get(bytes(32)) is not first
    SealingKey(bytes(32), SALT, ciphers).forget()
    OpeningKey(b"2" * 32, SALT, ciphers).forget()
    assert len(ciphers) == 0

"""Safes: they open with their key and nothing else, whole and unchanged."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hookprobe.crypto.safe import (
    SAFE_MAX_BYTES,
    Passphrase,
    Recipient,
    RecipientSecret,
    lock,
    read_about,
    unlock,
)
from hookprobe.errors import LocalError, MalformedError, RemoteError, VerificationError
from hookprobe.wire.canonical import JsonObject

SALT = bytes(range(16))
PHRASE = Passphrase("correct horse battery")
SECRET = RecipientSecret(bytes(range(96)))
ABOUT: JsonObject = {"chain": "ab", "node": "validator-1"}
CONTENT = b"what nobody else may read" * 40


@pytest.fixture(params=["passphrase", "recipient"], name="locked")
def _locked(request: pytest.FixtureRequest) -> tuple[bytes, Passphrase | RecipientSecret]:
    if request.param == "passphrase":
        return lock(CONTENT, ABOUT, PHRASE, SALT), PHRASE
    return lock(CONTENT, ABOUT, SECRET.recipient(), SALT), SECRET


def test_it_opens_with_its_key(locked: tuple[bytes, Passphrase | RecipientSecret]) -> None:
    data, key = locked
    assert unlock(data, key) == (ABOUT, CONTENT)
    assert read_about(data)[0] == ABOUT
    assert CONTENT[:8] not in data


def test_another_key_does_not_open_it(locked: tuple[bytes, Passphrase | RecipientSecret]) -> None:
    data, _ = locked
    for wrong in (Passphrase("correct horse batterz"), RecipientSecret(bytes(96))):
        with pytest.raises(VerificationError):
            unlock(data, wrong)


def test_no_changed_or_missing_byte_passes(
    locked: tuple[bytes, Passphrase | RecipientSecret],
) -> None:
    data, key = locked
    head = data.index(b"}\n") + 2
    for at in (0, 20, head - 12, head, head + 1, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(RemoteError):
            unlock(bytes(changed), key)
    for end in (0, 10, head - 1, head, head + 15, len(data) - 1):
        with pytest.raises(RemoteError):
            unlock(data[:end], key)
    with pytest.raises(RemoteError):
        unlock(data + b"\0", key)


def test_what_it_is_about_is_part_of_the_lock(
    locked: tuple[bytes, Passphrase | RecipientSecret],
) -> None:
    data, key = locked
    with pytest.raises(VerificationError):
        unlock(data.replace(b"validator-1", b"validator-2"), key)


def test_the_key_is_scrypt_with_the_stated_cost() -> None:
    data = lock(CONTENT, ABOUT, PHRASE, SALT)
    head = data.index(b"}\n") + 2
    key = Scrypt(SALT, 32, 1 << 16, 8, 1).derive(PHRASE.text.encode())
    assert ChaCha20Poly1305(key).decrypt(bytes(12), data[head:], data[:head]) == CONTENT


def test_every_recipient_safe_is_sealed_anew() -> None:
    one, other = (lock(CONTENT, ABOUT, SECRET.recipient(), SALT) for _ in range(2))
    assert one != other


def test_weak_and_wrong_keys_are_refused() -> None:
    for key in (Passphrase("short"), Recipient(b"x"), Recipient(b"\xff" * 1216)):
        with pytest.raises(LocalError):
            lock(CONTENT, ABOUT, key, SALT)
    with pytest.raises(LocalError):
        lock(bytes(SAFE_MAX_BYTES + 1), ABOUT, PHRASE, SALT)
    assert "horse" not in repr(PHRASE)
    assert "000102" not in repr(SECRET).replace("\\x", "")


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b'{"about":{},"lock":"none","salt":"%s","type":"S","v":1}' % (b"00" * 16),
        b'{"about":{},"lock":"passphrase","n":1,"salt":"%s","type":"S","v":1}' % (b"00" * 16),
        b'{"about":{},"lock":"passphrase","salt":"00","type":"S","v":1}',
        b"x" * 5000,
    ],
)
def test_other_headers_are_refused(header: bytes) -> None:
    with pytest.raises((MalformedError, RemoteError)):
        unlock(b"hookprobe-safe\n" + header + b"\n" + bytes(40), PHRASE)

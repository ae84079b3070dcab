"""A safe: secrets in one file, opened by a passphrase or by the holder of a recipient's secret.

    "hookprobe-safe" LF header LF sealed bytes

The header is canonical JSON, says what the safe is about and how it is locked, and is authenticated
with the content:

* `passphrase`: key = scrypt(passphrase, salt, N = 65536, r = 8, p = 1), RFC 7914; sealed with
  ChaCha20-Poly1305, the nonce zero since every salt makes another key.
* `recipient`: HPKE (RFC 9180) with ML-KEM-768 and X25519 together, HKDF-SHA256, ChaCha20-Poly1305;
  the header is the `info`. A backup is kept for years, so it must outlast quantum computers.

The cost of a guess is 64 MiB of memory and about a fifth of a second; a passphrase below
`PASSPHRASE_MIN` characters is refused all the same.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from hookprobe.errors import LocalError, MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields

PASSPHRASE_MIN = 12
SALT_BYTES = 16
SECRET_BYTES = 64 + 32  # ML-KEM-768 seed, X25519 seed
RECIPIENT_BYTES = 1184 + 32
SAFE_MAX_BYTES = 64 << 20
HEADER_MAX_BYTES = 4096
_MAGIC = b"hookprobe-safe\n"
_SCRYPT = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 96 << 20, "dklen": 32}
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True, repr=False)
class Passphrase:
    """What opens and locks by something one remembers."""

    text: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who may open; 1,216 bytes: ML-KEM-768 and X25519 public keys."""

    public: bytes


@dataclass(frozen=True, slots=True, repr=False)
class RecipientSecret:
    """The other half of a `Recipient`; 96 bytes: seeds of both keys."""

    seeds: bytes

    def recipient(self) -> Recipient:
        lattice, curve = _private(self.seeds)
        return Recipient(
            lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        )


def lock(content: bytes, about: JsonObject, key: Passphrase | Recipient, salt: bytes) -> bytes:
    """Put content into a safe.

    Args:
        content: The secrets.
        about: What the safe says of itself without being opened.
        key: Who may open it.
        salt: 16 random bytes.

    Raises:
        LocalError: The passphrase is too short, or the recipient is none.
    """
    if len(content) > SAFE_MAX_BYTES:
        raise LocalError(f"safe: {len(content)} bytes, {SAFE_MAX_BYTES} are the most")
    if isinstance(key, Passphrase):
        if len(key.text) < PASSPHRASE_MIN:
            raise LocalError(f"safe: a passphrase has {PASSPHRASE_MIN} characters or more")
        header = _head(about, {"lock": "passphrase", "salt": salt.hex()})
        cipher = ChaCha20Poly1305(_stretch(key, salt))
        return header + cipher.encrypt(_NONCE, content, header)
    header = _head(about, {"lock": "recipient", "salt": salt.hex()})
    return header + _suite().encrypt(content, _public(key), header)


def _head(about: JsonObject, how: JsonObject) -> bytes:
    return _MAGIC + canonical.encode({"about": about, "type": "S", "v": 1, **how}) + b"\n"


def read_about(data: bytes) -> tuple[JsonObject, str]:
    """Return what a safe says of itself, not yet proven, and how it is locked.

    Raises:
        MalformedError: Not a safe.
    """
    about, how, _, _ = _parse(data)
    return about, how


def unlock(data: bytes, key: Passphrase | RecipientSecret) -> tuple[JsonObject, bytes]:
    """Return what a safe is about and its content, both proven.

    Raises:
        MalformedError: Not a safe.
        VerificationError: Another key, or the safe was changed.
    """
    about, how, salt, header = _parse(data)
    sealed = data[len(header) :]
    if isinstance(key, Passphrase) is not (how == "passphrase"):
        raise VerificationError(f"safe: it is locked with a {how}")
    try:
        if isinstance(key, Passphrase):
            cipher = ChaCha20Poly1305(_stretch(key, salt))
            return about, cipher.decrypt(_NONCE, sealed, header)
        private = MLKEM768X25519PrivateKey(*_private(key.seeds))
        return about, _suite().decrypt(sealed, private, header)
    except (InvalidTag, ValueError) as error:
        raise VerificationError(
            "safe: it does not open", hint=f"another {how}, or the file was changed or cut short"
        ) from error


def _parse(data: bytes) -> tuple[JsonObject, str, bytes, bytes]:
    if not data.startswith(_MAGIC):
        raise MalformedError("safe: not one")
    end = data.find(b"\n", len(_MAGIC), len(_MAGIC) + HEADER_MAX_BYTES)
    if end < 0:
        raise MalformedError("safe: its header is cut short")
    document = canonical.decode_object(data[len(_MAGIC) : end], limit=HEADER_MAX_BYTES)
    fields = Fields(document, "safe")
    fields.literal("type", "S")
    fields.literal("v", 1)
    about, how, salt = fields.object("about"), fields.text("lock"), fields.hex("salt", SALT_BYTES)
    fields.finish()
    if how not in {"passphrase", "recipient"}:
        raise MalformedError(f"safe: locked in an unknown way, {how[:20]!r}")
    return about, how, salt, data[: end + 1]


def _stretch(key: Passphrase, salt: bytes) -> bytes:
    return hashlib.scrypt(key.text.encode(), salt=salt, **_SCRYPT)


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _private(seeds: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(seeds) != SECRET_BYTES:
        raise LocalError(f"recipient's secret of {len(seeds)} bytes, {SECRET_BYTES} are wanted")
    return (
        MLKEM768PrivateKey.from_seed_bytes(seeds[:64]),
        X25519PrivateKey.from_private_bytes(seeds[64:]),
    )


def _public(recipient: Recipient) -> MLKEM768X25519PublicKey:
    if len(recipient.public) != RECIPIENT_BYTES:
        raise LocalError(f"recipient of {len(recipient.public)} bytes, {RECIPIENT_BYTES} wanted")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(recipient.public[:1184]),
            X25519PublicKey.from_public_bytes(recipient.public[1184:]),
        )
    except ValueError as error:
        raise LocalError("recipient: not a public key") from error

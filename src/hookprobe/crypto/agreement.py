"""Agreeing on a secret: X25519 (RFC 7748), ML-KEM-768 (FIPS 203), HKDF (RFC 5869).

Rules:
* A peer's public value that is malformed or of low order raises `MalformedError` or
  `VerificationError`; no exception type of the library below gets out.
* X25519 is libsodium's, whose multiplication of the base point takes half the time of OpenSSL's; an
  answering end makes an ephemeral key for every handshake.
* Private values are made from bytes given by the caller, so the caller owns the randomness. The one
  exception is ML-KEM encapsulation: the library draws its 32 bytes itself. It therefore stands
  behind the `Kem` protocol, and a simulator that must repeat a run passes another `Kem`.
"""

import hmac
from hashlib import sha256
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumError

from hookprobe.errors import MalformedError, VerificationError

X25519_BYTES = 32
KEM_SEED_BYTES = 64
KEM_PUBLIC_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088

_HASH_BYTES = 32
# HMAC's two pads (RFC 2104) as translations of a key that was filled up to a block.
_BLOCK_BYTES = 64
_HALF_BLOCK = bytes(_BLOCK_BYTES - _HASH_BYTES)
_COUNTERS = tuple(bytes((index,)) for index in range(1, 256))
_INNER = bytes(value ^ 0x36 for value in range(256))
_OUTER = bytes(value ^ 0x5C for value in range(256))


class AgreementKey:
    """An X25519 key pair.

    Args:
        seed: 32 random bytes, the private scalar before clamping.
    """

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._private = seed
        self.public_key: bytes = bindings.crypto_scalarmult_base(seed)

    def exchange(self, public_key: bytes) -> bytes:
        """Return the 32-byte secret shared with the owner of `public_key`.

        Raises:
            MalformedError: Not 32 bytes.
            VerificationError: A point of low order; the secret would be known to everyone
                (RFC 7748 section 6.1).
        """
        if len(public_key) != X25519_BYTES:
            raise MalformedError(f"X25519: public key of {len(public_key)} bytes")
        try:
            secret: bytes = bindings.crypto_scalarmult(self._private, public_key)
        except SodiumError as error:
            raise VerificationError("X25519: public key of low order") from error
        return secret


class KemKey(Protocol):
    """The private half of a key-encapsulation pair."""

    public_key: bytes

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret; `MalformedError` if the ciphertext has another length."""
        ...


class Kem(Protocol):
    """A key-encapsulation mechanism with the sizes of ML-KEM-768."""

    def generate(self, seed: bytes) -> KemKey:
        """Return the key pair of a 64-byte seed (d || z)."""
        ...

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """Return a fresh 32-byte secret and its 1088-byte ciphertext.

        Raises:
            MalformedError: The public key has the wrong length or fails the modulus check.
        """
        ...


class MlKemKey:
    """An ML-KEM-768 key pair from its 64-byte seed."""

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._private = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.public_key = self._private.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) != KEM_CIPHERTEXT_BYTES:
            raise MalformedError(f"ML-KEM-768: ciphertext of {len(ciphertext)} bytes")
        return self._private.decapsulate(ciphertext)


class MlKem:
    """ML-KEM-768 of the cryptography package; encapsulation draws from the operating system."""

    def generate(self, seed: bytes) -> MlKemKey:
        return MlKemKey(seed)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        try:
            return MLKEM768PublicKey.from_public_bytes(public_key).encapsulate()
        except ValueError as error:
            raise MalformedError("ML-KEM-768: not a public key") from error


def hkdf_extract(salt: bytes, secret: bytes, digest: str = "sha256") -> bytes:
    """Return the 32-byte pseudorandom key of RFC 5869 section 2.2."""
    return hmac.digest(salt or bytes(_HASH_BYTES), secret, digest)


def hkdf_expand(key: bytes, info: bytes, length: int, digest: str = "sha256") -> bytes:
    """Return `length` bytes of output keying material, RFC 5869 section 2.3.

    T(i) = HMAC(PRK, T(i-1) || info || i), the output is T(1) || T(2) || ... cut to length.
    """
    assert 0 < length <= 255 * _HASH_BYTES
    material = block = b""
    index = 0
    while len(material) < length:
        index += 1
        block = hmac.digest(key, block + info + bytes((index,)), digest)
        material += block
    return material[:length]


def hkdf_keys(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """Return `length` bytes of HKDF-SHA256: extract, then expand.

    The same bytes as those two give, in half the time, for handshakes that derive a dozen blocks:
    the pads of each key are made once. `salt` has 32 to 64 bytes.
    """
    return expand_keys(mac_short(salt, secret), info, length)


def hkdf_pair(salt: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return the two blocks of `hkdf_keys(salt, secret, b"", 64)`; `salt` has 32 bytes.

    Every step of a handshake that mixes a secret in asks for just these.
    """
    key = mac_short(salt, secret) + _HALF_BLOCK
    inner, outer = key.translate(_INNER), key.translate(_OUTER)
    first = sha256(outer + sha256(inner + b"\x01").digest()).digest()
    return first, sha256(outer + sha256(inner + first + b"\x02").digest()).digest()


def mac_short(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256 as RFC 2104 writes it; `key` has 64 bytes at most.

    For short inputs the library's way to an HMAC object costs more than the hash.
    """
    assert len(key) <= _BLOCK_BYTES, "a longer key would have to be hashed first"
    pad = key.ljust(_BLOCK_BYTES, b"\0")
    return sha256(pad.translate(_OUTER) + sha256(pad.translate(_INNER) + data).digest()).digest()


def expand_keys(key: bytes, info: bytes, length: int) -> bytes:
    """Return what `hkdf_expand` returns; `key` has 32 to 64 bytes. See `hkdf_keys`."""
    pad = key.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = pad.translate(_INNER), pad.translate(_OUTER)
    material = block = b""
    for counter in _COUNTERS[: -(-length // _HASH_BYTES)]:
        block = sha256(outer + sha256(inner + block + info + counter).digest()).digest()
        material += block
    return material[:length]

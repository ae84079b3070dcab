"""The symmetric state of the Noise protocol framework (revision 34, sections 5.1 and 5.2).

It holds a chaining key `ck`, a transcript hash `h` and, after the first `mix_key`, an AEAD key with
its counter. Which keys are mixed in which order is the pattern, and belongs to the protocol that
uses the state. The cipher is ChaCha20-Poly1305, whose Noise nonce is 32 zero bits and a
little-endian counter; the hash is SHA-256, or BLAKE2s for those who need it.
"""

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from hashlib import blake2s, sha256
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.agreement import hkdf_expand, hkdf_extract, hkdf_keys, hkdf_pair
from hookprobe.errors import VerificationError

HASH_BYTES = 32
_HASHES: dict[str, Callable[[bytes], Any]] = {"sha256": sha256, "blake2s": blake2s}
# A key opens a handful of messages before the next one takes its place.
_NONCES = tuple(bytes(4) + counter.to_bytes(8, "little") for counter in range(16))


@lru_cache(maxsize=16)
def _first_transcript(name: bytes, hash_name: str) -> bytes:
    padded = name.ljust(HASH_BYTES, b"\0")
    return padded if len(name) <= HASH_BYTES else _HASHES[hash_name](name).digest()


class SymmetricState:
    """The running state of one handshake.

    Args:
        name: The protocol name; longer than 32 bytes it is hashed (InitializeSymmetric).
        hash_name: `sha256` or `blake2s`.
    """

    __slots__ = (
        "_bound",
        "_cipher",
        "_counter",
        "_hash",
        "_hash_name",
        "_key",
        "chaining_key",
        "transcript",
    )

    def __init__(self, name: bytes, hash_name: str = "sha256") -> None:
        self._hash_name = hash_name
        self._hash = _HASHES[hash_name]
        self.transcript = self.chaining_key = _first_transcript(name, hash_name)
        self._cipher: ChaCha20Poly1305 | None = None
        self._counter = 0
        self._key = self._bound = b""

    def copy(self) -> "SymmetricState":
        """Return an independent state, to try a message that may turn out forged."""
        return copy(self)

    def mix_hash(self, data: bytes) -> None:
        """Mix data in: h = HASH(h || data)."""
        self.transcript = self._hash(self.transcript + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Mix a secret in: ck, k = HKDF(ck, secret, 2); the counter starts again."""
        if self._hash_name == "sha256":
            self.chaining_key, key = hkdf_pair(self.chaining_key, secret)
        else:
            self.chaining_key, key = self._derive(secret, 2)
        self._take(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Mix a pre-shared key in: ck, t, k = HKDF(ck, secret, 3); h = HASH(h || t)."""
        self.chaining_key, mixed, key = self._derive(secret, 3)
        self.mix_hash(mixed)
        self._take(key)

    def _take(self, key: bytes) -> None:
        self._key, self._cipher, self._counter = key, ChaCha20Poly1305(key), 0

    def terms(self) -> tuple[bytes, bytes, bytes]:
        """Return what opens the message sealed or opened last: key, nonce, associated data.

        The key is secret; this is for key logs only.
        """
        assert self._counter, "nothing was sealed under this key"
        return self._key, _NONCES[self._counter - 1], self._bound

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return the ciphertext bound to `h`, then mix it into `h`; clear before any key."""
        transcript, cipher = self.transcript, self._cipher
        sealed = plaintext
        if cipher is not None:
            sealed = cipher.encrypt(_NONCES[self._counter], plaintext, transcript)
            self._counter += 1
            self._bound = transcript
        self.transcript = self._hash(transcript + sealed).digest()
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """Return the plaintext and mix the ciphertext into `h`.

        Raises:
            VerificationError: The two ends do not share this state, or bytes were changed.
        """
        transcript, cipher = self.transcript, self._cipher
        plaintext = sealed
        if cipher is not None:
            nonce = _NONCES[self._counter]
            self._counter += 1
            self._bound = transcript
            try:
                plaintext = cipher.decrypt(nonce, sealed, transcript)
            except InvalidTag as error:
                raise VerificationError("handshake: the message does not open") from error
        self.transcript = self._hash(transcript + sealed).digest()
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys, initiator to responder first."""
        first, second = self._derive(b"", 2)
        return first, second

    def _derive(self, secret: bytes, count: int) -> tuple[bytes, ...]:
        # Noise's HKDF is RFC 5869 with ck as the salt and an empty info.
        if self._hash_name == "sha256":
            material = hkdf_keys(self.chaining_key, secret, b"", count * HASH_BYTES)
        else:
            key = hkdf_extract(self.chaining_key, secret, self._hash_name)
            material = hkdf_expand(key, b"", count * HASH_BYTES, self._hash_name)
        return tuple(material[i : i + HASH_BYTES] for i in range(0, len(material), HASH_BYTES))

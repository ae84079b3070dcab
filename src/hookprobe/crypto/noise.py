"""The symmetric state of the Noise protocol framework (revision 34, sections 5.1 and 5.2).

It holds a chaining key `ck`, a transcript hash `h` and, after the first `mix_key`, an AEAD key with
its counter. Which keys are mixed in which order is the pattern, and belongs to the protocol that
uses the state. The cipher is ChaCha20-Poly1305, whose Noise nonce is 32 zero bits and a
little-endian counter; the hash is SHA-256, or BLAKE2s for those who need it.
"""

import hashlib
from copy import copy
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.agreement import hkdf_expand, hkdf_extract, hkdf_keys
from hookprobe.errors import VerificationError

HASH_BYTES = 32


class SymmetricState:
    """The running state of one handshake.

    Args:
        name: The protocol name; longer than 32 bytes it is hashed (InitializeSymmetric).
        hash_name: `sha256` or `blake2s`.
    """

    __slots__ = ("_cipher", "_counter", "_hash_name", "chaining_key", "transcript")

    def __init__(self, name: bytes, hash_name: str = "sha256") -> None:
        self._hash_name = hash_name
        padded = name.ljust(HASH_BYTES, b"\0")
        self.transcript = padded if len(name) <= HASH_BYTES else self._hash(name)
        self.chaining_key = self.transcript
        self._cipher: ChaCha20Poly1305 | None = None
        self._counter = 0

    def copy(self) -> "SymmetricState":
        """Return an independent state, to try a message that may turn out forged."""
        return copy(self)

    def mix_hash(self, data: bytes) -> None:
        """Mix data in: h = HASH(h || data)."""
        if self._hash_name == "sha256":
            self.transcript = sha256(self.transcript + data).digest()
        else:
            self.transcript = self._hash(self.transcript + data)

    def mix_key(self, secret: bytes) -> None:
        """Mix a secret in: ck, k = HKDF(ck, secret, 2); the counter starts again."""
        self.chaining_key, key = self._derive(secret, 2)
        self._cipher, self._counter = ChaCha20Poly1305(key), 0

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Mix a pre-shared key in: ck, t, k = HKDF(ck, secret, 3); h = HASH(h || t)."""
        self.chaining_key, mixed, key = self._derive(secret, 3)
        self.mix_hash(mixed)
        self._cipher, self._counter = ChaCha20Poly1305(key), 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return the ciphertext bound to `h`, then mix it into `h`; clear before any key."""
        if self._cipher is None:
            sealed = plaintext
        else:
            sealed = self._cipher.encrypt(self._nonce(), plaintext, self.transcript)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """Return the plaintext and mix the ciphertext into `h`.

        Raises:
            VerificationError: The two ends do not share this state, or bytes were changed.
        """
        if self._cipher is None:
            plaintext = sealed
        else:
            try:
                plaintext = self._cipher.decrypt(self._nonce(), sealed, self.transcript)
            except InvalidTag as error:
                raise VerificationError("handshake: the message does not open") from error
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys, initiator to responder first."""
        first, second = self._derive(b"", 2)
        return first, second

    def _hash(self, data: bytes) -> bytes:
        if self._hash_name == "sha256":
            return sha256(data).digest()
        return hashlib.blake2s(data).digest()

    def _derive(self, secret: bytes, count: int) -> tuple[bytes, ...]:
        # Noise's HKDF is RFC 5869 with ck as the salt and an empty info.
        if self._hash_name == "sha256":
            material = hkdf_keys(self.chaining_key, secret, b"", count * HASH_BYTES)
        else:
            key = hkdf_extract(self.chaining_key, secret, self._hash_name)
            material = hkdf_expand(key, b"", count * HASH_BYTES, self._hash_name)
        if count == 2:
            return material[:HASH_BYTES], material[HASH_BYTES:]
        return tuple(material[i : i + HASH_BYTES] for i in range(0, len(material), HASH_BYTES))

    def _nonce(self) -> bytes:
        counter = self._counter
        self._counter = counter + 1
        return bytes(4) + counter.to_bytes(8, "little")

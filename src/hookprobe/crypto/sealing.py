"""Sealing packets: ChaCha20-Poly1305 (RFC 8439) with one key, one salt and one counter a direction.

    nonce (96 bits) = salt (4) || counter (8, big-endian)

The construction follows RFC 7634. A `SealingKey` counts for itself and refuses any counter but the
next one, so a nonce cannot be used twice under a key; an `OpeningKey` leaves replays to its owner,
who has the window. Raw keys are kept and cipher objects are made on demand: an object costs two
kilobytes and under a microsecond to rebuild, so `CipherCache` holds only the busiest.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.errors import LimitExceededError, VerificationError

KEY_BYTES = 32
SALT_BYTES = 4
TAG_BYTES = 16
COUNTER_MAX = 2**48  # packets under one key; far below the 2^62 at which QUIC stops (RFC 9000 12.3)


def counter_run(first: int, count: int) -> list[bytes]:
    """Return `count` consecutive counters as they stand in nonces, 8 bytes each."""
    return [number.to_bytes(8) for number in range(first, first + count)]


class _Ciphers(OrderedDict[bytes, ChaCha20Poly1305]):
    """Makes the cipher of a key that it does not have; the oldest makes room."""

    def __init__(self, cipher_max: int) -> None:
        super().__init__()
        self._cipher_max = cipher_max

    def __missing__(self, key: bytes) -> ChaCha20Poly1305:
        if len(self) >= self._cipher_max:
            del self[next(iter(self))]
        cipher = self[key] = ChaCha20Poly1305(key)
        return cipher


class CipherCache:
    """The cipher objects of the keys used last.

    Args:
        cipher_max: How many objects are kept; the oldest makes room for a new one.

    Attributes:
        get: Returns the cipher of a 32-byte key; asked twice for every packet that is answered, so
            it is the lookup itself.
    """

    __slots__ = ("_ciphers", "get")

    def __init__(self, cipher_max: int) -> None:
        self._ciphers = _Ciphers(cipher_max)
        self.get: Callable[[bytes], ChaCha20Poly1305] = self._ciphers.__getitem__

    def __len__(self) -> int:
        return len(self._ciphers)

    def discard(self, key: bytes) -> None:
        """Forget a key whose session has ended."""
        self._ciphers.pop(key, None)


class SealingKey:
    """The sending half of one direction.

    Args:
        key: 32 bytes.
        salt: 4 bytes.
        ciphers: Where the cipher object is kept.
    """

    __slots__ = ("_ciphers", "_key", "_salt", "counter")

    def __init__(self, key: bytes, salt: bytes, ciphers: CipherCache) -> None:
        self._key = key
        self._salt = salt
        self._ciphers = ciphers
        self.counter = 0

    @property
    def raw(self) -> bytes:
        """Key and salt, 36 secret bytes."""
        return self._key + self._salt

    def seal(self, counter: int, plaintext: bytes, associated: bytes) -> bytes:
        """Return ciphertext and tag, 16 bytes longer than the plaintext.

        Args:
            counter: Must be `self.counter`; the caller passes it because it stands in `associated`.
            plaintext: What to hide.
            associated: What to bind without hiding.

        Raises:
            LimitExceededError: `COUNTER_MAX` packets were sealed; the session has to be renewed.
        """
        assert counter == self.counter, "a nonce would be used twice"
        if counter >= COUNTER_MAX:
            raise LimitExceededError("sealing: the packet counter of this key is used up")
        self.counter = counter + 1
        nonce = self._salt + counter.to_bytes(8)
        return self._ciphers.get(self._key).encrypt(nonce, plaintext, associated)

    def seal_run(
        self, first: int, plaintexts: Sequence[bytes], associated: Sequence[bytes]
    ) -> list[bytes]:
        """Return associated data, ciphertext and tag of each, under consecutive counters.

        Args:
            first: Must be `self.counter`.
            plaintexts: What to hide.
            associated: What to bind to each; it stands in front of the ciphertext.

        Raises:
            LimitExceededError: As `seal`; nothing is sealed.
        """
        assert first == self.counter, "a nonce would be used twice"
        if first + len(plaintexts) > COUNTER_MAX:
            raise LimitExceededError("sealing: the packet counter of this key is used up")
        self.counter = first + len(plaintexts)
        salt, encrypt = self._salt, self._ciphers.get(self._key).encrypt
        counters = counter_run(first, len(plaintexts))
        return [
            bound + encrypt(salt + counter, plaintext, bound)
            for counter, plaintext, bound in zip(counters, plaintexts, associated, strict=True)
        ]

    def forget(self) -> None:
        """Drop the cipher object."""
        self._ciphers.discard(self._key)


class OpeningKey:
    """The receiving half of one direction; arguments as for `SealingKey`."""

    __slots__ = ("_ciphers", "_key", "_salt")

    def __init__(self, key: bytes, salt: bytes, ciphers: CipherCache) -> None:
        self._key = key
        self._salt = salt
        self._ciphers = ciphers

    @property
    def raw(self) -> bytes:
        """Key and salt, 36 secret bytes."""
        return self._key + self._salt

    def open(self, counter: int, ciphertext: bytes, associated: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            VerificationError: Another key, counter or associated data, or changed bytes.
        """
        nonce = self._salt + counter.to_bytes(8)
        try:
            return self._ciphers.get(self._key).decrypt(nonce, ciphertext, associated)
        except InvalidTag as error:
            raise VerificationError("sealing: the packet does not open") from error

    def open_run(
        self, first: int, ciphertexts: Sequence[bytes], associated: Sequence[bytes]
    ) -> list[bytes]:
        """Return the plaintexts of packets under consecutive counters, up to one that fails.

        Args:
            first: The counter of the first one.
            ciphertexts: With their tags.
            associated: What is bound to each.
        """
        salt, decrypt = self._salt, self._ciphers.get(self._key).decrypt
        nonces = [salt + counter for counter in counter_run(first, len(ciphertexts))]
        plaintexts: list[bytes] = []
        # The owner comes to the one that failed, and judges it by itself.
        with contextlib.suppress(InvalidTag):
            plaintexts.extend(map(decrypt, nonces, ciphertexts, associated))
        return plaintexts

    def forget(self) -> None:
        """Drop the cipher object."""
        self._ciphers.discard(self._key)

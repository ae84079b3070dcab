"""Simulated signatures: unforgeable inside the simulator, and far faster than real ones.

A signature is a keyed hash under the signer's secret. The schemes know every secret, because they
made it, and so can verify; actors hold only their own signer objects. An aggregate is the exclusive
or of its signatures. Nothing here protects anything outside one process.
"""

from collections.abc import Sequence
from hashlib import blake2b

from hookprobe.errors import MalformedError


def _mac(secret: bytes, message: bytes, size: int) -> bytes:
    wide = blake2b(message, key=secret, digest_size=48).digest()
    return (wide + wide)[:size]


class SimulatedSigner:
    """Stands in for an Ed25519 signer."""

    def __init__(self, secret: bytes, public_key: bytes) -> None:
        self._secret = secret
        self._public_key = public_key

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return _mac(self._secret, message, 64)


class SimulatedVoteSigner(SimulatedSigner):
    """Stands in for a BLS signer."""

    def sign(self, message: bytes) -> bytes:
        return _mac(self._secret, message, 96)

    def prove_possession(self) -> bytes:
        return _mac(self._secret, b"possession" + self._public_key, 96)


class SimulatedSignatures:
    """Makes signers and checks what they sign; stands in for Ed25519."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    def signer(self, name: str) -> SimulatedSigner:
        """Return the signer of a name; equal names give equal keys."""
        secret = blake2b(name.encode(), digest_size=32).digest()
        public_key = blake2b(secret, digest_size=32).digest()
        self._secrets[public_key] = secret
        return SimulatedSigner(secret, public_key)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        secret = self._secrets.get(public_key)
        return secret is not None and _mac(secret, message, 64) == signature


class SimulatedVotes:
    """Makes vote signers and checks votes; stands in for BLS."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    def signer(self, name: str) -> SimulatedVoteSigner:
        """Return the vote signer of a name; equal names give equal keys."""
        secret = blake2b(b"vote " + name.encode(), digest_size=32).digest()
        public_key = blake2b(secret, digest_size=48).digest()
        self._secrets[public_key] = secret
        return SimulatedVoteSigner(secret, public_key)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        secret = self._secrets.get(public_key)
        return secret is not None and _mac(secret, message, 96) == signature

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        if not signatures or any(len(item) != 96 for item in signatures):
            raise MalformedError("simulated aggregate of nothing or of no signatures")
        total = 0
        for signature in signatures:
            total ^= int.from_bytes(signature, "big")
        return total.to_bytes(96, "big")

    def verify_aggregate(
        self, public_keys: Sequence[bytes], message: bytes, signature: bytes
    ) -> bool:
        if not public_keys or len(dict.fromkeys(public_keys)) != len(public_keys):
            return False
        total = 0
        for public_key in public_keys:
            secret = self._secrets.get(public_key)
            if secret is None:
                return False
            total ^= int.from_bytes(_mac(secret, message, 96), "big")
        return total.to_bytes(96, "big") == signature

    def check_key(self, public_key: bytes, possession_proof: bytes) -> bool:
        return self.verify_possession(public_key, possession_proof)

    def verify_possession(self, public_key: bytes, proof: bytes) -> bool:
        secret = self._secrets.get(public_key)
        return secret is not None and _mac(secret, b"possession" + public_key, 96) == proof

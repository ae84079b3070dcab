"""BLS12-381 multi-signatures, minimal public keys, proof of possession.

Ciphersuite `BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_` (draft-irtf-cfrg-bls-signature-05):
public keys are 48-byte G1 points, signatures 96-byte G2 points, compressed.

The curve arithmetic is arkworks'. What that library leaves open is closed here:

* Only the canonical encoding of a point is accepted, and never the point at infinity: the library
  checks the subgroup but takes non-canonical infinities.
* A secret key is never zero; KeyGen is HKDF-mod-r (section 2.3).
* A public key counts only with its proof of possession, else one rogue key x*G - sum(others)
  signs for everybody (section 3.3).
* Empty aggregates are refused, and so is a signer named twice.

Arkworks is not constant-time: whoever can time a validator's signing very precisely might learn
about its key. SECURITY.md says so.
"""

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from hookprobe.errors import LocalError, MalformedError

PUBLIC_KEY_BYTES = 48
SIGNATURE_BYTES = 96
SEED_BYTES = 32

SIGNATURE_DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"

_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_KEYS_CACHED = 4096


class VoteSigner(Protocol):
    """One validator's voting key."""

    @property
    def public_key(self) -> bytes:
        """48 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return a 96-byte signature."""

    def prove_possession(self) -> bytes:
        """Return a 96-byte proof that the holder of `public_key` knows its secret."""


class VoteScheme(Protocol):
    """Checks votes and folds votes on one message into one signature."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool: ...

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        """Return one signature that stands for all; it says nothing before it is verified.

        Raises:
            MalformedError: No signatures, or one that is not a point of the curve.
        """

    def verify_aggregate(
        self, public_keys: Sequence[bytes], message: bytes, signature: bytes
    ) -> bool:
        """Check that every one of the distinct keys signed this one message."""

    def check_key(self, public_key: bytes, possession_proof: bytes) -> bool:
        """Check a key with its proof of possession before it may vote."""


def derive_secret(seed: bytes) -> int:
    """Return KeyGen(seed, key_info="") (section 2.3), a scalar in 1..r-1.

    Raises:
        LocalError: A seed of fewer than 32 bytes.
    """
    if len(seed) < SEED_BYTES:
        raise LocalError(f"BLS seed of {len(seed)} bytes, at least {SEED_BYTES} are wanted")
    salt = b"BLS-SIG-KEYGEN-SALT-"
    secret = 0
    while secret == 0:
        salt = hashlib.sha256(salt).digest()
        extracted = hmac.digest(salt, seed + b"\0", "sha256")
        # HKDF-Expand to L = 48 bytes; key_info is empty, I2OSP(L, 2) = 0x0030.
        first = hmac.digest(extracted, b"\0\x30\x01", "sha256")
        second = hmac.digest(extracted, first + b"\0\x30\x02", "sha256")
        secret = int.from_bytes((first + second)[:48], "big") % _ORDER
    return secret


class BlsSigner:
    """A voting key made from a 32-byte secret seed."""

    __slots__ = ("_public_key", "_secret")

    def __init__(self, seed: bytes) -> None:
        self._secret = Scalar.from_le_bytes(derive_secret(seed).to_bytes(32, "little"))
        self._public_key = (G1Point() * self._secret).to_compressed_bytes()

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        return (_hash_to_point(message, SIGNATURE_DST) * self._secret).to_compressed_bytes()

    def prove_possession(self) -> bytes:
        point = _hash_to_point(self._public_key, POSSESSION_DST)
        return (point * self._secret).to_compressed_bytes()


class Bls:
    """The production `VoteScheme`."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        try:
            key = _parse_key(public_key)
        except MalformedError:
            return False
        return _pairing_holds(key, message, SIGNATURE_DST, signature)

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        if not signatures:
            raise MalformedError("BLS aggregate of no signatures")
        total = _decompress(signatures[0], checked=False)
        for signature in signatures[1:]:
            total += _decompress(signature, checked=False)
        return total.to_compressed_bytes()

    def verify_aggregate(
        self, public_keys: Sequence[bytes], message: bytes, signature: bytes
    ) -> bool:
        if not public_keys or len(dict.fromkeys(public_keys)) != len(public_keys):
            return False
        try:
            total = _parse_key(public_keys[0])
            for public_key in public_keys[1:]:
                total += _parse_key(public_key)
        except MalformedError:
            return False
        if total == G1Point.identity():
            return False
        return _pairing_holds(total, message, SIGNATURE_DST, signature)

    def check_key(self, public_key: bytes, possession_proof: bytes) -> bool:
        try:
            key = _parse_key(public_key)
        except MalformedError:
            return False
        return _pairing_holds(key, public_key, POSSESSION_DST, possession_proof)


def _pairing_holds(key: G1Point, message: bytes, dst: bytes, signature: bytes) -> bool:
    # e(key, H(m)) == e(G, signature), computed as one multi-pairing: e(key, H(m)) e(-G, sig) == 1.
    try:
        point = _decompress(signature, checked=True)
    except MalformedError:
        return False
    hashed = _hash_to_point(message, dst)
    return GT.pairing_check([key, -G1Point()], [hashed, point])


@lru_cache(maxsize=_KEYS_CACHED)
def _parse_key(data: bytes) -> G1Point:
    """Return the point of a public key; cached, because a validator set rarely changes."""
    if len(data) != PUBLIC_KEY_BYTES:
        raise MalformedError(f"BLS public key of {len(data)} bytes")
    try:
        point = G1Point.from_compressed_bytes(data)
    except ValueError as error:
        raise MalformedError("BLS public key is not a point of the group") from error
    if point == G1Point.identity() or point.to_compressed_bytes() != data:
        raise MalformedError("BLS public key is infinity or not canonical")
    return point


def _decompress(data: bytes, *, checked: bool) -> G2Point:
    """Return the point of a signature; `checked`: it is in the subgroup.

    That check is half of the cost. Summands go without it, because their sum is checked when it is
    verified: one summand outside the subgroup takes the sum out of it, and several whose parts
    outside cancel each other leave a signature that holds.
    """
    if len(data) != SIGNATURE_BYTES:
        raise MalformedError(f"BLS signature of {len(data)} bytes")
    parse = G2Point.from_compressed_bytes if checked else G2Point.from_compressed_bytes_unchecked
    try:
        point = parse(data)
    except ValueError as error:
        raise MalformedError("BLS signature is not a point of the group") from error
    if point == G2Point.identity() or point.to_compressed_bytes() != data:
        raise MalformedError("BLS signature is infinity or not canonical")
    return point


def _hash_to_point(message: bytes, dst: bytes) -> G2Point:
    return G2Point.hash_to_curve(message, dst)

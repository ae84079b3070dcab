"""Votes and quorum certificates (DSM spec 2.5).

    f = (n-1)//3         the validators that may be faulty
    q = n - f            the votes that a certificate needs
    vote message         "HPDSM1" 0 0 || chain[32] || kind u8 || epoch u64 || view u32 || d[32]

d is the header hash of the checkpoint voted for, 32 zero bytes in a NULLIFY. All integers are
big-endian; the message has 85 bytes. Validators are numbered by their place in the sorted set.

A certificate is the aggregate of q or more votes on one message and a bitmap that names the
voters: bit i of the set is bit i%8 (least significant first) of byte i//8, exactly ceil(n/8)
bytes, bits from n on are zero. Its quorum is computed from n, never configured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique

from hookprobe.crypto.bls import SIGNATURE_BYTES, VoteScheme
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.wire.reader import Reader, Writer

VOTE_PREFIX = b"HPDSM1\0\0"
NO_DIGEST = bytes(32)
BITMAP_BYTES_MAX = 16


def faults(size: int) -> int:
    """Return f, the number of faulty validators that a set of `size` tolerates."""
    return (size - 1) // 3


def quorum(size: int) -> int:
    """Return q = n - f."""
    return size - (size - 1) // 3


@unique
class VoteKind(IntEnum):
    """What a vote says."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


def vote_message(chain: bytes, kind: VoteKind, epoch: int, view: int, digest: bytes) -> bytes:
    """Return the 85 bytes that a validator signs."""
    fields = bytes((kind,)) + epoch.to_bytes(8, "big") + view.to_bytes(4, "big")
    return VOTE_PREFIX + chain + fields + digest


@dataclass(frozen=True, slots=True)
class QuorumCertificate:
    """Proof that q validators cast one vote. Not verified until `check_certificate` says so."""

    kind: VoteKind
    epoch: int
    view: int
    digest: bytes
    bitmap: bytes
    signature: bytes

    def signers(self) -> list[int]:
        """Return the numbers of the voters, ascending."""
        return [
            8 * place + bit
            for place, byte in enumerate(self.bitmap)
            for bit in range(8)
            if byte >> bit & 1
        ]

    def write(self, writer: Writer) -> None:
        writer.u8(self.kind).u64(self.epoch).u32(self.view).put(self.digest)
        writer.block16(self.bitmap).put(self.signature)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()


def read_kind(reader: Reader) -> VoteKind:
    """Read one vote kind."""
    value = reader.u8()
    if not 1 <= value <= 3:
        raise MalformedError(f"vote kind {value}")
    return VoteKind(value)


def read_certificate(reader: Reader) -> QuorumCertificate:
    """Read what `QuorumCertificate.write` wrote."""
    return QuorumCertificate(
        read_kind(reader),
        reader.u64(),
        reader.u32(),
        reader.take(32),
        reader.block16(BITMAP_BYTES_MAX),
        reader.take(SIGNATURE_BYTES),
    )


def decode_certificate(data: bytes) -> QuorumCertificate:
    """Read what `QuorumCertificate.encode` returned."""
    reader = Reader(data, "certificate")
    found = read_certificate(reader)
    reader.finish()
    return found


def encode_bitmap(signers: Sequence[int], size: int) -> bytes:
    """Return the bitmap of a set of `size` validators with the bits of `signers` set."""
    bits = bytearray((size + 7) // 8)
    for signer in signers:
        bits[signer // 8] |= 1 << signer % 8
    return bytes(bits)


def check_certificate(
    certificate: QuorumCertificate,
    chain: bytes,
    vote_keys: Sequence[bytes],
    needed: int,
    scheme: VoteScheme,
) -> None:
    """Check that `needed` distinct members of the set signed.

    Args:
        certificate: What was received.
        chain: The chain id, 32 bytes.
        vote_keys: The BLS keys of the set, in order of the validators' numbers.
        needed: The quorum of the set.
        scheme: Checks the aggregate.

    Raises:
        VerificationError: Wrong bitmap, too few signers, wrong digest form or wrong signature.
    """
    what = f"{certificate.kind.name} certificate of epoch {certificate.epoch}"
    size = len(vote_keys)
    if len(certificate.bitmap) != (size + 7) // 8:
        raise VerificationError(f"{what}: bitmap of {len(certificate.bitmap)} bytes for {size}")
    signers = certificate.signers()
    if signers and signers[-1] >= size:
        raise VerificationError(f"{what}: bit {signers[-1]} in a set of {size}")
    if len(signers) < needed:
        raise VerificationError(f"{what}: {len(signers)} signers, {needed} are needed")
    if (certificate.kind is VoteKind.NULLIFY) != (certificate.digest == NO_DIGEST):
        raise VerificationError(f"{what}: digest does not fit the kind of vote")
    message = vote_message(
        chain, certificate.kind, certificate.epoch, certificate.view, certificate.digest
    )
    keys = [vote_keys[signer] for signer in signers]
    if not scheme.verify_aggregate(keys, message, certificate.signature):
        raise VerificationError(f"{what}: aggregate signature does not hold")

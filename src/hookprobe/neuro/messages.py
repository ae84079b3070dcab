"""What devices, verifiers and validators say to each other about histories: one table.

    kind  message         from        to          body
    0x01  BATCH           device      verifier    `batch.TerBatch`
    0x02  ANSWER          verifier    device      `answer.Answer`
    0x03  CERTIFICATE     anybody     validator   `certificate.ResonanceCertificate`, signed
    0x04  ORDER           verifier    device      `epochs.EpochOrder`, signed
    0x05  OPEN            verifier    device      u32 epoch, u64 index: open this commitment
    0x06  OPENING         device      verifier    u32 epoch, u64 index, opening; empty: not kept
    0x07  HARDWARE        device      verifier    keyed hashes of its hardware components
    0x08  TPM             device      verifier    `quote_documents.Claim`
    0x09  CHALLENGE       verifier    device      `quote_documents.Challenge`
    0x0A  QUOTE           device      verifier    `quote_documents.QuoteAnswer`

A message is its kind byte and its body, on the TER channel of an authenticated session.
"""

from dataclasses import dataclass
from enum import IntEnum

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.neuro.answer import ANSWER_MAX_BYTES
from hookprobe.neuro.batch import BATCH_MAX_BYTES
from hookprobe.neuro.envelope import ENVELOPE_MAX_BYTES
from hookprobe.neuro.measurement import OPENING_BYTES
from hookprobe.wire.reader import Reader, Writer

PLACE_BYTES = 12
HARDWARE_MAX_BYTES = 1 << 15
TPM_MAX_BYTES = 1 << 13


class Kind(IntEnum):
    """The first byte of a message."""

    BATCH = 1
    ANSWER = 2
    CERTIFICATE = 3
    ORDER = 4
    OPEN = 5
    OPENING = 6
    HARDWARE = 7
    TPM = 8
    CHALLENGE = 9
    QUOTE = 10


LIMITS = {
    Kind.BATCH: BATCH_MAX_BYTES,
    Kind.ANSWER: ANSWER_MAX_BYTES,
    Kind.CERTIFICATE: ENVELOPE_MAX_BYTES,
    Kind.ORDER: ENVELOPE_MAX_BYTES,
    Kind.OPEN: PLACE_BYTES,
    Kind.OPENING: PLACE_BYTES + OPENING_BYTES,
    Kind.HARDWARE: HARDWARE_MAX_BYTES,
    Kind.TPM: TPM_MAX_BYTES,
    Kind.CHALLENGE: TPM_MAX_BYTES,
    Kind.QUOTE: TPM_MAX_BYTES,
}
_KINDS = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Place:
    """A record: its weight epoch and its index there."""

    epoch: int
    index: int

    def encode(self) -> bytes:
        return Writer().u32(self.epoch).u64(self.index).finish()


def encode(kind: Kind, body: bytes) -> bytes:
    """Return a message."""
    return bytes((kind,)) + body


def decode(data: bytes) -> tuple[Kind, bytes]:
    """Return kind and body of a message; the body is not looked at.

    Raises:
        MalformedError: Empty, or no such kind.
        LimitExceededError: Longer than its kind may be.
    """
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise MalformedError("NEURO message: empty, or of an unknown kind")
    if len(data) - 1 > LIMITS[kind]:
        raise LimitExceededError(f"NEURO {kind.name}: {len(data) - 1} bytes, limit {LIMITS[kind]}")
    return kind, data[1:]


def decode_place(body: bytes) -> tuple[Place, bytes]:
    """Return the record that an OPEN or OPENING is about, and what follows it.

    Raises:
        MalformedError: Too short.
    """
    reader = Reader(body, "NEURO place")
    place = Place(reader.u32(), reader.u64())
    return place, reader.rest()

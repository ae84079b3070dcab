"""A batch of records on the way from a device to its verifier (HP-NEURO-1 3.1).

    off len field
      0   4  "HPNB"
      4   1  version 1
      5  16  device            SHA-256 of the padded node id, first 16 bytes
     21   4  weight epoch
     25   8  index of the first record
     33  16  verifier          the same form of the verifier's node id
     49  16  nonce             as the verifier's last answer gave it
     65   2  count             1 to 256
     67   n * 64  records
        32  PoSF               under the state after the last record, over H(batch, all before)
        64  Ed25519            over H(batch, all before, PoSF included)

The proof binds the records, the nonce and the state; the signature binds the proof to the device's
operating key. Neither replaces the other.
"""

import hashlib
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SIGNATURE_BYTES, SignatureScheme, Signer
from hookprobe.errors import LimitExceededError, LocalError, MalformedError, VerificationError
from hookprobe.neuro import posf, ter
from hookprobe.neuro.posf import POSF_BYTES, Context
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import TER_BYTES, Ter
from hookprobe.wire.identifiers import NodeId, pack_node_id
from hookprobe.wire.reader import Reader, Writer

NAME_BYTES = 16
NONCE_BYTES = 16
BATCH_RECORDS_MAX = 256
RECORDS_UNACKED_MAX = 65_536  # 45 days of one a minute
BATCH_MAX_BYTES = 67 + BATCH_RECORDS_MAX * TER_BYTES + POSF_BYTES + SIGNATURE_BYTES

_MAGIC = b"HPNB"
_VERSION = 1


def short_name(node: NodeId) -> bytes:
    """Return the 16 bytes that stand for a node in proofs and batches."""
    return hashlib.sha256(pack_node_id(node)).digest()[:NAME_BYTES]


@dataclass(frozen=True, slots=True)
class Head:
    """Whose records these are, from where on, for whom, and against which nonce."""

    device: bytes
    epoch: int
    first_index: int
    verifier: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class TerBatch:
    """Consecutive records with the proof that their sender holds the state they lead to."""

    head: Head
    records: tuple[Ter, ...]
    proof: bytes
    signature: bytes

    @property
    def end(self) -> int:
        """The index after the last record."""
        return self.head.first_index + len(self.records)

    def encode(self) -> bytes:
        """Return the wire form."""
        return _covered(self.head, self.records) + self.proof + self.signature

    def context(self) -> Context:
        """Return what the proof is about."""
        return _context(self.head, self.records)


def _covered(head: Head, records: tuple[Ter, ...]) -> bytes:
    writer = (
        Writer()
        .put(_MAGIC)
        .u8(_VERSION)
        .put(head.device)
        .u32(head.epoch)
        .u64(head.first_index)
        .put(head.verifier)
        .put(head.nonce)
        .u16(len(records))
    )
    for record in records:
        writer.put(record.encode())
    return writer.finish()


def _context(head: Head, records: tuple[Ter, ...]) -> Context:
    return Context(
        device=head.device,
        epoch=head.epoch,
        index=head.first_index + len(records) - 1,
        verifier=head.verifier,
        message_hash=digest(Domain.NEURO_BATCH, _covered(head, records)),
        nonce=head.nonce,
    )


def make_batch(head: Head, records: tuple[Ter, ...], state: NeuroState, signer: Signer) -> TerBatch:
    """Prove and sign a batch.

    Args:
        head: Its addressee and place.
        records: 1 to 256 consecutive records.
        state: The state after the last of them.
        signer: The device's operating key.

    Raises:
        LocalError: No or too many records, or the state is not the one after them.
    """
    if not 0 < len(records) <= BATCH_RECORDS_MAX:
        raise LocalError(f"TER batch: 1 to {BATCH_RECORDS_MAX} records, not {len(records)}")
    if state.count != head.first_index + len(records) or state.previous != records[-1]:
        raise LocalError("TER batch: the state is not the one after the last record")
    proof = posf.sign(state, _context(head, records))
    signature = signer.sign(digest(Domain.NEURO_BATCH, _covered(head, records) + proof))
    return TerBatch(head, records, proof, signature)


def decode_batch(data: bytes) -> TerBatch:
    """Read the wire form; nothing is checked but the form.

    Raises:
        MalformedError: Not a batch.
        LimitExceededError: More than 256 records.
    """
    reader = Reader(data, "TER batch")
    if reader.take(len(_MAGIC)) != _MAGIC or reader.u8() != _VERSION:
        raise MalformedError("TER batch: another format or version")
    head = Head(
        device=reader.take(NAME_BYTES),
        epoch=reader.u32(),
        first_index=reader.u64(),
        verifier=reader.take(NAME_BYTES),
        nonce=reader.take(NONCE_BYTES),
    )
    count = reader.u16()
    if count > BATCH_RECORDS_MAX:
        raise LimitExceededError(f"TER batch: {count} records, limit {BATCH_RECORDS_MAX}")
    if count == 0 or head.first_index + count > 1 << 64:
        raise MalformedError("TER batch: no record, or an index beyond 64 bits")
    records = tuple(ter.decode(reader.take(TER_BYTES)) for _ in range(count))
    batch = TerBatch(head, records, reader.take(POSF_BYTES), reader.take(SIGNATURE_BYTES))
    reader.finish()
    return batch


def check_signature(batch: TerBatch, key: bytes, scheme: SignatureScheme) -> None:
    """Check the Ed25519 signature.

    Raises:
        VerificationError: It is not this key's signature of this batch.
    """
    message = digest(Domain.NEURO_BATCH, _covered(batch.head, batch.records) + batch.proof)
    if not scheme.verify(key, message, batch.signature):
        raise VerificationError("TER batch: the signature does not hold")

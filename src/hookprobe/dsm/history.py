"""The agreed past of a chain: which epochs are final and what follows from them.

The next header is a function of this state, the CUTs and the ranges (DSM spec 2.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto import merkle
from hookprobe.crypto.merkle import CompactRange
from hookprobe.dsm.checkpoint import (
    NO_CHECKPOINT,
    Content,
    FinalCheckpoint,
    Header,
    SealedHeader,
    decode_content,
    decode_sealed,
    encode_content,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.cut import median_timestamp
from hookprobe.dsm.misbehaviour import Fault, Verdict
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.reader import Reader, Writer

STATE_KEY = b"history"
SETTLED_PREFIX = b"settled/"
SETTLED_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What final evidence did to one offender: from `epoch` on it is settled."""

    offender: str
    epoch: int
    fault: Fault


class History:
    """Everything final, in constant space per epoch; checkpoints themselves are in the store."""

    def __init__(self, court: Court, reader: StoreReader) -> None:
        self.next_epoch = 0
        self.last_hash = NO_CHECKPOINT
        self.last_timestamp_ms = 0
        self.tree = CompactRange()
        self.settled: dict[str, Settlement] = {}
        self._court = court
        self._reader = reader
        self._load()

    def _load(self) -> None:
        state = self._reader.get(Table.META, STATE_KEY)
        if state is not None:
            reader = Reader(state, "stored history")
            self.next_epoch, self.last_hash = reader.u64(), reader.take(32)
            self.last_timestamp_ms = reader.u64()
            self.tree = CompactRange.decode(reader.rest())
        rows = self._reader.scan(
            Table.META, SETTLED_PREFIX, prefix_end(SETTLED_PREFIX), SETTLED_MAX
        )
        for key, value in rows:
            offender = key[len(SETTLED_PREFIX) :].decode()
            fault = Fault(value[8])
            self.settled[offender] = Settlement(offender, int.from_bytes(value[:8], "big"), fault)

    def revoked(self) -> dict[NodeId, int]:
        """Return the nodes whose blocks no longer count, with the epoch of the evidence."""
        return {
            NodeId(item.offender): item.epoch
            for item in self.settled.values()
            if item.fault is Fault.FORK
        }

    def header(self, content: Content, block_ids: Sequence[bytes], author: NodeId) -> Header:
        """Return the one header that this state allows for this content."""
        validators = self._court.validators.hash
        cuts = [signed.cut for signed in content.cuts]
        return Header(
            chain=self._court.chain,
            epoch=self.next_epoch,
            prev=self.last_hash,
            timestamp_ms=median_timestamp(cuts, self.last_timestamp_ms),
            merkle_root=merkle.root(block_ids),
            count=len(block_ids),
            ranges_root=content.ranges_root(),
            cuts_root=content.cuts_root(),
            evidence_root=content.evidence_root(),
            history_root=self.tree.root(),
            history_size=self.tree.size,
            validators_hash=validators,
            next_validators_hash=validators,
            validator_id=author,
        )

    def check_next(self, final: FinalCheckpoint) -> None:
        """Check that a checkpoint is certified and continues this history.

        Raises:
            VerificationError: It is not, or does not.
        """
        header = final.checkpoint.header
        what = f"checkpoint {header.epoch}"
        if header.chain != self._court.chain or header.epoch != self.next_epoch:
            raise VerificationError(f"{what}: another chain, or not epoch {self.next_epoch}")
        if header.prev != self.last_hash or header.history_root != self.tree.root():
            raise VerificationError(f"{what}: does not continue our history")
        if header.history_size != self.tree.size:
            raise VerificationError(f"{what}: history of {header.history_size} checkpoints")
        if header.validators_hash != self._court.validators.hash:
            raise VerificationError(f"{what}: made by another validator set")
        check_finality(final, self._court)
        final.checkpoint.check_content()

    def advance(self, final: FinalCheckpoint, verdicts: Sequence[Verdict]) -> list[Write]:
        """Append a final checkpoint; `verdicts` are what its evidence proves.

        Returns:
            The rows that make it so.
        """
        header = final.checkpoint.header
        epoch = header.epoch.to_bytes(8, "big")
        writes: list[Write] = [
            (Table.CHECKPOINTS, epoch, final.sealed().encode()),
            (Table.CONTENTS, epoch, encode_content(final.checkpoint.content)),
        ]
        for verdict in verdicts:
            self.settled[verdict.offender] = Settlement(
                verdict.offender, header.epoch, verdict.fault
            )
            key = SETTLED_PREFIX + verdict.offender.encode()
            writes.append((Table.META, key, epoch + bytes((verdict.fault,))))
        self.next_epoch = header.epoch + 1
        self.last_hash = final.checkpoint.hash
        self.last_timestamp_ms = header.timestamp_ms
        self.tree.append(final.checkpoint.hash)
        state = Writer().u64(self.next_epoch).put(self.last_hash).u64(self.last_timestamp_ms)
        writes.append((Table.META, STATE_KEY, state.put(self.tree.encode()).finish()))
        return writes

    def latest(self) -> FinalCheckpoint | None:
        """Read the last final checkpoint from the store; None before the first."""
        return self.checkpoint(self.next_epoch - 1) if self.next_epoch else None

    def checkpoint(self, epoch: int) -> FinalCheckpoint | None:
        """Read a final checkpoint from the store; None when it or its content is not there."""
        sealed = self.sealed(epoch)
        content = self._reader.get(Table.CONTENTS, epoch.to_bytes(8, "big"))
        if sealed is None or content is None:
            return None
        return sealed.joined(decode_content(content))

    def sealed(self, epoch: int) -> SealedHeader | None:
        """Read what is kept of a final checkpoint for ever."""
        data = self._reader.get(Table.CHECKPOINTS, epoch.to_bytes(8, "big"))
        return decode_sealed(data) if data is not None else None


def check_finality(final: FinalCheckpoint, court: Court) -> None:
    """Check that the certificate finalises this very header.

    Raises:
        VerificationError: Another kind, epoch or header, or the certificate does not hold.
    """
    header, certificate = final.checkpoint.header, final.certificate
    if certificate.kind.name != "FINALIZE" or certificate.epoch != header.epoch:
        raise VerificationError(f"checkpoint {header.epoch}: not a FINALIZE certificate of it")
    if certificate.digest != final.checkpoint.hash:
        raise VerificationError(f"checkpoint {header.epoch}: certificate of another header")
    court.validators.check_certificate(certificate, court.chain, court.votes)

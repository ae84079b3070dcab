"""The agreed past of a chain: which epochs are final and what follows from them.

The next header is a function of this state, the CUTs and the ranges (DSM spec 2.4). The validator
set of the next epoch is always known: the last final header names its hash. The registry, which
decides the set after that, needs the blocks of all final epochs and may lag behind.
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
from hookprobe.dsm.dead_keys import KeyUse
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.governance import Act
from hookprobe.dsm.microblock import SignedBlock, decode_block
from hookprobe.dsm.misbehaviour import EVIDENCE_AGE_US, Fault, Verdict
from hookprobe.dsm.registry import Registry
from hookprobe.dsm.roll import Roll, SetChange, check_successor, decode_change
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.dsm.validators import ValidatorSet, decode_set
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND
from hookprobe.wire.reader import Reader, Writer

STATE_KEY = b"history"
SETTLED_PREFIX = b"settled/"
SETTLED_MAX = 100_000
CHANGES_MAX = 1_000_000
RELICS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Settlement:
    """What final evidence did to one offender: from `epoch` on it is settled."""

    offender: str
    epoch: int
    fault: Fault


class History:
    """Everything final, in constant space per epoch; checkpoints themselves are in the store.

    Args:
        genesis: The genesis document.
        court: Its court.
        reader: The store as it was left.
    """

    def __init__(self, genesis: Genesis, court: Court, reader: StoreReader) -> None:
        self.roll = Roll(court)
        self._start_ms = genesis.start // MILLISECOND
        self._age = genesis.epochs_in(EVIDENCE_AGE_US)
        self.registry = Registry(
            court,
            reader,
            dev=genesis.dev,
            patience_epochs=self._age,
            by_key=genesis.version >= 2,
        )
        self.next_epoch = 0
        self.last_hash = NO_CHECKPOINT
        self.last_timestamp_ms = 0
        self.tree = CompactRange()
        self.settled: dict[str, Settlement] = {}
        self._reader = reader
        self._load()
        self.court = self.roll.court_at(self.next_epoch)

    def _load(self) -> None:
        state = self._reader.get(Table.META, STATE_KEY)
        if state is not None:
            reader = Reader(state, "stored history")
            self.next_epoch, self.last_hash = reader.u64(), reader.take(32)
            self.last_timestamp_ms = reader.u64()
            self.tree = CompactRange.decode(reader.rest())
        for change in self.changes(0):
            self.roll.restore(change)
        rows = self._reader.scan(
            Table.META, SETTLED_PREFIX, prefix_end(SETTLED_PREFIX), SETTLED_MAX
        )
        for key, value in rows:
            offender = key[len(SETTLED_PREFIX) :].decode()
            fault = Fault(value[8])
            self.settled[offender] = Settlement(offender, int.from_bytes(value[:8], "big"), fault)

    @property
    def time_ms(self) -> int:
        """Chain time: that of the last final checkpoint, or of the genesis document."""
        return max(self.last_timestamp_ms, self._start_ms)

    def revoked(self) -> dict[NodeId, int]:
        """Return the nodes whose blocks no longer count, with the epoch that decided it."""
        convicted = {NodeId(item.offender): item.epoch for item in self.settled.values()}
        return convicted | self.registry.revoked

    @property
    def complete(self) -> bool:
        """Whether the registry has read every final epoch: only then content can be judged."""
        return self.registry.next_epoch == self.next_epoch

    @property
    def epochs_judged(self) -> range:
        """The epochs of which evidence counts."""
        return range(max(0, self.next_epoch - self._age), self.next_epoch + 1)

    def header(self, content: Content, block_ids: Sequence[bytes], author: NodeId) -> Header:
        """Return the one header that this state allows for this content."""
        assert self.complete
        cuts = [signed.cut for signed in content.cuts]
        return Header(
            chain=self.court.chain,
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
            validators_hash=self.court.validators.hash,
            next_validators_hash=self.registry.following.hash,
            validator_id=author,
        )

    def check_next(self, final: FinalCheckpoint) -> None:
        """Check that a checkpoint is certified and continues this history.

        Raises:
            VerificationError: It is not, or does not.
        """
        header = final.checkpoint.header
        what = f"checkpoint {header.epoch}"
        if header.chain != self.court.chain or header.epoch != self.next_epoch:
            raise VerificationError(f"{what}: another chain, or not epoch {self.next_epoch}")
        if header.prev != self.last_hash or header.history_root != self.tree.root():
            raise VerificationError(f"{what}: does not continue our history")
        if header.history_size != self.tree.size:
            raise VerificationError(f"{what}: history of {header.history_size} checkpoints")
        self.roll.check(final.checkpoint.raw, final.certificate)
        final.checkpoint.check_content()
        self.successor(final)

    def successor(self, final: FinalCheckpoint) -> ValidatorSet | None:
        """Return the next set if a checkpoint changes it.

        Raises:
            VerificationError: It is another one than ours follows to, or its members are missing.
        """
        header = final.checkpoint.header
        current, following = self.court.validators, self.registry.following
        if self.complete and header.next_validators_hash != following.hash:
            raise VerificationError(f"checkpoint {header.epoch}: names another next set")
        if header.next_validators_hash == current.hash:
            return None
        if self.complete:
            return following
        members = decode_set(final.members)
        check_successor(header, members, current, self.court)
        return members

    def advance(self, final: FinalCheckpoint, verdicts: Sequence[Verdict]) -> list[Write]:
        """Append a final checkpoint; `verdicts` are what its evidence proves.

        Returns:
            The rows that make it so.
        """
        header = final.checkpoint.header
        epoch = header.epoch.to_bytes(8, "big")
        successor = self.successor(final)
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
        writes += self._follow(final, successor)
        state = Writer().u64(self.next_epoch).put(self.last_hash).u64(self.last_timestamp_ms)
        writes.append((Table.META, STATE_KEY, state.put(self.tree.encode()).finish()))
        return writes

    def _follow(self, final: FinalCheckpoint, successor: ValidatorSet | None) -> list[Write]:
        if successor is None:
            return []
        self.roll.append(self.next_epoch, successor)
        self.court = self.roll.court_at(self.next_epoch)
        change = SetChange(final.checkpoint.raw, final.certificate, successor.encode())
        key = final.checkpoint.header.epoch.to_bytes(8, "big")
        return [(Table.CHANGES, key, change.encode())]

    def read_registry(
        self, acts: Sequence[Act], offenders: Sequence[str], uses: Sequence[KeyUse]
    ) -> list[Write]:
        """Let the registry read the next epoch that it has not read."""
        writes = self.registry.read(acts, offenders, uses)
        known = self.roll.at(self.registry.next_epoch)
        assert self.registry.current.hash == known.hash, "the registry disagrees with the headers"
        return writes

    def changes(self, epoch: int, limit: int = CHANGES_MAX) -> list[SetChange]:
        """Return the first set changes that headers from an epoch on made."""
        start = epoch.to_bytes(8, "big")
        rows = self._reader.scan(Table.CHANGES, start, b"\xff" * 9, limit)
        return [decode_change(value) for _, value in rows]

    def relic(self, epoch: int, block_id: bytes) -> SignedBlock | None:
        """Read a first or governance block of a final epoch, which is kept for ever."""
        start, stop = epoch.to_bytes(8, "big"), (epoch + 1).to_bytes(8, "big")
        for _, value in self._reader.scan(Table.RELICS, start, stop, RELICS_MAX):
            signed = decode_block(value)
            if signed.id == block_id:
                return signed
        return None

    def latest(self) -> FinalCheckpoint | None:
        """Read the last final checkpoint from the store; None before the first."""
        return self.checkpoint(self.next_epoch - 1) if self.next_epoch else None

    def checkpoint(self, epoch: int) -> FinalCheckpoint | None:
        """Read a final checkpoint from the store; None when it or its content is not there."""
        sealed = self.sealed(epoch)
        content = self._reader.get(Table.CONTENTS, epoch.to_bytes(8, "big"))
        if sealed is None or content is None:
            return None
        change = None
        if sealed.header.next_validators_hash != sealed.header.validators_hash:
            change = self._reader.get(Table.CHANGES, epoch.to_bytes(8, "big"))
        members = decode_change(change).members if change is not None else b""
        return sealed.joined(decode_content(content), members)

    def sealed(self, epoch: int) -> SealedHeader | None:
        """Read what is kept of a final checkpoint for ever."""
        data = self._reader.get(Table.CHECKPOINTS, epoch.to_bytes(8, "big"))
        return decode_sealed(data) if data is not None else None

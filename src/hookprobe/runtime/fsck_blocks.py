"""What `hookprobe dsm fsck` checks of blocks, payloads, chains, receipts and evidence.

row          its key is the one that its content has
block        id and signature by the key that the first block's certificate gives its chain
link         the parent is there with the number before, or the block is the first that is kept
payload      hashes to what the block was signed with
chain head   what this node wrote last is there; blocks beyond it are not its own
receipt      RFC 6962 range proof of these very blocks, certified by the set of its epoch
evidence     its key is its hash
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hookprobe.dsm.checkpoint import evidence_id
from hookprobe.dsm.court import Court
from hookprobe.dsm.enrolment import check_enrolment, parse_enrolment
from hookprobe.dsm.microblock import (
    NO_PARENT,
    LaneKey,
    SignedBlock,
    decode_block,
    decode_payload,
    lane_row,
    verify_block,
)
from hookprobe.dsm.receipts import check_receipt, decode_receipt
from hookprobe.dsm.roll import Roll
from hookprobe.dsm.store import StoreReader, Table, prefix_end
from hookprobe.errors import RemoteError
from hookprobe.wire.reader import Reader

ROWS_PER_READ = 1024
FAULTS_MAX = 1_000


@dataclass(slots=True)
class Audit:
    """What was found wrong, and how much was looked at."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, where: str, what: str) -> None:
        """Note a fault; the first `FAULTS_MAX` are kept."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append((where, what))

    def count(self, what: str, number: int = 1) -> None:
        """Count what was checked."""
        self.counts[what] = self.counts.get(what, 0) + number


def rows_of(store: StoreReader, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Return all rows of a table from a key on."""
    while rows := store.scan(table, start, b"\xff" * 96, ROWS_PER_READ):
        yield from rows
        start = rows[-1][0] + b"\0"


class BlockAuditor:
    """Checks blocks and what hangs on them.

    Args:
        court: The chain's court.
        store: The ledger.
        audit: Takes what is found.
    """

    def __init__(self, court: Court, store: StoreReader, audit: Audit) -> None:
        self._court = court
        self._store = store
        self._audit = audit
        self._first: dict[LaneKey, SignedBlock] = {}
        self._keys: dict[LaneKey, bytes | None] = {}
        self._before: dict[bytes, int] = {}  # ids of one lane's previous and present number

    def check(self) -> None:
        """Check all blocks, relics, payloads, chain heads and evidence."""
        for key, value in rows_of(self._store, Table.RELICS):
            self._check_relic(key, value)
        lane: LaneKey | None = None
        for key, value in rows_of(self._store, Table.BLOCKS):
            signed = self._decoded("blocks", key, value)
            if signed is None:
                continue
            if signed.lane != lane:
                lane, self._before = signed.lane, {}
                self._check_start(signed)
            self._check_block(signed)
        self._check_heads()
        for key, value in rows_of(self._store, Table.EVIDENCE):
            if evidence_id(value) != key:
                self._audit.add(f"evidence {key.hex()[:16]}", "is another piece than its key says")

    def _check_relic(self, key: bytes, value: bytes) -> None:
        signed = self._decoded("relics", key[8:], value)
        if signed is not None:
            if signed.seq == 1:
                self._first.setdefault(signed.lane, signed)
            self._check_signature("relic", signed)

    def _decoded(self, table: str, key: bytes, value: bytes) -> SignedBlock | None:
        where = f"{table} row {key.hex()}"
        try:
            signed = decode_block(value)
        except RemoteError as error:
            self._audit.add(where, error.message)
            return None
        if not signed.row_key().startswith(key):
            self._audit.add(where, f"holds {_name(signed)} {signed.id.hex()[:16]}")
        if signed.block.chain != self._court.chain:
            self._audit.add(_name(signed), "is of another chain")
        return signed

    def _check_start(self, signed: SignedBlock) -> None:
        if signed.seq == 1:
            self._first.setdefault(signed.lane, signed)
            if signed.block.prev != NO_PARENT:
                self._audit.add(_name(signed), "the first block names a parent")
        else:
            self._before[signed.block.prev] = signed.seq - 1  # its parent is pruned

    def _check_block(self, signed: SignedBlock) -> None:
        self._audit.count("blocks")
        parent = self._before.get(signed.block.prev)
        if signed.seq > 1 and parent != signed.seq - 1:
            self._audit.add(_name(signed), "the block before it is not here, or is another one")
        kept = {block: seq for block, seq in self._before.items() if seq >= signed.seq - 1}
        self._before = {**kept, signed.id: signed.seq}
        self._check_signature("block", signed)
        self._check_payload(signed)

    def _check_signature(self, kind: str, signed: SignedBlock) -> None:
        key = self._key(signed.lane)
        if key is None:
            self._audit.add(_name(signed), "nobody vouches for its author")
            return
        try:
            verify_block(signed, key, self._court.signatures)
        except RemoteError as error:
            self._audit.add(f"{kind} {_name(signed)}", error.message)

    def _key(self, lane: LaneKey) -> bytes | None:
        if lane not in self._keys:
            self._keys[lane] = self._certified_key(lane)
        return self._keys[lane]

    def _certified_key(self, lane: LaneKey) -> bytes | None:
        first, court = self._first.get(lane), self._court
        if first is None:
            return None
        try:
            enrolment = parse_enrolment(first.block.body or {})
            at_ms = first.block.timestamp_ms
            return check_enrolment(enrolment, court.chain, at_ms, court.ca_keys, court.signatures)
        except RemoteError as error:
            self._audit.add(_name(first), error.message)
            return None

    def _check_payload(self, signed: SignedBlock) -> None:
        row = self._store.get(Table.PAYLOADS, signed.id)
        if row is None:
            return
        self._audit.count("payloads")
        try:
            if decode_payload(row).hash() != signed.block.payload_hash:
                self._audit.add(f"payload of {_name(signed)}", "is not what was signed")
        except RemoteError as error:
            self._audit.add(f"payload of {_name(signed)}", error.message)

    def _check_heads(self) -> None:
        for key, value in rows_of(self._store, Table.CHAIN):
            inc, reader = int.from_bytes(key, "big"), Reader(value, "stored chain head")
            seq, block_id = reader.u64(), reader.take(32)
            ids = [
                row[-32:]
                for row, _ in rows_of(self._store, Table.BLOCKS)
                if row[32:44] == key + seq.to_bytes(8, "big")
            ]
            if seq and block_id not in ids:
                self._audit.add(f"own chain {inc}", f"its last block {seq} is not here")

    # -- receipts ---------------------------------------------------------------------------

    def check_receipts(self, roll: Roll) -> None:
        """Check what proves this node's blocks, with the validator sets that are known."""
        for key, value in rows_of(self._store, Table.RECEIPTS):
            self._audit.count("receipts")
            where = f"receipt {int.from_bytes(key[:4], 'big')}/{int.from_bytes(key[4:], 'big')}"
            try:
                receipt = decode_receipt(value)
                covered = receipt.range
                lane = lane_row(covered.lane)
                start = lane + covered.first.to_bytes(8, "big")
                stop = prefix_end(lane + covered.last.to_bytes(8, "big"))
                rows = self._store.scan(Table.BLOCKS, start, stop, covered.count)
                check_receipt(receipt, [row[-32:] for row, _ in rows], roll)
            except (RemoteError, IndexError) as error:
                self._audit.add(where, str(error))


def _name(signed: SignedBlock) -> str:
    return f"{signed.block.node_id}/{signed.block.inc}/{signed.seq}"

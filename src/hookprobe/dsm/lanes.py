"""All chains that a validator holds: branches, gaps, forks (DSM spec 2.2, 2.3).

A lane is one incarnation of one node's chain. Above the last final block a lane is a tree of
verified blocks: a block enters only when its parent is there and its signature holds. The first
branch seen is the main one; its head is what a CUT reports. Two blocks with one number are a fork:
the pair becomes evidence, both stay, and further branches enter only when a proposal needs them.

Limits: blocks above the last final one per lane, blocks waiting for a parent per lane, unfinished
incarnations per node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import NamedTuple

from hookprobe.crypto.signing import SignatureScheme
from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Court
from hookprobe.dsm.enrolment import Enrolment, Head, check_enrolment, parse_enrolment
from hookprobe.dsm.linked import LinkedBlock
from hookprobe.dsm.messages import BLOCKS_MAX
from hookprobe.dsm.microblock import (
    NO_PARENT,
    LaneKey,
    SignedBlock,
    decode_block,
    lane_row,
    verify_block,
)
from hookprobe.dsm.misbehaviour import fork_evidence
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.errors import LimitExceededError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId, unpack_node_id
from hookprobe.wire.reader import Reader, Writer

SCAN_ROWS = 4096
LANES_MAX = 200_000


@unique
class Status(Enum):
    """What became of a block that was offered."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    WAITING = "waiting"
    REFUSED = "refused"


class Insertion(NamedTuple):
    """The result of offering one block.

    Args:
        status: What became of it.
        accepted: The blocks that entered, in order: it and those that waited for it.
        missing: first, last and head (zeros: any) of the blocks needed first.
        fork: Evidence made from it and a block that was there.
        fork_seq: The number of the two blocks.
    """

    status: Status
    accepted: tuple[SignedBlock, ...] = ()
    missing: tuple[int, int, bytes] | None = None
    fork: bytes | None = None
    fork_seq: int = 0


@dataclass(slots=True)
class Lane:
    """One incarnation of one node's chain."""

    key: LaneKey
    final_seq: int = 0
    final_id: bytes = NO_PARENT
    enrolment: Enrolment | None = None  # of the final branch; None while nothing of it is held
    main: list[SignedBlock] = field(default_factory=list)
    known: dict[bytes, tuple[SignedBlock, Enrolment]] = field(default_factory=dict)
    waiting: dict[int, SignedBlock] = field(default_factory=dict)
    forked: bool = False

    @property
    def head_seq(self) -> int:
        return self.final_seq + len(self.main)

    @property
    def head_id(self) -> bytes:
        return self.main[-1].id if self.main else self.final_id

    def on_main(self, seq: int) -> SignedBlock | None:
        """Return the block of the main branch above the final one with this number."""
        place = seq - self.final_seq - 1
        return self.main[place] if 0 <= place < len(self.main) else None

    def tip_at(self, seq: int) -> bytes | None:
        """Return the id of a block with this number, of the main branch if that reaches it."""
        on_main = self.on_main(seq)
        if on_main is not None:
            return on_main.id
        ids = [key for key, (signed, _) in self.known.items() if signed.seq == seq]
        return min(ids, default=None)

    def path(self, last: int, head: bytes) -> list[SignedBlock] | None:
        """Return the blocks behind the final one up to `head`; None when one is missing."""
        tip = self.on_main(last)
        if tip is not None and tip.id == head:
            return self.main[: last - self.final_seq]
        found: list[SignedBlock] = []
        wanted = head
        while len(found) < last - self.final_seq:
            entry = self.known.get(wanted)
            if entry is None or entry[0].seq != last - len(found):
                return None
            found.append(entry[0])
            wanted = entry[0].block.prev
        return found[::-1] if wanted == self.final_id else None

    def advance(self, last: int, head: bytes) -> None:
        """Make `head` the last final block and keep what grows on it."""
        tip = self.on_main(last)
        entry = self.known.get(head)
        if entry is not None:
            self.enrolment = entry[1]
        keep = self.main[last - self.final_seq :] if tip and tip.id == head else []
        self.final_seq, self.final_id = last, head
        self.known = {key: item for key, item in self.known.items() if item[0].seq > last}
        self.main = keep or self._grow()
        self.waiting = {seq: item for seq, item in self.waiting.items() if seq > self.head_seq}

    def _grow(self) -> list[SignedBlock]:
        """Return the branch of known blocks on the final one (the smallest id where it splits)."""
        children: dict[bytes, SignedBlock] = {}
        for block_id in sorted(self.known, reverse=True):
            signed = self.known[block_id][0]
            children[signed.block.prev] = signed
        branch: list[SignedBlock] = []
        tip = children.get(self.final_id)
        while tip is not None:
            branch.append(tip)
            tip = children.get(tip.id)
        return branch

    def row(self) -> Write:
        """Return the lane's row in the store."""
        body = canonical.encode(self.enrolment.to_body()) if self.enrolment else b""
        value = Writer().u64(self.final_seq).put(self.final_id).put(body).finish()
        return (Table.LANES, lane_row(self.key), value)


class LaneBook:
    """Every lane of the mesh as this validator knows it."""

    def __init__(self, court: Court, reader: StoreReader, config: LedgerConfig) -> None:
        self.lanes: dict[LaneKey, Lane] = {}
        self.revoked: dict[NodeId, int] = {}  # node -> first epoch in which nothing of it counts
        self.dead_keys: Mapping[bytes, int] = {}  # nobody's first block may bring one
        self._court = court
        self._reader = reader
        self._config = config
        self._by_node: dict[NodeId, list[int]] = {}
        self._load()

    def _load(self) -> None:
        start = b""
        while rows := self._reader.scan(Table.LANES, start, b"\xff" * 37, SCAN_ROWS):
            for key, value in rows:
                self._load_lane(key, value)
            start = rows[-1][0] + b"\0"

    def _load_lane(self, key: bytes, value: bytes) -> None:
        lane = self._new_lane((unpack_node_id(key[:32]), int.from_bytes(key[32:], "big")))
        reader = Reader(value, "stored lane")
        lane.final_seq, lane.final_id = reader.u64(), reader.take(32)
        if reader.remaining:
            lane.enrolment = parse_enrolment(canonical.decode_object(reader.rest()))
        start = key + (lane.final_seq + 1).to_bytes(8, "big")
        while rows := self._reader.scan(Table.BLOCKS, start, prefix_end(key), SCAN_ROWS):
            for row_key, data in rows:
                signed = decode_block(data)
                enrolment = _enrolment_for(lane, signed)
                if enrolment is not None:
                    lane.known[row_key[44:]] = (signed, enrolment)
            start = rows[-1][0] + b"\0"
        lane.advance(lane.final_seq, lane.final_id)

    def _new_lane(self, key: LaneKey) -> Lane:
        lane = Lane(key)
        self.lanes[key] = lane
        self._by_node.setdefault(key[0], []).append(key[1])
        return lane

    def insert(self, signed: SignedBlock, *, solicited: bool) -> Insertion:
        """Offer a block.

        Args:
            signed: The block, signature not yet checked.
            solicited: A proposal needs it; further branches of a forked lane may enter.

        Raises:
            VerificationError: Signature, enrolment or chain link does not hold.
            LimitExceededError: A limit of the lane or node is reached.
        """
        if signed.block.chain != self._court.chain:
            raise VerificationError("microblock of another chain")
        if not solicited and (signed.block.node_id in self.revoked or self._dead(signed)):
            return Insertion(Status.REFUSED)
        lane = self.lanes.get(signed.lane)
        if lane is None:
            if signed.seq != 1:
                return Insertion(Status.REFUSED, missing=(1, signed.seq, NO_PARENT))
            lane = self._open_lane(signed, solicited=solicited)
        if signed.id in lane.known:
            return Insertion(Status.KNOWN)
        if signed.seq <= lane.final_seq:
            return self._offer_old(lane, signed)
        enrolment = _enrolment_for(lane, signed)
        if enrolment is None:
            return self._offer_orphan(lane, signed, solicited=solicited)
        return self._offer_child(lane, signed, enrolment, solicited=solicited)

    def _dead(self, signed: SignedBlock) -> bool:
        """Tell whether a first block brings a key that nobody may use any more.

        It is not taken or reported, and so enters no checkpoint while most validators are honest
        and up to date. Where it does, the registry revokes its node with the next one.
        """
        if signed.seq != 1 or not self.dead_keys:
            return False
        return parse_enrolment(signed.block.body or {}).certificate.key in self.dead_keys

    def _open_lane(self, signed: SignedBlock, *, solicited: bool) -> Lane:
        node = signed.block.node_id
        unfinished = [
            inc for inc in self._by_node.get(node, ()) if not self.lanes[(node, inc)].final_seq
        ]
        if len(unfinished) >= self._config.open_lanes_max and not solicited:
            raise LimitExceededError(f"node {node}: too many unfinished incarnations")
        if len(self.lanes) >= LANES_MAX:
            raise LimitExceededError(f"more than {LANES_MAX} chains")
        self._check_first(signed)
        return self._new_lane(signed.lane)

    def _check_first(self, signed: SignedBlock) -> Enrolment:
        enrolment = parse_enrolment(signed.block.body or {})
        if enrolment.certificate.node_id != signed.block.node_id:
            raise VerificationError("enrolment: certificate of another node")
        key = check_enrolment(
            enrolment,
            self._court.chain,
            signed.block.timestamp_ms,
            self._court.ca_keys,
            self._court.signatures,
        )
        verify_block(signed, key, self._court.signatures)
        return enrolment

    def _offer_orphan(self, lane: Lane, signed: SignedBlock, *, solicited: bool) -> Insertion:
        if signed.seq > lane.head_seq + 1:
            if len(lane.waiting) < self._config.waiting_blocks_max:
                lane.waiting.setdefault(signed.seq, signed)
            return Insertion(Status.WAITING, missing=(lane.head_seq + 1, signed.seq - 1, NO_PARENT))
        if lane.forked and not solicited:
            return Insertion(Status.REFUSED)
        # The parent is not the block that we hold with that number: another branch.
        missing = (lane.final_seq + 1, signed.seq - 1, signed.block.prev)
        return Insertion(Status.REFUSED, missing=missing if missing[0] <= missing[1] else None)

    def _offer_child(
        self, lane: Lane, signed: SignedBlock, enrolment: Enrolment, *, solicited: bool
    ) -> Insertion:
        extends = signed.block.prev == lane.head_id and signed.seq == lane.head_seq + 1
        if not extends and lane.forked and not solicited:
            return Insertion(Status.REFUSED)
        if len(lane.known) >= self._config.lane_blocks_max:
            raise LimitExceededError(f"chain of {lane.key[0]}: too many blocks not yet final")
        if signed.seq == 1:
            self._check_first(signed)
        else:
            verify_block(signed, enrolment.certificate.key, self._court.signatures)
        lane.known[signed.id] = (signed, enrolment)
        if extends:
            lane.main.append(signed)
            drained = self._drain(lane) if lane.waiting else ()
            return Insertion(Status.ACCEPTED, (signed, *drained))
        return self._branch(lane, signed, enrolment)

    def _drain(self, lane: Lane) -> list[SignedBlock]:
        drained: list[SignedBlock] = []
        while (signed := lane.waiting.pop(lane.head_seq + 1, None)) is not None:
            enrolment = _enrolment_for(lane, signed)
            if enrolment is None or signed.block.prev != lane.head_id:
                break
            key = enrolment.certificate.key
            try:
                verify_block(signed, key, self._court.signatures)
            except VerificationError:
                break
            lane.known[signed.id] = (signed, enrolment)
            lane.main.append(signed)
            drained.append(signed)
        return drained

    def _branch(self, lane: Lane, signed: SignedBlock, enrolment: Enrolment) -> Insertion:
        lane.forked = True
        rival = lane.on_main(signed.seq)
        if rival is None or rival.id == signed.id:
            return Insertion(Status.ACCEPTED, (signed,))
        evidence = fork_evidence(enrolment, rival, signed)
        return Insertion(Status.ACCEPTED, (signed,), fork=evidence, fork_seq=signed.seq)

    def _offer_old(self, lane: Lane, signed: SignedBlock) -> Insertion:
        """Compare a block with the final one of the same number; a second one is a fork."""
        rival = self.stored(lane.key, signed.seq, NO_PARENT)
        if rival is None or self.stored(lane.key, signed.seq, signed.id) is not None:
            return Insertion(Status.KNOWN)
        if lane.forked or lane.enrolment is None:
            return Insertion(Status.REFUSED)
        if signed.seq == 1:
            self._check_first(signed)
        else:
            verify_block(signed, lane.enrolment.certificate.key, self._court.signatures)
        lane.forked = True
        evidence = fork_evidence(lane.enrolment, rival, signed)
        return Insertion(Status.REFUSED, fork=evidence, fork_seq=signed.seq)

    def stored(self, key: LaneKey, seq: int, block_id: bytes) -> SignedBlock | None:
        """Read a block from the store by number, and by id unless that is zero."""
        prefix = lane_row(key) + seq.to_bytes(8, "big")
        if block_id != NO_PARENT:
            data = self._reader.get(Table.BLOCKS, prefix + block_id)
            return decode_block(data) if data is not None else None
        rows = self._reader.scan(Table.BLOCKS, prefix, prefix_end(prefix), 1)
        return decode_block(rows[0][1]) if rows else None

    def finalize(self, covered: Range) -> tuple[list[SignedBlock] | None, list[Write]]:
        """Advance a lane to the end of a final range.

        Returns:
            The blocks of the range, None when some are missing, and the rows to write: the lane's
            own, and deletions of branches that lost (evidence keeps the pair that proves a fork).
        """
        lane = self.lanes.get(covered.lane) or self._new_lane(covered.lane)
        path = lane.path(covered.last, covered.head)
        kept = {signed.id for signed in path or ()}
        lost = [
            signed
            for signed, _ in lane.known.values()
            if signed.seq <= covered.last and signed.id not in kept
        ]
        lane.advance(covered.last, covered.head)
        deletions: list[Write] = [(Table.BLOCKS, signed.row_key(), None) for signed in lost]
        return path, [lane.row(), *deletions]

    def branch(self, key: LaneKey, first: int, last: int, head: bytes) -> list[SignedBlock]:
        """Return blocks held of first..last, ascending, of the branch that ends in `head`.

        With a zero head the main branch is read, from `first` up; otherwise from `last` down. The
        list may stop early, at a gap or at `BLOCKS_MAX` blocks.
        """
        found: list[SignedBlock] = []
        if head == NO_PARENT:
            for seq in range(first, min(last, first + BLOCKS_MAX - 1) + 1):
                signed = self._read(key, seq, NO_PARENT)
                if signed is None:
                    break
                found.append(signed)
            return found
        wanted = head
        for seq in range(last, max(first, last - BLOCKS_MAX + 1) - 1, -1):
            signed = self._read(key, seq, wanted)
            if signed is None:
                break
            found.append(signed)
            wanted = signed.block.prev
        return found[::-1]

    def _read(self, key: LaneKey, seq: int, block_id: bytes) -> SignedBlock | None:
        lane = self.lanes.get(key)
        if lane is None:
            return None
        if seq <= lane.final_seq:
            return self.stored(key, seq, block_id)
        if block_id == NO_PARENT:
            return lane.on_main(seq)
        entry = lane.known.get(block_id)
        return entry[0] if entry is not None and entry[0].seq == seq else None

    def complete(self, blocks: list[SignedBlock]) -> None:
        """Check blocks of a final range that arrived late; the caller has checked their links.

        Raises:
            VerificationError: A signature or the enrolment does not hold.
        """
        lane = self.lanes[blocks[0].lane]
        if blocks[0].seq == 1:
            lane.enrolment = self._check_first(blocks[0])
        if lane.enrolment is None:
            raise VerificationError(f"chain of {lane.key[0]}: its first block is not held")
        for signed in blocks:
            verify_block(signed, lane.enrolment.certificate.key, self._court.signatures)

    def trust(self, blocks: Sequence[LinkedBlock]) -> None:
        """Take blocks that are linked to a certified head: check the head's signature only.

        Raises:
            RemoteError: It does not hold, or the enrolment in a first block does not.
        """
        lane = self.lanes[blocks[0].lane]
        if blocks[0].seq == 1:
            lane.enrolment = self._check_first(blocks[0].parse())
        if lane.enrolment is None:
            raise VerificationError(f"chain of {lane.key[0]}: its first block is not held")
        verify_block(blocks[-1].parse(), lane.enrolment.certificate.key, self._court.signatures)

    @property
    def signatures(self) -> SignatureScheme:
        """How blocks are checked."""
        return self._court.signatures

    def know(self, blocks: list[SignedBlock], covered: Range) -> list[Write]:
        """Take over the relics of a final range: from block 1 on, whose key signs the chain.

        Raises:
            VerificationError: A signature or the enrolment does not hold, or a block is elsewhere.
        """
        if any(not covered.first <= signed.seq <= covered.last for signed in blocks):
            raise VerificationError(f"relics of {covered.node_id}: of another range")
        if not blocks:
            return []
        self.complete(blocks)
        return [self.lanes[covered.lane].row()]

    def heads(self) -> list[tuple[LaneKey, int]]:
        """Return the head of every lane that holds something, sorted."""
        return [(key, lane.head_seq) for key, lane in sorted(self.lanes.items()) if lane.head_seq]

    def advanced(self) -> list[tuple[LaneKey, int]]:
        """Return the heads above the last checkpoint of nodes that are not revoked, sorted."""
        return [
            (key, lane.head_seq)
            for key, lane in sorted(self.lanes.items())
            if lane.main and key[0] not in self.revoked and not self._dead(lane.main[0])
        ]

    def role(self, node: NodeId) -> str | None:
        """Return the role that a node is enrolled for; None while no chain of it is known."""
        for inc in sorted(self._by_node.get(node, ()), reverse=True):
            lane = self.lanes[(node, inc)]
            known = [enrolment for _, enrolment in lane.known.values()]
            for enrolment in (lane.enrolment, *known[:1]):
                if enrolment is not None:
                    return enrolment.certificate.role
        return None

    def incarnations(self, node: NodeId) -> tuple[Head, ...]:
        """Return the head of each known incarnation of a node, ascending."""
        lanes = [self.lanes[(node, inc)] for inc in sorted(self._by_node.get(node, ()))]
        return tuple(Head(lane.key[1], lane.head_seq, lane.head_id) for lane in lanes)


def _enrolment_for(lane: Lane, signed: SignedBlock) -> Enrolment | None:
    """Return the enrolment that a block inherits; None when its parent is not held."""
    if signed.seq == 1:
        return parse_enrolment(signed.block.body or {}) if lane.final_seq == 0 else None
    if signed.block.prev == lane.final_id and signed.seq == lane.final_seq + 1:
        return lane.enrolment
    entry = lane.known.get(signed.block.prev)
    if entry is None or entry[0].seq != signed.seq - 1:
        return None
    return entry[1]

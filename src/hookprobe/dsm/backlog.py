"""Final ranges that are not held, and signatures of those that were taken on trust.

A range that a final checkpoint names is fetched from its head down and taken by its links
(`dsm.linked`): one signature, that of the head, is checked at once, which costs a fraction of
checking all. The others are checked in the background, some at each turn; until they are, nothing
is proven out of that range, and a range with a false signature is fetched again from somebody else.
"""

from collections.abc import Sequence

from hookprobe.dsm.checkpoint import Range, read_range
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.effects import Effect, EpochCompleted, RangeFilled, Send
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.linked import read_linked
from hookprobe.dsm.messages import ANSWER_MAX_BYTES, PACK_MAX, GetPack, GetRange, Pack, PackEntry
from hookprobe.dsm.microblock import (
    LaneKey,
    SignedBlock,
    decode_payload,
    encode_payload,
    lane_row,
    verify_block,
)
from hookprobe.dsm.peers import Budget, Peer, PeerBook
from hookprobe.dsm.pulls import Delivery, PackPull, Puller
from hookprobe.dsm.store import Persist, StoreReader, Table, Write, prefix_end
from hookprobe.errors import RemoteError, UnauthorizedError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant, earliest
from hookprobe.wire.reader import Reader, Writer

MISSING_PREFIX = b"missing/"
TRUSTED_PREFIX = b"trusted/"
MISSING_MAX = 100_000
CHECKS_PER_TURN = 256
TURN_US = 10 * MILLISECOND

Filled = tuple[int, Range, list[SignedBlock]]


class Backlog:
    """What one validator still has to fetch and to check.

    Args:
        book: The blocks held.
        peers: The connected peers.
        reader: The store.
        config: Timers and limits.
    """

    def __init__(
        self, book: LaneBook, peers: PeerBook, reader: StoreReader, config: LedgerConfig
    ) -> None:
        self.missing: dict[LaneKey, list[tuple[int, Range]]] = {}
        self.trusted: dict[LaneKey, list[tuple[int, Range]]] = {}
        self.filled: list[Filled] = []  # taken by the ledger; only blocks with a body
        self.puller: Puller[PackEntry] = Puller(config)
        self._book = book
        self._peers = peers
        self._reader = reader
        self._turn_at: Instant | None = None
        self._lenders: dict[tuple[int, Range], NodeId] = {}  # who gave what is taken on trust
        self._load(MISSING_PREFIX, self.missing)
        self._load(TRUSTED_PREFIX, self.trusted)

    def _load(self, prefix: bytes, into: dict[LaneKey, list[tuple[int, Range]]]) -> None:
        for _, value in self._reader.scan(Table.META, prefix, prefix_end(prefix), MISSING_MAX):
            reader = Reader(value, "stored range")
            epoch, covered = reader.u64(), read_range(reader)
            into.setdefault(covered.lane, []).append((epoch, covered))

    # -- what is missing ----------------------------------------------------------------------

    def remember(self, epoch: int, covered: Range) -> Write:
        """Note that a final range is not held and return its row."""
        self.missing.setdefault(covered.lane, []).append((epoch, covered))
        return _row(MISSING_PREFIX, epoch, covered)

    def forget(self, epoch: int, covered: Range) -> list[Write]:
        """Cease to want a range that nobody has any more."""
        if (epoch, covered) not in self.missing.get(covered.lane, ()):
            return []
        _remove(self.missing, (epoch, covered))
        return [_gone(MISSING_PREFIX, covered)]

    def fetch(self, now: Instant) -> list[Effect]:
        """Ask for the earliest missing range of each chain."""
        sends: list[Effect] = []
        for lane in sorted(self.missing):
            _, covered = self.missing[lane][0]
            sends += self._ask(covered, self._sources(lane), now)
        return sends

    def _ask(self, covered: Range, sources: Sequence[NodeId], now: Instant) -> Sequence[Effect]:
        pull = PackPull(covered.lane, covered.first, covered.last, covered.head, list(sources))
        return self.puller.want(pull, now)

    def _sources(self, lane: LaneKey) -> list[NodeId]:
        """Return whom to ask: offenders last, and each chain elsewhere first to spread the load."""
        names = self._peers.validators()
        start = sum(lane_row(lane)) % max(len(names), 1)
        return self._peers.ranked(names[start:] + names[:start])

    def receive_pack(self, peer: Peer, message: Pack, now: Instant) -> list[Effect]:
        """Take an answer; one whose signatures do not hold is asked of another peer.

        Raises:
            VerificationError: Nobody asked this peer for it, or it does not lead to the head.
        """
        if not peer.buckets[Budget.CHECKS].take(1, now):
            return []
        delivery, sends = self.puller.receive_blocks(peer.node_id, message, now)
        effects: list[Effect] = list(sends)
        if delivery is not None:
            effects += self._fill(peer, delivery, now)
        return effects

    def receive_get_pack(self, peer: Peer, message: GetPack) -> list[Effect]:
        """Answer a validator, or who is enrolled to become one, as much as a frame takes.

        Raises:
            UnauthorizedError: Edges are not served.
            VerificationError: Numbers out of order.
        """
        served = may_pull(self._book, peer, message)
        entries: list[PackEntry] = []
        room, wanted = ANSWER_MAX_BYTES, message.head
        for seq in range(message.last, message.first - 1, -1):
            if not served or len(entries) == PACK_MAX:
                break
            key = lane_row(message.lane) + seq.to_bytes(8, "big") + wanted
            row = self._reader.get(Table.BLOCKS, key)
            payload = self._reader.get(Table.PAYLOADS, wanted)
            room -= len(row or b"") + len(payload or b"") + 16
            if row is None or room < 0:
                break
            reader = Reader(row, "stored block")
            linked = read_linked(reader, message.lane)
            entries.append(PackEntry(linked, decode_payload(payload) if payload else None))
            wanted = linked.prev
        return [Send(peer.node_id, Pack(message.request, message.lane, tuple(entries[::-1])))]

    def _fill(self, peer: Peer, delivery: Delivery[PackEntry], now: Instant) -> list[Effect]:
        entries, blocks = delivery.entries, [entry.signed for entry in delivery.entries]
        lane = blocks[0].lane
        gaps = self.missing.get(lane, [])
        if not gaps or (gaps[0][1].first, gaps[0][1].head) != (blocks[0].seq, blocks[-1].id):
            return self.fetch(now)  # pruned, or filled by then
        epoch, covered = gaps[0]
        try:
            self._book.trust(blocks)
        except RemoteError as failure:
            self._peers.accuse(peer.node_id, failure)
            return list(self._ask(covered, delivery.rest, now))
        _remove(self.missing, (epoch, covered))
        self._lenders[epoch, covered] = peer.node_id
        self.trusted.setdefault(lane, []).append((epoch, covered))
        self._turn_at = self._turn_at or Instant(now + TURN_US)
        self.filled.append((epoch, covered, [item.parse() for item in blocks if item.has_body]))
        writes: list[Write] = [
            _gone(MISSING_PREFIX, covered),
            _row(TRUSTED_PREFIX, epoch, covered),
            self._book.lanes[lane].row(),
        ]
        writes += [(Table.BLOCKS, item.row_key(), item.encode()) for item in blocks]
        writes += [
            (Table.PAYLOADS, entry.signed.id, encode_payload(entry.payload))
            for entry in entries
            if entry.payload is not None and entry.payload.hash() == entry.signed.payload_hash
        ]
        effects: list[Effect] = [
            Persist(tuple(writes)),
            RangeFilled(epoch, lane, covered.first, covered.last),
        ]
        if all(item[0] != epoch for rest in self.missing.values() for item in rest):
            effects.append(EpochCompleted(epoch))
        return effects + self.fetch(now)

    # -- what was taken on trust --------------------------------------------------------------

    def proves(self, epoch: int) -> bool:
        """Whether every signature of an epoch's blocks that we hold has been checked."""
        return all(item[0] != epoch for rest in self.trusted.values() for item in rest)

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is due."""
        return earliest(self._turn_at, self.puller.next_timeout())

    def start(self, now: Instant) -> None:
        """Go on with what an earlier life took on trust."""
        self._turn_at = Instant(now + TURN_US) if self.trusted else None

    def handle_timeout(self, now: Instant) -> tuple[list[NodeId], list[Effect]]:
        """Return the peers that did not answer, and what to do."""
        late, sends = self.puller.handle_timeout(now)
        effects: list[Effect] = list(sends)
        if self._turn_at is not None and self._turn_at <= now:
            effects += self._check_some()
            self._turn_at = Instant(now + TURN_US) if self.trusted else None
        return late, effects

    def _check_some(self) -> list[Effect]:
        writes: list[Write] = []
        room = CHECKS_PER_TURN
        while self.trusted and room > 0:
            lane = next(iter(self.trusted))
            epoch, covered = self.trusted[lane][0]
            room -= covered.count
            _remove(self.trusted, (epoch, covered))
            writes.append(_gone(TRUSTED_PREFIX, covered))
            lender = self._lenders.pop((epoch, covered), None)
            if not self._holds(covered):
                writes += self._discard(covered)
                writes.append(self.remember(epoch, covered))
                if lender is not None:
                    self._peers.accuse(lender, VerificationError("signatures that do not hold"))
        return [Persist(tuple(writes))] if writes else []

    def _stored(self, covered: Range) -> list[SignedBlock]:
        found: list[SignedBlock] = []
        last, head = covered.last, covered.head
        while last >= covered.first:
            part = self._book.branch(covered.lane, covered.first, last, head)
            if not part:
                break  # pruned meanwhile
            found = part + found
            last, head = part[0].seq - 1, part[0].prev
        return found

    def _holds(self, covered: Range) -> bool:
        enrolment = self._book.lanes[covered.lane].enrolment
        try:
            for signed in self._stored(covered):
                if enrolment is not None:
                    verify_block(signed, enrolment.certificate.key, self._book.signatures)
        except RemoteError:
            return False
        return True

    def _discard(self, covered: Range) -> list[Write]:
        return [(Table.BLOCKS, signed.row_key(), None) for signed in self._stored(covered)]


def may_pull(book: LaneBook, peer: Peer, message: GetPack | GetRange) -> bool:
    """Tell whether a peer is served blocks; False when its enrolment is not known yet.

    Raises:
        UnauthorizedError: Edges are not served.
        VerificationError: Numbers out of order.
    """
    role = book.role(peer.node_id) if peer.place is None else "validator"
    if role == "edge":
        raise UnauthorizedError("range asked for by an edge")
    if not 1 <= message.first <= message.last:
        raise VerificationError("range request with numbers out of order")
    return role == "validator"


def _row(prefix: bytes, epoch: int, covered: Range) -> Write:
    writer = Writer().u64(epoch)
    covered.write(writer)
    return (Table.META, _key(prefix, covered), writer.finish())


def _gone(prefix: bytes, covered: Range) -> Write:
    return (Table.META, _key(prefix, covered), None)


def _key(prefix: bytes, covered: Range) -> bytes:
    return prefix + lane_row(covered.lane) + covered.first.to_bytes(8, "big")


def _remove(ranges: dict[LaneKey, list[tuple[int, Range]]], item: tuple[int, Range]) -> None:
    lane = item[1].lane
    ranges[lane].remove(item)
    if not ranges[lane]:
        del ranges[lane]

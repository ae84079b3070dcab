"""Bulk data on its way out: chunks of files, cut into equal fragments (HTP spec 3.5).

Chunks do not queue in an ordered channel: every fragment repeats the 16 bytes in front of the chunk
and says which fragment of how many it is, so the receiver writes it to its place without waiting
for any other. Fragments of a chunk have one size, the last one padded, so that a run of packets can
be handed to the host's segmentation in one call.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from hookprobe.errors import LocalError
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES

HEAD_BYTES = 16
CHUNK_MAX_BYTES = 1 << 14
RUN_MAX = 64  # what hosts take in one call
CHUNK_COST_BYTES = 512


class OutChunk:
    """A chunk and which of its fragments have not arrived.

    Attributes:
        head: The 16 bytes every fragment repeats.
        data: The chunk.
        sequence: Message number of its packets.
        last: Number of fragments less one.
        piece_bytes: Size of a fragment.
        waiting: Bit i: fragment i has not arrived.
    """

    __slots__ = ("data", "head", "last", "piece_bytes", "sequence", "waiting")

    def __init__(self, head: bytes, data: bytes, sequence: int) -> None:
        self.head = head
        self.data = data
        self.sequence = sequence
        self.last = -1
        self.piece_bytes = 0
        self.waiting = 1

    @property
    def packet_bytes(self) -> int:
        """Size of its packets."""
        return SEALED_OVERHEAD_BYTES + HEAD_BYTES + self.piece_bytes

    def cut(self, datagram_bytes: int) -> int:
        """Choose the fragments for a size of datagram; return their number."""
        room = datagram_bytes - SEALED_OVERHEAD_BYTES - HEAD_BYTES
        count = max(1, -(-len(self.data) // room))
        self.piece_bytes = -(-len(self.data) // count)
        self.last = count - 1
        self.waiting = (1 << count) - 1
        return count


class Piece(NamedTuple):
    """One fragment, the content of one packet; stale once its chunk was cut anew."""

    chunk: OutChunk
    place: int
    last: int

    @property
    def wanted(self) -> bool:
        """Whether it is of the present cut and has not arrived."""
        return self.last == self.chunk.last and bool(self.chunk.waiting >> self.place & 1)


class Part(NamedTuple):
    """What a packet of a run is made of; see `Session.seal_run`."""

    sequence: int
    fragment: int
    head: bytes
    body: bytes


class BulkQueue:
    """The chunks held for one peer.

    Args:
        held_max: Bytes of chunks, on the way or not.
    """

    __slots__ = ("_held_max", "_lost", "_pieces", "_sequence", "_waiting", "held")

    def __init__(self, held_max: int) -> None:
        self._held_max = held_max
        self._waiting: deque[OutChunk] = deque()
        self._pieces: deque[Piece] = deque()
        self._lost: deque[Piece] = deque()
        self._sequence = 0
        self.held = 0

    def __bool__(self) -> bool:
        return bool(self._lost or self._pieces or self._waiting)

    @property
    def room(self) -> int:
        """Bytes that chunks may still have."""
        return max(0, self._held_max - self.held)

    def offer(self, head: bytes, data: bytes) -> bool:
        """Queue a chunk; False if there is no room.

        Raises:
            LocalError: Not a chunk and its 16 bytes.
        """
        if len(head) != HEAD_BYTES or not 0 < len(data) <= CHUNK_MAX_BYTES:
            raise LocalError("bulk: a chunk has 1 to 16384 bytes behind a header of 16")
        cost = len(data) + CHUNK_COST_BYTES
        if self.held + cost > self._held_max:
            return False
        self.held += cost
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._waiting.append(OutChunk(head, data, self._sequence))
        return True

    def take(self, room: int, datagram_bytes: int) -> list[Piece]:
        """Return the next fragments, all of one packet size and together within `room` bytes."""
        run: list[Piece] = []
        size = 0
        while len(run) < RUN_MAX:
            piece = self._next(datagram_bytes)
            if piece is None:
                break
            packet_bytes = piece.chunk.packet_bytes
            if (size and packet_bytes != size) or (len(run) + 1) * packet_bytes > room:
                self._pieces.appendleft(piece)
                break
            size = packet_bytes
            run.append(piece)
        return run

    def _next(self, datagram_bytes: int) -> Piece | None:
        while self._lost:
            piece = self._lost.popleft()
            chunk = piece.chunk
            if piece.wanted:
                if chunk.packet_bytes > datagram_bytes:
                    self._queue(chunk, datagram_bytes)
                    continue
                return piece
        while self._pieces:
            piece = self._pieces.popleft()
            chunk = piece.chunk
            if piece.last != chunk.last:
                continue
            if chunk.packet_bytes > datagram_bytes:
                self._queue(chunk, datagram_bytes)
                continue
            return piece
        if not self._waiting:
            return None
        self._queue(self._waiting.popleft(), datagram_bytes)
        return self._pieces.popleft()

    def _queue(self, chunk: OutChunk, datagram_bytes: int) -> None:
        count = chunk.cut(datagram_bytes)
        last = count - 1
        self._pieces.extend([Piece(chunk, place, last) for place in range(count)])

    def put_back(self, piece: Piece) -> None:
        """Send this fragment again, before anything new."""
        self._lost.append(piece)

    def on_arrived(self, piece: Piece) -> None:
        """Note that the peer has a fragment; a whole chunk leaves the queue."""
        chunk, place, last = piece
        if last != chunk.last or not chunk.waiting:
            return
        chunk.waiting &= ~(1 << place)
        if not chunk.waiting:
            self.held -= len(chunk.data) + CHUNK_COST_BYTES
            chunk.data = b""


def parts_of(run: list[Piece]) -> Iterator[Part]:
    """Yield what the packets of a run are made of."""
    for chunk, place, last in run:
        start = place * chunk.piece_bytes
        body = chunk.data[start : start + chunk.piece_bytes]
        yield Part(chunk.sequence, place << 8 | last, chunk.head, body)

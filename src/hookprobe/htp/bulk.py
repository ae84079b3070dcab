"""Bulk data on its way out: chunks of files, cut into equal fragments (HTP spec 3.5).

Chunks do not queue in an ordered channel: every fragment repeats the 16 bytes in front of the chunk
and says which fragment of how many it is, so the receiver writes it to its place without waiting
for any other. Fragments of a chunk have one size, the last one padded, so that a run of packets can
be handed to the host's segmentation in one call.
"""

from collections import deque
from collections.abc import Sequence
from itertools import repeat
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
        packet_bytes: Size of its packets.
        next: The fragment to be sent next.
        waiting: Bit i: fragment i has not arrived.
    """

    __slots__ = (
        "data",
        "head",
        "last",
        "next",
        "packet_bytes",
        "piece_bytes",
        "sequence",
        "waiting",
    )

    def __init__(self, head: bytes, data: bytes, sequence: int) -> None:
        self.head = head
        self.data = data
        self.sequence = sequence
        self.last = -1
        self.piece_bytes = self.packet_bytes = self.next = 0
        self.waiting = 1

    def cut(self, datagram_bytes: int) -> None:
        """Choose the fragments for a size of datagram, and begin with the first."""
        room = datagram_bytes - SEALED_OVERHEAD_BYTES - HEAD_BYTES
        count = max(1, -(-len(self.data) // room))
        self.piece_bytes = -(-len(self.data) // count)
        self.packet_bytes = SEALED_OVERHEAD_BYTES + HEAD_BYTES + self.piece_bytes
        self.last = count - 1
        self.next = 0
        self.waiting = (1 << count) - 1


class Piece(NamedTuple):
    """One fragment, the content of one packet; stale once its chunk was cut anew."""

    chunk: OutChunk
    place: int
    last: int

    @property
    def wanted(self) -> bool:
        """Whether it is of the present cut and has not arrived."""
        return self.last == self.chunk.last and bool(self.chunk.waiting >> self.place & 1)


# A named tuple made by its class goes through a function in Python; this does not.
_tuple = tuple.__new__


class BulkQueue:
    """The chunks held for one peer.

    Args:
        held_max: Bytes of chunks, on the way or not.
    """

    __slots__ = ("_held_max", "_lost", "_sequence", "_waiting", "held")

    def __init__(self, held_max: int) -> None:
        self._held_max = held_max
        self._waiting: deque[OutChunk] = deque()
        self._lost: deque[Piece] = deque()
        self._sequence = 0
        self.held = 0

    def __bool__(self) -> bool:
        return bool(self._lost or self._waiting)

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
        run = self._take_lost(room, datagram_bytes)
        if run or self._lost:
            return run
        size = 0
        while len(run) < RUN_MAX:
            chunk = self._current(datagram_bytes)
            if chunk is None or (size and chunk.packet_bytes != size):
                break
            size = chunk.packet_bytes
            fits = min(room // size, RUN_MAX) - len(run)
            if fits <= 0:
                break
            first, last = chunk.next, chunk.last
            chunk.next = stop = min(first + fits, last + 1)
            places = zip(repeat(chunk), range(first, stop), repeat(last))
            run += map(_tuple, repeat(Piece), places)
            if stop > last:
                self._waiting.popleft()
        return run

    def _current(self, datagram_bytes: int) -> OutChunk | None:
        """Return the chunk whose turn it is, cut for this size of datagram."""
        if not self._waiting:
            return None
        chunk = self._waiting[0]
        if chunk.last < 0 or chunk.packet_bytes > datagram_bytes:
            chunk.cut(datagram_bytes)
        return chunk

    def _take_lost(self, room: int, datagram_bytes: int) -> list[Piece]:
        run: list[Piece] = []
        size = 0
        while self._lost and len(run) < RUN_MAX:
            piece = self._lost[0]
            if piece.wanted:
                packet_bytes = piece.chunk.packet_bytes
                if packet_bytes > datagram_bytes:
                    # The path became narrower: all of the chunk again, in finer fragments.
                    piece.chunk.cut(datagram_bytes)
                    self._waiting.appendleft(piece.chunk)
                elif (size and packet_bytes != size) or (len(run) + 1) * packet_bytes > room:
                    break
                else:
                    size = packet_bytes
                    run.append(piece)
            self._lost.popleft()
        return run

    def put_back(self, piece: Piece) -> None:
        """Send this fragment again, before anything new."""
        self._lost.append(piece)

    def on_arrived(self, pieces: Sequence[Piece]) -> None:
        """Note that the peer has these fragments; a whole chunk leaves the queue."""
        for chunk, place, last in pieces:
            if last != chunk.last or not chunk.waiting:
                continue
            chunk.waiting &= ~(1 << place)
            if not chunk.waiting:
                self.held -= len(chunk.data) + CHUNK_COST_BYTES
                chunk.data = b""

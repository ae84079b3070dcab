"""Bulk data on its way out: chunks of files, cut into equal fragments (HTP spec 3.5).

Chunks do not queue in an ordered channel: every fragment repeats the 16 bytes in front of the chunk
and says which fragment of how many it is, so the receiver writes it to its place without waiting
for any other. Fragments of a chunk have one size, the last one padded, so that a run of packets can
be handed to the host's segmentation in one call.
"""

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from hookprobe.errors import LocalError
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES

HEAD_BYTES = 16
CHUNK_MAX_BYTES = 1 << 16
RUN_MAX = 64  # what hosts take in one call
RUN_MAX_BYTES = 65_000  # the same; with headers, a run is one IP packet inside the host
CHUNK_COST_BYTES = 512


class OutChunk:
    """A chunk and which of its fragments have not arrived.

    Attributes:
        head: The 16 bytes every fragment repeats.
        size: Bytes of the chunk.
        pieces: Its fragments; the last may be shorter, or empty, where it is padded.
        sequence: Message number of its packets.
        last: Number of fragments less one.
        piece_bytes: Size of a fragment.
        packet_bytes: Size of its packets.
        next: The fragment to be sent next.
        waiting: Bit i: fragment i has not arrived.
    """

    __slots__ = (
        "head",
        "last",
        "next",
        "packet_bytes",
        "piece_bytes",
        "pieces",
        "sequence",
        "size",
        "waiting",
    )

    def __init__(self, head: bytes, data: bytes, sequence: int) -> None:
        self.head = head
        self.size = len(data)
        self.sequence = sequence
        self.last = -1
        self.piece_bytes = self.packet_bytes = self.next = 0
        self.waiting = 1
        self.pieces: Sequence[bytes] = (data,)

    def cut(self, datagram_bytes: int) -> None:
        """Choose the fragments for a size of datagram, and begin with the first."""
        room = datagram_bytes - SEALED_OVERHEAD_BYTES - HEAD_BYTES
        count = max(1, -(-self.size // room))
        self.piece_bytes = size = -(-self.size // count)
        self.packet_bytes = SEALED_OVERHEAD_BYTES + HEAD_BYTES + size
        self.last = count - 1
        self.next = 0
        self.waiting = (1 << count) - 1
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        if size * count == self.size:
            self.pieces = _cutter(size, count).unpack(data)
        else:
            self.pieces = [data[at : at + size] for at in range(0, size * count, size)]


# A named tuple made by its class goes through a function in Python; this does not.
_tuple = tuple.__new__


class Span(NamedTuple):
    """Neighbouring fragments of one chunk; stale once the chunk was cut anew.

    Attributes:
        chunk: Of all of them.
        first: The first one.
        width: How many.
        last: Number of fragments of the chunk less one.
    """

    chunk: OutChunk
    first: int
    width: int
    last: int


class Run(NamedTuple):
    """Spans whose packets leave together, the content of all of those."""

    spans: Sequence[Span]

    def pick(self, which: int) -> list[Span]:
        """Return the fragments whose bit is set in `which`, one by one."""
        found = []
        for (chunk, first, width, last), part in self._parts(which):
            found += [
                Span(chunk, first + place, 1, last) for place in range(width) if part >> place & 1
            ]
        return found

    def _parts(self, which: int) -> Iterator[tuple[Span, int]]:
        for span in self.spans:
            part = which & (1 << span.width) - 1
            which >>= span.width
            if part:
                yield span, part


@lru_cache(maxsize=64)
def _cutter(size: int, count: int) -> struct.Struct:
    return struct.Struct(f"{size}s" * count)


class BulkQueue:
    """The chunks held for one peer.

    Args:
        held_max: Bytes of chunks, on the way or not.
    """

    __slots__ = ("_held_max", "_lost", "_sequence", "_waiting", "held")

    def __init__(self, held_max: int) -> None:
        self._held_max = held_max
        self._waiting: deque[OutChunk] = deque()
        self._lost: deque[Span] = deque()
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
            raise LocalError(f"bulk: a chunk has 1 to {CHUNK_MAX_BYTES} bytes and a header of 16")
        cost = len(data) + CHUNK_COST_BYTES
        if self.held + cost > self._held_max:
            return False
        self.held += cost
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._waiting.append(OutChunk(head, data, self._sequence))
        return True

    def take(self, room: int, datagram_bytes: int) -> list[Span]:
        """Return the next fragments, all of one packet size and together within `room` bytes."""
        run = self._take_lost(room, datagram_bytes)
        if run or self._lost:
            return run
        size = left = 0
        while chunk := self._current(datagram_bytes):
            if chunk.packet_bytes != size:
                if size:
                    break
                size = chunk.packet_bytes
                left = _run_limit(room, size)
            first, last = chunk.next, chunk.last
            width = min(left, last + 1 - first)
            if left <= 0:
                break
            if width:  # a chunk that was cut anew while it was waiting stands here twice
                run.append(_tuple(Span, (chunk, first, width, last)))
            left -= width
            chunk.next = first + width
            if chunk.next > last:
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

    def _take_lost(self, room: int, datagram_bytes: int) -> list[Span]:
        run: list[Span] = []
        size = 0
        while self._lost:
            span = self._lost[0]
            if is_wanted(span):
                packet_bytes = span.chunk.packet_bytes
                if packet_bytes > datagram_bytes:
                    # The path became narrower: all of the chunk again, in finer fragments.
                    span.chunk.cut(datagram_bytes)
                    self._waiting.appendleft(span.chunk)
                elif (size and packet_bytes != size) or len(run) >= _run_limit(room, packet_bytes):
                    break
                else:
                    size = packet_bytes
                    run.append(span)
            self._lost.popleft()
        return run

    def put_back(self, run: Run, which: int) -> None:
        """Send these fragments of it again, before anything new."""
        self._lost += run.pick(which)

    def on_arrived(self, run: Run, which: int) -> None:
        """Note that the peer has these fragments; a whole chunk leaves the queue."""
        for chunk, first, width, last in run.spans:
            part = which & (1 << width) - 1
            which >>= width
            if last != chunk.last or not chunk.waiting:
                continue
            chunk.waiting &= ~(part << first)
            if not chunk.waiting:
                self.held -= chunk.size + CHUNK_COST_BYTES
                chunk.pieces = ()


def is_wanted(span: Span) -> bool:
    """Whether it is of the present cut and some of it has not arrived."""
    chunk, first, width, last = span
    return last == chunk.last and bool(chunk.waiting >> first & (1 << width) - 1)


def _run_limit(room: int, packet_bytes: int) -> int:
    """Return how many packets of one size may leave in one run."""
    return min(min(room, RUN_MAX_BYTES) // packet_bytes, RUN_MAX)

"""Messages on their way out: cut into fragments, sent by priority, kept until acknowledged.

A message is cut into chunks of 8 KiB and a chunk into equal fragments that fit a base-size
datagram, as files are (HTP spec 3.5). The queue is bounded, and lower priorities may fill only part
of it; a message that does not fit is refused to the caller's face. `credit` is what the peer is
willing to hold (flow control): every fragment costs its length and `FRAGMENT_COST_BYTES`.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from hookprobe.errors import LocalError
from hookprobe.htp.channels import PRIORITIES, QUEUE_QUARTERS, Channel, Priority
from hookprobe.htp.config import DATAGRAM_BYTES, MESSAGE_MAX_BYTES
from hookprobe.htp.messages import (
    FRAGMENT_HEADER_BYTES,
    FragmentHeader,
    encode_fragment_header,
    message_tag,
)
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES, VEIL_BYTES, Mode

CHUNK_BYTES = 8192
# 1056: also within the veil of GHOST, so that a message need not be cut anew.
PIECE_MAX_BYTES = DATAGRAM_BYTES - SEALED_OVERHEAD_BYTES - FRAGMENT_HEADER_BYTES - VEIL_BYTES
FRAGMENT_COST_BYTES = 64  # what holding a piece costs besides its bytes
CREDIT_INITIAL_BYTES = 256 << 10  # before the first acknowledgement says more


class OutMessage:
    """A message and which of its fragments have arrived."""

    __slots__ = (
        "arrived",
        "channel",
        "chunks",
        "data",
        "mode",
        "number",
        "sequence",
        "tag",
        "total",
    )

    def __init__(
        self,
        channel: Channel,
        data: bytes,
        number: int,
        sequence: int,
        mode: Mode = Mode.NORMAL,
    ) -> None:
        self.mode = mode
        self.channel = channel
        self.data = data
        self.number = number
        self.sequence = sequence
        self.chunks = max(1, -(-len(data) // CHUNK_BYTES))
        self.tag = message_tag(data)
        self.total = sum(
            fragment_count(min(CHUNK_BYTES, len(data) - start))
            for start in range(0, self.chunks * CHUNK_BYTES, CHUNK_BYTES)
        )
        self.arrived: set[int] = set()

    def is_done(self) -> bool:
        """Whether everything arrived."""
        return len(self.arrived) == self.total


class Fragment(NamedTuple):
    """One piece of a message, the content of one DATA packet."""

    message: OutMessage
    chunk_index: int
    frag_index: int
    frag_last: int
    start: int
    stop: int

    @property
    def cost(self) -> int:
        """What it takes from the peer's credit."""
        return self.stop - self.start + FRAGMENT_COST_BYTES

    @property
    def wanted(self) -> bool:
        """Whether it has not arrived."""
        return bool(self.message.data) and self.key not in self.message.arrived

    @property
    def key(self) -> int:
        """Its place within the message."""
        return self.chunk_index << 8 | self.frag_index

    def payload(self) -> bytes:
        """Return the DATA payload."""
        message = self.message
        header = FragmentHeader(
            message.channel, self.chunk_index, message.number, message.chunks, message.tag
        )
        return encode_fragment_header(header) + message.data[self.start : self.stop]


def fragment_count(length: int) -> int:
    """Return into how many fragments a chunk of `length` bytes is cut."""
    return max(1, -(-length // PIECE_MAX_BYTES))


def cut(message: OutMessage) -> Iterator[Fragment]:
    """Yield the fragments: equal within a chunk, the last one shorter."""
    for chunk_index in range(message.chunks):
        begin = chunk_index * CHUNK_BYTES
        end = min(begin + CHUNK_BYTES, len(message.data))
        count = fragment_count(end - begin)
        size = -(-(end - begin) // count)
        for index in range(count):
            start = begin + index * size
            yield Fragment(message, chunk_index, index, count - 1, start, min(start + size, end))


class _Lane:
    """The messages of one priority: lost fragments, the next new one, and what follows."""

    __slots__ = ("head", "lost", "pieces", "waiting")

    def __init__(self) -> None:
        self.lost: deque[Fragment] = deque()
        self.waiting: deque[OutMessage] = deque()
        self.pieces: Iterator[Fragment] = iter(())
        self.head: Fragment | None = None

    @property
    def pending(self) -> bool:
        """Whether there is anything to take, as far as that is known without taking it."""
        return bool(self.lost or self.waiting) or self.peek() is not None

    def take_lost(self) -> Fragment | None:
        """Return a lost fragment that has not arrived after all."""
        while self.lost:
            fragment = self.lost.popleft()
            if fragment.key not in fragment.message.arrived:
                return fragment
        return None

    def peek(self) -> Fragment | None:
        """Return the next new fragment without taking it."""
        while self.head is None:
            self.head = next(self.pieces, None)
            if self.head is None:
                if not self.waiting:
                    return None
                self.pieces = cut(self.waiting.popleft())
        return self.head


class Outbox:
    """The send side of all channels of one peer.

    Args:
        queue_max_bytes: Message bytes held, sent and unsent together.
    """

    __slots__ = (
        "_lanes",
        "_numbers",
        "_queue_max",
        "_sequence",
        "_spent",
        "credit",
        "held",
    )

    def __init__(self, queue_max_bytes: int) -> None:
        self._queue_max = queue_max_bytes
        # Lanes come into being on first use: an idle peer among many should cost little memory.
        self._lanes: list[_Lane | None] = [None] * len(Priority)
        self._numbers: dict[Channel, int] = {}
        self._sequence = 0
        self._spent = 0
        self.credit = CREDIT_INITIAL_BYTES
        self.held = 0

    def offer(self, channel: Channel, data: bytes, mode: Mode = Mode.NORMAL) -> bool:
        """Queue a message; False if the part of the queue open to its priority is full.

        Raises:
            LocalError: The message is larger than 1 MiB.
        """
        if len(data) > MESSAGE_MAX_BYTES:
            raise LocalError(f"message of {len(data)} bytes, limit {MESSAGE_MAX_BYTES}")
        priority = PRIORITIES[channel]
        cost = len(data) + FRAGMENT_COST_BYTES
        if self.held + cost > self._queue_max * QUEUE_QUARTERS[priority] // 4:
            return False
        number = self._numbers.get(channel, 0)
        self._numbers[channel] = number + 1 & 0xFFFFFFFF
        message = OutMessage(channel, data, number, self._sequence, mode)
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._lane(priority).waiting.append(message)
        self.held += cost
        return True

    @property
    def pending(self) -> bool:
        """Whether anything waits to be sent, with or without credit."""
        return any(lane is not None and lane.pending for lane in self._lanes)

    def take(self, first: int = 0, stop: int = len(Priority)) -> Fragment | None:
        """Return the next fragment to send: by priority, lost ones first, new ones on credit.

        Args:
            first: The highest priority that may send.
            stop: The priority behind the lowest that may send.
        """
        for lane in self._lanes[first:stop]:
            if lane is None:
                continue
            lost = lane.take_lost()
            if lost is not None:
                return lost
            fragment = lane.peek()
            if fragment is not None and self._spent + fragment.cost <= self.credit:
                self._spent += fragment.cost
                lane.head = None
                return fragment
        return None

    def put_back(self, fragment: Fragment) -> None:
        """Send this fragment again, before anything new of its priority."""
        self._lane(PRIORITIES[fragment.message.channel]).lost.append(fragment)

    def _lane(self, priority: Priority) -> _Lane:
        lane = self._lanes[priority]
        if lane is None:
            lane = self._lanes[priority] = _Lane()
        return lane

    def on_arrived(self, fragment: Fragment) -> None:
        """Note that the peer has a fragment; a complete message leaves the queue."""
        message = fragment.message
        if message.is_done():
            return
        message.arrived.add(fragment.key)
        if message.is_done():
            self.held -= len(message.data) + FRAGMENT_COST_BYTES
            message.data = b""

"""Which packets arrived, and when to say so (RFC 9000 section 13.2).

Waiting saves packets and never delays a message: messages are delivered on arrival. An
acknowledgement is due after some packets, after a short wait, or at once on a gap or a probe.
"""

from hookprobe.htp.messages import ACK_RANGES_MAX
from hookprobe.htp.packet import Header, PacketType
from hookprobe.wire.instant import MILLISECOND, Instant

EARLY_PACKETS = 100  # while the peer's window is small, every second packet is acknowledged
EARLY_EVERY = 2
BURST_PACKETS = 16  # so many at once come fast enough for the acknowledgement to wait for others
BURST_DELAY_US = MILLISECOND
GAP_MAX = 2**31  # a peer that jumps further has what lies behind forgotten; gaps are 32 bits wide


class AckTracker:
    """The received packet numbers of one session.

    Args:
        delay_us: The longest wait.
        every: Packets acknowledged together once the session is busy.
    """

    __slots__ = (
        "_count",
        "_delay_us",
        "_every",
        "_pending",
        "deadline",
        "echo_ts",
        "largest_at",
        "ranges",
    )

    def __init__(self, delay_us: int, every: int) -> None:
        self._delay_us = delay_us
        self._every = every
        self._pending = 0
        self._count = 0
        self.ranges: list[tuple[int, int]] = []
        self.deadline: Instant | None = None
        self.largest_at = Instant(0)
        self.echo_ts = 0

    def receive(self, header: Header, now: Instant) -> None:
        """Note a packet that opened; a heartbeat asks for an answer at once."""
        number, kind, ranges = header.nonce, header.kind, self.ranges
        first, largest = ranges[0] if ranges else (-1, -1)
        in_order = number == largest + 1
        if number > largest:
            self.largest_at, self.echo_ts = now, header.timestamp
        if in_order and ranges:
            ranges[0] = (first, number)
        else:
            self._insert(number)
        at_once = kind is PacketType.HEARTBEAT
        if kind is not PacketType.DATA and not at_once:
            return
        self._note(now, at_once=at_once or not in_order)

    def _note(self, now: Instant, *, at_once: bool) -> None:
        self._pending += 1
        self._count += 1
        every = EARLY_EVERY if self._count <= EARLY_PACKETS else self._every
        if at_once or self._pending >= every:
            self.deadline = now
        elif self.deadline is None:
            self.deadline = Instant(now + self._delay_us)

    def receive_next(self, timestamp: int, now: Instant, count: int = 1) -> None:
        """Note `count` DATA packets or heartbeats behind the largest; some have been noted before.

        Args:
            timestamp: Of the last of them.
            now: The time.
            count: How many.
        """
        first, largest = self.ranges[0]
        self.ranges[0] = (first, largest + count)
        self.largest_at, self.echo_ts = now, timestamp
        if self._count < EARLY_PACKETS or count == 1:
            for _ in range(count):
                self._note(now, at_once=False)
        elif count >= BURST_PACKETS:
            # More of them are behind, and an acknowledgement for each costs both ends more than
            # a tenth of what the packets do.
            self._count += count
            self._pending += count
            at = Instant(now + BURST_DELAY_US)
            self.deadline = at if self.deadline is None else min(self.deadline, at)
        else:
            self._count += count - 1
            self._pending += count - 1
            self._note(now, at_once=False)

    def receive_answered(self, timestamp: int, now: Instant) -> None:
        """Note the packet behind the largest, an acknowledgement of which leaves at once."""
        first, largest = self.ranges[0]
        self.ranges[0] = (first, largest + 1)
        self.largest_at, self.echo_ts = now, timestamp
        self._count += 1

    def _insert(self, number: int) -> None:
        low = high = number
        kept = []
        for first, last in self.ranges:
            if last + GAP_MAX < number:
                break
            if last + 1 < low or first - 1 > high:
                kept.append((first, last))
            else:
                low, high = min(low, first), max(high, last)
        kept.append((low, high))
        kept.sort(reverse=True)
        self.ranges = kept[: ACK_RANGES_MAX + 1]

    def sent(self) -> None:
        """Note that an acknowledgement left."""
        self._pending = 0
        self.deadline = None

    def freeze(self) -> tuple[int, int, int, int]:
        """Return what `thaw` needs besides the ranges: (count, pending, largest_at, echo_ts)."""
        return self._count, self._pending, self.largest_at, self.echo_ts

    def thaw(self, frozen: tuple[int, int, int, int], ranges: list[tuple[int, int]]) -> None:
        """Become what was frozen, with nothing due."""
        self._count, self._pending, largest_at, self.echo_ts = frozen
        self.largest_at = Instant(largest_at)
        self.ranges = ranges

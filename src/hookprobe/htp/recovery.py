"""Loss detection of one packet-number space, and the room to send in (RFC 9002).

Packets are never retransmitted, their content is: each sent packet carries an opaque `content`, and
acknowledging or losing the packet hands it back. Packets count towards one of two flights, each
with a congestion controller of its own: what somebody waits for, and background transfers. Probes
of the path's size count towards none, because their loss says nothing about congestion.

A mebibyte of a file is a thousand packets. What is kept is therefore one record for packets of one
size that left together, with a bit for each that is still on its way.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from hookprobe.errors import MalformedError
from hookprobe.htp.congestion import WINDOW_MIN_BYTES, Acked, Controller
from hookprobe.htp.pacing import Pacer
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

PACKET_THRESHOLD = 3  # RFC 9002 section 6.1.1
GRANULARITY_US = MILLISECOND  # section 6.1.2
RTT_INITIAL_US = 333 * MILLISECOND  # section 6.2.2
PTO_MAX_US = 5 * SECOND  # a healed path is noticed within this time
PERSISTENT_PTOS = 3  # section 7.6.1

Content = TypeVar("Content")

# A named tuple made by its class goes through a function in Python; this does not.
_tuple = tuple.__new__


class Flight:
    """What is on the way under one controller.

    Args:
        controller: The algorithm.
        burst_bytes: What may leave at once after a pause.
    """

    __slots__ = ("controller", "in_flight", "pacer", "recovery_start")

    def __init__(self, controller: Controller, burst_bytes: int = WINDOW_MIN_BYTES) -> None:
        self.controller = controller
        self.pacer = Pacer(burst_bytes)
        self.in_flight = 0
        self.recovery_start = Instant(-1)

    @property
    def window(self) -> int:
        """Bytes that may be on the way: two datagrams at least (RFC 9002 section 7.2)."""
        return max(self.controller.window, 2 * self.pacer.datagram_bytes)

    def room(self, rtt: int, now: Instant) -> int:
        """Return the bytes that window and pacing let go now."""
        window = self.window
        free = window - self.in_flight
        return free if free <= 0 else min(free, self.pacer.room(window, rtt, now))


class Sent(Generic[Content]):
    """Packets of one size that left together, with consecutive numbers.

    Attributes:
        number: Of the first.
        at: When.
        size: Of each.
        content: Of all of them.
        order: The place of the first among ack-eliciting packets.
        flight: What they count towards.
        waiting: Bit i: packet `number + i` has neither arrived nor been lost.
    """

    __slots__ = ("at", "content", "flight", "number", "order", "size", "waiting")

    def __init__(
        self,
        number: int,
        at: Instant,
        size: int,
        content: Content,
        order: int,
        flight: Flight | None,
    ) -> None:
        self.number = number
        self.at = at
        self.size = size
        self.content = content
        self.order = order
        self.flight = flight
        self.waiting = 1


class Settled(NamedTuple, Generic[Content]):
    """Packets of one record that arrived or were lost; bit i of `which`: the one of number + i."""

    sent: Sent[Content]
    which: int

    @property
    def first(self) -> int:
        """The place of the first of them in the record."""
        return (self.which & -self.which).bit_length() - 1

    @property
    def last(self) -> int:
        """The place of the last of them in the record."""
        return self.which.bit_length() - 1


class Outcome(NamedTuple, Generic[Content]):
    """What an acknowledgement or a timeout settled, each in ascending order of numbers."""

    arrived: list[Settled[Content]]
    lost: list[Settled[Content]]


class Recovery(Generic[Content]):
    """What was sent and what arrived.

    Args:
        ack_delay_us: How long the peer may hold back an acknowledgement.
    """

    __slots__ = (
        "_ack_delay_us",
        "_acked_largest",
        "_last_sent",
        "_latest",
        "_loss_at",
        "_order",
        "_rtt_min",
        "_rtt_variation",
        "_sampled_at",
        "_sent",
        "lost_count",
        "pto_count",
        "rtt",
    )

    def __init__(self, ack_delay_us: int) -> None:
        self._ack_delay_us = ack_delay_us
        self._sent: dict[int, Sent[Content]] = {}
        self._acked_largest = -1
        self._order = 0
        self._loss_at: Instant | None = None
        self._last_sent = Instant(0)
        self._sampled_at: Instant | None = None
        self._rtt_min = self._rtt_variation = self.rtt = self._latest = 0
        self.pto_count = self.lost_count = 0

    def restart(self) -> list[Settled[Content]]:
        """Begin a new packet-number space on the same path; return what was still on its way."""
        contents = [Settled(sent, sent.waiting) for sent in self._sent.values()]
        for sent, which in contents:
            if sent.flight is not None:
                sent.flight.in_flight -= sent.size * which.bit_count()
        self._sent = {}
        self._acked_largest = -1
        self._loss_at = None
        self.pto_count = 0
        return contents

    def on_sent(
        self, number: int, size: int, content: Content, flight: Flight | None, now: Instant
    ) -> None:
        """Note an ack-eliciting packet."""
        self.on_run_sent(range(number, number + 1), size, content, flight, now)

    def on_run_sent(
        self, numbers: range, size: int, content: Content, flight: Flight | None, now: Instant
    ) -> None:
        """Note packets of one size that leave together."""
        number, count = numbers.start, len(numbers)
        sent = Sent(number, now, size, content, self._order + 1, flight)
        sent.waiting = (1 << count) - 1
        self._sent[number] = sent
        self._order += count
        self._last_sent = now
        if flight is not None:
            whole = size * count
            flight.in_flight += whole
            flight.pacer.on_sent(whole)

    def on_ack(
        self,
        ranges: Sequence[tuple[int, int]],
        delays: tuple[int, int | None],
        next_number: int,
        now: Instant,
    ) -> Outcome[Content]:
        """Settle what an acknowledgement names, and what it shows to be lost.

        Args:
            ranges: (first, last), descending.
            delays: How long the peer held the acknowledgement back; and the one-way delay of the
                largest packet plus a constant, None if that is not known. Microseconds.
            next_number: The first packet number never used.
            now: The time.

        Raises:
            MalformedError: A packet is acknowledged that was never sent.
        """
        largest = ranges[0][1]
        if largest >= next_number:
            raise MalformedError("ACK: of a packet that was never sent")
        arrived = self._take(ranges)
        if not arrived:
            return Outcome([], [])
        self._latest = 0
        one_way = None
        newest = arrived[-1]
        if newest.sent.number + newest.last == largest > self._acked_largest:
            self._sample(now - newest.sent.at, min(delays[0], self._ack_delay_us))
            one_way = delays[1]
            if self._sampled_at is None:
                self._sampled_at = now
        self._acked_largest = max(self._acked_largest, largest)
        self.pto_count = 0
        self._tell_arrived(arrived, one_way, next_number, now)
        return Outcome(arrived, self._detect(now))

    def _take(self, ranges: Sequence[tuple[int, int]]) -> list[Settled[Content]]:
        arrived: list[Settled[Content]] = []
        place, largest = len(ranges) - 1, ranges[0][1]
        for number, sent in self._sent.items():
            if number > largest:
                break
            # Numbers below the oldest packet on its way were settled before.
            while ranges[place][1] < number:
                place -= 1
            which = sent.waiting & _named(ranges[: place + 1], number, sent.waiting.bit_length())
            if which:
                arrived.append(_tuple(Settled, (sent, which)))
        self._remove(arrived)
        return arrived

    def _remove(self, settled: list[Settled[Content]]) -> None:
        for sent, which in settled:
            sent.waiting ^= which
            if not sent.waiting:
                del self._sent[sent.number]

    def _tell_arrived(
        self, arrived: list[Settled[Content]], one_way: int | None, next_number: int, now: Instant
    ) -> None:
        sizes: dict[Flight, list[int]] = {}
        for sent, which in arrived:
            flight, size = sent.flight, sent.size * which.bit_count()
            if flight is not None:
                sums = sizes.get(flight)
                if sums is None:
                    sums = sizes[flight] = [0, 0]
                sums[0] += size
                if sent.at > flight.recovery_start:
                    sums[1] += size
        for flight, (whole, counted) in sizes.items():
            limited = flight.in_flight * 2 >= flight.window
            flight.in_flight -= whole
            flight.controller.on_acked(
                Acked(
                    counted,
                    self._acked_largest,
                    next_number,
                    self._latest,
                    self._rtt_min,
                    self.rtt,
                    one_way,
                    limited and counted > 0,
                    now,
                )
            )

    def _sample(self, latest: int, delay: int) -> None:
        """RFC 9002 section 5.3."""
        self._latest = latest = max(latest, 1)
        if not self.rtt:
            self.rtt = self._rtt_min = latest
            self._rtt_variation = latest // 2
            return
        self._rtt_min = min(self._rtt_min, latest)
        if latest >= self._rtt_min + delay:
            latest -= delay
        self._rtt_variation = (3 * self._rtt_variation + abs(self.rtt - latest)) // 4
        self.rtt = (7 * self.rtt + latest) // 8

    def seed_rtt(self, round_trip_us: int, now: Instant) -> None:
        """Start from the round trip of the handshake."""
        self._sample(round_trip_us, 0)
        self._sampled_at = now

    @property
    def pto_us(self) -> int:
        """The probe timeout with its backoff, RFC 9002 section 6.2.1."""
        if self.rtt:
            wait = self.rtt + max(4 * self._rtt_variation, GRANULARITY_US) + self._ack_delay_us
        else:
            wait = 3 * RTT_INITIAL_US
        return min(wait << min(self.pto_count, 20), max(PTO_MAX_US, wait))

    def _detect(self, now: Instant) -> list[Settled[Content]]:
        """RFC 9002 section 6.1: by packet threshold 3 or time threshold 9/8."""
        patience = max(max(self.rtt, self._latest) * 9 // 8, GRANULARITY_US)
        self._loss_at = None
        lost: list[Settled[Content]] = []
        for number, sent in self._sent.items():
            below = min(self._acked_largest - number, sent.waiting.bit_length())
            if below <= 0:
                break
            late = below
            if sent.at + patience > now:
                late = min(below, self._acked_largest - PACKET_THRESHOLD - number + 1)
            which = sent.waiting & (1 << late) - 1 if late > 0 else 0
            if which:
                lost.append(Settled(sent, which))
            if (sent.waiting ^ which) & (1 << below) - 1:
                self._loss_at = Instant(sent.at + patience)
                break
        self._remove(lost)
        for sent, which in lost:
            self.lost_count += which.bit_count()
            if sent.flight is not None:
                sent.flight.in_flight -= sent.size * which.bit_count()
        self._tell_lost(lost, now)
        return lost

    def _tell_lost(self, lost: list[Settled[Content]], now: Instant) -> None:
        counted = [one for one in lost if one.sent.flight is not None]
        for sent, _ in counted:
            flight = sent.flight
            if flight is not None and sent.at > flight.recovery_start:
                flight.recovery_start = now
                flight.controller.on_congestion(now)
        if counted and self._is_persistent(counted):
            for sent in (counted[0].sent, counted[-1].sent):
                if sent.flight is not None:
                    sent.flight.controller.on_persistent()

    def _is_persistent(self, lost: list[Settled[Content]]) -> bool:
        """RFC 9002 section 7.6.2: nothing arrived that was sent over three probe timeouts."""
        first, last = lost[0], lost[-1]
        if self._sampled_at is None or first.sent.at < self._sampled_at:
            return False
        span = self.rtt + max(4 * self._rtt_variation, GRANULARITY_US) + self._ack_delay_us
        count = sum(one.which.bit_count() for one in lost)
        apart = last.sent.order + last.last - first.sent.order - first.first
        return apart == count - 1 and last.sent.at - first.sent.at > PERSISTENT_PTOS * span

    def next_timeout(self) -> Instant | None:
        """When packets count as lost or a probe is due; None with nothing on the way."""
        if not self._sent:
            return None
        if self._loss_at is not None:
            return self._loss_at
        return Instant(self._last_sent + self.pto_us)

    def handle_timeout(self, now: Instant) -> tuple[list[Settled[Content]], bool]:
        """Return (lost packets, whether a probe has to be sent)."""
        due = self.next_timeout()
        if due is None or now < due:
            return [], False
        if self._loss_at is not None:
            return self._detect(now), False
        self.pto_count += 1
        self._last_sent = now
        return [], True

    def oldest(self) -> tuple[Content, int] | None:
        """Return what has been on its way longest: its content, and its place among the packets."""
        for sent in self._sent.values():
            return sent.content, Settled(sent, sent.waiting).first
        return None


def _named(ranges: Sequence[tuple[int, int]], number: int, count: int) -> int:
    """Return which of `count` numbers from `number` on lie in descending ranges, a bit for each."""
    which = 0
    for first, last in reversed(ranges):
        if first >= number + count:
            break
        low, high = max(first - number, 0), min(last - number, count - 1)
        which |= (2 << high) - (1 << low)
    return which

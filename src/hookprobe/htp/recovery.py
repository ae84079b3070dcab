"""Loss detection and congestion control of one packet-number space (RFC 9002).

Packets are never retransmitted, their content is: each sent packet carries an opaque `content`, and
acknowledging or losing the packet hands it back. Congestion control is NewReno (RFC 9002 section 7)
with an upper bound; another algorithm would replace `_grow` and `_shrink`.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from hookprobe.errors import MalformedError
from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

PACKET_THRESHOLD = 3  # RFC 9002 section 6.1.1
GRANULARITY_US = MILLISECOND  # section 6.1.2
RTT_INITIAL_US = 333 * MILLISECOND  # section 6.2.2
PTO_MAX_US = 5 * SECOND  # a healed path is noticed within this time
PERSISTENT_PTOS = 3  # section 7.6.1
WINDOW_MIN_BYTES = 2 * DATAGRAM_BYTES  # section 7.2
WINDOW_INITIAL_BYTES = 10 * DATAGRAM_BYTES

Content = TypeVar("Content")


class Sent(NamedTuple, Generic[Content]):
    """A packet on its way."""

    at: Instant
    size: int
    content: Content


class Recovery(Generic[Content]):
    """What was sent, what arrived, and how much may be on the way.

    Args:
        ack_delay_us: How long the peer may hold back an acknowledgement.
        window_max_bytes: Upper bound of the congestion window.
    """

    __slots__ = (
        "_ack_delay_us",
        "_acked_largest",
        "_last_sent",
        "_loss_at",
        "_recovery_start",
        "_rtt_min",
        "_rtt_variation",
        "_sent",
        "_threshold",
        "_window_max",
        "in_flight",
        "pto_count",
        "rtt",
        "window",
    )

    def __init__(self, ack_delay_us: int, window_max_bytes: int) -> None:
        self._ack_delay_us = ack_delay_us
        self._window_max = window_max_bytes
        self._sent: dict[int, Sent[Content]] = {}
        self._acked_largest = -1
        self._loss_at: Instant | None = None
        self._last_sent = Instant(0)
        self._recovery_start = Instant(-1)
        self._rtt_min = self._rtt_variation = self.rtt = 0
        self._threshold = window_max_bytes
        self.window = WINDOW_INITIAL_BYTES
        self.in_flight = 0
        self.pto_count = 0

    @property
    def blocked(self) -> bool:
        """Whether the congestion window is full."""
        return self.in_flight + DATAGRAM_BYTES > self.window

    def restart(self) -> list[Content]:
        """Begin a new packet-number space on the same path; return what was still on its way."""
        contents = [sent.content for sent in self._sent.values()]
        self._sent = {}
        self._acked_largest = -1
        self._loss_at = None
        self.in_flight = self.pto_count = 0
        return contents

    def on_sent(self, number: int, size: int, content: Content, now: Instant) -> None:
        """Note an ack-eliciting packet."""
        self._sent[number] = Sent(now, size, content)
        self.in_flight += size
        self._last_sent = now

    def on_ack(
        self, ranges: Sequence[tuple[int, int]], delay_us: int, next_number: int, now: Instant
    ) -> tuple[list[Content], list[Content]]:
        """Return (contents that arrived, contents that are lost).

        Args:
            ranges: (first, last), descending.
            delay_us: How long the peer held the acknowledgement back.
            next_number: The first packet number never used.
            now: The time.

        Raises:
            MalformedError: A packet is acknowledged that was never sent.
        """
        largest = ranges[0][1]
        if largest >= next_number:
            raise MalformedError("ACK: of a packet that was never sent")
        newest = self._sent.get(largest)
        arrived = self._take(ranges)
        if not arrived:
            return [], []
        if newest is not None and largest > self._acked_largest:
            self._sample(now - newest.at, min(delay_us, self._ack_delay_us))
        self._acked_largest = max(self._acked_largest, largest)
        self.pto_count = 0
        for sent in arrived:
            self._grow(sent)
        return [sent.content for sent in arrived], self._detect(now)

    def _take(self, ranges: Sequence[tuple[int, int]]) -> list[Sent[Content]]:
        arrived = []
        for first, last in ranges:
            if not self._sent:
                break
            # Numbers below the oldest packet on its way were settled before.
            for number in range(max(first, next(iter(self._sent))), last + 1):
                sent = self._sent.pop(number, None)
                if sent is not None:
                    arrived.append(sent)
                if not self._sent:
                    break
        return arrived

    def _sample(self, latest: int, delay: int) -> None:
        """RFC 9002 section 5.3."""
        latest = max(latest, 1)
        if not self.rtt:
            self.rtt = self._rtt_min = latest
            self._rtt_variation = latest // 2
            return
        self._rtt_min = min(self._rtt_min, latest)
        if latest >= self._rtt_min + delay:
            latest -= delay
        self._rtt_variation = (3 * self._rtt_variation + abs(self.rtt - latest)) // 4
        self.rtt = (7 * self.rtt + latest) // 8

    def seed_rtt(self, round_trip_us: int) -> None:
        """Start from the round trip of the handshake."""
        self._sample(round_trip_us, 0)

    @property
    def pto_us(self) -> int:
        """The probe timeout with its backoff, RFC 9002 section 6.2.1."""
        if self.rtt:
            wait = self.rtt + max(4 * self._rtt_variation, GRANULARITY_US) + self._ack_delay_us
        else:
            wait = 3 * RTT_INITIAL_US
        return min(wait << min(self.pto_count, 20), max(PTO_MAX_US, wait))

    def _detect(self, now: Instant) -> list[Content]:
        """RFC 9002 section 6.1: by packet threshold 3 or time threshold 9/8."""
        patience = max(self.rtt * 9 // 8, GRANULARITY_US)
        self._loss_at = None
        lost: list[tuple[int, Sent[Content]]] = []
        for number, sent in self._sent.items():
            if number >= self._acked_largest:
                break
            if number <= self._acked_largest - PACKET_THRESHOLD or sent.at + patience <= now:
                lost.append((number, sent))
            else:
                self._loss_at = Instant(sent.at + patience)
                break
        for number, sent in lost:
            del self._sent[number]
            self.in_flight -= sent.size
        if lost:
            self._shrink(lost, now)
        return [sent.content for _, sent in lost]

    def _grow(self, sent: Sent[Content]) -> None:
        used = self.in_flight * 2 >= self.window
        self.in_flight -= sent.size
        if sent.at <= self._recovery_start or not used:
            return
        if self.window < self._threshold:
            grown = self.window + sent.size
        else:
            grown = self.window + max(1, DATAGRAM_BYTES * sent.size // self.window)
        self.window = min(grown, self._window_max)

    def _shrink(self, lost: list[tuple[int, Sent[Content]]], now: Instant) -> None:
        first, last = lost[0], lost[-1]
        if last[1].at > self._recovery_start:
            self._recovery_start = now
            self.window = self._threshold = max(self.window // 2, WINDOW_MIN_BYTES)
        span = self.rtt + max(4 * self._rtt_variation, GRANULARITY_US) + self._ack_delay_us
        unbroken = last[0] - first[0] == len(lost) - 1
        if self.rtt and unbroken and last[1].at - first[1].at > PERSISTENT_PTOS * span:
            self.window = WINDOW_MIN_BYTES

    def next_timeout(self) -> Instant | None:
        """When packets count as lost or a probe is due; None with nothing on the way."""
        if not self._sent:
            return None
        if self._loss_at is not None:
            return self._loss_at
        return Instant(self._last_sent + self.pto_us)

    def handle_timeout(self, now: Instant) -> tuple[list[Content], bool]:
        """Return (lost contents, whether a probe has to be sent)."""
        due = self.next_timeout()
        if due is None or now < due:
            return [], False
        if self._loss_at is not None:
            return self._detect(now), False
        self.pto_count += 1
        self._last_sent = now
        return [], True

    def oldest(self) -> Content | None:
        """Return the content that has been on its way longest."""
        return next(iter(self._sent.values())).content if self._sent else None

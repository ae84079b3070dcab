"""Spreading packets over the round trip: a token bucket filled at 1.25 * window / rtt.

What leaves at once is a quantum, two packets or a millisecond's worth; the bucket holds more of
them because timers of a host are late (RFC 9002 section 7.7).
"""

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.wire.instant import MILLISECOND, Instant

GAIN_NUMERATOR, GAIN_DENOMINATOR = 5, 4


class Pacer:
    """The bucket of one controller.

    Args:
        burst_bytes: What may always leave at once after a pause.
    """

    __slots__ = ("_at", "_burst", "_quantum", "_rate", "_tokens", "datagram_bytes")

    def __init__(self, burst_bytes: int) -> None:
        self._burst = burst_bytes
        self._tokens = burst_bytes
        self.datagram_bytes = DATAGRAM_BYTES
        self._quantum = 2 * DATAGRAM_BYTES
        self._rate = 0
        self._at = Instant(0)

    def room(self, window: int, rtt: int, now: Instant) -> int:
        """Return the bytes that may leave now.

        Args:
            window: Congestion window in bytes.
            rtt: Smoothed round trip in microseconds; 0: not known, and nothing is held back.
            now: The time.
        """
        if not rtt:
            return window
        self._rate = window * GAIN_NUMERATOR * MILLISECOND // (GAIN_DENOMINATOR * rtt) + 1
        self._quantum = max(2 * self.datagram_bytes, self._rate)
        passed = max(0, now - self._at)
        depth = max(self._burst, 2 * self._quantum)
        self._tokens = min(depth, self._tokens + passed * self._rate // MILLISECOND)
        self._at = now
        return self._tokens

    def on_sent(self, size: int) -> None:
        """Take what left out of the bucket."""
        self._tokens -= size

    def next(self, now: Instant) -> Instant | None:
        """Return when a quantum is there again; None: it is not pacing that holds packets back."""
        lacking = self._quantum - self._tokens
        if lacking <= 0:
            return None
        return Instant(now + lacking * MILLISECOND // max(self._rate, 1) + 1)

"""LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus), for transfers that must be in nobody's way.

The window follows the queueing delay: the one-way delay less the least one of the last ten minutes.

    gain = 1 / min(16, ceil(2 * TARGET / least round trip))
    below TARGET, a round trip:  W += gain
    above TARGET, a round trip:  W += max(gain - W (delay / TARGET - 1), -W / 2)

in datagrams. After slow start, and from time to time, it slows down to two datagrams for two round
trips, so that the true base delay shows even where several such flows share a queue; a slowdown
costs at most a tenth of the time.
"""

from collections import deque

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.congestion import (
    UNBOUNDED,
    WINDOW_INITIAL_BYTES,
    WINDOW_MIN_BYTES,
    Acked,
)
from hookprobe.wire.instant import MILLISECOND, MINUTE, Instant

TARGET_US = 60 * MILLISECOND
GAIN_DIVISOR_MAX = 16
BASE_MINUTES = 10
FILTER_SAMPLES = 4
SLOW_ROUNDS = 2
SLOW_EVERY = 9  # times the length of a slowdown
LEAVE_START_US = TARGET_US * 3 // 4


class DelayHistory:
    """The least delay of each of the last ten minutes, and the present one."""

    __slots__ = ("_minima", "_minute", "_recent")

    def __init__(self) -> None:
        self._minima: deque[int] = deque(maxlen=BASE_MINUTES)
        self._recent: deque[int] = deque(maxlen=FILTER_SAMPLES)
        self._minute = -1

    def add(self, delay: int, now: Instant) -> None:
        """Take a sample in microseconds."""
        minute = now // MINUTE
        if minute != self._minute:
            self._minute = minute
            self._minima.append(delay)
        self._minima[-1] = min(self._minima[-1], delay)
        self._recent.append(delay)

    @property
    def queueing(self) -> int:
        """Microseconds that packets wait in queues now."""
        return min(self._recent) - min(self._minima) if self._recent else 0


class Ledbat:
    """See the module.

    Args:
        window_max: Upper bound in bytes.
    """

    __slots__ = (
        "_history",
        "_slow_at",
        "_slow_since",
        "_slow_until",
        "_threshold",
        "_window",
        "_window_max",
    )

    def __init__(self, window_max: int) -> None:
        self._history = DelayHistory()
        self._window_max = float(window_max)
        self._window = float(min(WINDOW_INITIAL_BYTES, window_max))
        self._threshold = float(UNBOUNDED)
        self._slow_at: Instant | None = None
        self._slow_since = Instant(0)
        self._slow_until: Instant | None = None

    @property
    def window(self) -> int:
        return int(self._window)

    def on_acked(self, acked: Acked) -> None:
        delay = acked.rtt if acked.delay is None and acked.rtt else acked.delay
        if delay is not None:
            self._history.add(delay, acked.now)
        if self._slow_until is not None:
            if acked.now < self._slow_until:
                return
            self._slow_until = None
        if self._slow_at is not None and acked.now >= self._slow_at:
            self._slow_down(acked)
        elif self._window < self._threshold:
            self._grow_at_start(acked)
        else:
            self._follow(acked)

    def _slow_down(self, acked: Acked) -> None:
        self._threshold = max(self._window, float(WINDOW_MIN_BYTES))
        self._window = float(WINDOW_MIN_BYTES)
        self._slow_at = None
        self._slow_since = acked.now
        self._slow_until = Instant(acked.now + SLOW_ROUNDS * acked.rtt_smooth)

    def _grow_at_start(self, acked: Acked) -> None:
        if self._history.queueing > LEAVE_START_US:
            self._threshold = self._window
        elif acked.limited:
            self._window = min(self._window + acked.size * _gain(acked), self._window_max)
            if self._window >= self._window_max:
                self._threshold = self._window
        if self._window >= self._threshold:
            self._plan(acked.now, acked.rtt_smooth)

    def _plan(self, now: Instant, rtt: int) -> None:
        """Set when to slow down next: soon after the first slow start, later in proportion."""
        wait = SLOW_EVERY * (now - self._slow_since) if self._slow_since else SLOW_ROUNDS * rtt
        self._slow_at = Instant(now + wait)

    def _follow(self, acked: Acked) -> None:
        queueing = self._history.queueing
        share = acked.size / self._window
        change = _gain(acked) * DATAGRAM_BYTES
        if queueing > TARGET_US:
            change = max(change - self._window * (queueing / TARGET_US - 1), -self._window / 2)
        if change > 0 and not acked.limited:
            return
        self._window = min(max(self._window + change * share, float(WINDOW_MIN_BYTES)),
                           self._window_max)  # fmt: skip

    def on_congestion(self, now: Instant) -> None:
        self._window = self._threshold = max(self._window / 2, float(WINDOW_MIN_BYTES))
        if self._slow_at is None and self._slow_until is None:
            self._plan(now, 0)

    def on_persistent(self) -> None:
        self._window = float(WINDOW_MIN_BYTES)


def _gain(acked: Acked) -> float:
    return 1 / min(GAIN_DIVISOR_MAX, -(-2 * TARGET_US // max(acked.rtt_min, 1)))

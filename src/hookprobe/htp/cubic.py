"""CUBIC (RFC 9438) with HyStart++ (RFC 9406), the default.

    W_cubic(t) = C (t - K)^3 + W_max        K = cbrt((W_max - cwnd_epoch) / C)
    W_est     += alpha * acked / cwnd       alpha = 3 (1 - beta) / (1 + beta), 1 from cwnd_prior on

in datagrams and seconds, with C = 0.4 and beta = 0.7. HyStart++ leaves slow start when the round
trip grows, by way of five rounds of slower growth in case that was jitter.
"""

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.congestion import (
    UNBOUNDED,
    WINDOW_INITIAL_BYTES,
    WINDOW_MIN_BYTES,
    Acked,
)
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

C = 0.4  # RFC 9438 section 5
BETA = 0.7  # section 4.6
ALPHA = 3 * (1 - BETA) / (1 + BETA)  # section 4.3
TARGET_GROWTH_MAX = 1.5  # section 4.2
RTT_THRESHOLD_MIN_US = 4 * MILLISECOND  # RFC 9406 section 4.3
RTT_THRESHOLD_MAX_US = 16 * MILLISECOND
RTT_DIVISOR = 8
RTT_SAMPLES = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5


class HyStart:
    """When to leave slow start (RFC 9406 section 4.2). Packets are paced, so L is unbounded."""

    __slots__ = ("_baseline", "_css_rounds", "_current", "_previous", "_round_end", "_samples")

    def __init__(self) -> None:
        self._round_end = -1
        self._current = self._previous = UNBOUNDED
        self._samples = 0
        self._baseline = 0
        self._css_rounds = 0

    @property
    def cautious(self) -> bool:
        """Whether this is conservative slow start."""
        return self._baseline > 0

    def on_acked(self, acked: Acked) -> bool:
        """Take an acknowledgement of slow start; True if slow start is over."""
        if acked.rtt:
            self._current = min(self._current, acked.rtt)
            self._samples += 1
        if self._samples >= RTT_SAMPLES:
            self._judge()
        if acked.number < self._round_end:
            return False
        self._round_end = acked.next_number
        self._previous, self._current, self._samples = self._current, UNBOUNDED, 0
        if not self.cautious:
            return False
        self._css_rounds += 1
        return self._css_rounds >= CSS_ROUNDS

    def _judge(self) -> None:
        if self.cautious:
            if self._current < self._baseline:
                self._baseline = 0  # it was jitter
        elif self._previous < UNBOUNDED:
            rise = min(max(RTT_THRESHOLD_MIN_US, self._previous // RTT_DIVISOR),
                       RTT_THRESHOLD_MAX_US)  # fmt: skip
            if self._current >= self._previous + rise:
                self._baseline = self._current
                self._css_rounds = 0


class Cubic:
    """RFC 9438.

    Args:
        window_max: Upper bound in bytes.
    """

    __slots__ = (
        "_epoch",
        "_k_s",
        "_last",
        "_peak",
        "_prior",
        "_reno",
        "_start",
        "_threshold",
        "_window",
        "_window_max",
    )

    def __init__(self, window_max: int) -> None:
        self._window_max = float(window_max)
        self._window = float(min(WINDOW_INITIAL_BYTES, window_max))
        self._threshold = float(UNBOUNDED)
        self._peak = self._prior = 0.0
        self._epoch: Instant | None = None
        self._last = Instant(0)
        self._k_s = self._reno = 0.0
        self._start: HyStart | None = HyStart()

    @property
    def window(self) -> int:
        return int(self._window)

    def on_acked(self, acked: Acked) -> None:
        if not acked.limited:
            # Time in which the application had nothing to send is not time to grow (section 5.8).
            if self._epoch is not None:
                self._epoch = Instant(self._epoch + acked.now - self._last)
        elif self._window < self._threshold:
            self._grow_at_start(acked)
        else:
            self._grow(acked)
        self._last = acked.now
        self._window = min(self._window, self._window_max)

    def _grow_at_start(self, acked: Acked) -> None:
        cautious = self._start is not None and self._start.cautious
        self._window += acked.size / CSS_GROWTH_DIVISOR if cautious else acked.size
        if self._start is not None and self._start.on_acked(acked):
            self._threshold = self._window

    def _grow(self, acked: Acked) -> None:
        if self._epoch is None:
            self._epoch = acked.now
            self._peak = max(self._peak, self._window)
            self._k_s = ((self._peak - self._window) / DATAGRAM_BYTES / C) ** (1 / 3)
            self._reno = self._window
        alpha = 1.0 if self._reno >= self._prior else ALPHA
        self._reno += alpha * DATAGRAM_BYTES * acked.size / self._window
        elapsed_s = (acked.now - self._epoch) / SECOND
        if self._curve(elapsed_s) < self._reno:
            self._window = max(self._window, self._reno)
            return
        target = self._curve(elapsed_s + acked.rtt_smooth / SECOND)
        target = min(max(target, self._window), TARGET_GROWTH_MAX * self._window)
        self._window += (target - self._window) * acked.size / self._window

    def _curve(self, elapsed_s: float) -> float:
        return C * (elapsed_s - self._k_s) ** 3 * DATAGRAM_BYTES + self._peak

    def on_congestion(self, now: Instant) -> None:
        del now
        self._prior = self._window
        falling = self._window < self._peak  # fast convergence, section 4.7
        self._peak = self._window * (1 + BETA) / 2 if falling else self._window
        self._window = self._threshold = max(self._window * BETA, float(WINDOW_MIN_BYTES))
        self._epoch = None
        self._start = None  # HyStart++ is for the first slow start only

    def on_persistent(self) -> None:
        self._window = float(WINDOW_MIN_BYTES)
        self._epoch = None

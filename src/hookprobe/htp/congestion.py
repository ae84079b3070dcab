"""How much may be on the way: the seam between loss recovery and congestion control.

A `Controller` is told what arrived, that something was lost and that everything was lost, and keeps
a window in bytes. `NewReno` (RFC 9002 section 7) is the reference; `cubic` and `ledbat` hold the
others, and `CONTROLLERS` names them all.
"""

from typing import NamedTuple, Protocol

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.wire.instant import Instant

WINDOW_INITIAL_BYTES = 10 * DATAGRAM_BYTES  # RFC 9002 section 7.2
WINDOW_MIN_BYTES = 2 * DATAGRAM_BYTES
UNBOUNDED = 1 << 62


class Acked(NamedTuple):
    """What one acknowledgement said about the packets of one controller.

    Attributes:
        size: Bytes that arrived and were sent after the last congestion event.
        number: The largest packet number acknowledged.
        next_number: The first packet number not used yet.
        rtt: This sample in microseconds, 0 if there is none.
        rtt_min: The least sample so far.
        rtt_smooth: Its moving average.
        delay: One-way delay of the packets plus an unknown constant, microseconds; None: not known.
        limited: Whether the window held packets back; without that it must not grow.
        now: When.
    """

    size: int
    number: int
    next_number: int
    rtt: int
    rtt_min: int
    rtt_smooth: int
    delay: int | None
    limited: bool
    now: Instant


class Controller(Protocol):
    """One congestion control algorithm."""

    @property
    def window(self) -> int:
        """Bytes that may be on the way."""

    def on_acked(self, acked: Acked) -> None:
        """Packets arrived."""

    def on_congestion(self, now: Instant) -> None:
        """Packets were lost; called once a round trip at most."""

    def on_persistent(self) -> None:
        """Everything sent over several timeouts was lost (RFC 9002 section 7.6)."""


class NewReno:
    """RFC 9002 section 7.

    Args:
        window_max: Upper bound in bytes.
    """

    __slots__ = ("_credit", "_threshold", "_window_max", "window")

    def __init__(self, window_max: int) -> None:
        self._window_max = window_max
        self._threshold = UNBOUNDED
        self._credit = 0
        self.window = min(WINDOW_INITIAL_BYTES, window_max)

    def on_acked(self, acked: Acked) -> None:
        if not acked.limited:
            return
        if self.window < self._threshold:
            self.window += acked.size
        else:
            # One datagram for each window acknowledged, in whole numbers without losing any.
            self._credit += DATAGRAM_BYTES * acked.size
            self.window += self._credit // self.window
            self._credit %= self.window
        self.window = min(self.window, self._window_max)

    def on_congestion(self, now: Instant) -> None:
        del now
        self.window = self._threshold = max(self.window // 2, WINDOW_MIN_BYTES)
        self._credit = 0

    def on_persistent(self) -> None:
        self.window = WINDOW_MIN_BYTES
        self._credit = 0

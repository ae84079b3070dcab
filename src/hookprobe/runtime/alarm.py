"""The one timer of an endpoint's host: it is asked about after every datagram, and rarely moves."""

import asyncio
from collections.abc import Callable

from hookprobe.runtime.clock import Clock
from hookprobe.wire.instant import Instant


class Alarm:
    """Calls once when the time has come.

    Args:
        clock: Says what time it is.
        wake: What to call; it sets the alarm again.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._due: Instant | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: Instant | None) -> None:
        """Call at `due` instead of any other time; None: not at all."""
        if due == self._due:
            return
        self.cancel()
        if due is not None:
            self._due = due
            delay_s = max(0, due - self._clock.now()) / 1e6
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = self._due = None
        self._wake()

    def cancel(self) -> None:
        """Call no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due = None

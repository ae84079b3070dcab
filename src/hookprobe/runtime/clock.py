"""The only reader of the clock.

Time is wall time at start plus monotonic time since: a step of the system clock while the node
runs can neither fire every timer at once nor stall them. A restart takes the new wall time.
"""

import time

from hookprobe.wire.instant import Instant


class Clock:
    """Says what time it is."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now(self) -> Instant:
        return Instant((time.monotonic_ns() + self._offset_ns) // 1000)

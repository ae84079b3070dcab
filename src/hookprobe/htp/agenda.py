"""Deadlines of many machines in one heap.

A machine's deadline moves with almost every packet, mostly to later. Entries are therefore lazy: a
later deadline leaves the old entry in place, which wakes its machine early and finds nothing due;
only an earlier one adds an entry. Order among equal deadlines is the order of insertion.
"""

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from hookprobe.wire.instant import Instant

Key = TypeVar("Key", bound=Hashable)


class Agenda(Generic[Key]):
    """When which key has to be looked at."""

    __slots__ = ("_count", "_due", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, int, Key]] = []
        self._due: dict[Key, Instant] = {}
        self._count = 0

    def set(self, key: Key, deadline: Instant) -> None:
        """Wake `key` at `deadline` at the latest."""
        known = self._due.get(key)
        if known is not None and known <= deadline:
            return
        self._due[key] = deadline
        self._count += 1
        heappush(self._heap, (deadline, self._count, key))

    def discard(self, key: Key) -> None:
        """Forget a key."""
        self._due.pop(key, None)

    def next(self) -> Instant | None:
        """Return the earliest deadline."""
        while self._heap:
            deadline, _, key = self._heap[0]
            if self._due.get(key) == deadline:
                return deadline
            heappop(self._heap)
        return None

    def pop_due(self, now: Instant) -> list[Key]:
        """Remove and return the keys whose deadline has come; each sets its next one itself."""
        keys: list[Key] = []
        while True:
            deadline = self.next()
            if deadline is None or deadline > now:
                return keys
            key = heappop(self._heap)[2]
            del self._due[key]
            keys.append(key)


class SteadyClock:
    """Time that never goes back: the host's clock may be set back, and timers must not sleep on.

    Args:
        now: The host's time.
    """

    __slots__ = ("_last", "_shift")

    def __init__(self, now: Instant) -> None:
        self._last = now
        self._shift = 0

    def read(self, now: Instant) -> Instant:
        """Return our time when the host says `now`."""
        local = now + self._shift
        if local < self._last:
            self._shift += self._last - local
            local = self._last
        self._last = Instant(local)
        return self._last

    def host_time(self, local: Instant) -> Instant:
        """Return what the host's clock says at a time of ours."""
        return Instant(local - self._shift)

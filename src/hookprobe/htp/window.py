"""Anti-replay window of packet numbers (the idea of RFC 6479, on one Python integer).

A number is fresh if it is above the highest seen, or within the window and was not seen. What was
seen is an unbroken run up to the highest, and a map of what lies before the run. The owner asks
`is_fresh` before spending an AEAD operation and calls `commit` only after the packet opened, so a
forger cannot move it.
"""

WINDOW_PACKETS = 8128  # the width WireGuard uses; the specification asks for 2048 at least
NUMBER_MAX = 2**64 - 1

_MASK = (1 << WINDOW_PACKETS) - 1


class ReplayWindow:
    """The packet numbers seen in one direction of one session."""

    __slots__ = ("_map", "_run", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._run = 0  # from this number to the highest, every one was seen
        self._map = 0  # bit i: number _run - 1 - i was seen

    def is_fresh(self, number: int) -> bool:
        """Whether a packet of this number may still be accepted."""
        if number > self.highest:
            return True
        if number >= self._run or self.highest - number >= WINDOW_PACKETS:
            return False
        return not self._map >> (self._run - 1 - number) & 1

    def commit(self, number: int) -> None:
        """Mark a number as seen; it must be fresh."""
        if number == self.highest + 1:  # nearly always, and then no large number is touched
            self.highest = number
            return
        assert self.is_fresh(number), "a replayed packet number was committed"
        if number < self._run:
            self._map |= 1 << (self._run - 1 - number)
            return
        seen = self.highest + 1 - self._run
        ahead = number - self._run
        # A jump beyond the width forgets everything without building a huge integer.
        if number - self.highest >= WINDOW_PACKETS:
            self._map = 0
        elif seen >= WINDOW_PACKETS:
            self._map = _MASK << (number - self.highest - 1) & _MASK
        else:
            self._map = (self._map << seen | (1 << seen) - 1) << (ahead - seen) & _MASK
        self._run = self.highest = number

    def extend(self, count: int) -> None:
        """Mark the next `count` numbers above the highest as seen."""
        self.highest += count

    def freeze(self) -> tuple[int, int, int]:
        """Return all there is to it, for `thaw`: (highest, run, map)."""
        return self.highest, self._run, self._map

    @classmethod
    def thaw(cls, frozen: tuple[int, int, int]) -> "ReplayWindow":
        """Return the window that was frozen."""
        window = cls()
        window.highest, window._run, window._map = frozen
        return window

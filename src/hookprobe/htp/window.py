"""Anti-replay window of packet numbers (the idea of RFC 6479, on one Python integer).

Bit i of the map stands for packet number `highest - i`. A number is fresh if it is above the
highest seen, or within the window and its bit is clear. The owner asks `is_fresh` before spending
an AEAD operation and calls `commit` only after the packet opened, so a forger cannot move it.
"""

WINDOW_PACKETS = 8128  # the width WireGuard uses; the specification asks for 2048 at least
NUMBER_MAX = 2**64 - 1

_MASK = (1 << WINDOW_PACKETS) - 1


class ReplayWindow:
    """The packet numbers seen in one direction of one session."""

    __slots__ = ("_map", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._map = 0

    def is_fresh(self, number: int) -> bool:
        """Whether a packet of this number may still be accepted."""
        behind = self.highest - number
        if behind < 0:
            return True
        return behind < WINDOW_PACKETS and not self._map >> behind & 1

    def commit(self, number: int) -> None:
        """Mark a number as seen; it must be fresh."""
        assert self.is_fresh(number), "a replayed packet number was committed"
        ahead = number - self.highest
        if ahead > 0:
            # A jump beyond the width forgets everything without building a huge integer.
            kept = self._map << ahead & _MASK if ahead < WINDOW_PACKETS else 0
            self._map = kept | 1
            self.highest = number
        else:
            self._map |= 1 << -ahead

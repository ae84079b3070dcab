"""A token bucket: so much a second, and no more at once than it holds."""

from dataclasses import dataclass, field

from hookprobe.wire.instant import SECOND, Instant


@dataclass(slots=True)
class Bucket:
    """Begins full; counts in integer microtokens, so that equal times give equal levels.

    Args:
        rate: Tokens that come in a second.
        burst: Tokens that it holds.
        at: When it is made.
    """

    rate: int
    burst: int
    at: Instant
    level: int = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.burst * SECOND

    def take(self, count: int, now: Instant) -> bool:
        """Take tokens; False when there are not enough."""
        self._refill(now)
        if self.level < count * SECOND:
            return False
        self.level -= count * SECOND
        return True

    def has_any(self, now: Instant) -> bool:
        """Tell whether there is anything left to spend."""
        self._refill(now)
        return self.level > 0

    def spend(self, count: int) -> None:
        """Take what was used already; the level may fall below nothing."""
        self.level -= count * SECOND

    def _refill(self, now: Instant) -> None:
        came = self.rate * max(0, now - self.at)
        self.level = min(self.burst * SECOND, self.level + came)
        self.at = now

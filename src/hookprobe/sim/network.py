"""Faults on links, at message level: delay, loss, duplication, reordering, partitions.

Delays are drawn per message, so messages overtake each other. After `calm_at` nothing is lost or
duplicated, there are no partitions, and delays are short: the network has stabilised.
"""

from dataclasses import dataclass

from hookprobe.sim.dice import Dice


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is before it calms down."""

    calm_at: int
    delay_max_us: int
    loss_percent: int
    duplicate_percent: int
    calm_delay_max_us: int


@dataclass(frozen=True, slots=True)
class Partition:
    """From `start` to `end` messages pass only between nodes on the same side."""

    start: int
    end: int
    side: tuple[str, ...]

    def cuts(self, one: str, other: str, now: int) -> bool:
        return self.start <= now < self.end and (one in self.side) != (other in self.side)


class Network:
    """Decides when, and how often, a message arrives."""

    def __init__(self, dice: Dice, weather: Weather, partitions: tuple[Partition, ...]) -> None:
        self._dice = dice
        self._weather = weather
        self._partitions = partitions

    def arrivals(self, sender: str, receiver: str, now: int) -> list[int]:
        """Return the instants at which a message sent now arrives; none when it is lost."""
        dice, weather = self._dice, self._weather
        if now >= weather.calm_at:
            return [now + 1_000 + dice.below(weather.calm_delay_max_us)]
        if any(item.cuts(sender, receiver, now) for item in self._partitions):
            return []
        if weather.loss_percent and dice.chance(weather.loss_percent):
            return []
        arrivals = [now + 1_000 + dice.below(weather.delay_max_us)]
        if weather.duplicate_percent and dice.chance(weather.duplicate_percent):
            arrivals.append(now + 1_000 + dice.below(2 * weather.delay_max_us))
        return arrivals

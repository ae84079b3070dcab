"""The webhook outbox without its network: what waits, what is sent when, what is given up.

* An event is kept before it is sent and forgotten when the receiver took it: at least once, with
  the same `webhook-id` each time. One delivery to a receiver is under way at a time, oldest first.
* A receiver that is down (no answer, 5xx, 408, 425, 429) is left alone for
  min(CAP, FIRST * 2^n) * (1/2 + u/2) after its n-th failure, u drawn from [0, 1); everything waits.
* A receiver that refuses one delivery (other 4xx, 3xx) gets that one again later, and the others
  meanwhile.
* A delivery dies after `LIFE_US`, after `REFUSALS_MAX` refusals, at 410, or when too many wait. The
  dead are kept until they are replayed, or are too many.

Effects: `Keep` and `Forget` are to be durable before anything behind them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import TypeAlias

from hookprobe.wire.instant import DAY, HOUR, MINUTE, SECOND, Instant

FIRST_US = 1 * SECOND
CAP_US = 15 * MINUTE
LIFE_US = 3 * DAY
RETRY_AFTER_MAX_US = 1 * HOUR
REFUSALS_MAX = 8
WAITING_MAX = 10_000
DEAD_MAX = 10_000
JITTER_STEPS = 1 << 16
_BUSY = (408, 425, 429)
_AT_ONCE = Instant(0)


@unique
class State(Enum):
    """Where a delivery stands; `ASKED` is written by `hookprobe webhook replay` only."""

    WAITING = "waiting"
    DEAD = "dead"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one receiver.

    Attributes:
        id: The `webhook-id`: the same in every attempt.
        hook: The receiver.
        event: The event's name.
        body: What is posted.
        created: When it happened.
        state: Where it stands.
        attempts: How often it was sent.
        refusals: How often the receiver refused this very delivery.
        due: Not to be sent before.
        error: What the last failure was.
    """

    id: str
    hook: str
    event: str
    body: bytes
    created: Instant
    state: State = State.WAITING
    attempts: int = 0
    refusals: int = 0
    due: Instant = _AT_ONCE
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: The receiver's HTTP status; 0 for no answer.
        error: Why there was none, in words without secrets.
        retry_after_us: What the receiver asked for; 0 for nothing.
    """

    status: int
    error: str = ""
    retry_after_us: int = 0


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this delivery down as it is."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a delivery."""

    id: str


@dataclass(frozen=True, slots=True)
class Post:
    """Send this delivery, and tell `finish` how it went."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Ended:
    """A delivery ended: taken, or dead with the last error; `failed`: it will be tried again."""

    delivery: Delivery
    outcome: str


Effect: TypeAlias = Keep | Forget | Post | Ended


@dataclass(slots=True)
class _Receiver:
    """What is known of one receiver."""

    flying: str = ""
    failures: int = 0
    rest_until: Instant = _AT_ONCE


class Outbox:
    """Decides what is sent when.

    Args:
        hooks: The receivers there are; what waits for others dies.
        kept: Everything that was kept.
        draw: Returns a random number below its argument.
    """

    def __init__(
        self, hooks: Sequence[str], kept: Sequence[Delivery], draw: Callable[[int], int]
    ) -> None:
        self._receivers = {hook: _Receiver() for hook in hooks}
        self._waiting: dict[str, dict[str, Delivery]] = {hook: {} for hook in hooks}
        self._dead: dict[str, Delivery] = {}
        self._draw = draw
        self._unknown: list[Delivery] = []
        for delivery in sorted(kept, key=lambda item: (item.created, item.id)):
            self._load(delivery)

    def _load(self, delivery: Delivery) -> None:
        if delivery.state is State.DEAD:
            self._dead[delivery.id] = delivery
        elif delivery.hook not in self._receivers:
            self._unknown.append(delivery)
        else:
            self._waiting[delivery.hook][delivery.id] = replace(delivery, state=State.WAITING)

    @property
    def waiting(self) -> int:
        """How many deliveries wait or are under way."""
        return sum(len(queue) for queue in self._waiting.values())

    def start(self) -> list[Effect]:
        """Begin: what waits for receivers that are gone dies."""
        effects: list[Effect] = []
        for delivery in self._unknown:
            effects += self._bury(delivery, "no such receiver in the settings any more")
        self._unknown = []
        return effects

    def add(self, delivery: Delivery) -> list[Effect]:
        """Take a new delivery, or one that is to be sent again."""
        self._dead.pop(delivery.id, None)
        queue = self._waiting[delivery.hook]
        effects: list[Effect] = [Keep(delivery)]
        queue[delivery.id] = delivery
        if len(queue) > WAITING_MAX:
            flying = self._receivers[delivery.hook].flying
            oldest = next(item for item in queue.values() if item.id != flying)
            del queue[oldest.id]
            effects += self._bury(oldest, f"more than {WAITING_MAX} deliveries wait")
        return effects

    def revive(self, delivery: Delivery, now: Instant) -> list[Effect]:
        """Send a dead delivery again, as if it had just happened; its body says when it did."""
        if delivery.hook not in self._receivers:
            return self._bury(delivery, "no such receiver in the settings any more")
        return self.add(
            replace(delivery, created=now, state=State.WAITING, refusals=0, due=_AT_ONCE, error="")
        )

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is wanted; None while nothing can be sent."""
        times = [
            max(self._receivers[hook].rest_until, min(item.due for item in queue.values()))
            for hook, queue in self._waiting.items()
            if queue and not self._receivers[hook].flying
        ]
        return min(times, default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Send what is due: to each receiver the oldest."""
        effects: list[Effect] = []
        for hook, queue in self._waiting.items():
            receiver = self._receivers[hook]
            if receiver.flying or receiver.rest_until > now:
                continue
            due = next((item for item in queue.values() if item.due <= now), None)
            if due is not None:
                receiver.flying = due.id
                effects.append(Post(due))
        return effects

    def finish(self, delivery_id: str, outcome: Outcome, now: Instant) -> list[Effect]:
        """Take note of how an attempt ended."""
        found = next(
            (queue[delivery_id] for queue in self._waiting.values() if delivery_id in queue), None
        )
        if found is None:
            return []
        receiver = self._receivers[found.hook]
        receiver.flying = ""
        tried = replace(found, attempts=found.attempts + 1, error=_words(outcome))
        if 200 <= outcome.status < 300:
            receiver.failures = 0
            del self._waiting[found.hook][found.id]
            return [Forget(found.id), Ended(tried, "delivered")]
        if 300 <= outcome.status < 500 and outcome.status not in _BUSY:
            receiver.failures = 0
            tried = replace(tried, refusals=tried.refusals + 1)
            tried = replace(tried, due=self._later(tried.refusals, outcome, now))
        else:
            receiver.failures += 1
            receiver.rest_until = self._later(receiver.failures, outcome, now)
        return self._fail(tried, outcome, now)

    def _fail(self, tried: Delivery, outcome: Outcome, now: Instant) -> list[Effect]:
        over = now - tried.created >= LIFE_US
        if over or outcome.status == 410 or tried.refusals >= REFUSALS_MAX:
            del self._waiting[tried.hook][tried.id]
            return self._bury(tried, tried.error)
        self._waiting[tried.hook][tried.id] = tried
        return [Keep(tried), Ended(tried, "failed")]

    def _later(self, failures: int, outcome: Outcome, now: Instant) -> Instant:
        pause = min(CAP_US, FIRST_US << min(failures - 1, 20))
        jittered = pause // 2 + pause * self._draw(JITTER_STEPS) // (2 * JITTER_STEPS)
        asked = min(outcome.retry_after_us, RETRY_AFTER_MAX_US)
        return Instant(now + max(jittered, asked))

    def _bury(self, delivery: Delivery, why: str) -> list[Effect]:
        dead = replace(delivery, state=State.DEAD, error=why)
        self._dead[dead.id] = dead
        effects: list[Effect] = [Keep(dead), Ended(dead, "dead")]
        if len(self._dead) > DEAD_MAX:
            oldest = next(iter(self._dead))
            del self._dead[oldest]
            effects.append(Forget(oldest))
        return effects


def _words(outcome: Outcome) -> str:
    return outcome.error if not outcome.status else f"status {outcome.status}"

"""The outbox on a clock of its own: nothing is lost, hammered, or waits for ever."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from hookprobe.runtime import webhook_outbox
from hookprobe.runtime.webhook_outbox import (
    CAP_US,
    LIFE_US,
    REFUSALS_MAX,
    Delivery,
    Effect,
    Ended,
    Forget,
    Keep,
    Outbox,
    Outcome,
    Post,
    State,
)
from hookprobe.wire.instant import MINUTE, SECOND, Instant

OK = Outcome(200)
NOBODY = Outcome(0, "ConnectionRefusedError")


def delivery(number: int, hook: str = "siem", at: int = 0) -> Delivery:
    return Delivery(f"msg_{number:06}", hook, "checkpoint_finalized", b"%d" % number, Instant(at))


@dataclass
class World:
    """An outbox, what it keeps on disk, and receivers that answer as they are told."""

    answer: Callable[[Delivery, int], Outcome]
    hooks: tuple[str, ...] = ("siem",)
    disk: dict[str, Delivery] = field(default_factory=dict)
    taken: list[Delivery] = field(default_factory=list)
    posts: list[tuple[int, str]] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    now: int = 0
    flight_us: int = 100_000

    def __post_init__(self) -> None:
        self._draws = 0
        self.boot()

    def boot(self) -> None:
        """Start anew from what is on disk."""
        self.flying: list[tuple[int, Delivery]] = []
        self.outbox = Outbox(self.hooks, list(self.disk.values()), self.draw)
        self.execute(self.outbox.start())

    def draw(self, below: int) -> int:
        self._draws += 1
        return self._draws * 40503 % below

    def execute(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Keep(item):
                    self.disk[item.id] = item
                case Forget(name):
                    del self.disk[name]
                case Post(item):
                    assert item.id in self.disk, "kept before it is sent"
                    self.posts.append((self.now, item.id))
                    self.flying.append((self.now + self.flight_us, item))
                case Ended():
                    self.ended.append(effect)

    def run(self, until: int) -> None:
        while True:
            due = self.outbox.next_timeout()
            times = [at for at, _ in self.flying] + ([due] if due is not None else [])
            if not times or min(times) > until:
                break
            self.now = max(self.now, min(times))
            landed = [item for item in self.flying if item[0] <= self.now]
            self.flying = [item for item in self.flying if item[0] > self.now]
            for _, item in landed:
                outcome = self.answer(item, self.now)
                if 200 <= outcome.status < 300:
                    self.taken.append(item)
                self.execute(self.outbox.finish(item.id, outcome, Instant(self.now)))
            self.execute(self.outbox.handle_timeout(Instant(self.now)))
        self.now = until


def down_between(start: int, end: int) -> Callable[[Delivery, int], Outcome]:
    return lambda _, now: NOBODY if start <= now < end else OK


def test_a_receiver_down_for_ten_minutes_loses_nothing() -> None:
    world = World(down_between(60 * SECOND, 660 * SECOND))
    for number in range(800):
        world.run(number * SECOND)
        world.execute(world.outbox.add(delivery(number, at=world.now)))
    world.run(2 * 60 * MINUTE)
    assert [item.id for item in world.taken] == [delivery(number).id for number in range(800)]
    assert world.disk == {}
    during = [at for at, _ in world.posts if 61 * SECOND <= at < 660 * SECOND]
    assert 8 <= len(during) <= 14, "the receiver is left alone more and more"
    first = next(at for at, _ in world.posts if at >= 660 * SECOND)
    assert first - 660 * SECOND <= CAP_US


def test_a_crash_at_any_moment_loses_nothing_and_repeats_with_the_same_id() -> None:
    for crash in range(0, 3 * SECOND, 50_000):
        world = World(down_between(0, 500_000))
        for number in range(3):
            world.execute(world.outbox.add(delivery(number)))
        world.run(crash)
        world.boot()
        world.run(30 * MINUTE)
        names = [item.id for item in world.taken]
        assert sorted(dict.fromkeys(names)) == [delivery(number).id for number in range(3)]
        assert len(names) <= 4
        assert world.disk == {}


def test_pauses_grow_to_their_cap_and_differ() -> None:
    world = World(down_between(0, 10 * LIFE_US))
    world.execute(world.outbox.add(delivery(0)))
    world.run(3 * 60 * MINUTE)
    times = [at for at, _ in world.posts]
    pauses = [later - earlier - world.flight_us for earlier, later in pairwise(times)]
    for number, pause in enumerate(pauses):
        whole = min(CAP_US, SECOND << number)
        assert whole // 2 <= pause <= whole
    assert len(dict.fromkeys(pauses)) == len(pauses)
    assert max(pauses) > CAP_US // 2


def test_one_receiver_does_not_hold_up_another() -> None:
    world = World(lambda item, now: NOBODY if item.hook == "siem" else OK, hooks=("siem", "slack"))
    for number in range(10):
        world.execute(world.outbox.add(delivery(number)))
        world.execute(world.outbox.add(delivery(100 + number, "slack")))
    world.run(5 * SECOND)
    assert len(world.taken) == 10
    assert {item.hook for item in world.taken} == {"slack"}


def test_what_a_receiver_refuses_does_not_hold_up_the_rest_and_dies() -> None:
    world = World(lambda item, now: Outcome(400) if item.id == delivery(0).id else OK)
    for number in range(5):
        world.execute(world.outbox.add(delivery(number)))
    world.run(10 * SECOND)
    assert [item.id for item in world.taken] == [delivery(number).id for number in range(1, 5)]
    world.run(2 * 60 * MINUTE)
    (dead,) = world.disk.values()
    assert (dead.state, dead.attempts, dead.error) == (State.DEAD, REFUSALS_MAX, "status 400")


def test_a_receiver_that_is_gone_for_good_is_not_asked_again() -> None:
    world = World(lambda item, now: Outcome(410))
    world.execute(world.outbox.add(delivery(0)))
    world.run(MINUTE)
    assert len(world.posts) == 1
    assert world.disk[delivery(0).id].state is State.DEAD


def test_nothing_waits_longer_than_its_life_and_the_dead_can_be_sent_again() -> None:
    world = World(down_between(0, 4 * LIFE_US))
    world.execute(world.outbox.add(delivery(0)))
    world.run(2 * LIFE_US)
    assert world.outbox.next_timeout() is None
    assert world.disk[delivery(0).id].state is State.DEAD
    world.boot()
    world.answer = lambda item, now: OK
    world.execute(world.outbox.revive(world.disk[delivery(0).id], Instant(world.now)))
    world.run(world.now + MINUTE)
    assert [item.id for item in world.taken] == [delivery(0).id]
    assert world.disk == {}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_a_busy_receiver_asks_for_is_honoured(status: int) -> None:
    answers = [Outcome(status, retry_after_us=120 * SECOND), OK]
    world = World(lambda item, now: answers.pop(0))
    world.execute(world.outbox.add(delivery(0)))
    world.run(10 * MINUTE)
    (first, second) = (at for at, _ in world.posts)
    assert second - first >= 120 * SECOND


def test_a_receiver_cannot_ask_to_be_left_alone_for_ever() -> None:
    world = World(lambda item, now: Outcome(503, retry_after_us=10**15))
    world.execute(world.outbox.add(delivery(0)))
    world.run(61 * MINUTE)
    assert len(world.posts) == 2


def test_when_too_many_wait_the_oldest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "WAITING_MAX", 3)
    monkeypatch.setattr(webhook_outbox, "DEAD_MAX", 2)
    world = World(down_between(0, LIFE_US))
    for number in range(7):
        world.execute(world.outbox.add(delivery(number)))
    waiting = [item.id for item in world.disk.values() if item.state is State.WAITING]
    dead = [item.id for item in world.disk.values() if item.state is State.DEAD]
    assert waiting == [delivery(number).id for number in (4, 5, 6)]
    assert dead == [delivery(number).id for number in (2, 3)]
    assert world.outbox.waiting == 3


def test_what_is_under_way_is_not_given_up_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "WAITING_MAX", 2)
    world = World(lambda item, now: OK)
    world.execute(world.outbox.add(delivery(0)))
    world.execute(world.outbox.handle_timeout(Instant(0)))
    for number in (1, 2):
        world.execute(world.outbox.add(delivery(number)))
    world.run(MINUTE)
    assert [item.id for item in world.taken] == [delivery(0).id, delivery(2).id]


def test_deliveries_to_a_receiver_that_was_removed_die_at_the_start() -> None:
    world = World(down_between(0, LIFE_US))
    world.execute(world.outbox.add(delivery(0)))
    world.hooks = ("other",)
    world.boot()
    assert world.disk[delivery(0).id].state is State.DEAD
    assert "no such receiver" in world.disk[delivery(0).id].error
    assert world.outbox.revive(world.disk[delivery(0).id], Instant(0))[-1].outcome == "dead"  # type: ignore[union-attr]


def test_an_answer_to_nothing_changes_nothing() -> None:
    world = World(lambda item, now: OK)
    assert world.outbox.finish("msg_unknown", OK, Instant(0)) == []

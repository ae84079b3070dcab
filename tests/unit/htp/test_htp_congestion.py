"""Congestion control by itself, and bandwidth shared by whole endpoints (condition 42)."""

import pytest
from tests.unit.htp.htp_pair import Bottleneck, Host, World

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.congestion import (
    WINDOW_INITIAL_BYTES,
    WINDOW_MIN_BYTES,
    Acked,
    Controller,
    NewReno,
)
from hookprobe.htp.cubic import BETA, CSS_ROUNDS, C, Cubic
from hookprobe.htp.effects import FragmentsReceived
from hookprobe.htp.ledbat import TARGET_US, Ledbat
from hookprobe.htp.pacing import Pacer
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

NOW = Instant(10**15)
BOUND = 1 << 30
HEAD = b"\x36" + bytes(15)


class Course:
    """Feeds a controller one acknowledgement a round trip, for a window that was used up."""

    def __init__(self, controller: Controller, rtt_ms: int = 100) -> None:
        self.controller = controller
        self.rtt = rtt_ms * MILLISECOND
        self.now = NOW
        self.number = 0

    def round(self, delay_us: int = 0, acks: int = 10, *, limited: bool = True) -> int:
        size = self.controller.window // acks
        for _ in range(acks):
            self.now = Instant(self.now + self.rtt // acks)
            self.number += 10
            sample = self.rtt + delay_us
            sent = self.number + 10 * acks  # a window is on the way behind this one
            acked = Acked(
                size, self.number, sent, sample, self.rtt, sample, delay_us, limited, self.now
            )
            self.controller.on_acked(acked)
        return self.controller.window


def test_newreno_doubles_then_halves_then_adds_a_datagram_a_round_trip() -> None:
    course = Course(NewReno(BOUND))
    assert course.round() == 2 * WINDOW_INITIAL_BYTES
    course.controller.on_congestion(course.now)
    half = WINDOW_INITIAL_BYTES
    assert course.controller.window == half
    assert half + DATAGRAM_BYTES * 9 // 10 <= course.round() <= half + DATAGRAM_BYTES
    course.controller.on_persistent()
    assert course.controller.window == WINDOW_MIN_BYTES


def test_cubic_falls_to_seven_tenths_and_is_back_at_its_peak_after_k_seconds() -> None:
    course = Course(Cubic(BOUND))
    while course.round() < 400 * DATAGRAM_BYTES:
        pass
    peak = course.controller.window
    course.controller.on_congestion(course.now)
    assert course.controller.window == pytest.approx(BETA * peak, abs=2)
    k_s = ((1 - BETA) * peak / DATAGRAM_BYTES / C) ** (1 / 3)
    start = course.now
    while course.now - start < k_s * SECOND:
        course.round()
    assert course.controller.window == pytest.approx(peak, rel=0.03)
    plateau = course.controller.window
    for _ in range(60):
        course.round()
    assert course.controller.window > plateau * 1.1  # convex growth beyond the old peak


def test_cubic_converges_fast_when_its_peaks_fall() -> None:
    course = Course(Cubic(BOUND))
    course.round()
    course.controller.on_congestion(course.now)
    first = course.controller.window
    course.controller.on_congestion(course.now)
    start = course.now
    while course.now - start < 5 * SECOND:
        course.round()
    assert first * (1 + BETA) / 2 * 0.9 < course.controller.window


def test_cubic_does_not_grow_in_time_that_was_not_used() -> None:
    course = Course(Cubic(BOUND))
    course.round()
    course.controller.on_congestion(course.now)
    before = course.round()
    for _ in range(100):
        course.round(limited=False)
    assert course.controller.window == before
    assert course.round() < before * 1.2


def test_hystart_leaves_slow_start_when_the_round_trip_grows() -> None:
    grown, steady = Course(Cubic(BOUND)), Course(Cubic(BOUND))
    for _ in range(3):
        grown.round()
        steady.round()
    for _ in range(CSS_ROUNDS + 3):
        grown.round(delay_us=30 * MILLISECOND)
        steady.round()
    before = grown.controller.window
    assert grown.round(delay_us=30 * MILLISECOND) < before * 1.3
    assert steady.controller.window > 20 * before


def test_hystart_goes_on_when_the_growth_was_jitter() -> None:
    course = Course(Cubic(BOUND))
    for _ in range(3):
        course.round()
    course.round(delay_us=30 * MILLISECOND)
    course.round()
    course.round()
    before = course.controller.window
    assert course.round() >= before * 1.9


def test_ledbat_leaves_room_before_anything_is_lost() -> None:
    course = Course(Ledbat(BOUND), rtt_ms=20)
    for _ in range(20):
        course.round()
    high = course.controller.window
    for _ in range(60):
        course.round(delay_us=3 * TARGET_US)
    assert course.controller.window < high / 4


def test_ledbat_slows_down_to_two_datagrams_from_time_to_time() -> None:
    course = Course(Ledbat(BOUND), rtt_ms=20)
    for _ in range(10):
        course.round()
    course.round(delay_us=TARGET_US)  # ends its first slow start
    windows = [course.round(delay_us=TARGET_US // 2) for _ in range(60)]
    assert WINDOW_MIN_BYTES in windows
    assert windows[-1] > 10 * WINDOW_MIN_BYTES
    assert len([window for window in windows if window <= 2 * WINDOW_MIN_BYTES]) < 15


def test_ledbat_halves_on_loss_once_told() -> None:
    course = Course(Ledbat(BOUND))
    for _ in range(20):
        course.round()
    before = course.controller.window
    course.controller.on_congestion(course.now)
    assert course.controller.window == before // 2


def test_the_pacer_lets_go_at_a_quarter_more_than_a_window_a_round_trip() -> None:
    pacer, now, sent = Pacer(0), NOW, 0
    window, rtt = 100_000, 100 * MILLISECOND
    pacer.room(window, rtt, now)
    while now < NOW + SECOND:
        now = Instant(now + MILLISECOND)
        room = pacer.room(window, rtt, now)
        while room >= DATAGRAM_BYTES:
            pacer.on_sent(DATAGRAM_BYTES)
            sent, room = sent + DATAGRAM_BYTES, room - DATAGRAM_BYTES
    assert sent == pytest.approx(1.25 * window * 10, rel=0.02)


def test_the_pacer_says_when_a_quantum_is_there_again() -> None:
    pacer = Pacer(2 * DATAGRAM_BYTES)
    assert pacer.room(120_000, 100 * MILLISECOND, NOW) == 4 * DATAGRAM_BYTES
    pacer.on_sent(4 * DATAGRAM_BYTES)
    at = pacer.next(NOW)
    assert at is not None
    assert at == NOW + 2 * DATAGRAM_BYTES * MILLISECOND // 1501 + 1
    assert pacer.room(120_000, 100 * MILLISECOND, at) >= 2 * DATAGRAM_BYTES
    assert pacer.next(at) is None


# -- whole endpoints that share a slow link -------------------------------------------------------


class Race:
    """Edges that send bulk data to one validator through one slow link."""

    RATE = 1_250_000  # 10 Mb/s

    def __init__(self, *algorithms: str, buffer_us: int = 200 * MILLISECOND) -> None:
        self.world = World()
        self.validator = self.world.add("validator-1")
        self.edges: list[Host] = []
        for number, name in enumerate(algorithms):
            config = HtpConfig(background=name, datagram_max_bytes=DATAGRAM_BYTES)
            edge = self.world.add(f"edge-{number}", config)
            self.edges.append(edge)
            self.world.connect(edge, self.validator)
        self.world.run(2 * SECOND)
        buffer_bytes = self.RATE * buffer_us // SECOND
        self.link = Bottleneck(self.validator.address, self.RATE, buffer_bytes)
        self.world.bottleneck = self.link
        self.begun = [0] * len(algorithms)

    def run(self, span_us: int, *senders: int) -> list[int]:
        """Return the bytes that arrived of each edge while `senders` had enough to send."""
        self.validator.effects.clear()
        until = self.world.now + span_us
        while self.world.now < until:
            for number in senders:
                edge = self.edges[number]
                queue = edge.endpoint._links[self.validator.name].traffic.bulk
                while queue.held < 600_000:
                    self.world.execute(edge, edge.endpoint.send_chunks(
                            self.validator.name, [(HEAD, bytes(8192))], self.world.now
                        ))  # fmt: skip
            self.world.run(20 * MILLISECOND)
            for edge in self.edges:
                edge.effects.clear()
            self.world.wire.clear()
        return [
            sum(
                sum(map(len, one.pieces))
                for effect in self.validator.effects
                if isinstance(effect, FragmentsReceived) and effect.peer == edge.name
                for one in effect.fragments
            )
            for edge in self.edges
        ]


@pytest.mark.parametrize("name", ["newreno", "cubic", "ledbat"])
def test_42_one_flow_fills_the_link(name: str) -> None:
    race = Race(name)
    race.run(3 * SECOND, 0)
    (arrived,) = race.run(5 * SECOND, 0)
    assert arrived > 0.75 * 5 * race.RATE


def test_42_ledbat_keeps_the_queue_short_and_loses_nothing() -> None:
    race = Race("ledbat", buffer_us=500 * MILLISECOND)
    race.run(3 * SECOND, 0)
    race.link.peak_us = race.link.dropped = 0
    race.run(5 * SECOND, 0)
    assert race.link.dropped == 0
    assert race.link.peak_us < 2 * TARGET_US


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_42_two_flows_share_the_link(name: str) -> None:
    race = Race(name, "newreno")
    race.run(4 * SECOND, 0, 1)
    first, second = race.run(12 * SECOND, 0, 1)
    assert first + second > 0.75 * 12 * race.RATE
    assert 0.25 < first / (first + second) < 0.8


@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_42_ledbat_yields(name: str) -> None:
    race = Race("ledbat", name)
    race.run(3 * SECOND, 0)
    race.run(4 * SECOND, 0, 1)
    background, foreground = race.run(8 * SECOND, 0, 1)
    assert foreground > 0.7 * 8 * race.RATE
    assert background < 0.15 * foreground
    race.run(6 * SECOND, 0)
    alone, _ = race.run(4 * SECOND, 0)
    assert alone > 0.6 * 4 * race.RATE  # and comes back when there is room again


def test_42_a_vote_does_not_wait_behind_a_file_on_the_same_session() -> None:
    race = Race("ledbat", buffer_us=500 * MILLISECOND)
    race.run(3 * SECOND, 0)
    (edge,) = race.edges
    queue = edge.endpoint._links[race.validator.name].traffic.bulk
    race.run(20 * MILLISECOND, 0)
    assert queue.held > 300_000  # a quarter of a second of the link
    vote = edge.endpoint.send(race.validator.name, Channel.CONSENSUS, b"vote", race.world.now)
    race.world.execute(edge, vote)
    race.world.run(2 * TARGET_US)
    assert race.validator.messages() == [b"vote"]
    assert queue.held > 100_000

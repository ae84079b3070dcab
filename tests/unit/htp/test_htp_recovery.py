"""Loss recovery, congestion window, acknowledgements, timers."""

from random import Random

import pytest

from hookprobe.errors import MalformedError
from hookprobe.htp.acks import AckTracker
from hookprobe.htp.agenda import Agenda
from hookprobe.htp.packet import Header, PacketType
from hookprobe.htp.recovery import (
    PTO_MAX_US,
    WINDOW_INITIAL_BYTES,
    WINDOW_MIN_BYTES,
    Recovery,
)
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

NOW = Instant(10**15)


def outer(number: int = 0, sequence: int = 0, index: int = 0, last: int = 0) -> Header:
    return Header(PacketType.DATA, sequence, 0, bytes(8), number, 1, 0, index, last)


def sending(count: int, gap_us: int = 1000) -> Recovery[str]:
    recovery: Recovery[str] = Recovery(25 * MILLISECOND, 1 << 20)
    for number in range(count):
        recovery.on_sent(number, 1200, f"p{number}", Instant(NOW + number * gap_us))
    return recovery


def test_the_third_packet_after_a_gap_declares_it_lost() -> None:
    recovery = sending(6, gap_us=1)
    at = Instant(NOW + 50 * MILLISECOND)
    assert recovery.on_ack([(1, 2)], 0, 6, at) == (["p1", "p2"], [])
    assert recovery.on_ack([(1, 3)], 0, 6, at) == (["p3"], ["p0"])


def test_nine_eighths_of_a_round_trip_declare_a_packet_lost() -> None:
    recovery = sending(2, gap_us=1)
    at = Instant(NOW + 40 * MILLISECOND)
    assert recovery.on_ack([(1, 1)], 0, 2, at) == (["p1"], [])
    due = recovery.next_timeout()
    assert due is not None
    assert abs(due - (NOW + 45 * MILLISECOND)) <= 2
    assert recovery.handle_timeout(due) == (["p0"], False)
    assert recovery.in_flight == 0


def test_probe_timeouts_back_off_to_five_seconds() -> None:
    recovery = sending(1)
    waits = []
    before = NOW
    for _ in range(8):
        due = recovery.next_timeout()
        assert due is not None
        assert recovery.handle_timeout(due) == ([], True)
        waits.append(due - before)
        before = due
    assert waits[:3] == [999_000, 1_998_000, 3_996_000]
    assert waits[3:] == [PTO_MAX_US] * 5
    recovery.on_ack([(0, 0)], 0, 1, before)
    assert recovery.pto_count == 0
    assert recovery.next_timeout() is None


def test_loss_halves_the_window_once_per_round_trip() -> None:
    recovery = sending(8, gap_us=1)
    at = Instant(NOW + 30 * MILLISECOND)
    recovery.on_ack([(4, 4)], 0, 8, at)
    halved = recovery.window
    assert halved < WINDOW_INITIAL_BYTES
    recovery.on_ack([(4, 7)], 0, 8, at)
    assert recovery.window == halved


def test_persistent_loss_collapses_the_window() -> None:
    recovery = sending(1)
    recovery.on_ack([(0, 0)], 0, 1, Instant(NOW + 10 * MILLISECOND))
    for number in range(1, 60):
        recovery.on_sent(number, 1200, "x", Instant(NOW + SECOND + number * 20 * MILLISECOND))
    recovery.on_ack([(59, 59)], 0, 60, Instant(NOW + SECOND + 1190 * MILLISECOND))
    assert recovery.window == WINDOW_MIN_BYTES


def test_the_window_grows_to_its_bound_only() -> None:
    recovery: Recovery[None] = Recovery(25 * MILLISECOND, 64_000)
    number, now = 0, NOW
    for _ in range(200):
        first = number
        while not recovery.blocked:
            recovery.on_sent(number, 1200, None, now)
            number += 1
        now = Instant(now + 10 * MILLISECOND)
        recovery.on_ack([(first, number - 1)], 0, number, now)
    assert recovery.window == 64_000


def test_an_unused_window_does_not_grow() -> None:
    recovery: Recovery[None] = Recovery(25 * MILLISECOND, 1 << 20)
    for number in range(100):
        recovery.on_sent(number, 1200, None, Instant(NOW + number * SECOND))
        later = Instant(NOW + number * SECOND + 10 * MILLISECOND)
        recovery.on_ack([(0, number)], 0, number + 1, later)
    assert recovery.window == WINDOW_INITIAL_BYTES


def test_an_ack_of_the_unsent_is_refused() -> None:
    with pytest.raises(MalformedError):
        sending(3).on_ack([(0, 3)], 0, 3, NOW)


def note(acks: AckTracker, number: int, now: int = NOW) -> None:
    acks.receive(outer(number), Instant(now), eliciting=True, at_once=False)


def test_acks_wait_briefly_or_for_the_second_packet_or_not_at_all_on_a_gap() -> None:
    acks = AckTracker(25_000, 8)
    note(acks, 0)
    assert acks.deadline == NOW + 25_000
    note(acks, 1)
    assert acks.deadline == NOW
    acks.sent()
    note(acks, 3)
    assert acks.deadline == NOW
    assert acks.ranges == [(3, 3), (0, 1)]
    note(acks, 2)
    assert acks.ranges == [(0, 3)]


def test_ack_ranges_are_bounded_and_agree_with_a_set() -> None:
    acks, random = AckTracker(25_000, 8), Random(4)
    numbers = random.sample(range(60), 45)
    for number in numbers:
        note(acks, number)
    told = {number for low, high in acks.ranges for number in range(low, high + 1)}
    assert told == set(numbers)
    for number in range(100, 1000, 2):
        note(acks, number)
    assert len(acks.ranges) == 33
    assert acks.ranges[0] == (998, 998)


def test_the_agenda_keeps_the_earliest_deadline_of_each() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", Instant(30))
    agenda.set("b", Instant(20))
    agenda.set("a", Instant(10))
    agenda.set("b", Instant(25))
    assert agenda.next() == 10
    assert agenda.pop_due(Instant(15)) == ["a"]
    assert agenda.next() == 20
    agenda.discard("b")
    assert agenda.next() is None
    assert agenda.pop_due(Instant(100)) == []

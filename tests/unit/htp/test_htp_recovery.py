"""Loss recovery, congestion window, acknowledgements, timers."""

from random import Random

import pytest

from hookprobe.errors import MalformedError
from hookprobe.htp.acks import AckTracker
from hookprobe.htp.agenda import Agenda
from hookprobe.htp.congestion import WINDOW_INITIAL_BYTES, WINDOW_MIN_BYTES, NewReno
from hookprobe.htp.packet import Header, PacketType
from hookprobe.htp.recovery import PTO_MAX_US, Flight, Recovery
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

NOW = Instant(10**15)


def outer(number: int = 0, sequence: int = 0, index: int = 0, last: int = 0) -> Header:
    return Header(PacketType.DATA, sequence, 0, bytes(8), number, 1, 0, index, last)


class Line:
    """A recovery with one NewReno flight."""

    def __init__(self, window_max: int = 1 << 20) -> None:
        self.recovery: Recovery[str] = Recovery(25 * MILLISECOND)
        self.flight = Flight(NewReno(window_max), 1 << 20)

    def send(self, number: int, at: int, flight: bool = True) -> None:
        chosen = self.flight if flight else None
        self.recovery.on_sent(number, 1200, f"p{number}", chosen, Instant(at))

    def ack(
        self, ranges: list[tuple[int, int]], next_number: int, at: int
    ) -> tuple[list[str], list[str]]:
        outcome = self.recovery.on_ack(ranges, (0, None), next_number, Instant(at))
        return [one.sent.content for one in outcome.arrived], [
            one.sent.content for one in outcome.lost
        ]

    @property
    def window(self) -> int:
        return self.flight.controller.window


def sending(count: int, gap_us: int = 1000) -> Line:
    line = Line()
    for number in range(count):
        line.send(number, NOW + number * gap_us)
    return line


def test_the_third_packet_after_a_gap_declares_it_lost() -> None:
    line = sending(6, gap_us=1)
    at = NOW + 50 * MILLISECOND
    assert line.ack([(1, 2)], 6, at) == (["p1", "p2"], [])
    assert line.ack([(1, 3)], 6, at) == (["p3"], ["p0"])


def test_nine_eighths_of_a_round_trip_declare_a_packet_lost() -> None:
    line = sending(2, gap_us=1)
    at = NOW + 40 * MILLISECOND
    assert line.ack([(1, 1)], 2, at) == (["p1"], [])
    due = line.recovery.next_timeout()
    assert due is not None
    assert abs(due - (NOW + 45 * MILLISECOND)) <= 2
    lost, probe = line.recovery.handle_timeout(due)
    assert ([one.sent.content for one in lost], probe) == (["p0"], False)
    assert line.flight.in_flight == 0


def test_probe_timeouts_back_off_to_five_seconds() -> None:
    line = sending(1)
    waits = []
    before = NOW
    for _ in range(8):
        due = line.recovery.next_timeout()
        assert due is not None
        assert line.recovery.handle_timeout(due) == ([], True)
        waits.append(due - before)
        before = due
    assert waits[:3] == [999_000, 1_998_000, 3_996_000]
    assert waits[3:] == [PTO_MAX_US] * 5
    line.ack([(0, 0)], 1, before)
    assert line.recovery.pto_count == 0
    assert line.recovery.next_timeout() is None


def test_loss_halves_the_window_once_per_round_trip() -> None:
    line = sending(8, gap_us=1)
    at = NOW + 30 * MILLISECOND
    line.ack([(4, 4)], 8, at)
    halved = line.window
    assert halved < WINDOW_INITIAL_BYTES
    line.ack([(4, 7)], 8, at)
    assert line.window == halved


def persistent(skipped: int) -> int:
    """Lose 1.2 seconds of packets, of which number 30 is replaced by one that counts for nobody."""
    line = sending(1)
    line.ack([(0, 0)], 1, NOW + 10 * MILLISECOND)
    for number in range(1, 60):
        if number != skipped:
            line.send(number, NOW + SECOND + number * 20 * MILLISECOND)
    line.ack([(59, 59)], 60, NOW + SECOND + 1190 * MILLISECOND)
    return line.window


def test_persistent_loss_collapses_the_window() -> None:
    assert persistent(skipped=0) == WINDOW_MIN_BYTES


def test_packets_that_ask_for_no_answer_do_not_hide_persistent_loss() -> None:
    assert persistent(skipped=30) == WINDOW_MIN_BYTES


def test_loss_with_an_arrival_in_between_is_not_persistent() -> None:
    line = sending(1)
    line.ack([(0, 0)], 1, NOW + 10 * MILLISECOND)
    for number in range(1, 60):
        line.send(number, NOW + SECOND + number * 20 * MILLISECOND)
    line.ack([(59, 59), (30, 30)], 60, NOW + SECOND + 1190 * MILLISECOND)
    assert line.window > WINDOW_MIN_BYTES


def test_probes_of_the_path_are_no_sign_of_congestion() -> None:
    line = Line()
    line.send(0, NOW, flight=False)
    for number in range(1, 6):
        line.send(number, NOW + number)
    assert line.ack([(1, 5)], 6, NOW + 20 * MILLISECOND)[1] == ["p0"]
    assert line.window >= WINDOW_INITIAL_BYTES
    assert line.flight.in_flight == 0


def filling(line: Line, rounds: int) -> None:
    number, now = 0, NOW
    for _ in range(rounds):
        first = number
        while line.flight.in_flight + 1200 <= line.window:
            line.send(number, now)
            number += 1
        now = Instant(now + 10 * MILLISECOND)
        line.ack([(first, number - 1)], number, now)


def test_the_window_grows_to_its_bound_only() -> None:
    line = Line(64_000)
    filling(line, 200)
    assert line.window == 64_000


def test_an_unused_window_does_not_grow() -> None:
    line = Line()
    for number in range(100):
        line.send(number, NOW + number * SECOND)
        line.ack([(0, number)], number + 1, NOW + number * SECOND + 10 * MILLISECOND)
    assert line.window == WINDOW_INITIAL_BYTES


def test_an_ack_of_the_unsent_is_refused() -> None:
    with pytest.raises(MalformedError):
        sending(3).ack([(0, 3)], 3, NOW)


def note(acks: AckTracker, number: int, now: int = NOW) -> None:
    acks.receive(outer(number), Instant(now))


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

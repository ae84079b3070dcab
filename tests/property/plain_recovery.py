"""Loss recovery packet by packet: what `Recovery` has to agree with, and far too slow for files."""

from collections.abc import Sequence
from typing import NamedTuple

from hookprobe.htp.congestion import Acked
from hookprobe.htp.recovery import (
    GRANULARITY_US,
    PACKET_THRESHOLD,
    PERSISTENT_PTOS,
    Flight,
    Recovery,
)
from hookprobe.wire.instant import Instant


class PlainSent(NamedTuple):
    number: int
    at: Instant
    size: int
    content: str
    order: int
    flight: Flight | None


class PlainRecovery:
    """RFC 9002 with one record for each packet; round trips and timers are those of `Recovery`."""

    def __init__(self, ack_delay_us: int) -> None:
        self.timing: Recovery[str] = Recovery(ack_delay_us)
        self.sent: dict[int, PlainSent] = {}
        self.order = 0

    def on_sent(
        self, number: int, size: int, content: str, flight: Flight | None, now: Instant
    ) -> None:
        self.order += 1
        self.sent[number] = PlainSent(number, now, size, content, self.order, flight)
        self.timing._last_sent = now
        if flight is not None:
            flight.in_flight += size
            flight.pacer.on_sent(size)

    def restart(self) -> list[PlainSent]:
        found = list(self.sent.values())
        for one in found:
            if one.flight is not None:
                one.flight.in_flight -= one.size
        self.sent = {}
        self.timing._acked_largest, self.timing._loss_at, self.timing.pto_count = -1, None, 0
        return found

    def on_ack(
        self, ranges: Sequence[tuple[int, int]], next_number: int, now: Instant
    ) -> tuple[list[PlainSent], list[PlainSent]]:
        timing, largest = self.timing, ranges[0][1]
        newest = self.sent.get(largest)
        arrived = [one for one in self.sent.values()
                   if any(first <= one.number <= last for first, last in ranges)]  # fmt: skip
        for one in arrived:
            del self.sent[one.number]
        if not arrived:
            return [], []
        timing._latest = 0
        if newest is not None and largest > timing._acked_largest:
            timing._sample(now - newest.at, 0)
            timing._sampled_at = now if timing._sampled_at is None else timing._sampled_at
        timing._acked_largest = max(timing._acked_largest, largest)
        timing.pto_count = 0
        for flight in dict.fromkeys(one.flight for one in arrived if one.flight is not None):
            mine = [one for one in arrived if one.flight is flight]
            counted = sum(one.size for one in mine if one.at > flight.recovery_start)
            limited = flight.in_flight * 2 >= flight.window
            flight.in_flight -= sum(one.size for one in mine)
            numbers = (timing._acked_largest, next_number, timing._latest, timing._rtt_min)
            flight.controller.on_acked(
                Acked(counted, *numbers, timing.rtt, None, limited and counted > 0, now)
            )
        return arrived, self.detect(now)

    def detect(self, now: Instant) -> list[PlainSent]:
        timing = self.timing
        patience = max(max(timing.rtt, timing._latest) * 9 // 8, GRANULARITY_US)
        timing._loss_at = None
        lost: list[PlainSent] = []
        for number, one in self.sent.items():
            if number >= timing._acked_largest:
                break
            if number > timing._acked_largest - PACKET_THRESHOLD and one.at + patience > now:
                timing._loss_at = Instant(one.at + patience)
                break
            lost.append(one)
        for one in lost:
            del self.sent[one.number]
            if one.flight is not None:
                one.flight.in_flight -= one.size
        timing.lost_count += len(lost)
        self.tell_lost([one for one in lost if one.flight is not None], now)
        return lost

    def tell_lost(self, counted: list[PlainSent], now: Instant) -> None:
        timing = self.timing
        for one in counted:
            if one.flight is not None and one.at > one.flight.recovery_start:
                one.flight.recovery_start = now
                one.flight.controller.on_congestion(now)
        if len(counted) < 2 or timing._sampled_at is None or counted[0].at < timing._sampled_at:
            return
        first, last = counted[0], counted[-1]
        span = timing.rtt + max(4 * timing._rtt_variation, GRANULARITY_US) + timing._ack_delay_us
        unbroken = last.order - first.order == len(counted) - 1
        if unbroken and last.at - first.at > PERSISTENT_PTOS * span:
            for one in (first, last):
                if one.flight is not None:
                    one.flight.controller.on_persistent()

    def next_timeout(self) -> Instant | None:
        if not self.sent:
            return None
        timing = self.timing
        if timing._loss_at is not None:
            return timing._loss_at
        return Instant(timing._last_sent + timing.pto_us)

    def handle_timeout(self, now: Instant) -> tuple[list[PlainSent], bool]:
        due = self.next_timeout()
        if due is None or now < due:
            return [], False
        if self.timing._loss_at is not None:
            return self.detect(now), False
        self.timing.pto_count += 1
        self.timing._last_sent = now
        return [], True

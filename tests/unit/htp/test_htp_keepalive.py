"""Heartbeats that keep a NAT's mapping alive, and how often they have to come."""

import itertools
from collections.abc import Iterator

import pytest
from tests.unit.htp.htp_pair import Host, Weather, World

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, Effect, SessionDown, Transmit
from hookprobe.htp.keepalive import ASKED_S, ON_MAINS, KeepAlive
from hookprobe.htp.messages import Vitals
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.wire.instant import HOUR, MINUTE, SECOND, Duration, Instant


class NatWorld(World):
    """The edge sits behind a NAT that forgets a mapping which carried nothing outwards for a while.

    `same_port`: it gives out the same port again, so that only lost packets show it.
    """

    def __init__(self, timeout_s: int, *, same_port: bool = False) -> None:
        super().__init__(Weather())
        self.timeout_us = timeout_s * SECOND
        self.same_port = same_port
        self.edge = self.add("edge-1", HtpConfig(datagram_max_bytes=1200))
        self.validator = self.add("validator-1", HtpConfig(datagram_max_bytes=1200))
        self.outwards_at = 0
        self.port = 40_000

    def execute(self, host: Host, effects: list[Effect]) -> list[Effect]:
        if host is self.edge and any(isinstance(one, Transmit) for one in effects):
            if self.now - self.outwards_at > self.timeout_us and not self.same_port:
                self.port += 1
            self.outwards_at = self.now
            self.moved[self.edge.address] = Address("203.0.113.7", self.port)
        return super().execute(host, effects)

    def _host_at(self, target: Address) -> Host | None:
        found = super()._host_at(target)
        gone = self.now - self.outwards_at > self.timeout_us
        return None if found is self.edge and gone else found

    def connected(self, battery: int) -> "NatWorld":
        self.edge.endpoint.report(Vitals(battery=battery))
        self.connect(self.edge, self.validator)
        self.run(5 * SECOND)
        assert self.validator.endpoint.peers == (self.edge.name,)
        return self

    def asked_s(self) -> int:
        (meter,) = self.validator.endpoint.sessions(self.now)
        return meter.heartbeat_s


def beats(world: World, source: Host) -> Iterator[int]:
    """Say when heartbeats leave, in microseconds, by watching the link."""
    seen = len(world.wire)
    while True:
        if not world.step(world.now + HOUR):
            return
        for at in range(seen, len(world.wire)):
            sender, _, data = world.wire[at]
            if sender == source.address and decode_header(data).kind is PacketType.HEARTBEAT:
                yield world.now
        seen = len(world.wire)


def test_heartbeats_are_jittered_between_two_thirds_and_all_of_the_gap() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.connect(edge, validator)
    times = [at for at, _ in zip(beats(world, edge), range(100), strict=False)]
    gaps = [(b - a) / SECOND for a, b in itertools.pairwise(times[5:])]
    assert all(20 <= gap <= 30 for gap in gaps)
    assert min(gaps) < 21.5
    assert max(gaps) > 28.5
    assert len({round(gap, 3) for gap in gaps}) > 90, "no beat"


def test_jitter_never_holds_back_an_acknowledgement() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.connect(edge, validator)
    world.run(SECOND)
    for _ in range(20):
        at = next(beats(world, edge))
        seen = len(world.wire)
        world.run(11_000)  # the link takes 10 ms
        (answer,) = world.wire[seen:]
        assert decode_header(answer[2]).kind is PacketType.ACK
        link = validator.endpoint._links[edge.name]
        assert link._acks.largest_at == at + 10_000, "answered in the moment of its arrival"


@pytest.mark.parametrize("timeout_s", [18, 24])
@pytest.mark.parametrize("same_port", [False, True])
def test_a_quick_nat_is_found_out_and_the_edge_stays_in_reach(
    timeout_s: int, same_port: bool
) -> None:
    world = NatWorld(timeout_s, same_port=same_port).connected(ON_MAINS)
    assert world.asked_s() == 30
    sent, asked = 0, []
    for _ in range(400):  # something for the edge now and then: what a validator has to say
        world.run(37 * SECOND)
        message = sent.to_bytes(4)
        world.execute(
            world.validator,
            world.validator.endpoint.send(world.edge.name, Channel.GOSSIP, message, world.now),
        )
        sent += 1
        asked.append(world.asked_s())
    world.run(MINUTE)
    assert all(15 <= one <= 30 for one in asked)
    if same_port:  # silence in which we had nothing to say looks survived
        assert min(asked) <= timeout_s
    else:
        assert sum(one <= timeout_s for one in asked) > 0.9 * len(asked), "asked anew every hour"
    assert [int.from_bytes(data) for data in world.edge.messages()] == list(range(sent))
    assert world.edge.of(SessionDown) == world.validator.of(SessionDown) == []


@pytest.mark.parametrize("timeout_s", [35, 50, 75, 100, 100_000])
def test_a_battery_is_spared_as_far_as_the_nat_allows(timeout_s: int) -> None:
    world = NatWorld(timeout_s).connected(40)
    world.run(50 * MINUTE)
    asked = world.asked_s()
    assert asked <= timeout_s
    assert asked >= min(timeout_s, ASKED_S[-1]) * 2 // 3
    assert world.edge.of(SessionDown) == world.validator.of(SessionDown) == []
    seen = len(world.wire)
    world.run(HOUR // 2)
    spent = sum(source != world.validator.address for source, _, _ in world.wire[seen:])
    assert spent < 2 * HOUR // 2 // SECOND // (asked * 2 // 3), "few packets"


def test_more_than_half_a_charge_speaks_every_minute() -> None:
    world = NatWorld(100_000).connected(51)
    world.run(30 * MINUTE)
    assert world.asked_s() == 60


def test_nobody_on_mains_is_probed() -> None:
    world = NatWorld(45).connected(ON_MAINS)
    world.run(HOUR)
    assert world.asked_s() == 30
    assert world.validator.endpoint._links[world.edge.name]._keepalive is None
    assert world.port == 40_001


def test_nobody_is_forgotten_for_the_silence_that_was_asked_for() -> None:
    world = NatWorld(100_000)
    for host in (world.edge, world.validator):
        host.config = HtpConfig(datagram_max_bytes=1200, idle_us=45 * SECOND)
        host.boot(world.now)
    world.connected(10).run(40 * MINUTE)
    assert world.asked_s() == 120
    assert world.edge.of(SessionDown) == world.validator.of(SessionDown) == []


def test_the_shortest_silence_that_was_not_survived_is_believed() -> None:
    keep, now = KeepAlive(30), Instant(0)
    keep.learn(Duration(20 * SECOND), now, forgotten=True)
    assert keep.wanted_s(ON_MAINS, now) == 15
    keep.learn(Duration(28 * SECOND), now, forgotten=False)
    assert keep.wanted_s(ON_MAINS, now) == 15, "the same port again is no proof"
    keep.learn(Duration(18 * SECOND), now, forgotten=False)
    assert keep.wanted_s(ON_MAINS, now) == 18
    keep.learn(Duration(17 * SECOND), now, forgotten=True)
    assert keep.wanted_s(ON_MAINS, now) == 15
    assert keep.wanted_s(ON_MAINS, Instant(HOUR)) == 30, "believed for an hour"


def test_only_15_to_120_seconds_are_ever_asked_for() -> None:
    for silence_s in (5, 14, 15, 60, 119, 120, 100_000):
        for forgotten in (False, True):
            for battery in (0, 50, 51, 100, ON_MAINS):
                keep = KeepAlive(30)
                silence = Duration(silence_s * SECOND)
                keep.learn(silence, Instant(0), forgotten=forgotten)
                assert keep.wanted_s(battery, Instant(0)) in ASKED_S

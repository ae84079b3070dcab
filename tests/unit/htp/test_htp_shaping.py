"""BURST, SWARM and GHOST (HTP spec 3.7), and witnesses' signatures carried as they are."""

import hashlib
import itertools
import math
import statistics
from random import Random

import pytest
from tests.unit.htp.htp_pair import Host, Weather, World, pair

from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.errors import ConfigError, LimitExceededError, LocalError, MalformedError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.effects import (
    Address,
    DownReason,
    FragmentsReceived,
    MessageReceived,
    SessionDown,
    SessionRenewed,
    Transmit,
)
from hookprobe.htp.ghost import GhostLink
from hookprobe.htp.packet import Mode, PacketType, decode_header
from hookprobe.htp.swarm import COLLECTED_MAX_BYTES, SETS_MAX, SwarmCollector, SwarmSender
from hookprobe.htp.veil import unveil
from hookprobe.wire.instant import MILLISECOND, MINUTE, SECOND

GHOST = HtpConfig().ghosting(24_000)
PLAIN = HtpConfig(datagram_max_bytes=1200)


# -- BURST ------------------------------------------------------------------------------------


def alert(mode: Mode) -> tuple[int, list[int]]:
    """Send an alert behind steady traffic: (datagrams that leave at once, their modes)."""
    world, edge, validator = pair(PLAIN, Weather(latency_us=50 * MILLISECOND))
    for _ in range(40):  # a window grows, and the bucket of the pacer runs empty
        data = bytes(30_000)
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, data, world.now))
        world.run(200 * MILLISECOND)
    link = edge.endpoint._links[validator.name]
    assert link.traffic.foreground.window > 60_000
    first = edge.endpoint.send(validator.name, Channel.TER, bytes(20_000), world.now)
    world.execute(edge, first)
    effects = edge.endpoint.send(validator.name, Channel.MICROBLOCK, b"!" * 30_000, world.now, mode)
    world.execute(edge, effects)
    headers = [decode_header(one.data) for one in effects if isinstance(one, Transmit)]
    world.run(SECOND)
    assert validator.messages()[-1] == b"!" * 30_000 or b"!" * 30_000 in validator.messages()
    return len(headers), [header.mode for header in headers]


def test_burst_an_alert_waits_for_the_window_only() -> None:
    paced, modes = alert(Mode.NORMAL)
    at_once, burst_modes = alert(Mode.BURST)
    assert at_once >= 28, "30,000 bytes in one go"
    assert paced < at_once // 2
    assert set(modes) <= {Mode.NORMAL}
    assert burst_modes.count(Mode.BURST) >= 28


def test_burst_never_exceeds_the_congestion_window() -> None:
    world, edge, validator = pair(PLAIN)
    link = edge.endpoint._links[validator.name]
    window = link.traffic.foreground.window
    effects = edge.endpoint.send(
        validator.name, Channel.MICROBLOCK, bytes(200_000), world.now, Mode.BURST
    )
    assert sum(len(one.data) for one in effects if isinstance(one, Transmit)) <= window


# -- SWARM ------------------------------------------------------------------------------------


class Swarm:
    """An edge with three validators that hand what they get to one collector."""

    def __init__(self) -> None:
        self.world = World()
        self.edge = self.world.add("edge-1", PLAIN)
        self.validators = [self.world.add(f"validator-{n}", PLAIN) for n in (1, 2, 3)]
        for one in self.validators:
            self.world.connect(self.edge, one)
        self.world.run(2 * SECOND)
        self.sets: list[list[bytes]] = []
        self.collector = SwarmCollector(lambda _, found: self.sets.append(found))
        self.seen = {one.name: 0 for one in self.validators}
        self.carried = dict(self.seen)

    def drive(self, sender: SwarmSender, span_us: int) -> None:
        until = self.world.now + span_us
        while self.world.now < until and not sender.is_done:
            self.world.execute(self.edge, sender.drive(self.edge.endpoint, self.world.now))
            self.world.run(20 * MILLISECOND)
            self.collect()

    def collect(self) -> None:
        for one in self.validators:
            for effect in one.effects[self.seen[one.name] :]:
                if isinstance(effect, MessageReceived):
                    self.carried[one.name] += 1
                    self.collector.receive(effect.data)
            self.seen[one.name] = len(one.effects)


def letters(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % n).digest() * 100 for n in range(count)]


def test_swarm_one_set_over_several_sessions_each_with_its_own_congestion_control() -> None:
    swarm = Swarm()
    world, slow = swarm.world, swarm.validators[2]
    chance = Random(3)

    def lossy(_: World, source: object, target: object, data: bytes) -> bytes | None:
        del source
        return None if target == slow.address and chance.random() < 0.2 else data

    world.intercept = lossy
    names = [one.name for one in swarm.validators]
    sender = SwarmSender(b"set name", Channel.TER, letters(600), names)
    swarm.drive(sender, MINUTE)
    assert swarm.sets == [letters(600)]
    assert sender.is_done
    assert all(swarm.carried.values()), "every session had a share"
    assert swarm.carried[slow.name] < min(swarm.carried[one] for one in names[:2])
    windows = {one.peer: one.window_bytes for one in swarm.edge.endpoint.sessions(world.now)}
    assert windows[slow.name] < min(windows[one] for one in names[:2])
    swarmed = [decode_header(data).mode for _, _, data in world.wire if data[3] == PacketType.DATA]
    assert set(swarmed) == {Mode.SWARM}


def test_swarm_goes_on_without_a_session_that_dies() -> None:
    swarm = Swarm()
    dead = swarm.validators[0]
    sender = SwarmSender(
        b"set name", Channel.TER, letters(900), [one.name for one in swarm.validators]
    )
    swarm.drive(sender, 60 * MILLISECOND)
    swarm.world.moved[dead.address] = dead.address._replace(port=9)  # nothing reaches it any more
    swarm.drive(sender, 5 * MINUTE)
    assert SessionDown(dead.name, DownReason.SILENT) in swarm.edge.effects
    assert swarm.sets == [letters(900)], "once, whole, in order"


def test_swarm_limits() -> None:
    with pytest.raises(LocalError):
        SwarmSender(b"set name", Channel.TER, [], [Host])  # type: ignore[list-item]
    with pytest.raises(LocalError):
        SwarmSender(b"set name", Channel.TER, [b"x"], [])
    collector = SwarmCollector(lambda *_: None)
    head = b"set name" + bytes(4) + (2).to_bytes(4)
    collector.receive(head + b"x")
    for wrong in (b"short", b"set name" + bytes(4) + (3).to_bytes(4), b"set nam2" + bytes(8)):
        with pytest.raises(MalformedError):
            collector.receive(wrong)
    for number in range(SETS_MAX - 1):
        collector.receive(number.to_bytes(8) + head[8:])
    with pytest.raises(LimitExceededError):
        collector.receive(b"one more" + head[8:])
    collector.discard(b"set name")
    with pytest.raises(LimitExceededError):
        collector.receive(head + bytes(COLLECTED_MAX_BYTES + 1))


# -- GHOST ------------------------------------------------------------------------------------


def ghosts(config: HtpConfig = GHOST, seed: int = 0) -> tuple[World, Host, Host]:
    world = World(Weather(seed=seed))
    edge, validator = world.add(f"edge-{seed}", config), world.add("validator-1", config)
    world.connect(edge, validator)
    world.run(5 * SECOND)
    assert validator.endpoint.peers == (edge.name,)
    return world, edge, validator


def test_ghost_packets_are_alike_and_messages_arrive() -> None:
    world, edge, validator = ghosts()
    world.wire.clear()
    texts = [b"t%d" % n * 900 for n in range(40)]
    for text in texts:
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, text, world.now))
    chunk = (b"\x36" + bytes(15), bytes(range(256)) * 16)
    world.execute(edge, edge.endpoint.send_chunks(validator.name, [chunk], world.now))
    world.execute(validator, validator.endpoint.send(edge.name, Channel.GOSSIP, b"dn", world.now))
    world.run(3 * MINUTE)
    assert validator.messages() == texts
    assert edge.messages() == [b"dn"]
    pieces = [
        one for effect in validator.effects if isinstance(effect, FragmentsReceived)
        for one in effect.fragments
    ]  # fmt: skip
    assert b"".join(data for one in pieces for data in one.pieces)[:4096] == chunk[1]
    outside = {(len(data), data[:12], data[28:32]) for _, _, data in world.wire}
    assert outside == {(1200, bytes.fromhex("00020010") + bytes(8), bytes.fromhex("01030000"))}
    assert edge.of(SessionDown) == []


def test_ghost_keeps_its_budget_whatever_is_to_be_said() -> None:
    world, edge, validator = ghosts()
    world.wire.clear()
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, bytes(900_000), world.now))
    world.run(10 * MINUTE)
    for host in (edge, validator):
        spent = sum(len(data) for source, _, data in world.wire if source == host.address)
        assert 0.97 < spent / (24_000 * 600) < 1.03


def test_ghost_sessions_are_renewed_behind_the_veil() -> None:
    world, edge, validator = ghosts(HtpConfig(rekey_us=2 * MINUTE).ghosting(6_000))
    world.run(5 * MINUTE)
    assert edge.of(SessionRenewed)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"still", world.now))
    world.run(MINUTE)
    assert validator.messages() == [b"still"]


class Watcher:
    """Somebody on the path: sees when what left one address."""

    def __init__(self, source: Address) -> None:
        self.source = source
        self.times: list[tuple[int, bytes]] = []

    def __call__(self, world: World, source: Address, target: Address, data: bytes) -> bytes:
        del target
        if source == self.source:
            self.times.append((world.now, data))
        return data


def windows(config: HtpConfig, active: bool, seeds: range) -> list[list[float]]:
    """Return what an observer sees of the edge in windows of two seconds: one row each."""
    rows = []
    for seed in seeds:
        world, edge, validator = ghosts(config, seed)
        chance = Random(seed)
        world.wire.clear()
        watch = Watcher(edge.address)
        world.intercept = watch
        for _ in range(20):
            watch.times = []
            if active:
                size = chance.randrange(200, 4000)
                message = chance.randbytes(size)
                world.execute(
                    edge, edge.endpoint.send(validator.name, Channel.TER, message, world.now)
                )
            world.run(2 * SECOND)
            rows.append(features(watch.times))
    return rows


def features(times: list[tuple[int, bytes]]) -> list[float]:
    gaps = [(b[0] - a[0]) / SECOND for a, b in itertools.pairwise(times)] or [2.0]
    stamps = [int.from_bytes(data[8:12]) for _, data in times] or [0]
    return [
        float(len(times)),
        float(sum(len(data) for _, data in times)),
        min(gaps),
        max(gaps),
        statistics.pstdev(gaps),
        float(len({data[:12] + data[28:32] for _, data in times})),
        float(max(stamps) - min(stamps)),
    ]


def auc(idle: list[float], active: list[float]) -> float:
    """Area under the ROC curve: the chance that an active window scores above an idle one."""
    order = sorted([(one, 0) for one in idle] + [(one, 1) for one in active])
    total, at = 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and order[end][0] == order[at][0]:
            end += 1
        total += sum(label for _, label in order[at:end]) * (at + end + 1) / 2
        at = end
    return (total - len(active) * (len(active) + 1) / 2) / (len(idle) * len(active))


def classify(train: tuple[list[list[float]], list[list[float]]]) -> list[float]:
    """Fit a logistic regression by gradient descent: weights of standardised features, and bias."""
    rows = [(one, 0) for one in train[0]] + [(one, 1) for one in train[1]]
    weights = [0.0] * (len(rows[0][0]) + 1)
    for _ in range(150):
        slopes = [0.0] * len(weights)
        for row, label in rows:
            values = [*row, 1.0]
            score = sum(w * v for w, v in zip(weights, values, strict=True))
            error = label - 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))
            slopes = [s + error * v for s, v in zip(slopes, values, strict=True)]
        weights = [w + s / len(rows) for w, s in zip(weights, slopes, strict=True)]
    return weights


def observed(config: HtpConfig) -> float:
    """Return how well idle and active sessions are told apart on windows not trained with."""
    idle, active = windows(config, False, range(30)), windows(config, True, range(100, 130))
    columns = list(zip(*idle, *active, strict=True))
    means = [statistics.fmean(column) for column in columns]
    spreads = [statistics.pstdev(column) or 1.0 for column in columns]

    def standard(rows: list[list[float]]) -> list[list[float]]:
        return [[(v - m) / s for v, m, s in zip(row, means, spreads, strict=True)] for row in rows]

    idle, active = standard(idle), standard(active)
    weights = classify((idle[::2], active[::2]))

    def scores(rows: list[list[float]]) -> list[float]:
        return [sum(w * v for w, v in zip(weights, [*row, 1.0], strict=True)) for row in rows]

    return auc(scores(idle[1::2]), scores(active[1::2]))


def test_46_nobody_on_the_path_tells_an_idle_ghost_from_an_active_one() -> None:
    assert observed(PLAIN) > 0.95, "the classifier can do it where nothing is hidden"
    assert observed(GHOST) <= 0.55


def test_ghost_wants_its_settings() -> None:
    with pytest.raises(ConfigError, match="ghosting"):
        HtpConfig(ghost_bytes_per_s=1000)
    with pytest.raises(ConfigError):
        HtpConfig().ghosting(-1)


@pytest.mark.parametrize(
    ("spot", "value"), [(4, b"\0\0\0\1"), (8, b"\0\0\0\1"), (30, b"\0\1"), (3, b"\x20")]
)
def test_a_ghost_that_stands_out_is_a_broken_protocol(spot: int, value: bytes) -> None:
    world, edge, validator = ghosts()
    link = edge.endpoint._links[validator.name]
    assert isinstance(link, GhostLink)
    packet = link._cover(world.now).data
    session = validator.endpoint._links[edge.name].session
    opened = session.open(decode_header(packet), packet)
    assert unveil(opened).header.kind is PacketType.ACK
    changed = decode_header(packet[:spot] + value + packet[spot + len(value) :])
    with pytest.raises(MalformedError):
        unveil(opened._replace(header=changed))
    for inside in (b"", b"\x01" + bytes(11), b"\x10\x10" + bytes(10), b"\x10\0\2\1" + bytes(8)):
        with pytest.raises(MalformedError):
            unveil(opened._replace(payload=inside))
    assert len(packet) == DATAGRAM_BYTES


# -- witnesses --------------------------------------------------------------------------------


def test_witnesses_signatures_are_carried_and_still_hold() -> None:
    scheme, seen = Bls(), b"what was seen"
    signers = [BlsSigner(bytes([n]) * 32) for n in (1, 2, 3)]
    payload = scheme.aggregate([signer.sign(seen) for signer in signers])
    world, edge, validator = pair(PLAIN)
    bulk = edge.endpoint.send(validator.name, Channel.MODEL, bytes(500_000), world.now)
    world.execute(edge, bulk)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.WITNESS, payload, world.now))
    world.run(5 * SECOND)
    (first, *_) = [one for one in validator.effects if isinstance(one, MessageReceived)]
    assert (first.channel, first.data) == (Channel.WITNESS, payload), "before a model of 500 kB"
    assert scheme.verify_aggregate([one.public_key for one in signers], seen, first.data)

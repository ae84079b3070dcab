"""Links that rest and links that never do: nobody can tell them apart."""

import dataclasses
from collections.abc import Callable
from random import Random

import pytest
from tests.unit.htp.htp_pair import Host, Weather, World

from hookprobe.htp.acks import AckTracker
from hookprobe.htp.beacons import BeaconWatch
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, HtpConfig
from hookprobe.htp.effects import Address, Effect, Transmit
from hookprobe.htp.link import Link
from hookprobe.htp.links import TRIES_MAX, Links
from hookprobe.htp.messages import Vitals
from hookprobe.htp.session import Session
from hookprobe.htp.shortcuts import QuickLink
from hookprobe.htp.window import ReplayWindow
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

EDGES = 4
# The library draws for ML-KEM by itself; without it, two runs are the same to the byte.
CONFIG = HtpConfig(
    suites_offered=SUITE_CLASSICAL,
    suites_accepted=SUITE_CLASSICAL,
    rekey_us=90 * SECOND,
    reject_after_us=120 * SECOND,
    idle_us=70 * SECOND,
)


def act(world: World, validator: Host, edges: list[Host], random: Random) -> None:
    """Let something happen, drawn by `random`."""
    edge = random.choice(edges)
    moves: list[Callable[[], object]] = [
        lambda: world.execute(
            edge, edge.endpoint.send(validator.name, Channel.TER, random.randbytes(3000), world.now)
        ),
        lambda: world.execute(
            validator,
            validator.endpoint.send(edge.name, Channel.CONSENSUS, random.randbytes(90), world.now),
        ),
        lambda: regrade(world, validator, edge, random.randrange(0x10000)),
        lambda: edge.endpoint.report(
            Vitals(random.randrange(1000), random.choice((255, 255, random.randrange(100))))
        ),
        lambda: world.moved.update({edge.address: Address("192.0.2.9", random.randrange(1, 9999))}),
        lambda: replay(world, random),
        lambda: forge(world, random),
        lambda: validator.replay.distrusted.append(edge.name),
        validator.replay.distrusted.clear,
        lambda: world.execute(edge, edge.endpoint.close(validator.name, world.now)),
        lambda: world.execute(edge, edge.boot(world.now).connect(validator.pin(), world.now)),
    ]
    weights = [8, 8, 4, 4, 2, 6, 4, 1, 4, 1, 1]
    random.choices(moves, weights)[0]()


def regrade(world: World, validator: Host, edge: Host, score: int) -> None:
    validator.scores.scores[edge.name] = score
    world.execute(validator, validator.endpoint.regrade(edge.name, world.now))


def replay(world: World, random: Random) -> None:
    source, target, data = world.wire[random.randrange(len(world.wire))]
    world.inject(source, target, data)


def forge(world: World, random: Random) -> None:
    source, target, data = world.wire[random.randrange(len(world.wire))]
    spot = random.randrange(len(data))
    world.inject(source, target, data[:spot] + bytes((data[spot] ^ 1,)) + data[spot + 1 :])


def story(seed: int, awake_max: int) -> tuple[list[object], int]:
    """Return everything that happened, and how many links rested in the end."""
    random = Random(seed)
    harsh = Weather(loss=60, duplication=40, corruption=20, jitter_us=30 * MILLISECOND, seed=seed)
    world = World(harsh if seed % 2 else Weather())
    validator = world.add("validator-1", dataclasses.replace(CONFIG, awake_max=awake_max))
    edges = [world.add(f"edge-{number}", CONFIG) for number in range(EDGES)]
    for edge in edges:
        world.execute(edge, edge.endpoint.connect(validator.pin(), world.now))
    rested = 0
    for _ in range(60):
        world.run(random.choice((50 * MILLISECOND, SECOND, 9 * SECOND)))
        links = validator.endpoint._links
        rested += len(links) - len(links.awake)
        act(world, validator, edges, random)
    seen: list[object] = [world.wire]
    seen += [host.effects for host in (validator, *edges)]
    return seen, rested


@pytest.mark.parametrize("seed", range(10))
def test_resting_changes_nothing_that_anybody_sees(seed: int) -> None:
    never, none = story(seed, 10**6)
    always, rested = story(seed, 1)
    assert never == always
    assert none == 0
    assert rested > 30


@pytest.mark.parametrize("seed", range(4))
def test_shortcuts_change_nothing_that_anybody_sees(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, _ = story(seed, 10**6)
    taken = []
    original = QuickLink.receive_beat

    def counted(
        self: QuickLink, data: bytes, address: Address, now: Instant
    ) -> list[Effect] | None:
        answer = original(self, data, address, now)
        taken.append(answer is not None)
        return answer

    monkeypatch.setattr(QuickLink, "receive_beat", counted)
    assert story(seed, 10**6)[0] == quick
    assert any(taken)
    monkeypatch.setattr(QuickLink, "receive_beat", lambda *_: None)
    monkeypatch.setattr(QuickLink, "receive_bulk", lambda *_: 0)
    assert story(seed, 10**6)[0] == quick


def test_whatever_a_link_remembers_is_kept_or_known_to_be_as_at_the_start() -> None:
    """A field that is added has to be thought of here: frozen, or a reason not to rest."""
    kept = {
        Link: {
            "peer", "stream_id", "session", "last_heard", "standing", "vitals", "_probe_echo",
            "_acks", "_watch", "_path", "_traffic", "_inbox", "_keepalive", "heartbeat_s",
        },
        Session: {
            "_sealing", "_opening", "_window", "failed", "exporter", "transcript", "names",
            "created", "resonance", "phase",
        },
        AckTracker: {"_count", "_pending", "ranges", "largest_at", "echo_ts"},
        BeaconWatch: {"_before", "_number", "_fresh_at", "_session", "_fingerprint"},
        ReplayWindow: {"highest", "_run", "_map"},
    }  # fmt: skip
    as_at_the_start = {
        Link: {
            "_tools", "_fragments", "_heartbeat_at", "_rekey_at",
            "datagram_max_bytes", "ended", "renewal_due", "retired", "retired_until",
        },
        Session: {"_failed_max"},
        AckTracker: {"_delay_us", "_every", "deadline"},
        BeaconWatch: {"_check", "_grace_us", "reattest_at"},
        ReplayWindow: set(),
    }  # fmt: skip
    for kind, names in kept.items():
        slots = set(vars(kind)["__slots__"])
        assert slots == names | as_at_the_start[kind], kind
    assert vars(QuickLink)["__slots__"] == ()


def quiet_world(awake_max: int) -> tuple[World, Host, list[Host]]:
    world = World()
    validator = world.add("validator-1", dataclasses.replace(CONFIG, awake_max=awake_max))
    edges = [world.add(f"edge-{number}", CONFIG) for number in range(EDGES)]
    for edge in edges:
        world.execute(edge, edge.endpoint.connect(validator.pin(), world.now))
    world.run(3 * SECOND)
    return world, validator, edges


def links_of(host: Host) -> Links:
    return host.endpoint._links


def test_no_more_than_allowed_are_awake_and_all_are_peers() -> None:
    _, validator, edges = quiet_world(2)
    links = links_of(validator)
    assert len(links.awake) == 2
    assert set(validator.endpoint.peers) == {edge.name for edge in edges} == set(links)
    assert all(edge.name in links for edge in edges)
    assert len(validator.endpoint._table.sessions) == 2


def test_what_was_learnt_of_a_nat_rests_with_its_link() -> None:
    world, validator, edges = quiet_world(1)
    for number, edge in enumerate(edges):
        edge.endpoint.report(Vitals(battery=20))
        world.moved[edge.address] = Address("192.0.2.9", 1000 + number)
    world.run(60 * SECOND)
    links = links_of(validator)
    assert len(links.awake) == 1
    asked = {edge.name: edge.endpoint._links[validator.name].heartbeat_s for edge in edges}
    assert all(links[edge.name]._keepalive is not None for edge in edges)
    assert {name: links[name].heartbeat_s for name in asked} == asked
    assert set(asked.values()) != {CONFIG.heartbeat_s}


def test_a_link_with_something_under_way_does_not_rest() -> None:
    world, validator, edges = quiet_world(1)
    for edge in edges:
        validator.endpoint.send(edge.name, Channel.CONSENSUS, b"unanswered", world.now)
    validator.endpoint.receive_batch([], world.now)
    assert len(links_of(validator).awake) == EDGES


def test_links_that_cannot_rest_are_not_all_looked_at_at_every_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, validator, edges = quiet_world(1)
    for edge in edges:
        validator.endpoint.send(edge.name, Channel.CONSENSUS, b"unanswered", world.now)
    validator.endpoint.receive_batch([], world.now)
    looked = []
    monkeypatch.setattr(QuickLink, "freeze", lambda link: looked.append(link.peer))
    for _ in range(10):
        validator.endpoint.receive_batch([], world.now)
    assert len(looked) == 10 * TRIES_MAX
    assert set(looked) == {edge.name for edge in edges}, "each has its turn"


def test_a_forged_packet_of_a_resting_session_counts_against_it() -> None:
    world, validator, edges = quiet_world(1)
    names = [name for name in links_of(validator) if name not in links_of(validator).awake]
    edge = next(edge for edge in edges if edge.name == names[0])
    (packet,) = [
        effect.data
        for effect in edge.endpoint.send(validator.name, Channel.TER, b"x", world.now)
        if isinstance(effect, Transmit)
    ]
    forged = packet[:-1] + bytes((packet[-1] ^ 1,))
    for _ in range(3):
        validator.endpoint.receive_datagram(forged, edge.address, world.now)
        other = next(one for one in edges if one is not edge)
        validator.endpoint.regrade(other.name, world.now)
        validator.endpoint.handle_timeout(Instant(world.now))
    assert links_of(validator)[edge.name].session.failed == 3


def test_an_echo_that_is_owed_survives_and_an_unproven_path_stays_awake() -> None:
    world, validator, edges = quiet_world(10**6)
    link = links_of(validator)[edges[0].name]
    link._probe_echo = b"12345678"
    frozen = link.freeze()
    assert frozen is not None
    endpoint = validator.endpoint
    thawed = QuickLink.thaw(frozen, endpoint._tools, endpoint._ciphers)
    assert thawed._probe_echo == b"12345678"
    assert thawed.next_timeout() == link.next_timeout()
    link._path.arrive(Address("192.0.2.9", 9), 200, world.now, newest=True)
    assert link.freeze() is None

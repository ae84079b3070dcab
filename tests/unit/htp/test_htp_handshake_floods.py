"""Storms, floods, losses and broken randomness: the handshake under pressure."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from tests.unit.htp.htp_moves import (
    CLASSICAL,
    drop_reasons,
    feed,
    kind_of,
    sent,
    unconnected,
    until_attest,
)
from tests.unit.htp.htp_pair import Book, Host, Weather, World, identity_of, pair, seeded_random

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, HtpConfig
from hookprobe.htp.effects import (
    Address,
    BareRejectSeen,
    Dropped,
    DropReason,
    RejectCode,
    SessionDown,
    SessionUp,
)
from hookprobe.htp.messages import (
    encode_bare_reject,
)
from hookprobe.htp.packet import PacketType
from hookprobe.htp.seams import PinnedPeer
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, MINUTE, SECOND, Instant


def test_13_a_storm_of_bare_rejects_does_not_stop_the_edge() -> None:
    world, edge, validator = unconnected()

    def storm(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        if kind_of(data) is PacketType.HELLO:
            token = data[146:154]
            for _ in range(5):
                reject = encode_bare_reject(token, RejectCode.BUSY, 3600)
                there.inject(target, source, reject)
        return data

    world.intercept = storm
    world.connect(edge, validator)
    world.run(SECOND)
    assert edge.of(BareRejectSeen)[:1] == [BareRejectSeen(validator.name, RejectCode.BUSY)]
    assert edge.endpoint.peers == (validator.name,)


def test_14_an_unconfirmed_session_does_not_evict_the_live_one() -> None:
    world, edge, validator = pair()
    ghost = Host("edge-1", Address("10.0.0.66", 4719), edge.config, world.book, world.now)
    (hello,) = sent(ghost.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, ghost.address, world.now))
    attest = sent(ghost.endpoint.receive_datagram(challenge, validator.address, world.now))
    assert sent(feed(validator, attest, ghost.address, world.now))
    assert len(validator.endpoint._table.pending) == 1
    world.execute(validator, validator.endpoint.send(edge.name, Channel.TER, b"still", world.now))
    world.run(SECOND)
    assert edge.messages() == [b"still"]
    world.run(3 * MINUTE)
    assert validator.endpoint._table.pending == {}
    assert validator.of(SessionDown) == []
    assert len(validator.endpoint._table.sessions) == 1


def test_15_fragments_of_two_attests_do_not_mix() -> None:
    world, edge, validator, _, one = until_attest()
    other = Host("edge-2", Address("10.0.0.7", 4719), edge.config, world.book, world.now)
    (hello,) = sent(other.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, other.address, world.now))
    two = sent(other.endpoint.receive_datagram(challenge, validator.address, world.now))
    # The second half of the other's message, under the cookie of the first.
    mixed = one[1][:84] + two[1][84:]
    effects = feed(validator, [one[0], mixed], edge.address, world.now)
    assert drop_reasons(effects) == [DropReason.HANDSHAKE]
    assert sent(feed(validator, one, edge.address, world.now))


def test_15_a_flood_of_fragments_needs_a_cookie_and_is_bounded() -> None:
    world, edge, validator, _, attest = until_attest()
    for number in range(1000):
        forged = attest[0][:32] + number.to_bytes(16) + attest[0][48:]
        forged = forged[:12] + forged[32:40] + forged[20:]
        effects = validator.endpoint.receive_datagram(forged, edge.address, world.now)
        assert effects == [Dropped(DropReason.COOKIE)]
    parts = validator.endpoint._responder._parts
    assert len(parts) == 0
    for number in range(5000):
        parts.add(number.to_bytes(16), 0, b"half", world.now)
    assert len(parts) == validator.config.partial_attests_max
    late = Instant(world.now + 4 * SECOND)
    assert parts.add(b"c" * 16, 0, b"first", late) is None
    assert len(parts) == 1
    assert parts.add(b"c" * 16, 0, b"again", late) is None
    assert parts.add(b"c" * 16, 1, b"second", late) == [b"first", b"second"]


@pytest.mark.parametrize("victim", [kind for kind in PacketType if kind < PacketType.REJECT])
def test_16_the_loss_of_any_handshake_message_costs_a_retry_only(victim: PacketType) -> None:
    world, edge, validator = unconnected()
    lost: list[bytes] = []

    def lose_first(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        del there, source, target
        if kind_of(data) is victim and not lost:
            lost.append(data)
            return None
        return data

    world.intercept = lose_first
    world.connect(edge, validator)
    world.run(3 * SECOND)
    assert len(lost) == 1
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)


@pytest.mark.parametrize("seed", range(12))
def test_16_handshakes_survive_random_loss_of_a_quarter(seed: int) -> None:
    world = World(Weather(loss=250, duplication=50, jitter_us=30_000, seed=seed))
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.connect(edge, validator)
    world.run(2 * MINUTE)
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)


@pytest.mark.parametrize("broken", ["edge-1", "validator-1", "both"])
def test_18_a_constant_random_source_still_gives_distinct_keys(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(seed: int) -> Callable[[int], bytes]:
        return bytes if broken == "both" else seeded_random(seed)

    monkeypatch.setattr("tests.unit.htp.htp_pair.seeded_random", constant)
    world = World()
    config = HtpConfig(suites_offered=SUITE_CLASSICAL)
    edges = [world.add("edge-1", config), world.add("edge-2", config)]
    validator = world.add("validator-1")
    for host in (*edges, validator):
        if host.name == broken:
            host.endpoint._entropy._random_bytes = bytes
    for edge in edges:
        world.connect(edge, validator)
    world.run(SECOND)
    for edge in edges:
        world.execute(edge, edge.endpoint.close(validator.name, world.now))
        world.connect(edge, validator)
    world.run(SECOND)
    sealed = [data for _, _, data in world.wire if len(data) > 116 and data[2:4] == b"\x00\x20"]
    keys = {link.session.exporter for link in validator.endpoint._links.values()}
    assert len(keys) == 2
    assert len({data[32:] for data in sealed}) == len(sealed) >= 4


def test_19_no_unproven_address_is_sent_more_than_it_sent() -> None:
    world, _, validator, hello, attest = until_attest()
    spoofed = Address("198.51.100.7", 9)
    for data in (hello, *attest, bytes(1200), b"\x00\x02\x00\x10" + b"\x07" * 200):
        effects = validator.endpoint.receive_datagram(data, spoofed, world.now)
        assert sum(map(len, sent(effects))) < len(data)


def test_20_a_spoofed_flood_leaves_memory_flat_and_an_honest_edge_connects() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    responder = validator.endpoint._responder
    for number in range(3000):
        spoofed = Address(f"10.{number >> 8}.{number & 255}.9", 1024 + number)
        for data in (hello, b"\x00\x02\x00\x10" + number.to_bytes(8) * 20):
            validator.endpoint.receive_datagram(data, spoofed, world.now)
    assert len(responder._used) == len(responder._parts) == len(responder._limiter) == 0
    assert len(validator.endpoint._table.sessions) == len(validator.endpoint._table.pending) == 0
    assert world.book.lookups == 0
    world.run(5 * SECOND)
    assert edge.endpoint.peers == (validator.name,)


def test_20_one_prefix_may_have_a_few_attests_checked_and_no_more() -> None:
    world, _, validator = unconnected()
    book = Book()
    accepted = 0
    for number in range(30):
        node = Host(
            f"node-{number}", Address("10.0.0.5", 5000 + number), CLASSICAL, book, world.now
        )
        world.book.entries[node.name] = node.enlist()
        (hello,) = sent(node.endpoint.connect(validator.pin(), world.now))
        (challenge,) = sent(validator.endpoint.receive_datagram(hello, node.address, world.now))
        attest = sent(node.endpoint.receive_datagram(challenge, validator.address, world.now))
        effects = feed(validator, attest, node.address, world.now)
        accepted += bool(sent(effects))
        if number >= 5:
            assert drop_reasons(effects) == [DropReason.RATE]
    assert accepted == validator.config.attest_burst


def test_a_forged_first_challenge_cannot_win() -> None:
    world, edge, validator = unconnected()

    def forge(there: World, source: Address, target: Address, data: bytes) -> bytes | None:
        if kind_of(data) is PacketType.CHALLENGE:
            there.inject(source, target, data[:100] + b"F" * 16 + data[116:])
        return data

    world.intercept = forge
    world.connect(edge, validator)
    world.run(SECOND)
    assert edge.endpoint.peers == (validator.name,)
    assert DropReason.COOKIE in validator.drops()


def test_challenges_beyond_three_are_not_answered() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    answered = 0
    for number in range(6):
        forged = challenge[:100] + number.to_bytes(16) + challenge[116:]
        effects = edge.endpoint.receive_datagram(forged, validator.address, world.now)
        answered += bool(sent(effects))
    assert answered == 3


def test_a_changed_port_between_hello_and_attest_costs_one_retry() -> None:
    world, edge, validator = unconnected()
    world.connect(edge, validator)
    world.run(15_000)
    world.moved[edge.address] = Address("10.0.0.1", 61_000)
    world.run(20 * SECOND)
    assert edge.endpoint.peers == (validator.name,)


def test_the_retry_schedule_doubles_to_a_minute_with_jitter() -> None:
    world = World()
    edge = world.add("edge-1")
    ghost = PinnedPeer(
        NodeId("validator-9"), Address("10.0.0.99", 4719), identity_of("v").static_key.public_key
    )
    world.execute(edge, edge.endpoint.connect(ghost, world.now))
    times = [world.now]
    while len(times) < 10:
        due = edge.endpoint.next_timeout()
        assert due is not None
        world.now = due
        assert sent(edge.endpoint.handle_timeout(due))
        times.append(due)
    gaps = [(after - before) / SECOND for before, after in pairwise(times)]
    for gap, step in zip(gaps, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.8 * step <= gap <= 1.2 * step
    assert len(set(gaps)) == len(gaps)


def test_an_answer_from_another_address_is_not_taken() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    effects = edge.endpoint.receive_datagram(challenge, Address("10.6.6.6", 4719), world.now)
    assert effects == [Dropped(DropReason.UNKNOWN_TOKEN)]


def test_13_a_bare_reject_may_say_version_or_busy_only() -> None:
    world, edge, validator = unconnected()
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    for code in RejectCode:
        reject = encode_bare_reject(hello[146:154], code, 1)
        effects = edge.endpoint.receive_datagram(reject, validator.address, world.now)
        clear = code in (RejectCode.VERSION, RejectCode.BUSY)
        assert (effects == [BareRejectSeen(validator.name, code)]) is clear


def test_15_copies_of_accept_fragments_are_bounded() -> None:
    world, edge, validator, _, attest = until_attest()
    accept = sent(feed(validator, attest, edge.address, world.now))
    for number in range(20):
        forged = accept[0][:40] + number.to_bytes(8) + accept[0][48:]
        edge.endpoint.receive_datagram(forged, validator.address, world.now)
    dial = edge.endpoint._dials.find(validator.name)
    assert dial is not None
    assert len(dial._parts[0]) == 3


def test_48_more_edges_dial_at_once_than_may_wait_and_none_loses_the_session_it_got() -> None:
    world = World(Weather(latency_us=200 * MILLISECOND))
    validator = world.add("validator-1", HtpConfig(unconfirmed_max=8, attest_burst=1000))
    edges = [world.add(f"edge-{number}") for number in range(40)]
    for edge in edges:
        world.connect(edge, validator)
    world.run(MINUTE)
    assert len(validator.endpoint.peers) == len(edges)
    assert all(len(edge.of(SessionUp)) == 1 and not edge.of(SessionDown) for edge in edges)
    assert validator.of(SessionDown) == []
    assert DropReason.BUSY in validator.drops()
    # Whoever was turned away was turned away before anything was computed for it.
    assert validator.book.lookups == len(edges)


def mute(world: World, number: int) -> Host:
    """Return a peer that is known, and whose timers nobody minds."""
    config = HtpConfig()
    host = Host(f"mute-{number}", Address(f"10.0.1.{number}", 4719), config, world.book, world.now)
    world.book.entries[host.name] = host.enlist()
    return host


def half_open(world: World, edge: Host, validator: Host) -> None:
    """Dial, and never confirm."""
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    attest = sent(edge.endpoint.receive_datagram(challenge, validator.address, world.now))
    feed(validator, attest, edge.address, world.now)


def test_48_who_dials_again_and_again_holds_one_place_of_those_that_wait() -> None:
    world = World()
    validator = world.add("validator-1", HtpConfig(unconfirmed_max=3, attest_burst=1000))
    greedy = mute(world, 1)
    for port in range(1, 30):
        greedy.address = greedy.address._replace(port=port)
        greedy.boot(world.now)
        half_open(world, greedy, validator)
    table = validator.endpoint._table
    assert len(table.pending) == len(table.sessions) == 1
    other = world.add("edge-2")
    world.connect(other, validator)
    world.run(SECOND)
    assert validator.endpoint.peers == (other.name,)


def test_48_who_never_confirms_makes_room_after_some_seconds() -> None:
    world = World()
    config = HtpConfig(unconfirmed_max=3, attest_burst=1000)
    validator = world.add("validator-1", config)
    for number in range(3):
        half_open(world, mute(world, number), validator)
    edge = world.add("edge-1")
    world.connect(edge, validator)
    world.run(config.unconfirmed_us - SECOND)
    assert not validator.endpoint.peers
    world.run(10 * SECOND)
    assert validator.endpoint.peers == (edge.name,)

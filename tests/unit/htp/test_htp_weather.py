"""Condition 41: two endpoints on one clock, and a link that does its worst."""

import hashlib
from collections.abc import Sequence
from random import Random

import pytest
from tests.unit.htp.htp_pair import Host, Weather, World, datagrams, pair

from hookprobe.crypto.sealing import OpeningKey
from hookprobe.htp import keepalive
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.effects import (
    Address,
    DatagramReceived,
    Dropped,
    Effect,
    FragmentsReceived,
    ResonanceMismatch,
    SessionDown,
)
from hookprobe.htp.mtu import BLACK_HOLE_LOSSES, LADDER, PROBES_MAX, RAISE_US, MtuSearch
from hookprobe.htp.packet import Block, PacketType
from hookprobe.htp.path import Burst, Received
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

NOW = Instant(10**15)


def head(number: int) -> bytes:
    return b"\x36\0" + number.to_bytes(2) + bytes(12)


def chunk(number: int, size: int = 8192) -> bytes:
    return hashlib.shake_256(number.to_bytes(4)).digest(size)


def put_together(effects: list[Effect]) -> dict[int, bytes]:
    """Write fragments to their places as a receiver of files does."""
    places: dict[int, dict[int, bytes]] = {}
    lasts: dict[int, int] = {}
    for effect in effects:
        if isinstance(effect, FragmentsReceived):
            for one in effect.fragments:
                number = int.from_bytes(one.head[2:4])
                if one.last > lasts.get(number, -1):
                    lasts[number], places[number] = one.last, {}
                if one.last == lasts[number]:
                    places[number].update(enumerate(one.pieces, one.place))
    return {
        number: b"".join(found[place] for place in sorted(found))
        for number, found in places.items()
        if len(found) == lasts[number] + 1
    }


def send_chunks(world: World, edge: Host, validator: Host, numbers: range) -> None:
    for number in numbers:
        world.execute(
            edge,
            edge.endpoint.send_chunks(validator.name, [(head(number), chunk(number))], world.now),
        )


def mtu_of(host: Host, peer: Host) -> int:
    return host.endpoint._links[peer.name].traffic.mtu.size


WEATHERS = {
    "calm": Weather(),
    "loss 1 %": Weather(loss=10, seed=1),
    "loss 5 %": Weather(loss=50, seed=2),
    "loss 15 %": Weather(loss=150, seed=3),
    "loss 25 %": Weather(loss=250, seed=4),
    "reordering": Weather(jitter_us=30 * MILLISECOND, seed=5),
    "duplication": Weather(duplication=300, seed=6),
    "corruption": Weather(corruption=100, seed=7),
    "everything": Weather(
        jitter_us=20 * MILLISECOND, loss=100, duplication=100, corruption=50, seed=8
    ),
}


@pytest.mark.parametrize("name", WEATHERS)
def test_41_everything_arrives_whatever_the_link_does(name: str) -> None:
    world, edge, validator = pair(weather=Weather())
    world.weather = WEATHERS[name]
    world.weather.__post_init__()
    send_chunks(world, edge, validator, range(40))
    texts = [b"%d" % number for number in range(40)]
    for text in texts:
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, text, world.now))
    world.run(60 * SECOND)
    assert put_together(validator.effects) == {number: chunk(number) for number in range(40)}
    assert validator.messages() == texts
    assert not edge.of(SessionDown)
    link = edge.endpoint._links[validator.name]
    assert link.traffic.bulk.held == link.traffic.outbox.held == 0
    assert link.traffic.background.in_flight == link.traffic.foreground.in_flight == 0


@pytest.mark.parametrize("mtu", [1200, 1280, 1410, 1452, 1472, 9000])
def test_41_the_largest_datagram_that_fits_is_found(mtu: int) -> None:
    world, edge, validator = pair(weather=Weather(mtu=mtu))
    send_chunks(world, edge, validator, range(40))
    world.run(5 * SECOND)
    send_chunks(world, edge, validator, range(40, 80))
    world.run(20 * SECOND)
    assert mtu_of(edge, validator) == max(size for size in (1200, *LADDER) if size <= mtu)
    assert len(put_together(validator.effects)) == 80
    assert max(len(data) for _, target, data in world.wire if target == edge.address) <= 1200


def test_41_a_black_hole_is_noticed_and_everything_arrives_at_the_base_size() -> None:
    world, edge, validator = pair(weather=Weather(mtu=9000))
    send_chunks(world, edge, validator, range(40))
    world.run(5 * SECOND)
    assert mtu_of(edge, validator) == LADDER[-1]
    world.weather.mtu = DATAGRAM_BYTES
    send_chunks(world, edge, validator, range(40, 60))
    world.run(20 * SECOND)
    assert mtu_of(edge, validator) == DATAGRAM_BYTES
    assert put_together(validator.effects) == {number: chunk(number) for number in range(60)}


def test_41_a_single_datagram_in_a_black_hole_gets_through_too() -> None:
    world, edge, validator = pair(weather=Weather(mtu=9000))
    send_chunks(world, edge, validator, range(40))
    world.run(5 * SECOND)
    world.weather.mtu = DATAGRAM_BYTES
    send_chunks(world, edge, validator, range(40, 41))
    world.run(30 * SECOND)
    assert len(put_together(validator.effects)) == 41


def test_a_small_talker_probes_nothing() -> None:
    world, edge, validator = pair()
    for _ in range(10):
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"x", world.now))
        world.run(SECOND)
    assert max(len(data) for _, _, data in world.wire) == DATAGRAM_BYTES


def test_random_loss_is_no_black_hole() -> None:
    search = MtuSearch(LADDER[-1])
    for size in LADDER:
        assert search.wanted(NOW) == size
        search.on_probe_sent()
        search.on_probe_arrived(size, NOW)
    for number in range(0, 400, 4):
        search.on_arrived(8324, number + 3)
        for lost in range(3):
            assert not search.on_lost(8324, number + lost, NOW)
    assert search.size == LADDER[-1]
    assert [search.on_lost(8324, 1000 + n, NOW) for n in range(BLACK_HOLE_LOSSES)][-1]
    assert search.size == DATAGRAM_BYTES


def test_a_size_that_fails_three_times_is_skipped_and_tried_again_later() -> None:
    search = MtuSearch(1400)
    for _ in range(PROBES_MAX):
        assert search.wanted(NOW) == 1280
        search.on_probe_sent()
        assert search.wanted(NOW) is None
        search.on_probe_lost(NOW)
    assert search.wanted(NOW) == 1400
    search.on_probe_sent()
    search.on_probe_arrived(1400, NOW)
    assert (search.size, search.wanted(NOW)) == (1400, None)
    limited = MtuSearch(1280)
    for _ in range(PROBES_MAX):
        limited.on_probe_sent()
        limited.on_probe_lost(NOW)
    assert limited.wanted(NOW) is None
    assert limited.wanted(Instant(NOW + RAISE_US)) == 1280


def test_a_peer_that_takes_base_datagrams_only_gets_no_others() -> None:
    assert MtuSearch(0).wanted(NOW) is None
    assert MtuSearch(DATAGRAM_BYTES).wanted(NOW) is None


def test_datagrams_are_sent_once_and_nobody_waits_for_them() -> None:
    world, edge, validator = pair(weather=Weather(loss=0))
    world.weather.loss = 500
    world.weather.__post_init__()
    sent = [b"%d" % number for number in range(60)]
    for text in sent:
        effects = edge.endpoint.send_datagram(validator.name, Channel.QSECBIT, text, world.now)
        world.execute(edge, effects)
        world.run(5 * MILLISECOND)
    world.run(5 * SECOND)
    got = [one.data for one in validator.effects if isinstance(one, DatagramReceived)]
    assert 10 < len(got) < 50
    assert set(got) < set(sent)
    assert len(set(got)) == len(got)
    assert edge.endpoint._links[validator.name].traffic.foreground.in_flight == 0


def bulk_packets(world: World, edge: Host, validator: Host) -> list[bytes]:
    """Let the edge seal chunks without putting anything on the link."""
    chunks = [(head(number), chunk(number)) for number in range(2)]
    effects = edge.endpoint.send_chunks(validator.name, chunks, world.now)
    for wait in range(1, 30):
        at = Instant(world.now + wait * 5 * MILLISECOND)
        effects += edge.endpoint.handle_timeout(at)
    return datagrams(effects)


def bent(packets: list[bytes], seed: int) -> list[bytes]:
    """Repeat, swap, damage, cut and mix packets of a run with others."""
    random, out = Random(seed), list(packets)
    for _ in range(6):
        spot = random.randrange(len(out))
        data = out[spot] or bytes(40)
        match random.randrange(5):
            case 0:
                out.insert(spot, out[random.randrange(len(out))])
            case 1:
                other = random.randrange(len(out))
                out[spot], out[other] = out[other], out[spot]
            case 2:
                place = random.randrange(len(data) or 1)
                out[spot] = data[:place] + bytes((data[place] ^ 1 << random.randrange(8),))
                out[spot] += data[place + 1 :]
            case 3:
                out[spot] = data[: len(data) * random.randrange(100) // 100]
            case _:
                del out[spot]
    return out


def bursts(packets: list[bytes], source: Address) -> list[Received]:
    """Put neighbours of one size together as the host does; the last one may be shorter."""
    groups: list[list[bytes]] = []
    for packet in packets:
        group = groups[-1] if groups else [b""]
        if len(packet) <= len(group[0]) == len(group[-1]) and packet:
            group.append(packet)
        else:
            groups.append([packet])
    return [
        [Burst(b"".join(group), source, len(group[0])) if len(group) > 1 else (group[0], source)]
        for group in groups
    ]


@pytest.mark.parametrize("seed", range(60))
def test_a_run_is_judged_like_its_packets_one_by_one(seed: int) -> None:
    outcomes, packets = [], list[bytes]()
    for way in ("together", "bursts", "alone"):
        world, edge, validator = pair()
        world.run(2 * SECOND)
        packets = bent(bulk_packets(world, edge, validator), seed)
        batches: list[Received] = [[(packet, edge.address)] for packet in packets]
        if way == "bursts":
            batches = bursts(packets, edge.address)
        elif way == "together":
            batches = [[(packet, edge.address) for packet in packets]]
        effects = []
        for batch in batches:
            effects += validator.endpoint.receive_batch(batch, world.now)
        fragments = [
            (one.head, one.place + at, one.last, piece)
            for effect in effects if isinstance(effect, FragmentsReceived)
            for one in effect.fragments for at, piece in enumerate(one.pieces)
        ]  # fmt: skip
        drops = [effect for effect in effects if isinstance(effect, Dropped)]
        link = validator.endpoint._links[edge.name]
        outcomes.append((fragments, drops, link.session._window.highest, link._acks.ranges))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(packets) > 4


@pytest.mark.parametrize("way", ["together", "bursts"])
@pytest.mark.parametrize("kind", ["messages", "chunks", "both in turn"])
def test_a_batch_of_packets_is_opened_once_and_not_once_for_each_that_comes_before(
    way: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    packets: list[bytes] = []
    for number in range(30):
        effects: list[Effect] = []
        if kind != "chunks":
            payload = bytes(1000)
            effects += edge.endpoint.send(validator.name, Channel.TER, payload, world.now)
        if kind != "messages":
            one = [(head(number), chunk(number, 1000))]
            effects += edge.endpoint.send_chunks(validator.name, one, world.now)
        world.now = Instant(world.now + 100 * MILLISECOND)
        packets += datagrams(effects + edge.endpoint.handle_timeout(world.now))
    opened: list[int] = []
    open_run, open_one = OpeningKey.open_run, OpeningKey.open

    def count_run(self: OpeningKey, first: int, texts: Sequence[bytes], bound: Sequence[bytes]
    ) -> list[bytes]:  # fmt: skip
        opened.extend(range(first, first + len(texts)))
        return open_run(self, first, texts, bound)

    def count_one(self: OpeningKey, counter: int, text: bytes, bound: bytes) -> bytes:
        opened.append(counter)
        return open_one(self, counter, text, bound)

    monkeypatch.setattr(OpeningKey, "open_run", count_run)
    monkeypatch.setattr(OpeningKey, "open", count_one)
    batches = bursts(packets, edge.address)
    if way == "together":
        batches = [[(packet, edge.address) for packet in packets]]
    for batch in batches:
        validator.endpoint.receive_batch(batch, world.now)
    assert len(packets) >= 12
    assert len(packets) <= len(opened) <= 2 * len(packets)


def test_a_burst_from_elsewhere_moves_nothing_and_is_judged_packet_by_packet() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    packets = bulk_packets(world, edge, validator)[:8]
    link = validator.endpoint._links[edge.name]
    burst = Burst(b"".join(packets), Address("198.51.100.7", 4719), len(packets[0]))
    assert link.receive_burst(burst, world.now) == 0
    assert link.session.open_burst(Block(burst.data, burst.size))[1] == len(packets)


def test_a_burst_behind_a_long_silence_tells_the_keepalive_of_it() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    packets = bulk_packets(world, edge, validator)[:8]
    link = validator.endpoint._links[edge.name]
    burst = Burst(b"".join(packets), edge.address, len(packets[0]))
    assert link.receive_burst(burst, Instant(link.last_heard + keepalive.LEAST_US)) == 0
    assert link.receive_burst(burst, world.now) == len(packets)
    assert link.receive_burst(burst, world.now) == 0  # seen before


def test_a_run_from_elsewhere_moves_the_session_by_proof_only() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    packets = bulk_packets(world, edge, validator)
    thief = Address("198.51.100.7", 4719)
    received = [(packets[0], edge.address), *((data, thief) for data in packets[1:4])]
    validator.endpoint.receive_batch(received, world.now)
    link = validator.endpoint._links[edge.name]
    assert (link.address, link._path.proven) == (thief, False)


def test_another_beacon_in_the_middle_of_a_run_is_noticed() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    session = edge.endpoint._links[validator.name].session
    packets = []
    for place in range(4):
        if place == 2:
            session.resonance = b"x" * 64
        payload = head(0) + bytes(1024)
        packets.append(session.seal(PacketType.DATA, payload, world.now, 1, place << 8 | 7))
    received = [(data, edge.address) for data in packets]
    effects = validator.endpoint.receive_batch(received, world.now)
    assert ResonanceMismatch(edge.name) in effects

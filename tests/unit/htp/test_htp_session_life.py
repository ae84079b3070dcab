"""A session over time: moves, resets, beacons, trust, clocks, and its end."""

from dataclasses import replace

import pytest
from tests.unit.htp.htp_moves import (
    calm,
    data_packet,
    messages,
    seal_as,
    sent,
)
from tests.unit.htp.htp_pair import World, pair

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    DownReason,
    Dropped,
    DropReason,
    PeerMoved,
    ResonanceMismatch,
    SessionDown,
    SessionRenewed,
    SessionUp,
    Transmit,
)
from hookprobe.htp.link import REJECT_AFTER_PACKETS, REKEY_AFTER_PACKETS
from hookprobe.htp.messages import (
    CloseCode,
    Vitals,
    encode_close,
    encode_heartbeat,
)
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.htp.path import Path
from hookprobe.wire.instant import HOUR, MINUTE, SECOND, Instant


def test_27_a_nat_rebinding_is_followed_after_a_probe() -> None:
    world, edge, validator = calm()
    moved = Address("10.0.0.1", 61_000)
    world.moved[edge.address] = moved
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"here", world.now))
    world.run(2 * SECOND)
    assert validator.of(PeerMoved) == [PeerMoved(edge.name, moved)]
    world.execute(validator, validator.endpoint.send(edge.name, Channel.TER, b"there", world.now))
    world.run(2 * SECOND)
    assert edge.messages() == [b"there"]


def test_27_a_forwarded_copy_moves_the_session_for_seconds_at_most() -> None:
    world, edge, validator = calm()
    thief = Address("203.0.113.5", 5)
    packet = data_packet(world, edge, validator, b"copied")
    # The attacker's copy arrives first, the true one is then a replay.
    world.execute(validator, validator.endpoint.receive_datagram(packet, thief, world.now))
    assert validator.endpoint._links[edge.name].address == thief
    stolen = [
        effect.data
        for effect in validator.effects
        if isinstance(effect, Transmit) and effect.address == thief
    ]
    assert sum(map(len, stolen)) <= 3 * len(packet)
    # The edge's next packet takes the session back.
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"mine", world.now))
    world.run(SECOND)
    assert validator.endpoint._links[edge.name].address == edge.address
    assert validator.of(PeerMoved) == []


def test_27_an_address_that_stays_silent_loses_the_session_and_gets_three_times_at_most() -> None:
    world, edge, validator = calm()
    thief = Address("203.0.113.5", 5)
    packet = data_packet(world, edge, validator, b"copied")
    world.execute(validator, validator.endpoint.receive_datagram(packet, thief, world.now))
    for number in range(200):
        world.execute(
            validator,
            validator.endpoint.send(edge.name, Channel.MODEL, b"%d" % number * 400, world.now),
        )
    world.run(9 * SECOND)
    stolen = [data for _, target, data in world.wire if target == thief]
    assert 0 < sum(map(len, stolen)) <= 3 * len(packet)
    world.run(20 * SECOND)
    assert len(edge.messages()) == 200
    assert validator.endpoint._links[edge.name].address == edge.address


def test_27_an_old_packet_from_elsewhere_moves_nothing() -> None:
    world, edge, validator = calm()
    old = data_packet(world, edge, validator, b"old")
    new = data_packet(world, edge, validator, b"new")
    validator.endpoint.receive_datagram(new, edge.address, world.now)
    effects = validator.endpoint.receive_datagram(old, Address("203.0.113.5", 5), world.now)
    assert messages(effects) == [b"old", b"new"]
    assert validator.endpoint._links[edge.name].address == edge.address


def test_28_a_restarted_validator_resets_the_session_and_the_edge_returns() -> None:
    world, edge, validator = calm()
    validator.boot(world.now)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"lost", world.now))
    world.run(5 * SECOND)
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.RESET)]
    assert validator.endpoint.peers == (edge.name,)
    assert len(edge.of(SessionUp)) == 2


def test_28_a_wrong_reset_token_is_dropped_and_resets_do_not_loop() -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"trigger")
    validator.boot(world.now)
    (reset,) = sent(validator.endpoint.receive_datagram(packet, edge.address, world.now))
    assert len(reset) < len(packet)
    wrong = reset[:-1] + bytes((reset[-1] ^ 1,))
    assert edge.endpoint.receive_datagram(wrong, validator.address, world.now) == [
        Dropped(DropReason.RESET)
    ]
    assert sent(validator.endpoint.receive_datagram(reset, edge.address, world.now)) == []
    stranger = World().add("validator-1")
    assert sent(stranger.endpoint.receive_datagram(reset, edge.address, world.now)) == []
    world.execute(edge, edge.endpoint.receive_datagram(reset, validator.address, world.now))
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.RESET)]


def test_28_resets_are_limited_per_prefix() -> None:
    world, edge, validator = calm()
    junk = [b"\x00\x02\x00\x10" + number.to_bytes(8) * 20 for number in range(50)]
    answered = sum(
        len(sent(validator.endpoint.receive_datagram(data, edge.address, world.now)))
        for data in junk
    )
    assert answered == validator.config.reset_rate_per_s


def test_29_a_replayed_close_and_one_of_an_older_session_end_nothing() -> None:
    world, edge, validator = calm()
    closing = seal_as(edge, validator, PacketType.CLOSE, encode_close(CloseCode.NORMAL), world)
    world.execute(edge, edge.endpoint.close(validator.name, world.now))
    world.run(SECOND)
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.CLOSED_BY_PEER)]
    world.connect(edge, validator)
    world.run(2 * SECOND)
    assert validator.endpoint.peers == (edge.name,)
    effects = validator.endpoint.receive_datagram(closing, edge.address, world.now)
    assert Dropped(DropReason.UNKNOWN_TOKEN) in effects
    token = validator.endpoint._links[edge.name].session.names.local_token
    moved = closing[:12] + token + closing[20:]
    effects = validator.endpoint.receive_datagram(moved, edge.address, world.now)
    assert effects == [Dropped(DropReason.REPLAY)] or effects == [Dropped(DropReason.SEAL)]
    assert validator.endpoint.peers == (edge.name,)


def test_29_a_close_under_retired_keys_ends_nothing() -> None:
    world, edge, validator = calm()
    old = edge.endpoint._links[validator.name].session
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(2 * SECOND)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    late = old.seal(PacketType.CLOSE, encode_close(CloseCode.NORMAL), world.now)
    assert validator.endpoint.receive_datagram(late, edge.address, world.now) == []
    assert validator.endpoint.peers == (edge.name,)
    world.run(31 * SECOND)
    assert len(validator.endpoint._table.sessions) == 1


@pytest.mark.parametrize("kind", ["another session's", "stale", "invented"])
def test_30_a_beacon_that_is_not_the_peers_costs_trust_and_asks_for_a_new_attest(
    kind: str,
) -> None:
    world, edge, validator = calm()
    link = edge.endpoint._links[validator.name]
    beacon = {
        "another session's": b"".join(edge.weights.respond(b"other" * 12)),
        "stale": b"".join(edge.weights.respond(bytes(64))),
        "invented": b"\x01" * 64,
    }[kind]
    link.session.resonance = beacon
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"odd", world.now))
    world.run(3 * SECOND)
    assert validator.of(ResonanceMismatch) == [ResonanceMismatch(edge.name)]
    # An honest edge renews at once and is whole again.
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    world.run(2 * MINUTE)
    assert validator.of(SessionDown) == []


def test_30_an_edge_whose_weights_no_longer_match_loses_its_session() -> None:
    world, edge, validator = calm()
    edge.weights.fingerprint = b"t" * 64
    world.run(3 * MINUTE)
    assert validator.of(ResonanceMismatch) == [ResonanceMismatch(edge.name)]
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.RESONANCE)]
    assert validator.endpoint.peers == ()


def test_30_unchecked_peers_may_carry_any_fresh_beacon() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.book.entries[edge.name] = edge.enlist(checked=False)
    world.connect(edge, validator)
    world.run(SECOND)
    edge.weights.fingerprint = b"t" * 64
    world.run(3 * MINUTE)
    assert validator.of(ResonanceMismatch) == []
    assert validator.endpoint.peers == (edge.name,)


def test_32_ten_hours_of_sleep_cost_a_handshake() -> None:
    world, edge, validator = calm()
    world.now = Instant(world.now + 10 * HOUR)
    world.run(10 * SECOND)
    assert edge.of(SessionDown)[0] in (
        SessionDown(validator.name, DownReason.EXPIRED),
        SessionDown(validator.name, DownReason.IDLE),
    )
    assert edge.endpoint.peers == (validator.name,)
    assert validator.endpoint.peers == (edge.name,)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"awake", world.now))
    world.run(SECOND)
    assert validator.messages() == [b"awake"]


def test_32_a_clock_set_back_does_not_put_timers_to_sleep() -> None:
    world, edge, validator = calm()
    world.now = Instant(world.now - 10 * HOUR)
    for host in (edge, validator):
        world.execute(host, host.endpoint.handle_timeout(world.now))
        due = host.endpoint.next_timeout()
        assert due is not None
        assert due <= world.now + 2 * MINUTE
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"back", world.now))
    world.run(5 * MINUTE)
    assert validator.messages() == [b"back"]
    assert edge.of(SessionDown) == []


def test_32_packets_under_dead_keys_are_not_opened() -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"late")
    later = Instant(world.now + validator.config.reject_after_us)
    effects = validator.endpoint.receive_datagram(packet, edge.address, later)
    assert effects == [Dropped(DropReason.EXPIRED)]


def test_a_peer_that_vanishes_is_noticed_and_awaited() -> None:
    world, edge, validator = calm()
    world.intercept = lambda *_: None
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"hello?", world.now))
    world.run(MINUTE)
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.SILENT)]
    world.run(2 * MINUTE)
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.IDLE)]
    world.intercept = None
    world.run(2 * MINUTE)
    assert edge.endpoint.peers == (validator.name,)


def test_a_quiet_session_stays_up_on_heartbeats_alone() -> None:
    world, edge, validator = calm()
    before = len(world.wire)
    world.run(10 * MINUTE)
    assert edge.of(SessionDown) == validator.of(SessionDown) == []
    beats = [
        data
        for source, _, data in world.wire[before:]
        if source == edge.address and decode_header(data).kind is PacketType.HEARTBEAT
    ]
    assert 20 <= len(beats) <= 31


def test_failed_openings_wear_a_session_out() -> None:
    config = replace(HtpConfig(), failed_open_max=20)
    world, edge, validator = pair(config)
    world.run(SECOND)
    packet = data_packet(world, edge, validator, b"x")
    for _ in range(20):
        forged = packet[:-1] + bytes((packet[-1] ^ 1,))
        world.execute(
            validator, validator.endpoint.receive_datagram(forged, edge.address, world.now)
        )
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.EXPIRED)]


def test_used_up_packet_numbers_renew_the_keys_in_time() -> None:
    world, edge, validator = calm()
    for host, peer in ((edge, validator), (validator, edge)):
        host.endpoint._links[peer.name].session._sealing.counter = REKEY_AFTER_PACKETS - 20
    for number in range(40):
        world.execute(
            edge, edge.endpoint.send(validator.name, Channel.TER, b"%d" % number, world.now)
        )
        world.run(SECOND)
    for number in range(40, 200):
        world.execute(
            edge, edge.endpoint.send(validator.name, Channel.TER, b"%d" % number, world.now)
        )
    world.run(10 * SECOND)
    assert validator.messages() == [b"%d" % number for number in range(200)]
    assert edge.of(SessionRenewed) != []


def test_an_answering_end_whose_numbers_run_out_asks_for_new_keys() -> None:
    world, edge, validator = calm()
    validator.endpoint._links[edge.name].session._sealing.counter = REKEY_AFTER_PACKETS
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"go", world.now))
    world.run(3 * SECOND)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    assert validator.endpoint._links[edge.name].session.next_number < 100


def test_used_up_packet_numbers_end_a_session_that_was_not_renewed() -> None:
    world, edge, validator = calm()
    edge.endpoint._links[validator.name].session._sealing.counter = REJECT_AFTER_PACKETS
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"go", world.now))
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.EXPIRED)]


def test_30_an_older_heartbeat_that_arrives_late_does_not_bring_its_beacon_back() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    world.book.entries[edge.name] = edge.enlist(checked=False)
    world.connect(edge, validator)
    world.run(2 * SECOND)
    session = edge.endpoint._links[validator.name].session
    beats = []
    for beacon in (b"o" * 64, b"n" * 64):
        session.resonance = beacon
        payload = encode_heartbeat(bytes(8), Vitals())
        beats.append(session.seal(PacketType.HEARTBEAT, payload, world.now))
    for beat in reversed(beats):
        validator.endpoint.receive_datagram(beat, edge.address, world.now)
    assert validator.endpoint._links[edge.name].session.resonance == b"n" * 64


def test_29_nothing_is_delivered_after_a_close_in_the_same_batch() -> None:
    world, edge, validator = calm()
    closing = seal_as(edge, validator, PacketType.CLOSE, encode_close(CloseCode.NORMAL), world)
    late = data_packet(world, edge, validator, b"late")
    effects = validator.endpoint.receive_batch(
        [(closing, edge.address), (late, edge.address)], world.now
    )
    assert messages(effects) == []
    assert Dropped(DropReason.EXPIRED) in effects
    assert SessionDown(edge.name, DownReason.CLOSED_BY_PEER) in effects


def test_27_only_the_probe_itself_proves_a_path() -> None:
    path = Path(Address("10.0.0.1", 1), 10 * SECOND)
    assert path.arrive(Address("10.0.0.2", 2), 100, Instant(0), newest=True)
    path.probe = b"12345678"
    assert not path.echo(bytes(8))
    assert not path.proven
    assert path.echo(b"12345678")
    assert path.proven

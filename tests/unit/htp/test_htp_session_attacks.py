"""What an attacker may try against a session's packets.

The numbers are those of the attack list.
"""

import pytest
from tests.unit.htp.htp_moves import calm, data_packet, feed, messages, seal_as
from tests.unit.htp.htp_pair import Host, Weather, pair

from hookprobe.crypto import sealing
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    DatagramReceived,
    DownReason,
    Dropped,
    DropReason,
    MessageReceived,
    SessionDown,
)
from hookprobe.htp.messages import (
    Ack,
    FragmentHeader,
    Vitals,
    encode_ack,
    encode_fragment_header,
    encode_heartbeat,
    message_tag,
)
from hookprobe.htp.packet import PacketType, encode_body, encode_header
from hookprobe.wire.instant import MINUTE, SECOND


def test_21_replayed_packets_are_dropped_and_late_ones_delivered_in_order() -> None:
    world, edge, validator = calm()
    packets = [data_packet(world, edge, validator, b"%d" % number) for number in range(5)]
    got: list[bytes] = []
    for index in (2, 0, 0, 1, 4, 3, 2):
        effects = validator.endpoint.receive_datagram(packets[index], edge.address, world.now)
        got += messages(effects)
        validator.effects += effects
    assert got == [b"0", b"1", b"2", b"3", b"4"]
    assert validator.drops() == [DropReason.REPLAY, DropReason.REPLAY]


def test_22_a_packet_reflected_to_its_sender_is_dropped() -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"boomerang")
    effects = edge.endpoint.receive_datagram(packet, validator.address, world.now)
    assert messages(effects) == []
    assert Dropped(DropReason.UNKNOWN_TOKEN) in effects
    # Even with the token rewritten, the keys of the directions differ.
    token = edge.endpoint._links[validator.name].session.names.local_token
    rewritten = packet[:12] + token + packet[20:]
    effects = edge.endpoint.receive_datagram(rewritten, validator.address, world.now)
    assert effects == [Dropped(DropReason.SEAL)]


@pytest.mark.parametrize("offset", range(32))
def test_23_every_header_byte_is_bound(offset: int) -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"header")
    for bit in (1, 16, 128):
        changed = packet[:offset] + bytes((packet[offset] ^ bit,)) + packet[offset + 1 :]
        effects = validator.endpoint.receive_datagram(changed, edge.address, world.now)
        assert messages(effects) == []
        assert any(isinstance(effect, Dropped) for effect in effects)
    effects = validator.endpoint.receive_datagram(packet, edge.address, world.now)
    assert messages(effects) == [b"header"]


def test_23_every_sealed_byte_is_bound() -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"sealed")
    for offset in range(32, len(packet)):
        changed = packet[:offset] + bytes((packet[offset] ^ 4,)) + packet[offset + 1 :]
        effects = validator.endpoint.receive_datagram(changed, edge.address, world.now)
        assert effects == [Dropped(DropReason.SEAL)]


def test_24_jumps_of_the_packet_number_by_outsiders_move_nothing() -> None:
    world, edge, validator = calm()
    packet = data_packet(world, edge, validator, b"jump")
    for number in (2**63, 2**64 - 1, 2**64 - 2):
        forged = packet[:20] + number.to_bytes(8) + packet[28:]
        effects = validator.endpoint.receive_datagram(forged, edge.address, world.now)
        assert effects in ([Dropped(DropReason.SEAL)], [Dropped(DropReason.REPLAY)])
    effects = validator.endpoint.receive_datagram(packet, edge.address, world.now)
    assert messages(effects) == [b"jump"]


def test_24_a_peer_that_jumps_far_ahead_keeps_working() -> None:
    world, edge, validator = calm()
    session = edge.endpoint._links[validator.name].session
    session._sealing.counter = 2**47
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"far", world.now))
    world.run(SECOND)
    assert validator.messages() == [b"far"]


def test_25_no_nonce_is_ever_used_twice_under_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []
    config = HtpConfig(rekey_us=20 * SECOND, reject_after_us=MINUTE)
    world, edge, validator = pair(config, Weather(loss=150, jitter_us=20_000, seed=5))
    original = sealing.SealingKey.seal

    def watched(
        self: sealing.SealingKey, counter: int, plaintext: bytes, associated: bytes
    ) -> bytes:
        used.append((self._key, self._salt + counter.to_bytes(8)))
        return original(self, counter, plaintext, associated)

    monkeypatch.setattr(sealing.SealingKey, "seal", watched)
    for number in range(400):
        for host, peer in ((edge, validator), (validator, edge)):
            world.execute(
                host, host.endpoint.send(peer.name, Channel.TER, b"%d" % number, world.now)
            )
        world.run(200_000)
    assert len(used) > 1500
    assert len({key for key, _ in used}) >= 6
    assert len(set(used)) == len(used)


def bad_acks() -> dict[str, bytes]:
    good = Ack(0, 0, 1024, 0xFFFF, 30, 0, bytes(8), ((0, 0),))
    unsent = good._replace(ranges=((0, 10**6),))
    wire = encode_ack(good)
    return {
        "of packets never sent": encode_ack(unsent),
        "of the largest number": encode_ack(good._replace(ranges=((2**64 - 5, 2**64 - 1),))),
        "an empty range": wire[:-4] + bytes(4),
        "below packet zero": wire[:-4] + (7).to_bytes(4),
        "unknown flags": wire[:24] + b"\xff" + wire[25:],
        "truncated": wire[:-1],
        "extended": wire + b"\0",
        "too many ranges": wire[:25] + b"\x21" + wire[26:] + b"\0\0\0\1" * 66,
    }


@pytest.mark.parametrize("case", sorted(bad_acks()))
def test_26_a_forged_or_optimistic_ack_ends_the_session(case: str) -> None:
    world, edge, validator = calm()
    packet = seal_as(edge, validator, PacketType.ACK, bad_acks()[case], world)
    world.execute(validator, validator.endpoint.receive_datagram(packet, edge.address, world.now))
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.PROTOCOL)]
    world.run(SECOND)
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.CLOSED_BY_PEER)]


def fragment(header: FragmentHeader, piece: bytes) -> bytes:
    return encode_fragment_header(header) + piece


GOOD = FragmentHeader(Channel.TER, 0, 0, 1, message_tag(b"piece"))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (PacketType.DATA, b"short"),
        (PacketType.DATA, fragment(GOOD._replace(kind=0x2F), b"piece")),
        (PacketType.DATA, fragment(GOOD._replace(kind=0x31), b"piece")),
        (PacketType.DATA, fragment(GOOD._replace(chunks=0), b"piece")),
        (PacketType.DATA, fragment(GOOD._replace(chunks=129), b"piece")),
        (PacketType.DATA, fragment(GOOD._replace(chunk_index=1), b"piece")),
        (PacketType.DATA, fragment(GOOD, b"another piece")),
        (PacketType.DATA, b"\x01\x01" + fragment(GOOD, b"piece")[2:]),
        (PacketType.HEARTBEAT, b"short"),
        (PacketType.HEARTBEAT, encode_heartbeat(bytes(8), Vitals()) + b"x"),
        (PacketType.CLOSE, b"\0\0\x05text"),
        (PacketType.CLOSE, b"\0\0\x02\xff\xff"),
    ],
)
def test_26_any_malformed_body_of_a_peer_ends_the_session(kind: PacketType, payload: bytes) -> None:
    world, edge, validator = calm()
    link = edge.endpoint._links[validator.name]
    if kind is PacketType.HEARTBEAT:
        link.session.resonance = b"".join(
            edge.weights.respond(link.session.exporter + link.session.transcript)
        )
    packet = link.session.seal(kind, payload, world.now)
    effects = validator.endpoint.receive_datagram(packet, edge.address, world.now)
    assert SessionDown(edge.name, DownReason.PROTOCOL) in effects


def odd_header(host: Host, peer: Host, flags: int, mode: int) -> bytes:
    """Seal a DATA packet whose header says what no honest end says yet."""
    link = host.endpoint._links[peer.name]
    number, token = link.session.next_number, link.session.names.remote_token
    header = encode_header(PacketType.DATA, 0, 0, token, number, flags << 24 | mode << 16)
    piece = fragment(GOOD, b"piece")
    body = encode_body(link.session.resonance, piece)
    return header + link.session._sealing.seal(number, body, header)


@pytest.mark.parametrize(
    ("flags", "mode", "taken"),
    [(1, 0, True), (3, 0, False), (5, 0, False), (9, 0, True), (1, 1, True), (1, 3, False)],
)
def test_23_flags_and_modes_without_a_meaning_yet_are_refused(
    flags: int, mode: int, taken: bool
) -> None:
    world, edge, validator = calm()
    packet = odd_header(edge, validator, flags, mode)
    effects = validator.endpoint.receive_datagram(packet, edge.address, world.now)
    taken_by = [one.data for one in effects if isinstance(one, MessageReceived | DatagramReceived)]
    assert (taken_by == [b"piece"]) is taken
    assert (SessionDown(edge.name, DownReason.PROTOCOL) in effects) is not taken


def test_23_only_data_comes_in_fragments() -> None:
    world, edge, validator = calm()
    session = edge.endpoint._links[validator.name].session
    ack = encode_ack(Ack(0, 0, 1024, 0, 0, 0, bytes(8), ((0, 0),)))
    packet = session.seal(PacketType.ACK, ack, world.now, 0, 0x0001)
    effects = validator.endpoint.receive_datagram(packet, edge.address, world.now)
    assert SessionDown(edge.name, DownReason.PROTOCOL) in effects


def test_30_a_peer_cannot_have_beacon_after_beacon_checked() -> None:
    world, edge, validator = calm()
    session = edge.endpoint._links[validator.name].session
    session.resonance = b"".join(edge.weights.respond(session.exporter + session.transcript))
    beats = [
        session.seal(PacketType.HEARTBEAT, encode_heartbeat(bytes(8), Vitals()), world.now)
        for _ in range(30)
    ]
    effects = feed(validator, beats, edge.address, world.now)
    assert SessionDown(edge.name, DownReason.PROTOCOL) in effects
    assert validator.endpoint.peers == ()

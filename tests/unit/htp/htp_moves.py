"""Single moves of a handshake or a session, played by hand."""

from tests.unit.htp.htp_pair import Host, World, pair

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, HtpConfig
from hookprobe.htp.effects import (
    Address,
    Dropped,
    DropReason,
    Effect,
    MessageReceived,
    Transmit,
)
from hookprobe.htp.messages import (
    hello_mac,
    mac1_key,
)
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.wire.instant import SECOND, Instant

CLASSICAL = HtpConfig(suites_offered=SUITE_CLASSICAL)


def kind_of(data: bytes) -> PacketType:
    return decode_header(data).kind


def sent(effects: list[Effect]) -> list[bytes]:
    return [one.data for one in effects if isinstance(one, Transmit)]


def drop_reasons(effects: list[Effect]) -> list[DropReason]:
    return [one.reason for one in effects if isinstance(one, Dropped)]


def unconnected(config: HtpConfig | None = None) -> tuple[World, Host, Host]:
    world = World()
    return world, world.add("edge-1", config), world.add("validator-1")


def until_attest(config: HtpConfig | None = None) -> tuple[World, Host, Host, bytes, list[bytes]]:
    """Play the handshake by hand up to the ATTEST: (.., HELLO, ATTEST datagrams)."""
    world, edge, validator = unconnected(config)
    (hello,) = sent(edge.endpoint.connect(validator.pin(), world.now))
    (challenge,) = sent(validator.endpoint.receive_datagram(hello, edge.address, world.now))
    attest = sent(edge.endpoint.receive_datagram(challenge, validator.address, world.now))
    return world, edge, validator, hello, attest


def feed(host: Host, datagrams: list[bytes], source: Address, now: Instant) -> list[Effect]:
    return [
        effect for data in datagrams for effect in host.endpoint.receive_datagram(data, source, now)
    ]


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]


def rewritten(hello: bytes, validator: Host, start: int, value: bytes) -> bytes:
    """Change a HELLO in flight and make mac1 right again, as anyone who knows S_V can."""
    covered = hello[:start] + value + hello[start + len(value) : 1184]
    return covered + hello_mac(mac1_key(validator.identity.static_key.public_key), covered)


def messages(effects: list[Effect]) -> list[bytes]:
    return [one.data for one in effects if isinstance(one, MessageReceived)]


def data_packet(world: World, sender: Host, peer: Host, text: bytes) -> bytes:
    """Let `sender` seal a message without putting it on the link."""
    effects = sender.endpoint.send(peer.name, Channel.TER, text, world.now)
    (packet,) = sent(effects)
    return packet


def seal_as(host: Host, peer: Host, kind: PacketType, payload: bytes, world: World) -> bytes:
    """Seal any payload under the session keys of `host`: what a hostile peer can do."""
    link = host.endpoint._links[peer.name]
    return link.session.seal(kind, payload, world.now)


def calm() -> tuple[World, Host, Host]:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    return world, edge, validator

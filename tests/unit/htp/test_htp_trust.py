"""What trust permits, and that nothing a dialling end says about itself buys any."""

import pytest
from tests.unit.htp.htp_moves import calm, seal_as
from tests.unit.htp.htp_pair import Host, World

from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import (
    AttestRefused,
    ConnectRejected,
    DatagramReceived,
    DownReason,
    FragmentsReceived,
    LevelChanged,
    MessageReceived,
    MessageWithheld,
    RefusedReason,
    RejectCode,
    SendRefused,
    SessionDown,
    SessionUp,
    TrustReported,
)
from hookprobe.htp.messages import Ack, CloseCode, Vitals, decode_close, encode_ack
from hookprobe.htp.packet import PacketType, decode_body, decode_header
from hookprobe.htp.trust import ATTESTING_FROM, FULL_FROM, Level, level_of, permits
from hookprobe.wire.instant import MINUTE, SECOND

LOW, DOUBTFUL, GOOD = ATTESTING_FROM - 1, FULL_FROM - 1, FULL_FROM


def graded(score: int) -> tuple[World, Host, Host]:
    """A pair whose session was opened under this score."""
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    validator.scores.scores[edge.name] = score
    world.connect(edge, validator)
    world.run(2 * SECOND)
    return world, edge, validator


def regrade(world: World, edge: Host, validator: Host, score: int) -> None:
    validator.scores.scores[edge.name] = score
    world.execute(validator, validator.endpoint.regrade(edge.name, world.now))


def send(world: World, host: Host, peer: Host, channel: Channel, data: bytes) -> None:
    world.execute(host, host.endpoint.send(peer.name, channel, data, world.now))


@pytest.mark.parametrize(
    ("score", "level"),
    [
        (0, Level.CLOSED),
        (LOW, Level.CLOSED),
        (ATTESTING_FROM, Level.ATTESTING),
        (DOUBTFUL, Level.ATTESTING),
        (GOOD, Level.FULL),
        (0xFFFF, Level.FULL),
    ],
)
def test_levels_have_the_borders_of_the_specification(score: int, level: Level) -> None:
    assert level_of(score) is level
    assert (LOW / 0xFFFF < 0.3 <= ATTESTING_FROM / 0xFFFF) is True
    assert (DOUBTFUL / 0xFFFF < 0.6 <= GOOD / 0xFFFF) is True


def test_what_each_level_permits() -> None:
    for channel in Channel:
        assert permits(Level.FULL, channel)
        assert not permits(Level.CLOSED, channel)
        assert permits(Level.ATTESTING, channel) is (channel is Channel.TER)


def test_accept_tells_the_score_and_ack_tells_changes() -> None:
    world, edge, validator = graded(GOOD)
    assert edge.of(TrustReported) == [TrustReported(validator.name, GOOD)]
    assert edge.of(LevelChanged) == [LevelChanged(validator.name, Level.FULL)]
    assert validator.of(LevelChanged) == [LevelChanged(edge.name, Level.FULL)]
    order = [type(one) for one in edge.effects if isinstance(one, SessionUp | LevelChanged)]
    assert order == [SessionUp, LevelChanged]
    validator.scores.scores[edge.name] = GOOD + 7  # nobody says so: the next ACK does
    world.run(MINUTE)
    assert edge.of(TrustReported)[1:] == [TrustReported(validator.name, GOOD + 7)]


def test_a_change_of_level_is_told_at_once() -> None:
    world, edge, validator = graded(GOOD)
    regrade(world, edge, validator, DOUBTFUL)
    world.run(SECOND)
    assert edge.of(LevelChanged)[1:] == [LevelChanged(validator.name, Level.ATTESTING)]
    send(world, edge, validator, Channel.GOSSIP, b"no")
    assert edge.effects[-1] == SendRefused(validator.name, Channel.GOSSIP, RefusedReason.TRUST)
    send(world, edge, validator, Channel.TER, b"proof")
    send(world, validator, edge, Channel.GOSSIP, b"the answering end may")
    world.run(SECOND)
    assert validator.messages() == [b"proof"]
    assert edge.messages() == [b"the answering end may"]
    regrade(world, edge, validator, GOOD)
    world.run(SECOND)
    send(world, edge, validator, Channel.GOSSIP, b"yes")
    world.run(SECOND)
    assert validator.messages() == [b"proof", b"yes"]


def test_31_a_dialling_end_that_does_not_obey_is_not_heard() -> None:
    world, edge, validator = graded(DOUBTFUL)
    edge.endpoint._links[validator.name].standing.level = Level.FULL  # a changed program
    send(world, edge, validator, Channel.MICROBLOCK, b"report")
    world.execute(
        edge, edge.endpoint.send_datagram(validator.name, Channel.QSECBIT, b"q", world.now)
    )
    chunk = (b"\x36" + bytes(15), bytes(3000))
    world.execute(edge, edge.endpoint.send_chunks(validator.name, [chunk], world.now))
    send(world, edge, validator, Channel.TER, b"proof")
    world.run(SECOND)
    heard = [one for one in validator.effects if isinstance(one, MessageReceived)]
    assert [one.data for one in heard] == [b"proof"]
    assert validator.of(FragmentsReceived) == validator.of(DatagramReceived) == []
    withheld = {one.channel for one in validator.effects if isinstance(one, MessageWithheld)}
    assert withheld == {Channel.MICROBLOCK, Channel.QSECBIT, Channel.FILE}
    assert validator.endpoint.peers == (edge.name,)


def test_too_little_trust_closes_and_refuses_until_it_is_better() -> None:
    world, edge, validator = graded(GOOD)
    world.wire.clear()
    link = edge.endpoint._links[validator.name]
    regrade(world, edge, validator, LOW)
    (closing,) = [data for _, _, data in world.wire if decode_header(data).kind is PacketType.CLOSE]
    number = decode_header(closing).nonce
    _, said = decode_body(link.session._opening.open(number, closing[32:], closing[:32]))
    assert decode_close(said) == CloseCode.REATTEST.value
    assert validator.of(SessionDown) == [SessionDown(edge.name, DownReason.TRUST)]
    world.run(10 * SECOND)
    assert edge.of(ConnectRejected), "it attests again at once"
    assert validator.of(AttestRefused) == [AttestRefused(edge.name, RejectCode.TRUST)]
    assert (edge.endpoint.peers, validator.endpoint.peers) == ((), ())
    validator.scores.scores[edge.name] = ATTESTING_FROM
    world.run(3 * MINUTE)
    assert edge.endpoint.peers == (validator.name,)


def test_31_trust_flows_from_the_answering_end_only() -> None:
    world, edge, validator = calm()
    regrade(world, edge, validator, DOUBTFUL)
    world.run(MINUTE)
    claim = Ack(0, 0, 1024, 0xFFFF, 15, 1, bytes(8), ((0, 0),))
    packet = seal_as(edge, validator, PacketType.ACK, encode_ack(claim), world)
    validator.effects.clear()
    world.execute(validator, validator.endpoint.receive_datagram(packet, edge.address, world.now))
    link = validator.endpoint._links[edge.name]
    assert (link.standing.trust, link.renewal_due) == (DOUBTFUL, False)
    assert validator.effects == []
    edge.endpoint.report(Vitals(0xFFFFFFFF, 255, 255, 0, 0))
    world.run(MINUTE)
    world.execute(validator, validator.endpoint.regrade(edge.name, world.now))
    assert link.standing.trust == DOUBTFUL


def test_trust_stands_in_for_no_check() -> None:
    world = World()
    edge, validator = world.add("edge-1"), world.add("validator-1")
    validator.scores.scores[edge.name] = 0xFFFF
    edge.weights.fingerprint = b"x" * 64  # not what the registry knows
    world.connect(edge, validator)
    world.run(2 * SECOND)
    assert validator.of(AttestRefused) == [AttestRefused(edge.name, RejectCode.FINGERPRINT)]
    assert validator.endpoint.peers == ()


def test_a_dialled_peer_and_a_stranger_are_not_regraded() -> None:
    world, edge, validator = calm()
    assert edge.endpoint.regrade(validator.name, world.now) == []
    assert validator.endpoint.regrade(validator.name, world.now) == []

"""The whole path: handshake, sealed session, ordered channels, renewal."""

from tests.unit.htp.htp_pair import pair

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import SUITE_CLASSICAL, SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import MessageReceived, SessionDown, SessionRenewed, SessionUp
from hookprobe.wire.instant import HOUR, SECOND


def test_both_ends_learn_of_the_session_and_messages_flow_both_ways() -> None:
    world, edge, validator = pair()
    assert edge.of(SessionUp) == [SessionUp(validator.name, validator.address, True, SUITE_HYBRID)]
    assert validator.of(SessionUp) == [SessionUp(edge.name, edge.address, False, SUITE_HYBRID)]
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"up", world.now))
    world.execute(validator, validator.endpoint.send(edge.name, Channel.GOSSIP, b"down", world.now))
    world.run(SECOND)
    assert validator.of(MessageReceived) == [MessageReceived(edge.name, Channel.TER, b"up")]
    assert edge.of(MessageReceived) == [MessageReceived(validator.name, Channel.GOSSIP, b"down")]


def test_the_classical_suite_works_where_it_is_all_that_is_offered() -> None:
    _, edge, _ = pair(HtpConfig(suites_offered=SUITE_CLASSICAL))
    (up,) = edge.of(SessionUp)
    assert isinstance(up, SessionUp)
    assert up.suite == SUITE_CLASSICAL


def test_a_message_of_one_mebibyte_arrives_whole() -> None:
    world, edge, validator = pair()
    data = bytes(range(256)) * 4096
    world.execute(edge, edge.endpoint.send(validator.name, Channel.MODEL, data, world.now))
    world.run(10 * SECOND)
    assert validator.messages() == [data]


def test_keys_are_renewed_hourly_without_a_gap() -> None:
    world, edge, validator = pair()
    for number in range(8):
        text = b"%d" % number
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, text, world.now))
        world.run(HOUR // 2)
    assert validator.messages() == [b"%d" % number for number in range(8)]
    assert len(edge.of(SessionRenewed)) >= 3
    assert len(validator.of(SessionRenewed)) == len(edge.of(SessionRenewed))
    assert edge.of(SessionDown) == validator.of(SessionDown) == []

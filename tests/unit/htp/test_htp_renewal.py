"""New keys for live channels: crossings, refusals, restarts."""

from tests.unit.htp.htp_pair import Weather, World, pair

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    ConnectRejected,
    DownReason,
    RejectCode,
    ResonanceMismatch,
    SessionDown,
    SessionRenewed,
    SessionUp,
)
from hookprobe.wire.instant import MINUTE, SECOND


def test_17_two_nodes_that_dial_each_other_end_with_one_session() -> None:
    for delay in (0, 5_000, 20_000, 200_000):
        world = World()
        one, two = world.add("validator-1"), world.add("validator-2")
        world.connect(one, two)
        world.run(delay)
        world.connect(two, one)
        world.run(10 * SECOND)
        for sender, receiver in ((one, two), (two, one)):
            world.execute(
                sender, sender.endpoint.send(receiver.name, Channel.CONSENSUS, b"vote", world.now)
            )
        world.run(SECOND)
        assert one.messages() == two.messages() == [b"vote"]
        sessions = [len(host.endpoint._table.sessions) for host in (one, two)]
        assert sessions == [1, 1], delay
        assert one.endpoint._links[two.name].session.names.dialled


def test_17_messages_cross_a_renewal_in_flight_unharmed() -> None:
    config = HtpConfig(rekey_us=30 * SECOND, reject_after_us=5 * MINUTE)
    world, edge, validator = pair(config, Weather(loss=100, jitter_us=40_000, seed=3))
    wanted = [b"%d" % number for number in range(2000)]
    for text in wanted:
        world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, text, world.now))
        world.execute(validator, validator.endpoint.send(edge.name, Channel.TER, text, world.now))
        world.run(50_000)
    world.run(MINUTE)
    assert validator.messages() == wanted
    assert edge.messages() == wanted
    assert validator.of(SessionDown) == []


def test_17_a_renewal_of_channels_that_are_gone_is_closed_and_started_anew() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    while not validator.endpoint._table.pending:
        assert world.step(world.now + SECOND)
    # The ACCEPT that promises to continue is on its way when the validator loses the channels.
    world.execute(validator, validator.endpoint.close(edge.name, world.now))
    world.run(10 * SECOND)
    assert validator.endpoint.peers == (edge.name,)
    assert edge.endpoint.peers == (validator.name,)
    world.execute(edge, edge.endpoint.send(validator.name, Channel.TER, b"anew", world.now))
    world.run(SECOND)
    assert validator.messages() == [b"anew"]
    assert len(validator.of(SessionUp)) == 2


def test_a_renewal_that_was_refused_is_tried_again_while_the_session_lives() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    world.book.entries[edge.name] = edge.enlist(active=False)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(SECOND)
    assert [one.code for one in edge.effects if isinstance(one, ConnectRejected)] == [
        RejectCode.NOT_ACTIVE
    ]
    world.book.entries[edge.name] = edge.enlist()
    world.run(6 * MINUTE)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    assert edge.of(SessionDown) == []


def test_a_renewal_is_held_to_the_fingerprint_of_its_own_attest() -> None:
    world, edge, validator = pair()
    world.run(SECOND)
    edge.weights.fingerprint = b"n" * 64
    world.book.entries[edge.name] = edge.enlist()
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(5 * MINUTE)
    assert edge.of(SessionRenewed) == [SessionRenewed(validator.name)]
    assert validator.of(ResonanceMismatch) == []
    assert validator.endpoint.peers == (edge.name,)


def test_17_a_restarted_validator_does_not_continue_what_it_does_not_know() -> None:
    world, edge, validator = pair()
    world.run(2 * SECOND)
    validator.boot(world.now)
    edge.endpoint._links[validator.name].renewal_due = True
    world.execute(edge, edge.endpoint._settle(edge.endpoint._links[validator.name], world.now))
    world.run(SECOND)
    assert edge.of(SessionRenewed) == []
    assert edge.of(SessionDown) == [SessionDown(validator.name, DownReason.REPLACED)]
    assert len(edge.of(SessionUp)) == 2
    assert validator.endpoint.peers == (edge.name,)

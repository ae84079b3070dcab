"""Whoever asks too much is not answered; the others are."""

from tests.unit.dsm.ledger_net import V0, V1, V2, running, validator

from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.messages import GetCheckpoints, GetPack, GetRange, Message
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant


def answers(effects: list[Effect]) -> int:
    return sum(isinstance(item, Send) for item in effects)


def test_a_peer_is_given_a_bounded_weight_of_answers_a_second() -> None:
    net, _ = running(6)
    node = validator(net, V0)
    finals = [node.history.checkpoint(epoch) for epoch in range(node.history.next_epoch)]
    ranges = [item for final in finals if final for item in final.checkpoint.content.ranges]
    covered = ranges[0]
    questions: tuple[Message, ...] = (
        GetPack(1, covered.lane, covered.first, covered.last, covered.head),
        GetRange(2, covered.lane, covered.first, covered.last, covered.head),
        GetCheckpoints(0, 256),
    )

    def ask(peer: NodeId, times: int, at: Instant) -> int:
        return sum(
            answers(node.receive_message(peer, questions[turn % 3], at)) for turn in range(times)
        )

    at = Instant(net.now + SECOND)
    given = ask(V1, 1990, at)
    assert given < 1990
    assert ask(V1, 3, at) == 0
    assert ask(V2, 3, at) == 3
    assert ask(V1, 3, Instant(at + SECOND)) > 0

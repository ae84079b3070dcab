"""Fetching ranges: what is taken, from whom, and what is not."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, chain_of, mesh_of

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.effects import Send
from hookprobe.dsm.messages import BlockEntry, Blocks, GetRange
from hookprobe.dsm.microblock import NO_PARENT, SignedBlock
from hookprobe.dsm.pulls import Pull, Puller
from hookprobe.dsm.store import MemoryStore, Persist, Table, prefix_end
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

A, B = NodeId("a"), NodeId("b")
LANE = (EDGE, 1)
BLOCKS = chain_of(mesh_of(), 6)
LATER = Instant(NOW + 3 * SECOND)


def answer(request: int, blocks: list[SignedBlock]) -> Blocks:
    return Blocks(request, tuple(BlockEntry(block) for block in blocks))


def asked(sends: list[Send]) -> GetRange:
    assert len(sends) == 1
    message = sends[0].message
    assert isinstance(message, GetRange)
    return message


def puller_with(head: bytes = NO_PARENT, first: int = 2) -> tuple[Puller[BlockEntry], GetRange]:
    puller: Puller[BlockEntry] = Puller(LedgerConfig())
    return puller, asked(puller.want(Pull(LANE, first, 5, head, [A, B]), NOW))


def test_an_ascending_answer_is_delivered_and_the_rest_asked_for() -> None:
    puller, request = puller_with()
    delivery, sends = puller.receive_blocks(A, answer(request.request, BLOCKS[1:3]), NOW)
    assert delivery is not None
    assert [entry.signed.seq for entry in delivery.entries] == [2, 3]
    assert asked(sends).first == 4


def test_a_named_range_is_delivered_whole_and_checked_down_from_its_head() -> None:
    puller, request = puller_with(BLOCKS[4].id)
    delivery, sends = puller.receive_blocks(A, answer(request.request, BLOCKS[3:5]), NOW)
    assert delivery is None
    following = asked(sends)
    assert (following.first, following.last, following.head) == (2, 3, BLOCKS[2].id)
    delivery, _ = puller.receive_blocks(A, answer(following.request, BLOCKS[1:3]), NOW)
    assert delivery is not None
    assert [entry.signed for entry in delivery.entries] == BLOCKS[1:5]
    assert len(puller) == 0


@pytest.mark.parametrize(
    "blocks",
    [
        BLOCKS[2:4],
        BLOCKS[1:2] + BLOCKS[3:4],
        BLOCKS[1:3][::-1],
        BLOCKS[1:6],
        chain_of(mesh_of(), 3, inc=2)[1:3],
    ],
)
def test_answers_to_another_question_are_refused(blocks: list[SignedBlock]) -> None:
    puller, request = puller_with()
    with pytest.raises(VerificationError):
        puller.receive_blocks(A, answer(request.request, blocks), NOW)


def test_another_branch_does_not_pass_for_the_named_one() -> None:
    puller, request = puller_with(BLOCKS[4].id)
    for blocks in (chain_of(mesh_of(), 5, salt=3)[3:5], BLOCKS[3:4]):
        with pytest.raises(VerificationError):
            puller.receive_blocks(A, answer(request.request, blocks), NOW)
    torn = replace(BLOCKS[3], id=b"x" * 32)
    with pytest.raises(VerificationError, match="broken"):
        puller.receive_blocks(A, answer(request.request, [torn, BLOCKS[4]]), NOW)


def test_nobody_else_can_answer() -> None:
    puller, request = puller_with()
    for peer, number in ((B, request.request), (A, request.request + 1)):
        with pytest.raises(VerificationError, match="not asked for"):
            puller.receive_blocks(peer, answer(number, BLOCKS[1:3]), NOW)


def test_silence_moves_on_to_the_next_source_and_then_gives_up() -> None:
    puller, request = puller_with()
    late, sends = puller.handle_timeout(LATER)
    assert (late, sends[0].peer) == ([A], B)
    delivery, _ = puller.receive_blocks(A, answer(request.request, BLOCKS[1:3]), LATER)
    assert delivery is None
    late, sends = puller.handle_timeout(Instant(LATER + 3 * SECOND))
    assert (late, sends, len(puller)) == ([B], [], 0)


def test_a_silent_announcer_does_not_keep_others_from_being_asked() -> None:
    puller: Puller[BlockEntry] = Puller(LedgerConfig())
    assert puller.want(Pull(LANE, 2, 3, NO_PARENT, [A]), NOW) != []
    for _ in range(2):
        assert puller.want(Pull(LANE, 2, 5, NO_PARENT, [A, B]), NOW) == []
    late, sends = puller.handle_timeout(LATER)
    assert (late, [send.peer for send in sends]) == ([A], [B])
    assert (asked(sends).first, asked(sends).last) == (2, 5)
    late, sends = puller.handle_timeout(Instant(LATER + 3 * SECOND))
    assert (late, sends, len(puller)) == ([B], [], 0)


def test_what_is_urgent_does_not_wait_for_an_announcer() -> None:
    puller: Puller[BlockEntry] = Puller(LedgerConfig())
    (asked_first,) = puller.want(Pull(LANE, 2, 3, NO_PARENT, [A]), NOW)
    (overtaking,) = puller.want(Pull(LANE, 2, 3, NO_PARENT, [B, A]), NOW, urgent=True)
    assert (asked_first.peer, overtaking.peer) == (A, B)
    assert puller.want(Pull(LANE, 2, 3, NO_PARENT, [B, A]), NOW, urgent=True) == []
    late, sends = puller.handle_timeout(LATER)
    assert (late, [send.peer for send in sends]) == ([B], [A])
    assert (puller.asked_of(A), puller.asked_of(B)) == (1, 0)


@pytest.mark.parametrize("first", [A, B])
def test_of_an_announcer_and_who_overtook_it_the_first_answer_counts(first: NodeId) -> None:
    puller: Puller[BlockEntry] = Puller(LedgerConfig())
    sends = puller.want(Pull(LANE, 2, 3, NO_PARENT, [A]), NOW)
    sends += puller.want(Pull(LANE, 2, 3, NO_PARENT, [B]), NOW, urgent=True)
    requests = {send.peer: asked([send]).request for send in sends}
    delivery, more = puller.receive_blocks(first, answer(requests[first], BLOCKS[1:3]), NOW)
    assert delivery is not None
    assert (more, len(puller), puller.asked_of(A), puller.asked_of(B)) == ([], 0, 0, 0)
    other = B if first == A else A
    assert puller.receive_blocks(other, answer(requests[other], BLOCKS[1:3]), NOW) == (None, [])


def test_an_overtaken_announcer_cannot_spoil_the_pull() -> None:
    for wrong in ([], BLOCKS[3:5]):
        puller: Puller[BlockEntry] = Puller(LedgerConfig())
        sends = puller.want(Pull(LANE, 2, 3, NO_PARENT, [A]), NOW)
        sends += puller.want(Pull(LANE, 2, 3, NO_PARENT, [B]), NOW, urgent=True)
        requests = {send.peer: asked([send]).request for send in sends}
        with pytest.raises(VerificationError) if wrong else nullcontext():
            puller.receive_blocks(A, answer(requests[A], wrong), NOW)
        with pytest.raises(VerificationError):
            puller.receive_blocks(A, answer(requests[B], BLOCKS[1:3]), NOW)
        delivery, _ = puller.receive_blocks(B, answer(requests[B], BLOCKS[1:3]), NOW)
        assert delivery is not None
        assert (len(puller), puller.asked_of(A), puller.asked_of(B)) == (0, 0, 0)


def test_what_is_urgent_has_room_when_all_other_requests_are_taken() -> None:
    config = LedgerConfig(requests_max=4)
    puller: Puller[BlockEntry] = Puller(config)
    for inc in range(10):
        puller.want(Pull((EDGE, inc), 1, 3, NO_PARENT, [A]), NOW)
    assert len(puller) == puller.asked_of(A) == 4
    for inc in range(10, 30):
        puller.want(Pull((EDGE, inc), 1, 3, NO_PARENT, [B]), NOW, urgent=True)
    assert len(puller) == 8


def test_a_named_range_keeps_its_end_when_it_is_wanted_again() -> None:
    puller, request = puller_with(BLOCKS[4].id)
    puller.receive_blocks(A, answer(request.request, BLOCKS[3:5]), NOW)
    assert puller.want(Pull(LANE, 2, 5, BLOCKS[4].id, [B]), NOW) == []
    _, sends = puller.handle_timeout(LATER)
    assert asked(sends).last == 3


def test_an_empty_answer_and_a_lost_link_move_on_at_once() -> None:
    puller, request = puller_with()
    _, sends = puller.receive_blocks(A, Blocks(request.request, ()), NOW)
    assert sends[0].peer == B
    puller, _ = puller_with()
    assert puller.peer_disconnected(A, NOW)[0].peer == B


def test_requests_are_limited_and_each_range_is_asked_for_once() -> None:
    puller: Puller[BlockEntry] = Puller(replace(LedgerConfig(), requests_max=3))
    for inc in range(1, 9):
        puller.want(Pull((EDGE, inc), 1, 5, NO_PARENT, [A]), NOW)
        assert puller.want(Pull((EDGE, inc), 1, 5, NO_PARENT, [A]), NOW) == []
    assert len(puller) == 3
    assert puller.want(Pull(LANE, 6, 5, NO_PARENT, [A]), NOW) == []


def test_the_memory_store_sorts_bounds_and_deletes() -> None:
    store = MemoryStore()
    store.apply(Persist(tuple((Table.META, bytes([key]), b"x") for key in (3, 1, 2))))
    assert [key for key, _ in store.scan(Table.META, b"\1", b"\3", 9)] == [b"\1", b"\2"]
    assert [key for key, _ in store.scan(Table.META, b"", b"\xff", 2)] == [b"\1", b"\2"]
    store.apply(Persist(((Table.META, b"\2", None), (Table.META, b"\7", None))))
    assert store.get(Table.META, b"\2") is None
    assert [key for key, _ in store.scan(Table.META, b"", b"\xff", 9)] == [b"\1", b"\3"]
    assert prefix_end(b"a\xff") == b"b"

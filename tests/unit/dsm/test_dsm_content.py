"""What a validator must not vote for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, NOW, chain_of, court_of, enrolment_of, history_of, mesh_of

from hookprobe.dsm.checkpoint import Checkpoint, Content, Range, header_hash
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import ContentJudge
from hookprobe.dsm.cut import Cut, SignedCut, sign_cut
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.microblock import LaneKey, SignedBlock, sign_block
from hookprobe.dsm.misbehaviour import fork_evidence
from hookprobe.dsm.steps import Opinion
from hookprobe.dsm.store import MemoryStore
from hookprobe.wire.identifiers import NodeId

MESH = mesh_of(4)
COURT = court_of(MESH)
LANE: LaneKey = (EDGE, 1)
BLOCKS = chain_of(MESH, 5)
LEADER = MESH.names[0]


def judge_with(blocks: list[SignedBlock], *, name: NodeId = LEADER) -> ContentJudge:
    book = LaneBook(COURT, MemoryStore(), LedgerConfig())
    for block in blocks:
        book.insert(block, solicited=True)
    author = (name, MESH.keys.signer(name))
    return ContentJudge(history_of(MESH), book, author, 50)


def cut_of(place: int, seq: int, evidence: tuple[bytes, ...] = ()) -> SignedCut:
    name = MESH.names[place]
    heads = ((LANE, seq),) if seq else ()
    cut = Cut(MESH.chain, 0, bytes(32), 7, name, heads, evidence)
    return sign_cut(cut, MESH.keys.signer(name))


def reporting(judge: ContentJudge, *seqs: int) -> ContentJudge:
    judge.cuts = {place: cut_of(place, seq) for place, seq in enumerate(seqs)}
    return judge


def good() -> Checkpoint:
    found = reporting(judge_with(BLOCKS), 3, 3, 4, 5).draft(NOW)
    assert found is not None
    return found


def signed(checkpoint: Checkpoint, content: Content, ids: list[bytes]) -> Checkpoint:
    """Return a checkpoint whose header fits this content: only the rules can refuse it."""
    history = history_of(MESH)
    header = history.header(content, ids, LEADER)
    raw = header.encode()
    hashed = header_hash(raw)
    return replace(
        checkpoint,
        header=header,
        raw=raw,
        hash=hashed,
        author_signature=MESH.keys.signer(LEADER).sign(hashed),
        content=content,
    )


def ending_at(last: int) -> tuple[Range, ...]:
    return (Range(EDGE, 1, 1, last, BLOCKS[last - 1].id),)


def ids(last: int) -> list[bytes]:
    return [block.id for block in BLOCKS[:last]]


def test_an_honest_draft_is_accepted_by_who_holds_the_blocks() -> None:
    checkpoint = good()
    assert checkpoint.content.ranges == ending_at(4)
    assert judge_with(BLOCKS, name=MESH.names[1]).examine(checkpoint) is Opinion.ACCEPT
    checkpoint.check_content()


def test_who_lacks_blocks_asks_for_them_and_then_accepts() -> None:
    judge = judge_with(BLOCKS[:2])
    assert judge.examine(good()) is Opinion.WAIT
    assert [(want.first, want.last) for want in judge.wants] == [(1, 4)]
    for block in BLOCKS[2:]:
        judge._book.insert(block, solicited=True)
    assert judge.examine(good()) is Opinion.ACCEPT


def test_no_draft_without_a_quorum_of_cuts_or_without_the_blocks() -> None:
    assert reporting(judge_with(BLOCKS), 3, 3).draft(NOW) is None
    poor = reporting(judge_with(BLOCKS[:1]), 3, 3, 3, 3)
    assert poor.draft(NOW) is None
    assert poor.wants[0].last == 3


def test_the_leader_waits_for_late_cuts_only_during_the_grace() -> None:
    judge = reporting(judge_with(BLOCKS), 3, 3, 3)
    judge.ready_at = NOW
    assert judge.draft(type(NOW)(NOW - 1)) is None
    assert judge.draft(NOW) is not None


Change = Callable[[Checkpoint], Checkpoint]


def floor_violation(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, ranges=ending_at(2)), ids(2))


def omitted(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, ranges=()), [])


def skipped(c: Checkpoint) -> Checkpoint:
    ranges = (Range(EDGE, 1, 2, 4, BLOCKS[3].id),)
    return signed(c, replace(c.content, ranges=ranges), ids(4)[1:])


def twice(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, ranges=ending_at(4) * 2), ids(4) * 2)


def too_few_cuts(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, cuts=c.content.cuts[:2]), ids(4))


def same_cut_again(c: Checkpoint) -> Checkpoint:
    cuts = (*c.content.cuts[:2], c.content.cuts[1])
    return signed(c, replace(c.content, cuts=cuts), ids(4))


def unsorted_cuts(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, cuts=c.content.cuts[::-1]), ids(4))


def forged_cut(c: Checkpoint) -> Checkpoint:
    cuts = (replace(cut_of(0, 1), signature=bytes(64)), *c.content.cuts[1:])
    return signed(c, replace(c.content, cuts=cuts), ids(4))


def stale_cut(c: Checkpoint) -> Checkpoint:
    old = replace(cut_of(0, 3).cut, epoch=9)
    cuts = (sign_cut(old, MESH.keys.signer(LEADER)), *c.content.cuts[1:])
    return signed(c, replace(c.content, cuts=cuts), ids(4))


def invented_evidence(c: Checkpoint) -> Checkpoint:
    return signed(c, replace(c.content, evidence=(b"\1lies",)), ids(4))


def wrong_root(c: Checkpoint) -> Checkpoint:
    return signed(c, c.content, [*ids(3), b"x" * 32])


def other_author(c: Checkpoint) -> Checkpoint:
    return replace(c, author_signature=MESH.keys.signer(MESH.names[1]).sign(c.hash))


def other_time(c: Checkpoint) -> Checkpoint:
    raw = replace(c.header, timestamp_ms=8).encode()
    hashed = header_hash(raw)
    signature = MESH.keys.signer(LEADER).sign(hashed)
    header = replace(c.header, timestamp_ms=8)
    return replace(c, header=header, raw=raw, hash=hashed, author_signature=signature)


def above_the_cap(c: Checkpoint) -> Checkpoint:
    ranges = (Range(EDGE, 1, 1, 51, b"h" * 32),)
    return signed(c, replace(c.content, ranges=ranges), ids(4))


@pytest.mark.parametrize(
    "change",
    [
        floor_violation,
        omitted,
        skipped,
        twice,
        too_few_cuts,
        same_cut_again,
        unsorted_cuts,
        forged_cut,
        stale_cut,
        invented_evidence,
        wrong_root,
        other_author,
        other_time,
        above_the_cap,
    ],
)
def test_content_that_breaks_a_rule_is_refused(change: Change) -> None:
    assert judge_with(BLOCKS).examine(change(good())) is Opinion.REFUSE


def test_a_head_that_does_not_continue_the_chain_never_gets_a_vote() -> None:
    loose = sign_block(replace(BLOCKS[3].block, prev=b"?" * 32), MESH.keys.signer(EDGE))
    ranges = (Range(EDGE, 1, 1, 4, loose.id),)
    c = good()
    wrong = signed(c, replace(c.content, ranges=ranges), [*ids(3), loose.id])
    judge = judge_with([*BLOCKS[:3], loose])
    assert judge.examine(wrong) is Opinion.WAIT


def forked() -> tuple[SignedBlock, bytes]:
    rival = sign_block(replace(BLOCKS[2].block, payload_hash=b"z" * 32), MESH.keys.signer(EDGE))
    return rival, fork_evidence(enrolment_of(MESH), BLOCKS[2], rival)


def test_evidence_in_a_cut_must_be_in_the_checkpoint_and_stops_the_chain_before_the_fork() -> None:
    rival, evidence = forked()
    judge = judge_with([*BLOCKS, rival])
    judge.cuts = {place: cut_of(place, 4) for place in (1, 2, 3)}
    judge.cuts[0] = cut_of(0, 4, (evidence,))
    checkpoint = judge.draft(NOW)
    assert checkpoint is not None
    assert checkpoint.content.evidence == (evidence,)
    assert checkpoint.content.ranges == ()
    assert judge_with(BLOCKS).examine(checkpoint) is Opinion.ACCEPT
    hidden = signed(checkpoint, replace(checkpoint.content, evidence=()), [])
    assert judge_with(BLOCKS).examine(hidden) is Opinion.REFUSE
    before = signed(checkpoint, replace(checkpoint.content, ranges=ending_at(2)), ids(2))
    assert judge_with(BLOCKS).examine(before) is Opinion.ACCEPT
    beyond = signed(checkpoint, replace(checkpoint.content, ranges=ending_at(3)), ids(3))
    assert judge_with(BLOCKS).examine(beyond) is Opinion.REFUSE


def test_a_node_in_quarantine_is_neither_required_nor_allowed() -> None:
    judge = reporting(judge_with(BLOCKS), 4, 4, 4, 4)
    judge._book.revoked = {EDGE: 0}
    checkpoint = judge.draft(NOW)
    assert checkpoint is not None
    assert checkpoint.content.ranges == ()
    other = judge_with(BLOCKS)
    other._book.revoked = {EDGE: 0}
    assert other.examine(good()) is Opinion.REFUSE

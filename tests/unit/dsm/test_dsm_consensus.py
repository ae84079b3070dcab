"""The agreement machine by itself: rule by rule, attack by attack."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.dsm.kit import NOW, QUICK, certificate_of, court_of, history_of, judged, mesh_of

from hookprobe.dsm.certificate import NO_DIGEST, QuorumCertificate, VoteKind, vote_message
from hookprobe.dsm.checkpoint import Checkpoint, Content, Header, header_hash
from hookprobe.dsm.consensus import Simplex
from hookprobe.dsm.effects import CheckpointProposed, ViewChanged, Voted
from hookprobe.dsm.messages import Proposal, Vote
from hookprobe.dsm.misbehaviour import Fault, proposal_statement
from hookprobe.dsm.steps import Accused, Broadcast, Decided, Opinion, Seat, Step
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.dsm.votelog import load_memory
from hookprobe.errors import VerificationError
from hookprobe.wire.instant import SECOND, Instant

MESH = mesh_of(4)
COURT = court_of(MESH)


EMPTY = Content((), (), ())


def checkpoint(author: int, stamp: int = 0) -> Checkpoint:
    history = history_of(MESH)
    header = Header(
        chain=MESH.chain,
        epoch=0,
        prev=history.last_hash,
        timestamp_ms=stamp,
        merkle_root=b"r" * 32,
        count=0,
        ranges_root=EMPTY.ranges_root(),
        cuts_root=EMPTY.cuts_root(),
        evidence_root=EMPTY.evidence_root(),
        history_root=history.tree.root(),
        history_size=0,
        validators_hash=COURT.validators.hash,
        next_validators_hash=COURT.validators.hash,
        validator_id=MESH.names[author],
    )
    raw = header.encode()
    hashed = header_hash(raw)
    return Checkpoint(header, raw, hashed, MESH.keys.signer(MESH.names[author]).sign(hashed), EMPTY)


class Clerk:
    """A judge whose opinion the test sets."""

    def __init__(self, drafts: Checkpoint | None = None) -> None:
        self.opinion = Opinion.ACCEPT
        self.drafts = drafts

    def draft(self, now: Instant) -> Checkpoint | None:
        assert now
        return self.drafts

    def examine(self, checkpoint: Checkpoint) -> Opinion:
        assert checkpoint.raw
        return self.opinion


def machine(place: int = 3, clerk: Clerk | None = None) -> Simplex:
    name = MESH.names[place]
    seat = Seat(place, MESH.keys.signer(name), MESH.keys.vote_signer(name))
    return Simplex(COURT, 0, seat, clerk or Clerk(), QUICK)


def opened(place: int = 3, clerk: Clerk | None = None) -> Simplex:
    simplex = machine(place, clerk)
    simplex.open(NOW)
    return simplex


def proposal(
    view: int, content: Checkpoint, base: int = 0, certificates: Sequence[QuorumCertificate] = ()
) -> Proposal:
    leader = COURT.validators.leader(0, view)
    statement = proposal_statement(MESH.chain, 0, view, content.hash)
    signature = MESH.keys.signer(MESH.names[leader]).sign(statement)
    return Proposal(0, view, content, base, tuple(certificates), signature)


def vote(kind: VoteKind, view: int, digest: bytes, voter: int) -> Vote:
    message = vote_message(MESH.chain, kind, 0, view, digest)
    return Vote(
        kind, 0, view, digest, voter, MESH.keys.vote_signer(MESH.names[voter]).sign(message)
    )


def votes_in(steps: Sequence[Step]) -> list[tuple[str, int]]:
    return [(item.kind, item.view) for item in steps if isinstance(item, Voted)]


def nullification(view: int) -> QuorumCertificate:
    return certificate_of(MESH, VoteKind.NULLIFY, (0, view), NO_DIGEST, (0, 1, 2))


def notarization(view: int, digest: bytes) -> QuorumCertificate:
    return certificate_of(MESH, VoteKind.NOTARIZE, (0, view), digest, (0, 1, 2))


FIRST, OTHER = checkpoint(0), checkpoint(0, stamp=9)


def test_a_valid_proposal_gets_one_vote_that_is_durable_before_it_is_sent() -> None:
    simplex = opened()
    steps = simplex.receive_proposal(proposal(1, FIRST), NOW)
    kinds = [type(item) for item in steps[:3]]
    assert kinds == [Persist, Voted, Broadcast]
    assert votes_in(steps) == [("NOTARIZE", 1)]
    assert votes_in(simplex.reconsider(NOW)) == []


def test_a_proposal_that_its_leader_did_not_sign_is_refused() -> None:
    forged = replace(proposal(1, FIRST), signature=bytes(64))
    with pytest.raises(VerificationError, match="leader"):
        opened().receive_proposal(forged, NOW)
    for moved in (replace(proposal(1, FIRST), view=2), replace(proposal(1, OTHER), view=5)):
        with pytest.raises(VerificationError, match="leader"):
            opened().receive_proposal(moved, NOW)


def test_an_equivocating_leader_gets_one_vote_and_an_accusation_that_holds() -> None:
    simplex = opened()
    simplex.receive_proposal(proposal(1, FIRST), NOW)
    steps = simplex.receive_proposal(proposal(1, OTHER), NOW)
    assert votes_in(steps) == []
    accused = [item for item in steps if isinstance(item, Accused)]
    assert accused[0].evidence is not None
    verdict = judged(accused[0].evidence, COURT)
    assert (verdict.fault, verdict.offender) == (Fault.PROPOSALS, MESH.names[0])


def test_a_double_vote_is_evidence_and_a_forged_double_vote_is_not() -> None:
    simplex = opened()
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 1), NOW)
    steps = simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, OTHER.hash, 1), NOW)
    accused = [item for item in steps if isinstance(item, Accused)]
    assert accused[0].evidence is not None
    assert judged(accused[0].evidence, COURT).fault is Fault.VOTES
    forged = replace(vote(VoteKind.NOTARIZE, 1, OTHER.hash, 2), signature=bytes(96))
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 2), NOW)
    assert simplex.receive_vote(forged, NOW) == [Accused(2, None)]


def test_nullify_beside_notarize_is_no_offence_but_beside_finalize_it_is() -> None:
    simplex = opened()
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 1), NOW)
    assert simplex.receive_vote(vote(VoteKind.NULLIFY, 1, NO_DIGEST, 1), NOW) == []
    steps = simplex.receive_vote(vote(VoteKind.FINALIZE, 1, FIRST.hash, 1), NOW)
    assert [type(item) for item in steps] == [Accused]


def test_three_votes_notarise_and_the_machine_finalises_and_moves_on() -> None:
    simplex = opened()
    simplex.receive_proposal(proposal(1, FIRST), NOW)
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 0), NOW)
    steps = simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 1), NOW)
    assert votes_in(steps) == [("FINALIZE", 1)]
    assert ViewChanged(0, 2) in steps
    simplex.receive_vote(vote(VoteKind.FINALIZE, 1, FIRST.hash, 0), NOW)
    done = simplex.receive_vote(vote(VoteKind.FINALIZE, 1, FIRST.hash, 1), NOW)
    assert [item.checkpoint for item in done if isinstance(item, Decided)] == [FIRST]
    assert simplex.decided


def test_one_voter_never_counts_twice() -> None:
    simplex = opened()
    for _ in range(5):
        assert simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 1), NOW) == []


def test_a_forged_vote_in_a_quorum_is_found_dropped_and_named() -> None:
    simplex = opened()
    forged = replace(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 0), signature=bytes(96))
    simplex.receive_vote(forged, NOW)
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 1), NOW)
    steps = simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 2), NOW)
    assert steps == [Accused(0, None)]
    again = simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, FIRST.hash, 3), NOW)
    assert votes_in(again) == [("FINALIZE", 1)]


def test_after_a_nullify_there_is_no_finalize_of_that_view() -> None:
    simplex = opened()
    assert votes_in(simplex.handle_timeout(Instant(NOW + SECOND))) == [("NULLIFY", 1)]
    steps = simplex.receive_certificate(notarization(1, FIRST.hash), NOW)
    assert votes_in(steps) == []
    assert simplex.view == 2


def test_after_a_nullify_a_notarize_is_still_allowed() -> None:
    simplex = opened()
    simplex.handle_timeout(Instant(NOW + SECOND))
    assert votes_in(simplex.receive_proposal(proposal(1, FIRST), NOW)) == [("NOTARIZE", 1)]


def test_invalid_content_is_nullified_at_once() -> None:
    clerk = Clerk()
    clerk.opinion = Opinion.REFUSE
    steps = opened(3, clerk).receive_proposal(proposal(1, FIRST), NOW)
    assert votes_in(steps) == [("NULLIFY", 1)]


def test_content_that_waits_for_blocks_is_voted_for_when_they_are_there() -> None:
    clerk = Clerk()
    clerk.opinion = Opinion.WAIT
    simplex = opened(3, clerk)
    assert simplex.receive_proposal(proposal(1, FIRST), NOW) == []
    clerk.opinion = Opinion.ACCEPT
    assert votes_in(simplex.reconsider(NOW)) == [("NOTARIZE", 1)]


def test_a_fresh_proposal_needs_all_earlier_views_nullified() -> None:
    second = checkpoint(1)
    unjustified = opened()
    unjustified.receive_certificate(notarization(1, FIRST.hash), NOW)
    steps = unjustified.receive_proposal(proposal(2, second), NOW)
    assert votes_in(steps) == [("NULLIFY", 2)]
    justified = opened()
    steps = justified.receive_proposal(proposal(2, second, 0, [nullification(1)]), NOW)
    assert ("NOTARIZE", 2) in votes_in(steps)


def test_a_repeated_proposal_must_be_the_one_that_was_notarised() -> None:
    certificate = notarization(1, FIRST.hash)
    good = opened()
    steps = good.receive_proposal(proposal(2, FIRST, 1, [certificate]), NOW)
    assert ("NOTARIZE", 2) in votes_in(steps)
    bad = opened()
    steps = bad.receive_proposal(proposal(2, OTHER, 1, [certificate]), NOW)
    assert ("NULLIFY", 2) in votes_in(steps)


def test_a_fresh_proposal_must_be_by_its_own_leader() -> None:
    simplex = opened()
    steps = simplex.receive_proposal(proposal(2, FIRST, 0, [nullification(1)]), NOW)
    assert ("NULLIFY", 2) in votes_in(steps)


def test_the_leader_repeats_what_was_notarised() -> None:
    simplex = opened(1, Clerk(checkpoint(1)))
    simplex.receive_proposal(proposal(1, FIRST), NOW)
    steps = simplex.receive_certificate(notarization(1, FIRST.hash), NOW)
    proposed = [item for item in steps if isinstance(item, CheckpointProposed)]
    assert [item.header_hash for item in proposed] == [FIRST.hash]


def test_the_leader_proposes_afresh_only_when_all_views_are_nullified() -> None:
    mine = checkpoint(1)
    simplex = opened(1, Clerk(mine))
    steps = simplex.receive_certificate(nullification(1), NOW)
    sent = [item.message for item in steps if isinstance(item, Broadcast)]
    proposals = [item for item in sent if isinstance(item, Proposal)]
    assert [item.checkpoint for item in proposals] == [mine]
    assert proposals[0].certificates == (nullification(1),)


def test_timers_grow_by_half_and_stop_at_the_limit() -> None:
    simplex = machine()
    base = QUICK.view_timeout_us
    assert [simplex._timeout(view) for view in (1, 2, 3)] == [base, base * 3 // 2, base * 9 // 4]
    assert simplex._timeout(2**32 - 1) == QUICK.view_timeout_max_us


def test_a_restart_never_contradicts_itself() -> None:
    store = MemoryStore()
    simplex = opened(0, Clerk(FIRST))
    for step in machine(0, Clerk(FIRST)).open(NOW):
        if isinstance(step, Persist):
            store.apply(step)
    assert store.get(Table.PROPOSALS, bytes(8) + FIRST.hash) is not None
    again = machine(0, Clerk(OTHER))
    again.restore(load_memory(store, 0, 0))
    steps = again.open(NOW)
    assert {item.header_hash for item in steps if isinstance(item, Voted | CheckpointProposed)} <= {
        FIRST.hash
    }
    sent = [item.message for item in steps if isinstance(item, Broadcast)]
    assert [item.checkpoint.hash for item in sent if isinstance(item, Proposal)] == [FIRST.hash]
    assert simplex.view == 1


def test_after_a_restart_a_nullify_is_remembered() -> None:
    store = MemoryStore()
    simplex = opened()
    for step in simplex.handle_timeout(Instant(NOW + SECOND)):
        if isinstance(step, Persist):
            store.apply(step)
    again = machine()
    again.restore(load_memory(store, 0, 3))
    again.open(NOW)
    steps = again.receive_certificate(notarization(1, FIRST.hash), NOW)
    assert votes_in(steps) == []


def test_a_machine_that_abstains_never_signs() -> None:
    simplex = machine(0, Clerk(FIRST))
    simplex.abstain = True
    steps = simplex.open(NOW) + simplex.handle_timeout(Instant(NOW + 9 * SECOND))
    steps += simplex.receive_certificate(notarization(1, FIRST.hash), NOW)
    assert votes_in(steps) == []
    assert not [item for item in steps if isinstance(item, CheckpointProposed)]


def test_votes_far_ahead_are_not_kept() -> None:
    simplex = opened()
    simplex.receive_vote(vote(VoteKind.NOTARIZE, 10_000, FIRST.hash, 1), NOW)
    assert simplex.heard == 0


def test_candidates_are_limited() -> None:
    simplex = opened()
    for view in range(1, 60):
        author = COURT.validators.leader(0, view)
        simplex.receive_proposal(proposal(view, checkpoint(author, view)), NOW)
    assert len(simplex._candidates) <= 32


def test_a_decided_machine_is_silent() -> None:
    simplex = opened()
    simplex.receive_proposal(proposal(1, FIRST), NOW)
    final = certificate_of(MESH, VoteKind.FINALIZE, (0, 1), FIRST.hash, (0, 1, 2))
    assert [type(item) for item in simplex.receive_certificate(final, NOW)][-1] is Decided
    assert simplex.receive_certificate(final, NOW) == []
    assert simplex.handle_timeout(Instant(NOW + 99 * SECOND)) == []
    assert simplex.next_timeout() is None


def test_a_final_checkpoint_whose_content_is_unknown_is_asked_for() -> None:
    final = certificate_of(MESH, VoteKind.FINALIZE, (0, 1), FIRST.hash, (0, 1, 2))
    simplex = opened()
    steps = simplex.receive_certificate(final, NOW)
    assert Decided(final, None) in steps
    late = simplex.receive_proposal(proposal(1, FIRST), NOW)
    assert [item.checkpoint for item in late if isinstance(item, Decided)] == [FIRST]


def test_of_one_voter_two_rival_votes_are_kept_and_no_more() -> None:
    simplex = opened()
    for number in range(9):
        simplex.receive_vote(vote(VoteKind.NOTARIZE, 1, bytes([number + 1]) * 32, 1), NOW)
    held = simplex._ballots._votes[(1, VoteKind.NOTARIZE)]
    assert sum(len(voters) for voters in held.values()) == 2

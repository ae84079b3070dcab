"""When a validator opens an epoch, what it reports, and when it keeps silent."""

import pytest
from tests.unit.dsm.kit import NOW, QUICK, Net, certificate_of, host_of, mesh_of

from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.cut import Cut, SignedCut, sign_cut
from hookprobe.dsm.effects import Effect, EpochOpened, PeerPenalised, Send, VotingSuspended
from hookprobe.dsm.messages import CertificateMessage, CutMessage, Status, Vote
from hookprobe.dsm.microblock import LaneKey
from hookprobe.dsm.store import MemoryStore
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.dsm.voting import EARLY_MAX
from hookprobe.sim.mesh import START
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

MESH = mesh_of(4)
V0, V1, V2, V3 = MESH.names


def ledger() -> ValidatorLedger:
    """Return v00, linked to all others, before any of them said anything."""
    node = ValidatorLedger(
        MESH.genesis, MESH.validator_keys(V0), MESH.keys.schemes, host_of(MemoryStore()), QUICK
    )
    for name in (V1, V2, V3):
        node.peer_connected(name, Instant(START))
    return node


def status(seen: int = 0) -> Status:
    return Status(0, bytes(32), bytes(32), seen)


def greeted(*seen: int) -> ValidatorLedger:
    node = ledger()
    for name, epochs in zip((V1, V2, V3), seen, strict=False):
        node.receive_message(name, status(epochs), Instant(START))
    return node


def cut_of(name: NodeId, epoch: int = 0) -> SignedCut:
    return sign_cut(Cut(MESH.chain, epoch, bytes(32), 5, name, (), ()), MESH.keys.signer(name))


def test_nothing_is_signed_before_f_plus_one_peers_told_what_they_saw() -> None:
    node = greeted(0)
    assert EpochOpened(0) not in node.handle_timeout(NOW)
    effects = node.receive_message(V2, status(), NOW)
    assert EpochOpened(0) in effects
    cuts = [item for item in effects if isinstance(item, Send)]
    assert {item.peer for item in cuts if isinstance(item.message, CutMessage)} == {V1, V2, V3}


def test_one_liar_cannot_suspend_a_validator_but_two_witnesses_can() -> None:
    for seen, suspended in (((9, 0, 0), False), ((9, 8, 0), True)):
        node = greeted(*seen)
        effects = node.handle_timeout(NOW)
        assert EpochOpened(0) in effects
        assert node.voting.simplex.abstain is suspended
        messages = [item.message for item in effects if isinstance(item, Send)]
        assert any(isinstance(item, CutMessage | Vote) for item in messages) is not suspended


def notarization() -> CertificateMessage:
    return CertificateMessage(certificate_of(MESH, VoteKind.NOTARIZE, (0, 1), b"d" * 32, (1, 2, 3)))


def finalizes(effects: list[Effect]) -> bool:
    messages = [item.message for item in effects if isinstance(item, Send)]
    return any(isinstance(item, Vote) and item.kind is VoteKind.FINALIZE for item in messages)


def test_a_certificate_draws_no_vote_from_who_may_have_lost_its_log() -> None:
    # Before its last life's NULLIFY was lost with the disk it might contradict it with a FINALIZE.
    assert not finalizes(greeted().receive_message(V1, notarization(), Instant(START)))
    assert not finalizes(greeted(0).receive_message(V1, notarization(), Instant(START)))
    assert not finalizes(greeted(9, 8).receive_message(V1, notarization(), Instant(START)))
    assert finalizes(greeted(0, 0).receive_message(V1, notarization(), Instant(START)))
    assert finalizes(greeted(9, 0).receive_message(V1, notarization(), Instant(START)))


def test_who_voted_before_opening_an_epoch_is_not_suspected_for_it() -> None:
    node = greeted(0, 0)
    assert finalizes(node.receive_message(V1, notarization(), Instant(START)))
    node.history.next_epoch = 1
    node.voting.begin()
    for name in (V1, V2, V3):
        effects = node.receive_message(name, status(1), Instant(START))
        assert not any(isinstance(item, VotingSuspended) for item in effects)


def test_a_witness_that_comes_late_still_suspends() -> None:
    node = greeted(9, 0)
    assert not node.voting.simplex.abstain
    effects = node.receive_message(V3, status(8), Instant(START))
    assert VotingSuspended(9) in effects


def test_f_plus_one_cuts_pull_a_slow_clock() -> None:
    node = greeted(0, 0)
    early = Instant(START + 10)
    assert EpochOpened(0) not in node.receive_message(V1, CutMessage(cut_of(V1)), early)
    assert EpochOpened(0) in node.receive_message(V2, CutMessage(cut_of(V2)), early)


def test_epochs_after_a_stall_keep_their_distance() -> None:
    node = greeted(0, 0)
    late = Instant(NOW + 3600 * 10**6)
    node.handle_timeout(late)
    node.history.next_epoch = 1
    node.voting.begin()
    assert node.voting.open_at() == late + QUICK.epoch_gap_us


def test_early_messages_are_kept_up_to_a_limit() -> None:
    node = greeted(0, 0)
    for view in range(1, 200):
        vote = Vote(VoteKind.NOTARIZE, 1, view, b"d" * 32, 1, bytes(96))
        node.receive_message(V1, vote, NOW)
    assert len(node.voting.begin()) == EARLY_MAX


def test_more_chains_than_fit_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    node = greeted(0, 0)
    heads: list[tuple[LaneKey, int]] = [((NodeId(f"n{n:05}"), 1), 1) for n in range(5_000)]
    monkeypatch.setattr(node.gossip, "advanced", lambda: heads)
    named: dict[LaneKey, bool] = {}
    for epoch in range(3):
        node.history.next_epoch = epoch
        node.voting.begin()
        listed = node.voting._heads()
        assert len(listed) == 2343
        assert listed == sorted(listed)
        named |= {lane: True for lane, _ in listed}
    assert len(named) == 5_000


def test_a_leader_silent_for_long_gets_little_time_and_only_while_others_are_active() -> None:
    node = greeted(0, 0)
    voting = node.voting
    node.history.next_epoch = 20
    voting.begin()
    assert voting._leader_timeout(3) is None
    voting.note_signers([V1, V2], 19)
    assert voting._leader_timeout(3) == QUICK.silent_leader_timeout_us
    assert voting._leader_timeout(1) is None
    assert voting._leader_timeout(0) is None
    assert voting.simplex._timeout(4) == 200 * MILLISECOND


def test_a_late_vote_is_answered_with_the_finalisation_once_in_a_while() -> None:
    net = Net(MESH)
    net.add_validators()
    net.run(NOW + 2 * 10**6)
    node = net.nodes[V0]
    assert isinstance(node, ValidatorLedger)
    vote = Vote(VoteKind.NOTARIZE, 0, 1, b"d" * 32, 1, bytes(96))
    later = Instant(net.now + 10**6)
    first = node.receive_message(V1, vote, later)
    assert [type(item) for item in first] == [Send]
    assert node.receive_message(V1, vote, later) == []


def test_a_cut_is_taken_from_its_own_author_only() -> None:
    node = greeted(0, 0)
    effects = node.receive_message(V1, CutMessage(cut_of(V2)), Instant(START))
    assert [item.score for item in effects if isinstance(item, PeerPenalised)] == [-10]
    assert node.judge.cuts == {}

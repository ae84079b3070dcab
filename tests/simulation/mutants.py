"""Wrong validators: each breaks one rule. The simulator must notice every one of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest

from hookprobe.dsm import cut, registry, validators, voting
from hookprobe.dsm.backlog import Backlog
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.consensus import Simplex
from hookprobe.dsm.content import ContentJudge
from hookprobe.dsm.dead_keys import KeyUse
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.finality import Finality
from hookprobe.dsm.governance import Act
from hookprobe.dsm.lanes import Lane
from hookprobe.dsm.messages import PackEntry, Proposal
from hookprobe.dsm.peers import Peer
from hookprobe.dsm.pulls import Delivery
from hookprobe.dsm.registry import Registry
from hookprobe.dsm.steps import Step
from hookprobe.dsm.store import Persist, Table, Write
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.dsm.votelog import Memory
from hookprobe.dsm.voting import Voting
from hookprobe.sim.scenario import CHURN, CONFIG, FAST, Profile, run
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

SAFETY = ("I1:", "I2:", "I3:", "I4:", "I6:", "I7:", "I8:")
LIVENESS = ("I10:",)
ANY = (*SAFETY, *LIVENESS)


def ledger_with(simplex: type[Simplex]) -> type[ValidatorLedger]:
    class MutantVoting(Voting):
        simplex_type = simplex

    class MutantLedger(ValidatorLedger):
        voting_type = MutantVoting

    return MutantLedger


class FinalizesAfterNullify(Simplex):
    def _may_finalize(self, view: int) -> bool:
        return self._unvoted(view, VoteKind.FINALIZE)


class TakesAnyProposal(Simplex):
    def _justified(self, proposal: Proposal) -> bool:
        return proposal.epoch == self.epoch


class NeverRepeats(Simplex):
    def recent(self) -> list[Step]:
        return []


class FixedTimer(Simplex):
    def _timeout(self, view: int) -> int:
        return self._config.view_timeout_us if view else 0


def first_kill(
    profile: Profile,
    seeds: int,
    ledger_type: type[ValidatorLedger] = ValidatorLedger,
    kinds: tuple[str, ...] = SAFETY,
) -> int | None:
    """Return the first seed that shows a violation of one of these kinds."""
    for seed in range(seeds):
        for violation in run(seed, profile, ledger_type).violations:
            if violation.startswith(kinds):
                return seed
    return None


def weaken_quorum(patch: pytest.MonkeyPatch) -> None:
    _set_quorum(patch, lambda size: size - (size - 1) // 3 - 1)


def quorum_of_sixty_percent(patch: pytest.MonkeyPatch) -> None:
    _set_quorum(patch, lambda size: -(-6 * size // 10))


def _set_quorum(patch: pytest.MonkeyPatch, wrong: Callable[[int], int]) -> None:
    # The checker counts voters with the wrong quorum too: that alone must not give it away.
    patch.setattr(validators, "quorum", wrong)


def forget_votes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(voting, "load_memory", lambda *_wanted: Memory({}, {}, [], []))


def floor_too_low(patch: pytest.MonkeyPatch) -> None:
    def wrong(reports: list[int], prev_to: int, faults: int, cap: int) -> int:
        ordered = sorted((max(report, prev_to) for report in reports), reverse=True)
        return min(ordered[faults + 1], prev_to + cap)

    patch.setattr(cut, "floor_of", wrong)


def floor_too_high(patch: pytest.MonkeyPatch) -> None:
    def wrong(reports: list[int], prev_to: int, faults: int, cap: int) -> int:
        ordered = sorted((max(report, prev_to) for report in reports), reverse=True)
        return min(ordered[faults - 1], prev_to + cap)

    patch.setattr(cut, "floor_of", wrong)


def accept_forks(patch: pytest.MonkeyPatch) -> None:
    honest_advance = Lane.advance

    def advance(self: Lane, last: int, head: bytes) -> None:
        kept = [signed for signed in self.main if signed.seq > last]
        honest_advance(self, last, head)
        self.main = self.main or kept
        for signed in kept:
            self.known.setdefault(signed.id, (signed, self.enrolment))  # type: ignore[arg-type]

    def path(self: Lane, last: int, head: bytes) -> object:
        blocks = [signed for signed in self.main if signed.seq <= last]
        return blocks if blocks and blocks[-1].id == head else None

    patch.setattr(Lane, "advance", advance)
    patch.setattr(Lane, "path", path)
    patch.setattr(ContentJudge, "evidence_of", lambda _self, _cuts: {})


def admit_with_one_vote_less(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Registry, voters: Sequence[NodeId]) -> bool:
        members = sum(self.following.place(node) is not None for node in voters)
        return members >= self.following.quorum - 1

    patch.setattr(Registry, "_has_quorum", wrong)


def shrink_below_four(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registry, "FAULT_TOLERANT_MIN", 3)


def change_any_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ValidatorSet, "faults", property(lambda _self: 1))
    honest_decide = Registry._decide

    def wrong(self: Registry) -> tuple[ValidatorSet, list[bytes]]:
        patch.setattr(ValidatorSet, "faults", property(lambda _self: 9))
        try:
            return honest_decide(self)
        finally:
            patch.setattr(ValidatorSet, "faults", property(lambda _self: 1))

    patch.setattr(Registry, "_decide", wrong)


def bury_no_keys(patch: pytest.MonkeyPatch) -> None:
    honest_read = Registry.read

    def wrong(
        self: Registry, acts: Iterable[Act], offenders: Iterable[str], uses: Sequence[KeyUse] = ()
    ) -> list[Write]:
        self._tombstones = {}
        return honest_read(self, acts, offenders, uses)

    patch.setattr(Registry, "read", wrong)


def spare_the_convicted(patch: pytest.MonkeyPatch) -> None:
    honest_read = Registry.read

    def wrong(
        self: Registry, acts: Iterable[Act], offenders: Iterable[str], uses: Sequence[KeyUse] = ()
    ) -> list[Write]:
        return honest_read(self, acts, [], uses)

    patch.setattr(Registry, "read", wrong)


def take_part_for_whole(patch: pytest.MonkeyPatch) -> None:
    honest_fill = Backlog._fill

    def wrong(
        self: Backlog, peer: Peer, delivery: Delivery[PackEntry], now: Instant
    ) -> list[Effect]:
        entries = delivery.entries
        gaps = self.missing.get(entries[0].signed.lane, [])
        if gaps and len(entries) > 1:
            delivery = replace(delivery, entries=(replace(entries[0], signed=entries[-1].signed),))
            first = replace(gaps[0][1], first=entries[-1].signed.seq)
            self.missing[first.lane][0] = (gaps[0][0], first)
        return honest_fill(self, peer, delivery, now)

    patch.setattr(Backlog, "_fill", wrong)


def prune_headers_too(patch: pytest.MonkeyPatch) -> None:
    honest_batch = Finality._batch

    def wrong(
        self: Finality, writes: list[Write], timestamp_ms: int
    ) -> tuple[Persist, list[Effect]]:
        batch, pruned = honest_batch(self, writes, timestamp_ms)
        row: Write = (Table.CHECKPOINTS, bytes(8), None)
        return (replace(batch, writes=(*batch.writes, row)) if pruned else batch), pruned

    patch.setattr(Finality, "_batch", wrong)


def check_no_signature_later(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "_holds", lambda _self, _covered: True)


FORGERS = replace(CHURN, name="forgers", sizes=(4,), roles=("forger",))
LAWFUL = ("S1:", "S2:", "S3:", "S4:", "S5:", "S6:", "S7:")
CHANGING = replace(CHURN, name="changing", sizes=(4,))
SEVEN = replace(CHURN, name="seven", sizes=(7,), roles=("twins", "voter"))
FIVE = replace(FAST, name="five", sizes=(5,))
SMALL = replace(FAST, name="small", sizes=(4,))
ATTACKED = replace(SMALL, name="attacked", roles=("twins", "usurper", "voter"))
LIARS = replace(SMALL, name="liars", roles=("liar",))
FORKS = replace(SMALL, name="forks", fork_percent=100)
CAPTURED = replace(ATTACKED, name="captured", byzantine_extra=1)
SLOW = replace(
    SMALL,
    name="slow",
    stormy=False,
    roles=("silent",),
    calm_delay_max_us=400_000,
    config=replace(CONFIG, view_timeout_us=80 * MILLISECOND, request_timeout_us=1_000_000),
)

"""Wrong validators: each breaks one rule. The simulator must notice every one of them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hookprobe.dsm import cut, validators, voting
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.consensus import Simplex
from hookprobe.dsm.content import ContentJudge
from hookprobe.dsm.lanes import Lane
from hookprobe.dsm.messages import Proposal
from hookprobe.dsm.steps import Step
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.dsm.votelog import Memory
from hookprobe.dsm.voting import Voting
from hookprobe.sim import invariants
from hookprobe.sim.scenario import CONFIG, FAST, Profile, run
from hookprobe.wire.instant import MILLISECOND

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
    patch.setattr(invariants, "quorum", wrong)


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

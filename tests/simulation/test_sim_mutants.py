"""The simulator's power: every wrong validator is found within a bounded number of seeds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulation import mutants
from tests.simulation.mutants import ANY, ATTACKED, LAWFUL, LIVENESS, SAFETY

from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.sim.scenario import CHURN, Profile

AGREEMENT = ("I1:", "I2:", "I3:", "I4:")


@pytest.mark.parametrize(
    ("patch", "profile", "seeds", "kinds"),
    [
        (mutants.weaken_quorum, ATTACKED, 60, AGREEMENT),
        (
            mutants.quorum_of_sixty_percent,
            replace(mutants.FIVE, roles=ATTACKED.roles),
            200,
            AGREEMENT,
        ),
        (mutants.forget_votes, mutants.SMALL, 150, SAFETY),
        (mutants.floor_too_low, mutants.LIARS, 40, SAFETY),
        (mutants.floor_too_high, mutants.LIARS, 40, LIVENESS),
        (mutants.accept_forks, mutants.FORKS, 40, ANY),
        (mutants.admit_with_one_vote_less, mutants.CHANGING, 10, LAWFUL),
        (mutants.shrink_below_four, mutants.CHANGING, 20, LAWFUL),
        (mutants.change_any_number, mutants.CHANGING, 30, LAWFUL),
        (mutants.bury_no_keys, mutants.CHANGING, 60, LAWFUL),
        (mutants.spare_the_convicted, mutants.SEVEN, 20, LAWFUL),
        (mutants.take_part_for_whole, CHURN, 120, ANY),
        (mutants.check_no_signature_later, mutants.FORGERS, 40, ("I13:",)),
        (mutants.prune_headers_too, mutants.CHANGING, 5, ("I13:", *ANY)),
    ],
)
def test_a_wrong_rule_is_found(
    monkeypatch: pytest.MonkeyPatch,
    patch: Callable[[pytest.MonkeyPatch], None],
    profile: Profile,
    seeds: int,
    kinds: tuple[str, ...],
) -> None:
    patch(monkeypatch)
    assert mutants.first_kill(profile, seeds, kinds=kinds) is not None


@pytest.mark.parametrize(
    ("ledger_type", "profile", "seeds", "kinds"),
    [
        (mutants.ledger_with(mutants.FinalizesAfterNullify), ATTACKED, 30, SAFETY),
        (mutants.ledger_with(mutants.TakesAnyProposal), ATTACKED, 200, AGREEMENT),
        (mutants.ledger_with(mutants.NeverRepeats), mutants.SMALL, 40, LIVENESS),
        (mutants.ledger_with(mutants.FixedTimer), mutants.SLOW, 5, LIVENESS),
    ],
)
def test_a_wrong_machine_is_found(
    ledger_type: type[ValidatorLedger], profile: Profile, seeds: int, kinds: tuple[str, ...]
) -> None:
    assert mutants.first_kill(profile, seeds, ledger_type, kinds) is not None


def test_two_byzantine_of_four_break_agreement() -> None:
    assert mutants.first_kill(mutants.CAPTURED, 300, kinds=AGREEMENT) is not None


@pytest.mark.parametrize("profile", [ATTACKED, mutants.LIARS, mutants.FORKS, mutants.SLOW, CHURN])
def test_the_right_validator_holds_where_the_wrong_ones_fail(profile: Profile) -> None:
    seeds = 5 if profile in (mutants.SLOW, CHURN) else 40
    assert mutants.first_kill(profile, seeds, kinds=("I", "S")) is None

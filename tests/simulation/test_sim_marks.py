"""Simulations reach every observation of the ledger: a path never walked is untested."""

import typing
from collections import Counter

import pytest

from hookprobe.dsm import effects
from hookprobe.sim.scenario import run

SEEDS = 400
# Honest edges are never refused, and Byzantine ones fork rather than forge; tests/unit/dsm forges.
ELSEWHERE = {"BlockRefused"}


@pytest.mark.slow
def test_simulations_reach_every_observation() -> None:
    reached: Counter[str] = Counter()
    for seed in range(SEEDS):
        reached.update(dict(run(seed).counts))
    declared = {kind.__name__ for kind in typing.get_args(effects.Observation)}
    assert declared - set(reached) - ELSEWHERE == set()
    assert set(reached) <= declared

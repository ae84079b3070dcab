import random

import pytest
from tests.fuzz.lane import Target, attack, targets

from hookprobe.errors import MalformedError

TARGETS = targets()
INPUTS = 1_500


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_leads_outside_our_own_errors(target: Target) -> None:
    dice = random.Random(target.name)
    taken = sum(attack(target, dice) for _ in range(INPUTS))
    if target.may_refuse:
        assert taken < INPUTS, "mutations that are never refused test nothing"


def test_the_lane_notices_a_decoder_that_leaks() -> None:
    def leaky(data: bytes) -> None:
        if len(data) % 3 == 0:
            raise KeyError("a bug")
        raise MalformedError("fine")

    def run() -> None:
        for seed in range(100):
            attack(Target("leaky", leaky, [b"abcdef"]), random.Random(seed))

    with pytest.raises(KeyError):
        run()

"""The replay window, after the cases of WireGuard's replay tests, and against a naive model."""

from random import Random

import pytest

from hookprobe.htp.window import WINDOW_PACKETS, ReplayWindow


def accept(window: ReplayWindow, number: int) -> bool:
    fresh = window.is_fresh(number)
    if fresh:
        window.commit(number)
    return fresh


LIMIT = WINDOW_PACKETS

HAND_CASES = [
    (0, True), (1, True), (1, False), (9, True), (8, True), (7, True), (7, False), (6, True),
    (5, True), (4, True), (4, False), (3, True), (2, True), (2, False), (0, False),
    (LIMIT, True), (LIMIT - 1, True), (LIMIT, False), (LIMIT - 1, False), (LIMIT - 2, True),
    (2, False), (LIMIT + 16, True), (3, False), (16, False), (17, True), (17, False),
    (LIMIT * 4, True), (LIMIT * 4 - (LIMIT - 1), True), (10, False), (LIMIT * 4 - LIMIT, False),
    (LIMIT * 4 - LIMIT - 1, False), (LIMIT * 4 - (LIMIT - 2), True), (LIMIT * 4 + 1, True),
    (LIMIT * 4 - (LIMIT - 1), False), (LIMIT * 4 - (LIMIT - 3), True), (0, False),
]  # fmt: skip


def test_hand_cases() -> None:
    window = ReplayWindow()
    for step, (number, wanted) in enumerate(HAND_CASES):
        assert accept(window, number) is wanted, (step, number)


@pytest.mark.parametrize(
    "numbers",
    [
        range(1, LIMIT + 1),
        range(LIMIT, 0, -1),
        [*range(LIMIT, 1, -1), LIMIT + 1],
        range(0, 3 * LIMIT, LIMIT - 1),
    ],
    ids=["ascending", "descending", "descending, then one ahead", "strides"],
)
def test_each_number_once(numbers: list[int]) -> None:
    window = ReplayWindow()
    assert all(accept(window, number) for number in numbers)
    assert not any(accept(window, number) for number in numbers)


def test_a_full_window_pushed_by_one_forgets_exactly_one() -> None:
    window = ReplayWindow()
    for number in range(1, LIMIT + 1):
        accept(window, number)
    assert not window.is_fresh(0)
    assert accept(window, LIMIT + 1)
    assert not window.is_fresh(1)


def test_random_orders_agree_with_a_set() -> None:
    random = Random(7)
    window, seen, highest = ReplayWindow(), set[int](), -1
    for _ in range(20_000):
        number = max(0, highest + random.randrange(-LIMIT - 50, 60))
        wanted = number not in seen and number > highest - LIMIT
        assert accept(window, number) is wanted
        seen.add(number)
        highest = max(highest, number)


def test_a_jump_of_two_to_the_63_costs_nothing() -> None:
    window = ReplayWindow()
    for number in range(100):
        window.commit(number)
    assert accept(window, 2**63)
    assert not window.is_fresh(99)
    assert (window._map, window._run) == (0, 2**63)


def test_committing_twice_is_our_own_bug() -> None:
    window = ReplayWindow()
    window.commit(3)
    with pytest.raises(AssertionError):
        window.commit(3)

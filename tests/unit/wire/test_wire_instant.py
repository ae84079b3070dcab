"""Instants: which is the first."""

from hookprobe.wire.instant import Instant, earliest


def test_the_earliest_of_instants_skips_never() -> None:
    assert earliest(None, Instant(7), Instant(3), None, Instant(5)) == 3
    assert earliest(Instant(0), None) == 0


def test_never_is_the_earliest_of_nothing_else() -> None:
    assert earliest() is None
    assert earliest(None, None) is None

"""The engine under the detectors: thresholds, order, bounds."""

from itertools import permutations

from hookprobe.detection.config import Rule
from hookprobe.detection.evidence import EvidenceTable, Sighting
from hookprobe.wire.instant import Instant

RULE = Rule(bucket_us=10, threshold=3, keys_max=4, items_max=5)


def total(table: EvidenceTable, evidence: list[tuple[str, int]]) -> int:
    return sum(
        sighting.weight
        for item, at in evidence
        for sighting in table.observe("key", item, Instant(at))
    )


def test_the_threshold_counts_distinct_items() -> None:
    table = EvidenceTable(RULE)
    assert table.observe("key", "a", Instant(1)) == []
    assert table.observe("key", "a", Instant(2)) == []
    assert table.observe("key", "b", Instant(3)) == []
    assert table.observe("key", "c", Instant(9)) == [Sighting(Instant(1), Instant(9), 4)]
    assert table.observe("key", "a", Instant(5)) == [Sighting(Instant(5), Instant(5), 1)]


def test_a_window_may_span_two_buckets_but_not_three() -> None:
    assert total(EvidenceTable(RULE), [("a", 9), ("b", 10), ("c", 19)]) == 3
    assert total(EvidenceTable(RULE), [("a", 9), ("b", 19), ("c", 20)]) == 0


def test_keys_are_apart() -> None:
    table = EvidenceTable(RULE)
    for key in ("x", "y", "z"):
        assert table.observe(key, key, Instant(1)) == []


def test_order_does_not_matter() -> None:
    evidence = [("a", 9), ("b", 10), ("c", 19), ("d", 25), ("e", 1), ("a", 31)]
    totals = {total(EvidenceTable(RULE), list(order)) for order in permutations(evidence)}
    assert len(totals) == 1


def test_memory_is_bounded() -> None:
    table = EvidenceTable(RULE, buckets_max=2)
    for number in range(100):
        table.observe(f"key {number}", "a", Instant(1))
    assert len(table) == RULE.keys_max
    for number in range(100):
        table.observe("key", str(number), Instant(1))
        table.observe("key", "late", Instant(number * 10))
    buckets = table._keys["key"]
    assert len(buckets) == 2
    assert all(len(bucket.items) <= RULE.items_max for bucket in buckets.values())


def test_the_least_recently_seen_key_is_forgotten_first() -> None:
    table = EvidenceTable(RULE)
    for key in ("old", "b", "c", "d"):
        table.observe(key, "1", Instant(1))
    table.observe("old", "2", Instant(2))
    table.observe("e", "1", Instant(3))
    assert table.observe("old", "3", Instant(4)) != []


def test_a_finding_may_have_to_last() -> None:
    table = EvidenceTable(RULE, span_us=8)
    assert total(table, [("a", 1), ("b", 2), ("c", 3)]) == 0
    assert total(table, [("a", 9)]) == 4


def test_is_hot_tells_only_the_bucket() -> None:
    table = EvidenceTable(RULE)
    total(table, [("a", 1), ("b", 2), ("c", 3)])
    assert table.is_hot("key", Instant(5))
    assert not table.is_hot("key", Instant(15))
    assert not table.is_hot("other", Instant(5))

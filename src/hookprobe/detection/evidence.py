"""Counting distinct things per key and bucket of event time; the engine under most detectors.

A bucket is *hot* when it and one neighbour together hold `threshold` distinct items. Which buckets
end up hot depends on the evidence alone, not on its order: late, early and shuffled records lead to
the same findings. Memory is bounded by `keys_max` and `items_max`.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from hookprobe.detection.config import Rule
from hookprobe.wire.instant import Instant


@dataclass(frozen=True, slots=True)
class Sighting:
    """Evidence of a finding: `weight` observations from `first` to `last`, all in one bucket."""

    first: Instant
    last: Instant
    weight: int


@dataclass(slots=True)
class _Bucket:
    first: Instant
    last: Instant
    weight: int = 0
    hot: bool = False
    items: set[Hashable] = field(default_factory=set)

    def sighting(self) -> Sighting:
        return Sighting(self.first, self.last, self.weight)


class EvidenceTable:
    """Distinct items by key and bucket.

    Args:
        rule: Bucket length, threshold and bounds.
        buckets_max: Buckets remembered per key; the oldest is forgotten first.
        span_us: A pair of buckets is hot only if its evidence spans at least so long.
    """

    def __init__(self, rule: Rule, *, buckets_max: int = 16, span_us: int = 0) -> None:
        self._rule = rule
        self._buckets_max = buckets_max
        self._span_us = span_us
        self._keys: OrderedDict[Hashable, dict[int, _Bucket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def is_hot(self, key: Hashable, at: Instant) -> bool:
        """Whether the bucket of `at` is part of a finding already."""
        bucket = self._keys.get(key, {}).get(at // self._rule.bucket_us)
        return bucket is not None and bucket.hot

    def observe(self, key: Hashable, item: Hashable, at: Instant) -> list[Sighting]:
        """Count one observation; return what it adds to findings.

        The first sighting of a bucket carries all that the bucket held, each later one itself.
        """
        number = at // self._rule.bucket_us
        buckets = self._touch(key)
        bucket = buckets.get(number)
        if bucket is None:
            bucket = buckets[number] = _Bucket(at, at)
            if len(buckets) > self._buckets_max:
                oldest = min(buckets)
                del buckets[oldest]
                if oldest == number:
                    return []
        bucket.weight += 1
        bucket.first, bucket.last = min(bucket.first, at), max(bucket.last, at)
        found = [Sighting(at, at, 1)] if bucket.hot else []
        if len(bucket.items) < self._rule.items_max:
            bucket.items.add(item)
        return found + self._heat(buckets, number)

    def _touch(self, key: Hashable) -> dict[int, _Bucket]:
        buckets = self._keys.get(key)
        if buckets is None:
            buckets = self._keys[key] = {}
            if len(self._keys) > self._rule.keys_max:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(key)
        return buckets

    def _heat(self, buckets: dict[int, _Bucket], number: int) -> list[Sighting]:
        bucket, found = buckets[number], []
        for near in (number - 1, number + 1):
            other = buckets.get(near)
            if bucket.hot and (other is None or other.hot):
                continue
            pair = [bucket] if other is None else [bucket, other]
            if self._crosses(pair):
                for each in pair:
                    if not each.hot:
                        each.hot = True
                        found.append(each.sighting())
        return found

    def _crosses(self, pair: list[_Bucket]) -> bool:
        if sum(len(bucket.items) for bucket in pair) < self._rule.threshold:
            return False
        distinct: set[Hashable] = set()
        distinct.update(*(bucket.items for bucket in pair))
        span = max(bucket.last for bucket in pair) - min(bucket.first for bucket in pair)
        return len(distinct) >= self._rule.threshold and span >= self._span_us

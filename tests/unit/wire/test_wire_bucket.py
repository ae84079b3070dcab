"""Token buckets."""

from hookprobe.wire.bucket import Bucket
from hookprobe.wire.instant import SECOND, Instant

NOW = Instant(1_800_000_000 * SECOND)


def test_a_bucket_refills_with_time_and_never_above_its_size() -> None:
    bucket = Bucket(10, 20, NOW)
    assert bucket.take(20, NOW)
    assert not bucket.take(1, NOW)
    assert bucket.take(5, Instant(NOW + SECOND // 2))
    assert not bucket.take(1, Instant(NOW + SECOND // 2))
    assert not bucket.take(21, Instant(NOW + 99 * SECOND))
    assert bucket.take(20, Instant(NOW + 99 * SECOND))
    assert not bucket.take(1, NOW)


def test_what_was_spent_beyond_it_is_owed() -> None:
    bucket = Bucket(10, 10, NOW)
    assert bucket.has_any(NOW)
    bucket.spend(25)
    assert not bucket.has_any(Instant(NOW + SECOND))
    assert bucket.has_any(Instant(NOW + 2 * SECOND))

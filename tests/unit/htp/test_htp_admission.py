"""Cookies, rates, answers kept: each bounded, each with the clock in its hands."""

import pytest

from hookprobe.errors import MalformedError
from hookprobe.htp.admission import (
    CookieJar,
    RateLimiter,
    UsedCookies,
    pack_host,
    prefix_of,
)
from hookprobe.htp.effects import Address
from hookprobe.htp.keys import Entropy
from hookprobe.wire.instant import MINUTE, SECOND, Instant

NOW = Instant(1_800_000_000 * SECOND)


def prefix(host: str) -> bytes:
    return prefix_of(pack_host(Address(host, 1)))


def test_an_ipv4_address_is_its_own_prefix_and_an_ipv6_network_is_a_56() -> None:
    assert prefix("192.0.2.1") == prefix("::ffff:192.0.2.1") == bytes((192, 0, 2, 1))
    assert prefix("192.0.2.1") != prefix("192.0.2.2")
    assert prefix("2001:db8:1:200::1") == prefix("2001:db8:1:2ff::9")
    assert prefix("2001:db8:1:200::1") != prefix("2001:db8:1:300::1")
    assert prefix("fe80::1%eth0") == prefix("fe80::2")


@pytest.mark.parametrize(
    "address", [Address("", 1), Address("host.example", 1), Address("10.0.0.1", 65_536),
                Address("10.0.0.1", -1), Address("10.0.0.256", 1)],
)  # fmt: skip
def test_what_is_not_an_address_is_malformed(address: Address) -> None:
    with pytest.raises(MalformedError):
        pack_host(address)


def test_a_bucket_empties_and_refills() -> None:
    limiter = RateLimiter(rate_per_s=20, burst=5, prefix_max=10)
    assert [limiter.allow(b"p", NOW) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limiter.allow(b"q", NOW)
    later = Instant(NOW + SECOND // 20)
    assert [limiter.allow(b"p", later) for _ in range(2)] == [True, False]
    much_later = Instant(NOW + 10 * SECOND)
    assert [limiter.allow(b"p", much_later) for _ in range(7)] == [True] * 5 + [False] * 2


def test_a_clock_set_back_neither_fills_nor_drains_a_bucket() -> None:
    limiter = RateLimiter(rate_per_s=1, burst=1, prefix_max=10)
    assert limiter.allow(b"p", NOW)
    assert not limiter.allow(b"p", Instant(NOW - 100 * SECOND))


def test_buckets_are_bounded_and_the_least_recent_goes() -> None:
    limiter = RateLimiter(rate_per_s=1, burst=1, prefix_max=3)
    for name in (b"a", b"b", b"c"):
        limiter.allow(name, NOW)
    assert not limiter.allow(b"a", NOW)
    limiter.allow(b"d", NOW)
    assert len(limiter) == 3
    assert not limiter.allow(b"a", NOW)
    assert limiter.allow(b"b", NOW)


def test_answers_live_as_long_as_their_cookie() -> None:
    used = UsedCookies(100)
    used.add(b"one", (b"answer",), Instant(NOW + MINUTE), NOW)
    assert used.find(b"one") == (b"answer",)
    used.add(b"two", (b"other",), Instant(NOW + 3 * MINUTE), Instant(NOW + 2 * MINUTE))
    assert used.find(b"one") is None
    assert used.find(b"two") == (b"other",)


def test_a_cookie_of_the_previous_generation_holds_and_older_ones_do_not() -> None:
    jar = CookieJar(b"k" * 32, MINUTE)
    cookie, generation = jar.make(b"source", 2, b"hash", NOW)
    covered = (b"source", 2, b"hash")
    until = Instant((NOW // MINUTE + 2) * MINUTE)
    assert jar.expiry(cookie, generation, covered, Instant(until - 1)) == until
    assert jar.expiry(cookie, generation, covered, until) is None
    assert CookieJar(b"K" * 32, MINUTE).expiry(cookie, generation, covered, NOW) is None


def test_a_generation_number_that_wraps_does_not_revive_a_cookie() -> None:
    jar = CookieJar(b"k" * 32, MINUTE)
    cookie, generation = jar.make(b"source", 2, b"hash", NOW)
    wrapped = Instant(NOW + 65_536 * MINUTE)
    assert jar.expiry(cookie, generation, (b"source", 2, b"hash"), wrapped) is None


def test_hedged_randomness_differs_under_a_constant_source_and_repeats_under_a_seed() -> None:
    entropy = Entropy(bytes)
    drawn = {entropy.draw(32, NOW) for _ in range(100)}
    assert len(drawn) == 100
    one, other = Entropy(bytes), Entropy(bytes)
    assert one.draw(8, NOW) == other.draw(8, NOW)
    assert one.draw(8, NOW) != other.draw(8, Instant(NOW + 1))
    values = [entropy.jitter(3, NOW) for _ in range(200)]
    assert set(values) == {0, 1, 2, 3}

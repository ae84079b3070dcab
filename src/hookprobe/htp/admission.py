"""What stands between the open network and the expensive part of a handshake (HTP spec 3.2).

* `CookieJar`: proof that a dialler receives at its address, with no state per dialler.
* `RateLimiter`: token buckets per address prefix (/32 or /56).
* `UsedCookies`: a repeated ATTEST gets the same answer again instead of a second session.
* `AttestParts`: the first half of a fragmented ATTEST, kept only behind a valid cookie.

Every table has a bound, and the oldest entry makes room: a flood costs its sender's rivals at most
a retry, never memory. They are `OrderedDict`s, whose oldest entry is found in constant time; a
plain dict looks for it behind everything that was deleted before.
"""

import hmac
import re
from collections import OrderedDict
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address, ip_address

from hookprobe.errors import MalformedError
from hookprobe.htp.effects import Address
from hookprobe.htp.messages import COOKIE_BYTES
from hookprobe.wire.instant import SECOND, Instant

_MAPPED = bytes(10) + b"\xff\xff"
_PREFIX6_BYTES = 7
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_QUAD = re.compile(r"\.".join([_OCTET] * 4))
PACKED_MAX = 1024  # parsing an address costs as much as checking a cookie


def pack_host(address: Address) -> bytes:
    """Return the 16 bytes of a host; IPv4 as ::ffff:a.b.c.d.

    Raises:
        MalformedError: Not an address in text form, or an impossible port.
    """
    if not 0 <= address.port <= 0xFFFF:
        raise MalformedError("source port out of range")
    return _pack(address.host)


@lru_cache(maxsize=PACKED_MAX)
def _pack(text: str) -> bytes:
    # The usual form of the usual family; every other one is for the library to judge.
    if (quad := _QUAD.fullmatch(text)) is not None:
        return _MAPPED + bytes(map(int, quad.groups()))
    try:
        host: IPv4Address | IPv6Address = ip_address(text)
    except ValueError as error:
        raise MalformedError("source address is not an IP address") from error
    return host.packed if host.version == 6 else _MAPPED + host.packed


def prefix_of(host: bytes) -> bytes:
    """Return what one party is taken to own: an IPv4 address or an IPv6 /56."""
    return host[len(_MAPPED) :] if host.startswith(_MAPPED) else host[:_PREFIX6_BYTES]


class CookieJar:
    """Makes and checks stateless cookies.

        K_gen  = BLAKE2s-256(key = root, generation)
        cookie = BLAKE2s-128(key = K_gen, ip16 || port2 || gen || suite || SHA256(HELLO))

    Args:
        root: 32 secret bytes, shared by the workers of one port.
        period_us: Life of a generation; cookies of the one before are still good.
    """

    __slots__ = ("_generation", "_key", "_period_us", "_root")

    def __init__(self, root: bytes, period_us: int) -> None:
        self._root = root
        self._period_us = period_us
        self._generation, self._key = -1, b""

    def make(self, source: bytes, suite: int, hello_hash: bytes, now: Instant) -> tuple[bytes, int]:
        """Return (cookie, generation) for `source`, the packed host and port."""
        full = now // self._period_us
        return self._cookie(full, source, suite, hello_hash), full & 0xFFFF

    def expiry(
        self, cookie: bytes, generation: int, covered: tuple[bytes, int, bytes], now: Instant
    ) -> Instant | None:
        """Return when a valid cookie dies, None for any other.

        Args:
            cookie: As received.
            generation: As received.
            covered: (packed source, suite, HELLO hash).
            now: The time.
        """
        current = now // self._period_us
        for full in (current, current - 1):
            if full & 0xFFFF == generation and full >= 0:
                if hmac.compare_digest(cookie, self._cookie(full, *covered)):
                    return Instant((full + 2) * self._period_us)
                return None
        return None

    def _cookie(self, full: int, source: bytes, suite: int, hello_hash: bytes) -> bytes:
        if full != self._generation:
            self._generation = full
            self._key = blake2s(full.to_bytes(8), key=self._root).digest()
        covered = source + (full & 0xFFFF).to_bytes(2) + suite.to_bytes(2) + hello_hash
        return blake2s(covered, key=self._key, digest_size=COOKIE_BYTES).digest()


class RateLimiter:
    """Token buckets, one a prefix.

    Args:
        rate_per_s: Tokens a second.
        burst: Tokens a bucket holds.
        prefix_max: Buckets remembered.
    """

    __slots__ = ("_buckets", "_full", "_prefix_max", "_rate")

    def __init__(self, rate_per_s: int, burst: int, prefix_max: int) -> None:
        # One token is a second's worth of microseconds, so refilling is a whole-number product.
        self._rate = rate_per_s
        self._full = burst * SECOND
        self._prefix_max = prefix_max
        self._buckets: OrderedDict[bytes, tuple[int, Instant]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, prefix: bytes, now: Instant) -> bool:
        """Take one token; False if there is none."""
        level, since = self._buckets.pop(prefix, (self._full, now))
        level = min(self._full, level + max(0, now - since) * self._rate)
        allowed = level >= SECOND
        if len(self._buckets) >= self._prefix_max:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[prefix] = (level - SECOND if allowed else level, now)
        return allowed


class UsedCookies:
    """Answers already given, by cookie, until the cookie expires."""

    __slots__ = ("_answers", "_entry_max")

    def __init__(self, entry_max: int) -> None:
        self._entry_max = entry_max
        self._answers: OrderedDict[bytes, tuple[Instant, tuple[bytes, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, cookie: bytes) -> tuple[bytes, ...] | None:
        """Return the datagrams that answered this cookie."""
        entry = self._answers.get(cookie)
        return None if entry is None else entry[1]

    def add(
        self, cookie: bytes, datagrams: tuple[bytes, ...], expires: Instant, now: Instant
    ) -> None:
        """Remember an answer; expired ones and, when full, the oldest are forgotten."""
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest][0] > now and len(self._answers) < self._entry_max:
                break
            del self._answers[oldest]
        self._answers[cookie] = (expires, datagrams)


class AttestParts:
    """Halves of fragmented ATTESTs, at most one of each per cookie."""

    __slots__ = ("_entry_max", "_life_us", "_parts")

    def __init__(self, entry_max: int, life_us: int) -> None:
        self._entry_max = entry_max
        self._life_us = life_us
        self._parts: OrderedDict[bytes, tuple[Instant, int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, cookie: bytes, index: int, data: bytes, now: Instant) -> list[bytes] | None:
        """Return both halves in order once they are there; the entry is then gone."""
        self._expire(now)
        known = self._parts.get(cookie)
        if known is None:
            if len(self._parts) >= self._entry_max:
                del self._parts[next(iter(self._parts))]
            self._parts[cookie] = (Instant(now + self._life_us), index, data)
            return None
        _, other, kept = known
        if other == index:
            return None
        del self._parts[cookie]
        return [data, kept] if index == 0 else [kept, data]

    def _expire(self, now: Instant) -> None:
        while self._parts:
            oldest = next(iter(self._parts))
            if self._parts[oldest][0] > now:
                return
            del self._parts[oldest]

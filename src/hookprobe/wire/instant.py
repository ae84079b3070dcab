"""Points in time and spans of time as integer microseconds.

`Instant` counts microseconds since 1970-01-01T00:00:00Z, `Duration` counts microseconds. Both are
distinct types for mypy and plain integers at run time: arithmetic stays exact, nothing agreed or
signed ever meets a float. Only `runtime/clock.py` makes a current `Instant`.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

from hookprobe.errors import MalformedError

Instant = NewType("Instant", int)
Duration = NewType("Duration", int)

MICROSECOND = Duration(1)
MILLISECOND = Duration(1_000)
SECOND = Duration(1_000_000)
MINUTE = Duration(60 * SECOND)
HOUR = Duration(60 * MINUTE)
DAY = Duration(24 * HOUR)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = Instant(253_402_300_799_999_999)  # 9999-12-31T23:59:59.999999Z, the end of ISO 8601 dates

# RFC 3339 with the freedoms that Suricata takes: "+0200" without a colon, 1 to 9 fraction digits.
_STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)", re.ASCII
)


def later(instant: Instant, duration: int) -> Instant:
    """Return the instant `duration` microseconds after `instant`."""
    return Instant(instant + duration)


def between(start: Instant, end: Instant) -> Duration:
    """Return the microseconds from `start` to `end`; negative when `end` is earlier."""
    return Duration(end - start)


def earliest(*times: Instant | None) -> Instant | None:
    """Return the first of some instants; None stands for never.

    A loop and no `min` over a generator: every machine asks after every message.
    """
    first: Instant | None = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


def parse_iso(text: str) -> Instant:
    """Read an RFC 3339 time stamp with an explicit offset.

    Raises:
        MalformedError: No offset, not a calendar date, or before 1970.
    """
    match = _STAMP.fullmatch(text)
    if match is None:
        raise MalformedError(f"not an RFC 3339 time stamp: {text[:40]!r}")
    year, month, day, hour, minute, second = (int(field) for field in match.groups()[:6])
    micros = int((match[7] or "0").ljust(6, "0")[:6])
    try:
        local = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    except ValueError as error:
        raise MalformedError(f"not a calendar date: {text[:40]!r}") from error
    instant = (local - _EPOCH) // timedelta(microseconds=1) - _offset(match[8])
    if not 0 <= instant <= _LATEST:
        raise MalformedError(f"time stamp out of range: {text[:40]!r}")
    return Instant(instant)


def _offset(text: str) -> int:
    if text == "Z":
        return 0
    digits = text[1:].replace(":", "")
    span = int(digits[:2]) * HOUR + int(digits[2:]) * MINUTE
    return -span if text[0] == "-" else span


def format_iso(instant: Instant) -> str:
    """Write an instant as RFC 3339 in UTC with six fraction digits and `Z`."""
    stamp = _EPOCH + timedelta(microseconds=instant)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond:06d}Z"

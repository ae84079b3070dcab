"""Sensor time stamps, quickly: a busy sensor writes the same minute thousands of times."""

from functools import lru_cache

from hookprobe.errors import MalformedError
from hookprobe.wire.instant import SECOND, Instant, parse_iso

_SURICATA_LENGTH = len("2026-11-20T21:19:17.827739+0000")
_LATEST_US = 253_402_300_799_999_999  # the end of year 9999


@lru_cache(maxsize=4096)
def _minute(date_and_minute: str, offset: str) -> int:
    return parse_iso(f"{date_and_minute}:00{offset}")


def parse_stamp(text: str) -> Instant:
    """Read an RFC 3339 stamp as Suricata writes it; other RFC 3339 forms take the slow road.

    Raises:
        MalformedError: Not a time stamp with an offset.
    """
    seconds, micros = text[17:19], text[20:26]
    if (
        len(text) == _SURICATA_LENGTH
        and text[16] == ":"
        and text[19] == "."
        and text.isascii()
        and seconds.isdigit()
        and micros.isdigit()
        and seconds < "60"
    ):
        return Instant(_minute(text[:16], text[26:]) + int(seconds) * SECOND + int(micros))
    return parse_iso(text)


def parse_epoch_seconds(text: str) -> Instant:
    """Read seconds since 1970 written as a decimal number, without passing through a float.

    Raises:
        MalformedError: Not a number, masked (`XXXXXXXXXX.XXXXXX`), negative or past year 9999.
    """
    whole, _, fraction = text.partition(".")
    fraction = (fraction or "0")[:9]
    if whole.startswith("XXXX"):
        raise MalformedError(
            "zeek log: the time stamps are masked",
            hint="this is a canonicalised baseline; use the log as the sensor wrote it",
        )
    if not (whole.isascii() and whole.isdigit() and fraction.isascii() and fraction.isdigit()):
        raise MalformedError(f"zeek log: not a time stamp: {text[:40]!r}")
    if len(whole) > 12:
        raise MalformedError("zeek log: time stamp out of range")
    instant = int(whole) * SECOND + int(fraction.ljust(6, "0")[:6])
    if instant > _LATEST_US:
        raise MalformedError("zeek log: time stamp out of range")
    return Instant(instant)

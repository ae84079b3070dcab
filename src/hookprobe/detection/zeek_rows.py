"""Zeek's rows, whichever way they were written, and how to take typed values out of them.

TSV logs say in their header what the columns are; JSON logs say it in each line. Both become a
mapping from column name to plain value, without the columns that are unset.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

from hookprobe.detection.address import Address, parse_address
from hookprobe.detection.stamp import parse_epoch_seconds
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.instant import SECOND, Instant, parse_iso

LINE_MAX_BYTES = 1 << 20
COLUMNS_MAX = 256
_TEXT_MAX = 4096
_NUMBER_MAX = 2**63
_YEAR_10000_S = 253_402_300_800

Row: TypeAlias = Mapping[str, object]


class TsvReader:
    """A Zeek TSV log, line by line: the header says what the columns are.

    Args:
        log: The log's name, until `#path` names it.
    """

    def __init__(self, log: str = "") -> None:
        self.log = log
        self._separator = "\t"
        self._set_separator = ","
        self._empty = "(empty)"
        self._unset = "-"
        self._fields: list[str] = []
        self._types: list[str] = []

    def receive_line(self, line: bytes) -> Row | None:
        """Take one line; None for header, footer and empty lines.

        Raises:
            LimitExceededError: Longer than `LINE_MAX_BYTES`, or too many columns.
            MalformedError: Not UTF-8, data before the header, or fields that do not fit it.
        """
        if len(line) > LINE_MAX_BYTES:
            raise LimitExceededError(f"zeek line: {len(line)} bytes, limit {LINE_MAX_BYTES}")
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise MalformedError(f"zeek line: not UTF-8 at byte {error.start}") from error
        if text.startswith("#"):
            self._header(text)
            return None
        if not text.strip():
            return None
        return self._row(text)

    def _header(self, text: str) -> None:
        if text.startswith("#separator "):
            self._separator = _unescape(text.removeprefix("#separator ")) or "\t"
            return
        name, _, rest = text.partition(self._separator)
        if name == "#path":
            self.log = rest
        elif name == "#set_separator":
            self._set_separator = rest or ","
        elif name == "#empty_field":
            self._empty = rest
        elif name == "#unset_field":
            self._unset = rest
        elif name in {"#fields", "#types"}:
            columns = rest.split(self._separator)
            if len(columns) > COLUMNS_MAX:
                raise LimitExceededError(f"zeek header: {len(columns)} columns, max {COLUMNS_MAX}")
            if name == "#fields":
                self._fields, self._types = columns, []
            else:
                self._types = columns

    def _row(self, text: str) -> Row:
        if not self._fields or len(self._fields) != len(self._types):
            raise MalformedError("zeek line: data before a #fields and #types header")
        values = text.split(self._separator)
        if len(values) != len(self._fields):
            raise MalformedError(
                f"zeek line: {len(values)} fields, the header names {len(self._fields)}"
            )
        columns = zip(self._fields, self._types, values, strict=True)
        return {
            name: self._value(kind, value) for name, kind, value in columns if value != self._unset
        }

    def _value(self, kind: str, value: str) -> object:
        if kind.startswith(("vector[", "set[")):
            if value == self._empty:
                return []
            return [_unescape(each) for each in value.split(self._set_separator)]
        if value == self._empty:
            return ""
        if kind in {"count", "int", "port"}:
            return _integer(value)
        if kind == "bool":
            return value == "T"
        return _unescape(value)


_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")


def _unescape(text: str) -> str:
    if "\\x" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise MalformedError("zeek line: not a whole number")
    return int(text)


def text_of(row: Row, name: str) -> str:
    """Return a text column, empty where it is unset."""
    value = row.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError(f"zeek line: field {name!r} is not text")
    return value[:_TEXT_MAX]


def number_of(row: Row, name: str) -> int:
    """Return a count, 0 where it is unset."""
    value = row.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _NUMBER_MAX:
        raise MalformedError(f"zeek line: field {name!r} is not a count")
    return value


def texts_of(row: Row, name: str) -> list[str]:
    """Return a set or vector of texts, empty where it is unset."""
    value = row.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise MalformedError(f"zeek line: field {name!r} is not a list of texts")
    return value


def micros_of(value: object, name: str) -> int:
    """Return a time or interval in microseconds, as exactly as it was written."""
    if isinstance(value, str):
        if "T" in value:
            return parse_iso(value)
        return parse_epoch_seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"zeek line: field {name!r} is not a time")
    if not 0 <= value < _YEAR_10000_S:
        raise MalformedError(f"zeek line: field {name!r} is out of range")
    return round(value * SECOND)


def instant_of(row: Row) -> Instant:
    """Return when the row was made."""
    if "ts" not in row:
        raise MalformedError("zeek line: field 'ts' is missing")
    return Instant(micros_of(row["ts"], "ts"))


def address_of(row: Row, name: str) -> Address | None:
    """Return an address column, None where it is unset."""
    text = text_of(row, name)
    return parse_address(text) if text else None

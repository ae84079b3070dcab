"""The one canonical JSON that is hashed and signed: RFC 8785 without floats.

Profile (decision 10): values are strings, integers |x| < 2^53, true, false, null, arrays and
objects; keys are ASCII; no duplicate keys; depth and size are bounded. For this profile RFC 8785
equals what msgspec writes with sorted keys; a property test compares it with an independent
implementation of the RFC.

Acceptance rule: bytes are accepted only if `encode(decode(data)) == data`. What was received is
what is stored, hashed and forwarded; nothing is ever re-serialised.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.identifiers import INTEGER_MAX

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None
JsonObject: TypeAlias = dict[str, Json]

DEPTH_MAX = 8
SIZE_MAX_BYTES = 1 << 20

_BRACKETS_HARMLESS = 256
_BRACKET_OR_TEXT = re.compile(rb'[\[\]{}]|"(?:[^"\\]|\\.)*+"', re.DOTALL)

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder()


def encode(value: Json) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        MalformedError: A float, an integer of 2^53 or more, a non-ASCII key, a lone surrogate,
            another type, or more than `DEPTH_MAX` levels.
    """
    _check(value, DEPTH_MAX, ascii_keys=False)
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError as error:
        raise MalformedError("canonical JSON: text holds a lone surrogate") from error


def _check(value: object, depth: int, *, ascii_keys: bool) -> None:
    # Scalars are checked in the loops over their container: one call a container, not a value.
    kind = type(value)
    if kind is dict:
        assert isinstance(value, dict)
        if not ascii_keys:
            for key in value:
                if type(key) is not str or not key.isascii():
                    raise MalformedError("canonical JSON: object key is not ASCII text")
        _check_items(value.values(), depth, ascii_keys=ascii_keys)
    elif kind is list:
        assert isinstance(value, list)
        _check_items(value, depth, ascii_keys=ascii_keys)
    else:
        _check_items((value,), depth + 1, ascii_keys=ascii_keys)


def _check_items(items: Iterable[object], depth: int, *, ascii_keys: bool) -> None:
    if depth == 0:
        raise LimitExceededError(f"canonical JSON: deeper than {DEPTH_MAX} levels")
    for item in items:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -INTEGER_MAX <= item <= INTEGER_MAX:  # type: ignore[operator]
                raise MalformedError("canonical JSON: integer of 2^53 or more")
        elif kind is dict or kind is list:
            _check(item, depth - 1, ascii_keys=ascii_keys)
        elif kind is float:
            raise MalformedError("canonical JSON: floats are not part of the profile")
        else:
            raise MalformedError(f"canonical JSON: no {kind.__name__} values")


def decode(data: bytes, *, limit: int = SIZE_MAX_BYTES) -> Json:
    """Return the value of canonical bytes.

    Whatever the parser is lax about (a key twice, another order, blanks, "-0", escapes) does not
    survive the comparison with the re-encoded value.

    Args:
        data: The received bytes.
        limit: The largest size accepted.

    Raises:
        LimitExceededError: Too large or too deep.
        MalformedError: Not UTF-8, not JSON, outside the profile, or not the canonical form.
    """
    if len(data) > limit:
        raise LimitExceededError(f"canonical JSON: {len(data)} bytes, limit {limit}")
    check_nesting(data)
    try:
        value: Json = _DECODER.decode(data)
    except UnicodeDecodeError as error:
        raise MalformedError(f"canonical JSON: not UTF-8 at byte {error.start}") from error
    except msgspec.DecodeError as error:
        raise MalformedError(f"canonical JSON: {error}") from error
    # Parsed from ASCII, every key is ASCII; parsed at all, no text holds a lone surrogate.
    _check(value, DEPTH_MAX, ascii_keys=data.isascii())
    if _ENCODER.encode(value) != data:
        raise MalformedError("canonical JSON: readable, but not in canonical form")
    return value


def check_nesting(data: bytes, depth_max: int = DEPTH_MAX) -> None:
    """Refuse JSON that is too deep, before any parser sees it.

    A JSON parser recurses in C once per level, and a process that has raised its recursion limit
    dies of a stack overflow on a hostile document. A document with few brackets cannot be that
    deep and skips the count.

    Raises:
        LimitExceededError: More than `depth_max` levels.
    """
    if data.count(b"[") + data.count(b"{") <= _BRACKETS_HARMLESS:
        return
    depth = 0
    for mark in _BRACKET_OR_TEXT.findall(data):
        if mark in b"[{":
            depth += 1
            if depth > depth_max:
                raise LimitExceededError(f"JSON: deeper than {depth_max} levels")
        elif mark in b"]}":
            depth -= 1


def decode_object(data: bytes, *, limit: int = SIZE_MAX_BYTES) -> JsonObject:
    """Like `decode`, for data that must be an object."""
    value = decode(data, limit=limit)
    if not isinstance(value, dict):
        raise MalformedError("canonical JSON: an object is wanted")
    return value

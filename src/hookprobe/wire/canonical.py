"""The one canonical JSON that is hashed and signed: RFC 8785 without floats.

Profile (decision 10): values are strings, integers |x| < 2^53, true, false, null, arrays and
objects; keys are ASCII; no duplicate keys; depth and size are bounded. For this profile RFC 8785
equals `json.dumps(sort_keys=True, separators=(",", ":"), ensure_ascii=False)`; a property test
compares it with an independent implementation.

Acceptance rule: bytes are accepted only if `encode(decode(data)) == data`. What was received is
what is stored, hashed and forwarded; nothing is ever re-serialised.
"""

import json
import re
from typing import NoReturn, TypeAlias

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.identifiers import INTEGER_MAX

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None
JsonObject: TypeAlias = dict[str, Json]

DEPTH_MAX = 8
SIZE_MAX_BYTES = 1 << 20

_BRACKETS_HARMLESS = 256
_BRACKET_OR_TEXT = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"', re.DOTALL)

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)


def encode(value: Json) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        MalformedError: A float, an integer of 2^53 or more, a non-ASCII key, a lone surrogate,
            another type, or more than `DEPTH_MAX` levels.
    """
    _check(value, DEPTH_MAX)
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError("canonical JSON: text holds a lone surrogate") from error


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:  # type: ignore[operator]
            raise MalformedError("canonical JSON: integer of 2^53 or more")
        return
    if depth == 0:
        raise LimitExceededError(f"canonical JSON: deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                raise MalformedError("canonical JSON: object key is not ASCII text")
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    else:
        raise MalformedError(f"canonical JSON: no {kind.__name__} values")


def decode(data: bytes, *, limit: int = SIZE_MAX_BYTES) -> Json:
    """Return the value of canonical bytes.

    Args:
        data: The received bytes.
        limit: The largest size accepted.

    Raises:
        LimitExceededError: Too large or too deep.
        MalformedError: Not UTF-8, not JSON, outside the profile, or not the canonical form.
    """
    if len(data) > limit:
        raise LimitExceededError(f"canonical JSON: {len(data)} bytes, limit {limit}")
    try:
        text = data.decode("utf-8")
        _check_nesting(text)
        value: Json = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise MalformedError(f"canonical JSON: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise MalformedError(f"canonical JSON: {error.msg} at byte {error.pos}") from error
    if encode(value) != data:
        raise MalformedError("canonical JSON: readable, but not in canonical form")
    return value


def _check_nesting(text: str) -> None:
    # The library's parser recurses in C once per level, and a process that has raised its recursion
    # limit dies of a stack overflow on a hostile document. So depth is counted before parsing; a
    # document with few brackets cannot be that deep and skips the count.
    if text.count("[") + text.count("{") <= _BRACKETS_HARMLESS:
        return
    depth = 0
    for mark in _BRACKET_OR_TEXT.findall(text):
        if mark in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise LimitExceededError(f"canonical JSON: deeper than {DEPTH_MAX} levels")
        elif mark in "]}":
            depth -= 1


def decode_object(data: bytes, *, limit: int = SIZE_MAX_BYTES) -> JsonObject:
    """Like `decode`, for data that must be an object."""
    value = decode(data, limit=limit)
    if not isinstance(value, dict):
        raise MalformedError("canonical JSON: an object is wanted")
    return value


def _refuse_float(_text: str) -> NoReturn:
    raise MalformedError("canonical JSON: floats are not part of the profile")


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedError(f"canonical JSON: {text} is not a value")


def _bounded_integer(text: str) -> int:
    # 16 digits and a sign hold every allowed value; longer text is refused before it costs time.
    if len(text) > 17:
        raise MalformedError("canonical JSON: integer of 2^53 or more")
    return int(text)


def _unique(pairs: list[tuple[str, Json]]) -> JsonObject:
    found: JsonObject = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("canonical JSON: an object names a key twice")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_refuse_float,
    parse_int=_bounded_integer,
    parse_constant=_refuse_constant,
)

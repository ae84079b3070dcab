import json
import sys
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from hookprobe.errors import LimitExceededError, MalformedError, RemoteError
from hookprobe.wire.canonical import DEPTH_MAX, Json, decode, decode_object, encode

JCS = Path(__file__).parents[2] / "data/jcs"

values: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
@settings(deadline=None, derandomize=True)
def test_equals_an_independent_rfc_8785_and_round_trips(value: Json) -> None:
    try:
        encoded = encode(value)
    except LimitExceededError:
        return
    assert encoded == rfc8785.dumps(value)
    assert decode(encoded) == value


@pytest.mark.parametrize("name", ["arrays", "french", "structures"])
def test_published_vectors_are_reproduced_or_refused_by_the_profile(name: str) -> None:
    source = json.loads((JCS / f"{name}.json").read_text(encoding="utf-8"))
    wanted = (JCS / f"{name}.out").read_bytes().rstrip(b"\n")
    if name == "arrays":
        assert encode(source) == wanted
    else:  # non-ASCII keys and a float lie outside the profile
        with pytest.raises(MalformedError):
            encode(source)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "canonical form"),
        (b'{"b":1,"a":2}', "canonical form"),
        (b'{"a": 1}', "canonical form"),
        (b'{"a":1}\n', "canonical form"),
        (b"[1.0]", "floats"),
        (b"[1e3]", "floats"),
        (b"[NaN]", "byte 1"),
        (b"[-Infinity]", "byte"),
        (b"[9007199254740992]", "2\\^53"),
        (b"[-9007199254740992]", "2\\^53"),
        (b"[" + b"9" * 5000 + b"]", "out of range"),
        (b"[-0]", "canonical form"),
        (b'["\\u0041"]', "canonical form"),
        (b'["\\ud800"]', "truncated|surrogate"),
        (b'{"\xc3\xa9":1}', "ASCII"),
        (b'"\xff"', "UTF-8"),
        (b"[1", "truncated"),
        (b"", "truncated"),
        (b"[1]]", "trailing"),
        (b"\xef\xbb\xbf[]", "byte"),
    ],
)
def test_everything_but_the_one_form_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        decode(data)


def test_depth_and_size_are_bounded() -> None:
    deep: Json = 1
    for _ in range(DEPTH_MAX):
        deep = [deep]
    assert decode(encode(deep)) == deep
    with pytest.raises(LimitExceededError):
        encode([deep])
    with pytest.raises(LimitExceededError):
        decode(b"[" * 9 + b"]" * 9)
    with pytest.raises(LimitExceededError):
        decode(b"[" * 500_000)
    with pytest.raises(LimitExceededError):
        decode(b"[]", limit=1)


def test_hostile_depth_is_refused_even_where_the_recursion_limit_is_high() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        for data in (b"[" * 500_000, b'{"a":' * 100_000, b'["[",' * 100_000):
            with pytest.raises(LimitExceededError):
                decode(data)
    finally:
        sys.setrecursionlimit(limit)


def test_brackets_in_text_and_many_flat_lists_are_not_depth() -> None:
    value: Json = ["[{" * 400, '\\"[[', [[] for _ in range(1000)]]
    assert decode(encode(value)) == value


def test_other_types_are_refused() -> None:
    for value in (1.0, b"x", (1,), {1: 2}):
        with pytest.raises(MalformedError):
            encode(value)  # type: ignore[arg-type]


def test_an_object_is_wanted() -> None:
    with pytest.raises(MalformedError, match="object"):
        decode_object(b"[]")


@given(st.binary(max_size=64))
@settings(deadline=None, derandomize=True)
def test_any_bytes_parse_or_are_refused_by_our_own_error(data: bytes) -> None:
    try:
        value = decode(data)
    except RemoteError:
        return
    assert encode(value) == data

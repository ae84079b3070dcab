"""Whatever arrives as a bundle: it is refused in an orderly way, and by both verifiers."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dsm_bundle.attacks import sample_bytes
from tests.unit.dsm_bundle.forge import schemes
from tools import verify_bundle

from hookprobe.dsm.bundle import BundleVerifier
from hookprobe.errors import RemoteError
from hookprobe.wire import canonical

verifier = BundleVerifier(schemes())
LINES = sample_bytes().splitlines(keepends=True)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abtv"), inner)
)


def refused(data: bytes) -> None:
    if data == sample_bytes():
        return
    with pytest.raises(RemoteError, match=r"^(line \d+|bundle)"):
        verifier.check(data)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    refused(data)
    with pytest.raises(verify_bundle.BundleError, match=r"^line \d+"):
        verify_bundle.verify(data)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(0, len(LINES)), st.binary(max_size=60))
def test_any_bytes_behind_sound_lines(count: int, data: bytes) -> None:
    refused(b"".join(LINES[:count]) + data)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(0, len(LINES) - 1), values)
def test_any_value_as_a_line(place: int, value: Any) -> None:
    try:
        line = canonical.encode(value) + b"\n"
    except RemoteError:
        line = json.dumps(value).encode() + b"\n"
    refused(b"".join([*LINES[:place], line, *LINES[place + 1 :]]))


def fields(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [
        found
        for key, item in items
        for found in [
            (*path, key),
            *(fields(item, (*path, key)) if isinstance(item, dict | list) else []),
        ]
    ]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_any_value_in_any_field(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(LINES) - 1))
    document = json.loads(LINES[place])
    *path, last = data.draw(st.sampled_from(fields(document)))
    target = document
    for key in path:
        target = target[key]
    target[last] = data.draw(values)
    refused(b"".join([*LINES[:place], json.dumps(document).encode() + b"\n", *LINES[place + 1 :]]))
    try:
        line = canonical.encode(document) + b"\n"
    except RemoteError:
        return
    refused(b"".join([*LINES[:place], line, *LINES[place + 1 :]]))

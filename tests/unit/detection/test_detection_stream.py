"""Cutting a growing file into lines."""

import pytest

from hookprobe.detection.stream import Line, LineSkipped, LineStream


def test_a_half_written_line_waits_for_its_end() -> None:
    stream = LineStream()
    assert stream.receive_bytes(b'{"a":1}\n{"b"') == [Line(0, b'{"a":1}')]
    assert stream.position == 8
    assert stream.receive_bytes(b":2}") == []
    assert stream.receive_bytes(b"\n") == [Line(8, b'{"b":2}')]
    assert stream.position == 16


@pytest.mark.parametrize("size", range(1, 12))
def test_lines_do_not_depend_on_how_the_bytes_come(size: int) -> None:
    data = b"one\ntwo\r\n\n\nthree\nlonger-than-ten\nfour\n"
    stream = LineStream(100, line_max_bytes=10)
    found: list[Line | LineSkipped] = []
    for start in range(0, len(data), size):
        found += stream.receive_bytes(data[start : start + size])
    assert found == [
        Line(100, b"one"),
        Line(104, b"two"),
        Line(111, b"three"),
        LineSkipped(117, "too-long"),
        Line(133, b"four"),
    ]
    assert stream.position == 100 + len(data)


def test_an_endless_line_costs_no_memory() -> None:
    stream = LineStream(line_max_bytes=100)
    assert stream.receive_bytes(b"x" * 101) == [LineSkipped(0, "too-long")]
    for _ in range(50):
        assert stream.receive_bytes(b"x" * 1000) == []
    assert len(stream._partial) == 0
    assert stream.receive_bytes(b"\nok\n") == [Line(50_102, b"ok")]


def test_the_limit_itself_is_accepted() -> None:
    assert LineStream(line_max_bytes=5).receive_bytes(b"12345\n") == [Line(0, b"12345")]


def test_rotation_starts_at_zero_and_names_what_was_lost() -> None:
    stream = LineStream()
    stream.receive_bytes(b"full\nhalf")
    assert stream.receive_rotation() == [LineSkipped(5, "cut-off")]
    assert stream.position == 0
    assert stream.receive_bytes(b"new\n") == [Line(0, b"new")]
    assert stream.receive_rotation() == []


def test_rotation_in_a_line_that_is_too_long() -> None:
    stream = LineStream(line_max_bytes=3)
    stream.receive_bytes(b"12345")
    assert stream.receive_rotation() == []
    assert stream.receive_bytes(b"ok\n") == [Line(0, b"ok")]


def test_counts() -> None:
    stream = LineStream(line_max_bytes=3)
    stream.receive_bytes(b"a\n\n12345\nb\nc")
    stream.receive_rotation()
    counts = stream.counts()
    assert counts.lines == 2
    assert counts.skipped == {"too-long": 1, "cut-off": 1}
    assert counts.last_skipped == 11
    assert counts.rotations == 1

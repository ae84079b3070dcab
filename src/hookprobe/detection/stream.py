"""Bytes of a growing file in, complete lines with their positions out.

A sensor may be caught in the middle of a line: what has no line end yet is kept until the rest
comes. A line longer than the limit is skipped to its end and named once. When the shell sees that
the file was replaced or cut, it says so and counting starts again at zero.
"""

from collections import Counter
from dataclasses import dataclass

LINE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """A complete line without its end; `position` is the offset of its first byte."""

    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LineSkipped:
    """A line that cannot be used: `too-long` or `cut-off` (the file ended within it)."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """What a stream has delivered.

    Args:
        lines: Complete lines.
        skipped: Lines skipped, by reason.
        last_skipped: Position of the latest of them; None if there was none.
        rotations: How often the file was replaced or cut.
    """

    lines: int
    skipped: dict[str, int]
    last_skipped: int | None
    rotations: int


class LineStream:
    """Cuts one file into lines.

    Args:
        position: Offset of the first byte that will be received.
        line_max_bytes: The longest line accepted, without its end.
    """

    def __init__(self, position: int = 0, *, line_max_bytes: int = LINE_MAX_BYTES) -> None:
        self._start = position
        self._limit = line_max_bytes
        self._partial = bytearray()
        self._dropping = False
        self._dropped = 0
        self._lines = 0
        self._skipped: Counter[str] = Counter()
        self._last_skipped: int | None = None
        self._rotations = 0

    @property
    def position(self) -> int:
        """Offset of the first byte that is not part of a delivered line."""
        return self._start

    def receive_bytes(self, data: bytes) -> list[Line | LineSkipped]:
        """Take the next bytes of the file; return the lines they complete, in order."""
        found: list[Line | LineSkipped] = []
        *complete, rest = data.split(b"\n")
        for piece in complete:
            found += self._grow(piece)
            found += self._finish()
        return found + self._grow(rest)

    def receive_rotation(self) -> list[Line | LineSkipped]:
        """The file was replaced or cut: what was half written will never be completed."""
        found: list[Line | LineSkipped] = []
        if self._partial:
            found.append(self._skip("cut-off"))
        self._partial.clear()
        self._dropping = False
        self._start = 0
        self._rotations += 1
        return found

    def counts(self) -> StreamCounts:
        return StreamCounts(self._lines, dict(self._skipped), self._last_skipped, self._rotations)

    def _grow(self, piece: bytes) -> list[Line | LineSkipped]:
        if self._dropping:
            self._dropped += len(piece)
            return []
        self._partial += piece
        if len(self._partial) <= self._limit:
            return []
        self._dropping = True
        self._dropped = len(self._partial)
        self._partial.clear()
        return [self._skip("too-long")]

    def _finish(self) -> list[Line | LineSkipped]:
        start = self._start
        if self._dropping:
            self._start += self._dropped + 1
            self._dropping = False
            return []
        self._start += len(self._partial) + 1
        data = bytes(self._partial).removesuffix(b"\r")
        self._partial.clear()
        if not data:
            return []
        self._lines += 1
        return [Line(start, data)]

    def _skip(self, reason: str) -> LineSkipped:
        self._skipped[reason] += 1
        self._last_skipped = self._start
        return LineSkipped(self._start, reason)

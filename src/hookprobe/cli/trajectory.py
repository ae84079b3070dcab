"""Draws how two histories part after one tampered record, as SVG."""

import array
import math
import sys
from collections.abc import Sequence

from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import Ter, following
from hookprobe.wire.instant import MINUTE, Instant

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 60
_ULP = 1 << 16  # a master has 16 guard bits below the visible Q16.16


def distances(seed: bytes, engine: EngineFactory, count: int, tampered: int) -> list[float]:
    """Return the rms weight distance, in Q16.16 ulp, after each of `count` records.

    Both histories have the same seed, sensors and times; one bit of the measurement of record
    `tampered` differs.
    """
    honest, other = NeuroState(seed, engine), NeuroState(seed, engine)
    found = []
    for index in range(count):
        honest.apply(_record(honest.previous, index, 0))
        other.apply(_record(other.previous, index, 1 if index == tampered else 0))
        found.append(_rms(_integers(honest.masters()), _integers(other.masters())))
    return found


def _record(previous: Ter | None, index: int, flipped: int) -> Ter:
    h_integrity = bytes(19) + bytes([flipped])
    at = Instant(index * MINUTE + 1)
    return following(previous, index.to_bytes(32, "big"), h_integrity, at)


def _integers(masters: bytes) -> "array.array[int]":
    values = array.array("q", masters)
    if sys.byteorder == "little":
        values.byteswap()
    return values


def _rms(ours: Sequence[int], theirs: Sequence[int]) -> float:
    total = sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
    return math.sqrt(total / len(ours)) / _ULP


def draw(found: Sequence[float], tampered: int) -> str:
    """Return the SVG of distances over records, with a logarithmic height."""
    top = max(*found, 1.0)
    x_of = (_WIDTH - 2 * _MARGIN) / max(1, len(found) - 1)
    y_of = (_HEIGHT - 2 * _MARGIN) / math.log10(top + 1)
    points = " ".join(
        f"{_MARGIN + index * x_of:.1f},{_HEIGHT - _MARGIN - math.log10(value + 1) * y_of:.1f}"
        for index, value in enumerate(found)
    )
    mark = _MARGIN + tampered * x_of
    floor = _HEIGHT - _MARGIN
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="13"'
    title = f"Weight distance of two histories that differ in one bit of record {tampered}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_MARGIN}" y="28">{title}</text>',
        f'<path d="M{_MARGIN} {_MARGIN}V{floor}H{_WIDTH - _MARGIN}" stroke="black" fill="none"/>',
        f'<path d="M{mark:.1f} {_MARGIN}V{floor}" stroke="#b00" stroke-dasharray="4"/>',
        f'<text x="{mark + 5:.1f}" y="{_MARGIN + 12}" fill="#b00">tampered</text>',
        f'<polyline points="{points}" stroke="#06c" stroke-width="2" fill="none"/>',
        f'<text x="{_MARGIN}" y="{floor + 20}">record 0</text>',
        f'<text x="{_WIDTH - _MARGIN}" y="{floor + 20}" text-anchor="end">{len(found) - 1}</text>',
        f'<text x="8" y="{_MARGIN}">{top:.1f} ulp</text>',
        f'<text x="8" y="{floor}">0</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"

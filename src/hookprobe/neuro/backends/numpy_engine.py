"""The numpy backend: int64 arrays, about 0.1 ms a step.

With |weight| <= 8, |activation| <= 8 and |delta| <= 16 every sum of products stays below 2^46 and
every update below 2^58, so int64 never overflows and the order of a sum does not matter. `>>` is
the arithmetic shift, like Python's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hookprobe.neuro.backends.engine import Examples
from hookprobe.neuro.fixedpoint import ACTIVATION_MAX, DELTA_MAX, ONE, WEIGHT_MAX
from hookprobe.neuro.weights import INPUTS, OUTPUTS, SHAPE, check_masters

Integers = NDArray[np.int64]

_ROUND = 1 << 31


def read_masters(masters: bytes) -> Integers:
    """Return the weights as one flat native int64 array.

    Raises:
        MalformedError: Wrong length, or a weight beyond its bound.
    """
    check_masters(masters)
    return np.frombuffer(masters, dtype=">i8").astype(np.int64)


def unpack(examples: Examples) -> tuple[Integers, Integers, Integers]:
    """Return x (n, 64), y (n, 32) and r (n, 32) of the examples."""
    drawn = np.frombuffer(examples.draws, dtype=">i2").astype(np.int64)
    v = 2 * drawn.reshape(-1, INPUTS + OUTPUTS)
    x = v[:, :INPUTS]
    y = (x[:, :OUTPUTS] + v[:, INPUTS:]) >> 1
    chosen = np.frombuffer(examples.selections, dtype=np.uint8).reshape(-1, OUTPUTS)
    picked = np.take_along_axis(x, (chosen & 63).astype(np.int64), axis=1)
    r = np.where(chosen & 64, -picked, picked)
    return np.ascontiguousarray(x), y, r


class NumpyEngine:
    """Weights as one int64 array, with a view for each layer.

    Args:
        masters: All weights as big-endian int64, or an array that is now this engine's own.

    Raises:
        MalformedError: Wrong length, or a weight beyond its bound.
    """

    __slots__ = ("_flat", "_views")

    def __init__(self, masters: bytes | Integers) -> None:
        flat = read_masters(masters) if isinstance(masters, bytes) else masters
        self._flat = flat
        self._views: list[tuple[Integers, Integers]] = []
        at = 0
        for outputs, inputs in SHAPE:
            end = at + outputs * inputs
            rows = flat[at:end].reshape(outputs, inputs)
            self._views.append((rows, flat[end : end + outputs]))
            at = end + outputs

    def run(self, examples: Examples) -> None:
        x, y, r = unpack(examples)
        for i, (k, eta) in enumerate(zip(examples.penalties, examples.rates, strict=True)):
            self._step((x[i], y[i], r[i]), k, eta)

    def _step(self, lesson: tuple[Integers, Integers, Integers], k: int, eta: int) -> None:
        x, y, r = lesson
        a, z, visible = self._forward(x)
        delta = np.clip((z[2] - y) + _rescale(k * (z[2] - r)), -DELTA_MAX, DELTA_MAX)
        deltas = [delta]
        for index in (2, 1):
            g = np.clip(_rescale(visible[index].T @ deltas[0]), -DELTA_MAX, DELTA_MAX)
            deltas.insert(0, np.where(z[index - 1] >= 0, g, g >> 3))
        for (rows, bias), d, seen in zip(self._views, deltas, a, strict=True):
            rate = eta * d
            np.subtract(rows, (rate[:, None] * seen[None, :] + _ROUND) >> 32, out=rows)
            np.subtract(bias, (rate * ONE + _ROUND) >> 32, out=bias)
        np.clip(self._flat, -WEIGHT_MAX, WEIGHT_MAX, out=self._flat)

    def _forward(self, x: Integers) -> tuple[list[Integers], list[Integers], list[Integers]]:
        a, z, visible = [x], [], []
        for rows, bias in self._views:
            visible.append(rows >> 16)
            total = visible[-1] @ a[-1] + ((bias >> 16) << 16)
            z.append(np.clip(_rescale(total), -ACTIVATION_MAX, ACTIVATION_MAX))
            a.append(np.where(z[-1] >= 0, z[-1], z[-1] >> 3))
        return a[:-1], z, visible

    def output(self, x: Sequence[int]) -> list[int]:
        found: list[int] = self._forward(np.array(x, dtype=np.int64))[1][-1].tolist()
        return found

    def masters(self) -> bytes:
        return self._flat.astype(">i8").tobytes()

    def copy(self) -> "NumpyEngine":
        return type(self)(self._flat.copy())


def _rescale(total: Integers) -> Integers:
    return (total + (ONE >> 1)) >> 16

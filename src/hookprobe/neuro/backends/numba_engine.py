"""The numba backend: the loops of the specification as machine code, some 5 us a step.

The kernel is compiled when this module is imported, once per process and for one signature. It
holds no lock while it runs, so threads may replay different devices side by side.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from hookprobe.neuro.backends.engine import Examples
from hookprobe.neuro.backends.numpy_engine import Integers, NumpyEngine
from hookprobe.neuro.fixedpoint import ACTIVATION_MAX, DELTA_MAX, WEIGHT_MAX
from hookprobe.neuro.weights import SHAPE

_I = numba.int64
_VECTOR = _I[::1]
_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
Bytes = NDArray[np.uint8]


@numba.njit(_I(_I, _I), inline="always")
def _clamp(value: int, bound: int) -> int:
    return bound if value > bound else max(value, -bound)


@numba.njit(numba.void(_VECTOR, _I, _VECTOR, _VECTOR), nogil=True)
def _affine(flat: Integers, at: int, a: Integers, z: Integers) -> None:
    inputs, outputs = a.size, z.size
    biases = at + inputs * outputs
    for j in range(outputs):
        total = (flat[biases + j] >> 16) << 16
        row = flat[at + j * inputs : at + (j + 1) * inputs]
        for i in range(inputs):
            total += (row[i] >> 16) * a[i]
        z[j] = _clamp((total + 0x8000) >> 16, ACTIVATION_MAX)


@numba.njit(numba.void(_VECTOR, _VECTOR), nogil=True)
def _bend(z: Integers, a: Integers) -> None:
    for j in range(z.size):
        a[j] = z[j] if z[j] >= 0 else z[j] >> 3


@numba.njit(numba.void(_VECTOR, _I, _VECTOR, _VECTOR, _VECTOR), nogil=True)
def _backward(flat: Integers, at: int, delta: Integers, z: Integers, found: Integers) -> None:
    inputs = z.size
    found[:] = 0
    for j in range(delta.size):
        row = flat[at + j * inputs : at + (j + 1) * inputs]
        weighed = delta[j]
        for i in range(inputs):
            found[i] += (row[i] >> 16) * weighed
    for i in range(inputs):
        g = _clamp((found[i] + 0x8000) >> 16, DELTA_MAX)
        found[i] = g if z[i] >= 0 else g >> 3


@numba.njit(numba.void(_VECTOR, _I, _VECTOR, _VECTOR, _I), nogil=True)
def _update(flat: Integers, at: int, delta: Integers, a: Integers, eta: int) -> None:
    inputs = a.size
    biases = at + inputs * delta.size
    for j in range(delta.size):
        rate = eta * delta[j]
        row = flat[at + j * inputs : at + (j + 1) * inputs]
        for i in range(inputs):
            row[i] = _clamp(row[i] - ((rate * a[i] + 0x80000000) >> 32), WEIGHT_MAX)
        moved = flat[biases + j] - ((rate * 0x10000 + 0x80000000) >> 32)
        flat[biases + j] = _clamp(moved, WEIGHT_MAX)


_IN, _H1, _H2, _OUT = SHAPE[0][1], SHAPE[0][0], SHAPE[1][0], SHAPE[2][0]
_FC2 = _H1 * _IN + _H1
_SIG = _FC2 + _H2 * _H1 + _H2


@numba.njit(numba.void(_BYTES, _BYTES, _I, _VECTOR, _VECTOR, _VECTOR), nogil=True)
def _unpack(draws: Bytes, chosen: Bytes, n: int, x: Integers, y: Integers, r: Integers) -> None:
    first = n * (x.size + y.size)
    for j in range(x.size + y.size):
        at = 2 * (first + j)
        value = (np.int64(draws[at]) << 8) | np.int64(draws[at + 1])
        doubled = 2 * (value - ((value & 0x8000) << 1))
        if j < x.size:
            x[j] = doubled
        else:
            y[j - x.size] = (x[j - x.size] + doubled) >> 1
    for j in range(r.size):
        m = np.int64(chosen[n * r.size + j])
        r[j] = -x[m & 63] if m & 64 else x[m & 63]


@numba.njit(numba.void(_VECTOR, _BYTES, _BYTES, _VECTOR), nogil=True)
def _run(flat: Integers, draws: Bytes, chosen: Bytes, scales: Integers) -> None:
    x, y, r = (np.empty(_IN, np.int64), np.empty(_OUT, np.int64), np.empty(_OUT, np.int64))
    z1, z2, z3 = (np.empty(_H1, np.int64), np.empty(_H2, np.int64), np.empty(_OUT, np.int64))
    a1, a2, d3 = (np.empty(_H1, np.int64), np.empty(_H2, np.int64), np.empty(_OUT, np.int64))
    d1, d2 = np.empty(_H1, np.int64), np.empty(_H2, np.int64)
    count = scales.size // 2
    for n in range(count):
        _unpack(draws, chosen, n, x, y, r)
        k, eta = scales[n], scales[count + n]
        _affine(flat, 0, x, z1)
        _bend(z1, a1)
        _affine(flat, _FC2, a1, z2)
        _bend(z2, a2)
        _affine(flat, _SIG, a2, z3)
        for j in range(_OUT):
            pull = (k * (z3[j] - r[j]) + 0x8000) >> 16
            d3[j] = _clamp(z3[j] - y[j] + pull, DELTA_MAX)
        _backward(flat, _SIG, d3, z2, d2)
        _backward(flat, _FC2, d2, z1, d1)
        _update(flat, 0, d1, x, eta)
        _update(flat, _FC2, d2, a1, eta)
        _update(flat, _SIG, d3, a2, eta)


class NumbaEngine(NumpyEngine):
    """The same array; the steps run compiled."""

    __slots__ = ()

    def run(self, examples: Examples) -> None:
        scales = np.array([*examples.penalties, *examples.rates], np.int64)
        draws = np.frombuffer(examples.draws, np.uint8)
        _run(self._flat, draws, np.frombuffer(examples.selections, np.uint8), scales)

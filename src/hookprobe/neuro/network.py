"""The network in pure integers: forward pass, gradient, one step (HP-NEURO-1 7.3).

64 inputs -> fc1 128 -> fc2 64 -> L_X_SIG_07 32 outputs. A hidden unit passes z if z >= 0, else
z >> 3. The loss whose gradient is taken:

    L = 1/2 |o - y|^2 + C*Sigma * 1/2 |o - r|^2

y mixes the input with fresh noise, r is a signed selection of the input chosen by all 20 bytes of
h_integrity, and k = C*Sigma weighs it: a changed measurement changes direction and size of every
update, for ever.
"""

import hashlib
import struct
from dataclasses import dataclass
from operator import mul

from hookprobe.neuro.fixedpoint import (
    ACTIVATION_MAX,
    DELTA_MAX,
    ONE,
    WEIGHT_MAX,
    clamp,
    rescale,
)
from hookprobe.neuro.weights import INPUTS, OUTPUTS, TAG, Layer, Weights

_INTEGRITY_WEIGHT = 5  # C of C*Sigma
_ROUND = 1 << 31
_DRIVE = struct.Struct(f">{INPUTS + OUTPUTS}h")
DRAW_BYTES = _DRIVE.size


@dataclass(frozen=True, slots=True)
class Drive:
    """What one record makes the network learn: input x, target y, reference r, weight k."""

    x: list[int]
    y: list[int]
    r: list[int]
    k: int


def draw(chain: bytes) -> bytes:
    """Return the 192 bytes SHAKE256(TAG"X" || c) that x and y are made of."""
    return hashlib.shake_256(TAG + b"X" + chain).digest(DRAW_BYTES)


def selection(h_integrity: bytes) -> bytes:
    """Return m = SHAKE256(TAG"R" || h_integrity)[32], which picks r out of x."""
    return hashlib.shake_256(TAG + b"R" + h_integrity).digest(OUTPUTS)


def penalty(h_integrity: bytes) -> int:
    """Return k = C*Sigma = (5 * u32(h_integrity[0:4]) + 2^15) >> 16, in Q16.16."""
    return rescale(_INTEGRITY_WEIGHT * int.from_bytes(h_integrity[:4], "big"))


def example(drawn: bytes, selected: bytes, k: int) -> Drive:
    """Return the training example of one record.

    v = the 96 int16 of `drawn`, each times 2 (Q16.16); x = v[0:64]; y_j = (x_j + v[64+j]) >> 1;
    r_j = x[m_j & 63], negated if m_j & 64.
    """
    v = [2 * value for value in _DRIVE.unpack(drawn)]
    x = v[:INPUTS]
    y = [(x[j] + v[INPUTS + j]) >> 1 for j in range(OUTPUTS)]
    r = [-x[m & 63] if m & 64 else x[m & 63] for m in selected]
    return Drive(x, y, r, k)


def drive(chain: bytes, h_integrity: bytes) -> Drive:
    """Return the training example of the record that led to `chain`."""
    return example(draw(chain), selection(h_integrity), penalty(h_integrity))


@dataclass(frozen=True, slots=True)
class Activations:
    """Pre-activations z and inputs a of every layer, in Q16.16; `z[2]` is the output."""

    a: list[list[int]]
    z: list[list[int]]


def forward(layers: Weights, x: list[int]) -> Activations:
    """Run the network: z = clamp(R(sum (M >> 16) * a + ((M_b >> 16) << 16)), +-8)."""
    a, z = [x], []
    for layer in layers:
        current = a[-1]
        z.append(
            [
                clamp(
                    rescale(
                        sum(map(mul, [weight >> 16 for weight in row], current))
                        + ((bias >> 16) << 16)
                    ),
                    ACTIVATION_MAX,
                )
                for row, bias in zip(layer.rows, layer.bias, strict=True)
            ]
        )
        a.append([value if value >= 0 else value >> 3 for value in z[-1]])
    return Activations(a[: len(layers)], z)


def step(layers: Weights, lesson: Drive, eta: int) -> Activations:
    """Change the weights in place by one gradient step; return what the old weights computed.

    d3 = clamp((z3 - y) + R(k * (z3 - r)), +-16); hidden d from the old weights throughout;
    M -= (eta * d_j * a_i + 2^31) >> 32, then cut to +-8 (a bias sees a = 1.0).
    """
    seen = forward(layers, lesson.x)
    delta = [
        clamp((z - y) + rescale(lesson.k * (z - r)), DELTA_MAX)
        for z, y, r in zip(seen.z[-1], lesson.y, lesson.r, strict=True)
    ]
    deltas = [delta]
    for index in (2, 1):
        deltas.insert(0, _backward(layers[index], deltas[0], seen.z[index - 1]))
    for layer, d, a in zip(layers, deltas, seen.a, strict=True):
        _update(layer, d, a, eta)
    return seen


def _backward(layer: Layer, delta: list[int], z: list[int]) -> list[int]:
    """Return g = clamp(R(sum_j (M >> 16)_ji * d_j), +-16) through the slope at z."""
    found = []
    for column, pre in zip(zip(*layer.rows, strict=True), z, strict=True):
        total = sum(map(mul, [weight >> 16 for weight in column], delta))
        g = clamp(rescale(total), DELTA_MAX)
        found.append(g if pre >= 0 else g >> 3)
    return found


def _update(layer: Layer, delta: list[int], a: list[int], eta: int) -> None:
    for j, d in enumerate(delta):
        rate = eta * d
        row = [m - ((rate * i + _ROUND) >> 32) for m, i in zip(layer.rows[j], a, strict=True)]
        if max(row) > WEIGHT_MAX or min(row) < -WEIGHT_MAX:
            row = [clamp(m, WEIGHT_MAX) for m in row]
        layer.rows[j] = row
        layer.bias[j] = clamp(layer.bias[j] - ((rate * ONE + _ROUND) >> 32), WEIGHT_MAX)

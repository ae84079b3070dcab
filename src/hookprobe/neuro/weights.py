"""Initial weights from a device's seed, and the hash of a weight state (HP-NEURO-1 7.2, 7.4).

    seed = HKDF-SHA256: HMAC(HMAC(hw_fingerprint, secret), TAG"epoch" || prov_ts || epoch || 0x01)
    c0   = SHA-256(TAG"C0" || seed)
    W0   = SHAKE256(TAG"W0" || seed), one signed 32-bit r per weight:
           M = (r * isqrt((3 << 64) // fan_in)) >> 31, biases 0 and without a draw

The secret is 32 random bytes from the enrolment grant; hardware fingerprint and time only salt it.
"""

import array
import hashlib
import hmac
import math
import sys
from dataclasses import dataclass

from hookprobe.errors import MalformedError
from hookprobe.neuro.fixedpoint import WEIGHT_MAX

TAG = b"HP-NEURO-1/"
SHAPE = ((128, 64), (64, 128), (32, 64))  # (outputs, inputs) of fc1, fc2, L_X_SIG_07
INPUTS = 64
OUTPUTS = 32
WEIGHT_COUNT = sum(outputs * inputs + outputs for outputs, inputs in SHAPE)  # 18,656
MASTERS_BYTES = 8 * WEIGHT_COUNT


@dataclass(slots=True)
class Layer:
    """One affine layer; `rows[j]` are the weights of output j, all in units of 2^-32."""

    rows: list[list[int]]
    bias: list[int]


Weights = list[Layer]


def derive_seed(
    secret: bytes, hardware_fingerprint: bytes, provisioned_us: int, epoch: int
) -> bytes:
    """Return the 32-byte seed of a device's epoch (HP-NEURO-1 7.2).

    Args:
        secret: 32 random bytes, known to the device and its verifier.
        hardware_fingerprint: 32 bytes.
        provisioned_us: Microseconds since 1970 of the enrolment.
        epoch: Weight epoch, from 0.
    """
    extracted = hmac.digest(hardware_fingerprint, secret, "sha256")
    info = TAG + b"epoch" + provisioned_us.to_bytes(8, "big") + epoch.to_bytes(4, "big")
    return hmac.digest(extracted, info + b"\1", "sha256")


def initial_chain(seed: bytes) -> bytes:
    """Return c0 = SHA-256(TAG"C0" || seed)."""
    return hashlib.sha256(TAG + b"C0" + seed).digest()


def initial_weights(seed: bytes) -> Weights:
    """Return W0: uniform in +-sqrt(3 / fan_in), deterministic in the seed."""
    drawn = sum(outputs * inputs for outputs, inputs in SHAPE)
    stream = hashlib.shake_256(TAG + b"W0" + seed).digest(4 * drawn)
    layers: Weights = []
    offset = 0
    for outputs, inputs in SHAPE:
        scale = math.isqrt((3 << 64) // inputs)
        rows = []
        for _ in range(outputs):
            rows.append(
                [
                    (int.from_bytes(stream[at : at + 4], "big", signed=True) * scale) >> 31
                    for at in range(offset, offset + 4 * inputs, 4)
                ]
            )
            offset += 4 * inputs
        layers.append(Layer(rows, [0] * outputs))
    return layers


def encode_weights(layers: Weights) -> bytes:
    """Return all 18,656 masters as big-endian int64, layer by layer, weights before biases."""
    values = array.array("q")
    for layer in layers:
        for row in layer.rows:
            values.extend(row)
        values.extend(layer.bias)
    if sys.byteorder == "little":
        values.byteswap()
    return values.tobytes()


def check_masters(masters: bytes) -> None:
    """Check the bytes of a weight state.

    Raises:
        MalformedError: Another length, or a weight beyond +-8: no evolution leads there.
    """
    _native(masters)


def _native(masters: bytes) -> "array.array[int]":
    if len(masters) != MASTERS_BYTES:
        raise MalformedError(f"weights: {len(masters)} bytes, {MASTERS_BYTES} are wanted")
    values = array.array("q", masters)
    if sys.byteorder == "little":
        values.byteswap()
    if max(values) > WEIGHT_MAX or min(values) < -WEIGHT_MAX:
        raise MalformedError("weights: a value beyond the bound of +-8")
    return values


def decode_weights(masters: bytes) -> Weights:
    """Read what `encode_weights` returned.

    Raises:
        MalformedError: See `check_masters`.
    """
    flat = _native(masters).tolist()
    layers: Weights = []
    at = 0
    for outputs, inputs in SHAPE:
        end = at + outputs * inputs
        rows = [flat[start : start + inputs] for start in range(at, end, inputs)]
        layers.append(Layer(rows, flat[end : end + outputs]))
        at = end + outputs
    return layers


def weight_root(masters: bytes) -> bytes:
    """Return w_root = SHA-512(TAG"W" || int64 M...), 64 bytes (HP-NEURO-1 7.4)."""
    return hashlib.sha512(TAG + b"W" + masters).digest()

"""Integer arithmetic of HP-NEURO-1: what a number means, how it is rounded and where it is cut.

* A weight (`M`, the master) is an integer in units of 2^-32; `M >> 16` is its Q16.16 part.
* An activation is an integer in units of 2^-16 (Q16.16).
* `>>` is the arithmetic shift: it floors. `R(s) = (s + 2^15) >> 16` rescales a product.

With |weight| <= 8, |activation| <= 8 and |delta| <= 16 every sum of products stays below 2^53, so
Python integers, int64 and float64 matrix products agree bit for bit.
"""

ONE = 1 << 16  # 1.0 in Q16.16
ACTIVATION_MAX = 8 << 16
DELTA_MAX = 16 << 16
WEIGHT_MAX = 8 << 32
ETA_BASE = 429_497  # 0.0001 in units of 2^-32
DECAY_US = 7_200_000_000  # tau: two hours

_EXP_BITS = 192
_EXP_TERMS_MAX = 200
# Beyond this many units of tau, exp(-x) * 2^32 rounds to 0; x = dt / tau, the limit is 23.
_EXP_ZERO_TAUS = 23


def clamp(value: int, bound: int) -> int:
    """Return `value` cut to [-bound, bound]."""
    if value > bound:
        return bound
    return max(value, -bound)


def rescale(total: int) -> int:
    """Return R(s) = (s + 2^15) >> 16 (HP-NEURO-1 7.3)."""
    return (total + 0x8000) >> 16


def decay(dt_us: int) -> int:
    """Return E = floor(2^32 * exp(-dt / 7.2e9) + 1/2), exactly (HP-NEURO-1 7.3).

    The Taylor series of exp(+x) in 192-bit integers has only positive terms, so nothing cancels;
    its reciprocal is then rounded once.

    Args:
        dt_us: Microseconds between two records, not negative.
    """
    if dt_us >= _EXP_ZERO_TAUS * DECAY_US:
        return 0
    total = term = 1 << _EXP_BITS
    for n in range(1, _EXP_TERMS_MAX):
        term = term * dt_us // (n * DECAY_US)
        if term == 0:
            break
        total += term
    scaled = (1 << (_EXP_BITS + 33)) // total  # 2 * 2^32 * exp(-x), floored
    return (scaled + 1) >> 1


def learning_rate(dt_us: int) -> int:
    """Return eta = (429497 * E + 2^31) >> 32, in units of 2^-32 (HP-NEURO-1 7.3)."""
    return (ETA_BASE * decay(dt_us) + (1 << 31)) >> 32

"""The three backends agree bit for bit, also where every bound is reached."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hookprobe.neuro.backends.engine import Engine, Examples
from hookprobe.neuro.backends.selection import BACKENDS, load_backend
from hookprobe.neuro.fixedpoint import ETA_BASE, WEIGHT_MAX
from hookprobe.neuro.weights import SHAPE, WEIGHT_COUNT, Layer, encode_weights

SCALES = (1, 1 << 16, 1 << 30, 1 << 34, WEIGHT_MAX)
K_MAX = (5 * (2**32 - 1) + 2**15) >> 16


def weights(seed: int, scale: int, extreme: bool) -> bytes:
    draw = random.Random(seed)
    choice = (-scale, scale, scale - 1, 0, -1)
    values = (
        draw.choice(choice) if extreme else draw.randint(-scale, scale) for _ in range(WEIGHT_COUNT)
    )
    return b"".join(value.to_bytes(8, "big", signed=True) for value in values)


def lessons(seed: int, count: int, extreme: bool) -> Examples:
    draw = random.Random(seed)
    if extreme:
        ends = (b"\x80\x00", b"\x7f\xff", b"\x40\x00", b"\xff\xff")  # 0x4000: halves
        draws = b"".join(draw.choice(ends) for _ in range(96 * count))
    else:
        draws = draw.randbytes(192 * count)
    penalties = [draw.choice((0, 1, K_MAX, draw.randint(0, K_MAX))) for _ in range(count)]
    rates = [draw.choice((0, 1, ETA_BASE, draw.randint(0, ETA_BASE))) for _ in range(count)]
    return Examples(draws, draw.randbytes(32 * count), penalties, rates)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from(SCALES),
    extremes=st.tuples(st.booleans(), st.booleans()),
    count=st.integers(1, 3),
)
def test_backends_agree(seed: int, scale: int, extremes: tuple[bool, bool], count: int) -> None:
    masters = weights(seed, scale, extremes[0])
    examples = lessons(seed, count, extremes[1])
    engines: list[Engine] = [load_backend(name)(masters) for name in BACKENDS]
    for engine in engines:
        engine.run(examples)
    first, *others = [engine.masters() for engine in engines]
    assert first != masters or not any(examples.rates)
    assert others == [first, first]
    x = [2 * value for value in range(-32, 32)]
    assert len({tuple(engine.output(x)) for engine in engines}) == 1


@settings(deadline=None, derandomize=True, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_weights_stop_at_their_bound_on_every_backend(seed: int) -> None:
    masters = weights(seed, WEIGHT_MAX, True)
    examples = lessons(seed, 3, True)
    for name in BACKENDS:
        engine = load_backend(name)(masters)
        engine.run(examples)
        load_backend(name)(engine.masters())  # refuses weights beyond the bound


def test_backends_round_exact_halves_up() -> None:
    layers = [
        Layer([[weight] * inputs for _ in range(outputs)], [0] * outputs)
        for (outputs, inputs), weight in zip(SHAPE, (1 << 16, 1 << 32, 1 << 32), strict=True)
    ]
    masters = encode_weights(layers)
    half = (1 << 14).to_bytes(2, "big") + bytes(190)
    examples = Examples(half, bytes(32), [K_MAX], [ETA_BASE])
    engines = [load_backend(name)(masters) for name in BACKENDS]
    for engine in engines:
        # fc1 sees half a unit, which is 1: 128 of them, then 64 of those.
        assert engine.output([1 << 15] + [0] * 63) == [128 * 64] * 32
        engine.run(examples)
    assert len({engine.masters() for engine in engines}) == 1

"""HP-NEURO-1 section 7.5: the published vectors, step by step and on every backend."""

import pytest
from tests.unit.neuro.neuro_vectors import (
    integers,
    vector_proof,
    vector_seed,
    vector_stream,
    vector_ters,
)

from hookprobe.neuro import network, ter
from hookprobe.neuro.backends.selection import BACKENDS, load_backend
from hookprobe.neuro.fixedpoint import decay, learning_rate
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import WEIGHT_COUNT, decode_weights, weight_root

SECOND = 1_000_000
REPLAYED_AT_ONCE = 1000


def replayed(backend: str, count: int) -> NeuroState:
    state = NeuroState(vector_seed(), load_backend(backend))
    records = vector_stream(count)
    while state.count < count:
        state.advance(next(records) for _ in range(min(REPLAYED_AT_ONCE, count - state.count)))
    return state


def test_seed_chain_and_initial_weights() -> None:
    seed = vector_seed()
    assert seed.hex() == "380105f85762a2f39c3dd18971a2fdfd18b5b829ae993158e5b0d7d83b3d5aca"
    state = NeuroState(seed)
    assert state.chain.hex() == "7ce8fda445a03c0ca4b473ef9d344734782cd02fe7dc628bb2e7fac24e147808"
    found = integers(state.masters())
    assert len(found) == WEIGHT_COUNT == 18_656
    assert found[:3] == [-379567664, -115545441, 601325206]
    assert (found[8320], found[16576]) == (258208655, 575078751)
    assert (
        weight_root(state.masters())
        .hex()
        .startswith("3560f1a0f7e2eb0bb44897000b34b207c19cb298744db95c")
    )


def test_decay_and_learning_rate() -> None:
    seconds = (0, 1, 60, 3600, 7200, 86400, 165000)
    assert [decay(s * SECOND) for s in seconds] == [
        4294967296, 4294370814, 4259324619, 2605029347, 1580030169, 26389, 0,
    ]  # fmt: skip
    assert [learning_rate(s * SECOND) for s in (0, 60, 7200, 86400)] == [429497, 425933, 158003, 3]


def test_records() -> None:
    first, second, third = vector_ters(3)
    assert first.encode().hex() == (
        "d59d998cf41461021ee34d592ca808f5a4ecd8142465ea30fdd48b4823c56c85"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4000645421607500000000000"
    )
    crcs = [f"{ter.checksum(record.encode()):04x}" for record in (first, second, third)]
    assert crcs == ["e548", "1485", "2ab9"]
    assert (second.chain, third.chain) == (0xE548, 0x1485)


def test_first_step_in_detail() -> None:
    state = NeuroState(vector_seed())
    first = vector_ters(1)[0]
    old_weights = decode_weights(state.masters())
    state.apply(first)
    example = network.drive(state.chain, first.h_integrity)
    seen = network.forward(old_weights, example.x)
    assert example.x[:4] == [-16666, 28280, -12308, -55082]
    assert example.y[:4] == [19458, 24411, 23450, 3331]
    assert example.r[:4] == [-34750, 37924, -44104, -17586]
    assert example.k == 291444
    assert [z[:3] for z in seen.z] == [
        [-19408, -37484, 3690], [11184, -26639, 15036], [5616, -926, 31302],
    ]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_after_one_record(backend: str) -> None:
    state = replayed(backend, 1)
    assert state.chain.hex() == "9b82a8c0d099ac515ecd6a76cf72f69af9e2a60b610402f0a344cfe51df3b533"
    found = integers(state.masters())
    assert found[:3] == [-379582553, -115520176, 601314210]
    assert found[-1] == 173015
    public = state.commitments()
    assert public.w_fingerprint.hex().startswith("1d497228abd25c57501c99b0d889b8dd")
    assert public.key.hex() == "bfcdb1253b7873828af21cb7ae4951651cbece7156474cd0f89ec32eb77ef2ab"
    assert vector_proof(state) == "b4258115d8adb5dc679eb631f6c3df1fe266f5f6c74b49e821f73c3f61cf9fec"


MANY = {
    3: ([-379610280, -115566905, 601272530], "",
        "9938d2b7b9d13f79ae5609d175419e6cc61af0fa5a2f63ecdc5dd2a0efe16533"),
    100: ([-379753872, -112619472, 601854716], "bc4bf4862639f872fe039b93",
          "6dcb5b9bc0a9e9a4235da0e1a21def40ac01908b9ab9c5dce6028f6d23056274"),
    1000: ([-383478973, -113160927, 592766142], "c4e10d8a1467b458552ea778",
           "0cb30ccd06441af43a87bc2a663b2b20c72e4437a6b0a56ebd18999cce1c4a0f"),
    100_000: ([-152211340, -181547587, 496053438], "73828dbefdfbac3f7b66bb33",
              "a22d02c65129ade57c788692f34ff89b82dbe4de13b56d8fd6c213581a22025f"),
}  # fmt: skip


def check_many(state: NeuroState) -> None:
    first_masters, fingerprint, signature = MANY[state.count]
    assert integers(state.masters())[:3] == first_masters
    assert state.commitments().w_fingerprint.hex().startswith(fingerprint)
    assert vector_proof(state) == signature


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [3, 100])
def test_state_after_many_records(backend: str, count: int) -> None:
    check_many(replayed(backend, count))


@pytest.mark.parametrize(
    "backend", ["numba", "numpy", pytest.param("pure", marks=pytest.mark.slow)]
)
def test_state_after_a_thousand_records(backend: str) -> None:
    check_many(replayed(backend, 1000))


@pytest.mark.parametrize("backend", ["numba", pytest.param("numpy", marks=pytest.mark.slow)])
def test_state_after_a_hundred_thousand_records_and_a_wrap(backend: str) -> None:
    state = replayed(backend, 100_000)
    assert state.previous is not None
    assert state.previous.sequence == 99_999 - 65_536
    check_many(state)


@pytest.mark.slow
def test_a_hundred_thousand_steps_stay_stable() -> None:
    """69 days at one record a minute: nothing runs away, nothing dies."""
    state = replayed("numba", 100_000)
    for layer, low, high in zip(decode_weights(state.masters()), (20, 15, 20), (32, 26, 32),
                                strict=True):  # fmt: skip
        flat = [value for row in layer.rows for value in row]
        rms = (sum(value * value for value in flat) / len(flat)) ** 0.5 / 2**32
        assert low <= 200 * rms <= high
        assert max(map(abs, flat)) < 2**32

"""What NEURO costs: a step and a replay on every backend, many devices, memory.

CPU time of one core; the best of several rounds. A step is all of it: hash chain, drawing, learning
rate, arithmetic.
"""

import hashlib
import time
import tracemalloc
from collections.abc import Callable

from hookprobe.neuro.backends.selection import load_backend
from hookprobe.neuro.replay import Job, replay
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import Ter, decode, following
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.instant import MINUTE, Instant

ROUNDS = 5
START = 1_800_000_000_000_000
DEVICES = 1_000
FLEET = 10_000
Row = tuple[str, float, str]


def history(count: int) -> list[Ter]:
    records: list[Ter] = []
    for i in range(count):
        previous = records[-1] if records else None
        entropy = hashlib.sha256(i.to_bytes(4, "big")).digest()
        at = Instant(START + i * (MINUTE + 1_000))
        records.append(following(previous, entropy, b"\x77" * 20, at))
    return records


def best(work: Callable[[], None], rounds: int = ROUNDS) -> float:
    """Return the shortest CPU time of some rounds, in seconds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def fresh(backend: str) -> NeuroState:
    return NeuroState(derive_seed(b"\1" * 32, b"\2" * 32, START, 0), load_backend(backend))


def step_s(backend: str, records: list[Ter]) -> float:
    """One record at a time, as a live device sends them."""

    def work() -> None:
        state = start.copy()
        for record in records:
            state.apply(record)

    start = fresh(backend)
    start.copy().apply(records[0])
    return best(work) / len(records)


def replay_s(backend: str, records: list[Ter]) -> float:
    start = fresh(backend)
    return best(lambda: start.copy().advance(records))


def batch_s(backend: str, records: list[Ter]) -> float:
    """One record of each of many devices, parsed from bytes: a minute of a fleet."""
    start = fresh(backend)
    states = [start.copy() for _ in range(DEVICES)]
    wire = [record.encode() for record in records]
    place = iter(range(len(wire)))

    def minute() -> None:
        data = wire[next(place)]
        replay(Job(state, [decode(data)]) for state in states)

    return best(minute) / DEVICES


def memory_bytes(backend: str) -> float:
    start, first = fresh(backend), history(1)[0]
    start.copy().apply(first)
    tracemalloc.start()
    states = [start.copy() for _ in range(4)]
    for state in states:
        state.apply(first)  # a copy shares its integers until it evolves
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / len(states)


def run() -> list[Row]:
    """Return the rows of the page."""
    records = history(1_000)
    fleet_s = batch_s("numba", records)
    return [
        ("NEURO step, pure", step_s("pure", records[:20]) * 1e3, "ms"),
        ("NEURO step, numpy", step_s("numpy", records[:300]) * 1e6, "us"),
        ("NEURO step, numba", step_s("numba", records) * 1e6, "us"),
        ("NEURO batch", 1 / fleet_s, "device-steps/s/core"),
        ("NEURO replay of 1,000, numba", replay_s("numba", records) * 1e3, "ms"),
        ("NEURO replay of 1,000, numpy", replay_s("numpy", records) * 1e3, "ms"),
        ("NEURO memory per device, numpy and numba", memory_bytes("numba"), "bytes"),
        ("NEURO memory per device, pure", memory_bytes("pure"), "bytes"),
        ("10,000 devices at one TER a minute", 100 * FLEET * fleet_s / 60, "% of a core"),
    ]

"""Run every benchmark and write docs/benchmarks.md; `python -m benchmarks.run [NAME ...]`."""

import importlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
GOALS = {
    "microblocks created / raw Ed25519 signing": ("≥", 0.35),
    "validator ingest / raw verification": ("≥", 0.75),
    "sqlite: one by one / raw fdatasync": ("≥", 0.45),
    "rocksdb: one by one / raw fdatasync": ("≥", 0.45),
    "rocksdb: memory after 8080 blocks": ("≤", 32.0),
    "epoch root of 100k ids": ("≤", 80.0),
    "epoch root / plain level loop": ("≤", 1.0),
    "finality n=4, loopback UDP, p50": ("≤", 40.0),
    "finality n=10, loopback UDP, p50": ("≤", 120.0),
    "finality n=4, loopback UDP, the leader dead": ("≤", 4_100.0),
    "CPU of one validator for an epoch, n=4 / BLS verify": ("≤", 12.0),
    "CPU of one validator for an epoch, n=10 / BLS verify": ("≤", 15.0),
    "CPU of one validator for an epoch, n=100 / BLS verify": ("≤", 40.0),
    "catch-up ingest, signature of each range head": ("≥", 150_000.0),
    "catch-up ingest / full-verify ingest": ("≥", 6.0),
    "simulator, n=4, production nodes": ("≥", 500.0),
    "finality in process, n=100, all validators, p50": ("≤", 6_000.0),
    "validator process memory, eight storming edges": ("≤", 256.0),
    "inclusion proofs verified": ("≥", 90_000.0),
    "bundle verification / one BLS verification": ("≥", 0.75),
    "proofs checked / BLS checks": ("≥", 0.75),
    "receipt of one block of 1,000,000, n=10": ("≤", 1600.0),
    "edge process memory": ("≤", 60.0),
    "EVE lines parsed": ("≥", 50_000.0),
    "HTP handshakes answered, hybrid": ("≥", 3_000.0),
    "handshakes served over UDP: HTP hybrid / aioquic": ("≥", 3.0),
    "HTP bulk packets cut and sealed, 1156 B": ("≥", 300_000.0),
    "HTP heartbeats answered": ("≥", 80_000.0),
    "HTP memory of an idle session": ("≤", 1024.0),
    "bulk: HTP at 1200 B / qh3": ("≥", 2.0),
    "bulk: HTP at 1200 B / aioquic": ("≥", 7.0),
    "bulk, sending: HTP at 1200 B": ("≤", 3.5),
    "bulk, receiving: HTP at 1200 B": ("≤", 5.0),
    "bulk, sending: HTP at 1200 B / the floor": ("≤", 2.0),
    "bulk, receiving: HTP at 1200 B / the floor": ("≤", 2.0),
    "NEURO step, pure": ("≤", 8.0),
    "NEURO step, numpy": ("≤", 250.0),
    "NEURO step, numba": ("≤", 40.0),
    "NEURO batch": ("≥", 25_000.0),
    "NEURO replay of 1,000, numba": ("≤", 50.0),
    "NEURO replay of 1,000, numpy": ("≤", 300.0),
}
SEAL = "this host: ChaCha20-Poly1305, 1152 B sealed"
GOAL_HOST_SEAL_US = 0.98
IN_SEALS: dict[str, tuple[str, Callable[[float], float]]] = {  # microseconds of a row's value
    "HTP heartbeats answered": ("a heartbeat answered", lambda rate: 1e6 / rate),
    "HTP handshakes answered, hybrid": ("a hybrid handshake answered", lambda rate: 1e6 / rate),
    "bulk, sending: HTP at 1200 B": ("a MiB sent", lambda cost: cost * 1e3),
    "bulk, receiving: HTP at 1200 B": ("a MiB received", lambda cost: cost * 1e3),
}
HEAD = """# Benchmarks

Written by `make bench`; do not edit. One core unless said otherwise, on {machine}, Python {python}.
Machines are noisy: read the ratios, which compare two things in one run. A row with a goal shows
whether it was met in this run. Goals that are no ratios were set on a host that sealed 1152 bytes
with ChaCha20-Poly1305 in 0.98 us and exchanged X25519 keys in 24; two rows say what this one takes,
and the last ones give such costs in seals of 1152 bytes, the goal too.

| what | value | unit | goal |
|---|---:|---|---|
"""


def shown(value: float) -> str:
    """Return a number people can read."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def judged(name: str, value: float) -> str:
    """Return the goal of a row and whether it is met."""
    if name not in GOALS:
        return ""
    return verdict(*GOALS[name], value)


def verdict(sign: str, goal: float, value: float) -> str:
    """Return a goal and whether a value meets it."""
    met = value >= goal if sign == "≥" else value <= goal
    return f"{sign} {shown(goal)}: {'met' if met else '**not met**'}"


def calibrated(values: Mapping[str, float]) -> Iterator[tuple[str, float, str, str]]:
    """Return costs in seals of the same run, and their goals in seals of the goals' host."""
    for name, (what, cost_us) in IN_SEALS.items():
        if name in values and SEAL in values:
            ratio, most = cost_us(values[name]) / values[SEAL], cost_us(GOALS[name][1])
            yield (
                f"{what} / a seal of 1152 B",
                ratio,
                "times",
                verdict("≤", most / GOAL_HOST_SEAL_US, ratio),
            )


def processor() -> str:
    """Return what /proc says about the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Run the named benchmarks, or all of them and write the page."""
    wanted = sys.argv[1:]
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    rows, values = [], {}
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        print(f"bench: {name}", file=sys.stderr, flush=True)
        for what, value, unit in importlib.import_module(f"benchmarks.{name}").run():
            values[what] = value
            rows.append(f"| {what} | {shown(value)} | {unit} | {judged(what, value)} |")
            print(rows[-1], flush=True)
    for what, value, unit, said in calibrated(values):
        rows.append(f"| {what} | {shown(value)} | {unit} | {said} |")
        print(rows[-1], flush=True)
    if not wanted:
        head = HEAD.format(machine=processor(), python=platform.python_version())
        PAGE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

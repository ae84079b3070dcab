"""Run every benchmark and write docs/benchmarks.md; `python -m benchmarks.run [NAME ...]`."""

import importlib
import platform
import sys
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
HEAD = """# Benchmarks

Written by `make bench`; do not edit. One core unless said otherwise, on {machine}, Python {python}.
Machines are noisy: read the ratios, which compare two things in one run. A row with a goal shows
whether it was met in this run. Goals that are no ratios were set on a host that sealed 1152 bytes
with ChaCha20-Poly1305 in 0.98 us and exchanged X25519 keys in 24; two rows say what this one takes.

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
    sign, goal = GOALS[name]
    met = value >= goal if sign == "≥" else value <= goal
    return f"{sign} {shown(goal)}: {'met' if met else '**not met**'}"


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
    rows = []
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        print(f"bench: {name}", file=sys.stderr, flush=True)
        for what, value, unit in importlib.import_module(f"benchmarks.{name}").run():
            rows.append(f"| {what} | {shown(value)} | {unit} | {judged(what, value)} |")
            print(rows[-1], flush=True)
    if not wanted:
        head = HEAD.format(machine=processor(), python=platform.python_version())
        PAGE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

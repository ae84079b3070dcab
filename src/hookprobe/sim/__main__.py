"""Run seeds: `python -m hookprobe.sim --seeds 100 --seed 0 --profile fast --jobs 2`.

Prints one line per failing seed and one summary; the exit status is 1 when a seed failed. A failing
seed reproduces with `--seeds 1 --seed N`. Long runs tell on standard error how far they are.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from hookprobe.sim.scenario import PROFILES, run

SHARE = 50
TELL_EVERY = 10_000
COLLECT_EVERY = 25  # runs; each drops its world as a whole, and nothing before


@dataclass(frozen=True, slots=True)
class Job:
    """Some seeds in a row."""

    first: int
    count: int
    profile: str
    trace: bool


@dataclass(slots=True)
class Result:
    """What they showed."""

    seeds: int = 0
    failed: int = 0
    epochs: int = 0
    steps: int = 0
    lines: tuple[str, ...] = ()

    def add(self, other: "Result") -> None:
        self.seeds += other.seeds
        self.failed += other.failed
        self.epochs += other.epochs
        self.steps += other.steps


def judge(job: Job) -> Result:
    """Run the seeds of a job."""
    gc.disable()
    result, lines = Result(seeds=job.count), []
    for seed in range(job.first, job.first + job.count):
        outcome = run(seed, PROFILES[job.profile])
        result.epochs += outcome.epochs
        result.steps += outcome.steps
        if job.trace:
            lines.append(f"seed {seed} trace {outcome.trace_digest}")
        if outcome.violations:
            result.failed += 1
            lines.append(f"seed {seed} FAILED {'; '.join(outcome.violations[:3])}")
        if seed % COLLECT_EVERY == 0:
            gc.collect()
    result.lines = tuple(lines)
    return result


def shares(options: argparse.Namespace) -> Iterator[Job]:
    """Cut what the command line names into jobs."""
    end = options.seed + options.seeds
    for first in range(options.seed, end, SHARE):
        yield Job(first, min(SHARE, end - first), options.profile, options.trace)


def results(options: argparse.Namespace) -> Iterator[Result]:
    """Run all jobs, in as many processes as wanted, and yield their results in order."""
    if options.jobs == 1:
        yield from map(judge, shares(options))
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        yield from pool.map(judge, shares(options))


def main() -> int:
    """Run the seeds that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m hookprobe.sim")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="fast")
    parser.add_argument("--trace", action="store_true", help="print the trace digest of each seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use")
    options = parser.parse_args()
    if options.jobs < 1 or options.seeds < 1:
        parser.error("--jobs and --seeds begin at 1")
    total = Result()
    for result in results(options):
        total.add(result)
        for line in result.lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if total.seeds % TELL_EVERY == 0 and total.seeds < options.seeds:
            sys.stderr.write(f"{total.seeds} seeds, {total.failed} failed\n")
    sys.stdout.write(
        f"{total.seeds} seeds, {total.failed} failed, {total.epochs} epochs, {total.steps} steps\n"
    )
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run seeds: `python -m hookprobe.sim --seeds 100 --seed 0 --profile fast`.

Prints one line per failing seed and one summary; the exit status is 1 when a seed failed. A failing
seed reproduces with `--seeds 1 --seed N`.
"""

import argparse
import sys

from hookprobe.sim.scenario import PROFILES, run


def main() -> int:
    """Run the seeds that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m hookprobe.sim")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="fast")
    parser.add_argument("--trace", action="store_true", help="print the trace digest of each seed")
    options = parser.parse_args()
    failed = epochs = steps = 0
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = run(seed, PROFILES[options.profile])
        epochs += outcome.epochs
        steps += outcome.steps
        if options.trace:
            sys.stdout.write(f"seed {seed} trace {outcome.trace_digest}\n")
        if outcome.violations:
            failed += 1
            sys.stdout.write(f"seed {seed} FAILED {'; '.join(outcome.violations[:3])}\n")
    sys.stdout.write(f"{options.seeds} seeds, {failed} failed, {epochs} epochs, {steps} steps\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

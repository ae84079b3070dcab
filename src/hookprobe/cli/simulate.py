"""`hookprobe simulate`: whole meshes with a seed, faults and liars, on a virtual clock."""

import sys

import click

from hookprobe.cli.configuration import form_option
from hookprobe.cli.output import Exit, emit_one, message
from hookprobe.sim.scenario import PROFILES, run


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many seeds.")
@click.option("--seed", "first", default=0, show_default=True, help="The first seed.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="fast", show_default=True)
@form_option
def simulate(seeds: int, first: int, profile: str, form: str | None) -> None:
    """Run seeded simulations; exit 1 and name the seeds that broke a promise."""
    epochs = steps = 0
    failed: list[int] = []
    with click.progressbar(
        range(first, first + seeds), label="seeds", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as numbers:
        for seed in numbers:
            outcome = run(seed, PROFILES[profile])
            epochs += outcome.epochs
            steps += outcome.steps
            if outcome.violations:
                failed.append(seed)
                message(f"seed {seed}: {outcome.violations[0]}")
                message(f"repeat: hookprobe simulate --seeds 1 --seed {seed} --profile {profile}")
    emit_one({"seeds": seeds, "failed": failed, "epochs": epochs, "steps": steps}, form)
    if failed:
        sys.exit(Exit.FAILED)

"""The `hookprobe` program: finds the command, runs it, turns errors into words and exit codes.

Commands are imported when they are used, so that an edge on a small machine does not carry the
simulator and the demonstration in memory.
"""

import importlib
import os
import sys

import click

from hookprobe import __version__
from hookprobe.cli.output import Exit, message
from hookprobe.errors import (
    ConfigError,
    HookProbeError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)

COMMANDS = {
    "config": "hookprobe.cli.configuration:config",
    "demo": "hookprobe.cli.demo:demo",
    "dsm": "hookprobe.cli.dsm:dsm",
    "edge": "hookprobe.cli.run:edge",
    "evidence": "hookprobe.cli.evidence:evidence",
    "file": "hookprobe.cli.file:file",
    "init": "hookprobe.cli.enrol:init",
    "inspect": "hookprobe.cli.inspect:inspect",
    "neuro": "hookprobe.cli.neuro:neuro",
    "replay": "hookprobe.cli.replay:replay",
    "simulate": "hookprobe.cli.simulate:simulate",
    "status": "hookprobe.cli.status:status",
    "token": "hookprobe.cli.token:token",
    "validator": "hookprobe.cli.validator:validator",
    "verifier": "hookprobe.cli.verifier:verifier",
    "verify": "hookprobe.cli.evidence:verify",
    "webhook": "hookprobe.cli.webhook:webhook",
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hookprobe")
@click.option("--no-color", is_flag=True, help="No colours, like the variable NO_COLOR.")
def program(no_color: bool) -> None:
    """One node's detection becomes everyone's protection, provably and privately."""
    if no_color:
        os.environ["NO_COLOR"] = "1"


def exit_code(error: HookProbeError) -> Exit:
    """Return the exit status of an error."""
    match error:
        case ConfigError():
            return Exit.USAGE
        case NotFoundError():
            return Exit.NOT_FOUND
        case UnauthorizedError():
            return Exit.DENIED
        case UnavailableError():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED


def main() -> None:
    """Run the program and exit."""
    try:
        program(prog_name="hookprobe")
    except ConfigError as error:
        for problem in error.problems:
            message(f"{error.code}: {problem}")
        _hint(error)
        sys.exit(exit_code(error))
    except HookProbeError as error:
        message(f"{error.code}: {error.message}")
        _hint(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # The reader of our output has gone; that is its decision and no error of ours.
        sys.stderr.close()
        sys.exit(Exit.OK)


def _hint(error: HookProbeError) -> None:
    if error.hint:
        message(f"hint: {error.hint}")

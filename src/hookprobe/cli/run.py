"""`hookprobe edge run` and `hookprobe validator run`: a node in the foreground, logging JSON."""

import os
import sys
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option
from hookprobe.config.load import load
from hookprobe.runtime import service
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.logs import JsonLog, Level

_LEVELS = tuple(level.name.lower() for level in Level)
_level_option = click.option(
    "--log-level",
    "least",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="The quietest level written; debug shows addresses.",
)

_stdin_option = click.option(
    "--stop-with-stdin", is_flag=True, help="Also stop when standard input ends."
)


@click.group()
def edge() -> None:
    """An edge: sensors in, signed blocks out."""


@click.group()
def validator() -> None:
    """A validator: blocks in, certified checkpoints out."""


@click.group()
def verifier() -> None:
    """A verifier: devices' histories in, verdicts and certificates out."""


@edge.command(name="run")
@config_option
@_level_option
@_stdin_option
def run_edge(path: Path | None, least: str, stop_with_stdin: bool) -> None:
    """Run this edge until stopped; one JSON log line per event on standard output."""
    _run(path, "edge", least, stop_with_stdin)


@validator.command(name="run")
@config_option
@_level_option
@_stdin_option
def run_validator(path: Path | None, least: str, stop_with_stdin: bool) -> None:
    """Run this validator until stopped; one JSON log line per event on standard output."""
    _run(path, "validator", least, stop_with_stdin)


@verifier.command(name="run")
@config_option
@_level_option
@_stdin_option
def run_verifier(path: Path | None, least: str, stop_with_stdin: bool) -> None:
    """Run this verifier until stopped; one JSON log line per event on standard output."""
    _run(path, "verifier", least, stop_with_stdin)


def _run(path: Path | None, role: str, least: str, stop_with_stdin: bool) -> None:
    settings = load(path, os.environ, {})

    def write(line: str) -> None:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads the log any more; a node goes on protecting without one.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    log = JsonLog(write, Clock().now, Level[least.upper()])
    service.run(settings, role, log, stop_with_stdin=stop_with_stdin)

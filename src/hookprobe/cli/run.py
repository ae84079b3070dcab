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


@click.group()
def edge() -> None:
    """An edge: sensors in, signed blocks out."""


@click.group()
def validator() -> None:
    """A validator: blocks in, certified checkpoints out."""


@edge.command(name="run")
@config_option
@_level_option
def run_edge(path: Path | None, least: str) -> None:
    """Run this edge until stopped; one JSON log line per event on standard output."""
    _run(path, "edge", least)


@validator.command(name="run")
@config_option
@_level_option
def run_validator(path: Path | None, least: str) -> None:
    """Run this validator until stopped; one JSON log line per event on standard output."""
    _run(path, "validator", least)


def _run(path: Path | None, role: str, least: str) -> None:
    settings = load(path, os.environ, {})

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    service.run(settings, role, JsonLog(write, Clock().now, Level[least.upper()]))

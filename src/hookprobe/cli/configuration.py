"""`hookprobe config show|check`: what is set, where it came from, what is wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from hookprobe.cli.output import FORMS, emit, message
from hookprobe.config.load import load
from hookprobe.config.schema import BY_PATH

config_option = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path),
    help="The node's hookprobe.yaml.",
)


def form_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `-o FORM` and its short form `--json`."""
    as_json = click.option("--json", "form", flag_value="json", help="The same as -o json.")
    chosen = click.option("-o", "form", type=click.Choice(FORMS), help="Form of the output.")
    return chosen(as_json(command))


@click.group()
def config() -> None:
    """Show and check settings."""


@config.command()
@config_option
@form_option
def show(path: Path | None, form: str | None) -> None:
    """Every key with its value and where that came from."""
    settings = load(path, os.environ, {})
    emit(
        [
            {
                "key": name,
                "value": value if isinstance(value, str | int) else list(value),
                "from": settings.origins[name],
                "about": BY_PATH[name].about,
            }
            for name, value in settings.values.items()
        ],
        form,
    )


@config.command()
@config_option
def check(path: Path | None) -> None:
    """Exit 0 if the settings are right; else name every mistake and exit 2."""
    load(path, os.environ, {})
    message(f"{path or 'defaults'}: ok")

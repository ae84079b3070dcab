"""Forms of output, shared by every command.

Data goes to standard output, messages to standard error. A terminal gets a table and colours;
anything else gets stable JSON, unless `-o` says otherwise. NO_COLOR and --no-color are honoured.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

import click
import yaml

Scalar: TypeAlias = str | int | float | bool | None
Item: TypeAlias = Scalar | Mapping[str, Scalar]
Row: TypeAlias = Mapping[str, Scalar | Sequence[Item]]

FORMS = ("table", "json", "jsonl", "yaml")


class Exit(IntEnum):
    """What the exit status means."""

    OK = 0
    FAILED = 1  # also: a verification that does not hold
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DENIED = 5
    PENDING = 6
    DEGRADED = 7


def chosen_form(form: str | None) -> str:
    """Return the form asked for; a table on a terminal, else JSON."""
    return form or ("table" if sys.stdout.isatty() else "json")


def emit(rows: Sequence[Row], form: str | None) -> None:
    """Write rows as data."""
    match chosen_form(form):
        case "json":
            click.echo(json.dumps([dict(row) for row in rows], indent=2))
        case "jsonl":
            for row in rows:
                click.echo(json.dumps(dict(row), separators=(",", ":")))
        case "yaml":
            click.echo(yaml.safe_dump([_plain(row) for row in rows], sort_keys=False), nl=False)
        case _:
            _emit_table(rows)


def emit_one(row: Row, form: str | None) -> None:
    """Write one object: as key and value lines on a terminal."""
    match chosen_form(form):
        case "json":
            click.echo(json.dumps(dict(row), indent=2))
        case "jsonl":
            click.echo(json.dumps(dict(row), separators=(",", ":")))
        case "yaml":
            click.echo(yaml.safe_dump(_plain(row), sort_keys=False), nl=False)
        case _:
            width = max((len(name) for name in row), default=0)
            for name, value in row.items():
                click.echo(f"{name:<{width}}  {_cell(value)}")


def _plain(row: Row) -> dict[str, object]:
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in row.items()
    }


def _cell(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_cell, value))
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_cell(item)}" for name, item in value.items())
    return "" if value is None else str(value)


def _emit_table(rows: Sequence[Row]) -> None:
    if not rows:
        click.echo("(none)")
        return
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    header = "  ".join(name.upper().ljust(width) for name, width in zip(names, widths, strict=True))
    click.echo(header.rstrip())
    for line in cells:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(text.rstrip())


def message(text: str) -> None:
    """Tell the person, on standard error."""
    click.echo(text, err=True)


def colours() -> bool:
    """Whether standard output is a terminal that wants colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ

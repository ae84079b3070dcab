"""Telling a story: lines for people on a terminal, one JSON object per event elsewhere."""

import json
from collections.abc import Mapping, Sequence

import click

from hookprobe.cli.output import Row, chosen_form, colours, emit

_MARKS = {"step": "\n▸ ", "good": "  ✓ ", "bad": "  ✗ ", "info": "    "}
_COLOURS = {"step": "cyan", "good": "green", "bad": "red", "info": None}
_SEVERITY_COLOURS = {"critical": "red", "high": "red", "medium": "yellow", "low": None}


class Screen:
    """Where a story is told.

    Args:
        form: `table` for people, anything else for machines; None decides by the terminal.
    """

    def __init__(self, form: str | None) -> None:
        self._form = chosen_form(form)
        self._human = self._form == "table"

    @property
    def human(self) -> bool:
        return self._human

    def step(self, text: str) -> None:
        """Begin a chapter."""
        self._tell("step", text)

    def good(self, text: str) -> None:
        """Say what held."""
        self._tell("good", text)

    def bad(self, text: str) -> None:
        """Say what is wrong, expected or not."""
        self._tell("bad", text)

    def info(self, text: str) -> None:
        """Say something in passing."""
        self._tell("info", text)

    def incident(self, edge: str, fields: Mapping[str, object], source: str) -> None:
        """Tell an incident; `source` is the raw address, which only this screen sees."""
        if not self._human:
            told = {name: fields[name] for name in ("title", "severity", "techniques", "seq")}
            self._emit({"kind": "incident", "edge": edge, **told})
            return
        severity = str(fields["severity"])
        techniques = fields["techniques"]
        listed = ", ".join(map(str, techniques)) if isinstance(techniques, list) else ""
        label = click.style(
            f"{severity:<8}", fg=_SEVERITY_COLOURS.get(severity) if colours() else None
        )
        text = f"    {edge:<8} {label} {str(fields['title'])[:52]:<52} {listed:<11}"
        click.echo(f"{text} block {fields['seq']}" + (f"  from {source}" if source else ""))

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Show a table."""
        if self._human:
            click.echo(f"\n{title}")
            emit(rows, "table")
        else:
            self._emit({"kind": "table", "title": title, "rows": [dict(row) for row in rows]})

    def _tell(self, kind: str, text: str) -> None:
        if not self._human:
            self._emit({"kind": kind, "text": text})
            return
        colour = _COLOURS[kind] if colours() else None
        click.echo(click.style(_MARKS[kind] + text, fg=colour))

    def _emit(self, fields: dict[str, object]) -> None:
        click.echo(json.dumps(fields, separators=(",", ":")))

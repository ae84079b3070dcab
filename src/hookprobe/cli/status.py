"""`hookprobe status`: how a node on this machine is doing, read from its status file."""

import os
import sys
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Exit, emit_one
from hookprobe.config.load import load
from hookprobe.neuro.verdict import Verdict
from hookprobe.runtime import status as statuses
from hookprobe.runtime.clock import Clock

_RESONANT = Verdict.RESONANT.value


@click.command()
@config_option
@form_option
def status(path: Path | None, form: str | None) -> None:
    """Show a node's state; exit 7 when it is degraded, 4 when it does not answer."""
    settings = load(path, os.environ, {})
    document = statuses.read(settings.file("state.path"))
    at = document.get("at")
    age_us = Clock().now() - at if isinstance(at, int) else statuses.STALE_US + 1
    verdict = judge(document, age_us)
    latest = document.pop("latest_incidents", [])
    titles = [
        f"{item['severity']}: {item['title']} ({item['count']}x)"
        for item in latest
        if isinstance(item, dict)
    ] if isinstance(latest, list) else []  # fmt: skip
    shown = {
        name: value
        for name, value in document.items()
        if isinstance(value, str | int | bool | list | None)
    }
    emit_one(
        {"state": verdict.name.lower(), "age_s": age_us // 1_000_000, **shown, "incidents": titles},
        form,
    )
    sys.exit(verdict)


def judge(document: dict[str, object], age_us: int) -> Exit:
    """Return OK, DEGRADED or UNREACHABLE (not running).

    Degraded: no quorum, no validator in reach, or a verifier that does not find us resonant.
    """
    if age_us > statuses.STALE_US:
        return Exit.UNREACHABLE
    peers = document.get("peers")
    alone = not peers and document.get("validators") != 1
    dissonant = document.get("resonance", _RESONANT) != _RESONANT
    lost = document.get("quorum_lost") or document.get("resync_needed")
    return Exit.DEGRADED if lost or alone or dissonant else Exit.OK

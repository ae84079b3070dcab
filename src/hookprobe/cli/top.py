"""`hookprobe dsm top`: epochs, votes, lag and forks of a node, live."""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Row, Scalar, chosen_form, colours, emit_one
from hookprobe.config.load import load
from hookprobe.runtime import status as statuses
from hookprobe.runtime.clock import Clock
from hookprobe.wire.instant import SECOND, Instant

_BEHIND_ALARM = 2
_WAITING_ALARM_S = 300  # as HookProbeBlocksWaiting in deploy/prometheus


@click.command()
@config_option
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.2, 60))
@click.option("--count", default=0, help="Stop after so many looks; 0: when interrupted.")
@form_option
def top(path: Path | None, every: float, count: int, form: str | None) -> None:
    """Epochs, votes, lag and forks of a running node, renewed until interrupted.

    Off a terminal: one JSON object per look.
    """
    folder = load(path, os.environ, {}).file("state.path")
    shape = chosen_form(form)
    human = shape == "table" and sys.stdout.isatty()
    pause, clock = threading.Event(), Clock()
    before: Mapping[str, object] = {}
    looks = 0
    while True:
        document = statuses.read(folder)
        row = look(document, before, clock.now())
        if human:
            click.clear()
            for line in lines(row, colour=colours()):
                click.echo(line)
        else:
            emit_one(row, "jsonl" if form is None else shape)
        looks += 1
        if looks == count:
            return
        before = document
        pause.wait(every)


def look(document: Mapping[str, object], before: Mapping[str, object], now: Instant) -> Row:
    """Return what is shown of a status.

    Args:
        document: The status.
        before: An earlier one, for rates; may be empty.
        now: For its age.
    """
    at = document.get("at")
    age_s = round((now - at) / SECOND, 1) if isinstance(at, int) else None
    running = age_s is not None and age_s * SECOND <= statuses.STALE_US
    peers = document.get("peers")
    row: dict[str, Scalar] = {
        "node": _plain(document.get("node")),
        "role": _plain(document.get("role")),
        "state": "running" if running else "not running",
        "age_s": age_s,
        "final_epoch": _plain(document.get("last_epoch")),
        "open_epoch": _plain(document.get("open_epoch")),
        "view": _plain(document.get("view")),
        "epochs_behind": _plain(document.get("epochs_behind")),
        "waiting_s": _plain(document.get("waiting_s")),
        "quorum": f"{document.get('needed')} of {document.get('validators')}",
        "quorum_lost": bool(document.get("quorum_lost")),
        "peers": len(peers) if isinstance(peers, list) else 0,
        "blocks_per_s": _rate("blocks", document, before),
        "finality_ms": _finality_ms(document),
    }
    votes = _counts(document, "hookprobe_dsm_votes_total")
    row |= {f"votes_{kind}": votes.get(kind, 0) for kind in ("notarize", "finalize", "nullify")}
    return row | {
        "forks": _counts(document, "hookprobe_dsm_forks_total").get("", 0),
        "evidence": sum(_counts(document, "hookprobe_dsm_misbehaviours_total").values()),
        "webhooks_waiting": _plain(document.get("webhooks_waiting")),
    }


def lines(row: Row, *, colour: bool) -> list[str]:
    """Return a look as lines for people; alarms are marked, in red where there are colours."""
    behind, waiting_s = row["epochs_behind"], row["waiting_s"]
    alarms = {
        "state": row["state"] != "running",
        "quorum_lost": row["quorum_lost"] is True,
        "epochs_behind": isinstance(behind, int) and behind >= _BEHIND_ALARM,
        "waiting_s": isinstance(waiting_s, int) and waiting_s > _WAITING_ALARM_S,
        "forks": row["forks"] != 0,
        "evidence": row["evidence"] != 0,
    }
    width = max(len(name) for name in row)
    shown: list[str] = []
    for name, value in row.items():
        alarm = alarms.get(name, False)
        text = f"{name:<{width}}  {'-' if value is None else value}{' !' if alarm else ''}"
        shown.append(click.style(text, fg="red") if alarm and colour else text)
    return shown


def _plain(value: object) -> Scalar:
    return value if isinstance(value, str | int) else None


def _counts(document: Mapping[str, object], name: str) -> dict[str, int]:
    metrics = document.get("metrics")
    found = metrics.get(name) if isinstance(metrics, dict) else None
    return found if isinstance(found, dict) else {}


def _rate(name: str, document: Mapping[str, object], before: Mapping[str, object]) -> float | None:
    values = (document.get(name, 0), before.get(name, 0), document.get("at"), before.get("at"))
    new, old, at, then = values
    if not (isinstance(new, int) and isinstance(old, int)):
        return None
    if not (isinstance(at, int) and isinstance(then, int)) or at <= then or new < old:
        return None
    return round((new - old) * SECOND / (at - then), 1)


def _finality_ms(document: Mapping[str, object]) -> float | None:
    """Return the mean time from opening an epoch to its final checkpoint since the start."""
    metrics = document.get("metrics")
    found = metrics.get("hookprobe_dsm_finality_seconds") if isinstance(metrics, dict) else None
    if not isinstance(found, dict):
        return None
    counts, total_us = found.get("counts"), found.get("sum_us")
    number = sum(counts) if isinstance(counts, list) else 0
    return round(total_us / 1000 / number, 1) if number and isinstance(total_us, int) else None

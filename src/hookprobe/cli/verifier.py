"""`hookprobe verifier`: look at the devices of a running verifier and give it orders.

Every device is labelled. `software-attested`: a root user who feeds the agent the expected
measurement is not detected. `tpm-attested`: a TPM that somebody vouches for signs what was booted.
"""

from pathlib import Path

import click

from hookprobe.cli.asking import ask
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.neuro import measured
from hookprobe.cli.output import emit, emit_one
from hookprobe.cli.run import verifier
from hookprobe.neuro.envelope import ENVELOPE_MAX_BYTES
from hookprobe.runtime.keystore import read_file
from hookprobe.runtime.verifier_desk import SOCKET_FILE
from hookprobe.wire.canonical import Json, JsonObject


@verifier.command()
@config_option
@form_option
def devices(path: Path | None, form: str | None) -> None:
    """List the devices and how they stand."""
    emit(ask(path, SOCKET_FILE, {"op": "devices"}), form)


@verifier.command()
@click.argument("device")
@config_option
@form_option
@click.option("--measurement", help="40 hex digits; without it what the device reported last.")
def accept(path: Path | None, form: str | None, device: str, measurement: str | None) -> None:
    """Make a measurement of DEVICE golden: you looked at the machine and it is as it should be."""
    request: JsonObject = {"op": "accept", "node": device}
    if measurement is not None:
        request["measurement"] = measured(measurement, "--measurement").hex()
    emit(ask(path, SOCKET_FILE, request), form)


@verifier.command()
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", "named", multiple=True, help="Only on these devices; repeatable.")
@config_option
@form_option
def announce(path: Path | None, form: str | None, manifest: Path, named: tuple[str, ...]) -> None:
    """Allow the update of a signed MANIFEST (see `hookprobe neuro manifest sign`)."""
    nodes: list[Json] = list(named)
    data = read_file(manifest, limit=ENVELOPE_MAX_BYTES)
    request: JsonObject = {"op": "announce", "manifest": data.hex()}
    if nodes:
        request["nodes"] = nodes
    emit_one(ask(path, SOCKET_FILE, request)[0], form)


@verifier.command()
@click.argument("device")
@config_option
@form_option
def epoch(path: Path | None, form: str | None, device: str) -> None:
    """Begin a new weight epoch of DEVICE: after a fork, or when it lost its records."""
    emit(ask(path, SOCKET_FILE, {"op": "epoch", "node": device}), form)


@verifier.command(name="open")
@click.argument("device")
@click.argument("record", type=click.IntRange(0))
@config_option
@form_option
def open_record(path: Path | None, form: str | None, device: str, record: int) -> None:
    """Have DEVICE open the entropy commitment of RECORD, and check it."""
    emit_one(ask(path, SOCKET_FILE, {"op": "open", "node": device, "index": record})[0], form)


@verifier.command()
@click.argument("device")
@config_option
@form_option
def vouch(path: Path | None, form: str | None, device: str) -> None:
    """Confirm that the endorsement key DEVICE has shown is a real TPM's: you compared it there.

    Not needed where a maker's certificate is among the verifier's `neuro.tpm_roots`.
    """
    emit(ask(path, SOCKET_FILE, {"op": "vouch", "node": device}), form)

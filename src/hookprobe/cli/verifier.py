"""`hookprobe verifier`: look at the devices of a running verifier and give it orders.

Every device is labelled. `software-attested`: a root user who feeds the agent the expected
measurement is not detected. `tpm-attested`: a TPM that somebody vouches for signs what was booted.
"""

import sys
from pathlib import Path

import click

from hookprobe.cli.asking import ask
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.neuro import measured
from hookprobe.cli.output import Exit, Row, emit, emit_one
from hookprobe.cli.run import verifier
from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.bundle import BUNDLE_MAX_BYTES, BundleVerifier
from hookprobe.dsm.bundle_lines import bundled_blocks
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.microblock import SignedBlock
from hookprobe.neuro.envelope import ENVELOPE_MAX_BYTES
from hookprobe.node.resonance import ProofFound
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


@verifier.command()
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@form_option
def prove(path: Path | None, form: str | None, bundle: Path) -> None:
    """Check the NEURO proofs in the blocks of an evidence BUNDLE; exit 1 unless all hold.

    The verifier replays the device's history up to the record that each block names. The bundle
    itself is what `hookprobe verify` verifies.
    """
    data = read_file(bundle, limit=BUNDLE_MAX_BYTES)
    BundleVerifier(Schemes(Ed25519(), Bls())).check(data)
    rows: list[Row] = []
    for signed in bundled_blocks(data):
        request = _proof_of(signed)
        rows += (
            [{"seq": signed.seq, "proof": "none"}]
            if request is None
            else ask(path, SOCKET_FILE, request)
        )
    emit(rows, form)
    if any(row["proof"] != ProofFound.HOLDS.value for row in rows):
        sys.exit(Exit.FAILED)


def _proof_of(signed: SignedBlock) -> JsonObject | None:
    block = signed.block
    if block.neuro is None:
        return None
    return {
        "op": "proof",
        "node": block.node_id,
        "payload_hash": block.payload_hash.hex(),
        "prev": block.prev.hex(),
        "seq": block.seq,
        **block.neuro.to_json(),
    }

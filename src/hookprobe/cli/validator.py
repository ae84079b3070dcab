"""`hookprobe validator apply|approve|remove|status`: who decides, and orders that change it."""

import contextlib
import os
import secrets
from dataclasses import replace
from pathlib import Path

import click

from hookprobe.cli.asking import ask
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import emit, emit_one, message
from hookprobe.cli.run import validator
from hookprobe.config.load import load
from hookprobe.dsm.certificate import faults
from hookprobe.dsm.notes import NOTE_MAX_BYTES
from hookprobe.identity.secrets import SECRET_BYTES
from hookprobe.runtime import folders
from hookprobe.runtime.keystore import load_secrets, read_file, save_secrets
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.runtime.validator_desk import SOCKET_FILE
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import parse_block_id, parse_node_id

_ATTESTATION_MAX_BYTES = 3 << 10
_REVOCATION_MAX_BYTES = 4096


@validator.command()
@config_option
@form_option
def status(path: Path | None, form: str | None) -> None:
    """List the validators and the pending applications."""
    emit(ask(path, SOCKET_FILE, {"op": "status"}), form)


@validator.command()
@config_option
@form_option
@click.option(
    "--attestation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to publish with the application, at most 3 KiB; the ledger does not judge it.",
)
@click.option("--spare", is_flag=True, help="For voting with the spare key; see `rotate`.")
def apply(path: Path | None, form: str | None, attestation: Path | None, spare: bool) -> None:
    """Apply for a seat among the validators, or, being one, for other keys."""
    request: JsonObject = {"op": "apply"}
    if spare:
        request["spare"] = True
    if attestation is not None:
        request["attestation"] = read_file(attestation, limit=_ATTESTATION_MAX_BYTES).hex()
    _order(path, form, request)
    message("next: on other validators, hookprobe validator status, then approve")


@validator.command()
@click.argument("application")
@config_option
@form_option
def approve(path: Path | None, form: str | None, application: str) -> None:
    """Vote for the APPLICATION with this id."""
    _order(path, form, {"op": "approve", "application": parse_block_id(application)})


@validator.command()
@click.argument("name")
@config_option
@form_option
def remove(path: Path | None, form: str | None, name: str) -> None:
    """Vote to remove the validator NAME; with this validator's own name it leaves.

    Says so when the smaller set would tolerate fewer faulty members.
    """
    rows = ask(path, SOCKET_FILE, {"op": "status"})
    _order(path, form, {"op": "remove", "validator": parse_node_id(name)})
    size = sum(row["state"] == "member" for row in rows)
    if faults(size - 1) < faults(size):
        message(
            f"note: {size} validators tolerate {faults(size)} faulty ones, {size - 1} only "
            f"{faults(size - 1)}: admit another before this vote is carried"
        )


def _order(path: Path | None, form: str | None, request: JsonObject) -> None:
    emit_one(ask(path, SOCKET_FILE, request)[0], form)


@validator.command()
@click.argument("note", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@form_option
def witness(path: Path | None, form: str | None, note: Path) -> None:
    """Keep the witnesses' cosignatures in NOTE, a checkpoint of this validator's log.

    Only cosignatures by the keys in `dsm.log.witnesses` are kept; /tlog/checkpoint shows them.
    """
    data = read_file(note, limit=NOTE_MAX_BYTES)
    emit_one(ask(path, SOCKET_FILE, {"op": "witness", "note": data.hex()})[0], form)


@validator.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
@form_option
def revoke(path: Path | None, form: str | None, document: Path) -> None:
    """Write the authority's revocation in DOCUMENT on chain (see `hookprobe init revocation`)."""
    body = canonical.decode_object(read_file(document, limit=_REVOCATION_MAX_BYTES))
    _order(path, form, {"op": "revoke", "body": body})


@validator.command()
@config_option
def rotate(path: Path | None) -> None:
    """Make a spare voting key, or exchange the two; the validator must not run.

    With the spare at hand the validator runs as before. `apply --spare` has the set name it, two
    epochs later; from then on votes are made with it. Then `rotate` once more makes it the main
    key. The old one stays as the spare: remove voting.spare when the set has changed.
    """
    settings = load(path, os.environ, {})
    folder = settings.file("identity.path")
    with contextlib.closing(open_store(place_of(settings))):
        ours, spare = load_secrets(folder), folders.read_spare(folder)
        if not spare:
            folders.write_spare(folder, secrets.token_bytes(SECRET_BYTES))
            message(f"{folder / folders.SPARE_FILE}: made")
            message("next: start the validator, then hookprobe validator apply --spare")
            return
        # Both keys stand in the spare file until both files are as they should be: a crash
        # anywhere loses none.
        folders.write_spare(folder, spare[0], ours.voting)
        save_secrets(folder, replace(ours, voting=spare[0]))
        folders.write_spare(folder, ours.voting)
        message("exchanged: node.key votes with what was the spare")

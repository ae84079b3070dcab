"""`hookprobe validator apply|approve|remove|status`: who decides, and orders that change it."""

from pathlib import Path

import click

from hookprobe.cli.asking import ask
from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import emit, emit_one, message
from hookprobe.cli.run import validator
from hookprobe.dsm.notes import NOTE_MAX_BYTES
from hookprobe.runtime.keystore import read_file
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
def apply(path: Path | None, form: str | None, attestation: Path | None) -> None:
    """Apply for a seat among the validators, or, being one, for the keys of this folder."""
    request: JsonObject = {"op": "apply"}
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
    """Vote to remove the validator NAME; with this validator's own name it leaves."""
    _order(path, form, {"op": "remove", "validator": parse_node_id(name)})


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

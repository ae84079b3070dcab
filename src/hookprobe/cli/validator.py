"""`hookprobe validator ...`: who decides, and orders that change it."""

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
from hookprobe.crypto.bls import BlsSigner
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.dsm.certificate import faults
from hookprobe.dsm.genesis import GENESIS_MAX_BYTES, decode_genesis
from hookprobe.dsm.notes import NOTE_MAX_BYTES
from hookprobe.errors import ConfigError, LocalError
from hookprobe.identity.secrets import SECRET_BYTES
from hookprobe.neuro.quote_documents import QuoteAnswer
from hookprobe.node.seats import (
    Anchor,
    Past,
    Seat,
    Terms,
    encode_attestation,
    judge_attestation,
)
from hookprobe.runtime import folders
from hookprobe.runtime.keystore import load_secrets, read_file, save_secrets, write_atomically
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.runtime.tpm import Tpm
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
    """List the validators, and the pending applications with what they are attested by."""
    emit(ask(path, SOCKET_FILE, {"op": "status"}), form)


@validator.command()
@config_option
@form_option
@click.option(
    "--attestation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to publish with the application, as `attest` makes it; approvers judge it.",
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
@config_option
@click.option("--spare", is_flag=True, help="For an application with the spare key.")
@click.argument("out", type=click.Path(path_type=Path))
def attest(path: Path | None, spare: bool, out: Path) -> None:
    """Have this host's TPM (identity.tpm) say in OUT which keys are this validator's.

    The validator must run: its last final checkpoint goes in and dates what the TPM says. Apply
    soon: approvers refuse what is older than their dsm.validator.attestation_ms, a day if not set.

    Compare the key that is shown with what `validator status` shows to those who approve: they
    vouch for it in dsm.validator.tpm_keys.
    """
    settings = load(path, os.environ, {})
    place, folder = settings.text("identity.tpm"), settings.file("identity.path")
    if not place:
        raise ConfigError(["identity.tpm: names no TPM"])
    ours, seeds = load_secrets(folder), folders.read_spare(folder)
    if spare and not seeds:
        raise LocalError("there is no spare voting key", hint="hookprobe validator rotate")
    voter = BlsSigner(seeds[0] if spare else ours.voting)
    genesis = decode_genesis(read_file(folder / folders.GENESIS_FILE, limit=GENESIS_MAX_BYTES))
    signer = Ed25519Signer(ours.signing)
    seat = Seat(genesis.chain_id(), ours.node, signer.public_key, voter.public_key)
    anchor, tpm = _anchor(path), Tpm(place)
    public, quote = tpm.identify().attestation, tpm.quote(seat.about(anchor.checkpoint))
    answer = QuoteAnswer(quote.attest, quote.signature, quote.pcrs)
    made = encode_attestation(anchor, public, answer)
    past = Past({anchor.epoch: anchor}.get, anchor.epoch, anchor.time_ms)
    judged = judge_attestation(made, seat, past, Terms())
    if not judged.tpm_key:
        raise LocalError(f"this TPM gave what does not hold: {judged.reason}")
    write_atomically(out, made)
    message(f"TPM key {judged.tpm_key}, bound to the checkpoint of epoch {anchor.epoch}")
    message(f"next: hookprobe validator apply --attestation {out}")


def _anchor(path: Path | None) -> Anchor:
    """Return the last final checkpoint of the running validator."""
    row = ask(path, SOCKET_FILE, {"op": "checkpoint"})[0]
    epoch, time_ms = int(str(row["epoch"])), int(str(row["time_ms"]))
    return Anchor(epoch, bytes.fromhex(str(row["checkpoint"])), time_ms)


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

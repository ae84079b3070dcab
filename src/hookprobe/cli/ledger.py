"""`hookprobe dsm fsck|backup|restore|export|import|pending`: how an operator keeps a ledger."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.identity import locking_key, passphrase_option, recipient, unseal
from hookprobe.cli.output import emit, emit_one, message
from hookprobe.config.load import Config, load
from hookprobe.crypto.bls import Bls
from hookprobe.crypto.safe import SALT_BYTES
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.genesis import GENESIS_MAX_BYTES, decode_genesis
from hookprobe.errors import ConfigError, NotFoundError, VerificationError
from hookprobe.runtime import folders, identity_backup, ledger_export, ledger_moves, status
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.fsck_blocks import Audit
from hookprobe.runtime.identity_backup import SAFE_FILE, SAFE_MAX_BYTES
from hookprobe.runtime.keystore import read_file
from hookprobe.runtime.ledger_fsck import Retention, check_ledger
from hookprobe.runtime.ledger_moves import Terms
from hookprobe.runtime.ledger_store import open_store, place_of
from hookprobe.runtime.outside import open_pending

_path = click.Path(path_type=Path)
NOTHING: Mapping[str, str] = {}
_until_option = click.option(
    "--silent-until",
    type=click.IntRange(0),
    help="First epoch in which this validator may vote again; by the clock otherwise.",
)


def _terms(settings: Config) -> Terms:
    path = settings.file("identity.path") / folders.GENESIS_FILE
    genesis = decode_genesis(read_file(path, limit=GENESIS_MAX_BYTES))
    retention = Retention(
        settings.integer("dsm.storage.microblocks.retention_days"),
        settings.integer("dsm.storage.checkpoints.retention_days"),
    )
    return Terms(genesis, convene(genesis, Schemes(Ed25519(), Bls())), retention)


def _until(terms: Terms, asked: int | None) -> int:
    by_clock = ledger_moves.silent_until(terms.genesis, Clock().now())
    return by_clock if asked is None else asked


def _identity_in(source: Path) -> dict[str, str]:
    """Say whose identity lies in a backup, as far as can be told without opening it."""
    if not (source / SAFE_FILE).exists():
        return {"identity": "none"}
    about = identity_backup.describe(read_file(source / SAFE_FILE, limit=SAFE_MAX_BYTES))
    return {"identity": f"{about.get('node')}, sealed for a {about['lock']}"}


def _conclude(audit: Audit, form: str | None, more: Mapping[str, str] = NOTHING) -> None:
    """Show what was found; exit 1 if anything is wrong."""
    if audit.faults:
        emit([{"where": where, "what": what} for where, what in audit.faults], form)
        raise VerificationError(f"the ledger does not hold: {len(audit.faults)} faults")
    emit_one({"result": "OK", **audit.counts, **more}, form)


@click.command()
@config_option
@form_option
def fsck(path: Path | None, form: str | None) -> None:
    """Check every link, signature, root, certificate and receipt; exit 1 and say where not."""
    settings = load(path, os.environ, {})
    terms = _terms(settings)
    ledger = open_store(place_of(settings), read_only=True)
    try:
        ledger.check_pages()
        audit = check_ledger(terms.genesis, terms.court, ledger, terms.retention)
    finally:
        ledger.close()
    _conclude(audit, form)


@click.command()
@config_option
@click.option("--identity", is_flag=True, help="Also the node's keys and files, sealed.")
@passphrase_option
@click.option(
    "--recipient",
    "to",
    type=_path,
    help="Seal for the holder of this key (see `recipient`) instead.",
)
@click.argument("target", type=_path)
def backup(
    path: Path | None,
    identity: bool,
    passphrase_file: Path | None,
    to: Path | None,
    target: Path,
) -> None:
    """Copy the ledger as of now into a new folder; the node may be running."""
    settings = load(path, os.environ, {})
    chain = _terms(settings).court.chain
    safe = None
    if not identity and (passphrase_file is not None or to is not None):
        raise ConfigError(["--identity: without it there is nothing to lock"])
    if identity:
        key = locking_key(passphrase_file, to)
        salt = secrets.token_bytes(SALT_BYTES)
        safe = identity_backup.seal(settings, chain, key, salt)
    rows = ledger_moves.backup(place_of(settings), target, chain, Clock().now(), safe)
    message(f"{target}: {rows} rows{', identity sealed' if identity else ''}")
    if not identity:
        message("node.key is not in it: keep that apart, or use --identity")
    message(f"next: hookprobe dsm restore --check {target}")


@click.command()
@config_option
@form_option
@click.option("--check", is_flag=True, help="Only prove that the backup is whole and true.")
@_until_option
@click.argument("source", type=_path)
def restore(
    path: Path | None, form: str | None, check: bool, silent_until: int | None, source: Path
) -> None:
    """Put a backup in the ledger's place after checking all of it; the node must not run."""
    settings = load(path, os.environ, {})
    terms = _terms(settings)
    audit = ledger_moves.check_backup(source, terms)
    _conclude(audit, form, _identity_in(source) if check else {})
    if check:
        return
    until = _until(terms, silent_until)
    replaced = ledger_moves.restore(source, place_of(settings), until)
    if replaced is not None:
        message(f"the ledger that was there is in {replaced}")
    message(f"a validator signs nothing before epoch {until}: what it signed since is not known")


@click.command()
@config_option
@click.option("--payloads", is_flag=True, help="Disclose what blocks are about, too.")
@click.argument("target", type=_path)
def export(path: Path | None, payloads: bool, target: Path) -> None:
    """Write a validator's ledger into one file for others; the node may be running."""
    settings = load(path, os.environ, {})
    chain = _terms(settings).court.chain
    rows = ledger_export.export(place_of(settings), target, chain, payloads=payloads)
    message(f"{target}: {rows} rows")


@click.command(name="import")
@config_option
@form_option
@_until_option
@click.argument("source", type=_path)
def import_(path: Path | None, form: str | None, silent_until: int | None, source: Path) -> None:
    """Make this node's ledger of an export, if all of it holds; there must be none yet."""
    settings = load(path, os.environ, {})
    terms = _terms(settings)
    until = _until(terms, silent_until)
    _conclude(ledger_export.import_file(source, place_of(settings), terms, until), form)
    message(f"a validator signs nothing before epoch {until}")


@click.command()
@config_option
@form_option
def pending(path: Path | None, form: str | None) -> None:
    """Show what waits for agreement at a running validator: its open epoch, and blocks."""
    found = _waiting(load(path, os.environ, {}))
    if not found:
        raise NotFoundError("nothing is shown", hint="only a running validator shows what waits")
    emit_one(found, form)


def _waiting(settings: Config) -> dict[str, Any]:
    board = open_pending(settings, _terms(settings).court.chain, settings.text("dsm.node.id"))
    if board is not None:
        return board.read()
    told = status.read(settings.file("state.path")).get("pending")
    return told if isinstance(told, dict) else {}


COMMANDS = (fsck, backup, restore, unseal, recipient, export, import_, pending)

"""`hookprobe evidence export` and `hookprobe verify`: proof out of a node, proof into anybody."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Scalar, emit_one, message
from hookprobe.config.load import load
from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.bundle import BUNDLE_MAX_BYTES, BundleReport, BundleVerifier, export_bundle
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.errors import ConfigError, RemoteError
from hookprobe.runtime import folders
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.runtime.ledger_store import StorePlace, open_store, place_of
from hookprobe.wire.identifiers import NodeId, parse_block_id, parse_chain_id


@click.group()
def evidence() -> None:
    """Proof of what this node recorded."""


@evidence.command()
@config_option
@click.option("--block", help="Only what proves this microblock (64 hex digits).")
@click.option("--output", "target", required=True, type=click.Path(path_type=Path))
def export(path: Path | None, block: str | None, target: Path) -> None:
    """Write the blocks of this edge that are in certified checkpoints, with their proofs."""
    settings = load(path, os.environ, {})
    wanted = bytes.fromhex(parse_block_id(block)) if block else None
    data = export_state(
        settings.file("identity.path"),
        place_of(settings),
        NodeId(settings.text("dsm.node.id")),
        wanted,
    )
    write_atomically(target, data)
    message(f"{target}: {len(data)} bytes")
    message(f"next: hookprobe verify {target}")


def export_state(
    identity: Path, place: StorePlace, node: NodeId, block: bytes | None = None
) -> bytes:
    """Return the bundle of a node's ledger; the node may be running."""
    genesis = decode_genesis(read_file(identity / folders.GENESIS_FILE, limit=1 << 20))
    store = open_store(place, read_only=True)
    try:
        return export_bundle(genesis, node, store, block)
    finally:
        store.close()


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--trust", help="The chain to trust: its id, or a genesis.json you hold.")
@form_option
def verify(bundle: Path, trust: str | None, form: str | None) -> None:
    """Verify an evidence bundle offline; exit 1 and name the first wrong thing if it fails."""
    verifier = BundleVerifier(Schemes(Ed25519(), Bls()), _trusted(trust))
    try:
        report = verifier.check(read_file(bundle, limit=BUNDLE_MAX_BYTES))
    except RemoteError as error:
        emit_one({"result": "FAIL", "bundle": str(bundle), "first_fault": error.message}, form)
        raise
    emit_one({"result": "VERIFIED", **_shown(report)}, form)
    if not report.pinned:
        message("note: the chain was not pinned; compare its id, or verify with --trust")


def _trusted(trust: str | None) -> bytes | None:
    if trust is None:
        return None
    path = Path(trust)
    if path.exists():
        return decode_genesis(read_file(path, limit=1 << 20)).chain_id()
    try:
        return bytes.fromhex(parse_chain_id(trust))
    except RemoteError as error:
        raise ConfigError([f"--trust: {trust[:80]} is neither a chain id nor a file"]) from error


def _shown(report: BundleReport) -> dict[str, Scalar | Sequence[Scalar]]:
    return {
        "chain": report.chain.hex() + (" (pinned)" if report.pinned else " (not pinned)"),
        "nodes": list(report.nodes),
        "microblocks": report.blocks,
        "payloads_disclosed": report.disclosed,
        "checkpoints": list(report.epochs),
        "certified_by": f"at least {report.voters} of {report.validators} validators",
    }

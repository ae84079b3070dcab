"""`hookprobe init`: found a mesh, or enrol one more node of it."""

import secrets
from pathlib import Path

import click

from hookprobe.cli.output import message
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.genesis import EPOCH_DURATION_MAX_US, EPOCH_DURATION_MIN_US, decode_genesis
from hookprobe.dsm.governance import revoke
from hookprobe.errors import ConfigError
from hookprobe.identity import directory as directories
from hookprobe.identity.directory import parse_address
from hookprobe.node import provision
from hookprobe.node.provision import Enrolled, NodePlan
from hookprobe.runtime import folders
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId, parse_node_id, parse_tenant_id
from hookprobe.wire.instant import MILLISECOND

PORT = 4719
_require_tpm_option = click.option(
    "--require-tpm", is_flag=True, help="Validators approve only who is tpm-attested."
)


@click.group()
def init() -> None:
    """Found a mesh or enrol a node."""


@init.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", default="mesh", show_default=True, help="The mesh's name.")
@click.option("--validators", default=4, show_default=True, type=click.IntRange(1, 100))
@click.option("--at", "places", multiple=True, help="HOST:PORT of a validator; once for each.")
@click.option("--verifier-at", help="HOST:PORT of the verifier; on 127.0.0.1 if not given.")
@click.option("--no-verifier", is_flag=True, help="No NEURO: nobody judges devices' histories.")
@click.option("--edge", "edges", multiple=True, help="NAME or NAME@TENANT; may be repeated.")
@click.option("--port", default=PORT, show_default=True, help="First port, all on 127.0.0.1.")
@click.option("--epoch-ms", default=300_000, show_default=True, help="Length of an epoch.")
@_require_tpm_option
def mesh(
    folder: Path,
    name: str,
    validators: int,
    places: tuple[str, ...],
    verifier_at: str | None,
    no_verifier: bool,
    edges: tuple[str, ...],
    port: int,
    epoch_ms: int,
    require_tpm: bool,
) -> None:
    """Found a mesh in FOLDER: its authority and one folder for every node.

    Without --at all validators answer on 127.0.0.1: a mesh to try things with. Carry each node's
    folder to its machine; keep authority.key and grants.json away from all others. The verifier
    replays the edges' histories and tells validators whose reports count.
    """
    epoch_us = epoch_ms * MILLISECOND
    if not EPOCH_DURATION_MIN_US <= epoch_us <= EPOCH_DURATION_MAX_US:
        raise ConfigError([f"--epoch-ms: {epoch_ms} is not between 100 and 86400000"])
    addresses = places or tuple(f"127.0.0.1:{port + i}" for i in range(validators))
    verifier_place = verifier_at or f"127.0.0.1:{port + len(addresses)}"
    for address in (*addresses, verifier_place):
        parse_address(address)
    plans = [
        NodePlan(parse_node_id(f"validator-{i + 1}"), "validator", "operator", address)
        for i, address in enumerate(addresses)
    ]
    if not no_verifier:
        plans.append(NodePlan(NodeId("verifier-1"), "verifier", "operator", verifier_place))
    plans += [_edge_plan(text) for text in edges]
    folders.make_folder(folder)
    made = provision.found(parse_node_id(name), plans, epoch_us, Clock().now(), secrets.token_bytes)
    folders.write_authority(folder, made)
    documents = (made.genesis.encode(), made.directory)
    for plan, enrolled in zip(plans, made.nodes, strict=True):
        settings = _settings(plan, require_tpm=require_tpm)
        folders.write_node(folder / plan.node, enrolled, documents, settings)
        if plan.role == "verifier":
            folders.write_grants(folder / plan.node, made.grants())
    message(f"mesh {name}: {len(addresses)} validators, {len(edges)} edges in {folder}")
    if no_verifier:
        message("warning: without a verifier no device has to prove its history")
    if len(addresses) < 4:
        message("warning: fewer than 4 validators tolerate no fault")
    message(f"chain {made.genesis.chain_id().hex()}")
    message(f"next: hookprobe validator run -c {folder}/{plans[0].node}/hookprobe.yaml")


@init.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--mesh", "home", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True, help="The node's name.")
@click.option("--tenant", default="default", show_default=True)
def edge(folder: Path, home: Path, name: str, tenant: str) -> None:
    """Enrol an edge in FOLDER; publishes a new directory in the mesh's folder.

    Validators and the verifier take the new directory when they start; copy it to them.
    """
    plan = NodePlan(parse_node_id(name), "edge", parse_tenant_id(tenant))
    enrolled = _enrol(folder, home, plan)
    if (home / folders.GRANTS_FILE).exists():
        folders.write_grants(home, [*folders.read_grants(home), enrolled.grant()])
        message(f"next: copy {home}/grants.json and directory.json to the verifier")
    message(f"next: copy {home}/directory.json to the validators, then")
    message(f"      hookprobe edge run -c {folder}/hookprobe.yaml")


@init.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--mesh", "home", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True, help="The node's name.")
@click.option("--at", "place", required=True, help="HOST:PORT that the others dial.")
@_require_tpm_option
def validator(folder: Path, home: Path, name: str, place: str, require_tpm: bool) -> None:
    """Enrol a node in FOLDER that may apply for a seat among the validators.

    It watches the ledger until a quorum of the validators has approved it.
    """
    parse_address(place)
    plan = NodePlan(parse_node_id(name), "validator", "operator", place)
    _enrol(folder, home, plan, require_tpm=require_tpm)
    message(f"next: copy {home}/directory.json to all nodes and restart the validators, then")
    message(f"      hookprobe validator run -c {folder}/hookprobe.yaml")
    message(f"      hookprobe validator apply -c {folder}/hookprobe.yaml")


@init.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--mesh", "home", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--node", "name", required=True, help="The node whose blocks shall count no more.")
def revocation(out: Path, home: Path, name: str) -> None:
    """Sign into OUT that a node is revoked; carry it to any validator.

    Nothing of the node counts from the checkpoint on that follows. A validator's seat is not taken
    by this: that is for the validators to decide.
    """
    authority = folders.read_authority(home)
    genesis = decode_genesis(read_file(home / folders.GENESIS_FILE, limit=1 << 20))
    made = revoke(genesis.chain_id(), parse_node_id(name), authority.signer())
    write_atomically(out, canonical.encode(made.to_body()))
    message(f"next: hookprobe validator revoke {out} -c .../hookprobe.yaml")


def _enrol(folder: Path, home: Path, plan: NodePlan, *, require_tpm: bool = False) -> Enrolled:
    """Enrol a node in a folder and publish a new directory."""
    authority = folders.read_authority(home)
    genesis_data = read_file(home / folders.GENESIS_FILE, limit=1 << 20)
    genesis = decode_genesis(genesis_data)
    now = Clock().now()
    current = directories.accept(
        read_file(home / folders.DIRECTORY_FILE, limit=directories.DIRECTORY_MAX_BYTES),
        genesis.ca_keys,
        Ed25519(),
        now,
    )
    if current.find(plan.node) is not None:
        raise ConfigError([f"--name: {plan.node} is already enrolled"], hint="choose another name")
    chain = genesis.chain_id()
    enrolled = provision.enrol(plan, chain, authority, now, secrets.token_bytes)
    devices = [*current.devices, enrolled.device]
    signed = provision.publish(authority, chain, devices, version=current.version + 1, now=now)
    settings = _settings(plan, require_tpm=require_tpm)
    folders.write_node(folder, enrolled, (genesis_data, signed), settings)
    write_atomically(home / folders.DIRECTORY_FILE, signed)
    message(f"{plan.role} {plan.node} enrolled; directory version {current.version + 1} in {home}")
    return enrolled


def _edge_plan(text: str) -> NodePlan:
    name, _, tenant = text.partition("@")
    return NodePlan(parse_node_id(name), "edge", parse_tenant_id(tenant or "default"))


def _settings(plan: NodePlan, *, require_tpm: bool) -> dict[str, object]:
    host, port = parse_address(plan.address) if plan.address else ("", 0)
    # The address that others dial need not be one of this host's own: it may be a router's.
    anywhere = f"[::]:{port}" if ":" in host else f"0.0.0.0:{port}"
    listen = plan.address if host == "127.0.0.1" else anywhere
    dsm: dict[str, object] = {"node": {"id": str(plan.node), "role": plan.role}}
    if plan.role == "validator" and require_tpm:
        dsm["validator"] = {"require_tpm": True}
    settings: dict[str, object] = {"dsm": dsm, "htp": {"listen": [listen]}}
    if plan.role == "edge":
        settings["sensors"] = {"suricata": ["/var/log/suricata/eve.json"]}
    return settings

"""What stands in a node's folder and in a mesh authority's folder, written and read in one place.

A node's folder:

    hookprobe.yaml   its settings
    node.key         its secrets (0600)
    voting.spare     a validator's other voting key, while it changes it (0600)
    enrolment.json   its certificate, signed by the mesh authority
    genesis.json     the mesh's genesis document
    directory.json   the signed directory
    grants.json      a verifier's only: the secret half of its devices' enrolment (0600)
    state/           ledger and status

A mesh authority's folder holds authority.key (0600), genesis.json, directory.json, in a mesh with a
verifier grants.json (0600) and, as made by `hookprobe init mesh`, one folder for each node to be
carried to its machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hookprobe.dsm.genesis import GENESIS_MAX_BYTES
from hookprobe.errors import HostError, MalformedError
from hookprobe.identity.directory import DIRECTORY_MAX_BYTES
from hookprobe.identity.grant import (
    GRANTS_MAX_BYTES,
    DeviceGrant,
    decode_grants,
    encode_grants,
)
from hookprobe.identity.secrets import SECRET_BYTES, NodeSecrets
from hookprobe.node.provision import Authority, Enrolled, Mesh
from hookprobe.runtime.keystore import (
    load_secrets,
    read_file,
    read_private,
    save_secrets,
    write_atomically,
)
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields

SETTINGS_FILE = "hookprobe.yaml"
ENROLMENT_FILE = "enrolment.json"
GENESIS_FILE = "genesis.json"
DIRECTORY_FILE = "directory.json"
AUTHORITY_FILE = "authority.key"
GRANTS_FILE = "grants.json"
STATE_FOLDER = "state"
SPARE_FILE = "voting.spare"
_ENROLMENT_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The documents of one node."""

    secrets: NodeSecrets
    enrolment: bytes
    genesis: bytes
    directory: bytes
    spare_voting: tuple[bytes, ...]


def read_node(folder: Path, enrolment: Path | None = None) -> NodeFolder:
    """Read a node's documents.

    Args:
        folder: Where they are.
        enrolment: The node's certificate, where it is kept apart.

    Raises:
        HostError: One is missing, unreadable or readable by others.
        MalformedError: The key file is not one.
    """
    return NodeFolder(
        secrets=load_secrets(folder),
        enrolment=read_file(enrolment or folder / ENROLMENT_FILE, limit=_ENROLMENT_MAX_BYTES),
        genesis=read_file(folder / GENESIS_FILE, limit=GENESIS_MAX_BYTES),
        directory=read_file(folder / DIRECTORY_FILE, limit=DIRECTORY_MAX_BYTES),
        spare_voting=read_spare(folder),
    )


def read_spare(folder: Path) -> tuple[bytes, ...]:
    """Return the seeds of the spare voting keys; none outside of a rotation.

    Raises:
        HostError: Readable by others.
        MalformedError: Not a key; its content is never quoted.
    """
    path = folder / SPARE_FILE
    if not path.exists():
        return ()
    data = read_private(path)
    if len(data) not in {SECRET_BYTES, 2 * SECRET_BYTES}:
        raise MalformedError(f"{path}: not one or two voting keys")
    return tuple(data[at : at + SECRET_BYTES] for at in range(0, len(data), SECRET_BYTES))


def write_spare(folder: Path, *seeds: bytes) -> None:
    """Write the spare voting keys, readable by their owner only."""
    write_atomically(folder / SPARE_FILE, b"".join(seeds), mode=0o600)


def make_folder(folder: Path) -> None:
    """Make a new folder that only its owner may enter.

    Raises:
        HostError: It exists with something in it, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if next(folder.iterdir(), None) is not None:
            raise HostError(f"{folder} is not empty", hint="name a folder that does not exist yet")
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from error


def write_node(
    folder: Path, enrolled: Enrolled, mesh: tuple[bytes, bytes], settings: dict[str, object]
) -> None:
    """Write a node's folder.

    Args:
        folder: Where; it must be empty or new.
        enrolled: The node.
        mesh: Genesis document and signed directory.
        settings: What goes into `hookprobe.yaml`.
    """
    make_folder(folder)
    (folder / STATE_FOLDER).mkdir(mode=0o700)
    save_secrets(folder, enrolled.secrets)
    write_atomically(folder / ENROLMENT_FILE, enrolled.enrolment)
    write_atomically(folder / GENESIS_FILE, mesh[0])
    write_atomically(folder / DIRECTORY_FILE, mesh[1])
    text = yaml.safe_dump(settings, sort_keys=False)
    write_atomically(folder / SETTINGS_FILE, text.encode())


def write_authority(folder: Path, mesh: Mesh) -> None:
    """Write the authority's own documents into an existing folder."""
    document = canonical.encode(
        {
            "seed": mesh.authority.seed.hex(),
            "tenant_root": mesh.authority.tenant_root.hex(),
            "type": "A",
            "v": 1,
        }
    )
    write_atomically(folder / AUTHORITY_FILE, document, mode=0o600)
    write_atomically(folder / GENESIS_FILE, mesh.genesis.encode())
    write_atomically(folder / DIRECTORY_FILE, mesh.directory)
    if any(node.device.role == "verifier" for node in mesh.nodes):
        write_grants(folder, mesh.grants())


def write_grants(folder: Path, grants: Sequence[DeviceGrant]) -> None:
    """Write what a verifier must know, readable by its owner only."""
    write_atomically(folder / GRANTS_FILE, encode_grants(grants), mode=0o600)


def read_grants(folder: Path) -> tuple[DeviceGrant, ...]:
    """Read the grants of a verifier or a mesh authority.

    Raises:
        HostError: Missing or readable by others.
        MalformedError: Not a grants file; its content is never quoted.
    """
    return decode_grants(read_private(folder / GRANTS_FILE, limit=GRANTS_MAX_BYTES))


def read_authority(folder: Path) -> Authority:
    """Read the authority's secrets.

    Raises:
        HostError: Missing or readable by others.
        MalformedError: Not an authority file; its content is never quoted.
    """
    data = read_private(folder / AUTHORITY_FILE)
    try:
        fields = Fields(canonical.decode_object(data), "authority file")
        fields.literal("type", "A")
        fields.literal("v", 1)
        authority = Authority(fields.hex("seed", 32), fields.hex("tenant_root", 32))
        fields.finish()
    except MalformedError:
        raise MalformedError(f"{folder / AUTHORITY_FILE}: not an authority file") from None
    return authority

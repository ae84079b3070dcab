"""The identity of a node in a safe beside the backup of its ledger.

In it are the files that no other node can give back: keys, certificate, the mesh's documents,
settings, webhooks, tokens, and a verifier's grants. Not in it are an edge's records and weights
(`ter.log`, `neuro.snapshot`): a device that goes on from old ones looks like a copy of itself, so
it gets a new epoch instead. What a verifier knows of its devices is in the ledger.

Whoever opens the safe can be this node. Two machines that are one node contradict each other and
are convicted: the old one must be gone for good before the new one starts.
"""

from dataclasses import dataclass
from pathlib import Path

from hookprobe.config.load import Config
from hookprobe.crypto.safe import (
    SALT_BYTES,
    Passphrase,
    Recipient,
    RecipientSecret,
    lock,
    read_about,
    unlock,
)
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.errors import HostError, LimitExceededError, MalformedError, VerificationError
from hookprobe.identity import secrets
from hookprobe.identity.grant import GRANTS_MAX_BYTES
from hookprobe.runtime import folders
from hookprobe.runtime.access import TOKENS_FILE
from hookprobe.runtime.keystore import KEY_FILE, read_file, write_atomically
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.reader import Reader, Writer

SAFE_FILE = "identity.safe"
SAFE_MAX_BYTES = 64 << 20
WEBHOOKS_FILE = "webhooks.yaml"
_FILES_MAX = 16
_OPEN_FILES = (folders.ENROLMENT_FILE, folders.GENESIS_FILE, folders.DIRECTORY_FILE)
NAMES = (
    folders.SETTINGS_FILE,
    KEY_FILE,
    folders.SPARE_FILE,
    *_OPEN_FILES,
    folders.GRANTS_FILE,
    TOKENS_FILE,
    WEBHOOKS_FILE,
)


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """What was in a safe.

    Attributes:
        node: Whose.
        chain: Of which mesh.
        files: Content by name; names are of `NAMES`.
    """

    node: str
    chain: bytes
    files: dict[str, bytes]


def collect(config: Config) -> dict[str, bytes]:
    """Read the files of a node's identity; what it does not have is left out.

    Raises:
        HostError: One cannot be read, or the settings come from no file.
    """
    if config.path is None:
        raise HostError("the settings come from no file", hint="name it: -c FILE")
    home = config.file("identity.path")
    places = {name: home / name for name in NAMES}
    places[folders.SETTINGS_FILE] = config.path
    places[TOKENS_FILE] = config.file("state.path") / TOKENS_FILE
    if config.text("dsm.validator.certificate_path"):
        places[folders.ENROLMENT_FILE] = config.file("dsm.validator.certificate_path")
    if config.text("webhooks.path"):
        places[WEBHOOKS_FILE] = config.file("webhooks.path")
    else:
        del places[WEBHOOKS_FILE]
    needed = {folders.SETTINGS_FILE, KEY_FILE, *_OPEN_FILES}
    return {
        name: read_file(path, limit=GRANTS_MAX_BYTES)
        for name, path in places.items()
        if name in needed or path.exists()
    }


def seal(config: Config, chain: bytes, key: Passphrase | Recipient, salt: bytes) -> bytes:
    """Return a safe with a node's identity.

    Args:
        config: The node's settings.
        chain: The chain's id.
        key: Who may open it.
        salt: `SALT_BYTES` random bytes.

    Raises:
        HostError: A file cannot be read.
        LocalError: The key is none.
    """
    assert len(salt) == SALT_BYTES
    files = collect(config)
    writer = Writer().u16(len(files))
    for name, data in sorted(files.items()):
        writer.block16(name.encode()).block32(data)
    about: JsonObject = {"chain": chain.hex(), "node": config.text("dsm.node.id")}
    return lock(writer.finish(), about, key, salt)


def describe(data: bytes) -> JsonObject:
    """Return what a safe says of itself without being opened; nothing of it is proven.

    Raises:
        RemoteError: Not a safe.
    """
    about, how = read_about(data)
    return {**about, "lock": how}


def unseal(data: bytes, key: Passphrase | RecipientSecret) -> Identity:
    """Open a safe and check that what is in it fits together.

    Raises:
        RemoteError: It does not open, or holds something else than one node's identity.
    """
    about, content = unlock(data, key)
    files = _parse(content)
    missing = [
        name for name in (KEY_FILE, folders.SETTINGS_FILE, *_OPEN_FILES) if name not in files
    ]
    if missing:
        raise MalformedError(f"safe: without {missing[0]}")
    node = str(secrets.decode(files[KEY_FILE]).node)
    if node != about.get("node"):
        raise VerificationError("safe: the key in it is of another node")
    chain = decode_genesis(files[folders.GENESIS_FILE]).chain_id()
    if chain.hex() != about.get("chain"):
        raise VerificationError("safe: the genesis document in it is of another chain")
    return Identity(node, chain, files)


def _parse(content: bytes) -> dict[str, bytes]:
    reader, files = Reader(content, "safe"), dict[str, bytes]()
    count = reader.u16()
    if count > _FILES_MAX:
        raise LimitExceededError(f"safe: {count} files")
    for _ in range(count):
        name = reader.block16(64).decode("ascii", "replace")
        if name not in NAMES or name in files:
            raise MalformedError(f"safe: a file {name[:40]!r} does not belong in it")
        files[name] = reader.block32(GRANTS_MAX_BYTES)
    reader.finish()
    return files


def put_back(identity: Identity, folder: Path) -> None:
    """Write an identity into a new folder, as `hookprobe init` would have.

    Raises:
        HostError: The folder is not empty, or the disk failed.
    """
    folders.make_folder(folder)
    state = folder / folders.STATE_FOLDER
    state.mkdir(mode=0o700)
    for name, data in identity.files.items():
        place = state if name == TOKENS_FILE else folder
        write_atomically(place / name, data, mode=0o644 if name in _OPEN_FILES else 0o600)

"""Files that matter: secrets only their owner may read, and writes that a crash cannot tear."""

import os
from pathlib import Path

from hookprobe.errors import ConfigError, HostError
from hookprobe.identity import secrets
from hookprobe.identity.secrets import NodeSecrets

KEY_FILE = "node.key"
_OTHERS = 0o077
_ROOTS_MAX_BYTES = 1 << 20


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file as a whole: after a crash the old or the new content is there.

    Raises:
        HostError: The folder is not writable or the disk is full.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check rights and free space") from error


def read_file(path: Path, *, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        HostError: Not readable, or larger than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise HostError(f"{path}: larger than {limit} bytes")
    return data


def save_secrets(folder: Path, ours: NodeSecrets) -> None:
    """Write `node.key`, readable by its owner only."""
    write_atomically(folder / KEY_FILE, ours.encode(), mode=0o600)


def load_secrets(folder: Path) -> NodeSecrets:
    """Read `node.key`.

    Raises:
        HostError: Missing, or readable by others than its owner.
        MalformedError: Not a key file.
    """
    path = folder / KEY_FILE
    data = read_private(path)
    return secrets.decode(data)


def read_private(path: Path, *, limit: int = 4096) -> bytes:
    """Return a secret file's content, unless others than its owner may read it.

    Raises:
        HostError: Missing, unreadable, or with too open rights.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise HostError(
            f"{path}: {error.strerror}", hint="enrol this node first: hookprobe init --help"
        ) from error
    if mode & _OTHERS:
        raise HostError(
            f"{path}: rights {mode & 0o777:o} let others read it", hint=f"chmod 600 {path}"
        )
    return read_file(path, limit=limit)


def read_roots(path: Path) -> list[bytes]:
    """Return the certificates of a PEM file, each as DER.

    Raises:
        HostError: Not readable.
        ConfigError: No certificate in it, or one that cannot be read.
    """
    from cryptography import x509  # as in `crypto.tpm`: most nodes never need it
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(read_file(path, limit=_ROOTS_MAX_BYTES))
    except ValueError as error:
        raise ConfigError([f"{path}: not a PEM file of certificates"]) from error
    return [certificate.public_bytes(Encoding.DER) for certificate in found]

"""One process writes a node's ledger, and it is one ledger: the lock and the mark beside it.

Two processes that sign as one node would fork its chain. So would one that is started with another
backend, or another path, than the one that holds what this node has signed: it would find an empty
ledger. The mark names the place that is in use; it changes only when a ledger is moved.
"""

import fcntl
import os
from pathlib import Path

from hookprobe.errors import HostError
from hookprobe.runtime.keystore import write_atomically

LOCK_NAME = "ledger.lock"
MARK_NAME = "ledger.place"
RESTORING = "restoring"
_MARK_MAX_BYTES = 8192


class StoreLock:
    """Held while a process may write a node's ledger.

    Args:
        state: The node's state folder; it must exist.

    Raises:
        HostError: Another process holds it, or the folder cannot be written.
    """

    def __init__(self, state: Path) -> None:
        path = state / LOCK_NAME
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", hint="check the state folder") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise HostError(
                f"{state} is in use by another hookprobe process",
                hint="stop it first; two processes of one node would fork its chain",
            ) from error
        self._handle: int | None = handle

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_mark(state: Path) -> str:
    """Return where this node's ledger is, as `write_mark` wrote it; empty where nothing says so.

    Raises:
        HostError: The mark cannot be read.
    """
    path = state / MARK_NAME
    try:
        with path.open("rb") as file:
            return file.read(_MARK_MAX_BYTES).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check the state folder") from error


def write_mark(state: Path, place: str) -> None:
    """Say durably where this node's ledger is."""
    write_atomically(state / MARK_NAME, place.encode() + b"\n")

"""The key log of a node, written as sessions begin; see `htp.keylog` for its form."""

import os
from pathlib import Path

from hookprobe.config.load import Config
from hookprobe.errors import HostError
from hookprobe.htp.keylog import KEYLOG_MAX_BYTES, NOTICE, format_handshake, format_line
from hookprobe.runtime.logs import JsonLog, Level


def open_keylog(config: Config, log: JsonLog) -> "KeyLogFile | None":
    """Return the key log that the settings order, and say so aloud; None if they do not.

    Raises:
        HostError: As `KeyLogFile`.
    """
    path = config.text("htp.keylog")
    if not path:
        return None
    log.event("KeysWrittenDown", Level.WARNING, path=path, hint="secret: unset htp.keylog")
    return KeyLogFile(config.folder / path)


class KeyLogFile:
    """Appends to a file that only its owner may read; beyond 16 MiB nothing is added.

    Args:
        path: The file; it is made with a notice of what it is.

    Raises:
        HostError: It cannot be written, or others may read it.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.fdopen(os.open(path, flags, 0o600), "a", encoding="ascii")
            facts = os.fstat(self._file.fileno())
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", hint="htp.keylog names it") from error
        if facts.st_mode & 0o077:
            self.close()
            raise HostError(f"{path}: others may read it", hint=f"chmod 600 {path}")
        self._size = facts.st_size
        if not self._size:
            self._write(NOTICE)

    def note(self, token: bytes, key: bytes, salt: bytes) -> None:
        """Write the key of packets that carry `token`."""
        self._write(format_line(token, key, salt))

    def note_handshake(self, message: bytes, key: bytes, nonce: bytes, transcript: bytes) -> None:
        """Write what opens the body of a handshake message."""
        self._write(format_handshake(message, key, nonce, transcript))

    def _write(self, text: str) -> None:
        if self._size + len(text) <= KEYLOG_MAX_BYTES:
            self._size += len(text)
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        self._file.close()

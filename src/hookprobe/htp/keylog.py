"""Keys of sessions, written down for whoever must look into packets: secret, and only on order.

    HTP2 FLOW_TOKEN(16 hex digits) KEY(64) SALT(8)

One line for each direction: packets that carry this token open under this key; a renewal adds more.
"""

from hookprobe.crypto.sealing import CipherCache, OpeningKey
from hookprobe.errors import MalformedError, RemoteError
from hookprobe.htp.packet import HEADER_BYTES, SEALED_OVERHEAD_BYTES, SESSION_TYPES, decode_header

NOTICE = (
    "# SECRET: session keys of a HookProbe node. Whoever has this file reads, and may forge, the\n"
    "# packets of these sessions. Written because htp.keylog is set; delete it when you are done.\n"
)
KEYLOG_MAX_BYTES = 16 << 20
_LABEL = "HTP2"
_SIZES = (8, 32, 4)


def format_line(token: bytes, key: bytes, salt: bytes) -> str:
    """Return one line with its end."""
    return f"{_LABEL} {token.hex()} {key.hex()} {salt.hex()}\n"


class KeyRing:
    """The keys of a log.

    Args:
        text: Its content; empty lines and those that begin with # are skipped.

    Raises:
        MalformedError: A line is not of the form above; it is never quoted.
    """

    def __init__(self, text: str) -> None:
        self._ciphers = CipherCache(64)
        self._keys: dict[bytes, OpeningKey] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                token, key, salt = _parse(line, number)
                self._keys[token] = OpeningKey(key, salt, self._ciphers)

    def __len__(self) -> int:
        return len(self._keys)

    def open(self, data: bytes) -> bytes | None:
        """Return the plaintext of a session packet; None if no key of ours opens it."""
        try:
            header = decode_header(data)
            key = self._keys.get(header.flow_token)
            whole = len(data) >= SEALED_OVERHEAD_BYTES and header.kind in SESSION_TYPES
            if key is None or not whole:
                return None
            return key.open(header.nonce, data[HEADER_BYTES:], data[:HEADER_BYTES])
        except RemoteError:
            return None


def _parse(line: str, number: int) -> tuple[bytes, bytes, bytes]:
    words = line.split()
    try:
        token, key, salt = (bytes.fromhex(word) for word in words[1:])
    except ValueError:
        raise MalformedError(f"key log: line {number} is not one of a key log") from None
    if words[0] != _LABEL or (len(token), len(key), len(salt)) != _SIZES:
        raise MalformedError(f"key log: line {number} is not one of a key log")
    return token, key, salt

"""Keys of sessions, written down for whoever must look into packets: secret, and only on order.

    HTP2 FLOW_TOKEN(16 hex digits) KEY(64) SALT(8)
    HTP2-HANDSHAKE SHA256(64) KEY(64) NONCE(24) TRANSCRIPT(64)

The first is written for each direction of a session: packets that carry this token open under this
key; a renewal adds more. The second is written for every ATTEST, ACCEPT and sealed REJECT that was
sent or opened: the body of the datagram with this hash, of its two the one that ends with the body,
opens with ChaCha20-Poly1305 under this key and nonce, with the transcript as associated data. The
hash stands for what the transcript covers: in a datagram that was changed anywhere, nothing opens.
"""

from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.crypto.sealing import CipherCache, OpeningKey
from hookprobe.errors import MalformedError, RemoteError
from hookprobe.htp.exchange import (
    ACCEPT_BODY_BYTES,
    ACCEPT_REPEATED_BYTES,
    ATTEST_BODY_BYTES,
    ATTEST_REPEATED_BYTES,
    split_message,
)
from hookprobe.htp.packet import (
    HEADER_BYTES,
    SEALED_OVERHEAD_BYTES,
    SESSION_TYPES,
    TAG_BYTES,
    PacketType,
    decode_header,
)

NOTICE = (
    "# SECRET: session keys of a HookProbe node. Whoever has this file reads, and may forge, the\n"
    "# packets of these sessions. Written because htp.keylog is set; delete it when you are done.\n"
)
KEYLOG_MAX_BYTES = 16 << 20
_SESSION, _HANDSHAKE = "HTP2", "HTP2-HANDSHAKE"
_SIZES = {_SESSION: (8, 32, 4), _HANDSHAKE: (32, 32, 12, 32)}
_BODY_BYTES = {
    PacketType.ATTEST: ATTEST_BODY_BYTES,
    PacketType.ACCEPT: ACCEPT_BODY_BYTES,
    PacketType.REJECT: ACCEPT_BODY_BYTES,
}


class _Terms(NamedTuple):
    """What opens one body."""

    key: bytes
    nonce: bytes
    transcript: bytes


def format_line(token: bytes, key: bytes, salt: bytes) -> str:
    """Return the line of one direction of a session, with its end."""
    return f"{_SESSION} {token.hex()} {key.hex()} {salt.hex()}\n"


def format_handshake(message: bytes, key: bytes, nonce: bytes, transcript: bytes) -> str:
    """Return the line of a whole ATTEST, ACCEPT or sealed REJECT, with its end."""
    attest = decode_header(message).kind is PacketType.ATTEST
    repeated = ATTEST_REPEATED_BYTES if attest else ACCEPT_REPEATED_BYTES
    digest = sha256(split_message(message, repeated)[-1])
    return f"{_HANDSHAKE} {digest.hexdigest()} {key.hex()} {nonce.hex()} {transcript.hex()}\n"


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
        self._terms: dict[bytes, _Terms] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                self._take(_parse(line, number))

    def _take(self, fields: list[bytes]) -> None:
        name, key, third, *rest = fields
        if rest:
            self._terms[name] = _Terms(key, third, rest[0])
        else:
            self._keys[name] = OpeningKey(key, third, self._ciphers)

    def __len__(self) -> int:
        return len(self._keys) + len(self._terms)

    def open(self, data: bytes) -> bytes | None:
        """Return the plaintext of a session packet, or of the body that ends a handshake message.

        None: no key of ours opens it.
        """
        try:
            header = decode_header(data)
            if header.kind in _BODY_BYTES:
                return self._open_body(header.kind, data)
            key = self._keys.get(header.flow_token)
            whole = len(data) >= SEALED_OVERHEAD_BYTES and header.kind in SESSION_TYPES
            if key is None or not whole:
                return None
            return key.open(header.nonce, data[HEADER_BYTES:], data[:HEADER_BYTES])
        except RemoteError:
            return None

    def _open_body(self, kind: PacketType, data: bytes) -> bytes | None:
        terms = self._terms.get(sha256(data).digest())
        if terms is None:
            return None
        sealed = data[-_BODY_BYTES[kind] - TAG_BYTES :]
        try:
            return ChaCha20Poly1305(terms.key).decrypt(terms.nonce, sealed, terms.transcript)
        except InvalidTag:
            return None


def _parse(line: str, number: int) -> list[bytes]:
    label, *words = line.split()
    try:
        fields = [bytes.fromhex(word) for word in words]
    except ValueError:
        raise MalformedError(f"key log: line {number} is not one of a key log") from None
    if tuple(map(len, fields)) != _SIZES.get(label):
        raise MalformedError(f"key log: line {number} is not one of a key log")
    return fields

"""The outer form of every packet (HTP spec 3.1).

    off len field
     0   2  version        2; nothing else is read
     2   2  type           HELLO 01 CHALLENGE 02 ATTEST 03 ACCEPT 04 REJECT 05
                           DATA 10 HEARTBEAT 20 ACK 21 CLOSE FF
     4   4  sequence       number of the message
     8   4  timestamp      milliseconds since the session began, mod 2^32
    12   8  flow_token     chosen by the receiver of the packet
    20   8  nonce          number of the packet, per direction
    28   1  flags          29 1 mode     30 1 frag_index     31 1 frag_last
    32  64  resonance      RDV (32) || PoSF (32)
    96   4  payload_length 100.. payload and zero padding, then 16 bytes of tag

In session packets everything from offset 32 is sealed and the 32-byte header is the associated
data. Reserved bits are zero, and a packet in which they are not is refused: an extension that an
old node would silently misread cannot be sent to it.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from hookprobe.errors import MalformedError

VERSION = 2
HEADER_BYTES = 32
RESONANCE_BYTES = 64
TAG_BYTES = 16
PREFIX_BYTES = HEADER_BYTES + RESONANCE_BYTES + 4
SEALED_OVERHEAD_BYTES = PREFIX_BYTES + TAG_BYTES  # 116, the smallest session packet
VEIL_BYTES = 12  # what GHOST hides of the header, see `veil`
TOKEN_START = 12
TOKEN_BYTES = 8
TOKEN_STOP = TOKEN_START + TOKEN_BYTES
ZERO_TOKEN = bytes(TOKEN_BYTES)
ZERO_RESONANCE = bytes(RESONANCE_BYTES)

FLAG_ACK_ELICITING = 1
FLAG_RES_FRESH = 2
FLAG_RESPONSE = 4
FLAG_UNRELIABLE = 8
_FLAGS_KNOWN = FLAG_ACK_ELICITING | FLAG_RES_FRESH | FLAG_RESPONSE | FLAG_UNRELIABLE


class PacketType(IntEnum):
    """The nine types."""

    HELLO = 0x01
    CHALLENGE = 0x02
    ATTEST = 0x03
    ACCEPT = 0x04
    REJECT = 0x05
    DATA = 0x10
    HEARTBEAT = 0x20
    ACK = 0x21
    CLOSE = 0xFF


class Mode(IntEnum):
    """How a packet was sent: a hint for whoever looks at it, not trusted, and GHOST a form."""

    NORMAL = 0
    BURST = 1
    SWARM = 2
    GHOST = 3


MODE_MAX = max(Mode)
SESSION_TYPES = frozenset(kind for kind in PacketType if kind >= PacketType.DATA)

_KINDS = {kind.value: kind for kind in PacketType}
_VERSION_WORD = VERSION << 16
_HEADER = struct.Struct(">III8sQI")  # tail: flags, mode, frag_index, frag_last
BULK_WORD = _VERSION_WORD | PacketType.DATA
BEAT_WORD = _VERSION_WORD | PacketType.HEARTBEAT
BEAT_TAIL = (FLAG_ACK_ELICITING | FLAG_RES_FRESH) << 24
bulk_start = struct.Struct(">III8s").pack  # the first 20 bytes: version and type, and so on
_FIELDS = struct.Struct(">HHII8sQBBBB")


class Columns(NamedTuple):
    """Fields of the headers of several packets: version and type, timestamp, and so on."""

    words: tuple[int, ...]
    timestamps: tuple[int, ...]
    tokens: tuple[bytes, ...]
    numbers: tuple[int, ...]
    tails: tuple[int, ...]  # flags << 24 | mode << 16 | frag_index << 8 | frag_last


class Block:
    """Session packets of one size, back to back as the host gives them; unchecked.

    Args:
        data: At least one packet.
        size: Of each, more than that of the smallest session packet; what is left behind the last
            whole one is not looked at.
    """

    __slots__ = ("_data", "_size")

    def __init__(self, data: bytes, size: int) -> None:
        self._data = memoryview(data)[: len(data) - len(data) % size]
        self._size = size

    @property
    def columns(self) -> Columns:
        """The headers, field by field."""
        fields, _ = _block_layouts(self._size)
        return Columns(*zip(*fields.iter_unpack(self._data), strict=True))

    @property
    def rows(self) -> Iterable[tuple[bytes, bytes]]:
        """The packets as (header, what is sealed)."""
        _, halves = _block_layouts(self._size)
        return halves.iter_unpack(self._data)


@lru_cache(maxsize=64)
def _block_layouts(size: int) -> tuple[struct.Struct, struct.Struct]:
    sealed = size - HEADER_BYTES
    return struct.Struct(f">I4xI8sQI{sealed}x"), struct.Struct(f"{HEADER_BYTES}s{sealed}s")


class Header(NamedTuple):
    """The 32 clear bytes in front of every packet."""

    kind: PacketType
    sequence: int
    timestamp: int
    flow_token: bytes
    nonce: int
    flags: int
    mode: int
    frag_index: int
    frag_last: int


def encode_header(
    kind: PacketType, sequence: int, timestamp: int, flow_token: bytes, nonce: int, tail: int
) -> bytes:
    """Return the 32 bytes; `tail` is flags << 24 | mode << 16 | frag_index << 8 | frag_last."""
    return _HEADER.pack(_VERSION_WORD | kind, sequence, timestamp, flow_token, nonce, tail)


def decode_header(data: bytes) -> Header:
    """Read the header at the front of a datagram.

    Raises:
        MalformedError: Short, another version, an unknown type or reserved bits in use.
    """
    if len(data) < HEADER_BYTES:
        raise MalformedError(f"packet: {len(data)} bytes, a header has {HEADER_BYTES}")
    version, number, sequence, timestamp, token, nonce, flags, mode, index, last = (
        _FIELDS.unpack_from(data)
    )
    if version != VERSION:
        raise MalformedError("packet: not HTP version 2")
    kind = _KINDS.get(number)
    if kind is None:
        raise MalformedError("packet: unknown type")
    if flags > _FLAGS_KNOWN or mode > MODE_MAX or index > last:
        raise MalformedError("packet: reserved bits or an impossible fragment number")
    fields = (kind, sequence, timestamp, token, nonce, flags, mode, index, last)
    return tuple.__new__(Header, fields)  # a call of the class goes through a function in Python


def unpack_header(data: bytes) -> tuple[int, int, int, bytes, int, int]:
    """Return version and type, sequence, timestamp, token, nonce and tail, unchecked.

    The datagram must have 32 bytes at least.
    """
    return _HEADER.unpack_from(data)


@lru_cache(maxsize=64)
def bulk_tails(last: int) -> tuple[bytes, ...]:
    """Return the last 4 bytes of the headers of bulk packets, for each fragment of a chunk."""
    return tuple(bytes((FLAG_ACK_ELICITING, 0, place, last)) for place in range(last + 1))


def encode_body(resonance: bytes, payload: bytes, padded: int = 0) -> bytes:
    """Return resonance || payload_length || payload, zero-padded to `padded` payload bytes."""
    return b"".join((resonance, len(payload).to_bytes(4), payload.ljust(padded, b"\0")))


def decode_body(plain: bytes) -> tuple[bytes, bytes]:
    """Return (resonance, payload) of an opened or clear body.

    Raises:
        MalformedError: Too short, a length beyond the end, or padding that is not zero.
    """
    start = RESONANCE_BYTES + 4
    if len(plain) < start:
        raise MalformedError("packet: body without resonance and length")
    stop = start + int.from_bytes(plain[RESONANCE_BYTES:start])
    if stop > len(plain):
        raise MalformedError("packet: payload length beyond the end")
    if stop < len(plain) and plain.count(0, stop) != len(plain) - stop:
        raise MalformedError("packet: padding is not zero")
    return plain[:RESONANCE_BYTES], plain[start:stop]


def check_handshake_header(header: Header, sequence: int, flags: int = 0) -> None:
    """Refuse a handshake header whose session-only fields are in use.

    Raises:
        MalformedError: A counter, time, mode or flag that the handshake keeps at its fixed value.
    """
    if (header.sequence, header.timestamp, header.nonce, header.mode) != (sequence, 0, 0, 0):
        raise MalformedError("packet: session fields in a handshake header")
    if header.flags & ~flags:
        raise MalformedError("packet: session flags in a handshake header")


def check_session_header(header: Header) -> None:
    """Refuse a session packet whose fields have no meaning together.

    Raises:
        MalformedError: A flag or mode that is not in use yet or not on this type, or fragments of
            what has none.
    """
    kind, flags = header.kind, header.flags
    if flags & FLAG_RESPONSE or header.mode == Mode.GHOST:
        raise MalformedError("session packet: a flag not in use yet, or a veil under a veil")
    if header.mode and kind is not PacketType.DATA:
        raise MalformedError(f"{kind.name}: a mode outside DATA")
    if kind is not PacketType.DATA and header.frag_last:
        raise MalformedError(f"{kind.name}: a fragment")
    if flags & FLAG_RES_FRESH and kind is not PacketType.HEARTBEAT:
        raise MalformedError(f"{kind.name}: a fresh beacon outside a heartbeat")
    if flags & FLAG_UNRELIABLE and kind is not PacketType.DATA:
        raise MalformedError(f"{kind.name}: a datagram of no message")

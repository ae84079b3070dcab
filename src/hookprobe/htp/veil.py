"""The form of GHOST packets (HTP spec 3.7): on the outside all alike, what they are is inside.

Outside, every one is a DATA packet of 1200 bytes with sequence, timestamp and fragment fields zero;
only the packet number differs. The sealed payload begins with what the header hides:

    off len field
     0   1  type           as in a header
     1   1  flags
     2   1  frag_index
     3   1  frag_last
     4   4  sequence
     8   4  timestamp
    12  ..  the payload of that packet
"""

import struct

from hookprobe.errors import MalformedError
from hookprobe.htp.packet import SESSION_TYPES, VEIL_BYTES, Header, PacketType
from hookprobe.htp.session import Opened

_VEIL = struct.Struct(">BBBBII")
_KINDS = {kind.value: kind for kind in SESSION_TYPES}
_FLAGS_MAX = 15


def veil(kind: PacketType, tail: int, sequence: int, timestamp: int, payload: bytes) -> bytes:
    """Return a veiled payload; `tail` is flags << 24 | frag_index << 8 | frag_last."""
    fields = (tail >> 24, tail >> 8 & 0xFF, tail & 0xFF, sequence, timestamp)
    return _VEIL.pack(kind, *fields) + payload


def unveil(opened: Opened) -> Opened:
    """Return the packet inside a packet of GHOST mode.

    Raises:
        MalformedError: Not the outside they all have, or no session packet inside.
    """
    outer, payload = opened.header, opened.payload
    plain = (outer.sequence, outer.timestamp, outer.frag_index, outer.frag_last) == (0, 0, 0, 0)
    if outer.kind is not PacketType.DATA or not plain or len(payload) < VEIL_BYTES:
        raise MalformedError("GHOST: not the outside that all of them have")
    kind, flags, index, last, sequence, timestamp = _VEIL.unpack_from(payload)
    if kind not in _KINDS or flags > _FLAGS_MAX or index > last:
        raise MalformedError("GHOST: no session packet inside")
    fields = (sequence, timestamp, outer.flow_token, outer.nonce, flags, 0, index, last)
    header = Header(_KINDS[kind], *fields)
    return Opened(header, opened.resonance, payload[VEIL_BYTES:], opened.newest)

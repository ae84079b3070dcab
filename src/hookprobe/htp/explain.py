"""Any packet, field by field, for people: the rows behind `hookprobe inspect`.

Nothing is verified here and nothing is refused: a packet that breaks the rules is explained as far
as it goes, and the first broken rule is named. Sealed parts are shown as sealed, unless the caller
has opened them and passes the plaintext.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hookprobe.errors import RemoteError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.exchange import ATTEST_REPEATED_BYTES
from hookprobe.htp.messages import (
    BARE_REJECT_BYTES,
    decode_ack,
)
from hookprobe.htp.packet import (
    HEADER_BYTES,
    PREFIX_BYTES,
    SESSION_TYPES,
    TAG_BYTES,
    VEIL_BYTES,
    Header,
    Mode,
    PacketType,
    decode_header,
)

_SHOWN_BYTES = 16
_FLAGS = {1: "ACK_ELICITING", 2: "RES_FRESH", 4: "RESPONSE", 8: "UNRELIABLE"}
_MODES = tuple(mode.name for mode in Mode)
_SESSION_KINDS = {kind.value: kind for kind in SESSION_TYPES}

_HEADER = (
    ("version", 2),
    ("type", 2),
    ("sequence", 4),
    ("timestamp", 4),
    ("flow_token", 8),
    ("nonce", 8),
    ("flags", 1),
    ("mode", 1),
    ("frag_index", 1),
    ("frag_last", 1),
)
_BODY = (("RDV", 32), ("PoSF", 32), ("payload_length", 4))
_HELLO = (
    ("client_random", 32),
    ("key_id", 8),
    ("suites", 2),
    ("ver_min", 2),
    ("ver_max", 2),
    ("edge_token", 8),
)
_CHALLENGE = (("cookie", 16), ("generation", 2), ("suite", 2))
_VEIL = (
    ("hidden_type", 1),
    ("hidden_flags", 1),
    ("hidden_frag_index", 1),
    ("hidden_frag_last", 1),
    ("hidden_sequence", 4),
    ("hidden_timestamp", 4),
)
_REJECT = (("code", 2), ("retry_after_s", 4))
_ATTEST = (("cookie", 16), ("generation", 2), ("suite", 2), ("hello_hash", 32))
_ATTEST_BODY = (("node_id", 32), ("W_fingerprint", 64), ("signature", 64), ("capabilities", 8))
_ACCEPT_BODY = (
    ("secret_seed", 32),
    ("validator_token", 8),
    ("reset_token", 16),
    ("trust", 2),
    ("heartbeat_s", 2),
    ("rekey_s", 4),
    ("max_udp", 2),
    ("unix_ms", 8),
)
_HEARTBEAT = (
    ("probe", 8),
    ("ter_sequence", 4),
    ("battery", 1),
    ("power", 1),
    ("load", 1),
    ("qsecbit", 2),
)
_ACK = (
    ("largest", 8),
    ("ack_delay_us", 4),
    ("echo_ts", 4),
    ("credit_kib", 4),
    ("trust", 2),
    ("heartbeat_s", 2),
    ("ack_flags", 1),
    ("ranges", 1),
    ("probe_echo", 8),
    ("first_len", 4),
)
_FRAGMENT = (
    ("kind", 1),
    ("flags", 1),
    ("chunk_index", 2),
    ("number", 4),
    ("chunks", 4),
    ("tag", 4),
)
_NUMBERS = frozenset(
    name
    for fields in (
        _HEADER,
        _BODY,
        _HELLO,
        _CHALLENGE,
        _REJECT,
        _VEIL,
        _ATTEST,
        _ACCEPT_BODY,
        _HEARTBEAT,
        _ACK,
        _FRAGMENT,
    )
    for name, size in fields
    if size <= 4 or name in ("nonce", "largest", "unix_ms")
) - {"tag"}


class Row(NamedTuple):
    """One field: where it stands, how long it is, its name, its value in words."""

    offset: int
    length: int
    field: str
    value: str


def explain(data: bytes, opened: bytes | None = None) -> list[Row]:
    """Return the fields of a datagram in order of their offsets.

    Args:
        data: The datagram.
        opened: The plaintext of the sealed part of a session packet, or of the body that ends a
            message of a handshake, if the caller has the keys.

    Returns:
        Rows that cover the datagram without gap or overlap. A last row `problem` of length 0 says
        which rule the header breaks, if any.
    """
    rows = list(_fields(data, 0, _HEADER))
    try:
        header = decode_header(data)
    except RemoteError as error:
        rest = _rest(data, rows[-1].offset + rows[-1].length if rows else 0, "unread")
        return [*rows, *rest, Row(len(data), 0, "problem", error.message)]
    if header.kind in SESSION_TYPES:
        rows += _session(header, data, opened)
    else:
        rows += _handshake(header.kind, data, header.frag_index, opened)
    return rows


def _fields(data: bytes, offset: int, fields: tuple[tuple[str, int], ...]) -> Iterator[Row]:
    for name, size in fields:
        piece = data[offset : offset + size]
        if piece:
            yield Row(offset, len(piece), name, _value(name, piece))
        offset += size


def _value(name: str, piece: bytes) -> str:
    number = int.from_bytes(piece)
    if name in ("type", "hidden_type"):
        return next((f"{kind.name}" for kind in PacketType if kind == number), f"{number:#06x}")
    if name == "mode" and number < len(_MODES):
        return _MODES[number]
    if name == "kind":
        return next((one.name for one in Channel if one == number), f"{number:#04x}")
    if name == "flags" and number in range(16):
        return " ".join(word for bit, word in _FLAGS.items() if number & bit) or "none"
    if name == "node_id":
        text = piece.rstrip(b"\0").decode("latin-1")
        return text if text.isascii() and text.isprintable() else _hex(piece)
    if name in _NUMBERS:
        return str(number)
    return _hex(piece)


def _hex(piece: bytes) -> str:
    if len(piece) > 1 and not any(piece):
        return f"{len(piece)} zero bytes"
    shown = piece[:_SHOWN_BYTES].hex()
    return shown if len(piece) <= _SHOWN_BYTES else f"{shown}... ({len(piece)} bytes)"


def _rest(data: bytes, offset: int, name: str) -> list[Row]:
    piece = data[offset:]
    return [Row(offset, len(piece), name, _hex(piece))] if piece else []


def _handshake(kind: PacketType, data: bytes, frag_index: int, opened: bytes | None) -> list[Row]:
    if kind is PacketType.ATTEST:
        rows = [*_fields(data, HEADER_BYTES, _ATTEST)]
        offset = ATTEST_REPEATED_BYTES
        if frag_index == 0:
            rows += _fields(data, offset, (("edge_token", 8), ("e_E", 32)))
            offset += 40
        return rows + _body(kind, data, offset, opened)
    clear = kind is PacketType.REJECT and len(data) == BARE_REJECT_BYTES
    if kind in (PacketType.ACCEPT, PacketType.REJECT) and not clear:
        rows = [] if frag_index else [*_fields(data, HEADER_BYTES, (("e_V", 32),))]
        return rows + _body(kind, data, HEADER_BYTES + 32 * len(rows), opened)
    payload = {PacketType.HELLO: _HELLO, PacketType.CHALLENGE: _CHALLENGE}.get(kind, _REJECT)
    rows = [*_fields(data, HEADER_BYTES, (*_BODY, *payload))]
    end = PREFIX_BYTES + sum(size for _, size in payload)
    if kind is PacketType.HELLO:
        padding = DATAGRAM_BYTES - TAG_BYTES - end
        rows += _fields(data, end, (("padding", padding), ("mac1", TAG_BYTES)))
        end = DATAGRAM_BYTES
    return rows + _rest(data, end, "too many")


def _body(kind: PacketType, data: bytes, offset: int, opened: bytes | None) -> list[Row]:
    """Return the rows of what a handshake seals: an ML-KEM half in suite 2, then the body."""
    if opened is None:
        whom = "the validator" if kind is PacketType.ATTEST else "the edge"
        return _rest(data, offset, f"sealed to {whom}")
    start = len(data) - TAG_BYTES - len(opened)
    fields = {PacketType.ATTEST: _ATTEST_BODY, PacketType.ACCEPT: _ACCEPT_BODY}.get(kind, _REJECT)
    inner = list(_fields(opened, 0, (*_BODY, *fields)))
    inner += _rest(opened, sum(row.length for row in inner), "padding")
    return [
        *_rest(data[:start], offset, "sealed ML-KEM half"),
        *(row._replace(offset=row.offset + start) for row in inner),
        *_rest(data, start + len(opened), "tag"),
    ]


def _session(header: Header, data: bytes, opened: bytes | None) -> list[Row]:
    if opened is None:
        sealed = data[HEADER_BYTES:-TAG_BYTES]
        tag = max(HEADER_BYTES, len(data) - TAG_BYTES)
        rows = [Row(HEADER_BYTES, len(sealed), "sealed", _hex(sealed))] if sealed else []
        return rows + _rest(data, tag, "tag")
    found = _opened_rows(header, opened)
    shifted = [row._replace(offset=row.offset + HEADER_BYTES) for row in found]
    return shifted + _rest(data, HEADER_BYTES + len(opened), "tag")


def _opened_rows(header: Header, opened: bytes) -> list[Row]:
    kind, start = header.kind, PREFIX_BYTES - HEADER_BYTES
    stop = start + int.from_bytes(opened[start - 4 : start])
    payload = opened[:stop]
    hidden: list[Row] = []
    if header.mode == Mode.GHOST:
        hidden = list(_fields(payload, start, _VEIL))
        kind = _SESSION_KINDS.get(payload[start] if len(payload) > start else 0, kind)
        start += VEIL_BYTES
    fields = {
        PacketType.DATA: _FRAGMENT,
        PacketType.HEARTBEAT: _HEARTBEAT,
        PacketType.ACK: _ACK,
        PacketType.CLOSE: (("code", 2), ("text_length", 1)),
    }[kind]
    front = opened[: PREFIX_BYTES - HEADER_BYTES]
    rows = [*_fields(front, 0, _BODY), *hidden, *_fields(payload, start, fields)]
    offset = start + sum(size for _, size in fields)
    name = {PacketType.DATA: "piece", PacketType.CLOSE: "text"}.get(kind, "more ranges")
    rows += _rest(payload, offset, name)
    if kind is PacketType.ACK:
        rows.append(Row(stop, 0, "acknowledged", _acknowledged(payload[start:])))
    return rows + _rest(opened, stop, "padding")


def _acknowledged(payload: bytes) -> str:
    try:
        ranges = decode_ack(payload).ranges
    except RemoteError as error:
        return error.message
    return ", ".join(f"{low}-{high}" if low < high else f"{low}" for low, high in ranges)

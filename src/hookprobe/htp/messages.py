"""The bodies of the nine message types (HTP spec 3.2 and 3.4): one class, one encoding each.

Decoders accept exactly what encoders write; anything else is a `MalformedError`. Bodies of session
packets are met here after they were opened, so a bad one is the fault of an authenticated peer.
"""

import struct
from enum import Enum
from hashlib import blake2s, sha256
from typing import Any, NamedTuple

from hookprobe.errors import LocalError, MalformedError
from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.effects import RejectCode
from hookprobe.htp.packet import (
    HEADER_BYTES,
    PREFIX_BYTES,
    RESONANCE_BYTES,
    SEALED_OVERHEAD_BYTES,
    ZERO_RESONANCE,
    ZERO_TOKEN,
    Header,
    PacketType,
    check_handshake_header,
    decode_body,
    encode_body,
    encode_header,
)
from hookprobe.wire.identifiers import NodeId, pack_node_id, unpack_node_id
from hookprobe.wire.reader import Reader, Writer

MAC_BYTES = 16
COOKIE_BYTES = 16
CHALLENGE_BYTES = 120
BARE_REJECT_BYTES = 106
ACCEPT_PAYLOAD_BYTES = 74
ACK_RANGES_MAX = 32

_HEARTBEAT = struct.Struct(">8sIBBBH")
_BEAT = struct.Struct(">64sI8sIBBBH")  # the whole body, resonance and length in front
_ACK = struct.Struct(">QIIIHHBB8sI")
_HELLO = struct.Struct(">32s8sHHH8s")
_HELLO_BODY = struct.Struct(">64sI32s8sHHH8s")
_CHALLENGE = struct.Struct(">16sHH")
_CHALLENGE_BODY = struct.Struct(">64sI16sHH")
_ATTEST = struct.Struct(">64sI32s64s64sQ")
ATTEST_PAYLOAD_BYTES = _ATTEST.size - RESONANCE_BYTES - 4
_ACCEPT = struct.Struct(">32s8s16sHHIHQ")
_ACCEPT_BODY = struct.Struct(">64sI32s8s16sHHIHQ")
_MAC1_OFFSET = DATAGRAM_BYTES - MAC_BYTES
_HELLO_END = HEADER_BYTES + _HELLO_BODY.size
_HELLO_PADDING = bytes(_MAC1_OFFSET - _HELLO_END)
_ACK_FLAGS_KNOWN = 7

ACK_REATTEST = 1
BEAT_BYTES = SEALED_OVERHEAD_BYTES + _HEARTBEAT.size  # a HEARTBEAT without padding


class Hello(NamedTuple):
    """The first message: who is asked, with which suites, and where the answer goes."""

    client_random: bytes
    key_id: bytes
    suites: int
    version_min: int
    version_max: int
    edge_token: bytes

    def encode(self, static_key: bytes) -> bytes:
        """Return the 1200-byte datagram for the owner of `static_key`."""
        payload = _HELLO.pack(*self)
        header = encode_header(PacketType.HELLO, 0, 0, ZERO_TOKEN, 0, 0)
        body = encode_body(ZERO_RESONANCE, payload, _MAC1_OFFSET - PREFIX_BYTES)
        return header + body + hello_mac(mac1_key(static_key), header + body)


def mac1_key(static_key: bytes) -> bytes:
    """BLAKE2s-256("htp2 mac1" || S_V)."""
    return blake2s(b"htp2 mac1" + static_key).digest()


def hello_mac(key: bytes, covered: bytes) -> bytes:
    """mac1 = BLAKE2s-128(key, bytes 0..1183): silence for those who do not know our key."""
    return blake2s(covered, key=key, digest_size=MAC_BYTES).digest()


def split_hello(data: bytes) -> tuple[bytes, bytes]:
    """Return (covered bytes, mac1); `MalformedError` unless the size is exactly 1200."""
    if len(data) != DATAGRAM_BYTES:
        raise MalformedError(f"HELLO: {len(data)} bytes, want {DATAGRAM_BYTES}")
    return data[:_MAC1_OFFSET], data[_MAC1_OFFSET:]


def decode_hello(header: Header, data: bytes) -> Hello:
    """Read a HELLO whose mac1 was checked."""
    check_handshake_header(header, 0)
    if header.flow_token != ZERO_TOKEN or header.frag_last:
        raise MalformedError("HELLO: flow token or fragment fields in use")
    resonance, size, *fields = _HELLO_BODY.unpack_from(data, HEADER_BYTES)
    if resonance != ZERO_RESONANCE:
        raise MalformedError("HELLO: resonance field in use")
    if size != _HELLO.size:
        raise MalformedError(f"HELLO: {size} bytes, want {_HELLO.size}")
    if data[_HELLO_END:_MAC1_OFFSET] != _HELLO_PADDING:
        raise MalformedError("packet: padding is not zero")
    return Hello(*fields)


class Challenge(NamedTuple):
    """The stateless answer to a HELLO."""

    edge_token: bytes
    cookie: bytes
    generation: int
    suite: int

    def encode(self) -> bytes:
        header = encode_header(PacketType.CHALLENGE, 0, 0, self.edge_token, 0, 0)
        return header + _CHALLENGE_BODY.pack(ZERO_RESONANCE, _CHALLENGE.size, *self[1:])


def _clear_payload(header: Header, data: bytes, size: int, sequence: int) -> Reader:
    check_handshake_header(header, sequence)
    if len(data) != size or header.frag_last:
        raise MalformedError(f"{header.kind.name}: {len(data)} bytes, want {size}")
    resonance, payload = decode_body(data[HEADER_BYTES:])
    if resonance != ZERO_RESONANCE:
        raise MalformedError(f"{header.kind.name}: resonance field in use")
    return Reader(payload, header.kind.name)


def decode_challenge(header: Header, data: bytes) -> Challenge:
    """Read a CHALLENGE."""
    reader = _clear_payload(header, data, CHALLENGE_BYTES, 0)
    challenge = Challenge(header.flow_token, reader.take(COOKIE_BYTES), reader.u16(), reader.u16())
    reader.finish()
    return challenge


def encode_bare_reject(edge_token: bytes, code: RejectCode, retry_after_s: int) -> bytes:
    """Return the unauthenticated REJECT, 106 bytes."""
    header = encode_header(PacketType.REJECT, 0, 0, edge_token, 0, 0)
    return header + encode_body(ZERO_RESONANCE, encode_rejection(code, retry_after_s))


def decode_bare_reject(header: Header, data: bytes) -> tuple[RejectCode, int]:
    """Read a bare REJECT: (code, seconds); only VERSION and BUSY are ever said in the clear."""
    reader = _clear_payload(header, data, BARE_REJECT_BYTES, 0)
    code, retry_after_s = decode_rejection(reader.rest())
    if code not in (RejectCode.VERSION, RejectCode.BUSY):
        raise MalformedError("REJECT: this code is never sent in the clear")
    return code, retry_after_s


def encode_rejection(code: RejectCode, retry_after_s: int) -> bytes:
    """Return the six payload bytes of a REJECT."""
    return Writer().u16(code.value).u32(retry_after_s).finish()


def decode_rejection(payload: bytes) -> tuple[RejectCode, int]:
    """Read the payload of a REJECT: (code, seconds)."""
    reader = Reader(payload, "REJECT")
    number, retry_after_s = reader.u16(), reader.u32()
    reader.finish()
    for code in RejectCode:
        if code.value == number:
            return code, retry_after_s
    raise MalformedError(f"REJECT: unknown code {number}")


class AttestBody(NamedTuple):
    """The sealed part of an ATTEST.

    Attributes:
        resonance: RDV || PoSF, 64 bytes.
        node: Who dials.
        fingerprint: SHA-512 of the weights, 64 bytes.
        signature: Ed25519 over the transcript.
        capabilities: Bit mask; bit 0 asks to continue the channels of the session it renews.
    """

    resonance: bytes
    node: NodeId
    fingerprint: bytes
    signature: bytes
    capabilities: int

    def encode(self) -> bytes:
        node = pack_node_id(self.node)
        return _ATTEST.pack(
            self.resonance,
            ATTEST_PAYLOAD_BYTES,
            node,
            self.fingerprint,
            self.signature,
            self.capabilities,
        )


def decode_attest_body(plain: bytes) -> AttestBody:
    """Read the opened part of an ATTEST."""
    if len(plain) != _ATTEST.size:
        raise MalformedError(f"ATTEST: body of {len(plain)} bytes, want {_ATTEST.size}")
    resonance, size, node, fingerprint, signature, capabilities = _ATTEST.unpack(plain)
    if size != ATTEST_PAYLOAD_BYTES:
        raise MalformedError(f"ATTEST: {size} bytes, want {ATTEST_PAYLOAD_BYTES}")
    return AttestBody(resonance, unpack_node_id(node), fingerprint, signature, capabilities)


class AcceptBody(NamedTuple):
    """The sealed part of an ACCEPT; `resonance` echoes the RDV that was found right."""

    resonance: bytes
    secret_seed: bytes
    validator_token: bytes
    reset_token: bytes
    trust: int
    heartbeat_s: int
    rekey_s: int
    max_udp: int
    unix_ms: int

    def encode(self) -> bytes:
        return _ACCEPT_BODY.pack(self.resonance, _ACCEPT.size, *self[1:])


def decode_accept_body(plain: bytes) -> AcceptBody:
    """Read the opened part of an ACCEPT."""
    resonance, payload = decode_body(plain)
    if len(payload) != _ACCEPT.size:
        raise MalformedError(f"ACCEPT: {len(payload)} bytes, want {_ACCEPT.size}")
    return AcceptBody(resonance, *_ACCEPT.unpack(payload))


class Vitals(NamedTuple):
    """What a dialling node says about itself in heartbeats; never trusted."""

    ter_sequence: int = 0
    battery: int = 255
    power: int = 0
    load: int = 0
    qsecbit: int = 0


def encode_heartbeat(probe: bytes, vitals: Vitals) -> bytes:
    """Return probe (8) and vitals."""
    try:
        return _HEARTBEAT.pack(probe, *vitals)
    except struct.error as error:
        raise ValueError("HEARTBEAT: a value does not fit its field") from error


def check_vitals(vitals: Vitals) -> None:
    """Refuse vitals that no heartbeat could carry.

    Raises:
        LocalError: A value does not fit its field.
    """
    try:
        encode_heartbeat(ZERO_TOKEN, vitals)
    except ValueError as error:
        raise LocalError("vitals: a value does not fit its field") from error


def decode_heartbeat(payload: bytes) -> tuple[bytes, Vitals]:
    """Read a HEARTBEAT: (probe, vitals)."""
    if len(payload) != _HEARTBEAT.size:
        raise MalformedError(f"HEARTBEAT: {len(payload)} bytes, want {_HEARTBEAT.size}")
    probe, *vitals = _HEARTBEAT.unpack(payload)
    return probe, Vitals(*vitals)


def read_beat(plain: bytes) -> tuple[Any, ...] | None:
    """Read the opened body of a HEARTBEAT of `BEAT_BYTES`: beacon, its length, probe, vitals.

    None: another length is written inside, and `decode_body` has to judge.
    """
    fields = _BEAT.unpack(plain)
    return fields if fields[1] == _HEARTBEAT.size else None


class Ack(NamedTuple):
    """An acknowledgement.

    Attributes:
        delay_us: From the arrival of the largest packet to this message.
        echo_ts: Timestamp field of that packet.
        credit_kib: Message bytes, in KiB since the channels began, that the sender may reach.
        trust: In 1/65535; meaningful from the answering end only.
        heartbeat_s: Longest gap between heartbeats that is asked for; 0 leaves it.
        flags: `ACK_REATTEST` asks for an early handshake.
        probe_echo: Eight bytes of the last HEARTBEAT.
        ranges: (first, last) packet numbers, descending, disjoint, not touching; at least one.
    """

    delay_us: int
    echo_ts: int
    credit_kib: int
    trust: int
    heartbeat_s: int
    flags: int
    probe_echo: bytes
    ranges: tuple[tuple[int, int], ...]


def encode_ack(ack: Ack) -> bytes:
    """Return largest, the fixed fields and up to 33 ranges as (gap, length) pairs."""
    delay_us, echo_ts, credit_kib, trust, heartbeat_s, flags, probe_echo, ranges = ack
    first, largest = ranges[0]
    fixed = _ACK.pack(
        largest,
        delay_us,
        echo_ts,
        credit_kib,
        trust,
        heartbeat_s,
        flags,
        len(ranges) - 1,
        probe_echo,
        largest - first + 1,
    )
    if len(ranges) == 1:
        return fixed
    numbers: list[int] = []
    for low, high in ack.ranges[1:]:
        numbers += (first - high - 1, high - low + 1)
        first = low
    return fixed + struct.pack(f">{len(numbers)}I", *numbers)


def decode_ack(payload: bytes) -> Ack:
    """Read an ACK.

    Raises:
        MalformedError: Unknown flags, too many ranges, an empty range or one below packet 0.
    """
    if len(payload) < _ACK.size:
        raise MalformedError(f"ACK: {len(payload)} bytes, want {_ACK.size} at least")
    largest, delay_us, echo_ts, credit_kib, trust, heartbeat_s, flags, count, probe_echo, first = (
        _ACK.unpack_from(payload)
    )
    if flags > _ACK_FLAGS_KNOWN or count > ACK_RANGES_MAX:
        raise MalformedError("ACK: unknown flags or too many ranges")
    if len(payload) != _ACK.size + 8 * count:
        raise MalformedError(f"ACK: {len(payload)} bytes for {count} further ranges")
    numbers = (1, first, *struct.unpack_from(f">{2 * count}I", payload, _ACK.size))
    ranges: list[tuple[int, int]] = []
    low = largest + 2
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        high = low - gap - 1
        if not gap or not length or high - length + 1 < 0:
            raise MalformedError("ACK: an empty or impossible range")
        low = high - length + 1
        ranges.append((low, high))
    return Ack(delay_us, echo_ts, credit_kib, trust, heartbeat_s, flags, probe_echo, tuple(ranges))


class CloseCode(Enum):
    """Reasons carried by CLOSE."""

    NORMAL = 0
    PROTOCOL = 1
    RESONANCE = 2
    REPLACED = 3
    REATTEST = 4


def encode_close(code: CloseCode, text: str = "") -> bytes:
    """Return code, length and text."""
    raw = text.encode("utf-8")
    return Writer().u16(code.value).u8(len(raw)).put(raw).finish()


def decode_close(payload: bytes) -> int:
    """Read a CLOSE and return its code; unknown codes are a plain end."""
    reader = Reader(payload, "CLOSE")
    code = reader.u16()
    raw = reader.take(reader.u8())
    reader.finish()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("CLOSE: text is not UTF-8") from error
    return code


class FragmentHeader(NamedTuple):
    """The 16 bytes in front of every piece of a message (HTP spec 3.5, for channel kinds).

    Attributes:
        kind: The channel.
        chunk_index: Which 8-KiB chunk of the message.
        number: Of the message within its channel, mod 2^32.
        chunks: Number of chunks of the message.
        tag: First four bytes of the message's SHA-256; a check against mix-ups only.
    """

    kind: int
    chunk_index: int
    number: int
    chunks: int
    tag: bytes


FRAGMENT_HEADER_BYTES = 16


def encode_fragment_header(header: FragmentHeader) -> bytes:
    """Return kind, flags (0), chunk_index, number, chunks, tag."""
    return b"".join(
        (
            header.kind.to_bytes(1),
            b"\0",
            header.chunk_index.to_bytes(2),
            header.number.to_bytes(4),
            header.chunks.to_bytes(4),
            header.tag,
        )
    )


def decode_fragment(payload: bytes) -> tuple[FragmentHeader, bytes]:
    """Return the header and the piece behind it."""
    if len(payload) < FRAGMENT_HEADER_BYTES:
        raise MalformedError("DATA: shorter than its header")
    if payload[1]:
        raise MalformedError("DATA: flags on a channel message")
    header = FragmentHeader(
        payload[0],
        int.from_bytes(payload[2:4]),
        int.from_bytes(payload[4:8]),
        int.from_bytes(payload[8:12]),
        payload[12:16],
    )
    return header, payload[FRAGMENT_HEADER_BYTES:]


def message_tag(data: bytes) -> bytes:
    """SHA-256(message)[0:4]."""
    return sha256(data).digest()[:4]

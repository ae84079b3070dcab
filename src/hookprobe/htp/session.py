"""One set of session keys: sealing and opening packets (HTP spec 3.1 and 3.4).

A session knows its keys, tokens, packet numbers and replay window, and nothing of messages. Order
on receipt: length, token (the endpoint found us by it), replay pre-check, AEAD, replay commit.

    header (32, clear, associated data) | AEAD( RDV || PoSF || length || payload || padding )
"""

from collections.abc import Sequence
from typing import NamedTuple

from hookprobe.crypto.sealing import CipherCache, OpeningKey, SealingKey
from hookprobe.errors import LimitExceededError, MalformedError, VerificationError
from hookprobe.htp.bulk import HEAD_BYTES
from hookprobe.htp.channels import BULK_KIND
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.handshake import SESSION_TABLE, Phase, PhaseEvent, advance
from hookprobe.htp.keys import SessionKeys
from hookprobe.htp.packet import (
    BULK_WORD,
    FLAG_ACK_ELICITING,
    FLAG_RES_FRESH,
    HEADER_BYTES,
    RESONANCE_BYTES,
    SEALED_OVERHEAD_BYTES,
    ZERO_RESONANCE,
    Header,
    PacketType,
    decode_body,
    encode_body,
    encode_header,
    pack_headers,
    unpack_header,
)
from hookprobe.htp.window import NUMBER_MAX, ReplayWindow
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

_BODY_START = RESONANCE_BYTES + 4


class SessionNames(NamedTuple):
    """What identifies a session.

    Attributes:
        peer: The other end.
        dialled: Whether we started it.
        local_token: What the peer writes into flow_token.
        remote_token: What we write.
        reset_token: Ends the session if the answering end lost it; empty at the answering end.
        suite: Of the handshake.
    """

    peer: NodeId
    dialled: bool
    local_token: bytes
    remote_token: bytes
    reset_token: bytes
    suite: int


class Opened(NamedTuple):
    """A packet that opened."""

    header: Header
    resonance: bytes
    payload: bytes
    newest: bool


class Session:
    """Seals and opens the packets of one key set.

    Args:
        keys: From the handshake.
        names: Peer and tokens.
        ciphers: The endpoint's cipher objects.
        failed_max: Packets that may fail to open (RFC 9001 section 6.6).
        now: The start; timestamps count from here.
    """

    __slots__ = (
        "_failed_max",
        "_opening",
        "_sealing",
        "_window",
        "created",
        "exporter",
        "failed",
        "names",
        "phase",
        "resonance",
        "transcript",
    )

    def __init__(
        self,
        keys: SessionKeys,
        names: SessionNames,
        ciphers: CipherCache,
        failed_max: int,
        now: Instant,
    ) -> None:
        out = (keys.dialler_key, keys.dialler_salt)
        back = (keys.answerer_key, keys.answerer_salt)
        if not names.dialled:
            out, back = back, out
        self._sealing = SealingKey(*out, ciphers)
        self._opening = OpeningKey(*back, ciphers)
        self._window = ReplayWindow()
        self.failed = 0
        self._failed_max = failed_max
        self.exporter = keys.exporter
        self.transcript = keys.transcript
        self.names = names
        self.created = now
        self.resonance = ZERO_RESONANCE
        event = PhaseEvent.ACCEPTED if names.dialled else PhaseEvent.ATTESTED
        self.phase = advance(SESSION_TABLE, Phase.NONE, event)

    @property
    def next_number(self) -> int:
        """The number of the next packet to be sealed."""
        return self._sealing.counter

    @property
    def received(self) -> int:
        """One more than the largest packet number that opened."""
        return self._window.highest + 1

    def move(self, event: PhaseEvent) -> None:
        """Change phase by the table; a closed session forgets its cipher objects."""
        self.phase = advance(SESSION_TABLE, self.phase, event)
        if self.phase is Phase.CLOSED:
            self._sealing.forget()
            self._opening.forget()

    def seal(
        self, kind: PacketType, payload: bytes, now: Instant, sequence: int = 0, tail: int = 0
    ) -> bytes:
        """Return the next packet.

        Args:
            kind: A session type.
            payload: At most 1084 bytes on a base-size path.
            now: The time.
            sequence: Number of the message.
            tail: Further flags << 24 | frag_index << 8 | frag_last.

        Raises:
            LimitExceededError: The packet numbers are used up.
        """
        eliciting = kind is PacketType.DATA or kind is PacketType.HEARTBEAT
        flags = FLAG_ACK_ELICITING if eliciting else 0
        if kind is PacketType.HEARTBEAT and self.names.dialled:
            flags |= FLAG_RES_FRESH
        plain = b"".join((self.resonance, len(payload).to_bytes(4), payload))
        return self._seal(kind, plain, now, sequence, flags << 24 | tail)

    def seal_padded(self, payload: bytes, size: int, now: Instant) -> bytes:
        """Return a HEARTBEAT that repeats the beacon, of `size` bytes: a probe of the path.

        A beacon of its own would cost both ends a forward pass for every probe.

        Raises:
            LimitExceededError: The packet numbers are used up.
        """
        plain = encode_body(self.resonance, payload, size - SEALED_OVERHEAD_BYTES)
        return self._seal(PacketType.HEARTBEAT, plain, now, 0, FLAG_ACK_ELICITING << 24)

    def _seal(
        self, kind: PacketType, plain: bytes, now: Instant, sequence: int, tail: int
    ) -> bytes:
        number = self._sealing.counter
        header = encode_header(
            kind, sequence, self._timestamp(now), self.names.remote_token, number, tail
        )
        return header + self._sealing.seal(number, plain, header)

    def _timestamp(self, now: Instant) -> int:
        return max(0, now - self.created) // MILLISECOND & 0xFFFFFFFF

    def seal_run(
        self, parts: Sequence[tuple[int, int, bytes, bytes]], piece_bytes: int, now: Instant
    ) -> list[bytes]:
        """Return the next DATA packets, all of one size.

        Args:
            parts: Message number, frag_index << 8 | frag_last, head (16) and body of each.
            piece_bytes: To which their bodies are padded.
            now: The time.

        Raises:
            LimitExceededError: The packet numbers are used up.
        """
        first = self._sealing.counter
        flags = FLAG_ACK_ELICITING << 24
        headers = pack_headers(
            PacketType.DATA,
            self._timestamp(now),
            self.names.remote_token,
            first,
            [(part[0], flags | part[1]) for part in parts],
        )
        resonance, join = self.resonance, b"".join
        full = (HEAD_BYTES + piece_bytes).to_bytes(4)
        plains = [
            join((resonance, full, head, body))
            if len(body) == piece_bytes
            else encode_body(resonance, head + body, HEAD_BYTES + piece_bytes)
            for _, _, head, body in parts
        ]
        return self._sealing.seal_run(first, plains, headers)

    def open_bulk(self, data: bytes) -> tuple[int, int, BulkFragment] | None:
        """Open the usual packet of bulk data; None for any other, which `open` has to judge.

        Usual: DATA that asks for an acknowledgement and nothing else, with the number that is next
        and the present beacon, around a fragment of a chunk. Nothing has changed if it is not.
        Returns (number, timestamp, fragment).
        """
        word, _, timestamp, token, number, tail = unpack_header(data)
        window = self._window
        usual = word == BULK_WORD and tail >> 16 == FLAG_ACK_ELICITING << 8
        if not usual or number != window.highest + 1 or token != self.names.local_token:
            return None
        try:
            plain = self._opening.open(number, data[HEADER_BYTES:], data[:HEADER_BYTES])
        except VerificationError:
            return None
        stop = _BODY_START + int.from_bytes(plain[RESONANCE_BYTES:_BODY_START])
        place, last = tail >> 8 & 0xFF, tail & 0xFF
        start = _BODY_START + HEAD_BYTES
        if (
            plain[_BODY_START : _BODY_START + 1] != BULK_KIND
            or not (self.names.dialled or plain.startswith(self.resonance))
            or not start < stop == len(plain)
            or place > last
        ):
            return None
        window.commit(number)
        fields = (plain[_BODY_START:start], place, last, plain[start:])
        return number, timestamp, tuple.__new__(BulkFragment, fields)

    def open(self, header: Header, data: bytes) -> Opened:
        """Open a received packet; only a packet that opened changes the replay window.

        Raises:
            MalformedError: Too short, or sealed by the peer but not well-formed inside.
            ReplayError: Seen before, or too old to tell.
            VerificationError: Not sealed by the peer under these keys.
            LimitExceededError: Too many packets failed to open; the session must end.
        """
        if len(data) < SEALED_OVERHEAD_BYTES:
            raise MalformedError(f"session packet of {len(data)} bytes")
        number, window = header.nonce, self._window
        if number >= NUMBER_MAX or not window.is_fresh(number):
            raise ReplayError("session packet: number seen before or out of the window")
        try:
            plain = self._opening.open(number, data[HEADER_BYTES:], data[:HEADER_BYTES])
        except VerificationError:
            self.failed += 1
            if self.failed >= self._failed_max:
                raise LimitExceededError("session: too many packets failed to open") from None
            raise
        newest = number > window.highest
        window.commit(number)
        resonance, payload = decode_body(plain)
        return tuple.__new__(Opened, (header, resonance, payload, newest))


class ReplayError(VerificationError):
    """A packet number that was seen before, or is older than the window."""

    code = "E-HTP-REPLAY"

"""One set of session keys: sealing and opening packets (HTP spec 3.1 and 3.4).

A session knows its keys, tokens, packet numbers and replay window, and nothing of messages. Order
on receipt: length, token (the endpoint found us by it), replay pre-check, AEAD, replay commit.

    header (32, clear, associated data) | AEAD( RDV || PoSF || length || payload || padding )
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hookprobe.crypto.sealing import (
    KEY_BYTES,
    CipherCache,
    OpeningKey,
    SealingKey,
    counter_run,
)
from hookprobe.errors import LimitExceededError, MalformedError, VerificationError
from hookprobe.htp.bulk import HEAD_BYTES, Span
from hookprobe.htp.channels import BULK_KIND
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.handshake import SESSION_TABLE, Phase, PhaseEvent, advance
from hookprobe.htp.keys import SessionKeys
from hookprobe.htp.packet import (
    BEAT_TAIL,
    BEAT_WORD,
    BULK_WORD,
    FLAG_ACK_ELICITING,
    FLAG_RES_FRESH,
    HEADER_BYTES,
    RESONANCE_BYTES,
    SEALED_OVERHEAD_BYTES,
    ZERO_RESONANCE,
    Block,
    Header,
    PacketType,
    bulk_start,
    bulk_tails,
    decode_body,
    encode_body,
    encode_header,
    unpack_header,
)
from hookprobe.htp.window import NUMBER_MAX, ReplayWindow
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

_BODY_START = RESONANCE_BYTES + 4
_KIND_END = _BODY_START + 1
_PIECE_START = _BODY_START + HEAD_BYTES
_BULK_FLAGS = FLAG_ACK_ELICITING << 8
_FROZEN = struct.Struct(">36s36s32s32s64s8s8sBqQQqq")
_tuple = tuple.__new__
_DATA, _HEARTBEAT = PacketType.DATA, PacketType.HEARTBEAT
_FRESH = FLAG_ACK_ELICITING | FLAG_RES_FRESH


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
            self.forget()

    def forget(self) -> None:
        """Drop the cipher objects; they are made again when they are needed."""
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
        flags = FLAG_ACK_ELICITING if kind is _DATA else 0
        if kind is _HEARTBEAT:
            flags = _FRESH if self.names.dialled else FLAG_ACK_ELICITING
        sealing, token = self._sealing, self.names.remote_token
        number, tail = sealing.counter, flags << 24 | tail
        header = encode_header(kind, sequence, self._since(now), token, number, tail)
        plain = self.resonance + len(payload).to_bytes(4) + payload
        return header + sealing.seal(number, plain, header)

    def seal_padded(self, payload: bytes, size: int, now: Instant) -> bytes:
        """Return a HEARTBEAT that repeats the beacon, of `size` bytes: a probe of the path.

        A beacon of its own would cost both ends a forward pass for every probe.

        Raises:
            LimitExceededError: The packet numbers are used up.
        """
        number, tail = self._sealing.counter, FLAG_ACK_ELICITING << 24
        token = self.names.remote_token
        header = encode_header(_HEARTBEAT, 0, self._since(now), token, number, tail)
        plain = encode_body(self.resonance, payload, size - SEALED_OVERHEAD_BYTES)
        return header + self._sealing.seal(number, plain, header)

    def _since(self, now: Instant) -> int:
        since = now - self.created
        return since // MILLISECOND & 0xFFFFFFFF if since > 0 else 0

    def seal_run(self, run: Sequence[Span], now: Instant) -> list[bytes]:
        """Return the next DATA packets: fragments whose packets have one size.

        Args:
            run: What `BulkQueue.take` gave.
            now: The time.

        Raises:
            LimitExceededError: The packet numbers are used up.
        """
        first, token, timestamp = self._sealing.counter, self.names.remote_token, self._since(now)
        headers: list[bytes] = []
        plains: list[bytes] = []
        counters = iter(counter_run(first, sum([width for _, _, width, _ in run])))
        size = run[0].chunk.piece_bytes
        body = self.resonance + (HEAD_BYTES + size).to_bytes(4)
        for chunk, place, width, last in run:
            pieces, tails = chunk.pieces, bulk_tails(last)
            if width <= last:
                pieces, tails = pieces[place : place + width], tails[place : place + width]
            front = body + chunk.head
            plains += [front + piece for piece in pieces]
            if len(pieces[-1]) < size:
                payload = chunk.head + pieces[-1]
                plains[-1] = encode_body(self.resonance, payload, HEAD_BYTES + size)
            start = bulk_start(BULK_WORD, chunk.sequence, timestamp, token)
            headers += [start + next(counters) + tail for tail in tails]
        return self._sealing.seal_run(first, plains, headers)

    def open_run(self, packets: Iterable[bytes]) -> tuple[list[BulkFragment], int]:
        """Open the usual packets of bulk data, up to one that `open` has to judge.

        Usual: DATA that asks for an acknowledgement and nothing else, with the number that is next
        and the present beacon, around a fragment of a chunk, of which only the last is padded. Each
        has the size of the smallest session packet at least. A file is a thousand of them in a
        mebibyte, so they skip what can only matter to others.

        Returns (fragments, timestamp of the packet of the last one).
        """
        first, mine = self._window.highest + 1, self.names.local_token
        usual: list[bytes] = []
        tails: list[tuple[int, int]] = []
        for number, packet in enumerate(packets, first):
            word, _, timestamp, token, nonce, tail = unpack_header(packet)
            is_bulk = word == BULK_WORD and tail >> 16 == _BULK_FLAGS
            if not is_bulk or nonce != number or token != mine or tail >> 8 & 0xFF > tail & 0xFF:
                break
            if number >= NUMBER_MAX:
                break
            usual.append(packet)
            tails.append((timestamp, tail))
        bound = [packet[:HEADER_BYTES] for packet in usual]
        plains = self._opening.open_run(first, [one[HEADER_BYTES:] for one in usual], bound)
        # Only the answering end has a beacon to compare with.
        front = b"" if self.names.dialled else self.resonance
        fragments: list[BulkFragment] = []
        for plain, (_, tail) in zip(plains, tails, strict=False):
            place, last = tail >> 8 & 0xFF, tail & 0xFF
            piece = _piece_of(plain, padded=place == last) if plain.startswith(front) else b""
            if not piece:
                break
            fields = (plain[_BODY_START:_PIECE_START], place, last, (piece,))
            fragments.append(_tuple(BulkFragment, fields))
        if not fragments:
            return fragments, 0
        self._window.extend(len(fragments))
        return fragments, tails[len(fragments) - 1][0]

    def open_burst(self, block: Block) -> tuple[list[BulkFragment], int, int]:
        """Open the packets of a block as `open_run` would, all of them in each step.

        Blocks in which anything is unusual are left alone, from the first packet whose inside is
        unusual on: they are for `open_run`, whose results these are.

        Returns (fragments, how many packets they came in, timestamp of the last of those).
        """
        first, mine = self._window.highest + 1, self.names.local_token
        words, timestamps, tokens, numbers, tails = block.columns
        count = len(numbers)
        alike = words.count(BULK_WORD) == tokens.count(mine) == count
        if not alike or numbers != tuple(range(first, first + count)) or numbers[-1] >= NUMBER_MAX:
            return [], 0, 0
        headers, sealed = zip(*block.rows, strict=True)
        plains = self._opening.open_run(first, sealed[:1], headers[:1])
        if not plains or plains[0][_BODY_START:_KIND_END] != BULK_KIND:
            return [], 0, 0  # a burst of messages is opened once, by whom it is for
        plains += self._opening.open_run(first + 1, sealed[1:], headers[1:])
        fragments, taken = self._read_pieces(plains, tails)
        self._window.extend(taken)
        return fragments, taken, timestamps[taken - 1]

    def _read_pieces(
        self, plains: Sequence[bytes], tails: tuple[int, ...]
    ) -> tuple[list[BulkFragment], int]:
        # Where the payload fills the packet, there is no padding to look at. Only the answering end
        # has a beacon to compare with.
        inside = (len(plains[0]) - _BODY_START).to_bytes(4) + BULK_KIND
        front = b"" if self.names.dialled else self.resonance
        fragments: list[BulkFragment] = []
        at, count = 0, len(plains)
        while at < count and len(plains[0]) > _PIECE_START:
            start, tail = plains[at][:_PIECE_START], tails[at]
            place, last = tail >> 8 & 0xFF, tail & 0xFF
            if tail >> 16 != _BULK_FLAGS or place > last or not start.startswith(front):
                break
            stop = at + 1
            if start[RESONANCE_BYTES:_KIND_END] == inside:
                stop = _alike_until(plains, tails, at, start)
                pieces = tuple([one[_PIECE_START:] for one in plains[at:stop]])
            elif place == last and (piece := _piece_of(plains[at], padded=True)):
                pieces = (piece,)
            else:
                break
            fragments.append(_tuple(BulkFragment, (start[_BODY_START:], place, last, pieces)))
            at = stop
        return fragments, at

    def open_next(self, data: bytes) -> tuple[int, int, bytes] | None:
        """Open the usual HEARTBEAT: fresh, and with the number that is next; None for any other.

        Returns (number, timestamp, body). Nothing has changed before `commit` is called.
        """
        word, _, timestamp, token, number, tail = unpack_header(data)
        usual = word == BEAT_WORD and tail == BEAT_TAIL and token == self.names.local_token
        if not usual or number != self._window.highest + 1:
            return None
        try:
            plain = self._opening.open(number, data[HEADER_BYTES:], data[:HEADER_BYTES])
        except VerificationError:
            return None
        return number, timestamp, plain

    def commit(self, number: int) -> None:
        """Take the number of a packet that `open_next` opened."""
        self._window.highest = number

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

    def _resume(self, failed: int, counter: int, resonance: bytes, window: ReplayWindow) -> None:
        self.failed, self._sealing.counter = failed, counter
        self.resonance, self._window = resonance, window

    def freeze(self) -> bytes:
        """Return all there is to an established session that was answered, for `thaw`; secret."""
        assert self.phase is Phase.ESTABLISHED, "only an established session rests"
        assert not self.names.dialled, "only answered sessions rest"
        highest, run, seen = self._window.freeze()
        names = self.names
        fixed = _FROZEN.pack(
            self._sealing.raw,
            self._opening.raw,
            self.exporter,
            self.transcript,
            self.resonance,
            names.local_token,
            names.remote_token,
            names.suite,
            self.created,
            self.failed,
            self._sealing.counter,
            highest,
            run,
        )
        return fixed + seen.to_bytes((seen.bit_length() + 7) // 8)

    @classmethod
    def thaw(cls, frozen: bytes, peer: NodeId, ciphers: CipherCache, failed_max: int) -> "Session":
        """Return the session that was frozen."""
        out, back, exporter, transcript, resonance, local, remote, suite, *numbers = (
            _FROZEN.unpack_from(frozen)
        )
        created, failed, counter, highest, run = numbers
        keys = SessionKeys(
            back[:KEY_BYTES], out[:KEY_BYTES], back[KEY_BYTES:], out[KEY_BYTES:],
            exporter, transcript,
        )  # fmt: skip
        names = SessionNames(peer, False, local, remote, b"", suite)
        session = cls(keys, names, ciphers, failed_max, created)
        session.move(PhaseEvent.OPENED)
        window = (highest, run, int.from_bytes(frozen[_FROZEN.size :]))
        session._resume(failed, counter, resonance, ReplayWindow.thaw(window))
        return session


def _piece_of(plain: bytes, *, padded: bool) -> bytes:
    """Return the piece in the body of a usual packet of bulk data; empty: it is not one."""
    stop = _BODY_START + int.from_bytes(plain[RESONANCE_BYTES:_BODY_START])
    if plain[_BODY_START:_KIND_END] != BULK_KIND or stop > len(plain):
        return b""
    if stop < len(plain) and not (padded and plain.count(0, stop) == len(plain) - stop):
        return b""
    return plain[_PIECE_START:stop]


def _alike_until(plains: Sequence[bytes], tails: tuple[int, ...], at: int, start: bytes) -> int:
    """Return behind which of the bodies from `at` on there is no next fragment of its chunk."""
    tail = tails[at]
    stop = min(len(plains), at + (tail & 0xFF) + 1 - (tail >> 8 & 0xFF))
    if tails[at:stop] != tuple(range(tail, tail + (stop - at << 8), 1 << 8)):
        return at + 1
    alike = [one.startswith(start) for one in plains[at:stop]]
    return stop if all(alike) else at + alike.index(False)


class ReplayError(VerificationError):
    """A packet number that was seen before, or is older than the window."""

    code = "E-HTP-REPLAY"

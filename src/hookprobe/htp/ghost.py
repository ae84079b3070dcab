"""GHOST mode (HTP spec 3.7): who watches the path learns when a session lives, and no more.

Every packet has the same size and the same outside (`veil`), and one leaves at each tick of a
schedule that knows nothing of what there is to say: gaps U(1/2, 3/2) of what the budget allows.
What has to be sent waits for a tick; a tick with nothing waiting sends a cover packet, which is an
acknowledgement said again. Handshakes and the end of a session are not hidden, nor are ends and
addresses. Each end hides what it sends; both have to be set to it to hide a conversation.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from hookprobe.crypto.sealing import CipherCache
from hookprobe.htp.bulk import Span
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.effects import Address, Effect, Transmit, TransmitRun, each_datagram
from hookprobe.htp.keys import SessionKeys
from hookprobe.htp.packet import (
    FLAG_ACK_ELICITING,
    FLAG_RES_FRESH,
    SEALED_OVERHEAD_BYTES,
    VEIL_BYTES,
    Mode,
    PacketType,
    encode_body,
    encode_header,
)
from hookprobe.htp.path import Arrival
from hookprobe.htp.seams import LinkTools
from hookprobe.htp.session import Opened, Session, SessionNames
from hookprobe.htp.shortcuts import Frozen, QuickLink
from hookprobe.htp.traffic import Ping
from hookprobe.htp.veil import veil
from hookprobe.wire.instant import SECOND, Instant

HELD_MAX = 64
_OUTSIDE = FLAG_ACK_ELICITING << 24 | Mode.GHOST << 16
_ROOM_BYTES = DATAGRAM_BYTES - SEALED_OVERHEAD_BYTES


class VeiledSession(Session):
    """A session whose packets are all alike outside."""

    __slots__ = ()

    def seal(
        self, kind: PacketType, payload: bytes, now: Instant, sequence: int = 0, tail: int = 0
    ) -> bytes:
        """Return the next packet; see `Session.seal`."""
        flags = FLAG_ACK_ELICITING if kind in (PacketType.DATA, PacketType.HEARTBEAT) else 0
        if kind is PacketType.HEARTBEAT and self.names.dialled:
            flags |= FLAG_RES_FRESH
        return self._seal_veiled(kind, payload, now, sequence, flags << 24 | tail)

    def seal_padded(self, payload: bytes, size: int, now: Instant) -> bytes:
        """Return a HEARTBEAT that repeats the beacon; all packets have one size here."""
        del size
        flags = FLAG_ACK_ELICITING << 24
        return self._seal_veiled(PacketType.HEARTBEAT, payload, now, 0, flags)

    def seal_run(self, run: Sequence[Span], now: Instant) -> list[bytes]:
        """Return the next DATA packets; see `Session.seal_run`."""
        packets = []
        for chunk, first, width, last in run:
            for place in range(first, first + width):
                payload, tail = (
                    chunk.head + chunk.pieces[place],
                    FLAG_ACK_ELICITING << 24 | place << 8 | last,
                )
                packets.append(
                    self._seal_veiled(PacketType.DATA, payload, now, chunk.sequence, tail)
                )
        return packets

    def _seal_veiled(
        self, kind: PacketType, payload: bytes, now: Instant, sequence: int, tail: int
    ) -> bytes:
        hidden = veil(kind, tail, sequence, self._since(now), payload)
        assert len(hidden) <= _ROOM_BYTES, "a packet would stand out"
        plain = encode_body(self.resonance, hidden, _ROOM_BYTES)
        number = self._sealing.counter
        header = encode_header(PacketType.DATA, 0, 0, self.names.remote_token, number, _OUTSIDE)
        return header + self._sealing.seal(number, plain, header)


class GhostLink(QuickLink):
    """A link whose packets leave on a schedule."""

    __slots__ = ("_acked_last", "_held", "_tick_at")

    def __init__(
        self,
        session: Session,
        address: Address,
        fingerprint: bytes | None,
        tools: LinkTools,
        now: Instant,
    ) -> None:
        super().__init__(session, address, fingerprint, tools, now)
        self._held: deque[Transmit] = deque()
        self._acked_last = False
        self._tick_at = self._next_tick(now)

    def _next_tick(self, now: Instant) -> Instant:
        gap = DATAGRAM_BYTES * SECOND // self._tools.config.ghost_bytes_per_s
        return Instant(now + gap // 2 + self._tools.entropy.jitter(gap, now))

    def _hold(self, effects: list[Effect]) -> list[Effect]:
        told: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Transmit | TransmitRun) and self.ended is None:
                self._held += islice(each_datagram((effect,)), HELD_MAX - len(self._held))
            else:
                told.append(effect)
        return told

    def receive(self, session: Session, opened: Opened, arrival: Arrival) -> list[Effect]:
        return self._hold(super().receive(session, opened, arrival))

    def receive_beat(self, data: bytes, address: Address, now: Instant) -> list[Effect] | None:
        """No shortcut: an answer would leave at once."""
        del data, address, now
        return None

    def freeze(self) -> Frozen | None:
        """No rest: there is a tick to come."""
        return None

    def flush(self, now: Instant) -> list[Effect]:
        # Chunks are cut so that they fit behind the veil, whatever the search has found.
        if self.has_traffic:
            self.traffic.mtu.size = DATAGRAM_BYTES - VEIL_BYTES
        return self._hold(super().flush(now))

    def _ack_deadline(self) -> Instant | None:
        return None  # acknowledgements leave at ticks

    def next_timeout(self) -> Instant:
        return min(super().next_timeout(), self._tick_at)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        effects = self._hold(super().handle_timeout(now))
        if now < self._tick_at or self.ended is not None:
            return effects
        self._tick_at = self._next_tick(now)
        # Of an acknowledgement and something else that wait, each gets every second tick.
        self._acked_last = not self._held or (
            self._acks.deadline is not None and not self._acked_last
        )
        packet = self._cover(now) if self._acked_last else self._held.popleft()
        return effects if self._path.overdrawn else [*effects, packet]

    def _cover(self, now: Instant) -> Transmit:
        if self._acks.ranges:
            return self._send_ack(now)
        return self._send_padded(self.traffic, DATAGRAM_BYTES, Ping(), now)


def make_session(
    keys: SessionKeys, names: SessionNames, ciphers: CipherCache, config: HtpConfig, now: Instant
) -> Session:
    """Return a session of the mode that is set."""
    made = VeiledSession if config.ghost_bytes_per_s else Session
    return made(keys, names, ciphers, config.failed_open_max, now)


def make_link(
    session: Session,
    address: Address,
    fingerprint: bytes | None,
    tools: LinkTools,
    now: Instant,
) -> QuickLink:
    """Return a link of the mode that is set."""
    made = GhostLink if tools.config.ghost_bytes_per_s else QuickLink
    return made(session, address, fingerprint, tools, now)

"""What flows between two peers, whatever keys seal it: channels, datagrams, bulk, and their pace.

Made when the first thing is to be sent: an answering end with many quiet peers holds none of it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from hookprobe.errors import LocalError
from hookprobe.htp.bulk import BulkQueue, Run
from hookprobe.htp.channels import PRIORITIES, Channel, Priority
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.congestion import WINDOW_INITIAL_BYTES, WINDOW_MIN_BYTES, Controller, NewReno
from hookprobe.htp.cubic import Cubic
from hookprobe.htp.ledbat import Ledbat
from hookprobe.htp.messages import (
    Ack,
    FragmentHeader,
    encode_fragment_header,
    message_tag,
)
from hookprobe.htp.mtu import MtuSearch
from hookprobe.htp.outbox import PIECE_MAX_BYTES, Fragment, Outbox
from hookprobe.htp.packet import Mode
from hookprobe.htp.recovery import Flight, Recovery, Settled
from hookprobe.wire.instant import Instant

DATAGRAMS_MAX = 64
SEARCH_AFTER_BYTES = 64 << 10  # who sends little gains nothing from larger datagrams

CONTROLLERS: dict[str, Callable[[int], Controller]] = {
    "newreno": NewReno,
    "cubic": Cubic,
    "ledbat": Ledbat,
}


class Beacon(NamedTuple):
    """The content of a HEARTBEAT: the beacon it carried."""

    beacon: bytes


class SizeProbe(NamedTuple):
    """The content of a padded HEARTBEAT."""

    size: int


class Datagram(NamedTuple):
    """A message that is sent once."""

    channel: Channel
    payload: bytes


class Ping(NamedTuple):
    """The content of a HEARTBEAT that only asks for an answer."""


Chunks: TypeAlias = Sequence[tuple[bytes, bytes]]
Content: TypeAlias = Fragment | Run | Datagram | Beacon | SizeProbe | Ping


class Traffic:
    """The sending half of one link.

    Args:
        config: Limits and algorithms.
        dialled: Whether we dialled; background transfers of the dialling end yield to others.
        size_max: Datagrams the peer takes.
    """

    __slots__ = (
        "_config",
        "_datagrams",
        "_names",
        "_number",
        "_offered",
        "_urgent",
        "background",
        "bulk",
        "foreground",
        "mtu",
        "outbox",
        "recovery",
        "release_at",
    )

    def __init__(self, config: HtpConfig, *, dialled: bool, size_max: int) -> None:
        self._config = config
        self._names = (config.congestion, config.background if dialled else config.congestion)
        self.outbox = Outbox(config.send_queue_max_bytes)
        self.bulk = BulkQueue(config.send_queue_max_bytes // 4)
        self.recovery: Recovery[Content] = Recovery(config.ack_delay_us)
        self.mtu = MtuSearch(size_max)
        self._datagrams: deque[Datagram] = deque()
        self._number = 0
        self._offered = 0
        self._urgent = 0  # bytes of BURST messages not yet sent
        self.release_at: Instant | None = None
        self.foreground = Flight(self._controller(0), WINDOW_INITIAL_BYTES)
        self.background = Flight(self._controller(1), WINDOW_MIN_BYTES)

    def _controller(self, which: int) -> Controller:
        return CONTROLLERS[self._names[which]](self._config.congestion_max_bytes)

    def begin_path(self) -> None:
        """Forget what was learnt of the path: it is another one now (RFC 9000 section 9.4)."""
        self.foreground.controller = self._controller(0)
        self.background.controller = self._controller(1)
        self.mtu.reset(None)

    # -- offers -------------------------------------------------------------------------------

    def offer(self, channel: Channel, data: bytes, mode: Mode = Mode.NORMAL) -> bool:
        """Queue a message of an ordered channel; False if there is no room."""
        self._offered += len(data)
        taken = self.outbox.offer(channel, data, mode)
        if taken and mode is Mode.BURST:
            self._urgent += max(1, len(data))
        return taken

    def offer_chunks(self, chunks: Chunks) -> bool:
        """Queue chunks; False if there is no room for one of them."""
        self._offered += sum(len(data) for _, data in chunks)
        return all(self.bulk.offer(head, data) for head, data in chunks)

    def offer_datagram(self, channel: Channel, data: bytes) -> bool:
        """Queue a message that is sent once, or never if it has to wait behind 64 others.

        Raises:
            LocalError: It does not fit a datagram of the base size.
        """
        if len(data) > PIECE_MAX_BYTES:
            raise LocalError(f"datagram of {len(data)} bytes, limit {PIECE_MAX_BYTES}")
        if len(self._datagrams) >= DATAGRAMS_MAX:
            return False
        self._number = self._number + 1 & 0xFFFFFFFF
        header = FragmentHeader(channel, 0, self._number, 1, message_tag(data))
        self._datagrams.append(Datagram(channel, encode_fragment_header(header) + data))
        return True

    @property
    def pending(self) -> bool:
        """Whether anything waits for room."""
        return self.talking or bool(self.bulk)

    @property
    def talking(self) -> bool:
        """Whether anything but bulk waits for room."""
        return bool(self._datagrams) or self.outbox.pending

    # -- taking -------------------------------------------------------------------------------

    def take(self, room: tuple[int, int], size: int) -> tuple[Fragment | Datagram, Flight] | None:
        """Return the next thing to send and the flight it belongs to.

        Args:
            room: Bytes that the foreground and the background may send.
            size: What a datagram may take.
        """
        if self._datagrams and room[0] >= size:
            return self._datagrams.popleft(), self.foreground
        first = Priority.CONSENSUS if room[0] >= size else Priority.FILES
        stop = len(Priority) if room[1] >= size else Priority.FILES
        fragment = self.outbox.take(first, stop)
        if fragment is None:
            return None
        if fragment.message.mode is Mode.BURST:
            self._urgent -= max(1, fragment.stop - fragment.start)
        files = PRIORITIES[fragment.message.channel] is Priority.FILES
        return fragment, self.background if files else self.foreground

    def room(self, now: Instant) -> tuple[int, int]:
        """Return the bytes that the foreground and the background may send now."""
        rtt = self.recovery.rtt
        self.background.pacer.datagram_bytes = self.mtu.size
        foreground = self.foreground.room(rtt, now)
        if self._urgent > 0:  # an alert waits for nothing but the window
            foreground = self.foreground.window - self.foreground.in_flight
        return foreground, self.background.room(rtt, now)

    def plan(self, now: Instant) -> None:
        """Set when pacing lets go of what waits, if it is pacing that it waits for."""
        self.release_at = None
        if not self.pending:
            return
        self.room(now)  # fills the buckets, also where nothing was asked for
        for flight in (self.foreground, self.background):
            at = flight.pacer.next(now) if flight.in_flight < flight.window else None
            if at is not None and (self.release_at is None or at < self.release_at):
                self.release_at = at

    def probe_size(self, now: Instant) -> int | None:
        """Return the size of a padded heartbeat to send now, if one is due."""
        if self._offered < SEARCH_AFTER_BYTES or not self.recovery.rtt:
            return None
        return self.mtu.wanted(now)

    # -- outcomes -----------------------------------------------------------------------------

    def on_ack(self, ack: Ack, one_way: int | None, next_number: int, now: Instant) -> list[bytes]:
        """Take an acknowledgement; return the beacons that arrived.

        Raises:
            MalformedError: Of a packet that was never sent.
        """
        outcome = self.recovery.on_ack(ack.ranges, (ack.delay_us, one_way), next_number, now)
        beacons = []
        for settled in outcome.arrived:
            sent = settled.sent
            content = sent.content
            if type(content) is Run:
                self.bulk.on_arrived(content, settled.which)
                if sent.size > DATAGRAM_BYTES:
                    self.mtu.on_arrived(sent.size, sent.number + settled.last)
            elif type(content) is Fragment:
                self.outbox.on_arrived(content)
            elif type(content) is SizeProbe:
                self.mtu.on_probe_arrived(content.size, now)
            elif type(content) is Beacon:
                beacons.append(content.beacon)
        self.on_lost(outcome.lost, now)
        self.outbox.credit = max(self.outbox.credit, ack.credit_kib << 10)
        return beacons

    def on_lost(self, lost: list[Settled[Content]], now: Instant) -> None:
        """Send again what was lost and has to arrive."""
        for settled in lost:
            sent = settled.sent
            for place in range(settled.first, settled.last + 1):
                if settled.which >> place & 1:
                    self.mtu.on_lost(sent.size, sent.number + place, now)
            self._put_back(settled, now)

    def _put_back(self, settled: Settled[Content], now: Instant) -> None:
        content = settled.sent.content
        if type(content) is Run:
            self.bulk.put_back(content, settled.which)
        elif type(content) is Fragment:
            self.outbox.put_back(content)
        elif type(content) is SizeProbe:
            self.mtu.on_probe_lost(now)

    def next_timeout(self) -> Instant | None:
        """Return when loss is to be looked for, or pacing lets something go."""
        due, release = self.recovery.next_timeout(), self.release_at
        return release if due is None or (release is not None and release < due) else due

    def handle_timeout(self, now: Instant) -> bool:
        """Look for lost packets; True if a probe has to be sent."""
        lost, probe = self.recovery.handle_timeout(now)
        self.on_lost(lost, now)
        return probe

    def renew(self, now: Instant) -> None:
        """New keys begin a new space of packet numbers: send again what is on its way."""
        for settled in self.recovery.restart():
            self._put_back(settled, now)
        self.mtu.forget_numbers()

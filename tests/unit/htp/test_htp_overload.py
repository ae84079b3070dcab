"""A crowd dials a validator that can serve so much a second, behind a socket that holds so much.

Time is virtual: a datagram costs the validator 12 us and a handshake 300 us more, as measured, and
it sees what waits in the socket only when it is done with what it took before. A crowd is served if
everybody gets a session for one handshake each, in about the time that so many handshakes take.
"""

from collections import deque
from heapq import heappop, heappush
from random import Random

import pytest
from tests.unit.htp.htp_pair import START, Book, Host

from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    Dropped,
    DropReason,
    Effect,
    SessionDown,
    SessionUp,
    Transmit,
)
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

DATAGRAM_US = 12
HANDSHAKE_US = 300
BATCH = 64


class Crowd:
    """Edges that dial within a tenth of a second, and the validator.

    Args:
        count: How many edges.
        socket: Datagrams that wait in the validator's socket; what comes beyond is lost.
        round_trip_us: Between each edge and the validator.
        unconfirmed_max: Sessions that may wait for their first packet.
    """

    def __init__(self, count: int, socket: int, round_trip_us: int, unconfirmed_max: int) -> None:
        self.now = START
        self.up_at: dict[Address, int] = {}
        self.ended = self.turned_away = self.overflowed = 0
        self._book = Book()
        self._socket, self._half_us = socket, round_trip_us // 2
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self._busy_until = START
        self._queue: list[tuple[int, int, str, bytes, Address]] = []
        self._order = 0
        self._due: dict[Address, int] = {}
        config = HtpConfig(peers_max=2 * count, unconfirmed_max=unconfirmed_max)
        self.validator = Host("v", Address("192.0.2.1", 4719), config, self._book, START)
        self.edges: dict[Address, Host] = {}
        for number in range(count):
            address = Address(f"10.0.{number >> 8}.{number & 255}", 4719)
            edge = Host(f"edge-{number}", address, HtpConfig(), self._book, START)
            self._book.entries[edge.name] = edge.enlist()
            self.edges[address] = edge
            self._at(START + Random(number).randrange(SECOND // 10), "dial", address)

    @property
    def handshakes(self) -> int:
        """How often the validator looked up who attested: once for each handshake."""
        return self._book.lookups

    def _at(self, when: int, what: str, address: Address, data: bytes = b"") -> None:
        self._order += 1
        heappush(self._queue, (when, self._order, what, data, address))

    def run(self, seconds: int) -> None:
        until = START + seconds * SECOND
        while self._queue and self._queue[0][0] <= until:
            at, _, what, data, address = heappop(self._queue)
            self.now = Instant(max(self.now, at))
            if what == "arrive":
                self._arrive(data, address)
            elif what == "serve":
                self._serve()
            else:
                self._edge(what, data, self.edges[address], at)

    def _edge(self, what: str, data: bytes, edge: Host, at: int) -> None:
        effects: list[Effect] = []
        if what == "dial":
            effects = edge.endpoint.connect(self.validator.pin(), self.now)
        elif what == "hear":
            effects = edge.endpoint.receive_datagram(data, self.validator.address, self.now)
        elif self._due.get(edge.address) == at:
            effects = edge.endpoint.handle_timeout(self.now)
        for one in effects:
            if isinstance(one, Transmit):
                self._at(self.now + self._half_us, "arrive", edge.address, one.data)
            elif isinstance(one, SessionUp):
                self.up_at[edge.address] = self.now
            elif isinstance(one, SessionDown):
                self.ended += 1
        due = edge.endpoint.next_timeout()
        if due is not None and self._due.get(edge.address) != due:
            self._due[edge.address] = due
            self._at(due, "wake", edge.address)

    def _arrive(self, data: bytes, source: Address) -> None:
        if len(self._waiting) >= self._socket:
            self.overflowed += 1
            return
        self._waiting.append((data, source))
        if len(self._waiting) == 1:
            self._at(max(self.now, self._busy_until), "serve", source)

    def _serve(self) -> None:
        """Take a batch out of the socket; the answers leave when all of it is worked off."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        before = self.handshakes
        effects = self.validator.endpoint.receive_batch(batch, self.now)
        spent = len(batch) * DATAGRAM_US + (self.handshakes - before) * HANDSHAKE_US
        self._busy_until = Instant(self.now + spent)
        for one in effects:
            if isinstance(one, Transmit):
                self._at(self._busy_until + self._half_us, "hear", one.address, one.data)
            elif isinstance(one, Dropped) and one.reason is DropReason.BUSY:
                self.turned_away += 1
        if self._waiting:
            self._at(self._busy_until, "serve", self.validator.address)


@pytest.mark.parametrize(
    ("socket", "round_trip_ms", "unconfirmed"),
    [(100_000, 300, 128), (60, 40, 4096), (100_000, 40, 4096)],
    ids=["more than may wait", "a small socket", "room for all"],
)
def test_48_a_crowd_is_served_with_one_handshake_each(
    socket: int, round_trip_ms: int, unconfirmed: int
) -> None:
    crowd = Crowd(1200, socket, round_trip_ms * MILLISECOND, unconfirmed)
    crowd.run(30)
    assert len(crowd.up_at) == len(crowd.validator.endpoint.peers) == len(crowd.edges)
    assert crowd.ended == 0
    assert crowd.handshakes == len(crowd.edges)
    assert bool(crowd.turned_away) is (unconfirmed < len(crowd.edges))
    assert bool(crowd.overflowed) is (socket < len(crowd.edges))
    # 0.4 s of work; whoever was turned away or not heard tries again after 1, 3 and 7 seconds.
    assert max(crowd.up_at.values()) - START < 16 * SECOND

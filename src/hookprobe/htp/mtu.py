"""How large datagrams may be: packetization-layer path MTU discovery (RFC 8899).

Every path carries 1200 bytes. Larger sizes are tried with heartbeats padded to them, one at a time,
and used once one has arrived; the loss of such a probe says nothing about congestion. If then
several full datagrams in a row are lost while smaller ones arrive, the path has become narrower
without telling: back to 1200, and a new search later.
"""

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.wire.instant import MINUTE, Instant

LADDER = (1280, 1400, 1452, 1472, 8952)  # IPv6's least, tunnels, Ethernet with IPv6 or IPv4, jumbo
PROBES_MAX = 3  # RFC 8899 section 5.1.2
BLACK_HOLE_LOSSES = 3
RAISE_US = 10 * MINUTE  # section 5.1.1
AGAIN_US = MINUTE


class MtuSearch:
    """The size of datagrams on one path, UDP payload in bytes.

    Args:
        size_max: The largest that the peer takes.
    """

    __slots__ = ("_arrived", "_failed", "_lost", "_rung", "_sizes", "again_at", "size", "waiting")

    def __init__(self, size_max: int) -> None:
        self._sizes = tuple(size for size in LADDER if size <= size_max)
        self.size = DATAGRAM_BYTES
        self._rung = 0
        self._failed = 0
        self._lost = 0
        self._arrived = -1
        self.waiting = False
        self.again_at: Instant | None = None

    def wanted(self, now: Instant) -> int | None:
        """Return the size to probe now; None: a probe is on its way, or there is none to try."""
        if self.again_at is not None and now >= self.again_at:
            self.again_at = None
            self._rung = sum(size <= self.size for size in self._sizes)
            self._failed = 0
        if self.waiting or self.again_at is not None or self._rung >= len(self._sizes):
            return None
        return self._sizes[self._rung]

    def on_probe_sent(self) -> None:
        self.waiting = True

    def on_probe_arrived(self, size: int, now: Instant) -> None:
        """A padded heartbeat came through: use its size, try the next."""
        self.waiting = False
        if size > self.size:
            self.size = size
            self._lost = 0
        if self._rung < len(self._sizes) and size == self._sizes[self._rung]:
            self._failed = 0
            self._climb(now)

    def on_probe_lost(self, now: Instant) -> None:
        """Try again; the third time, skip to the next size: what failed may be a full queue."""
        self.waiting = False
        self._failed += 1
        if self._failed >= PROBES_MAX:
            self._failed = 0
            self._climb(now)

    def _climb(self, now: Instant) -> None:
        self._rung += 1
        if self._rung >= len(self._sizes) and self.size != self._sizes[-1]:
            self.again_at = Instant(now + RAISE_US)

    def on_arrived(self, size: int, number: int) -> None:
        """The packet of this number arrived."""
        if size > DATAGRAM_BYTES and number > self._arrived:
            self._arrived = number
            self._lost = 0

    def on_lost(self, size: int, number: int, now: Instant) -> bool:
        """A packet was lost; True if that makes a black hole.

        Only losses behind the last large packet that arrived count: a full queue drops in between.
        """
        if not DATAGRAM_BYTES < size <= self.size or number < self._arrived:
            return False
        self._lost += 1
        if self._lost < BLACK_HOLE_LOSSES:
            return False
        self.reset(Instant(now + AGAIN_US))
        return True

    def forget_numbers(self) -> None:
        """Packet numbers begin anew."""
        self._arrived = -1

    def reset(self, again_at: Instant | None) -> None:
        """Return to the base size; search again at once, or at `again_at`."""
        self.size = DATAGRAM_BYTES
        self._lost = self._failed = self._rung = 0
        self._arrived = -1
        self.waiting = False
        self.again_at = again_at

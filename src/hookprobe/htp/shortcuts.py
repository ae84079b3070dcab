"""What an answering end with very many peers does most, in the fewest steps; and how peers rest.

`Link` tells the whole truth about a peer and is what these shortcuts are tested against: the usual
packet of bulk data and the usual heartbeat are taken in one go, and whatever is not usual goes the
long way with nothing changed.

A quiet link can be frozen into one byte string of some 450 bytes instead of a dozen objects of
2.4 KB; the next packet, timer or command thaws it. Nothing that a peer or the host could observe
depends on it.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from hookprobe.crypto.sealing import CipherCache
from hookprobe.htp.effects import Address, Effect, VitalsReported
from hookprobe.htp.inbox import Inbox
from hookprobe.htp.keepalive import LEAST_US, ON_MAINS, KeepAlive
from hookprobe.htp.link import REKEY_AFTER_PACKETS, Link
from hookprobe.htp.messages import Vitals, read_beat
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES, Block
from hookprobe.htp.path import Burst
from hookprobe.htp.seams import LinkTools
from hookprobe.htp.session import Session
from hookprobe.htp.traffic import Traffic
from hookprobe.htp.trust import level_of
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

AHEAD_LEAST = 2  # packets of bulk data expected behind one
_BATTERY = 4  # its place in what `read_beat` returns
RANGES_MAX = 8  # of acknowledgements; a link with more has gaps that packets are on their way for

# stream id, last heard, trust, probe echo, vitals (5), acknowledgements (4), beacons (3), ranges
_FROZEN = struct.Struct(">QqH8sIBBBHQIqI64sqqB")
_RANGE = struct.Struct(">QQ")


class Frozen:
    """A link that rests.

    Attributes:
        peer: Of the link.
        address: Where it is.
        state: Everything else that differs from a new link; secret.
        fingerprint: The peer's W_fp, an object of the registry as a rule.
        kept: What is kept as it is where there is any of it: channels that were used, and what
            was learnt of the peer's NAT with the gap that is asked for.
    """

    __slots__ = ("address", "fingerprint", "kept", "peer", "state")

    def __init__(
        self,
        peer: NodeId,
        address: Address,
        state: bytes,
        fingerprint: bytes | None,
        kept: "Kept | None",
    ) -> None:
        self.peer = peer
        self.address = address
        self.state = state
        self.fingerprint = fingerprint
        self.kept = kept


Kept: TypeAlias = tuple[Traffic | None, Inbox | None, KeepAlive | None, int]


class QuickLink(Link):
    """A link with shortcuts; see the module's docstring."""

    __slots__ = ()

    def receive_bulk(
        self, datagrams: Sequence[tuple[bytes, Address]], start: int, now: Instant
    ) -> int:
        """Take the usual packets of bulk data from `start` on in one go; return how many.

        What is opened behind the last of them is opened in vain: messages may follow, and only the
        inside of a packet tells. So this looks ahead no further than it already was right.
        """
        path = self._path
        if self.ended is not None or not path.proven or not self._acks.ranges:
            return 0
        packets, taken, ahead = _of(datagrams, start, path.address), 0, AHEAD_LEAST
        while self._fragments:  # of the packet before `start`, or taken here
            fragments, timestamp = self.session.open_run(islice(packets, ahead))
            if fragments:
                self.last_heard = now
                self._fragments += fragments
                self._acks.receive_next(timestamp, now, len(fragments))
                taken += len(fragments)
            if len(fragments) < ahead:
                break
            ahead *= 2
        return taken

    def receive_burst(self, burst: Burst, now: Instant) -> int:
        """Take the usual packets of bulk data in a burst in one go; return how many."""
        path = self._path
        if self.ended is not None or burst.address != path.address or not path.proven:
            return 0
        if not self._acks.ranges or now - self.last_heard >= LEAST_US:
            return 0
        block = Block(burst.data, burst.size)
        fragments, count, timestamp = self.session.open_burst(block)
        if count:
            self.last_heard = now
            self._fragments += fragments
            self._acks.receive_next(timestamp, now, count)
        return count

    def receive_beat(self, data: bytes, address: Address, now: Instant) -> list[Effect] | None:
        """Take the usual heartbeat in one go and answer it; None: it needs the long way.

        An answering end with many quiet peers does little else. Our own timer can only become
        later by it, so it need not be set.
        """
        session, path, watch, acks = self.session, self._path, self._watch, self._acks
        if watch is None or self.ended is not None or address != path.address or not path.proven:
            return None
        if self._busy or not acks.ranges or session.next_number >= REKEY_AFTER_PACKETS:
            return None
        trust, standing = self._tools.seams.trust.trust(self.peer, now), self.standing
        if trust != standing.trust and level_of(trust) is not standing.level:
            return None
        opened = session.open_next(data)
        body = None if opened is None else read_beat(opened[2])
        if opened is None or body is None or body[_BATTERY] != ON_MAINS:
            return None
        if not watch.receive_next(opened[0], body[0], now):
            return None
        standing.trust = trust
        session.commit(opened[0])
        self.last_heard = now
        acks.receive_answered(opened[1], now)
        self._probe_echo, vitals = body[2], body[3:]
        sent = self._send_ack(now)
        if vitals == self.vitals:
            return [sent]
        self.vitals = Vitals(*vitals)
        return [VitalsReported(self.peer, *vitals), sent]

    @property
    def _busy(self) -> bool:
        """Whether a heartbeat has to be looked at for more than itself."""
        traffic = self._traffic
        waiting = traffic is not None and (traffic.pending or traffic.recovery.pto_count > 0)
        return self.renewal_due or waiting or self._keepalive is not None

    # -- resting ------------------------------------------------------------------------------

    @property
    def _resting(self) -> bool:
        """Whether there is nothing but what `freeze` keeps."""
        traffic, watch = self._traffic, self._watch
        return (
            watch is not None
            and watch.reattest_at is None
            and self.retired is None
            and self.ended is None
            and self._path.proven
            and not self._fragments
            and not self.renewal_due
            and self._acks.deadline is None
            and 0 < len(self._acks.ranges) <= RANGES_MAX
            and (traffic is None or (not traffic.pending and traffic.next_timeout() is None))
        )

    def freeze(self) -> Frozen | None:
        """Return the link at rest; None: it is not."""
        watch, acks = self._watch, self._acks
        if watch is None or not self._resting:
            return None
        state = _FROZEN.pack(
            self.stream_id,
            self.last_heard,
            self.standing.trust,
            self._probe_echo,
            *self.vitals,
            *acks.freeze(),
            *watch.freeze(),
            len(acks.ranges),
        )
        ranges = b"".join(_RANGE.pack(*one) for one in acks.ranges)
        kept: Kept | None = self._traffic, self._inbox, self._keepalive, self.heartbeat_s
        if kept == (None, None, None, self._tools.config.heartbeat_s):
            kept = None
        state += ranges + self.session.freeze()
        return Frozen(self.peer, self.address, state, watch.fingerprint, kept)

    @classmethod
    def thaw(cls, frozen: Frozen, tools: LinkTools, ciphers: CipherCache) -> "QuickLink":
        """Return the link that was frozen."""
        state = frozen.state
        stream_id, last_heard, trust, echo, *rest = _FROZEN.unpack_from(state)
        start = _FROZEN.size + rest[-1] * _RANGE.size
        ranges = [*_RANGE.iter_unpack(state[_FROZEN.size : start])]
        session = Session.thaw(state[start:], frozen.peer, ciphers, tools.config.failed_open_max)
        link = cls(session, frozen.address, frozen.fingerprint, tools, Instant(last_heard))
        link.stream_id, link.standing.trust = stream_id, trust
        link.standing.level = level_of(trust)
        link._resume(echo, rest, ranges, frozen.kept)
        return link

    def _resume(
        self,
        echo: bytes,
        numbers: list[Any],
        ranges: list[tuple[int, int]],
        kept: Kept | None,
    ) -> None:
        self._probe_echo = echo
        self.vitals = Vitals(*numbers[:5])
        self._acks.thaw((numbers[5], numbers[6], numbers[7], numbers[8]), ranges)
        if self._watch is not None:
            self._watch.thaw((numbers[9], numbers[10], numbers[11]))
        if kept is not None:
            self._traffic, self._inbox, self._keepalive, self.heartbeat_s = kept


def _of(datagrams: Sequence[tuple[bytes, Address]], start: int, source: Address) -> Iterator[bytes]:
    """Yield the session packets from `start` on, up to one that came from elsewhere."""
    for data, address in islice(datagrams, start, None):
        if address != source or len(data) < SEALED_OVERHEAD_BYTES:
            return
        yield data

"""Beacons: connections to one outside address at regular intervals.

The intervals between connection starts have a median m and a median absolute deviation d; both
are robust against a missed or an extra connection. It is a beacon when 100 d <= share * m, all in
integers.

False positives thought of: machines are regular, and honest ones name their server. Connections
with a name (TLS SNI, HTTP Host that is not an address) need more than twice as many intervals.
Pages that poll do so over one connection, which counts once. Time, name and local services are not
looked at: only TLS and HTTP to addresses outside. What remains (an updater without SNI) is a
medium incident about one server, which an operator can mark as known.
"""

from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise

from hookprobe.detection.address import Networks, parse_address
from hookprobe.detection.attack import Family
from hookprobe.detection.config import BeaconConfig
from hookprobe.detection.event import Activity, Conversation, FlowSeen, HttpSeen, TlsSeen
from hookprobe.detection.evidence import Sighting
from hookprobe.detection.finding import Finding
from hookprobe.errors import MalformedError
from hookprobe.wire.instant import Instant

_PROTOCOLS = frozenset({"tls", "ssl", "http"})
# A connection is reported up to three times: by its handshake or request, and by its flow.
_SAME_CONNECTION_US = 60_000_000


@dataclass(slots=True)
class _Train:
    """The connection starts of one client to one server, in order."""

    starts: list[int] = field(default_factory=list)
    connections: OrderedDict[tuple[int, int], Instant] = field(default_factory=OrderedDict)
    named: bool = False
    reported: bool = False


class BeaconDetector:
    """Regular connections to the outside.

    Args:
        config: Thresholds.
        home: The networks that are ours.
        window_us: The incident window; a train is judged within one.
    """

    def __init__(self, config: BeaconConfig, home: Networks, window_us: int) -> None:
        self._config = config
        self._home = home
        self._window_us = window_us
        self._trains: OrderedDict[tuple[bytes, bytes, int, int], _Train] = OrderedDict()

    def observe(self, record: Activity) -> list[Finding]:
        if not isinstance(record, FlowSeen | TlsSeen | HttpSeen):
            return []
        if isinstance(record, FlowSeen) and record.app_proto not in _PROTOCOLS:
            return []
        between = record.conversation
        if between.dst in self._home or between.dst.is_group or between.src == between.dst:
            return []
        train = self._train(between, record.at)
        if _is_named(record):
            train.named = True
        if not self._is_new(train, between.src_port, record.at):
            return []
        return self._judge(train, between, record.at)

    def _train(self, between: Conversation, at: Instant) -> _Train:
        window = at // self._window_us
        key = (between.src.packed, between.dst.packed, between.dst_port, window)
        train = self._trains.get(key)
        if train is None:
            train = self._trains[key] = _Train()
            if len(self._trains) > self._config.keys_max:
                self._trains.popitem(last=False)
        else:
            self._trains.move_to_end(key)
        return train

    def _is_new(self, train: _Train, port: int, at: Instant) -> bool:
        slot = at // _SAME_CONNECTION_US
        for near in (slot - 1, slot, slot + 1):
            known = train.connections.get((port, near))
            if known is not None and abs(known - at) < _SAME_CONNECTION_US:
                return False
        train.connections[port, slot] = at
        insort(train.starts, at)
        if len(train.starts) > self._config.times_max:
            del train.starts[0]
        if len(train.connections) > self._config.connections_max:
            train.connections.popitem(last=False)
        return True

    def _judge(self, train: _Train, between: Conversation, at: Instant) -> list[Finding]:
        if train.reported:
            return [_finding(between, Sighting(at, at, 1))]
        wanted = self._config.named_min if train.named else self._config.unnamed_min
        if len(train.starts) < wanted or not self._is_regular(train.starts):
            return []
        train.reported = True
        first, last = Instant(train.starts[0]), Instant(train.starts[-1])
        return [_finding(between, Sighting(first, last, len(train.starts)))]

    def _is_regular(self, starts: list[int]) -> bool:
        intervals = [later - earlier for earlier, later in pairwise(starts)]
        period = _median(intervals)
        if not self._config.period_min_us <= period <= self._config.period_max_us:
            return False
        deviation = _median([abs(interval - period) for interval in intervals])
        return 100 * deviation <= self._config.deviation_max_percent * period


def _median(values: list[int]) -> int:
    """Return the upper median; exact for our purpose and free of fractions."""
    return sorted(values)[len(values) // 2]


def _is_named(record: FlowSeen | TlsSeen | HttpSeen) -> bool:
    if isinstance(record, TlsSeen):
        return bool(record.server_name)
    return isinstance(record, HttpSeen) and not _is_bare(record.host)


def _is_bare(host: str) -> bool:
    try:
        parse_address(host)
    except MalformedError:
        return not host
    return True


def _finding(between: Conversation, sighting: Sighting) -> Finding:
    return Finding(
        Family.BEACON,
        sighting,
        source=between.src,
        target=between.dst,
        target_port=between.dst_port,
        apart=between.dst.packed + between.dst_port.to_bytes(2, "big"),
    )

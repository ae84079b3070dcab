"""The whole room as one machine: sensor lines in, incidents out.

`receive_line` parses one line, drops doubles, shows the record to every detector and books the
evidence. Event time drives everything, so recorded input gives what live input gave; `now` only
guards against stamps from the future and closes incidents when a sensor falls silent.

Left to others: reading files (`stream` cuts bytes into lines), reacting, sharing (`privacy`).
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from hookprobe.detection.address import Networks
from hookprobe.detection.attack import Family
from hookprobe.detection.beacons import BeaconDetector
from hookprobe.detection.brute_force import BruteForceDetector
from hookprobe.detection.certificates import CertificateDetector
from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.dedup import DoubleFilter
from hookprobe.detection.event import (
    Activity,
    Format,
    SecurityEvent,
    Sensor,
    SensorHealth,
    Unused,
)
from hookprobe.detection.finding import Detector, Finding
from hookprobe.detection.floods import FloodDetector
from hookprobe.detection.incident import IncidentEffect, Keyed
from hookprobe.detection.incidents import IncidentBook
from hookprobe.detection.local_network import LocalNetworkDetector
from hookprobe.detection.scans import ScanDetector
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.detection.tunnels import TunnelDetector
from hookprobe.detection.zeek import ZeekTsvParser, parse_zeek_json
from hookprobe.errors import LocalError, MalformedError, RemoteError
from hookprobe.wire.instant import MINUTE, Instant

_FORGED = frozenset({Family.SYN_FLOOD, Family.PACKET_FLOOD, Family.ADDRESS_FLOOD})


@dataclass(frozen=True, slots=True)
class LineRefused:
    """A line that is not what it claims to be was skipped."""

    sensor: Sensor
    position: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class HealthReported:
    """The sensor reported its own counters."""

    sensor: Sensor
    health: SensorHealth


DetectionEffect: TypeAlias = IncidentEffect | LineRefused | HealthReported


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through since the start.

    Args:
        lines: Lines received.
        records: Records by kind (event type or Zeek log), doubles included.
        unknown: Lines of kinds that we do not know, by kind.
        doubles: Records dropped because they repeat one.
        refused: Lines refused, by error code.
    """

    lines: int
    records: dict[str, int]
    unknown: dict[str, int]
    doubles: int
    refused: dict[str, int]


@dataclass(slots=True)
class _Lane:
    """What streams of one sensor share."""

    doubles: DoubleFilter
    detectors: tuple[Detector, ...]
    watermark: Instant
    idle_at: Instant
    minute: int = 0


@dataclass(slots=True)
class _Stream:
    """One file of a sensor: where in it the evidence of each minute begins."""

    tsv: ZeekTsvParser | None
    starts: dict[int, int] = field(default_factory=dict)
    position: int = 0


class Detection:
    """Sensor lines to incidents.

    Args:
        config: Thresholds and bounds.
        keyed: HMAC-SHA-256 under a key of this node, for incident keys.
        announced: Keys of incidents announced before a restart; they are not opened twice.
    """

    def __init__(
        self, config: DetectionConfig, keyed: Keyed, announced: Collection[str] = ()
    ) -> None:
        self._config = config
        self._home = Networks(config.home_networks)
        self._book = IncidentBook(config.incidents, self._home, keyed, announced)
        self._lanes: dict[str, _Lane] = {}
        self._streams: dict[Sensor, _Stream] = {}
        self._lines = 0
        self._doubles = 0
        self._records: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def receive_line(
        self, sensor: Sensor, line: bytes, position: int, now: Instant
    ) -> list[DetectionEffect]:
        """Take one line.

        Args:
            sensor: Where it comes from.
            line: The bytes, with or without the line end.
            position: Where the line begins in its stream; grows.
            now: The current time.

        Raises:
            LocalError: More sensors or streams than configured.
        """
        self._lines += 1
        lane, stream = self._lane(sensor.name), self._stream(sensor)
        stream.position = max(stream.position, position)
        lane.idle_at = Instant(now + self._config.incidents.idle_us)
        try:
            record = self._parse(sensor, stream, line)
            if record is None:
                return []
            if isinstance(record, Unused):
                self._count_kind(self._records if record.known else self._unknown, record.kind)
                return []
            self._check_time(record, now)
        except RemoteError as error:
            self._refused[error.code] += 1
            return [LineRefused(sensor, position, error.code, error.message)]
        stream.starts.setdefault(record.at // MINUTE, position)
        return self._observe(sensor, lane, record)

    def next_timeout(self) -> Instant | None:
        """When silence closes a sensor's incidents; None where none is open."""
        due = [lane.idle_at for name, lane in self._lanes.items() if self._book.open_count(name)]
        return min(due, default=None)

    def handle_timeout(self, now: Instant) -> list[DetectionEffect]:
        """Close the incidents of each sensor that has sent no line for `idle_us`."""
        effects: list[DetectionEffect] = []
        for name, lane in self._lanes.items():
            if self._book.open_count(name) and now >= lane.idle_at:
                effects += self._book.close_sensor(name)
        return effects

    def low_watermark(self, sensor: Sensor) -> int:
        """Return the stream position to read again from after a restart.

        Every record that open incidents and detectors may depend on is at or behind it: those of
        the incident window and the lateness before the newest record.
        """
        stream = self._streams.get(sensor)
        if stream is None:
            return 0
        return min(stream.starts.values(), default=stream.position)

    def counts(self) -> Counts:
        return Counts(
            lines=self._lines,
            records=dict(self._records),
            unknown=dict(self._unknown),
            doubles=self._doubles,
            refused=dict(self._refused),
        )

    def _parse(self, sensor: Sensor, stream: _Stream, line: bytes) -> Activity | Unused | None:
        if sensor.format is Format.EVE:
            return parse_eve_line(line)
        if stream.tsv is not None:
            return stream.tsv.receive_line(line)
        return parse_zeek_json(line, sensor.log)

    def _check_time(self, record: Activity, now: Instant) -> None:
        # One stamp from far ahead would close every window; the clock bounds it.
        if record.at > now + self._config.future_skew_us:
            raise MalformedError("sensor line: the time stamp lies in the future")

    def _observe(self, sensor: Sensor, lane: _Lane, record: Activity) -> list[DetectionEffect]:
        self._count_kind(self._records, type(record).__name__)
        if isinstance(record, SensorHealth):
            return [HealthReported(sensor, record)]
        if lane.doubles.is_double(record):
            self._doubles += 1
            return []
        effects: list[DetectionEffect] = []
        if isinstance(record, SecurityEvent):
            effects += self._book.observe_alert(sensor.name, record)
        else:
            for finding in _examine(lane, record):
                effects += self._book.observe_finding(sensor.name, finding)
        return effects + self._advance(sensor, lane, record.at)

    def _advance(self, sensor: Sensor, lane: _Lane, at: Instant) -> list[DetectionEffect]:
        """Move event time on; once a minute of it, close and forget what is past."""
        lane.watermark = max(lane.watermark, at)
        minute = lane.watermark // MINUTE
        if minute == lane.minute:
            return []
        lane.minute = minute
        config = self._config.incidents
        oldest = (lane.watermark - config.window_us - config.lateness_us) // MINUTE
        for other, stream in self._streams.items():
            if other.name == sensor.name:
                stream.starts = {
                    each: position for each, position in stream.starts.items() if each >= oldest
                }
        return [*self._book.close_before(sensor.name, lane.watermark)]

    def _count_kind(self, counter: Counter[str], kind: str) -> None:
        # Kinds come from the sensor: their number is bounded, the rest share one name.
        known = kind in counter or len(counter) < self._config.kinds_max
        counter[kind if known else "other"] += 1

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= self._config.sensors_max:
                raise LocalError(f"more than {self._config.sensors_max} sensors")
            lane = self._lanes[name] = self._new_lane()
        return lane

    def _new_lane(self) -> _Lane:
        config, home = self._config, self._home
        return _Lane(
            doubles=DoubleFilter(config.double_skew_us, config.doubles_max),
            detectors=(
                FloodDetector(config.floods, home),
                ScanDetector(config.scans, home),
                BruteForceDetector(config.brute_force, home),
                BeaconDetector(config.beacons, home, config.incidents.window_us),
                TunnelDetector(config.tunnels),
                LocalNetworkDetector(config.local_network),
                CertificateDetector(),
            ),
            watermark=Instant(0),
            idle_at=Instant(0),
        )

    def _stream(self, sensor: Sensor) -> _Stream:
        stream = self._streams.get(sensor)
        if stream is None:
            if len(self._streams) >= self._config.streams_max:
                raise LocalError(f"more than {self._config.streams_max} sensor streams")
            tsv = ZeekTsvParser(sensor.log) if sensor.format is Format.ZEEK_TSV else None
            stream = self._streams[sensor] = _Stream(tsv)
        return stream


def _examine(lane: _Lane, record: Activity) -> list[Finding]:
    found: list[Finding] = []
    for detector in lane.detectors:
        found += detector.observe(record)
        # A flood's forged sources would push real scanners out of the scan tables.
        if found and any(finding.family in _FORGED for finding in found):
            break
    return found

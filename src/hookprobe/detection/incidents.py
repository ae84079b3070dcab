"""Incidents: all evidence of one source, one signature and one window of event time, in one place.

Rules:
* An incident opens with the first evidence that qualifies, is updated each time its count has
  doubled, and is closed when its window and the allowed lateness have passed, or on silence.
  3,032 alerts of one scanner are one incident, told in about a dozen effects.
* Windows are aligned to event time and the key is a keyed hash of sensor, signature, source and
  window: reading the same lines again, in another order or twice, gives the same keys.
* The key may leave the edge as an event id, so it is keyed: a plain hash of an address is an
  address to anyone with an hour of computing time.
* Evidence that comes after the close is added to what was closed and reopens it without another
  `IncidentOpened`.

Left to others: what qualifies (`alert_policy`, the detectors) and what is shared (`privacy`).
"""

from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from hookprobe.crypto.domains import Domain
from hookprobe.detection.address import Address, Networks
from hookprobe.detection.alert_policy import Weight, severity_of, weigh
from hookprobe.detection.attack import (
    PROFILES,
    Category,
    Family,
    Hostile,
    classify_alert,
    is_outbound,
)
from hookprobe.detection.config import IncidentConfig
from hookprobe.detection.event import SecurityEvent, Severity
from hookprobe.detection.evidence import Sighting
from hookprobe.detection.finding import Finding
from hookprobe.detection.incident import (
    KEYED_BYTES,
    Incident,
    IncidentClosed,
    IncidentEffect,
    IncidentOpened,
    IncidentUpdated,
    Keyed,
    Target,
)
from hookprobe.errors import LocalError
from hookprobe.wire import canonical
from hookprobe.wire.instant import Instant


@dataclass(slots=True)
class _Record:
    """An incident as it grows."""

    key: str
    sensor: str
    title: str
    category: Category
    severity: Severity
    techniques: tuple[str, ...]
    signature_id: int
    window: int
    first: Instant
    last: Instant
    source: Address | None
    hostile: Address | None
    domain: str
    count: int = 0
    announced: int = 0
    targets: list[tuple[bytes, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a finding and an alert have in common."""

    sensor: str
    title: str
    category: Category
    severity: Severity
    techniques: tuple[str, ...]
    signature_id: int
    sighting: Sighting
    source: Address | None
    target: Address | None
    target_port: int
    hostile: Address | None
    domain: str = ""
    apart: bytes = b""


@dataclass(slots=True)
class _Suspect:
    """Alerts of one source and window that do not qualify one by one."""

    supporting: dict[int, int] = field(default_factory=dict)
    suspicious: dict[int, int] = field(default_factory=dict)
    first: Instant | None = None
    is_open: bool = False
    repeated: dict[int, bool] = field(default_factory=dict)


class IncidentBook:
    """Every incident that is open, and those closed lately.

    Args:
        config: Windows and bounds.
        home: The networks that are ours; their addresses are never hostile to others.
        keyed: HMAC-SHA-256 under a key of this node, 32 bytes out; the same across restarts.
        announced: Keys of incidents that were announced before a restart.
    """

    def __init__(
        self,
        config: IncidentConfig,
        home: Networks,
        keyed: Keyed,
        announced: Collection[str] = (),
    ) -> None:
        self._config = config
        self._home = home
        self._keyed = keyed
        self._announced = frozenset(announced)
        self._open: OrderedDict[str, _Record] = OrderedDict()
        self._open_by_sensor: Counter[str] = Counter()
        self._closed: OrderedDict[str, _Record] = OrderedDict()
        self._suspects: OrderedDict[tuple[str, bytes, int], _Suspect] = OrderedDict()

    def open_count(self, sensor: str) -> int:
        """How many incidents of a sensor are open."""
        return self._open_by_sensor[sensor]

    def observe_finding(self, sensor: str, finding: Finding) -> list[IncidentEffect]:
        """Take evidence of one of our own detectors."""
        profile = PROFILES[finding.family]
        hostile = None
        if profile.hostile is Hostile.SOURCE:
            hostile = self._outside(finding.source)
        elif profile.hostile is Hostile.TARGET:
            hostile = self._outside(finding.target)
        return self._add(
            _Evidence(
                sensor=sensor,
                title=profile.title,
                category=profile.category,
                severity=profile.severity,
                techniques=profile.techniques,
                signature_id=finding.family.value,
                sighting=finding.sighting,
                source=finding.source,
                target=finding.target,
                target_port=finding.target_port,
                hostile=hostile,
                domain=finding.domain,
                apart=finding.apart,
            )
        )

    def observe_alert(self, sensor: str, event: SecurityEvent) -> list[IncidentEffect]:
        """Take an alert of the sensor, as the alert policy weighs it."""
        weight = weigh(event)
        if weight is Weight.NOTHING:
            return []
        if weight is Weight.TRIGGER:
            sighting = Sighting(event.at, event.at, 1)
            return self._add(self._alert_evidence(sensor, event, sighting))
        return self._suspect(sensor, event, weight)

    def _alert_evidence(self, sensor: str, event: SecurityEvent, sighting: Sighting) -> _Evidence:
        category, techniques = classify_alert(event.signature, event.category)
        hostile = self._outside(event.initiator)
        if hostile is None and is_outbound(category):
            hostile = self._outside(event.responder)
        return _Evidence(
            sensor=sensor,
            title=event.signature,
            category=category,
            severity=severity_of(event),
            techniques=event.techniques or techniques,
            signature_id=event.signature_id,
            sighting=sighting,
            source=event.initiator,
            target=event.responder,
            target_port=event.responder_port,
            hostile=hostile,
        )

    def _suspect(self, sensor: str, event: SecurityEvent, weight: Weight) -> list[IncidentEffect]:
        if event.initiator is None:
            return []
        suspect = self._suspect_of(sensor, event.initiator, event.at)
        sids = suspect.suspicious if weight is Weight.SUSPICION else suspect.supporting
        if event.signature_id in sids or len(sids) < self._config.signatures_max:
            sids[event.signature_id] = sids.get(event.signature_id, 0) + 1
        if weight is not Weight.SUSPICION:
            return []
        suspect.first = event.at if suspect.first is None else min(suspect.first, event.at)
        return self._repeat(sensor, event, suspect) + self._gather(sensor, event, suspect)

    def _repeat(self, sensor: str, event: SecurityEvent, suspect: _Suspect) -> list[IncidentEffect]:
        """One signature that names an attack, over and over."""
        sid, count = event.signature_id, suspect.suspicious.get(event.signature_id, 0)
        is_attack = classify_alert(event.signature, event.category)[0] is not Category.SUSPICIOUS
        if not is_attack or count < self._config.repeats_min:
            return []
        weight, first = (1, event.at) if sid in suspect.repeated else (count, suspect.first)
        suspect.repeated[sid] = True
        sighting = Sighting(first or event.at, event.at, weight)
        evidence = self._alert_evidence(sensor, event, sighting)
        return self._add(replace(evidence, severity=event.severity))

    def _gather(self, sensor: str, event: SecurityEvent, suspect: _Suspect) -> list[IncidentEffect]:
        """Several different signatures of one source."""
        if suspect.is_open:
            return self._add(self._many(sensor, event, Sighting(event.at, event.at, 1)))
        if len(suspect.suspicious) < self._config.signatures_min:
            return []
        suspect.is_open = True
        total = sum(suspect.suspicious.values())
        first = suspect.first or event.at
        return self._add(self._many(sensor, event, Sighting(first, event.at, total)))

    def _many(self, sensor: str, event: SecurityEvent, sighting: Sighting) -> _Evidence:
        profile = PROFILES[Family.MANY_SIGNATURES]
        return _Evidence(
            sensor=sensor,
            title=profile.title,
            category=profile.category,
            severity=profile.severity,
            techniques=profile.techniques,
            signature_id=Family.MANY_SIGNATURES.value,
            sighting=sighting,
            source=event.initiator,
            target=event.responder,
            target_port=event.responder_port,
            hostile=self._outside(event.initiator),
        )

    def _suspect_of(self, sensor: str, source: Address, at: Instant) -> _Suspect:
        key = (sensor, source.packed, at // self._config.window_us)
        suspect = self._suspects.get(key)
        if suspect is None:
            suspect = self._suspects[key] = _Suspect()
            if len(self._suspects) > self._config.suspects_max:
                self._suspects.popitem(last=False)
        else:
            self._suspects.move_to_end(key)
        return suspect

    def _outside(self, address: Address | None) -> Address | None:
        if address is None or address.is_group or address in self._home:
            return None
        return address

    def _add(self, evidence: _Evidence) -> list[IncidentEffect]:
        window = evidence.sighting.first // self._config.window_us
        key = self._key(evidence, window)
        record = self._open.get(key) or self._closed.pop(key, None)
        effects: list[IncidentEffect] = []
        is_new = record is None
        if record is None:
            record = _opened(evidence, key, window)
        if key not in self._open:
            self._open[key] = record
            self._open_by_sensor[record.sensor] += 1
            if len(self._open) > self._config.open_max:
                effects += self._close(next(iter(self._open)))
        worse = self._merge(record, evidence)
        if is_new and key not in self._announced:
            record.announced = record.count
            effects.append(IncidentOpened(self._snapshot(record)))
        elif worse or record.count >= 2 * max(record.announced, 1):
            record.announced = record.count
            effects.append(IncidentUpdated(self._snapshot(record)))
        return effects

    def _key(self, evidence: _Evidence, window: int) -> str:
        source = evidence.source.packed.hex() if evidence.source else ""
        parts: list[canonical.Json] = [
            evidence.sensor,
            evidence.signature_id,
            source,
            evidence.apart.hex(),
            window,
        ]
        tag = self._keyed(Domain.INCIDENT.value + b"\0" + canonical.encode(parts))
        if len(tag) != KEYED_BYTES:
            raise LocalError(f"the keyed hash gave {len(tag)} bytes, want {KEYED_BYTES}")
        return tag.hex()

    def _merge(self, record: _Record, evidence: _Evidence) -> bool:
        record.count += evidence.sighting.weight
        record.first = min(record.first, evidence.sighting.first)
        record.last = max(record.last, evidence.sighting.last)
        if evidence.target is not None:
            target = (evidence.target.packed, evidence.target_port)
            if target not in record.targets:
                insort(record.targets, target)
                del record.targets[self._config.targets_max :]
        worse = evidence.severity > record.severity
        record.severity = max(record.severity, evidence.severity)
        return worse

    def _snapshot(self, record: _Record) -> Incident:
        window_us = self._config.window_us
        return Incident(
            key=record.key,
            sensor=record.sensor,
            title=record.title,
            category=record.category,
            severity=record.severity,
            techniques=record.techniques,
            signature_id=record.signature_id,
            count=record.count,
            first_seen=record.first,
            last_seen=record.last,
            window_start=Instant(record.window * window_us),
            window_end=Instant((record.window + 1) * window_us),
            source=record.source,
            hostile=record.hostile,
            hostile_domain=record.domain,
            targets=tuple(Target(Address(packed), port) for packed, port in record.targets),
            supporting=self._supporting(record),
        )

    def _supporting(self, record: _Record) -> tuple[int, ...]:
        if record.source is None:
            return ()
        suspect = self._suspects.get((record.sensor, record.source.packed, record.window))
        if suspect is None:
            return ()
        return tuple(sorted(suspect.supporting | suspect.suspicious))

    def close_before(self, sensor: str, watermark: Instant) -> list[IncidentEffect]:
        """Close a sensor's incidents whose window and lateness have passed."""
        limit = watermark - self._config.lateness_us
        due = [
            key
            for key, record in self._open.items()
            if record.sensor == sensor and (record.window + 1) * self._config.window_us <= limit
        ]
        return [effect for key in due for effect in self._close(key)]

    def close_sensor(self, sensor: str) -> list[IncidentEffect]:
        """Close all incidents of a sensor: it has said nothing for a while."""
        due = [key for key, record in self._open.items() if record.sensor == sensor]
        return [effect for key in due for effect in self._close(key)]

    def _close(self, key: str) -> list[IncidentEffect]:
        record = self._open.pop(key)
        self._open_by_sensor[record.sensor] -= 1
        self._closed[key] = record
        if len(self._closed) > self._config.closed_max:
            self._closed.popitem(last=False)
        return [IncidentClosed(self._snapshot(record))]


def _opened(evidence: _Evidence, key: str, window: int) -> _Record:
    return _Record(
        key=key,
        sensor=evidence.sensor,
        title=evidence.title,
        category=evidence.category,
        severity=evidence.severity,
        techniques=evidence.techniques,
        signature_id=evidence.signature_id,
        window=window,
        first=evidence.sighting.first,
        last=evidence.sighting.last,
        source=evidence.source,
        hostile=evidence.hostile,
        domain=evidence.domain,
    )

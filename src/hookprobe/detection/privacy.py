"""The privacy boundary: the only form of an incident that may leave the edge.

Rules:
* `SharedEvent` is the only type of this room with an encoder, and it has no field that could hold
  an address, a name, a payload or free text.
* Indicators of the attacker are pseudonyms: the tenant's keyed hash of the canonical indicator. An
  unkeyed hash of an address is undone in minutes, so there is none.
* Victims, targets and addresses of home networks are not told in any form, pseudonyms included.
* Times are told in buckets of five minutes, counts as powers of two: enough to rank, too coarse to
  single out one connection.

The keyed hash is given as a callable; its key never comes here.
"""

import re
from dataclasses import dataclass

from hookprobe.crypto.domains import Domain
from hookprobe.detection.attack import Category
from hookprobe.detection.event import Severity
from hookprobe.detection.incident import KEYED_BYTES, Incident, Keyed
from hookprobe.errors import LocalError, MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NODE_ID_BYTES
from hookprobe.wire.instant import MINUTE, Instant

BUCKET_US = 5 * MINUTE
SIZE_MAX_BYTES = 4096
TECHNIQUES_MAX = 16
INDICATORS_MAX = 4
SCORE_MAX = 100

_VERSION = 1
_WHAT = "shared event"
_TECHNIQUE = re.compile(r"T\d{4}(\.\d{3})?", re.ASCII)
_SENSOR = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}", re.ASCII)
_QUAD = re.compile(r"\d{1,3}([.-]\d{1,3}){3}", re.ASCII)
# What each level is worth before repetition adds to it.
_SCORES = {Severity.LOW: 20, Severity.MEDIUM: 45, Severity.HIGH: 70, Severity.CRITICAL: 90}


@dataclass(frozen=True, slots=True)
class SharedEvent:
    """What others may know of an incident.

    Args:
        event_id: 64 hex digits: the incident's key.
        sensor: The sensor's name.
        severity: How bad.
        category: What kind of thing.
        signature_id: Number of the rule or detector.
        techniques: ATT&CK technique ids, sorted.
        count: Observations, rounded down to a power of two.
        threat_score: 0 to 100.
        window_start: Start of the five minutes in which it began.
        window_end: End of the five minutes in which it was last seen.
        indicators: Pseudonyms of the attacker's address or domain, 64 hex digits each, sorted.
    """

    event_id: str
    sensor: str
    severity: Severity
    category: Category
    signature_id: int
    techniques: tuple[str, ...]
    count: int
    threat_score: int
    window_start: Instant
    window_end: Instant
    indicators: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the canonical JSON bytes."""
        return canonical.encode(
            {
                "v": _VERSION,
                "event_id": self.event_id,
                "sensor": self.sensor,
                "severity": self.severity.label,
                "category": self.category.value,
                "signature_id": self.signature_id,
                "techniques": list(self.techniques),
                "count": self.count,
                "threat_score": self.threat_score,
                "window_start": self.window_start,
                "window_end": self.window_end,
                "indicators": list(self.indicators),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "SharedEvent":
        """Read what `encode` wrote.

        Raises:
            LimitExceededError: Too large.
            MalformedError: Not canonical, or fields missing, unknown or out of range.
        """
        fields = Fields(canonical.decode_object(data, limit=SIZE_MAX_BYTES), _WHAT)
        fields.literal("v", _VERSION)
        event = cls(
            event_id=fields.hex("event_id", KEYED_BYTES).hex(),
            sensor=_sensor_name(fields.text("sensor", limit=NODE_ID_BYTES)),
            severity=_severity(fields.text("severity")),
            category=_category(fields.text("category")),
            signature_id=fields.integer("signature_id"),
            techniques=_techniques(fields.array("techniques", limit=TECHNIQUES_MAX)),
            count=fields.integer("count", low=1),
            threat_score=fields.integer("threat_score", high=SCORE_MAX),
            window_start=Instant(fields.integer("window_start")),
            window_end=Instant(fields.integer("window_end")),
            indicators=_pseudonyms(fields.array("indicators", limit=INDICATORS_MAX)),
        )
        fields.finish()
        _check_coarse(event)
        return event


def anonymize(incident: Incident, keyed: Keyed) -> SharedEvent:
    """Return the form of an incident that may leave the edge.

    Args:
        incident: The raw incident.
        keyed: HMAC-SHA-256 under the tenant's key, 32 bytes out.

    Raises:
        LocalError: The sensor's name holds an address, or `keyed` is not what it should be.
    """
    try:
        sensor = _sensor_name(incident.sensor)
    except MalformedError as error:
        raise LocalError(f"sensor name cannot be shared: {error.message}") from error
    techniques = [each for each in incident.techniques if _TECHNIQUE.fullmatch(each)]
    return SharedEvent(
        event_id=incident.key,
        sensor=sensor,
        severity=incident.severity,
        category=incident.category,
        signature_id=incident.signature_id,
        techniques=tuple(sorted(set(techniques))[:TECHNIQUES_MAX]),
        count=1 << (max(incident.count, 1).bit_length() - 1),
        threat_score=threat_score(incident.severity, incident.count),
        window_start=Instant(incident.first_seen // BUCKET_US * BUCKET_US),
        window_end=Instant((incident.last_seen // BUCKET_US + 1) * BUCKET_US),
        indicators=_indicators(incident, keyed),
    )


def threat_score(severity: Severity, count: int) -> int:
    """Return 0 to 100: the level's base, and one more for each doubling of the count."""
    return min(SCORE_MAX, _SCORES[severity] + max(count, 1).bit_length() - 1)


def pseudonym(indicator: bytes, keyed: Keyed) -> str:
    """Return the keyed pseudonym of a canonical indicator, 64 hex digits.

    Equal indicators have equal pseudonyms under one key: that is how sightings meet.
    """
    tag = keyed(Domain.PSEUDONYM.value + b"\0" + indicator)
    if len(tag) != KEYED_BYTES:
        raise LocalError(f"the keyed hash gave {len(tag)} bytes, want {KEYED_BYTES}")
    return tag.hex()


def _indicators(incident: Incident, keyed: Keyed) -> tuple[str, ...]:
    found = []
    if incident.hostile is not None:
        found.append(pseudonym(incident.hostile.indicator(), keyed))
    if incident.hostile_domain:
        domain = incident.hostile_domain.encode("utf-8", "surrogatepass")
        found.append(pseudonym(b"dom:" + domain, keyed))
    return tuple(sorted(found))


def _sensor_name(text: str) -> str:
    if _SENSOR.fullmatch(text) is None:
        raise MalformedError(f"{_WHAT}: not a sensor name")
    # "sensor-10.1.0.20" would carry an address across the boundary in a name.
    if _QUAD.search(text) is not None:
        raise MalformedError(f"{_WHAT}: the sensor's name holds an address")
    return text


def _severity(label: str) -> Severity:
    for severity in Severity:
        if severity.label == label:
            return severity
    raise MalformedError(f"{_WHAT}: unknown severity")


def _category(value: str) -> Category:
    try:
        return Category(value)
    except ValueError as error:
        raise MalformedError(f"{_WHAT}: unknown category") from error


def _techniques(values: list[canonical.Json]) -> tuple[str, ...]:
    texts = [each for each in values if isinstance(each, str) and _TECHNIQUE.fullmatch(each)]
    if len(texts) != len(values) or texts != sorted(set(texts)):
        raise MalformedError(f"{_WHAT}: techniques must be sorted ATT&CK ids")
    return tuple(texts)


_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _pseudonyms(values: list[canonical.Json]) -> tuple[str, ...]:
    texts = [each for each in values if isinstance(each, str) and _HEX64.fullmatch(each)]
    if len(texts) != len(values) or texts != sorted(set(texts)):
        raise MalformedError(f"{_WHAT}: indicators must be sorted, 64 hex digits each")
    return tuple(texts)


def _check_coarse(event: SharedEvent) -> None:
    if event.window_start % BUCKET_US or event.window_end % BUCKET_US:
        raise MalformedError(f"{_WHAT}: times must be multiples of five minutes")
    if event.window_start >= event.window_end:
        raise MalformedError(f"{_WHAT}: the window ends before it starts")
    if event.count & (event.count - 1):
        raise MalformedError(f"{_WHAT}: the count must be a power of two")

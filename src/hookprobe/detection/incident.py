"""An incident as a value, and what can happen to it. Raw and local: see `privacy` for sharing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.detection.address import Address
from hookprobe.detection.attack import Category
from hookprobe.detection.event import Severity
from hookprobe.wire.instant import Instant

# HMAC-SHA-256 under a key that the callable keeps to itself.
Keyed: TypeAlias = Callable[[bytes], bytes]
KEYED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Target:
    """Whom it concerns; port 0 where it does not matter."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Incident:
    """A snapshot of an incident. Raw and local.

    Args:
        key: 64 hex digits; the same for the same evidence, for ever.
        source: Who does it; None where the sources are forged or unknown.
        hostile: The outside address worth telling others; None where there is none.
        hostile_domain: The outside domain worth telling others; may be empty.
        targets: The first few targets in address order.
        supporting: Signatures of the same source and window that do not qualify by themselves.
    """

    key: str
    sensor: str
    title: str
    category: Category
    severity: Severity
    techniques: tuple[str, ...]
    signature_id: int
    count: int
    first_seen: Instant
    last_seen: Instant
    window_start: Instant
    window_end: Instant
    source: Address | None
    hostile: Address | None
    hostile_domain: str
    targets: tuple[Target, ...]
    supporting: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IncidentOpened:
    """First qualifying evidence: react now."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class IncidentUpdated:
    """The count has doubled, or it became worse."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class IncidentClosed:
    """The final state, unless late evidence comes."""

    incident: Incident


IncidentEffect: TypeAlias = IncidentOpened | IncidentUpdated | IncidentClosed

"""What a detector hands over: evidence for one incident."""

from dataclasses import dataclass
from typing import Protocol

from hookprobe.detection.address import Address
from hookprobe.detection.attack import Family
from hookprobe.detection.event import Activity, Conversation
from hookprobe.detection.evidence import Sighting


@dataclass(frozen=True, slots=True)
class Finding:
    """Evidence of one family.

    Args:
        family: Which detector.
        sighting: When, and how many observations.
        source: Who does it; None where the sources are forged or unknown.
        target: Whom it concerns.
        target_port: Port at the target, 0 where it does not matter.
        domain: The domain that a DNS tunnel runs through.
        apart: What keeps two incidents of one source apart (a beacon's server, a tunnel's
            domain); empty where one source is one incident.
    """

    family: Family
    sighting: Sighting
    source: Address | None = None
    target: Address | None = None
    target_port: int = 0
    domain: str = ""
    apart: bytes = b""


class Detector(Protocol):
    """Reads records, finds evidence."""

    def observe(self, record: Activity) -> list[Finding]: ...


def findings(
    family: Family,
    sightings: list[Sighting],
    conversation: Conversation,
    *,
    port: bool = True,
) -> list[Finding]:
    """Return the findings of sightings where the conversation's sender is the source."""
    return [
        Finding(
            family,
            sighting,
            source=conversation.src,
            target=conversation.dst,
            target_port=conversation.dst_port if port else 0,
        )
        for sighting in sightings
    ]

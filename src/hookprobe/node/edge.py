"""An edge: the story of one alert.

    sensor bytes -> lines -> records -> incident -> SharedEvent -> microblock -> validators

Raw lines, records and addresses end here. What goes on is a `SharedEvent`, whose encoder is the
only one there is; the ledger gets its bytes and knows nothing of what they mean.

Durability: a block, its payload and the mark that its incident was told are one batch; the place in
the sensor file moves only behind evidence that is told. A crash anywhere repeats reading, not
telling.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.incident import Incident, IncidentClosed, IncidentOpened
from hookprobe.detection.pipeline import Counts, Detection, DetectionEffect, LineRefused
from hookprobe.detection.privacy import SharedEvent, anonymize
from hookprobe.detection.stream import LineSkipped
from hookprobe.dsm.chain import Event
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.store import Persist, StoreReader, Write
from hookprobe.htp.messages import Vitals
from hookprobe.neuro.attester import Reading
from hookprobe.neuro.messages import Place as RecordPlace
from hookprobe.neuro.quote_documents import QuoteAnswer
from hookprobe.node.attestation import Attestation
from hookprobe.node.casebook import EVENT_TYPE, Case, Casebook
from hookprobe.node.host import Effect
from hookprobe.node.linked import LinkedNode
from hookprobe.node.links import MeshLinks
from hookprobe.node.rooms import carried
from hookprobe.node.sensors import Place, SensorFeed
from hookprobe.wire.instant import SECOND, Instant

KEEP_EVERY_US = SECOND


@dataclass(frozen=True, slots=True)
class DetectionParts:
    """What detection needs; `tenant_key` (32 bytes) keys the pseudonyms of addresses."""

    config: DetectionConfig
    tenant_key: bytes
    reader: StoreReader

    def __repr__(self) -> str:
        return "DetectionParts()"


class EdgeNode(LinkedNode):
    """Composition of detection, ledger and links; see `node.build.build_edge`.

    Args:
        ledger: The edge's ledger.
        links: The ledger's links.
        feeds: The sensor files to be followed, by path.
        detection: Detectors' thresholds, the key of pseudonyms, and the store as it was left.
        attestation: Its NEURO history; None in a mesh without a verifier.
    """

    def __init__(
        self,
        ledger: EdgeLedger,
        links: MeshLinks,
        feeds: dict[str, SensorFeed],
        detection: DetectionParts,
        attestation: Attestation | None = None,
    ) -> None:
        super().__init__(links)
        self.ledger = ledger
        self.attestation = attestation
        self._feeds = feeds
        self._tenant_key = detection.tenant_key
        self._casebook = Casebook(detection.reader)
        self._detection = Detection(detection.config, self._keyed, self._casebook.keys())
        self._keep_at = Instant(0)

    def counts(self) -> Counts:
        """Return what went through the detectors."""
        return self._detection.counts()

    def place(self, path: str) -> Place:
        """Return where a sensor file is to be read from."""
        return self._feeds[path].place

    def begin_at(self, path: str, place: Place) -> None:
        """Read a sensor file from a place of the host's choice: one never followed before."""
        self._feeds[path].begin_at(place)

    def receive_battery(self, percent: int) -> None:
        """Tell peers in heartbeats what the host runs on: its charge, 255 on mains."""
        self._links.report(Vitals(battery=percent))

    def receive_reading(self, reading: Reading, now: Instant) -> list[Effect]:
        """Take what the host measured, as `MeasureHost` asked."""
        if self.attestation is None:
            return []
        return self._told(self._links.carry(self.attestation.receive_reading(reading, now), now))

    def receive_appended(self, index: int, now: Instant) -> list[Effect]:
        """Go on from a record that is durable, as `AppendRecord` asked."""
        if self.attestation is None:
            return []
        return self._told(self._links.carry(self.attestation.receive_appended(index), now))

    def receive_opening(self, place: RecordPlace, opening: bytes, now: Instant) -> list[Effect]:
        """Answer for a commitment, as `FindOpening` asked; empty if it is not kept."""
        if self.attestation is None:
            return []
        effects = self.attestation.receive_opening(place, opening)
        return self._told(self._links.carry(effects, now))

    def receive_quote(self, quote: QuoteAnswer, now: Instant) -> list[Effect]:
        """Send what the TPM signed, as `AskTpm` asked."""
        if self.attestation is None:
            return []
        return self._told(self._links.carry(self.attestation.receive_quote(quote), now))

    def receive_bytes(self, path: str, data: bytes, now: Instant) -> list[Effect]:
        """Take new bytes of a sensor file."""
        feed = self._feeds[path]
        effects: list[Effect] = []
        for item in feed.receive_bytes(data):
            if isinstance(item, LineSkipped):
                effects.append(_skipped(feed, item))
            else:
                seen = self._detection.receive_line(feed.sensor, item.data, item.position, now)
                effects += self._react(seen, now)
        return effects + self._keep_place(now)

    def record(self, event_type: str, event: SharedEvent, now: Instant) -> list[Effect]:
        """Write down an event that another program of this host gives.

        Raises:
            UnavailableError: Too many events wait, for the own head is not known yet.
        """
        written = carried(self.ledger.append([Event(event_type, event.encode())], now))
        if event_type == EVENT_TYPE:
            self._casebook.expect_foreign()
        return self._told(self._links.carry(written, now))

    def receive_preamble(self, path: str, head: bytes, now: Instant) -> list[Effect]:
        """Take a log's header lines again, before reading goes on in the middle of the file."""
        sensor = self._feeds[path].sensor
        effects: list[Effect] = []
        for line in head.splitlines():
            effects += self._react(self._detection.receive_line(sensor, line, 0, now), now)
        return effects

    def receive_rotation(self, path: str, inode: int, now: Instant) -> list[Effect]:
        """Take note that a sensor file was replaced by another."""
        del now
        feed = self._feeds[path]
        return [
            _skipped(feed, item)
            for item in feed.receive_rotation(inode)
            if isinstance(item, LineSkipped)
        ]

    def next_timeout(self) -> Instant | None:
        due = (super().next_timeout(), self._detection.next_timeout())
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        effects = super().handle_timeout(now)
        effects += self._react(self._detection.handle_timeout(now), now)
        return effects + self._keep_place(now)

    def finish(self, now: Instant) -> list[Effect]:
        """Close what is open: no more sensor bytes will come (a replay has ended)."""
        due = self._detection.next_timeout()
        return [] if due is None else self._react(self._detection.handle_timeout(due), now)

    def _react(self, seen: Sequence[DetectionEffect], now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for effect in seen:
            effects.append(effect)
            match effect:
                case IncidentOpened(incident):
                    effects += self._tell(Case(incident, final=False), now)
                case IncidentClosed(incident):
                    effects += self._tell(Case(incident, final=True), now)
                case _:
                    pass
        return effects

    def _tell(self, case: Case, now: Instant) -> list[Effect]:
        if not self._casebook.is_news(case):
            return []
        event = Event(EVENT_TYPE, self._shared(case.incident))
        self._casebook.expect(case)
        written = carried(self.ledger.append([event], now))
        return self._told(self._links.carry(written, now))

    def _shared(self, incident: Incident) -> bytes:
        return anonymize(incident, self._keyed).encode()

    def _keyed(self, data: bytes) -> bytes:
        return hmac.digest(self._tenant_key, data, "sha256")

    def _told(self, effects: list[Effect]) -> list[Effect]:
        marked, recorded = self._casebook.mark(effects)
        return [*marked, *recorded]

    def _keep_place(self, now: Instant) -> list[Effect]:
        """Move the durable reading places on, unless told events still wait to be blocks."""
        if now < self._keep_at or self._casebook.waiting:
            return []
        self._keep_at = Instant(now + KEEP_EVERY_US)
        writes: list[Write] = []
        for feed in self._feeds.values():
            writes += feed.keep(self._detection.low_watermark(feed.sensor))
        return [Persist(tuple(writes))] if writes else []


def _skipped(feed: SensorFeed, item: LineSkipped) -> LineRefused:
    return LineRefused(feed.sensor, item.position, "E-LIMIT", item.reason)

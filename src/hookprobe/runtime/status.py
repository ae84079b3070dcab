"""The status file: what `hookprobe status` shows about a running node.

The node writes `status.json` into its state folder about once a second, as a whole. Readers look at
its age: a file that is old belongs to a node that does not run or hangs.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hookprobe.dsm import effects as ledger
from hookprobe.dsm.certificate import quorum
from hookprobe.errors import HostError, MalformedError
from hookprobe.htp.effects import Dropped, SessionDown, SessionUp
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.trust import Level
from hookprobe.neuro.effects import Appraised, DeviceSilent, ResyncNeeded, VerdictHeard
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, TPM_ATTESTED, Verdict
from hookprobe.node.appraisals import Count
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import FileNode
from hookprobe.node.observations import (
    IncidentRecorded,
    MessageSent,
    Observation,
    ReportRefused,
    StandingChanged,
)
from hookprobe.node.validator import ValidatorNode
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.runtime.metrics import Meter
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

STATUS_FILE = "status.json"
STALE_US = 10_000_000
_SIZE_MAX_BYTES = 1 << 20
_INCIDENTS_SHOWN = 20
_SESSIONS_SHOWN = 64
FULL = Level.FULL.value

_COUNTED: dict[type[object], str] = {
    ledger.BlockAccepted: "blocks",
    ledger.BlockAppended: "blocks",
    ledger.CheckpointFinalized: "checkpoints",
    ledger.ForkDetected: "forks",
    ledger.ReceiptReceived: "receipts",
    Dropped: "packets_dropped",
    Appraised: "appraisals",
    ReportRefused: "reports_refused",
}


class Resonance:
    """What a node knows of NEURO: its own standing, and devices that do not resonate."""

    def __init__(self) -> None:
        self._own = ""
        self._resync = ""
        self._resonant: dict[NodeId, None] = {}
        self._lost: dict[NodeId, str] = {}

    def report(self, observation: Observation) -> None:
        """Take one observation."""
        match observation:
            case VerdictHeard(verdict) if verdict is not None:
                self._own = verdict.value
            case ResyncNeeded(reason):
                self._resync = reason
            case StandingChanged(node, status):
                self._devices(node, status)
            case Appraised(node, verdict) if verdict.is_about_state:
                self._devices(node, verdict.value)
            case DeviceSilent(node):
                self._devices(node, "silent")
            case _:
                pass

    def _devices(self, node: NodeId, status: str) -> None:
        if status == Verdict.RESONANT.value:
            self._lost.pop(node, None)
            self._resonant[node] = None
        else:
            self._resonant.pop(node, None)
            self._lost[node] = status

    def document(self) -> dict[str, object]:
        """Return what the status says; every mention carries its label."""
        found: dict[str, object] = {}
        if self._own:
            found |= {"attestation": SOFTWARE_ATTESTED, "resonance": self._own}
        if self._resync:
            found["resync_needed"] = self._resync
        if self._resonant or self._lost:
            found |= {
                "attestation": SOFTWARE_ATTESTED,
                "devices_resonant": len(self._resonant),
                "devices_lost": [f"{node}: {why}" for node, why in sorted(self._lost.items())],
            }
        return found


def _sessions(meters: Sequence[SessionMeter]) -> dict[str, object]:
    """Return the sums over all sessions, and the first ones by themselves; addresses stay out."""
    shown = [
        {name: value for name, value in meter._asdict().items() if name != "address"}
        for meter in meters[:_SESSIONS_SHOWN]
    ]
    return {
        "packets_lost": sum(meter.lost for meter in meters),
        "packets_failed": sum(meter.failed for meter in meters),
        "in_flight_bytes": sum(meter.in_flight_bytes for meter in meters),
        "peers_doubted": sum(meter.level < FULL and not meter.dialled for meter in meters),
        "sessions": shown,
    }


def members_of(node: FileNode, founders: int) -> int:
    """Return how many validators decide, as far as a node knows: a verifier follows no ledger."""
    match node:
        case ValidatorNode():
            return node.ledger.court.validators.size
        case EdgeNode():
            return node.ledger.roll.latest.size
        case _:
            return founders


def labels_of(node: FileNode, now: Instant) -> dict[str, object]:
    """Return what a node's certificates of NEURO say now; of many devices the weakest label."""
    match node:
        case EdgeNode() if node.attestation is not None:
            return {"attestation": node.attestation.label(now)}
        case ValidatorNode() if node.appraisals is not None:
            rows = node.appraisals.rows(now)
            labels = [label for _, count, _, label in rows if count is Count.YES]
            held = labels.count(TPM_ATTESTED)
            weakest = TPM_ATTESTED if labels and held == len(labels) else SOFTWARE_ATTESTED
            counts = {"devices_resonant": len(labels), "devices_tpm_attested": held}
            return {"attestation": weakest, **counts} if rows else {}
        case _:
            return {}


class StatusBoard:
    """Gathers what a status needs from observations.

    Args:
        node: The node's name.
        role: edge, validator or verifier.
        validators: How many validators founded the mesh; `members` says how many decide now.
        schedule: When epoch 0 begins and how long an epoch is, microseconds; to say what is late.
            None for who does not follow every epoch: an edge hears of those that hold its blocks.
    """

    def __init__(
        self,
        node: NodeId,
        role: str,
        validators: int,
        schedule: tuple[Instant, int] | None = None,
    ) -> None:
        self.meter = Meter()
        self.pending: Callable[[], JsonObject] = dict
        self.webhooks_waiting = 0
        self.sessions: Sequence[SessionMeter] = ()
        self._schedule = schedule
        self._open_epoch: int | None = None
        self._view = 1
        self.members: Callable[[], int] = lambda: validators
        self.labels: Callable[[Instant], dict[str, object]] = lambda _: {}
        self.oldest_waiting_ms: Callable[[], int | None] = lambda: None
        self._fixed = {"node": node, "role": role}
        self._peers: dict[NodeId, None] = {}
        self._counts: Counter[str] = Counter()
        self._epoch: int | None = None
        self._quorum_lost = False
        self._incidents: list[dict[str, object]] = []
        self._resonance = Resonance()

    def report(self, observation: Observation) -> None:
        """Take one observation."""
        self.meter.report(observation)
        counted = _COUNTED.get(type(observation))
        if counted is not None:
            self._counts[counted] += 1
        match observation:
            case SessionUp(peer):
                self._peers[peer] = None
            case SessionDown(peer):
                self._peers.pop(peer, None)
            case IncidentRecorded():
                self._add_incident(observation)
            case MessageSent(_, _, data):
                self._counts["message_bytes_sent"] += len(data)
            case _:
                self._follow_epochs(observation)

    def _follow_epochs(self, observation: Observation) -> None:
        match observation:
            case ledger.EpochOpened(epoch):
                self._open_epoch, self._view = epoch, 1
            case ledger.ViewChanged(_, view):
                self._view = view
            case ledger.CheckpointFinalized(epoch):
                self._epoch = epoch
                self._open_epoch = None
                self._quorum_lost = False
            case ledger.ReceiptReceived(epoch):
                self._epoch = epoch
            case ledger.QuorumLost():
                self._quorum_lost = True
            case _:
                self._resonance.report(observation)

    def _add_incident(self, recorded: IncidentRecorded) -> None:
        if not recorded.final:
            self._counts["incidents"] += 1
        shown = {
            "title": recorded.title,
            "severity": recorded.severity,
            "techniques": list(recorded.techniques),
            "count": recorded.count,
            "block": recorded.block_id.hex(),
        }
        self._incidents = [*self._incidents[-_INCIDENTS_SHOWN + 1 :], shown]

    def document(self, now: Instant, datagram_bytes: int) -> dict[str, object]:
        """Return the status as it is written."""
        return {
            **self._fixed,
            "validators": (members := self.members()),
            "needed": quorum(members),
            "at": now,
            "peers": sorted(self._peers),
            **_sessions(self.sessions),
            "last_epoch": self._epoch,
            "open_epoch": self._open_epoch,
            "view": self._view if self._open_epoch is not None else None,
            "epochs_behind": self._behind(now),
            "waiting_s": self._waited(now),
            "webhooks_waiting": self.webhooks_waiting,
            "quorum_lost": self._quorum_lost,
            **self._waiting(),
            **self._resonance.document(),
            **self.labels(now),
            "datagram_bytes_sent": datagram_bytes,
            **{name: self._counts[name] for name in sorted(self._counts)},
            "latest_incidents": self._incidents,
            "metrics": self.meter.snapshot(),
        }

    def _waiting(self) -> dict[str, object]:
        waiting = self.pending()
        if not waiting:
            return {}
        return {"pending": waiting, "epochs_incomplete": waiting.get("incomplete")}

    def _waited(self, now: Instant) -> int | None:
        """Return the age in seconds of the oldest own block without a receipt; for edges."""
        if self._fixed["role"] != "edge":
            return None
        oldest_ms = self.oldest_waiting_ms()
        return 0 if oldest_ms is None else max(0, (now // MILLISECOND - oldest_ms) // 1000)

    def _behind(self, now: Instant) -> int | None:
        """Return how many epochs have ended by the clock and are not known to be final.

        Epoch e ends at start + (e+1) * D (DSM spec 2.3); the one just ended is being decided.
        """
        if self._schedule is None:
            return None
        start, duration_us = self._schedule
        ended = max(0, (now - start) // duration_us)
        final = self._epoch + 1 if self._epoch is not None else 0
        return max(0, ended - final - 1)


def write(folder: Path, document: dict[str, object]) -> None:
    """Replace the status file."""
    write_atomically(folder / STATUS_FILE, json.dumps(document).encode(), mode=0o640)


def read(folder: Path) -> dict[str, object]:
    """Read a node's status.

    Raises:
        HostError: There is none.
        MalformedError: It is not a status file.
    """
    path = folder / STATUS_FILE
    if not path.exists():
        raise HostError(f"no status in {folder}", hint="has this node ever been started?")
    try:
        document = json.loads(read_file(path, limit=_SIZE_MAX_BYTES))
    except ValueError as error:
        raise MalformedError(f"{path}: not a status file") from error
    if not isinstance(document, dict):
        raise MalformedError(f"{path}: not a status file")
    return document

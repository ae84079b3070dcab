"""The status file: what `hookprobe status` shows about a running node.

The node writes `status.json` into its state folder about once a second, as a whole. Readers look at
its age: a file that is old belongs to a node that does not run or hangs.
"""

import json
from collections import Counter
from pathlib import Path

from hookprobe.dsm import effects as ledger
from hookprobe.errors import HostError, MalformedError
from hookprobe.htp.effects import Dropped, SessionDown, SessionUp
from hookprobe.node.observations import IncidentRecorded, MessageSent, Observation
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

STATUS_FILE = "status.json"
STALE_US = 10_000_000
_SIZE_MAX_BYTES = 1 << 20
_INCIDENTS_SHOWN = 20

_COUNTED: dict[type[object], str] = {
    ledger.BlockAccepted: "blocks",
    ledger.BlockAppended: "blocks",
    ledger.CheckpointFinalized: "checkpoints",
    ledger.ForkDetected: "forks",
    ledger.ReceiptReceived: "receipts",
    Dropped: "packets_dropped",
}


class StatusBoard:
    """Gathers what a status needs from observations.

    Args:
        node: The node's name.
        role: edge or validator.
        validators: How many validators the mesh has.
        needed: How many of them must agree.
    """

    def __init__(self, node: NodeId, role: str, validators: int, needed: int) -> None:
        self._fixed = {"node": node, "role": role, "validators": validators, "needed": needed}
        self._peers: dict[NodeId, None] = {}
        self._counts: Counter[str] = Counter()
        self._epoch: int | None = None
        self._quorum_lost = False
        self._incidents: list[dict[str, object]] = []

    def report(self, observation: Observation) -> None:
        """Take one observation."""
        counted = _COUNTED.get(type(observation))
        if counted is not None:
            self._counts[counted] += 1
        match observation:
            case SessionUp(peer):
                self._peers[peer] = None
            case SessionDown(peer):
                self._peers.pop(peer, None)
            case ledger.CheckpointFinalized(epoch):
                self._epoch = epoch
                self._quorum_lost = False
            case ledger.ReceiptReceived(epoch):
                self._epoch = epoch
            case ledger.QuorumLost():
                self._quorum_lost = True
            case IncidentRecorded():
                self._add_incident(observation)
            case MessageSent(_, _, data):
                self._counts["message_bytes_sent"] += len(data)
            case _:
                pass

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
            "at": now,
            "peers": sorted(self._peers),
            "last_epoch": self._epoch,
            "quorum_lost": self._quorum_lost,
            "datagram_bytes_sent": datagram_bytes,
            **{name: self._counts[name] for name in sorted(self._counts)},
            "latest_incidents": self._incidents,
        }


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

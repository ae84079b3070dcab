"""Everything a node tells the world about itself, as one union.

Logs, the status file, metrics and the demonstration read these; `runtime/logs.py` says which
fields of each may be written down.
"""

from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.detection.pipeline import DetectionEffect
from hookprobe.dsm.effects import Observation as LedgerObservation
from hookprobe.htp.effects import Effect as TransportEffect
from hookprobe.wire.identifiers import NodeId


@dataclass(frozen=True, slots=True)
class MessageSent:
    """A message left for a peer; `data` is its plain form, before sealing."""

    peer: NodeId
    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A peer's message did not decode or broke a rule; it was dropped."""

    peer: NodeId
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class IncidentRecorded:
    """An incident became a block of this node's chain.

    Attributes:
        key: The incident's key, 64 hex digits; keyed, so it tells nothing to outsiders.
        title: What happened, in words.
        severity: critical, high, medium or low.
        techniques: MITRE ATT&CK ids.
        count: How many times.
        block_id: The microblock, 32 bytes.
        seq: Its number in the chain.
        final: Whether the incident has closed.
    """

    key: str
    title: str
    severity: str
    techniques: tuple[str, ...]
    count: int
    block_id: bytes
    seq: int
    final: bool


Observation: TypeAlias = (
    LedgerObservation
    | TransportEffect
    | DetectionEffect
    | MessageSent
    | MessageRefused
    | IncidentRecorded
)

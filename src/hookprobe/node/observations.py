"""Everything a node tells the world about itself, as one union.

Logs, the status file, metrics and the demonstration read these; `runtime/logs.py` says which
fields of each may be written down.
"""

from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.detection.pipeline import DetectionEffect
from hookprobe.dsm.effects import Observation as LedgerObservation
from hookprobe.htp.effects import Effect as TransportEffect
from hookprobe.identity.fingerprint import Match
from hookprobe.neuro.effects import Observation as NeuroObservation
from hookprobe.neuro.measurement import Counters
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


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """A verifier's word about a device changed.

    Attributes:
        node: The device.
        status: The verdict's name; only `resonant` lets its reports count.
        trust: Its trust in basis points.
        attestation: `software-attested` or `tpm-attested`.
    """

    node: NodeId
    status: str
    trust: int
    attestation: str


@dataclass(frozen=True, slots=True)
class ReportRefused:
    """A device's reports are not taken until a verifier certifies it again; said once."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class HardwareDiffers:
    """A device runs on hardware that is not, or not clearly, the one it was first seen on."""

    node: NodeId
    score_bp: int
    match: Match


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """A device's hardware or image is that of other devices of its tenant."""

    node: NodeId
    others: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CommitmentOpened:
    """A device opened the entropy commitment of a record; None if it keeps it no more."""

    node: NodeId
    index: int
    counters: Counters | None


Observation: TypeAlias = (
    LedgerObservation
    | TransportEffect
    | DetectionEffect
    | NeuroObservation
    | MessageSent
    | MessageRefused
    | IncidentRecorded
    | StandingChanged
    | ReportRefused
    | HardwareDiffers
    | CloneSuspected
    | CommitmentOpened
)

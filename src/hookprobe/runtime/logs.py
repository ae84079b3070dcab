"""Observations as log lines: one JSON object a line, the event name is the class name.

What may be written is decided here and nowhere else:

* Raw incidents and network addresses appear at `debug` only, on the edge's own disk.
* Message contents never appear; the egress record (`egress.py`) is the place for those.
* Bytes are shown as hex, shortened: enough to find an id again.
"""

import dataclasses
import json
from collections.abc import Callable
from enum import Enum, IntEnum

from hookprobe.detection.incident import Incident
from hookprobe.detection.pipeline import HealthReported, LineRefused
from hookprobe.dsm import effects as ledger
from hookprobe.errors import HookProbeError
from hookprobe.htp import effects as transport
from hookprobe.htp.effects import Transmit, TransmitRun
from hookprobe.neuro import effects as neuro
from hookprobe.neuro import quotes
from hookprobe.node.observations import (
    CloneSuspected,
    CommitmentOpened,
    HardwareDiffers,
    IncidentRecorded,
    MessageRefused,
    MessageSent,
    Observation,
    ReportRefused,
    StandingChanged,
)
from hookprobe.wire.instant import Instant, format_iso


class Level(IntEnum):
    """How loud."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


_LEVELS: dict[type[object], Level] = {
    MessageSent: Level.TRACE,
    transport.Dropped: Level.TRACE,
    transport.MessageReceived: Level.TRACE,
    transport.VitalsReported: Level.TRACE,
    transport.TrustReported: Level.TRACE,
    transport.MessageWithheld: Level.TRACE,
    transport.LevelChanged: Level.DEBUG,
    transport.SessionRenewed: Level.DEBUG,
    transport.BareRejectSeen: Level.DEBUG,
    transport.PeerMoved: Level.DEBUG,
    transport.SendRefused: Level.WARNING,
    transport.ConnectRejected: Level.WARNING,
    transport.AttestRefused: Level.WARNING,
    transport.ResonanceMismatch: Level.WARNING,
    transport.SessionUp: Level.INFO,
    transport.SessionDown: Level.INFO,
    ledger.BlockAppended: Level.DEBUG,
    ledger.BlockAccepted: Level.TRACE,
    ledger.BlockRefused: Level.WARNING,
    ledger.EpochOpened: Level.DEBUG,
    ledger.CheckpointProposed: Level.DEBUG,
    ledger.Voted: Level.DEBUG,
    ledger.CertificateFormed: Level.DEBUG,
    ledger.ViewChanged: Level.DEBUG,
    ledger.CheckpointFinalized: Level.INFO,
    ledger.EpochCompleted: Level.INFO,
    ledger.QuorumLost: Level.ERROR,
    ledger.ForkDetected: Level.ERROR,
    ledger.MisbehaviourDetected: Level.ERROR,
    ledger.NodeQuarantined: Level.ERROR,
    ledger.SlashDue: Level.ERROR,
    ledger.NodeRevoked: Level.WARNING,
    ledger.ValidatorApplied: Level.WARNING,
    ledger.ValidatorSetChanged: Level.INFO,
    ledger.RangeFilled: Level.DEBUG,
    ledger.PartitionsDropped: Level.INFO,
    ledger.VotingSuspended: Level.WARNING,
    ledger.PeerPenalised: Level.WARNING,
    ledger.ReceiptReceived: Level.INFO,
    ledger.IncarnationStarted: Level.INFO,
    LineRefused: Level.WARNING,
    HealthReported: Level.DEBUG,
    IncidentRecorded: Level.INFO,
    MessageRefused: Level.WARNING,
    neuro.VerdictHeard: Level.DEBUG,
    neuro.Appraised: Level.DEBUG,
    neuro.TrustChanged: Level.DEBUG,
    neuro.BaselineLearned: Level.WARNING,
    neuro.Rebased: Level.INFO,
    neuro.ForkFound: Level.ERROR,
    neuro.ClockStepped: Level.WARNING,
    neuro.ClockAwaited: Level.WARNING,
    neuro.ClockAstray: Level.WARNING,
    neuro.BacklogFull: Level.ERROR,
    neuro.ResyncNeeded: Level.ERROR,
    neuro.DeviceSilent: Level.WARNING,
    neuro.BatchRefused: Level.WARNING,
    quotes.TpmQuoted: Level.DEBUG,
    quotes.TpmRefused: Level.WARNING,
    quotes.BootChanged: Level.ERROR,
    StandingChanged: Level.WARNING,
    ReportRefused: Level.WARNING,
    HardwareDiffers: Level.ERROR,
    CloneSuspected: Level.ERROR,
    CommitmentOpened: Level.INFO,
}

_PRIVATE = (transport.Address, Incident)
_HEX_SHOWN = 8


def level_of(observation: Observation) -> Level:
    """Return how loud an observation is; raw incidents are `debug`."""
    return _LEVELS.get(type(observation), Level.DEBUG)


def describe(observation: Observation, *, private: bool) -> dict[str, object]:
    """Return the fields that may be written.

    Args:
        observation: What happened.
        private: Whether addresses may appear (debug logs on the edge's own disk).
    """
    found: dict[str, object] = {}
    if isinstance(observation, Transmit | TransmitRun):
        return found  # datagrams are sent, not told
    for field in dataclasses.fields(observation):
        value = getattr(observation, field.name)
        if isinstance(value, _PRIVATE) and not private:
            continue
        plain = _plain(value)
        if plain is not None:
            found[field.name] = plain
    return found


def _plain(value: object) -> object:
    match value:
        case Enum():
            return value.name.lower()
        case bool() | int() | str():
            return value
        case bytes():
            return value.hex()[: 2 * _HEX_SHOWN]
        case transport.Address():
            return f"{value.host}:{value.port}"
        case Incident():
            source = value.source.text() if value.source is not None else None
            return {"key": value.key, "source": source, "count": value.count}
        case tuple():
            return [item for item in (_plain(item) for item in value) if item is not None]
        case _:
            return None


class JsonLog:
    """Writes observations as JSON lines.

    Args:
        write: Takes one line with its end.
        now: Returns the time.
        least: The quietest level written.
    """

    def __init__(
        self, write: Callable[[str], object], now: Callable[[], Instant], least: Level
    ) -> None:
        self._write = write
        self._now = now
        self._least = least

    def report(self, observation: Observation) -> None:
        """Write one observation, if it is loud enough."""
        level = level_of(observation)
        if level < self._least:
            return
        fields = describe(observation, private=self._least <= Level.DEBUG)
        self.event(type(observation).__name__, level, **fields)

    def failed(self, error: HookProbeError) -> None:
        """Write down something that failed and is tried again."""
        self.event("Failed", Level.ERROR, code=error.code, reason=error.message, hint=error.hint)

    def event(self, name: str, level: Level, **fields: object) -> None:
        """Write one line of the shell's own."""
        line = {"at": format_iso(self._now()), "level": level.name.lower(), "event": name}
        self._write(json.dumps(line | fields, separators=(",", ":")) + "\n")

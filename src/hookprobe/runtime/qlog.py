"""One session's packets as a qlog trace.

JSON text sequences (RFC 7464) in the form of the IETF's qlog main schema, with an event schema of
our own, `htp`.

Headers, sizes and times, never a payload and never an address: what somebody on the path sees, plus
what only the ends know (round trip, window, losses, trust). Packets of the handshake are not in it,
because the address is followed from `SessionUp` on.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hookprobe.config.load import Config
from hookprobe.errors import ConfigError, HostError, RemoteError
from hookprobe.htp.effects import (
    Address,
    Leaving,
    LevelChanged,
    PeerMoved,
    ResonanceMismatch,
    SessionDown,
    SessionRenewed,
    SessionUp,
    TrustReported,
    each_datagram,
)
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.packet import decode_header
from hookprobe.htp.path import Received, each_received
from hookprobe.node.observations import Observation
from hookprobe.runtime.clock import Clock
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

TRACE_MAX_BYTES = 64 << 20
RECORD_START, RECORD_END = "\x1e", "\n"
EVENT_SCHEMA = "urn:hookprobe:qlog:events:htp2"
_METERS = (
    "round_trip_us", "window_bytes", "in_flight_bytes", "lost", "probes", "datagram_bytes",
    "trust", "heartbeat_s", "failed",
)  # fmt: skip


def open_trace(config: Config, clock: Clock) -> "SessionTrace | None":
    """Return the trace that the settings order; None if they do not.

    Raises:
        ConfigError: They do not say whose sessions.
        HostError: As `SessionTrace`.
    """
    path, peer = config.text("htp.qlog"), config.text("htp.qlog_peer")
    if not path:
        return None
    if not peer:
        raise ConfigError(["htp.qlog_peer: says whose sessions htp.qlog traces; it is empty"])
    return SessionTrace(config.folder / path, NodeId(peer), clock)


class SessionTrace:
    """Writes the trace of the sessions with one peer.

    Args:
        path: The file, written anew; beyond 64 MiB nothing is added.
        peer: Whose sessions.
        clock: Says what time it is.

    Raises:
        HostError: It cannot be written.
    """

    def __init__(self, path: Path, peer: NodeId, clock: Clock) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", hint="htp.qlog names it") from error
        self._peer = peer
        self._clock = clock
        self._address: Address | None = None
        self._began = clock.now()
        self._size = 0
        self._meters: dict[str, object] = {}
        trace = {
            "title": f"HTP sessions with {peer}",
            "common_fields": {"time_format": "relative_to_epoch", "reference_time": _ms(0)},
            "event_schemas": [EVENT_SCHEMA],
        }
        self._write(
            {
                "file_schema": "urn:ietf:params:qlog:file:sequential",
                "serialization_format": "application/qlog+json-seq",
                "trace": trace,
            }
        )

    def report(self, observation: Observation) -> None:
        """Take what the node says; only the peer's sessions matter here."""
        if getattr(observation, "peer", None) != self._peer:
            return
        match observation:
            case SessionUp(_, address, dialled, suite):
                self._address = address
                self._event("session_started", {"dialled": dialled, "suite": suite})
            case SessionDown(_, reason):
                self._event("session_ended", {"reason": reason.value})
                self._address = None
            case SessionRenewed():
                self._event("keys_updated", {})
            case PeerMoved(_, address):
                self._address = address
                self._event("path_changed", {})
            case ResonanceMismatch():
                self._event("resonance_mismatched", {})
            case LevelChanged(_, permitted):
                self._event("level_changed", {"level": permitted})
            case TrustReported(_, trust):
                self._event("trust_reported", {"trust": trust})
            case _:
                pass

    def received(self, received: Received) -> None:
        """Take what one read of the socket brought."""
        if self._address is None:
            return
        now = self._clock.now()
        for data, address in each_received(received):
            if address == self._address:
                self._packet("packet_received", data, now)

    def sent(self, effect: Leaving) -> None:
        """Take datagrams that leave."""
        if effect.address == self._address:
            for one in each_datagram((effect,)):
                self._packet("packet_sent", one.data, self._clock.now())

    def measured(self, meters: Sequence[SessionMeter]) -> None:
        """Take the meters of all sessions; what changed of the peer's is written."""
        for meter in meters:
            if meter.peer == self._peer:
                fields = meter._asdict()
                found = {name: fields[name] for name in _METERS}
                changed = {k: v for k, v in found.items() if self._meters.get(k) != v}
                self._meters = found
                if changed:
                    self._event("metrics_updated", changed)
        self._file.flush()

    def _packet(self, name: str, data: bytes, now: Instant) -> None:
        try:
            header = decode_header(data)
        except RemoteError:
            fields: dict[str, object] = {"packet_type": "unknown"}
        else:
            fields = {
                "packet_type": header.kind.name.lower(),
                "packet_number": header.nonce,
                "message": header.sequence,
                "timestamp": header.timestamp,
                "flags": header.flags,
                "mode": header.mode,
                "fragment": [header.frag_index, header.frag_last],
            }
        self._event(name, {"header": fields, "raw": {"length": len(data)}}, now)

    def _event(self, name: str, data: dict[str, object], now: Instant | None = None) -> None:
        at = self._clock.now() if now is None else now
        self._write({"time": _ms(at), "name": f"htp:{name}", "data": data})

    def _write(self, record: dict[str, object]) -> None:
        text = RECORD_START + json.dumps(record, separators=(",", ":")) + RECORD_END
        if self._size + len(text) <= TRACE_MAX_BYTES:
            self._size += len(text)
            self._file.write(text)

    def close(self) -> None:
        self._file.close()


def _ms(at: int) -> float:
    return at / 1000

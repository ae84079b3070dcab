"""Recorded sensor output, run through the whole room; and lines of our own making."""

import gzip
import hmac
import json
from dataclasses import dataclass, field
from pathlib import Path

from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Sensor
from hookprobe.detection.incident import Incident, IncidentClosed, IncidentOpened
from hookprobe.detection.pipeline import Detection, DetectionEffect
from hookprobe.wire.instant import SECOND, Instant, format_iso, parse_iso

ROOT = Path(__file__).parents[3]
EVE = ROOT / "tests/data/sensors/eve"
ZEEK = ROOT / "tests/data/sensors/zeek"
# Captures under other licences stay outside of the repository; more cases run where they exist.
OUTSIDE = ROOT.parent / "shared/data"

SENSOR = Sensor("edge-a")
START = parse_iso("2026-11-20T21:05:00Z")
LATER = parse_iso("2030-01-01T00:00:00Z")


def keyed(data: bytes) -> bytes:
    return hmac.digest(b"a key of thirty-two bytes, really", data, "sha256")


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return data.splitlines(keepends=True)


def eve_lines(name: str) -> list[bytes]:
    found = [*EVE.glob(f"{name}.eve.json*"), *OUTSIDE.glob(f"eve/{name}.eve.json*")]
    return lines_of(found[0])


@dataclass
class Replay:
    """What came out of a run; `opened` and `final` are by incident key."""

    detection: Detection
    effects: list[DetectionEffect] = field(default_factory=list)

    @property
    def opened(self) -> list[Incident]:
        return [each.incident for each in self.effects if isinstance(each, IncidentOpened)]

    @property
    def final(self) -> dict[str, Incident]:
        return {
            each.incident.key: each.incident
            for each in self.effects
            if isinstance(each, IncidentClosed)
        }

    @property
    def titles(self) -> list[str]:
        return sorted(each.title for each in self.final.values())


def replay(
    lines: list[bytes],
    *,
    sensor: Sensor = SENSOR,
    config: DetectionConfig | None = None,
    detection: Detection | None = None,
    now: Instant = LATER,
) -> Replay:
    machine = detection or Detection(config or DetectionConfig(), keyed)
    result = Replay(machine)
    position = 0
    for line in lines:
        result.effects += machine.receive_line(sensor, line, position, now)
        position += len(line)
    while (due := machine.next_timeout()) is not None:
        result.effects += machine.handle_timeout(due)
    return result


def eve(event_type: str, at_s: float, **fields: object) -> bytes:
    """Return one EVE line, `at_s` seconds after START."""
    stamp = format_iso(Instant(START + round(at_s * SECOND)))
    line = {"timestamp": stamp, "event_type": event_type, **fields}
    return json.dumps(line).encode() + b"\n"


def between(src: str, sport: int, dst: str, dport: int, proto: str = "TCP") -> dict[str, object]:
    return {
        "src_ip": src,
        "src_port": sport,
        "dest_ip": dst,
        "dest_port": dport,
        "proto": proto,
        "flow_id": sport * 65536 + dport,
    }


def flow(
    at_s: float,
    ends: dict[str, object],
    *,
    flags: tuple[str, str] = ("02", "14"),
    packets: tuple[int, int] = (1, 1),
    bytes_: tuple[int, int] = (58, 54),
    duration_s: float = 0,
    app_proto: str | None = None,
) -> bytes:
    """Return a flow record; by default a SYN that was refused."""
    start = Instant(START + round(at_s * SECOND))
    body = {
        "pkts_toserver": packets[0],
        "pkts_toclient": packets[1],
        "bytes_toserver": bytes_[0],
        "bytes_toclient": bytes_[1],
        "start": format_iso(start),
        "end": format_iso(Instant(start + round(duration_s * SECOND))),
        "state": "closed",
        "reason": "timeout",
    }
    extra: dict[str, object] = {"app_proto": app_proto} if app_proto else {}
    tcp = {"tcp_flags_ts": flags[0], "tcp_flags_tc": flags[1]}
    return eve("flow", at_s + duration_s, flow=body, tcp=tcp, **ends, **extra)


def alert(
    at_s: float,
    ends: dict[str, object],
    sid: int = 2_000_001,
    *,
    signature: str = "ET SCAN Something",
    severity: int = 1,
    **fields: object,
) -> bytes:
    body = {"signature_id": sid, "signature": signature, "severity": severity, "category": ""}
    return eve("alert", at_s, alert=body, **ends, **fields)

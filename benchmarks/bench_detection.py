"""How fast sensor lines are read: parsing alone, the whole room, and against `json.loads`.

The mix is recorded sensor output: an edge with two interfaces, scans, guessing, a tunnel, benign
traffic; no line comes twice. Each figure is the best of several rounds on one core.
"""

import gzip
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path

from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Sensor
from hookprobe.detection.pipeline import Detection
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.wire.instant import parse_iso

ROUNDS = 5
CAPTURES = Path(__file__).parents[1] / "tests/data/sensors/eve"
MIX = (
    "live-edgeA",
    "scan-syn-vertical",
    "scan-service-nse",
    "dns-tunnel-iodine",
    "brute-ftp",
    "brute-http-basic",
    "benign-mix",
    "benign-web",
    "ot-modbus",
    "lateral-psexec-smb",
    "dos-slowloris",
)
NOW = parse_iso("2030-01-01T00:00:00Z")


def mixed_lines() -> list[bytes]:
    lines = []
    for name in MIX:
        (path,) = CAPTURES.glob(f"{name}.eve.json*")
        data = path.read_bytes()
        lines += (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    return lines


def best_seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def through_everything(lines: list[bytes]) -> Detection:
    detection = Detection(DetectionConfig(), lambda data: hmac.digest(bytes(32), data, "sha256"))
    sensor, position = Sensor("edge-a"), 0
    for line in lines:
        detection.receive_line(sensor, line, position, NOW)
        position += len(line) + 1
    return detection


def run() -> list[tuple[str, float, str]]:
    lines = mixed_lines()
    assert through_everything(lines).counts().refused == {}
    parsing = best_seconds(lambda: [parse_eve_line(line) for line in lines])
    everything = best_seconds(lambda: through_everything(lines))
    loading = best_seconds(lambda: [json.loads(line) for line in lines])
    size = sum(len(line) for line in lines) / len(lines)
    return [
        ("EVE lines parsed", len(lines) / parsing, "lines/s"),
        ("EVE lines through the whole pipeline", len(lines) / everything, "lines/s"),
        ("EVE parsing against json.loads of the same lines", loading / parsing, "times as fast"),
        ("mean EVE line", size, "bytes"),
    ]


if __name__ == "__main__":
    for name, value, unit in run():
        print(f"{name}: {value:,.1f} {unit}")

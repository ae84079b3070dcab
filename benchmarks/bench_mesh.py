"""Real processes over loopback UDP: finality, memory of an edge."""

import asyncio
import gzip
import json
import tempfile
from importlib import resources
from pathlib import Path

from hookprobe.cli.watch import MeshFacts, MeshWatch, percentile
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, LogLine, MeshShape
from hookprobe.wire.instant import Instant, format_iso

EPOCHS = 20
SETTINGS: dict[str, dict[str, object]] = {"dsm": {"propose_grace_ms": 500, "epoch_gap_ms": 100}}


def ignore(line: LogLine, facts: MeshFacts) -> None:
    """Nobody listens; the facts are enough."""


async def finality_us(folder: Path, validators: int) -> list[int]:
    """Return what validators measured from opening an epoch to its finality."""
    mesh = LocalMesh(folder, MeshShape(validators, (), 1_000, SETTINGS))
    watch = MeshWatch(mesh, ignore)
    names = [f"validator-{i + 1}" for i in range(validators)]
    try:
        await mesh.start(names)
        await watch.until(
            lambda facts: all(facts.sessions[name] >= validators - 1 for name in names),
            120,
            "connecting",
        )
        await watch.during(3)
        watch.facts.latencies_us.clear()
        first = max(watch.facts.epochs.values())
        await watch.until(
            lambda facts: min(facts.epochs.values()) >= first + EPOCHS, 120, "finality"
        )
        return list(watch.facts.latencies_us)
    finally:
        await mesh.stop()


async def dead_leader_us(folder: Path) -> int:
    """Return the longest time to finality behind the death of one validator of four.

    It leads two of the next eight epochs, for which the others wait as long as for any leader:
    only after ten epochs of silence they give it less time.
    """
    mesh = LocalMesh(folder, MeshShape(4, (), 1_000, SETTINGS))
    watch = MeshWatch(mesh, ignore)
    names = [f"validator-{i + 1}" for i in range(4)]
    try:
        await mesh.start(names)
        await watch.until(
            lambda facts: all(facts.sessions[name] >= 3 for name in names), 120, "connecting"
        )
        await watch.during(3)
        await mesh.kill(names[-1])
        watch.facts.latencies_us.clear()
        await watch.until(lambda facts: len(facts.latencies_us) >= 3 * 8, 120, "eight epochs")
        return max(watch.facts.latencies_us)
    finally:
        await mesh.stop()


async def edge_memory_mib(folder: Path) -> float:
    """Return the resident memory of an edge that has read a scan and a storm."""
    mesh = LocalMesh(folder, MeshShape(4, (("edge", "t"),), 1_000, SETTINGS))
    watch = MeshWatch(mesh, ignore)
    try:
        await mesh.start(["validator-1", "validator-2", "validator-3", "validator-4", "edge"])
        await watch.until(lambda facts: facts.sessions["edge"] >= 4, 60, "connecting")
        recordings = resources.files("hookprobe.cli").joinpath("recordings")
        for name in ("scan-syn-vertical", "scan-service-nse", "lateral-psexec-smb", "benign-mix"):
            packed = recordings.joinpath(f"{name}.eve.json.gz").read_bytes()
            mesh.feed("edge", gzip.decompress(packed) * 20)
        await watch.during(10)
        return resident_mib(mesh.process_id("edge"))
    finally:
        await mesh.stop()


async def validator_memory_mib(folder: Path) -> float:
    """Return the resident memory of a validator that takes the reports of eight storming edges."""
    edges = tuple((f"edge-{i}", "t") for i in range(8))
    settings: dict[str, dict[str, object]] = {**SETTINGS, "neuro": {"interval_ms": 2_000}}
    mesh = LocalMesh(folder, MeshShape(4, edges, 1_000, settings))
    watch = MeshWatch(mesh, ignore)
    validators = [f"validator-{i + 1}" for i in range(4)]
    try:
        await mesh.start([*validators, VERIFIER, *(name for name, _ in edges)])
        await watch.until(lambda facts: facts.sessions["edge-7"] >= 4, 60, "connecting")
        for number, (name, _) in enumerate(edges):
            mesh.feed(name, storm(1_000 * number, 500))
        await watch.until(
            lambda facts: all(facts.proven.get(name, 0) >= 400 for name, _ in edges), 120, "proofs"
        )
        return max(resident_mib(mesh.process_id(name)) for name in validators)
    finally:
        await mesh.stop()


def storm(first: int, count: int) -> bytes:
    """Return alerts of so many sources; each becomes a block."""
    lines = []
    for number in range(first, first + count):
        record = {
            "timestamp": format_iso(Instant(Clock().now())),
            "flow_id": number,
            "event_type": "alert",
            "src_ip": f"198.{18 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}",
            "dest_ip": "10.1.0.20",
            "proto": "TCP",
            "alert": {
                "signature_id": 2_100_000 + number,
                "signature": f"ET EXPLOIT test {number}",
                "category": "Attempted Administrator Privilege Gain",
                "severity": 1,
            },
        }
        lines.append(json.dumps(record))
    return "\n".join(lines).encode() + b"\n"


def resident_mib(process_id: int) -> float:
    """Return VmRSS of a process."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def run() -> list[tuple[str, float, str]]:
    """Run the meshes, one after the other."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for validators in (4, 10):
            seen = asyncio.run(finality_us(Path(folder) / f"n{validators}", validators))
            for share, label in ((0.5, "p50"), (0.99, "p99")):
                name = f"finality n={validators}, loopback UDP, {label}"
                rows.append((name, percentile(seen, share) / 1000, "ms"))
        longest = asyncio.run(dead_leader_us(Path(folder) / "dead"))
        rows.append(("finality n=4, loopback UDP, the leader dead", longest / 1000, "ms"))
        memory = asyncio.run(edge_memory_mib(Path(folder) / "edge"))
        rows.append(("edge process memory", memory, "MiB RSS"))
        memory = asyncio.run(validator_memory_mib(Path(folder) / "validator"))
        rows.append(("validator process memory, eight storming edges", memory, "MiB RSS"))
    return rows

"""Real processes over loopback UDP: finality, memory of an edge."""

import asyncio
import gzip
import tempfile
from importlib import resources
from pathlib import Path

from hookprobe.cli.watch import MeshFacts, MeshWatch, percentile
from hookprobe.runtime.local_mesh import LocalMesh, LogLine, MeshShape

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
        memory = asyncio.run(edge_memory_mib(Path(folder) / "edge"))
        rows.append(("edge process memory", memory, "MiB RSS"))
    return rows

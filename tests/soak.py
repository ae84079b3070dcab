"""A long life in a short time: python -m tests.soak --epochs 2000 --folder FOLDER

Real processes over loopback: four validators and two more that join and leave again and again, a
verifier, two edges that keep reporting. Nodes are killed all the time; blocks are pruned after
minutes. Evidence is exported on the way, before it is pruned, and at the end; then every bundle
must verify, with the stand-alone verifier too (which computes BLS in plain
Python and needs minutes for a thousand checkpoints), and all validators must hold one history.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.integration.test_kill_nine import alert

from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.store import Table
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, LogLine, MeshShape, free_ports
from hookprobe.runtime.sqlite_store import SqliteStore

ROOT = Path(__file__).parents[1]
EDGES = ("edge-a", "edge-b")
FOUNDERS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))
LATER = ("validator-5", "validator-6")
PARTITION_S = 60
SETTINGS: dict[str, dict[str, object]] = {
    "dsm": {
        "epoch_gap_ms": 100,
        "propose_grace_ms": 100,
        "view_timeout_ms": 700,
        "partition_ms": PARTITION_S * 1000,
        "storage": {
            "microblocks": {"retention_days": 3},
            "checkpoints": {"retention_days": 60},
        },
    },
    "neuro": {"interval_ms": 5000},
}


class Life:
    """One mesh and what it said."""

    def __init__(self, folder: Path, epoch_ms: int, seed: int) -> None:
        edges = tuple((name, f"tenant-{name}") for name in EDGES)
        self.folder = folder
        self.mesh = LocalMesh(folder / "mesh", MeshShape(4, edges, epoch_ms, SETTINGS))
        self.dice = random.Random(seed)
        self.told: Counter[str] = Counter()
        self.epoch = 0
        self.members: list[str] = list(FOUNDERS)
        self.bundles: list[Path] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        while True:
            self._take(await self.mesh.lines.get())

    def _take(self, line: LogLine) -> None:
        self.told[line.event] += 1
        if line.event == "CheckpointFinalized":
            self.epoch = max(self.epoch, int(str(line.fields["epoch"])))
        elif line.event == "Ended" and line.fields["complaint"]:
            self.complaints.append(f"{line.node}: {line.fields['complaint']}")

    def command(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        settings = str(self.mesh.folder / node / "hookprobe.yaml")
        return subprocess.run(
            [sys.executable, "-m", "hookprobe", *words, "-c", settings],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    async def enrol(self, name: str) -> None:
        """Enrol one more validator and give everybody the new directory."""
        home = self.mesh.folder
        (port,) = free_ports(1)
        words = ["init", "validator", str(home / name), "--mesh", str(home), "--name", name]
        command = [sys.executable, "-m", "hookprobe", *words, "--at", f"127.0.0.1:{port}"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        self.mesh.adopt(name, "validator")
        for node in (*FOUNDERS, *LATER, VERIFIER, *EDGES):
            if (home / node).exists():
                shutil.copy(home / "directory.json", home / node / "directory.json")
        self.mesh.change_settings(name, SETTINGS)

    async def restart(self, *names: str) -> None:
        for name in names:
            if self.mesh.running(name):
                await self.mesh.kill(name)
            await self.mesh.start([name])

    async def export(self, edge: str) -> None:
        target = self.folder / f"{edge}-{len(self.bundles)}.hpe"
        words = ("evidence", "export", "--output", str(target))
        done = await asyncio.to_thread(self.command, edge, *words)
        if done.returncode == 0:
            self.bundles.append(target)

    async def join(self, name: str) -> None:
        """Apply and be approved, in the words an operator types."""
        applied = await asyncio.to_thread(self.command, name, "validator", "apply")
        if applied.returncode:
            return
        await asyncio.sleep(6)
        asked = await asyncio.to_thread(self.command, self.members[0], "validator", "status")
        rows = json.loads(asked.stdout or "[]")
        ids = [row["application"] for row in rows if "application" in row]
        for member in self.members:
            for application in ids:
                await asyncio.to_thread(self.command, member, "validator", "approve", application)

    async def leave(self, name: str) -> None:
        await asyncio.to_thread(self.command, name, "validator", "remove", name)

    async def follow_members(self) -> None:
        for member in self.members:
            asked = await asyncio.to_thread(self.command, member, "validator", "status")
            with contextlib.suppress(ValueError):
                rows = json.loads(asked.stdout)
                found = [row["validator"] for row in rows if row.get("state") == "member"]
                if len(found) >= 4:
                    self.members = found
                    return


async def live(life: Life, epochs: int, report_s: float) -> None:
    mesh = life.mesh
    for name in LATER:
        await life.enrol(name)
    everyone = (*FOUNDERS, *LATER, VERIFIER, *EDGES)
    await mesh.start(everyone)
    listening = asyncio.create_task(life.listen())
    fed, turn, said = 0, 0, time.monotonic()
    while life.epoch < epochs:
        for name in EDGES:
            mesh.feed(name, b"".join(alert(fed + i) for i in range(3)))
            fed += 3
        await asyncio.sleep(life.dice.uniform(1, 4))
        if life.dice.random() < 0.4:
            await life.restart(life.dice.choice((*EDGES * 2, *life.members, VERIFIER)))
        if turn % 15 == 5:
            await life.follow_members()
            outside = [name for name in LATER if name not in life.members]
            inside = [name for name in LATER if name in life.members]
            if outside and (not inside or life.dice.random() < 0.5):
                await life.join(life.dice.choice(outside))
            elif inside:
                await life.leave(life.dice.choice(inside))
        if turn % 12 == 3:
            await life.export(life.dice.choice(EDGES))
        turn += 1
        if time.monotonic() - said > report_s:
            said = time.monotonic()
            summary = (
                f"epoch {life.epoch}, members {len(life.members)}, bundles {len(life.bundles)}"
            )
            sys.stdout.write(f"{summary}, sets changed {life.told['ValidatorSetChanged']}\n")
            sys.stdout.flush()
    await asyncio.sleep(15)
    for edge in EDGES:
        await life.export(edge)
    await mesh.stop()
    listening.cancel()
    while not mesh.lines.empty():
        life._take(mesh.lines.get_nowait())


def judge(life: Life) -> list[str]:
    """Return what is wrong."""
    faults = list(life.complaints)
    bad = ("ForkDetected", "NodeQuarantined", "MisbehaviourDetected", "ForkFound", "ResyncNeeded")
    faults += [f"{life.told[event]} x {event}" for event in bad if life.told[event]]
    if not life.told["PartitionsDropped"]:
        faults.append("nothing was pruned")
    if not life.told["ValidatorSetChanged"]:
        faults.append("the set of validators never changed")
    trust = str(life.mesh.folder / "genesis.json")
    ours = [sys.executable, "-m", "hookprobe", "verify"]
    for bundle in life.bundles:
        faults += _unverified(ours, (bundle,), trust)
    alone = [sys.executable, "-I", str(ROOT / "tools" / "verify_bundle.py")]
    faults += _unverified(alone, life.bundles, trust)
    histories = [checkpoints(life.mesh.state_of(name)) for name in (*FOUNDERS, *LATER)]
    for epoch in sorted(set().union(*histories)):
        seen = {history[epoch] for history in histories if epoch in history}
        faults += [f"validators disagree on epoch {epoch}"] * (len(seen) - 1)
    return faults


def _unverified(verifier: list[str], bundles: Sequence[Path], trust: str) -> list[str]:
    """Return what a verifier says against bundles; the stand-alone one remembers across them."""
    command = [*verifier, *map(str, bundles), "--trust", trust]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"{bundles}: {done.stdout[-2000:]} {done.stderr[-500:]}"] if done.returncode else []


def checkpoints(folder: Path) -> dict[int, bytes]:
    """Return the header hash of every final checkpoint a validator holds."""
    store = SqliteStore(folder, read_only=True)
    rows = store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 1_000_000)
    store.close()
    return {int.from_bytes(key, "big"): decode_sealed(value).hash for key, value in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--epoch-ms", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    life = Life(options.folder, options.epoch_ms, options.seed)
    asyncio.run(live(life, options.epochs, 30))
    faults = judge(life)
    for fault in faults:
        sys.stdout.write(f"FAULT {fault}\n")
    counts = {name: life.told[name] for name in ("CheckpointFinalized", "IncidentRecorded",
              "ValidatorSetChanged", "PartitionsDropped", "Started")}  # fmt: skip
    sys.stdout.write(f"{life.epoch} epochs, {len(life.bundles)} bundles, {counts}: ")
    sys.stdout.write("FAILED\n" if faults else "ok\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

"""kill -9 of real node processes at any moment: nothing acknowledged is lost, no chain forks."""

import asyncio
import json
import random
import time
from pathlib import Path

import pytest

from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.microblock import decode_block
from hookprobe.dsm.store import Table
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, LogLine, MeshShape
from hookprobe.runtime.sqlite_store import SqliteStore
from hookprobe.wire.instant import Instant, format_iso

KILLS = 200
EDGES = ("edge-a", "edge-b", "edge-c")
VALIDATORS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))
SHAPE = MeshShape(
    validators=4,
    edges=tuple((name, f"tenant-{name}") for name in EDGES),
    epoch_ms=400,
    settings={
        "dsm": {"epoch_gap_ms": 100, "propose_grace_ms": 50},
        "neuro": {"interval_ms": 1000},
    },
)


def alert(number: int) -> bytes:
    """A priority 1 alert of a source of its own: it becomes a block at once."""
    source = f"198.51.{number // 250 % 250}.{number % 250 + 1}"
    record = {
        "timestamp": format_iso(Instant(time.time_ns() // 1000)),
        "flow_id": number,
        "event_type": "alert",
        "src_ip": source,
        "src_port": 40000,
        "dest_ip": "10.1.0.20",
        "dest_port": 80,
        "proto": "TCP",
        "alert": {
            "signature_id": 2_100_000 + number,
            "signature": f"ET EXPLOIT test {number}",
            "category": "Attempted Administrator Privilege Gain",
            "severity": 1,
        },
    }
    return json.dumps(record).encode() + b"\n"


# A kill may never look like a second device or a lying one.
FORKS = (
    "ForkDetected",
    "NodeQuarantined",
    "MisbehaviourDetected",
    "ForkFound",
    "ResyncNeeded",
    "BacklogFull",
)


class Watcher:
    """Collects what nodes said."""

    def __init__(self) -> None:
        self.recorded: dict[str, list[str]] = {name: [] for name in EDGES}
        self.complaints: list[str] = []
        self.forks: list[LogLine] = []
        self.standing: dict[str, str] = {}

    def take(self, line: LogLine) -> None:
        if line.event == "IncidentRecorded":
            self.recorded[line.node].append(str(line.fields["block_id"]))
        elif line.event in FORKS:
            self.forks.append(line)
        elif line.event == "Appraised":
            self.standing[str(line.fields["node"])] = str(line.fields["verdict"])
        elif line.event == "Ended" and line.fields["complaint"]:
            self.complaints.append(f"{line.node}: {line.fields['complaint']}")

    async def listen(self, mesh: LocalMesh) -> None:
        while True:
            self.take(await mesh.lines.get())

    def drain(self, mesh: LocalMesh) -> None:
        while not mesh.lines.empty():
            self.take(mesh.lines.get_nowait())


async def torment(mesh: LocalMesh, watcher: Watcher, dice: random.Random) -> int:
    """Feed and kill until enough kills; return how many alerts were fed."""
    everyone = (*EDGES, *VALIDATORS, VERIFIER)
    await mesh.start(everyone)
    listening = asyncio.create_task(watcher.listen(mesh))
    fed = 0
    for _ in range(KILLS):
        # Edges three times as often: their chains are what must not fork.
        victim = dice.choice((*EDGES * 4, *VALIDATORS, VERIFIER))
        for name in EDGES:
            mesh.feed(name, b"".join(alert(fed + i) for i in range(3)))
            fed += 3
        await asyncio.sleep(dice.uniform(0.0, 0.9))
        await mesh.kill(victim)
        await mesh.start([victim])
    await asyncio.sleep(15)
    await mesh.stop()
    listening.cancel()
    watcher.drain(mesh)
    return fed


def own_chain(folder: Path, edge: str) -> dict[tuple[int, int], str]:
    store = SqliteStore(folder, read_only=True)
    rows = store.scan(Table.BLOCKS, b"", b"\xff" * 80, 1_000_000)
    blocks = [decode_block(value) for _, value in rows]
    store.close()
    found = {(signed.block.inc, signed.seq): signed.id.hex() for signed in blocks}
    assert len(found) == len(blocks), f"{edge} has two blocks with one number"
    return found


def checkpoints(folder: Path) -> dict[bytes, bytes]:
    store = SqliteStore(folder, read_only=True)
    rows = store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 100_000)
    store.close()
    return dict(rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_kills_lose_nothing_and_fork_nothing(tmp_path: Path) -> None:
    mesh = LocalMesh(tmp_path / "mesh", SHAPE)
    watcher = Watcher()
    fed = asyncio.run(torment(mesh, watcher, random.Random(7)))

    assert watcher.complaints == []
    assert watcher.forks == []
    assert watcher.standing == dict.fromkeys(EDGES, "resonant"), "histories survive kills too"
    told = 0
    for edge in EDGES:
        chain = own_chain(mesh.state_of(edge), edge)
        known = {block_id[:16] for block_id in chain.values()}
        lost = [block for block in watcher.recorded[edge] if block not in known]
        assert lost == [], f"{edge} lost blocks it had announced"
        told += len(chain)
        validator_blocks = {
            key[:44]: key[44:] for key in _blocks_of(mesh.state_of("validator-1"), edge)
        }
        for (inc, seq), block_id in chain.items():
            row = edge.encode().ljust(32, b"\0") + inc.to_bytes(4, "big") + seq.to_bytes(8, "big")
            assert validator_blocks.get(row, bytes.fromhex(block_id)) == bytes.fromhex(block_id)
    assert told >= fed, "every alert became a block, whatever was killed"
    histories = [checkpoints(mesh.state_of(name)) for name in VALIDATORS]
    shared = set.intersection(*(set(history) for history in histories))
    assert len(shared) > 20
    for epoch in shared:
        hashes = {_header_hash(history[epoch]) for history in histories}
        assert len(hashes) == 1, f"validators disagree on epoch {int.from_bytes(epoch, 'big')}"


def _header_hash(row: bytes) -> bytes:
    return decode_sealed(row).hash


def _blocks_of(folder: Path, edge: str) -> list[bytes]:
    store = SqliteStore(folder, read_only=True)
    prefix = edge.encode().ljust(32, b"\0")
    rows = store.scan(Table.BLOCKS, prefix, prefix + b"\xff" * 50, 1_000_000)
    store.close()
    return [key for key, _ in rows]

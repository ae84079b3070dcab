"""A validator changes its voting key while the mesh goes on, in words that an operator types."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hookprobe.crypto.bls import BlsSigner
from hookprobe.runtime import folders
from hookprobe.runtime.keystore import load_secrets
from hookprobe.runtime.local_mesh import LocalMesh, MeshShape

NAMES = [f"validator-{i}" for i in (1, 2, 3, 4)]
ROTATED = "validator-2"
SETTINGS: dict[str, dict[str, object]] = {
    "dsm": {"epoch_gap_ms": 100, "propose_grace_ms": 100, "view_timeout_ms": 600}
}


class Town:
    """Four validators, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.mesh = LocalMesh(folder / "mesh", MeshShape(4, (), 500, SETTINGS))
        self.epoch = -1
        self.changes = 0
        self.votes = 0

    def type(self, node: str, *words: str, status: int = 0) -> str:
        settings = str(self.mesh.folder / node / "hookprobe.yaml")
        command = [sys.executable, "-m", "hookprobe", "validator", *words, "-c", settings]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, f"{words}: {done.returncode} {done.stderr}"
        return done.stdout

    async def listen(self) -> None:
        while True:
            line = await self.mesh.lines.get()
            if line.event == "CheckpointFinalized":
                self.epoch = max(self.epoch, int(str(line.fields["epoch"])))
            self.changes += line.event == "ValidatorSetChanged" and line.node == "validator-1"
            self.votes += line.event == "Voted" and line.node == ROTATED

    async def go_on(self, by: int = 4) -> None:
        goal = self.epoch + by
        for _ in range(600):
            if self.epoch >= goal:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"epochs stand still at {self.epoch}")

    async def vote(self) -> None:
        """Wait for the next vote of the rotated validator."""
        before = self.votes
        for _ in range(600):
            if self.votes > before:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{ROTATED} does not vote")


async def story(town: Town) -> None:
    mesh, folder = town.mesh, town.mesh.folder / ROTATED
    await mesh.start(NAMES)
    listening = asyncio.create_task(town.listen())
    try:
        await town.go_on()
        assert "in use by another" in _refused(town), "not beside the running node"
        await mesh.kill(ROTATED)
        await asyncio.to_thread(town.type, ROTATED, "rotate")
        (spare,), old = folders.read_spare(folder), load_secrets(folder).voting
        await mesh.start([ROTATED])
        await town.go_on()
        await asyncio.to_thread(town.type, ROTATED, "apply", "--spare")
        for _ in range(300):
            if town.changes:
                break
            await asyncio.sleep(0.1)
        assert town.changes, "a member's own key needs nobody's approval"
        await town.go_on(6)
        await town.vote()  # with the key that the set names now
        # The keys are exchanged; with the new one alone it goes on voting.
        await mesh.kill(ROTATED)
        await asyncio.to_thread(town.type, ROTATED, "rotate")
        assert load_secrets(folder).voting == spare
        assert folders.read_spare(folder) == (old,)
        (folder / folders.SPARE_FILE).unlink()
        await mesh.start([ROTATED])
        await town.vote()
        assert BlsSigner(spare).public_key != BlsSigner(old).public_key
    finally:
        listening.cancel()
        await mesh.stop()


def _refused(town: Town) -> str:
    settings = str(town.mesh.folder / ROTATED / "hookprobe.yaml")
    command = [sys.executable, "-m", "hookprobe", "validator", "rotate", "-c", settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_validator_changes_its_voting_key(tmp_path: Path) -> None:
    asyncio.run(story(Town(tmp_path)))

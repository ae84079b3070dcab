"""`hookprobe file` against real node processes, which are killed in the middle of transfers."""

import asyncio
import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from hookprobe.runtime.file_parts import JOURNAL_EVERY_CHUNKS
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, MeshShape

SHAPE = MeshShape(
    validators=1,
    edges=(("edge-a", "tenant-a"),),
    epoch_ms=1000,
    settings={"files": {"path": "files"}},
)
DATA = random.Random(5).randbytes(24 << 20)
WAIT_S = 20


class Machine:
    """A validator, an edge that is trusted once a verifier certified it, and a person there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mesh = LocalMesh(folder / "mesh", SHAPE)
        self.served = folder / "mesh/validator-1/files/edge-a"

    async def start(self, *names: str) -> None:
        await self.mesh.start(names)
        for _ in range(WAIT_S * 10):
            if (await self.file("ls", "validator-1:"))[0] == 0:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the edge never reached the validator")

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        settings = str(self.folder / "mesh/edge-a/hookprobe.yaml")
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "hookprobe", "file", *arguments, "-c", settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def file(self, *arguments: str) -> tuple[int, bytes, str]:
        process = await self.begin(*arguments)
        out, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out, said.decode()

    async def held(self, least: int) -> None:
        """Wait until the journal at the validator claims some chunks."""
        for _ in range(WAIT_S * 1000):
            claimed = sum(path.read_bytes().count(1) for path in self.served.glob(".*.journal"))
            if claimed >= least:
                return
            await asyncio.sleep(0.001)
        raise AssertionError("nothing arrived")

    def visible(self) -> list[str]:
        return sorted(path.name for path in self.served.iterdir() if path.name[0] != ".")


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


async def story(machine: Machine) -> None:
    local = write(machine.folder / "local.bin", DATA)
    await machine.start(VERIFIER, "validator-1", "edge-a")
    code, out, said = await machine.file("put", local, "validator-1:a.bin", "-o", "json")
    assert code == 0, said
    assert json.loads(out)["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert "MiB/s" in said
    assert (machine.served / "a.bin").read_bytes() == DATA

    back = str(machine.folder / "back.bin")
    assert (await machine.file("get", "validator-1:a.bin", back))[0] == 0
    assert await asyncio.to_thread(Path(back).read_bytes) == DATA
    listed = json.loads((await machine.file("ls", "validator-1:", "-o", "json"))[1])
    assert listed == [{"name": "a.bin", "kind": "file", "size": len(DATA)}]
    assert (
        json.loads((await machine.file("stat", "validator-1:a.bin", "-o", "json"))[1])["mode"]
        == "0644"
    )
    refusals = {
        ("put", local, "validator-1:a.bin"): (1, "exists"),
        ("put", local, "validator-1:../a.bin"): (5, "path"),
        ("put", local, "validator-1:a.sh"): (1, "forbidden"),
        ("get", "validator-1:none.bin", back): (3, "not found"),
        ("get", "validator-1:a.bin", back): (1, "exists"),
        ("ls", "validator-9:"): (4, "no session"),
    }
    for arguments, (wanted, word) in refusals.items():
        code, _, said = await machine.file(*arguments)
        assert (code, word in said) == (wanted, True), said
    assert (await machine.file("rm", "validator-1:a.bin"))[0] == 0
    assert machine.visible() == []


async def killed_story(machine: Machine) -> None:
    old = write(machine.folder / "old.bin", b"old")
    new = write(machine.folder / "new.bin", DATA)
    await machine.start(VERIFIER, "validator-1", "edge-a")
    assert (await machine.file("put", old, "validator-1:a.bin"))[0] == 0
    putting = await machine.begin("put", new, "validator-1:a.bin", "--replace")
    await machine.held(JOURNAL_EVERY_CHUNKS)
    await machine.mesh.kill("validator-1")
    assert (machine.served / "a.bin").read_bytes() == b"old"
    putting.terminate()
    await putting.communicate()
    await machine.mesh.kill("edge-a")
    await machine.start("validator-1", "edge-a")
    assert (machine.served / "a.bin").read_bytes() == b"old"
    code, _, said = await machine.file("put", new, "validator-1:a.bin", "--replace")
    assert code == 0, said
    assert "resuming at" in said
    assert (machine.served / "a.bin").read_bytes() == DATA
    assert machine.visible() == ["a.bin"]


async def run(machine: Machine, killed: bool) -> None:
    try:
        await (killed_story(machine) if killed else story(machine))
    finally:
        await machine.mesh.stop()
    while not machine.mesh.lines.empty():
        line = machine.mesh.lines.get_nowait()
        assert line.event != "Ended" or not line.fields["complaint"], line


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_files_between_real_nodes(tmp_path: Path, killed: bool) -> None:
    asyncio.run(run(Machine(tmp_path), killed))

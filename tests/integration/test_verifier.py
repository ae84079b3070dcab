"""`hookprobe verifier` against real node processes: looking, accepting, updating, opening."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, MeshShape

SHAPE = MeshShape(
    validators=1,
    edges=(("edge-a", "tenant-a"),),
    epoch_ms=1000,
    settings={"neuro": {"interval_ms": 500}},
)
WAIT_S = 30


class Operator:
    """A person at the verifier."""

    def __init__(self, mesh: LocalMesh) -> None:
        self.mesh = mesh

    def type(self, *arguments: str, node: str = VERIFIER, status: int = 0) -> str:
        settings = str(self.mesh.folder / node / "hookprobe.yaml")
        command = [sys.executable, "-m", "hookprobe", *arguments, "-c", settings]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    def device(self) -> dict[str, object]:
        (row,) = json.loads(self.type("verifier", "devices"))
        assert isinstance(row, dict)
        return row

    def wait_for(self, verdict: str) -> dict[str, object]:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            row = self.device()
            if row["verdict"] == verdict:
                return row
            time.sleep(0.2)
        raise AssertionError(f"never {verdict}: {self.device()}")


def orders(operator: Operator, folder: Path) -> None:
    row = operator.wait_for("resonant")
    assert row["attestation"] == "software-attested"
    assert row["golden"] == row["measured"] != ""

    settings = operator.mesh.folder / "edge-a" / "hookprobe.yaml"
    honest = settings.read_bytes()
    settings.write_bytes(honest + b"# tampered\n")
    broken = operator.wait_for("tamper-reported")
    assert broken["broken_at"] is not None
    time.sleep(1.5)  # the status file is up to a second old
    operator.type("status", node="edge-a", status=7)

    refused = operator.type("verifier", "accept", "edge-z", status=1)
    assert "edge-z is not enrolled here" in refused
    refused = operator.type("verifier", "accept", "edge-a", "--measurement", "zz", status=2)
    assert "40 hex digits" in refused
    operator.type("verifier", "accept", "edge-a", "--measurement", str(broken["measured"]))
    accepted = operator.wait_for("resonant")
    assert accepted["golden"] == broken["measured"]

    # A signed update leads back to the honest file.
    manifest = folder / "update.json"
    operator.mesh.folder.joinpath("authority.key").chmod(0o600)
    command = [
        *("neuro", "manifest", "sign", str(manifest), "--version", "1"),
        *("--authority", str(operator.mesh.folder), "--measurement", str(row["golden"])),
        *("--replaces", str(broken["measured"])),
    ]
    subprocess.run([sys.executable, "-m", "hookprobe", *command], check=True, capture_output=True)
    forged = folder / "forged.json"
    forged.write_bytes(manifest.read_bytes().replace(b'"version":1', b'"version":9'))
    assert "signature" in operator.type("verifier", "announce", str(forged), status=1)
    assert json.loads(operator.type("verifier", "announce", str(manifest)))["version"] == 1
    assert "version 1 after 1" in operator.type("verifier", "announce", str(manifest), status=1)
    settings.write_bytes(honest)
    end = time.monotonic() + WAIT_S
    while operator.device()["measured"] != row["golden"] and time.monotonic() < end:
        time.sleep(0.2)
    assert operator.wait_for("resonant")["golden"] == row["golden"]

    opened = json.loads(operator.type("verifier", "open", "edge-a", "1"))
    assert opened["record"] == 1
    assert isinstance(opened["memory_available_kib"], int)
    assert "no verified record 99999" in operator.type(
        "verifier", "open", "edge-a", "99999", status=1
    )

    bundle = folder / "edge-a.hpe"
    operator.type("evidence", "export", "--output", str(bundle), node="edge-a")
    proofs = json.loads(operator.type("verifier", "prove", str(bundle)))
    assert [row["proof"] for row in proofs] == ["holds"] * len(proofs) != []

    assert json.loads(operator.type("verifier", "epoch", "edge-a"))[0]["epoch"] == 1
    row = operator.wait_for("resonant")
    assert row["epoch"] == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_operator_looks_accepts_updates_and_opens(tmp_path: Path) -> None:
    async def story() -> None:
        mesh = LocalMesh(tmp_path / "mesh", SHAPE)
        operator = Operator(mesh)
        await mesh.start(["validator-1", VERIFIER, "edge-a"])
        try:
            await asyncio.sleep(3)
            await asyncio.to_thread(orders, operator, tmp_path)
        finally:
            await mesh.stop()
        assert "is the node running" in operator.type("verifier", "devices", status=4)

    asyncio.run(story())

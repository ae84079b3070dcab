"""A machine is lost: its node comes back from a backup with its identity, and nobody else does."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hookprobe.runtime.local_mesh import LocalMesh, MeshShape

PHRASE = "correct horse battery staple"
WAIT_S = 60.0
NODE = "validator-1"


def hookprobe(*arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hookprobe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert PHRASE not in done.stdout + done.stderr
    return done.stdout + done.stderr


async def run_until(mesh: LocalMesh, event: str) -> dict[str, object]:
    async with asyncio.timeout(WAIT_S):
        while True:
            line = await mesh.lines.get()
            assert line.event != "Ended", line
            if (line.node, line.event) == (NODE, event):
                return dict(line.fields)


@pytest.fixture(name="mesh")
def _mesh(tmp_path: Path) -> LocalMesh:
    """A mesh of one validator with a few final epochs."""
    mesh = LocalMesh(tmp_path / "mesh", MeshShape(1, (), 300, {}))
    (mesh.folder / NODE / "dsm-webhooks.yaml").write_text("webhooks: []\n")
    mesh.change_settings(NODE, {"webhooks": {"path": "dsm-webhooks.yaml"}})

    async def live() -> None:
        try:
            await mesh.start([NODE])
            for _ in range(3):
                await run_until(mesh, "CheckpointFinalized")
        finally:
            await mesh.stop()

    asyncio.run(live())
    return mesh


def phrase_file(folder: Path, text: str = PHRASE) -> Path:
    path = folder / f"phrase-{len(text)}-{text[:3]}"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def backed_up(mesh: LocalMesh, target: Path, *lock: object) -> Path:
    settings = mesh.folder / NODE / "hookprobe.yaml"
    hookprobe("dsm", "backup", "--identity", *lock, "-c", settings, target)
    return target


def test_a_lost_machine_comes_back_and_abstains(mesh: LocalMesh, tmp_path: Path) -> None:
    phrase = phrase_file(tmp_path)
    copy = backed_up(mesh, tmp_path / "copy", "--passphrase-file", phrase)
    home = mesh.folder / NODE
    key = (home / "node.key").read_bytes()
    assert key not in (copy / "identity.safe").read_bytes()
    assert (copy / "identity.safe").stat().st_mode & 0o77 == 0
    told = hookprobe("dsm", "restore", "--check", "-c", home / "hookprobe.yaml", copy, "-o", "json")
    assert json.loads(told[: told.index("}") + 1])["identity"] == (
        "validator-1, sealed for a passphrase"
    )
    inside = hookprobe("dsm", "unseal", "--check", "--passphrase-file", phrase, copy)
    for name in ("node.key", "hookprobe.yaml", "genesis.json", "webhooks.yaml", "enrolment.json"):
        assert name in inside
    kept = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    shutil.rmtree(home)
    hookprobe("dsm", "unseal", "--passphrase-file", phrase, copy, home)
    shutil.move(home / "webhooks.yaml", home / "dsm-webhooks.yaml")
    back = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    assert back == kept
    assert (home / "node.key").stat().st_mode & 0o77 == 0
    hookprobe("dsm", "restore", "-c", home / "hookprobe.yaml", copy)
    mesh._readers.clear()  # of the loop that the first life ran in
    mesh.lines = asyncio.Queue()

    async def live() -> None:
        try:
            await mesh.start([NODE])
            assert await run_until(mesh, "VotingSuspended")
            deadline = asyncio.get_running_loop().time() + 3
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await run_until(mesh, "Voted")  # nobody else is there: nothing may be decided
        finally:
            await mesh.stop()

    asyncio.run(live())


def test_who_has_not_the_key_gets_nothing(mesh: LocalMesh, tmp_path: Path) -> None:
    copy = backed_up(mesh, tmp_path / "copy", "--passphrase-file", phrase_file(tmp_path))
    target = tmp_path / "stolen"
    wrong = phrase_file(tmp_path, "another phrase altogether")
    said = hookprobe("dsm", "unseal", "--passphrase-file", wrong, copy, target, status=1)
    assert "does not open" in said
    secret = tmp_path / "secret"
    hookprobe("dsm", "recipient", secret)
    hookprobe("dsm", "unseal", "--secret", secret, copy, target, status=1)
    readable = phrase_file(tmp_path, "correct horse battery stapl.")
    readable.chmod(0o644)
    assert "others read" in hookprobe(
        "dsm", "unseal", "--passphrase-file", readable, copy, target, status=1
    )
    safe, settings = copy / "identity.safe", mesh.folder / NODE / "hookprobe.yaml"
    whole = safe.read_bytes()
    for data in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        safe.write_bytes(data)
        phrase = phrase_file(tmp_path)
        hookprobe("dsm", "unseal", "--passphrase-file", phrase, copy, target, status=1)
        assert "not the one that was backed up" in hookprobe(
            "dsm", "restore", "--check", "-c", settings, copy, status=1
        )
    safe.unlink()
    hookprobe("dsm", "restore", "--check", "-c", settings, copy, status=1)
    assert not target.exists()


def test_a_recipient_opens_what_the_node_itself_cannot(mesh: LocalMesh, tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    hookprobe("dsm", "recipient", secret)
    hookprobe("dsm", "recipient", secret, status=1)  # never over another one
    hookprobe("dsm", "recipient", other)
    assert secret.stat().st_mode & 0o77 == 0
    copy = backed_up(mesh, tmp_path / "copy", "--recipient", tmp_path / "secret.pub")
    hookprobe("dsm", "unseal", "--check", "--secret", other, copy, status=1)
    hookprobe("dsm", "unseal", "--secret", secret, copy, tmp_path / "back")
    assert (tmp_path / "back/node.key").read_bytes() == (
        mesh.folder / NODE / "node.key"
    ).read_bytes()


def test_orders_that_make_no_sense_are_refused(mesh: LocalMesh, tmp_path: Path) -> None:
    settings, phrase = mesh.folder / NODE / "hookprobe.yaml", phrase_file(tmp_path)
    order = ("dsm", "backup", "-c", settings, tmp_path / "copy")
    hookprobe(*order, "--passphrase-file", phrase, status=2)  # nothing would be locked
    hookprobe(*order, "--identity", "--passphrase-file", phrase_file(tmp_path, "short"), status=1)
    hookprobe(*order, "--identity", "--recipient", settings, status=1)
    hookprobe(*order, "--identity", "--recipient", settings, "--passphrase-file", phrase, status=2)
    assert not (tmp_path / "copy").exists()
    copy = backed_up(mesh, tmp_path / "copy", "--passphrase-file", phrase)
    hookprobe("dsm", "unseal", "--passphrase-file", phrase, copy, status=2)
    live = mesh.folder / NODE
    said = hookprobe("dsm", "unseal", "--passphrase-file", phrase, copy, live, status=1)
    assert "is not empty" in said
    plain = tmp_path / "plain"
    hookprobe("dsm", "backup", "-c", settings, plain)
    hookprobe("dsm", "unseal", "--passphrase-file", phrase, plain, tmp_path / "new", status=1)


def test_another_chains_backup_is_refused(mesh: LocalMesh, tmp_path: Path) -> None:
    copy = backed_up(mesh, tmp_path / "copy", "--passphrase-file", phrase_file(tmp_path))
    other = LocalMesh(tmp_path / "other", MeshShape(1, (), 300, {}))
    settings = other.folder / NODE / "hookprobe.yaml"
    assert "another chain" in hookprobe("dsm", "restore", "-c", settings, copy, status=1)

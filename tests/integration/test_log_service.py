"""A validator's history as a transparency log over HTTP, read as anybody else's tool would."""

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.notes import (
    LOG_KEY,
    WITNESS_KEY,
    Note,
    NoteKey,
    check_note,
    cosign,
    parse_head,
    parse_note,
)
from hookprobe.runtime.local_mesh import LocalMesh, MeshShape, free_ports

WITNESS = Ed25519Signer(b"\x09" * 32)
WITNESS_NAME = NoteKey("witness.example/w1", WITNESS_KEY, WITNESS.public_key)


def fetch(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        data: bytes = answer.read()
        return data


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, written out; nothing of ours."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def look(mesh: LocalMesh, port: int, folder: Path) -> None:
    genesis = decode_genesis((mesh.folder / "genesis.json").read_bytes())
    origin = f"hookprobe/{genesis.chain_id().hex()}"
    log_key = NoteKey(origin, LOG_KEY, genesis.validators[0].key)
    end = time.monotonic() + 60
    while True:
        try:
            note = parse_note(fetch(port, "/tlog/checkpoint"))
        except (urllib.error.URLError, ConnectionError):
            note = None
        if note is not None and parse_head(note.text).size >= 5:
            break
        assert time.monotonic() < end, "no checkpoint of some size"
        time.sleep(0.2)
    assert check_note(note, [log_key], Ed25519()) == {log_key: 0}
    name, size, root = note.text.splitlines()[:3]
    assert name == origin

    # The leaves as a stranger reads them, and the root computed by a stranger's code.
    bundle = fetch(port, f"/tlog/tile/entries/000.p/{size}")
    leaves = [bundle[at + 2 : at + 34] for at in range(0, len(bundle), 34)]
    assert len(leaves) == int(size)
    assert base64.b64encode(root_of(leaves)).decode() == root
    tile = fetch(port, f"/tlog/tile/0/000.p/{size}")
    assert tile == b"".join(hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves)
    for path, status in (
        ("/tlog/tile/0/001", 404),
        ("/tlog/tile/0/000.p/256", 400),
        ("/tlog/tile/0/0", 400),
        ("/tlog/tile/../../etc/passwd", 400),
        ("/tlog/tile/9/000.p/1", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(port, path)
        assert caught.value.code == status, path
        caught.value.close()

    # A witness that was told of in the settings cosigns; another one is not kept.
    def order(document: Note, status: int) -> subprocess.CompletedProcess[str]:
        path = folder / "cosigned.txt"
        path.write_bytes(document.encode())
        settings = str(mesh.folder / "validator-1" / "hookprobe.yaml")
        words = ["-m", "hookprobe", "validator", "witness", str(path), "-c", settings]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done

    line = cosign(note.text, WITNESS_NAME, WITNESS, 1_800_000_000)
    stranger = Ed25519Signer(b"\x0a" * 32)
    other = NoteKey("stranger.example", WITNESS_KEY, stranger.public_key)
    order(Note(note.text, (cosign(note.text, other, stranger, 1),)), 1)
    text = note.text.replace(size, str(int(size) - 1), 1)
    order(Note(text, (cosign(text, WITNESS_NAME, WITNESS, 1),)), 1)
    done = order(Note(note.text, (*note.signatures, line)), 0)
    assert json.loads(done.stdout)["cosignatures"] == 1


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_anybody_can_read_and_a_witness_cosigns(tmp_path: Path) -> None:
    mesh = LocalMesh(tmp_path / "mesh", MeshShape(1, (), 500, {}))
    (port,) = free_ports(1)
    mesh.change_settings(
        "validator-1",
        {
            "api": {"listen": f"127.0.0.1:{port}"},
            "dsm": {
                "node": {"id": "validator-1", "role": "validator"},
                "epoch_gap_ms": 100,
                "log": {"witnesses": [WITNESS_NAME.encode()]},
            },
        },
    )

    async def story() -> None:
        await mesh.start(["validator-1"])
        try:
            await asyncio.to_thread(look, mesh, port, tmp_path)
        finally:
            await mesh.stop()

    asyncio.run(story())

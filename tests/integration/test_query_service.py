"""A running node seen from outside: API in its process and beside it, client, webhooks, top."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hookprobe.dsm import (
    ConsensusEngine,
    DSMClient,
    DSMNode,
    DSMValidator,
    NodeIdentity,
    ValidatorRegistry,
)
from hookprobe.dsm.microblock import parse_block
from hookprobe.errors import (
    ConfigError,
    MalformedError,
    NotFoundError,
    RemoteError,
    UnauthorizedError,
    UnavailableError,
    VerificationError,
)
from hookprobe.runtime.ledger_answers import read_block, show_block
from hookprobe.runtime.local_mesh import LocalMesh, MeshShape
from hookprobe.runtime.webhook_post import Parcel, sign

EVE = Path(__file__).parents[1] / "data/sensors/eve/brute-ssh.eve.json"
SECRET = b"\x07" * 32
SECRET_TEXT = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
WAIT_S = 60.0


def hookprobe(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hookprobe", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.fixture
def siem() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A receiver that checks every signature."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            parcel = Parcel(str(self.headers["webhook-id"]), body)
            wanted = sign(SECRET, parcel, str(self.headers["webhook-timestamp"]))
            fits = self.headers["webhook-signature"] == wanted
            told.append(json.loads(body))
            self.send_response(200 if fits else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, told
    server.shutdown()
    server.server_close()
    thread.join()


def found(folder: Path, port: int) -> LocalMesh:
    more = {"api": {"listen": "127.0.0.1:0"}, "webhooks": {"path": "dsm-webhooks.yaml"}}
    mesh = LocalMesh(folder / "mesh", MeshShape(1, (("edge-1", "acme"),), 500, more))
    for name in ("validator-1", "verifier-1", "edge-1"):
        (mesh.folder / name / "dsm-webhooks.yaml").write_text(
            f"webhooks: [{{id: siem, url: 'http://127.0.0.1:{port}/', allow_private: true,"
            f" events: [checkpoint_finalized, incident_recorded],"
            f" auth: {{type: hmac, secret: '{SECRET_TEXT}'}}}}]"
        )
    return mesh


async def port_of(mesh: LocalMesh, name: str, ports: dict[str, int]) -> int:
    while name not in ports:
        line = await asyncio.wait_for(mesh.lines.get(), WAIT_S)
        assert line.event != "Ended", line
        if line.event == "ApiStarted":
            ports[line.node] = int(str(line.fields["port"]))
    return ports[name]


async def until(reached: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await asyncio.to_thread(reached):
        assert asyncio.get_running_loop().time() < deadline, "in time"
        await asyncio.sleep(0.2)


def look_at(settings: str, port: int, chain: Path) -> None:
    """What an operator and a developer do with a node that runs."""
    made = json.loads(
        hookprobe("token", "create", "-c", settings, "--role", "auditor", "-o", "json")
    )
    client = DSMClient(f"http://127.0.0.1:{port}", token=made["token"], trust=chain)
    blocks = client.get_microblocks("edge-1")
    assert [block["seq"] for block in blocks] == list(range(1, len(blocks) + 1))
    threats = client.query_threat_intel(time_range="1h")
    assert threats
    page: Any = client._fetch("/api/v1/microblocks?event_type=ids_alert")
    block, epoch = page["items"][0]["id"], page["items"][0]["epoch"]
    assert client.verify_block_in_checkpoint(block, epoch) is True
    assert client.verify_block_in_checkpoint(block, epoch + 1) is False
    assert client.verify_history(epoch, epoch + 1) is True
    stranger = DSMClient(f"http://127.0.0.1:{port}", token=made["token"], trust="ab" * 32)
    with pytest.raises(VerificationError):
        stranger.get_checkpoint(0)
    hookprobe("token", "revoke", "-c", settings, made["id"])
    with pytest.raises(UnauthorizedError):
        client.get_checkpoint(0)


def report(folder: Path) -> None:
    """What a program beside an edge does, in the words of the documents."""
    edge = DSMNode("edge-1", folder / "edge-1" / "node.key")
    block = edge.create_microblock(payload=event_fields(), event_type="mitigation")
    assert block["event_type"] == "mitigation"
    alert = edge.create_microblock(payload=event_fields(), event_type="ids_alert")
    assert alert["prev"] == block["id"]
    edge.announce(alert)
    with pytest.raises(NotFoundError):
        DSMNode("validator-1", folder / "validator-1").announce(edge_block_of_nobody(alert))
    wrong: tuple[dict[str, Any], ...] = (
        {"src_ip": "203.0.113.66"},
        event_fields() | {"src_ip": "203.0.113.66"},
        {},
    )
    for payload in wrong:
        with pytest.raises(MalformedError):
            edge.create_microblock(payload=payload, event_type="ids_alert")
    with pytest.raises(MalformedError):
        edge.create_microblock(payload=event_fields(), event_type="enrol")
    with pytest.raises(ConfigError):
        DSMNode("edge-2", folder / "edge-1")


def edge_block_of_nobody(block: dict[str, Any]) -> dict[str, Any]:
    """The same block with another text, and so another id."""
    signed, _ = read_block(block)
    other = parse_block(replace(signed.block, seq=10_000).encode(), signed.signature)
    return show_block(other)


def agree(folder: Path) -> None:
    """Validators, their registry and their engine, in the words of the documents."""
    genesis = folder / "genesis.json"
    validator = DSMValidator("validator-1", folder / "validator-1" / "node.key")
    checkpoint = validator.build_checkpoint(epoch=1)
    checkpoint["ranges_hidden"] = 0
    engine = ConsensusEngine(genesis, quorum_threshold=0.67)
    assert engine.quorum == 1
    assert engine.collect_validator_signatures(checkpoint) == checkpoint
    certificate: Any = checkpoint["certificate"]
    forged = {
        **checkpoint,
        "agg_signature": "00" * 96,
        "certificate": {**certificate, "signature": "00" * 96},
    }
    with pytest.raises(RemoteError):
        engine.collect_validator_signatures(forged)
    with pytest.raises(UnavailableError):
        validator.build_checkpoint(epoch=10**9, timeout_s=0)
    with pytest.raises(UnauthorizedError):
        DSMValidator("edge-1", folder / "edge-1")
    identity = NodeIdentity(folder / "edge-1")
    assert identity.node_id == "edge-1"
    assert identity.attest()["attestation"] == "software-attested"
    registry = ValidatorRegistry(genesis)
    assert list(registry.validators) == ["validator-1"]
    with pytest.raises(UnavailableError):
        registry.apply_for_validator(identity)


def beside(settings: str) -> None:
    """The API as a process of its own, reading while the node writes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hookprobe", "dsm", "api", "-c", settings, "--listen",
         "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stderr.readline())
        assert said, "where it listens"
        base = f"http://127.0.0.1:{said[1]}"
        health = DSMClient(base, token="", trust="ab" * 32)._fetch("/api/v1/health")
        assert health == {"status": "ok", "service": "mssp-cloud", "version": "1.0-Liberty"}
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.communicate()


def test_a_node_seen_from_outside(
    tmp_path: Path, siem: tuple[int, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    for name in [name for name in os.environ if name.startswith("HOOKPROBE_")]:
        monkeypatch.delenv(name)
    port, told = siem
    mesh = found(tmp_path, port)
    settings = str(mesh.folder / "validator-1" / "hookprobe.yaml")
    genesis = mesh.folder / "genesis.json"

    async def live() -> None:
        ports: dict[str, int] = {}
        try:
            await mesh.start(["verifier-1", "validator-1", "edge-1"])
            mesh.feed("edge-1", sample())
            api = await port_of(mesh, "validator-1", ports)
            await until(lambda: {"incident_recorded", "checkpoint_finalized"} <= kinds(told))
            await until(lambda: told[-2:] and not held(told[-1]) and any(map(held, told)))
            await asyncio.to_thread(look_at, settings, api, genesis)
            await asyncio.to_thread(beside, settings)
            await asyncio.to_thread(report, mesh.folder)
            await asyncio.to_thread(agree, mesh.folder)
            (row,) = json.loads(f"[{hookprobe('dsm', 'top', '-c', settings, '--count', '1')}]")
            assert row["state"] == "running"
            assert row["votes_finalize"] > 0
            listed = json.loads(hookprobe("webhook", "list", "-c", settings, "-o", "json"))
            assert [(hook["id"], hook["auth"], hook["dead"]) for hook in listed] == [
                ("siem", "hmac", 0)
            ]
            tested = json.loads(hookprobe("webhook", "test", "siem", "-c", settings, "-o", "json"))
            assert tested["status"] == 200
            hookprobe("webhook", "test", "nobody", "-c", settings, status=3)
            hookprobe("webhook", "replay", "--failed", "-c", settings, status=3)
        finally:
            await mesh.stop()

    asyncio.run(live())
    state = mesh.state_of("validator-1")
    kept = b"".join(path.read_bytes() for path in state.iterdir() if path.is_file())
    assert SECRET_TEXT.encode() not in kept
    epochs = [event["data"]["epoch"] for event in told if event["type"] == "checkpoint_finalized"]
    assert epochs == sorted(dict.fromkeys(epochs)), "each once and in order"


def kinds(told: list[dict[str, Any]]) -> set[str]:
    return {str(event["type"]) for event in told}


def held(event: dict[str, Any]) -> bool:
    """Whether a checkpoint holds more than nothing."""
    return bool(event["data"].get("microblock_count"))


def event_fields() -> dict[str, Any]:
    """A shared event, as another program of the host would make it."""
    start = 1_700_000_000 // 300 * 300 * 1_000_000
    return {
        "v": 1,
        "event_id": "ab" * 32,
        "sensor": "other",
        "severity": "high",
        "category": "malware",
        "signature_id": 1,
        "techniques": [],
        "count": 1,
        "threat_score": 70,
        "window_start": start,
        "window_end": start + 300_000_000,
        "indicators": [],
    }


def sample() -> bytes:
    """Recorded guessing of passwords: incidents."""
    return EVE.read_bytes()

"""Key logs and traces on disk, and a whole node that writes both because it was told to."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.htp.test_htp_keylog import bodies, noted

from hookprobe.cli.inspect import inspect
from hookprobe.config.load import load
from hookprobe.errors import ConfigError, HostError
from hookprobe.htp.effects import Address, DownReason, SessionDown, SessionUp, Transmit
from hookprobe.htp.keylog import NOTICE, KeyRing
from hookprobe.htp.packet import PacketType, encode_header
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keylog import KeyLogFile
from hookprobe.runtime.local_mesh import LocalMesh, MeshShape
from hookprobe.runtime.qlog import RECORD_START, SessionTrace, open_trace
from hookprobe.wire.identifiers import NodeId

PEER, HERE, OTHER = NodeId("validator-1"), Address("192.0.2.1", 4719), Address("192.0.2.2", 4719)


def packet(kind: PacketType, number: int) -> bytes:
    return encode_header(kind, 0, 7, b"8 bytes.", number, 0) + bytes(100)


def events(path: Path) -> list[dict[str, object]]:
    texts = path.read_text(encoding="utf-8").split(RECORD_START)
    assert texts[0] == ""
    assert all(text.endswith("\n") for text in texts[1:])
    return [json.loads(text) for text in texts[1:]]


def test_a_trace_holds_one_peers_packets_and_no_address(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlog"
    trace = SessionTrace(path, PEER, Clock())
    trace.received([(packet(PacketType.DATA, 1), HERE)])  # no session yet
    trace.report(SessionUp(NodeId("validator-2"), OTHER, True, 2))
    trace.report(SessionUp(PEER, HERE, True, 2))
    trace.sent(Transmit(HERE, packet(PacketType.DATA, 5)))
    trace.sent(Transmit(OTHER, packet(PacketType.DATA, 6)))
    trace.received([(packet(PacketType.ACK, 9), HERE), (b"noise", HERE), (b"", OTHER)])
    trace.report(SessionDown(PEER, DownReason.SILENT))
    trace.sent(Transmit(HERE, packet(PacketType.DATA, 7)))
    trace.close()
    head, *found = events(path)
    assert head["serialization_format"] == "application/qlog+json-seq"
    assert [one["name"] for one in found] == [
        "htp:session_started",
        "htp:packet_sent",
        "htp:packet_received",
        "htp:packet_received",
        "htp:session_ended",
    ]
    data = found[1]["data"]
    assert isinstance(data, dict)
    assert data["header"]["packet_type"] == "data"
    assert (data["header"]["packet_number"], data["raw"]["length"]) == (5, 132)
    assert "192.0.2" not in path.read_text()


def test_a_trace_needs_a_peer_and_a_place(tmp_path: Path) -> None:
    config = load(None, {}, {"htp.qlog": str(tmp_path / "x")})
    with pytest.raises(ConfigError, match=r"htp\.qlog_peer"):
        open_trace(config, Clock())
    with pytest.raises(HostError):
        SessionTrace(tmp_path / "no/such/folder", PEER, Clock())
    assert open_trace(load(None, {}, {}), Clock()) is None


def test_a_key_log_is_for_its_owner_only_and_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    for _ in range(2):
        log = KeyLogFile(path)
        log.note(b"8 bytes.", b"k" * 32, b"salt")
        log.close()
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert text.startswith(NOTICE)
    assert text.count(NOTICE) == 1
    assert text.count("HTP2") == 2
    path.chmod(0o644)
    with pytest.raises(HostError, match="others may read it"):
        KeyLogFile(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(HostError):
        KeyLogFile(link)


def test_inspect_opens_packets_with_a_key_log(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    log = KeyLogFile(path)
    log.note(b"8 bytes.", b"k" * 32, b"salt")
    log.close()
    digits = packet(PacketType.DATA, 3).hex()
    done = CliRunner().invoke(inspect, [digits, "--keys", str(path), "--json"])
    assert done.exit_code == 0
    assert "none of its 1 keys opens this packet" in done.output


def test_inspect_opens_handshakes_with_a_key_log(tmp_path: Path) -> None:
    world, _, _, pages = noted("validator")
    (attest,) = bodies(world, PacketType.ATTEST)
    path = tmp_path / "keys.txt"
    path.touch(0o600)
    path.write_text(pages.text)
    words = ["--keys", str(path), "--json"]
    done = CliRunner().invoke(inspect, [attest.hex(), *words])
    assert {row["field"]: row["value"] for row in json.loads(done.output)}["node_id"] == "edge-1"
    done = CliRunner().invoke(inspect, [attest.hex()[:-2] + "00", *words])
    assert "keys opens this packet" in done.output
    assert "edge-1" not in done.output
    path.chmod(0o644)
    assert CliRunner().invoke(inspect, [attest.hex(), *words]).exit_code != 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_node_writes_them_because_it_was_told_to(tmp_path: Path) -> None:
    async def story() -> None:
        shape = MeshShape(1, (("edge-a", "tenant-a"),), 1000, {})
        mesh = LocalMesh(tmp_path / "mesh", shape)
        orders = {"keylog": "keys.txt", "qlog": "trace.sqlog", "qlog_peer": "validator-1"}
        mesh.change_settings("edge-a", {"htp": orders})
        await mesh.start(["validator-1", "verifier-1", "edge-a"])
        try:
            warned, peers = False, set[object]()
            while not (warned and len(peers) == 2):
                line = await asyncio.wait_for(mesh.lines.get(), 30)
                warned |= line.event == "KeysWrittenDown" and line.fields["level"] == "warning"
                if (line.node, line.event) == ("edge-a", "LevelChanged"):
                    peers.add(line.fields["peer"])
            await asyncio.sleep(2.5)
        finally:
            await mesh.stop()
        folder = tmp_path / "mesh/edge-a"
        assert len(KeyRing((folder / "keys.txt").read_text())) >= 4
        names = [one.get("name") for one in events(folder / "trace.sqlog")]
        assert {"htp:packet_sent", "htp:packet_received", "htp:metrics_updated"} <= set(names)
        assert not (tmp_path / "mesh/validator-1/keys.txt").exists()
        status = json.loads((folder / "state/status.json").read_text())
        assert {one["peer"] for one in status["sessions"]} == {"validator-1", "verifier-1"}
        assert "127.0.0.1" not in json.dumps(status["sessions"])

    asyncio.run(story())

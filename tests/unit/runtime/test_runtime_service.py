"""From the operator's settings to the sensors and rooms of a node."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.node.mesh import SETTINGS, START, MemoryMesh

from hookprobe.config.load import Config, load
from hookprobe.detection.event import Format
from hookprobe.detection.pipeline import LineRefused
from hookprobe.errors import HostError
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.node.build import Documents, Parts, build_edge
from hookprobe.node.observations import IncidentRecorded
from hookprobe.runtime.service import header_of, sensors_of, settings_of
from hookprobe.runtime.udp import UdpSocket

ZEEK_HEAD = b"""#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\torig_pkts\tresp_pkts
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tcount\tcount
"""


def settings(folder: Path, text: str) -> Config:
    (folder / "hookprobe.yaml").write_text(text, encoding="utf-8")
    return load(folder / "hookprobe.yaml", {}, {})


def test_sensor_files_know_their_format(tmp_path: Path) -> None:
    (tmp_path / "conn.log").write_bytes(ZEEK_HEAD)
    (tmp_path / "dns.log").write_bytes(b'{"ts":1}\n')
    config = settings(
        tmp_path,
        "sensors: {suricata: [eve.json], zeek: [conn.log, dns.log, ssl.log]}\n",
    )
    found = sensors_of(config)
    assert {Path(path).name: (item.format, item.log) for path, item in found.items()} == {
        "eve.json": (Format.EVE, ""),
        "conn.log": (Format.ZEEK_TSV, "conn"),
        "dns.log": (Format.ZEEK_JSON, "dns"),
        "ssl.log": (Format.ZEEK_TSV, "ssl"),
    }


def test_settings_reach_their_rooms(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        "dsm: {view_timeout_ms: 900, propose_grace_ms: 20, quorum_alarm_ms: 700}\n"
        "htp: {retry_initial_ms: 300}\n"
        "sensors: {home_networks: ['198.51.100.0/24'], idle_ms: 1500}\n",
    )
    rooms = settings_of(config)
    assert rooms.ledger.view_timeout_us == 900_000
    assert rooms.ledger.cut_grace_us == 20_000
    assert rooms.ledger.quorum_alarm_us == 700_000
    assert rooms.transport.retry_initial_us == 300_000
    assert not rooms.transport.answering  # an edge dials, nobody dials it
    assert rooms.detection.home_networks == ("198.51.100.0/24",)
    assert rooms.detection.incidents.idle_us == 1_500_000


def test_the_transport_takes_as_many_peers_as_the_ledger(tmp_path: Path) -> None:
    rooms = settings_of(settings(tmp_path, "dsm: {gossip: {max_peers: 90000}}\n"))
    assert rooms.transport.peers_max == rooms.ledger.edges_max + 128 == 90_128
    rooms = settings_of(settings(tmp_path, "dsm: {gossip: {max_peers: 7}}\n"))
    assert rooms.transport.peers_max == HtpConfig().peers_max


def test_a_scan_in_zeeks_log_becomes_a_block(tmp_path: Path) -> None:
    (tmp_path / "conn.log").write_bytes(ZEEK_HEAD)
    sensors = sensors_of(settings(tmp_path, "sensors: {zeek: [conn.log]}\n"))
    (path,) = sensors
    mesh = MemoryMesh(("edge-a",))
    enrolled = mesh.enrolled("edge-a")
    documents = Documents(
        enrolled.secrets, enrolled.enrolment, mesh.mesh.genesis.encode(), mesh.mesh.directory
    )
    host = mesh.hosts["edge-a"]
    parts = Parts(host.store, mesh.random_bytes, mesh.now)
    host.node = build_edge(documents, SETTINGS, parts, sensors)
    mesh.execute(host, host.node.start(mesh.now))
    mesh.run(3)
    second = START // 1_000_000 - 100
    rows = "".join(
        f"{second + port / 1000:.6f}\tC{port}\t203.0.113.66\t40000\t10.1.0.20\t{port}\ttcp"
        "\t-\t-\t-\t-\tREJ\t1\t1\n"
        for port in range(1, 400)
    )
    # As after a restart in the middle of the file: the header is read again, then what is new.
    mesh.execute(host, host.edge.receive_preamble(path, ZEEK_HEAD, mesh.now))
    mesh.execute(host, host.edge.receive_bytes(path, rows.encode(), mesh.now))
    assert host.of(LineRefused) == []
    mesh.run(1)
    assert [item.title for item in host.of(IncidentRecorded)] == ["Vertical port scan"]


def test_a_logs_header_is_found_again(tmp_path: Path) -> None:
    log = tmp_path / "conn.log"
    log.write_bytes(ZEEK_HEAD + b"1.0\tC1\n" * 5)
    assert header_of(log) == ZEEK_HEAD
    log.write_bytes(b'{"ts":1}\n')
    assert header_of(log) == b""
    assert header_of(tmp_path / "none.log") == b""


def test_an_address_that_cannot_be_bound_is_named() -> None:
    first = UdpSocket(Address("127.0.0.1", 0))
    try:
        with pytest.raises(HostError, match=r"cannot listen on 127\.0\.0\.1") as caught:
            UdpSocket(first.address)
        assert "another process" in caught.value.hint
    finally:
        loop = asyncio.new_event_loop()
        first.close(loop)
        loop.close()


def test_a_node_loads_nothing_large_that_only_others_need() -> None:
    rare = ("cryptography.x509", "email.utils", "http.server", "tempfile", "numba", "redis")
    code = (
        "import sys, hookprobe.cli.run, hookprobe.runtime.service;"
        f"print([name for name in {rare} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

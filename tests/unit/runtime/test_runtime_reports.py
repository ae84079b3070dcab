"""What a node writes down about itself, and what it does not."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.unit.neuro.paper_tpm import PaperTpm
from tests.unit.node.mesh import VERIFIER, MemoryMesh
from tests.unit.node.test_node_machines import with_tpm
from tests.unit.node.test_node_neuro import EDGE, WATCHED

from hookprobe.cli.leaks import addresses_in, search
from hookprobe.cli.output import Exit
from hookprobe.cli.status import judge
from hookprobe.detection.address import Address, parse_address
from hookprobe.detection.attack import Category
from hookprobe.detection.event import Severity
from hookprobe.detection.incident import Incident, IncidentOpened
from hookprobe.dsm.effects import CheckpointFinalized, QuorumLost
from hookprobe.errors import HostError, MalformedError
from hookprobe.htp import effects as transport
from hookprobe.node.host import FileNode
from hookprobe.node.observations import MessageSent, Observation
from hookprobe.runtime import egress, status
from hookprobe.runtime.logs import JsonLog, Level
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, Instant

SOURCE = parse_address("203.0.113.66")
INCIDENT = Incident(
    key="ab" * 32,
    sensor="suricata",
    title="Vertical port scan",
    category=Category.RECONNAISSANCE,
    severity=Severity.MEDIUM,
    techniques=("T1046",),
    signature_id=1,
    count=5,
    first_seen=Instant(1),
    last_seen=Instant(2),
    window_start=Instant(0),
    window_end=Instant(3),
    source=SOURCE,
    hostile=SOURCE,
    hostile_domain="",
    targets=(),
    supporting=(),
)
PEER = NodeId("validator-1")


def logged(observation: Observation, least: Level) -> list[dict[str, object]]:
    lines: list[str] = []
    JsonLog(lines.append, lambda: Instant(0), least).report(observation)
    return [json.loads(line) for line in lines]


def test_raw_addresses_appear_in_debug_logs_only() -> None:
    opened = IncidentOpened(INCIDENT)
    assert logged(opened, Level.INFO) == []
    (line,) = logged(opened, Level.DEBUG)
    assert line["incident"] == {"key": "ab" * 32, "source": "203.0.113.66", "count": 5}
    up = transport.SessionUp(PEER, transport.Address("198.51.100.7", 4719), True, 2)
    assert "198.51.100.7" not in json.dumps(logged(up, Level.INFO))
    assert "198.51.100.7" in json.dumps(logged(up, Level.DEBUG))


def test_messages_are_never_logged_in_full() -> None:
    sent = MessageSent(PEER, 2, b"\x01" * 500)
    (line,) = logged(sent, Level.TRACE)
    assert line["data"] == "01" * 8


def test_bytes_are_shortened_and_times_are_utc() -> None:
    final = CheckpointFinalized(7, 3, 3, b"\xaa" * 32, 21_000)
    (line,) = logged(final, Level.INFO)
    assert line["header_hash"] == "aa" * 8
    assert (line["at"], line["event"]) == ("1970-01-01T00:00:00.000000Z", "CheckpointFinalized")


def test_the_status_follows_the_node(tmp_path: Path) -> None:
    board = status.StatusBoard(NodeId("edge-1"), "edge", 4)
    board.report(transport.SessionUp(PEER, transport.Address("h", 1), True, 2))
    board.report(CheckpointFinalized(7, 3, 3, b"", 1))
    status.write(tmp_path, board.document(Instant(5), 99))
    shown = status.read(tmp_path)
    assert (shown["peers"], shown["last_epoch"], shown["at"]) == (["validator-1"], 7, 5)
    board.report(QuorumLost(8, 2, 3))
    board.report(transport.SessionDown(PEER, transport.DownReason.SILENT))
    shown = board.document(Instant(6), 99)
    assert shown["quorum_lost"] is True
    assert shown["peers"] == []


def test_a_status_is_judged() -> None:
    healthy = {"peers": ["v"], "validators": 4, "quorum_lost": False}
    assert judge(healthy, 0) is Exit.OK
    assert judge({**healthy, "quorum_lost": True}, 0) is Exit.DEGRADED
    assert judge({**healthy, "peers": []}, 0) is Exit.DEGRADED
    assert judge(healthy, status.STALE_US + 1) is Exit.UNREACHABLE


def test_a_missing_or_broken_status_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no status"):
        status.read(tmp_path)
    for broken in (b"{", b"[]", b"\xff"):
        (tmp_path / status.STATUS_FILE).write_bytes(broken)
        with pytest.raises(MalformedError):
            status.read(tmp_path)


def record(path: Path, *entries: tuple[int, bytes]) -> Path:
    writer = egress.EgressRecord(path)
    for kind, data in entries:
        writer.add(kind, data)
    writer.close()
    return path


def test_the_egress_record_keeps_what_left_and_survives_a_cut(tmp_path: Path) -> None:
    path = record(tmp_path / "e", (egress.MESSAGE, b"plain"), (egress.DATAGRAM, b"sealed"))
    assert list(egress.read(path)) == [(1, b"plain"), (2, b"sealed")]
    path.write_bytes(path.read_bytes()[:-1])
    assert list(egress.read(path)) == [(1, b"plain")]


@pytest.mark.parametrize(
    ("kind", "data", "found"),
    [
        (egress.MESSAGE, b"x 203.0.113.66 y", True),
        (egress.MESSAGE, b"x" + SOURCE.packed + b"y", True),
        (egress.MESSAGE, SOURCE.packed.hex().upper().encode(), True),
        (egress.DATAGRAM, b"203.0.113.66", True),
        (egress.DATAGRAM, SOURCE.packed, False),
        (egress.MESSAGE, b"203.0.113.6", False),
    ],
)
def test_a_leak_would_be_found(tmp_path: Path, kind: int, data: bytes, found: bool) -> None:
    output = b'{"src_ip":"203.0.113.66","dest_ip":"0.0.0.0","ip":"nonsense"}\n'
    addresses = addresses_in(output)
    assert addresses == ["203.0.113.66"]
    size, leaked = search(record(tmp_path / "e", (kind, data)), addresses)
    assert bool(leaked) is found
    assert size == (len(data) if kind == egress.DATAGRAM else 0)


def test_an_address_does_not_show_itself() -> None:
    assert "203" not in repr(Address(SOURCE.packed))


def labels(mesh: MemoryMesh, node: FileNode, at: Instant | None = None) -> dict[str, object]:
    board = status.StatusBoard(NodeId("n"), "", 4)
    board.labels = partial(status.labels_of, node)
    shown = board.document(at or mesh.now, 0)
    return {name: shown[name] for name in shown if name.startswith(("attest", "devices"))}


def test_a_status_says_what_a_verifier_says_of_the_tpm_and_while_it_says_so() -> None:
    mesh = with_tpm(PaperTpm())
    validator, verifier = mesh.hosts[WATCHED].validator, mesh.hosts[VERIFIER]
    software = {"attestation": "software-attested"}
    assert labels(mesh, mesh.hosts["edge-a"].edge) == software
    counted = {"devices_resonant": 1, "devices_tpm_attested": 0}
    assert labels(mesh, validator) == software | counted
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.vouch(EDGE, mesh.now), mesh.now))
    mesh.run(3)
    tpm = {"attestation": "tpm-attested"}
    assert labels(mesh, mesh.hosts["edge-a"].edge) == tpm
    assert labels(mesh, validator) == tpm | counted | {"devices_tpm_attested": 1}
    for name in ("edge-a", WATCHED):
        mesh.crash(name)
        mesh.boot(name)
    assert labels(mesh, mesh.hosts["edge-a"].edge) == tpm, "the last word is remembered"
    assert labels(mesh, mesh.hosts[WATCHED].validator)["devices_resonant"] == 1
    later = Instant(mesh.now + 24 * HOUR)
    assert labels(mesh, mesh.hosts["edge-a"].edge, later) == software, "run out, so it is none"
    assert labels(mesh, mesh.hosts[WATCHED].validator, later)["devices_resonant"] == 0

"""The commands a newcomer types, as a newcomer types them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVE = ROOT / "tests/data/sensors/eve"
PCAP = ROOT / "tests/data/pcap"


def hookprobe(*arguments: str, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hookprobe", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stderr[-3000:]}"
    return done


def node_processes(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and process.name != str(os.getpid()):
            found.append(command.decode(errors="replace"))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demonstration_tells_what_it_saw(tmp_path: Path) -> None:
    done = hookprobe("demo", "--folder", str(tmp_path / "demo"), cwd=tmp_path)
    events = [json.loads(line) for line in done.stdout.splitlines()]

    incidents = {(event["edge"], event["title"]) for event in events if event["kind"] == "incident"}
    assert ("clinic", "Vertical port scan") in incidents
    assert ("harbour", "Periodic connections (beacon)") in incidents
    assert ("bakery", "Password guessing") in incidents
    assert "school" in {edge for edge, _ in incidents}
    assert "library" not in {edge for edge, _ in incidents}

    texts = [event["text"] for event in events if "text" in event]
    assert any("FAIL, line" in text and "payload" in text for text in texts)
    assert any(text.startswith("second verifier") and "VERIFIED" in text for text in texts)
    assert any(text.startswith("second verifier") and "FAIL" in text for text in texts)
    assert any("quorum lost" in text for text in texts)
    assert texts[-3].startswith("all of it is in") or any("no process is left" in t for t in texts)

    sites, mesh = (event["rows"] for event in events if event["kind"] == "table")
    assert [site["addresses left"] for site in sites] == [0] * 5
    assert all(site["addresses in"] > 0 and site["bytes left"] > 0 for site in sites)
    assert all(site["proven"] == site["blocks"] > 0 for site in sites)
    assert mesh[0]["raw addresses left"] == 0
    assert 0 < mesh[0]["finality p50 ms"] <= mesh[0]["finality p99 ms"]

    assert node_processes(tmp_path) == []
    assert [item.name for item in tmp_path.iterdir()] == ["demo"]


def test_the_demonstration_replaces_only_itself(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    done = hookprobe("demo", "--folder", "mine", cwd=tmp_path, status=4)
    assert "not an earlier demonstration" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.slow
def test_replay_of_sensor_output_ends_in_verified_evidence(tmp_path: Path) -> None:
    bundle = tmp_path / "evidence.hpe"
    source = EVE / "dns-tunnel-iodine.eve.json.gz"
    done = hookprobe("replay", str(source), "--evidence", str(bundle), cwd=tmp_path)
    tables = [json.loads(line) for line in done.stdout.splitlines() if '"table"' in line]
    (incident,) = tables[0]["rows"]
    assert incident["incident"] == "Data carried in DNS names"
    assert incident["source"] == "10.1.0.20"
    assert tables[1]["rows"][0]["raw addresses left"] == 0

    report = json.loads(hookprobe("verify", str(bundle), cwd=tmp_path).stdout)
    assert report["result"] == "VERIFIED"
    forged = bundle.read_bytes().replace(b'"view":1', b'"view":2', 1)
    (tmp_path / "forged.hpe").write_bytes(forged)
    done = hookprobe("verify", "forged.hpe", cwd=tmp_path, status=1)
    assert json.loads(done.stdout)["result"] == "FAIL"
    assert "certificate of epoch" in done.stderr
    assert "10.1.0.20" not in bundle.read_text(encoding="utf-8")


@pytest.mark.slow
def test_replay_of_a_packet_capture(tmp_path: Path) -> None:
    if shutil.which("suricata") is None:
        pytest.skip("suricata is not installed")
    done = hookprobe("replay", str(PCAP / "brute-ftp.pcap"), cwd=tmp_path)
    tables = [json.loads(line) for line in done.stdout.splitlines() if '"table"' in line]
    assert [row["incident"] for row in tables[0]["rows"]] == ["Password guessing"]


def test_replay_without_suricata_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hookprobe", "replay", str(PCAP / "brute-ftp.pcap")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Suricata" in done.stderr
    assert "apt-get install suricata" in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello\n", "neither a packet capture nor EVE"),
        (b"", "neither a packet capture nor EVE"),
        (b"\x1f\x8b\x08broken", "gzip"),
    ],
)
def test_replay_of_something_else(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert says in hookprobe("replay", "file", cwd=tmp_path, status=1).stderr


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert "no such file" in hookprobe("replay", "none", cwd=tmp_path, status=2).stderr


def test_founding_enrolling_and_checking(tmp_path: Path) -> None:
    hookprobe("init", "mesh", "m", "--edge", "edge-a@acme", cwd=tmp_path)
    hookprobe("init", "edge", "e", "--mesh", "m", "--name", "edge-b", cwd=tmp_path)
    assert (tmp_path / "m/authority.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "e/node.key").stat().st_mode & 0o777 == 0o600
    again = hookprobe(
        "init", "edge", "f", "--mesh", "m", "--name", "edge-b", cwd=tmp_path, status=2
    )
    assert "already enrolled" in again.stderr
    again = hookprobe("init", "mesh", "m", cwd=tmp_path, status=1)
    assert "not empty" in again.stderr
    hookprobe("config", "check", "-c", "e/hookprobe.yaml", cwd=tmp_path)
    (tmp_path / "e/hookprobe.yaml").write_text("dsm: {node: {id: BAD}}\nx: 1\n", encoding="utf-8")
    wrong = hookprobe("config", "check", "-c", "e/hookprobe.yaml", cwd=tmp_path, status=2)
    assert "dsm.node.id" in wrong.stderr
    assert "x: no such key" in wrong.stderr


def test_a_node_refuses_keys_that_others_can_read(tmp_path: Path) -> None:
    hookprobe("init", "mesh", "m", "--edge", "edge-a", cwd=tmp_path)
    (tmp_path / "m/edge-a/node.key").chmod(0o644)
    done = hookprobe("edge", "run", "-c", "m/edge-a/hookprobe.yaml", cwd=tmp_path, status=1)
    assert "chmod 600" in done.stderr


def test_a_node_runs_in_its_own_role_only(tmp_path: Path) -> None:
    hookprobe("init", "mesh", "m", cwd=tmp_path)
    settings = "m/validator-1/hookprobe.yaml"
    done = hookprobe("edge", "run", "-c", settings, cwd=tmp_path, status=2)
    assert "hookprobe validator run" in done.stderr


def test_status_of_a_node_that_never_ran(tmp_path: Path) -> None:
    hookprobe("init", "mesh", "m", cwd=tmp_path)
    done = hookprobe("status", "-c", "m/validator-1/hookprobe.yaml", cwd=tmp_path, status=1)
    assert "ever been started" in done.stderr


def test_packets_are_explained(tmp_path: Path) -> None:
    rows = json.loads(hookprobe("inspect", "0002 0001", cwd=tmp_path).stdout)
    assert rows[0]["field"] == "version"
    assert "pairs of hex" in hookprobe("inspect", "xyz", cwd=tmp_path, status=2).stderr


def test_a_simulation_from_the_command_line(tmp_path: Path) -> None:
    told = json.loads(hookprobe("simulate", "--seeds", "3", cwd=tmp_path).stdout)
    assert told["failed"] == []
    assert told["epochs"] > 0


def test_every_command_explains_itself(tmp_path: Path) -> None:
    listed = hookprobe("--help", cwd=tmp_path).stdout
    for command in (
        "config", "demo", "edge", "evidence", "init", "inspect", "replay", "simulate", "status",
        "validator", "verify",
    ):  # fmt: skip
        assert command in listed
        assert "Usage:" in hookprobe(command, "--help", cwd=tmp_path).stdout


def test_forms_of_output(tmp_path: Path) -> None:
    as_json = hookprobe("config", "show", "--json", cwd=tmp_path).stdout
    assert as_json == hookprobe("config", "show", cwd=tmp_path).stdout  # no terminal: JSON
    rows = json.loads(as_json)
    lines = hookprobe("config", "show", "-o", "jsonl", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = hookprobe("--no-color", "config", "show", "-o", "table", cwd=tmp_path).stdout
    assert table.splitlines()[0].split() == ["KEY", "VALUE", "FROM", "ABOUT"]
    assert "\x1b" not in table
    assert "- key: profile" in hookprobe("config", "show", "-o", "yaml", cwd=tmp_path).stdout
    hookprobe("config", "show", "-o", "xml", cwd=tmp_path, status=2)


def test_a_node_goes_on_when_nobody_reads_its_log(tmp_path: Path) -> None:
    hookprobe("init", "mesh", "m", "--port", "20400", cwd=tmp_path)
    settings = tmp_path / "m/validator-1/hookprobe.yaml"
    command = [sys.executable, "-m", "hookprobe", "validator", "run", "-c", str(settings)]
    with subprocess.Popen(
        [*command, "--log-level", "trace"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        assert b"Started" in node.stdout.readline()
        node.stdout.close()
        with pytest.raises(subprocess.TimeoutExpired):
            node.wait(timeout=2)
        node.terminate()
        assert node.wait(timeout=10) == 0, node.stderr.read()

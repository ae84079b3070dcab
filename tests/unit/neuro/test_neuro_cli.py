"""`hookprobe neuro`, typed as a person would."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.neuro.neuro_mesh import batch_of, history

from hookprobe.cli.main import program
from hookprobe.crypto.signing import Ed25519
from hookprobe.errors import ConfigError, HostError, MalformedError
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.node.resonance import device_state
from hookprobe.runtime import folders
from hookprobe.runtime.keystore import load_secrets
from hookprobe.runtime.neuro_device import DeviceStore
from hookprobe.runtime.openings import Openings
from hookprobe.runtime.sqlite_store import SqliteStore

OLD, NEW = "cd" * 20, "ab" * 20


def typed(*words: object) -> str:
    result = CliRunner().invoke(program, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neuro") / "mesh"
    typed("init", "mesh", folder, "--validators", 1, "--edge", "edge-1")
    return folder


def one(*words: object) -> dict[str, Any]:
    found = json.loads(typed(*words))
    assert isinstance(found, dict)
    return found


def test_a_history_is_recorded_shown_and_replayed(mesh: Path) -> None:
    config = mesh / "edge-1/hookprobe.yaml"
    assert one("neuro", "status", "-c", config)["records"] == 0
    first = one("neuro", "capture", "-c", config, "--record")
    second = one("neuro", "capture", "-c", config, "--record")
    assert (first["records"], second["records"]) == (1, 2)
    assert first["w_fingerprint"] != second["w_fingerprint"]
    shown = one("neuro", "status", "-c", config)
    assert (shown["records"], shown["attestation"]) == (2, "software-attested")
    for backend in ("pure", "numpy", "numba"):
        again = one("neuro", "replay", "-c", config, "--backend", backend)
        assert again["w_fingerprint"] == second["w_fingerprint"]
        assert again["replayed"] == 2
    state = mesh / "edge-1/state"
    opening = Openings(state).find(0, 1)
    assert opening is not None
    assert Openings(state).find(0, 2) is None


def test_looking_does_not_touch_the_log(mesh: Path) -> None:
    config, log = mesh / "edge-1/hookprobe.yaml", mesh / "edge-1/state/ter.log"
    typed("neuro", "capture", "-c", config, "--record")
    log.write_bytes(log.read_bytes() + b"half a record, being written")
    before = log.read_bytes()
    typed("neuro", "status", "-c", config)
    typed("neuro", "replay", "-c", config)
    assert log.read_bytes() == before


def test_no_record_is_made_beside_a_running_node(mesh: Path) -> None:
    config = mesh / "edge-1" / "hookprobe.yaml"
    running = SqliteStore(mesh / "edge-1" / "state")
    with pytest.raises(HostError, match="in use by another"):
        typed("neuro", "capture", "-c", config, "--record")
    running.close()
    one("neuro", "capture", "-c", config, "--record")


def test_capture_measures_without_recording(mesh: Path) -> None:
    config = mesh / "edge-1/hookprobe.yaml"
    before = one("neuro", "status", "-c", config)
    found = one("neuro", "capture", "-c", config)
    assert re.fullmatch("[0-9a-f]{40}", found["h_integrity"])
    assert found["attestation"] == "software-attested"
    assert one("neuro", "status", "-c", config) == before


def test_a_measurement_is_accepted(mesh: Path) -> None:
    config = mesh / "edge-1/hookprobe.yaml"
    measured = one("neuro", "capture", "-c", config)["h_integrity"]
    assert one("neuro", "baseline", "accept", "-c", config)["golden"] == measured
    typed("neuro", "baseline", "accept", "-c", config, "--measurement", OLD)
    kept = json.loads((mesh / "edge-1/state/neuro.baseline").read_bytes())
    assert kept == {"golden": OLD, "pending": [], "version": 0}
    with pytest.raises(ConfigError, match="40 hex"):
        typed("neuro", "baseline", "accept", "-c", config, "--measurement", "abc")


def test_a_manifest_is_signed_by_the_authority(mesh: Path, tmp_path: Path) -> None:
    out = tmp_path / "update.json"
    typed(
        "neuro", "manifest", "sign", out, "--authority", mesh, "--version", 3,
        "--measurement", NEW, "--replaces", OLD, "--from", "2026-01-01T00:00:00Z",
    )  # fmt: skip
    key = folders.read_authority(mesh).signer().public_key
    update = manifests.open_manifest(out.read_bytes(), [key], Ed25519())
    assert (update.version, update.h_integrity.hex()) == (3, NEW)
    assert [old.hex() for old in update.replaces] == [OLD]


def test_records_and_batches_are_explained() -> None:
    records = history(3)
    batch = batch_of(records, 1, b"n" * 16)
    rows = json.loads(typed("neuro", "explain", batch.encode().hex()))
    assert [(row["index"], row["sequence"]) for row in rows] == [(1, 1), (2, 2)]
    (row,) = json.loads(typed("neuro", "explain", records[0].encode().hex()))
    assert row["h_integrity"] == records[0].h_integrity.hex()
    assert row["crc_for_next"] == f"{records[1].chain:04x}"
    (row,) = json.loads(typed("neuro", "explain", "ff" * 64))
    assert row["time"].endswith(" us")
    with pytest.raises(ConfigError):
        typed("neuro", "explain", "xyz")
    with pytest.raises(MalformedError):
        typed("neuro", "explain", "00" * 65)


def test_the_plot_shows_when_histories_part(tmp_path: Path) -> None:
    out = tmp_path / "plot.svg"
    typed("neuro", "plot", out, "--records", 30, "--tampered", 10, "--backend", "numpy")
    text = out.read_text(encoding="utf-8")
    points = re.findall(r'points="([^"]+)"', text)[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(heights) == 30
    assert heights[:10] == [heights[0]] * 10
    assert all(height < heights[0] for height in heights[10:])
    with pytest.raises(ConfigError, match="below"):
        typed("neuro", "plot", out, "--records", 5, "--tampered", 5)


def test_log_and_snapshot_of_different_histories_are_refused(mesh: Path, tmp_path: Path) -> None:
    from hookprobe.errors import VerificationError
    from hookprobe.neuro.backends.pure_engine import PureEngine
    from hookprobe.neuro.effects import AppendRecord, SaveSnapshot, TrimLog
    from hookprobe.neuro.snapshot import encode

    ours = load_secrets(mesh / "edge-1")
    store = DeviceStore(tmp_path)
    store.open(ours, PureEngine)
    records = history(3)
    for index, record in enumerate(records):
        store.execute(AppendRecord(0, index, record))
    state = device_state(ours, 0, PureEngine)
    state.advance(records[:2])
    store.execute(SaveSnapshot(0, 2, encode(Snapshot(0, state))))
    start, left = DeviceStore(tmp_path).open(ours, PureEngine)
    assert (start.state.count, left) == (2, (records[2],))
    other = device_state(ours, 0, PureEngine)
    other.advance([records[0], *history(2, {1: b"e" * 20})[1:]])
    store.execute(SaveSnapshot(0, 2, encode(Snapshot(0, other))))
    with pytest.raises(VerificationError, match="different"):
        DeviceStore(tmp_path).open(ours, PureEngine)
    store.execute(TrimLog(0, 2))
    store.execute(SaveSnapshot(1, 0, encode(Snapshot(1, device_state(ours, 1, PureEngine)))))
    assert DeviceStore(tmp_path).open(ours, PureEngine)[1] == ()


def test_openings_are_forgotten_after_thirty_days(tmp_path: Path) -> None:
    from hookprobe.neuro.measurement import Counters, Opening
    from hookprobe.wire.instant import DAY, Instant

    kept = Openings(tmp_path)
    opening = Opening(b"s" * 16, Counters(cpu_busy=1))
    for day in (0, 1, 31):
        kept.keep(0, day, opening, Instant(day * DAY))
    assert kept.find(0, 0) is None
    assert kept.find(0, 1) == kept.find(0, 31) == opening.encode()
    assert kept.find(1, 31) is None


def test_a_device_checks_itself_against_its_baseline(tmp_path: Path) -> None:
    typed("init", "mesh", tmp_path / "m", "--validators", 1, "--edge", "edge-1")
    config = tmp_path / "m/edge-1/hookprobe.yaml"
    with pytest.raises(ConfigError, match="no baseline"):
        typed("neuro", "check", "-c", config)
    typed("neuro", "baseline", "accept", "-c", config)
    assert json.loads(typed("neuro", "check", "-c", config)) == []
    typed("neuro", "capture", "-c", config, "--record")
    (row,) = json.loads(typed("neuro", "check", "-c", config))
    assert (row["verdict"], row["records"]) == ("resonant", 1)
    # The configuration is changed, and the agent says so.
    config.write_text(config.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    typed("neuro", "capture", "-c", config, "--record")
    result = CliRunner().invoke(program, ["neuro", "check", "-c", str(config)])
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)
    assert (row["verdict"], row["first_bad"]) == ("tamper-reported", 1)
    assert row["attestation"] == "software-attested"


def test_hardware_is_compared_without_showing_it(mesh: Path, tmp_path: Path) -> None:
    config, kept = mesh / "edge-1/hookprobe.yaml", tmp_path / "hardware.json"
    typed("neuro", "hardware", "-c", config, "--save", kept)
    found = one("neuro", "hardware", "-c", config, "--against", kept)
    nothing = not any(found[name] for name in ("serial", "macs", "disks", "machine-id", "model"))
    assert found["match"] == ("other" if nothing else "same")

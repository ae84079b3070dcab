"""What is shipped for servers is checked with the tools that will read it."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hookprobe.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
EXPOSURE_MAX = {"dsm-api": 1.5, "dsm-node": 2.0, "dsm-validator": 1.5, "neuro-verifier": 1.5}
OWN_SERVICE_KEYS = {"ExecStart", "MemoryMax"}  # in which a verifier may differ from a validator


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_the_roles_of_the_documents_have_units() -> None:
    names = [unit.stem for unit in UNITS]
    aliases = [
        alias
        for unit in UNITS
        for alias in re.findall(r"^Alias=([\w-]+)\.service$", unit.read_text(), re.MULTILINE)
    ]
    wanted = ["dsm-api", "dsm-consensus", "dsm-node", "dsm-validator", "neuro-verifier"]
    assert sorted(names + aliases) == wanted


def service_keys(name: str) -> dict[str, list[str]]:
    """Return what stands under [Service], values of a repeated key in order."""
    text = (ROOT / "deploy/systemd" / f"{name}.service").read_text(encoding="utf-8")
    section = text.partition("[Service]\n")[2].partition("\n[Install]")[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_a_verifier_is_confined_like_a_validator() -> None:
    ours, theirs = service_keys("neuro-verifier"), service_keys("dsm-validator")
    assert {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)} == (
        OWN_SERVICE_KEYS
    )
    assert ours["ExecStart"] == ["/usr/bin/env hookprobe verifier run -c /etc/hookprobe/dsm.yaml"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_a_unit_is_right_and_runs_a_command_there_is(unit: Path) -> None:
    said = analyze("verify", "--recursive-errors=no", "--man=no", str(unit))
    assert said.returncode == 0, said.stderr
    assert unit.name not in said.stderr, said.stderr
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text(encoding="utf-8"))
    words = parser["Service"]["ExecStart"].split()
    assert words[:2] == ["/usr/bin/env", "hookprobe"]
    assert words[2] in COMMANDS
    told = subprocess.run(
        [sys.executable, "-m", "hookprobe", *words[2:4], "--help"], capture_output=True, check=False
    )
    assert told.returncode == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_a_unit_is_hardened(unit: Path) -> None:
    said = analyze("security", "--offline=true", str(unit)).stdout
    found = re.search(r"exposure level for .*: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= EXPOSURE_MAX[unit.stem]


def test_a_loose_unit_would_be_found(tmp_path: Path) -> None:
    loose = tmp_path / "dsm-api.service"
    text = (ROOT / "deploy/systemd/dsm-api.service").read_text(encoding="utf-8")
    loose.write_text(text.replace("ProtectSystem=strict\n", "").replace("User=hookprobe\n", ""))
    said = analyze("security", "--offline=true", str(loose)).stdout
    found = re.search(r"exposure level for .*: ([\d.]+)", said)
    assert found
    assert float(found[1]) > EXPOSURE_MAX["dsm-api"]

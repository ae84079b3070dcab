"""What commands show of a node's status: data for programs, lines for people."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hookprobe.cli.main import program
from hookprobe.runtime import status

PENDING: dict[str, object] = {
    "epoch": 12,
    "opened_at": None,
    "view": 0,
    "cuts": ["validator-1", "validator-2"],
    "waiting": [{"from": 1, "inc": 7, "node_id": "edge-a", "to": 4}],
}
SESSIONS = [{"peer": "edge-a", "dialled": False, "lost": 0}]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A validator's folder with a status, as a running node leaves it."""
    runner = CliRunner()
    founded = runner.invoke(program, ["init", "mesh", str(tmp_path / "m"), "--validators", "1"])
    assert founded.exit_code == 0, founded.output
    home = tmp_path / "m" / "validator-1"
    document = {"at": 0, "peers": [], "sessions": SESSIONS, "pending": PENDING}
    (home / "state").mkdir(exist_ok=True)
    status.write(home / "state", document)
    return home / "hookprobe.yaml"


def shown(settings: Path, *words: str, form: str) -> str:
    return CliRunner().invoke(program, [*words, "-c", str(settings), "-o", form]).stdout


def read(form: str, text: str) -> Any:
    return yaml.safe_load(text) if form == "yaml" else json.loads(text)


@pytest.mark.parametrize("form", ["json", "jsonl", "yaml"])
def test_programs_get_values_and_no_words_for_them(settings: Path, form: str) -> None:
    assert read(form, shown(settings, "dsm", "pending", form=form)) == PENDING
    told = read(form, shown(settings, "status", form=form))
    assert (told["sessions"], told["peers"]) == (SESSIONS, [])


def test_people_get_lines(settings: Path) -> None:
    lines = shown(settings, "dsm", "pending", form="table").splitlines()
    found = {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}
    assert found["cuts"] == "validator-1, validator-2"
    assert found["waiting"] == "from=1 inc=7 node_id=edge-a to=4"
    assert "peer=edge-a dialled=False lost=0" in shown(settings, "status", form="table")

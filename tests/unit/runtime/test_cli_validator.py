"""What validator commands say and write before anything is asked of a running node."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

import hookprobe.cli.validator as commands
from hookprobe.cli.main import program
from hookprobe.cli.run import validator as group
from hookprobe.config.load import load
from hookprobe.runtime.service import admission_of
from hookprobe.wire.instant import HOUR


@pytest.mark.parametrize(
    ("states", "warned"),
    [
        (["member"] * 7, True),
        (["member"] * 7 + ["applying"], True),
        (["member"] * 6, False),
        (["member"] * 6 + ["leaving"], False),
        (["member"] * 4, True),
    ],
)
def test_remove_says_when_fewer_faulty_are_tolerated(
    states: Sequence[str], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def ask(_path: object, _socket: str, request: dict[str, object]) -> list[dict[str, object]]:
        asked.append(request)
        if request["op"] == "status":
            return [{"validator": f"v{at}", "state": state} for at, state in enumerate(states)]
        return [{"order": "remove", "block": "aa", "state": "written"}]

    monkeypatch.setattr(commands, "ask", ask)
    result = CliRunner().invoke(group, ["remove", "v0"])
    assert result.exit_code == 0, result.output
    assert asked[-1] == {"op": "remove", "validator": "v0"}
    assert ("admit another before" in result.output) == warned


@pytest.mark.parametrize("asked", [True, False])
def test_a_mesh_is_founded_with_validators_that_ask_for_a_tpm(asked: bool, tmp_path: Path) -> None:
    """Those of the founding and later ones; nobody else has the setting."""
    option, mesh = ["--require-tpm"] * asked, str(tmp_path / "m")
    found = ["init", "mesh", mesh, "--validators", "4", "--edge", "edge-1", *option]
    late = str(tmp_path / "late")
    more = ["init", "validator", late, "--mesh", mesh, "--name", "validator-5"]
    for words in (found, [*more, "--at", "10.0.0.5:4719", *option]):
        result = CliRunner().invoke(program, words)
        assert result.exit_code == 0, result.output
    folders = [tmp_path / "m" / f"validator-{at}" for at in (1, 2, 3, 4)]
    for folder in (*folders, Path(late)):
        admission = admission_of(load(folder / "hookprobe.yaml", {}, {}))
        assert admission.require_tpm == asked
        assert admission.terms.age_max_us == 24 * HOUR
    for name in ("edge-1", "verifier-1"):
        text = (tmp_path / "m" / name / "hookprobe.yaml").read_text(encoding="utf-8")
        assert "require_tpm" not in text


def test_the_operators_terms_are_those_of_the_settings(tmp_path: Path) -> None:
    key = "ab" * 32
    (tmp_path / "hookprobe.yaml").write_text(
        f"dsm: {{validator: {{tpm_keys: ['{key}'], attestation_ms: 60000}}}}\n", encoding="utf-8"
    )
    admission = admission_of(load(tmp_path / "hookprobe.yaml", {}, {}))
    assert not admission.require_tpm
    assert key in admission.terms.vouched
    assert admission.terms.age_max_us == 60_000_000

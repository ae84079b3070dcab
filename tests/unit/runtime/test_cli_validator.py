"""What `hookprobe validator remove` says before a set gets less tolerant."""

from collections.abc import Sequence

import pytest
from click.testing import CliRunner

import hookprobe.cli.validator as commands
from hookprobe.cli.run import validator as group


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

from pathlib import Path

import pytest

from hookprobe.config.load import load
from hookprobe.config.schema import KEYS, PROFILES
from hookprobe.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "hookprobe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_fill_every_key() -> None:
    config = load(None, {}, {})
    assert set(config.values) == {key.path for key in KEYS}
    assert config.text("dsm.node.role") == "edge"
    assert config.origins["dsm.node.role"] == "default"


def test_later_sources_win_and_say_so(tmp_path: Path) -> None:
    path = write(tmp_path, "dsm: {node: {id: from-file}}\nlimits: {receive_per_wake: 5}\n")
    assert load(path, {}, {}).text("dsm.node.id") == "from-file"
    environment = {"HOOKPROBE_DSM_NODE_ID": "from-env"}
    config = load(path, environment, {"limits.receive_per_wake": 7})
    assert config.text("dsm.node.id") == "from-env"
    assert config.origins["dsm.node.id"] == "HOOKPROBE_DSM_NODE_ID"
    assert config.integer("limits.receive_per_wake") == 7
    assert config.origins["limits.receive_per_wake"] == "command line"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid(profile: str) -> None:
    config = load(None, {}, {"profile": profile})
    assert config.origins["limits.receive_per_wake"] == f"profile {profile}"


def test_variables_in_the_file_come_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, 'dsm: {node: {id: "${HOOKPROBE_NODE_ID}"}}\n')
    assert load(path, {"HOOKPROBE_NODE_ID": "edge-9"}, {}).text("dsm.node.id") == "edge-9"
    with pytest.raises(ConfigError, match="HOOKPROBE_NODE_ID is not set"):
        load(path, {}, {})


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "dsm: {node: {id: UPPER, role: king}}\nhtp: {listen: [nowhere]}\nsurprise: 1\n"
        "limits: {receive_per_wake: 0}\nsensors: {suricata: [1]}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {})
    problems = "\n".join(caught.value.problems)
    for name in ("dsm.node.id", "dsm.node.role", "htp.listen", "surprise", "receive_per_wake"):
        assert name in problems
    assert str(path) in problems
    assert len(caught.value.problems) == 6


def test_the_quorum_cannot_be_lowered(tmp_path: Path) -> None:
    path = write(tmp_path, "dsm: {consensus: {quorum_threshold: 0.67}}\n")
    assert load(path, {}, {}).text("dsm.consensus.quorum_threshold") == "0.67"
    for value in ("0.66", "0.5", "2", "true-ish"):
        path = write(tmp_path, f"dsm: {{consensus: {{quorum_threshold: {value}}}}}\n")
        with pytest.raises(ConfigError, match="quorum"):
            load(path, {}, {})


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "\x00", "a: &a [*a, *b]", "{" * 5000])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"hookprobe\.yaml"):
        load(write(tmp_path, text), {}, {})


def test_a_missing_or_huge_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml", {}, {})
    with pytest.raises(ConfigError, match="larger"):
        load(write(tmp_path, "#" * (1 << 20) + "\n"), {}, {})


def test_one_address_is_listened_on_and_more_are_not_silently_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, "htp: {listen: ['[::]:4719']}\n")
    assert load(path, {}, {}).texts("htp.listen") == ("[::]:4719",)
    for value in ("[]", "['a:1', 'b:2']"):
        with pytest.raises(ConfigError, match="one host:port"):
            load(write(tmp_path, f"htp: {{listen: {value}}}\n"), {}, {})


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, "state: {path: ledger}\n"), {}, {})
    assert config.file("state.path") == tmp_path / "ledger"

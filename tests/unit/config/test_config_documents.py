"""The settings of the public documents: what of them this version reads, refuses and checks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hookprobe.config.agreement import MeshFacts, check
from hookprobe.config.load import Config, load
from hookprobe.config.schema import BY_PATH
from hookprobe.errors import ConfigError
from hookprobe.runtime.service import listening_of, sensors_of, settings_of
from hookprobe.runtime.webhook_settings import read_hooks

ROOT = Path(__file__).parents[3]
MESH = MeshFacts(4, 300_000_000, ("validator1.example:7946",))

# The whole example of the implementation guide.
GUIDE = """
dsm:
  node:
    id: "${HOOKPROBE_NODE_ID}"
    role: "edge"
  tpm:
    enabled: true
    key_path: "/var/lib/hookprobe/tpm/dsm-key"
    pcr_indices: [0, 1, 2, 3, 7]
  validator:
    enabled: false
    certificate_path: "/var/lib/hookprobe/certs/validator.pem"
  consensus:
    epoch_duration: 300
    quorum_threshold: 0.67
    signature_timeout: 30
  storage:
    microblocks:
      backend: "rocksdb"
      path: "/var/lib/hookprobe/dsm/microblocks"
      retention_days: 30
    checkpoints:
      backend: "postgresql"
      table: "dsm_checkpoints"
      retention_days: 365
  gossip:
    port: 7946
    bootstrap_nodes:
      - "validator1.hookprobe.mesh:7946"
      - "validator2.hookprobe.mesh:7946"
    max_peers: 50
  integrations:
    pod_006:
      enabled: true
      events: ["ids_alert", "threat_detected"]
    pod_007:
      enabled: true
      events: ["mitigation_applied"]
    pod_005:
      metrics_export: true
      dashboard: "DSM Mesh Overview"
"""
# What this version does not have: each is refused by name, none is passed over in silence.
NOT_YET = {
    "dsm.integrations.pod_007.enabled",
}


def paths(document: Any, prefix: str = "") -> list[str]:
    if not isinstance(document, dict):
        return [prefix[:-1]]
    return [found for name, value in document.items() for found in paths(value, f"{prefix}{name}.")]


def read(folder: Path, text: str) -> Config:
    path = folder / "dsm.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, {"HOOKPROBE_NODE_ID": "edge-1"}, {})


def problems(folder: Path, text: str, mesh: MeshFacts = MESH) -> str:
    with pytest.raises(ConfigError) as caught:
        check(read(folder, text), mesh)
    return "\n".join(caught.value.problems)


def test_the_guides_file_is_read_but_for_what_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GUIDE)
    named = {problem.split(": ")[1] for problem in caught.value.problems}
    assert named == NOT_YET
    known = [path for path in paths(yaml.safe_load(GUIDE)) if path in BY_PATH]
    assert len(known) >= 20


def test_our_file_has_the_guides_keys_and_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "config/dsm.yaml").read_text(encoding="utf-8")
    config = read(tmp_path, text)
    ours, theirs = paths(yaml.safe_load(text)), paths(yaml.safe_load(GUIDE))
    missing = [path for path in theirs if path not in ours]
    assert set(missing) <= NOT_YET | {"dsm.storage.microblocks.path"}
    check(config, MESH)
    settings = settings_of(config)
    assert settings.ledger.quorum_alarm_us == 30_000_000
    assert settings.ledger.edges_max == 50
    assert (settings.ledger.keep_blocks, settings.ledger.keep_contents) == (30, 365)
    assert listening_of(config) == ("0.0.0.0", 7946)
    environment = {"SIEM_TOKEN": "t", "SLACK_WEBHOOK_URL": "https://hooks.slack.com/x"}
    hooks = read_hooks(ROOT / "config/dsm-webhooks.yaml", environment)
    assert [hook.id for hook in hooks] == ["siem", "slack"]


def test_a_threshold_of_two_thirds_is_never_below_the_quorum(tmp_path: Path) -> None:
    for threshold in ("0.67", "0.7", "1"):
        config = read(tmp_path, f"dsm: {{consensus: {{quorum_threshold: {threshold}}}}}")
        for size in range(1, 129):
            check(config, MeshFacts(size, 1, ()))


def test_a_threshold_below_the_quorum_is_refused_for_this_mesh(tmp_path: Path) -> None:
    config = read(tmp_path, "")
    values = {**config.values, "dsm.consensus.quorum_threshold": "0.6"}
    low = Config(config.path, config.folder, values, config.origins)
    for size in (5, 8, 10):
        with pytest.raises(ConfigError, match="needed to be safe"):
            check(low, MeshFacts(size, 1, ()))
    check(low, MeshFacts(4, 1, ()))


def test_settings_must_fit_the_mesh_and_each_other(tmp_path: Path) -> None:
    said = problems(
        tmp_path,
        "dsm:\n"
        "  consensus: {epoch_duration: 60}\n"
        "  validator: {enabled: true}\n"
        "  gossip: {port: 7946, bootstrap_nodes: ['other.example:7946']}\n"
        "  storage: {microblocks: {path: /x}}\n"
        "  tpm: {enabled: true}\n"
        "htp: {listen: ['0.0.0.0:4719']}\n",
    )
    for name in (
        "dsm.consensus.epoch_duration: 60 s, the mesh agreed on 300 s",
        "dsm.validator.enabled",
        "dsm.gossip.port",
        "other.example:7946 is not in directory.json",
        "dsm.storage.microblocks.path",
        "dsm.tpm.enabled",
    ):
        assert name in said
    check(read(tmp_path, "dsm: {gossip: {bootstrap_nodes: ['validator1.example:7946']}}"), MESH)


@pytest.mark.parametrize(
    "text",
    [
        "dsm: {node: {role: both}}",
        "dsm: {tpm: {enabled: 'yes'}}",
        "dsm: {tpm: {pcr_indices: [24]}}",
        "dsm: {tpm: {pcr_indices: [0, 1]}}",
        "dsm: {tpm: {pcr_indices: [true]}}",
        "dsm: {tpm: {pcr_indices: 0-7}}",
        "dsm: {validator: {enabled: 1}}",
        "dsm: {integrations: {pod_006: {events: [everything]}}}",
        "dsm: {integrations: {pod_005: {dashboard: Mine}}}",
        "dsm: {storage: {checkpoints: {table: 'x; DROP TABLE y'}}}",
        "dsm: {gossip: {port: 70000}}",
        "dsm: {gossip: {max_peers: 0}}",
        "dsm: {consensus: {quorum_threshold: 0.66}}",
        "dsm: {consensus: {quorum_threshold: nan}}",
        "dsm: {consensus: {quorum_threshold: true}}",
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, text)


def test_sensors_are_not_followed_when_detection_is_off(tmp_path: Path) -> None:
    sensors = "sensors: {suricata: [eve.json]}\n"
    assert len(sensors_of(read(tmp_path, sensors))) == 1
    off = sensors + "dsm: {integrations: {pod_006: {enabled: false}}}"
    assert sensors_of(read(tmp_path, off)) == {}

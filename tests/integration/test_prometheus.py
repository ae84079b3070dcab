"""A real Prometheus scrapes a real mesh: every panel of the dashboard and every rule has data."""

import asyncio
import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from tests.servers import free_port, program

from hookprobe.runtime.local_mesh import LocalMesh, MeshShape

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dsm-mesh-overview.json").read_text(encoding="utf-8"))
RULES = DEPLOY / "prometheus/hookprobe-alerts.yml"
EVE = Path(__file__).parents[1] / "data/sensors/eve/brute-ssh.eve.json"
VALIDATORS = ("validator-1", "validator-2", "validator-3", "validator-4")
NODES = (*VALIDATORS, "verifier-1", "edge-1")
WAIT_S = 90.0


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )


def test_the_alert_rules_are_right_and_fire_when_they_should() -> None:
    checked = promtool("check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stderr
    tested = promtool("test", "rules", str(RULES.with_name("hookprobe-alerts.test.yml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    rules = yaml.safe_load(RULES.read_bytes())["groups"][0]["rules"]
    told = RULES.with_name("hookprobe-alerts.test.yml").read_text(encoding="utf-8")
    for rule in rules:
        assert told.count(f"alertname: {rule['alert']}") >= 2, "when it fires and when not"


def test_a_rule_that_is_wrong_would_be_found(tmp_path: Path) -> None:
    wrong = tmp_path / "hookprobe-alerts.yml"
    text = RULES.read_text(encoding="utf-8")
    wrong.write_text(text.replace("quorum_lost == 1", "quorum_lost == 0"), encoding="utf-8")
    test = tmp_path / "hookprobe-alerts.test.yml"
    test.write_bytes(RULES.with_name(test.name).read_bytes())
    assert promtool("test", "rules", str(test)).returncode != 0
    wrong.write_text(text.replace("[1h]", "1h]"), encoding="utf-8")
    assert promtool("check", "rules", str(wrong)).returncode != 0


class Prometheus:
    """One server in a folder of its own."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        self._base = f"127.0.0.1:{free_port()}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "hookprobe", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
        checked = promtool("check", "config", str(folder / "prometheus.yml"))
        assert checked.returncode == 0, checked.stderr
        command = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self._base}"]
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def ask(self, path: str, **query: str) -> Any:
        address = f"http://{self._base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it is still starting
                raise
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def up(self) -> int:
        with contextlib.suppress(OSError):
            return sum(int(item["value"][1]) for item in self.ask("query", query="up")["result"])
        return 0

    def panel(self, expression: str) -> list[Any]:
        """Ask as Grafana does for a graph, with every node chosen."""
        now = float(self.ask("query", query="time()")["result"][1])
        found = self.ask(
            "query_range",
            query=expression.replace("$instance", ".*"),
            start=f"{now - 30:.3f}",
            end=f"{now:.3f}",
            step="1",
        )["result"]
        return [item for item in found if any(value != "NaN" for _, value in item["values"])]

    def value(self, expression: str) -> float:
        (found,) = self.ask("query", query=expression)["result"]
        return float(found["value"][1])

    def states(self) -> dict[str, str]:
        (group,) = self.ask("rules")["groups"]
        assert all(rule["health"] in {"ok", "unknown"} for rule in group["rules"]), group
        return {rule["name"]: rule["state"] for rule in group["rules"]}

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(20)


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


async def until(reached: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await asyncio.to_thread(reached):
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.5)


def variable_values(prometheus: Prometheus) -> list[str]:
    """What the dashboard's variable offers, by its own query."""
    (variable,) = [item for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert found
    return list(prometheus.ask(f"label/{found[2]}/values", **{"match[]": found[1]}))


def empty(prometheus: Prometheus) -> list[str]:
    return [expression for expression in expressions() if not prometheus.panel(expression)]


def test_every_panel_has_data_of_a_running_mesh(tmp_path: Path) -> None:
    mesh = LocalMesh(tmp_path / "mesh", MeshShape(4, (("edge-1", "acme"),), 1000, {}))
    for name in NODES:
        settings = yaml.safe_load((mesh.folder / name / "hookprobe.yaml").read_bytes())
        ledger = settings["dsm"] | {"quorum_alarm_ms": 3000, "view_timeout_ms": 1000}
        mesh.change_settings(name, {"api": {"listen": "127.0.0.1:0"}, "dsm": ledger})

    async def live() -> None:
        ports: dict[str, str] = {}
        prometheus = None
        try:
            await mesh.start(NODES)
            while len(ports) < len(NODES):
                line = await asyncio.wait_for(mesh.lines.get(), WAIT_S)
                assert line.event != "Ended", line
                if line.event == "ApiStarted":
                    ports[line.node] = f"127.0.0.1:{line.fields['port']}"
            (tmp_path / "prometheus").mkdir()
            prometheus = Prometheus(tmp_path / "prometheus", list(ports.values()))
            mesh.feed("edge-1", EVE.read_bytes())
            await until(lambda: prometheus.up() == len(NODES), "all nodes are scraped")
            with contextlib.suppress(AssertionError):
                await until(lambda: not empty(prometheus), "data")
            assert await asyncio.to_thread(empty, prometheus) == []
            assert sorted(variable_values(prometheus)) == sorted(ports.values())
            assert prometheus.value("count(hookprobe_dsm_validators == 4)") == len(NODES)
            assert prometheus.value("max(hookprobe_dsm_epoch)") > 1
            behind = "hookprobe_dsm_epochs_behind"  # only who follows every epoch can be behind
            assert prometheus.value(f"count({behind})") == len(VALIDATORS)
            assert prometheus.value("count(hookprobe_dsm_waiting_seconds)") == 1
            states = await asyncio.to_thread(prometheus.states)
            assert states.pop("HookProbeEpochsBehind") in {"inactive", "pending"}
            assert set(states.values()) == {"inactive"}, states
            await mesh.kill("validator-3")
            await mesh.kill("validator-4")

            def alarmed() -> bool:
                now = prometheus.states()
                return (
                    now["HookProbeQuorumLost"] == "firing" and now["HookProbeSilent"] != "inactive"
                )

            await until(alarmed, "two of four are gone")
        finally:
            if prometheus is not None:
                prometheus.stop()
            await mesh.stop()

    asyncio.run(live())


def test_the_dashboard_has_the_shape_that_grafana_reads() -> None:
    kinds = {"stat", "timeseries"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert panel["type"] in kinds
        assert place["x"] + place["w"] <= 24, "a row is 24 wide"
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} covers another panel"
        taken |= cells
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}

"""Metrics: names, labels, what counts, and that the dashboard asks for nothing else."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.dsm.ledger_net import V0, validator
from tests.unit.dsm.test_dsm_changes import V4, V5, admit, later, net_of

from hookprobe.detection.attack import Category
from hookprobe.dsm import effects as ledger
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.misbehaviour import Fault
from hookprobe.htp import effects as transport
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import FileNode
from hookprobe.node.observations import IncidentRecorded, MessageSent, Observation
from hookprobe.node.validator import ValidatorNode
from hookprobe.runtime import status
from hookprobe.runtime.exposition import render
from hookprobe.runtime.metrics import METRICS, OTHER, RULES, Kind, Meter
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

PEER = NodeId("validator-1")
NAME = re.compile(r"hookprobe_(dsm|htp|detection|webhook|node)_[a-z_]+")
DASHBOARD = Path(__file__).parents[3] / "deploy/grafana/dsm-mesh-overview.json"

SEEN: tuple[Observation, ...] = (
    ledger.Voted(1, 1, "NOTARIZE", b""),
    ledger.CheckpointFinalized(1, 12, 3, b"", 30_000),
    ledger.CheckpointFinalized(2, 3, 3, b"", 0),
    ledger.MisbehaviourDetected("v", "VOTES"),
    transport.Dropped(transport.DropReason.SEAL),
    transport.SessionDown(PEER, transport.DownReason.SILENT),
    transport.AttestRefused(PEER, transport.RejectCode.NOT_ACTIVE),
    MessageSent(PEER, 1, b"12345"),
    IncidentRecorded("k", "t", "high", (), 1, b"", 1, False),
)


def board() -> status.StatusBoard:
    made = status.StatusBoard(NodeId("v"), "validator", 4, (Instant(0), SECOND))
    for observation in SEEN:
        made.report(observation)
    return made


def samples(document: dict[str, object]) -> dict[tuple[str, str], float]:
    text = render(json.loads(json.dumps(document)), Instant(11 * SECOND)).decode()
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_are_of_one_form_and_told_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(dict.fromkeys(names)) == len(names)
    for metric in METRICS:
        assert NAME.fullmatch(metric.name), metric.name
        ends = metric.name.endswith(("_total", "_seconds", "_bytes"))
        assert ends or metric.kind is Kind.GAUGE, metric.name
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.label) is bool(metric.words)
        assert metric.label in {"", "kind", "reason", "fault", "severity", "outcome", "origin"}


def test_every_rule_has_a_metric_and_counts_what_it_says() -> None:
    made = board()
    made.pending = lambda: {"incomplete": 3}
    told = samples(made.document(Instant(10 * SECOND), 99))
    wanted = {
        ("hookprobe_dsm_votes_total", "notarize"): 1,
        ("hookprobe_dsm_votes_total", "finalize"): 0,
        ("hookprobe_dsm_checkpoints_total", ""): 2,
        ("hookprobe_dsm_checkpoint_blocks_total", ""): 15,
        ("hookprobe_dsm_misbehaviours_total", "votes"): 1,
        ("hookprobe_htp_packets_dropped_total", "seal"): 1,
        ("hookprobe_htp_sessions_ended_total", "silent"): 1,
        ("hookprobe_htp_peers_refused_total", "not_active"): 1,
        ("hookprobe_htp_message_bytes_total", ""): 5,
        ("hookprobe_detection_incidents_total", "high"): 1,
        ("hookprobe_dsm_epoch", ""): 2,
        ("hookprobe_dsm_epochs_behind", ""): 6,
        ("hookprobe_dsm_epochs_incomplete", ""): 3,
        ("hookprobe_dsm_quorum", ""): 3,
        ("hookprobe_htp_datagram_bytes", ""): 99,
        ("hookprobe_node_status_age_seconds", ""): 1,
    }
    assert {key: told.get(key) for key in wanted} == wanted
    assert told["hookprobe_dsm_finality_seconds_count", ""] == 1, "a synchronised epoch has none"
    assert told["hookprobe_dsm_finality_seconds_sum", ""] == 0.03
    assert told["hookprobe_dsm_finality_seconds_bucket", "0.025"] == 0
    assert told["hookprobe_dsm_finality_seconds_bucket", "0.05"] == 1
    assert told["hookprobe_dsm_finality_seconds_bucket", "+Inf"] == 1
    assert all(
        rule.metric in {m.name for m in METRICS} for rules in RULES.values() for rule in rules
    )


def test_labels_are_words_of_enums_and_no_name_of_anybody() -> None:
    words = {metric.name: metric.words for metric in METRICS}
    assert words["hookprobe_dsm_votes_total"] == tuple(k.name.lower() for k in VoteKind)
    assert words["hookprobe_dsm_misbehaviours_total"] == tuple(f.name.lower() for f in Fault)
    assert str(PEER) not in render(board().document(Instant(1), 1), Instant(1)).decode()
    assert Category.MALWARE.value not in str(words)


def test_a_word_nobody_knows_makes_no_new_series() -> None:
    meter = Meter()
    for number in range(100):
        meter.report(ledger.Voted(1, 1, f"kind {number}", b""))
    assert meter.snapshot()["hookprobe_dsm_votes_total"] == {
        "notarize": 0, "nullify": 0, "finalize": 0, OTHER: 100,
    }  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [{}, {"metrics": []}, {"metrics": {"hookprobe_dsm_votes_total": 3}}, {"at": "x", "peers": 1.5}],
)
def test_a_status_without_metrics_is_told_as_it_is(document: dict[str, Any]) -> None:
    assert isinstance(render(document, Instant(0)), bytes)


def test_the_status_says_what_is_open() -> None:
    made = board()
    made.report(ledger.EpochOpened(3))
    made.report(ledger.ViewChanged(3, 2))
    shown = made.document(Instant(4 * SECOND), 0)
    assert (shown["open_epoch"], shown["view"], shown["epochs_behind"]) == (3, 2, 0)
    made.report(ledger.CheckpointFinalized(3, 0, 3, b"", 1))
    shown = made.document(Instant(4 * SECOND), 0)
    assert (shown["open_epoch"], shown["view"], shown["last_epoch"]) == (None, None, 3)


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["title"] == "DSM Mesh Overview"
    known = {metric.name for metric in METRICS}
    known |= {f"hookprobe_dsm_finality_seconds_{end}" for end in ("bucket", "count", "sum")}
    asked: set[str] = set()
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found = {match.group() for match in NAME.finditer(target["expr"])}
            assert found, target["expr"]
            assert found <= known, f"{panel['title']}: {found - known}"
            asked |= found
    assert len(asked) >= 15
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_number_of_validators_is_that_of_the_set_and_not_of_the_founders() -> None:
    net = net_of()
    ledger_of_edge = net.boot_edge()
    links: Any = None
    edge = EdgeNode.__new__(EdgeNode)  # of which only the ledger is looked at
    edge.ledger = ledger_of_edge
    nodes: list[FileNode] = [ValidatorNode(validator(net, V0), links), edge]
    verifier: Any = object()

    def told() -> list[tuple[object, object]]:
        found = []
        for node in (*nodes, verifier):
            board = status.StatusBoard(NodeId("n"), "", 4)
            board.members = partial(status.members_of, node, 4)
            shown = board.document(Instant(0), 0)
            found.append((shown["validators"], shown["needed"]))
        return found

    assert told() == [(4, 3)] * 3
    for name in (V4, V5, NodeId("v06")):
        admit(net, name)
    net.write(ledger_of_edge, b"its receipt is by the new set")
    later(net)
    assert told() == [(7, 5), (7, 5), (4, 3)], "a verifier knows of the founders only"


def test_only_who_follows_every_epoch_can_be_behind() -> None:
    made = status.StatusBoard(NodeId("e"), "edge", 4)
    made.report(ledger.ReceiptReceived(3, (NodeId("e"), 1), 1, 1))
    idle = made.document(Instant(900 * SECOND), 0)
    assert (idle["last_epoch"], idle["epochs_behind"], idle["waiting_s"]) == (3, None, 0)
    made.oldest_waiting_ms = lambda: 800_000
    late = made.document(Instant(900 * SECOND), 0)
    assert late["waiting_s"] == 100
    told = samples(late)
    assert told["hookprobe_dsm_waiting_seconds", ""] == 100
    assert ("hookprobe_dsm_epochs_behind", "") not in told
    assert ("hookprobe_dsm_waiting_seconds", "") not in samples(board().document(Instant(1), 0))

"""What a node counts about itself: one table from observations to metrics.

Names are `hookprobe_<room>_<noun>` with `_total`, `_seconds` or `_bytes`; gauges are plain nouns.
A label has few values, all of them words of our own enums: names of nodes, peers and addresses are
in the logs, where they belong, and never here. The node writes its counts into its status about
once a second; `runtime/exposition.py` turns a status into Prometheus' text.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any

from hookprobe.detection.pipeline import LineRefused
from hookprobe.dsm import effects as ledger
from hookprobe.dsm.certificate import VoteKind
from hookprobe.dsm.misbehaviour import Fault
from hookprobe.htp import effects as transport
from hookprobe.htp.channels import Channel
from hookprobe.node.observations import IncidentRecorded, MessageRefused, MessageSent, Observation

FINALITY = "hookprobe_dsm_finality_seconds"
FINALITY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OTHER = "other"


@unique
class Kind(Enum):
    """What a number means."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: As Prometheus sees it.
        kind: What the number means.
        about: One line for people.
        label: The name of its label; empty for none.
        words: All values of the label.
    """

    name: str
    kind: Kind
    about: str
    label: str = ""
    words: tuple[str, ...] = ()


def _words(kinds: type[Enum]) -> tuple[str, ...]:
    return tuple(str(kind.name).lower() for kind in kinds)


def _counter(name: str, about: str, label: str = "", words: tuple[str, ...] = ()) -> Metric:
    return Metric(name, Kind.COUNTER, about, label, words)


def _gauge(name: str, about: str) -> Metric:
    return Metric(name, Kind.GAUGE, about)


METRICS = (
    _counter("hookprobe_dsm_blocks_total", "Blocks written here or taken from others.", "origin",
             ("own", "peer")),
    _counter("hookprobe_dsm_blocks_refused_total", "Blocks that did not hold."),
    _counter("hookprobe_dsm_checkpoints_total", "Checkpoints that became final."),
    _counter("hookprobe_dsm_checkpoint_blocks_total", "Blocks in final checkpoints."),
    _counter("hookprobe_dsm_proposals_total", "Checkpoints proposed by this validator."),
    _counter("hookprobe_dsm_votes_total", "Votes cast by this validator.", "kind",
             _words(VoteKind)),
    _counter("hookprobe_dsm_certificates_total", "Certificates that became known.", "kind",
             _words(VoteKind)),
    _counter("hookprobe_dsm_view_changes_total", "Views entered."),
    _counter("hookprobe_dsm_quorum_losses_total", "Times an open epoch found no quorum."),
    _counter("hookprobe_dsm_forks_total", "Nodes seen to sign two blocks with one number."),
    _counter("hookprobe_dsm_misbehaviours_total", "Evidence against validators.", "fault",
             _words(Fault)),
    _counter("hookprobe_dsm_set_changes_total", "Validators that came, went or changed keys.",
             "kind", ("added", "removed", "rotated")),
    _counter("hookprobe_dsm_applications_total", "Applications to the validator set."),
    _counter("hookprobe_dsm_revocations_total", "Nodes revoked by an authority."),
    _counter("hookprobe_dsm_partitions_dropped_total", "Times old records were dropped."),
    _counter("hookprobe_dsm_quarantines_total", "Nodes whose blocks no longer count."),
    _counter("hookprobe_dsm_penalties_total", "Rules broken by peers of the ledger."),
    _counter("hookprobe_dsm_receipts_total", "Receipts for own blocks."),
    _counter("hookprobe_dsm_suspensions_total", "Times this validator stopped voting to be safe."),
    Metric(FINALITY, Kind.HISTOGRAM, "From opening an epoch to its final checkpoint."),
    _counter("hookprobe_htp_sessions_total", "Sessions that came up."),
    _counter("hookprobe_htp_sessions_ended_total", "Sessions that ended.", "reason",
             _words(transport.DownReason)),
    _counter("hookprobe_htp_packets_dropped_total", "Packets dropped.", "reason",
             _words(transport.DropReason)),
    _counter("hookprobe_htp_sends_refused_total", "Messages not taken for sending.", "reason",
             _words(transport.RefusedReason)),
    _counter("hookprobe_htp_peers_refused_total", "Peers refused by us.", "reason",
             _words(transport.RejectCode)),
    _counter("hookprobe_htp_messages_withheld_total", "Messages of peers trusted too little.",
             "kind", _words(Channel)),
    _counter("hookprobe_htp_messages_sent_total", "Messages sent."),
    _counter("hookprobe_htp_messages_refused_total", "Messages that did not decode."),
    _counter("hookprobe_htp_message_bytes_total", "Bytes of messages before sealing."),
    _counter("hookprobe_detection_incidents_total", "Incidents written to the chain.", "severity",
             ("low", "medium", "high", "critical")),
    _counter("hookprobe_detection_lines_refused_total", "Sensor lines that were not right."),
    _counter("hookprobe_webhook_deliveries_total", "Webhook deliveries that ended.", "outcome",
             ("delivered", "dead")),
    _counter("hookprobe_webhook_failures_total", "Attempts at a delivery that failed."),
    _gauge("hookprobe_dsm_epoch", "The last final epoch known here."),
    _gauge("hookprobe_dsm_open_epoch", "The epoch that is being decided."),
    _gauge("hookprobe_dsm_epochs_behind", "Epochs that a validator should have final by now."),
    _gauge("hookprobe_dsm_waiting_seconds",
           "Age of the oldest block of an edge that has no receipt yet."),
    _gauge("hookprobe_dsm_epochs_incomplete", "Final epochs with blocks that are not here yet."),
    _gauge("hookprobe_dsm_validators", "Validators that decide, as far as this node knows."),
    _gauge("hookprobe_dsm_quorum", "Validators that must agree."),
    _gauge("hookprobe_dsm_quorum_lost", "1 while an open epoch finds no quorum."),
    _gauge("hookprobe_htp_peers", "Peers with a live session."),
    _gauge("hookprobe_htp_packets_lost", "Packets found lost, of the sessions that live."),
    _gauge("hookprobe_htp_packets_failed", "Packets that did not open under live keys."),
    _gauge("hookprobe_htp_in_flight_bytes", "Bytes on their way and not acknowledged."),
    _gauge("hookprobe_htp_peers_doubted", "Peers who dialled and have not full trust."),
    _gauge("hookprobe_htp_datagram_bytes", "Bytes of datagrams sent since the start."),
    _gauge("hookprobe_webhook_waiting", "Webhook deliveries that wait."),
    _gauge("hookprobe_node_status_age_seconds", "Age of the status these numbers are from."),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}

Word = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """How an observation counts.

    Attributes:
        metric: The name of the counter.
        word: Says the label's value.
        amount: How much to add.
    """

    metric: str
    word: Word = lambda _: ""
    amount: Callable[[Any], int] = lambda _: 1


def _channel(observation: Any) -> str:
    return str(observation.channel.name).lower()


def _reason(observation: Any) -> str:
    return str(observation.reason.name).lower()


def _kind(observation: Any) -> str:
    return str(observation.kind).lower()


def _code(observation: Any) -> str:
    return str(observation.code.name).lower()


RULES: Mapping[type[object], tuple[Rule, ...]] = {
    ledger.BlockAppended: (Rule("hookprobe_dsm_blocks_total", lambda _: "own"),),
    ledger.BlockAccepted: (Rule("hookprobe_dsm_blocks_total", lambda _: "peer"),),
    ledger.BlockRefused: (Rule("hookprobe_dsm_blocks_refused_total"),),
    ledger.CheckpointProposed: (Rule("hookprobe_dsm_proposals_total"),),
    ledger.Voted: (Rule("hookprobe_dsm_votes_total", _kind),),
    ledger.CertificateFormed: (Rule("hookprobe_dsm_certificates_total", _kind),),
    ledger.ViewChanged: (Rule("hookprobe_dsm_view_changes_total"),),
    ledger.CheckpointFinalized: (
        Rule("hookprobe_dsm_checkpoints_total"),
        Rule("hookprobe_dsm_checkpoint_blocks_total", amount=lambda seen: int(seen.blocks)),
    ),
    ledger.QuorumLost: (Rule("hookprobe_dsm_quorum_losses_total"),),
    ledger.ForkDetected: (Rule("hookprobe_dsm_forks_total"),),
    ledger.MisbehaviourDetected: (
        Rule("hookprobe_dsm_misbehaviours_total", lambda seen: str(seen.fault).lower()),
    ),
    ledger.ValidatorSetChanged: tuple(
        Rule("hookprobe_dsm_set_changes_total", word, amount)
        for word, amount in (
            (lambda _: "added", lambda seen: len(seen.added)),
            (lambda _: "removed", lambda seen: len(seen.removed)),
            (lambda _: "rotated", lambda seen: len(seen.rotated)),
        )
    ),
    ledger.ValidatorApplied: (Rule("hookprobe_dsm_applications_total"),),
    ledger.NodeRevoked: (Rule("hookprobe_dsm_revocations_total"),),
    ledger.PartitionsDropped: (Rule("hookprobe_dsm_partitions_dropped_total"),),
    ledger.NodeQuarantined: (Rule("hookprobe_dsm_quarantines_total"),),
    ledger.PeerPenalised: (Rule("hookprobe_dsm_penalties_total"),),
    ledger.ReceiptReceived: (Rule("hookprobe_dsm_receipts_total"),),
    ledger.VotingSuspended: (Rule("hookprobe_dsm_suspensions_total"),),
    transport.SessionUp: (Rule("hookprobe_htp_sessions_total"),),
    transport.SessionDown: (Rule("hookprobe_htp_sessions_ended_total", _reason),),
    transport.MessageWithheld: (Rule("hookprobe_htp_messages_withheld_total", _channel),),
    transport.Dropped: (Rule("hookprobe_htp_packets_dropped_total", _reason),),
    transport.SendRefused: (Rule("hookprobe_htp_sends_refused_total", _reason),),
    transport.AttestRefused: (Rule("hookprobe_htp_peers_refused_total", _code),),
    MessageSent: (
        Rule("hookprobe_htp_messages_sent_total"),
        Rule("hookprobe_htp_message_bytes_total", amount=lambda seen: len(seen.data)),
    ),
    MessageRefused: (Rule("hookprobe_htp_messages_refused_total"),),
    IncidentRecorded: (
        Rule("hookprobe_detection_incidents_total", lambda seen: str(seen.severity).lower()),
    ),
    LineRefused: (Rule("hookprobe_detection_lines_refused_total"),),
}


class Meter:
    """Counts observations."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {
            metric.name: Counter() for metric in METRICS if metric.kind is Kind.COUNTER
        }
        self._finality = [0] * (len(FINALITY_BOUNDS_S) + 1)
        self._finality_us = 0

    def report(self, observation: Observation) -> None:
        """Take one observation."""
        for rule in RULES.get(type(observation), ()):
            self.count(rule.metric, rule.word(observation), rule.amount(observation))
        # An epoch that was synchronised was not watched: it has no latency of ours.
        if isinstance(observation, ledger.CheckpointFinalized) and observation.latency_us:
            seconds = observation.latency_us / 1e6
            self._finality[bisect_left(FINALITY_BOUNDS_S, seconds)] += 1
            self._finality_us += observation.latency_us

    def count(self, name: str, word: str = "", amount: int = 1) -> None:
        """Add to a counter; a word that is not the label's counts as `other`."""
        words = BY_NAME[name].words
        self._counts[name][word if not words or word in words else OTHER] += amount

    def snapshot(self) -> dict[str, object]:
        """Return all counts as JSON; every word of a label is there from the start."""
        shown: dict[str, object] = {}
        for name, counts in self._counts.items():
            words = BY_NAME[name].words
            every = {word: counts[word] for word in words} if words else {"": counts[""]}
            shown[name] = every | ({OTHER: counts[OTHER]} if counts[OTHER] else {})
        shown[FINALITY] = {"counts": list(self._finality), "sum_us": self._finality_us}
        return shown

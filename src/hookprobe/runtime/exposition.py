"""Prometheus' text form of the metrics in a node's status (`runtime/metrics.py` counts them)."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from hookprobe.runtime.metrics import BY_NAME, FINALITY, FINALITY_BOUNDS_S, METRICS, Kind, Metric
from hookprobe.wire.instant import Instant

_FIELDS = {
    "hookprobe_dsm_epoch": "last_epoch",
    "hookprobe_dsm_open_epoch": "open_epoch",
    "hookprobe_dsm_epochs_behind": "epochs_behind",
    "hookprobe_dsm_waiting_seconds": "waiting_s",
    "hookprobe_dsm_epochs_incomplete": "epochs_incomplete",
    "hookprobe_dsm_validators": "validators",
    "hookprobe_dsm_quorum": "needed",
    "hookprobe_dsm_quorum_lost": "quorum_lost",
    "hookprobe_htp_peers": "peers",
    "hookprobe_htp_packets_lost": "packets_lost",
    "hookprobe_htp_packets_failed": "packets_failed",
    "hookprobe_htp_in_flight_bytes": "in_flight_bytes",
    "hookprobe_htp_peers_doubted": "peers_doubted",
    "hookprobe_htp_datagram_bytes": "datagram_bytes_sent",
    "hookprobe_webhook_waiting": "webhooks_waiting",
}


class _Status(Collector):
    """A status as Prometheus' library wants to see it."""

    def __init__(self, document: Mapping[str, object], now: Instant) -> None:
        self._document = document
        self._now = now

    def collect(self) -> Iterator[Family]:
        counts = self._document.get("metrics")
        for metric in METRICS:
            if metric.kind is Kind.GAUGE:
                value = self._gauge(metric.name)
                if value is not None:
                    yield GaugeMetricFamily(metric.name, metric.about, value=value)
            elif isinstance(counts, dict) and isinstance(counts.get(metric.name), dict):
                found = counts[metric.name]
                yield _histogram(found) if metric.name == FINALITY else _counter(metric, found)

    def _gauge(self, name: str) -> float | None:
        if name == "hookprobe_node_status_age_seconds":
            at = self._document.get("at")
            return max(0, self._now - at) / 1e6 if isinstance(at, int) else None
        value = self._document.get(_FIELDS[name])
        if isinstance(value, list):
            return len(value)
        return float(value) if isinstance(value, int) else None


def _counter(metric: Metric, counts: Mapping[str, int]) -> Family:
    labels = [metric.label] if metric.label else []
    family = CounterMetricFamily(metric.name, metric.about, labels=labels)
    for word, count in counts.items():
        family.add_metric([word] if labels else [], count)
    return family


def _histogram(found: Mapping[str, object]) -> Family:
    counts, total_us = found.get("counts"), found.get("sum_us")
    running = 0
    buckets: list[tuple[str, float]] = []
    listed = counts if isinstance(counts, list) else []
    for bound, count in zip((*FINALITY_BOUNDS_S, "+Inf"), listed, strict=False):
        running += int(count)
        buckets.append((str(bound), running))
    family = HistogramMetricFamily(FINALITY, BY_NAME[FINALITY].about)
    if buckets:
        seconds = total_us / 1e6 if isinstance(total_us, int) else 0.0
        family.add_metric([], buckets, sum_value=seconds)
    return family


def render(document: Mapping[str, object], now: Instant) -> bytes:
    """Return the metrics of a status in Prometheus' text format 0.0.4.

    Args:
        document: What `runtime/status.py` reads.
        now: For the age of the status.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Status(document, now))
    return generate_latest(registry)

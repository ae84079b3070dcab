"""Denial of service: half-open floods, slow HTTP, and sheer packet rate, from finished flows.

False positives thought of:

* A popular server that is down leaves many half-open connections; a hundred within seconds is an
  emergency either way. Forged sources are never named: the target is what the incident is about.
* Idle keep-alive and long polling hold connections too, but they were answered: slow HTTP asks for
  many connections from one client, each long, with next to nothing in either direction.
* One-way UDP at high rate is also video; multicast is left out and answers are a tenth at least
  in protocols that care.
"""

from hookprobe.detection.address import Networks
from hookprobe.detection.attack import Family
from hookprobe.detection.config import FloodConfig
from hookprobe.detection.event import Activity, FlowSeen, Outcome
from hookprobe.detection.evidence import EvidenceTable, Sighting
from hookprobe.detection.finding import Finding, findings
from hookprobe.wire.instant import SECOND

_WEB_PORTS = frozenset({80, 443, 8000, 8080, 8443})
_ONE_WAY = 10  # packets out for each packet back


class FloodDetector:
    """SYN floods, slow HTTP attacks, and floods of packets or addresses.

    Args:
        config: Thresholds.
        home: The networks that are ours.
    """

    def __init__(self, config: FloodConfig, home: Networks) -> None:
        self._config = config
        self._home = home
        self._half_open = EvidenceTable(config.half_open)
        self._slow = EvidenceTable(config.slow_http)
        self._datagrams = EvidenceTable(config.datagrams)
        self._pings = EvidenceTable(config.pings)
        self._strangers = EvidenceTable(config.strangers)

    def observe(self, record: Activity) -> list[Finding]:
        if not isinstance(record, FlowSeen) or record.conversation.dst.is_group:
            return []
        if record.conversation.proto == "TCP":
            if record.outcome is Outcome.ESTABLISHED:
                return self._slow_http(record)
            return self._half_open_flood(record) or self._address_flood(record)
        return self._spread_flood(record) or self._packet_flood(record)

    def _half_open_flood(self, flow: FlowSeen) -> list[Finding]:
        if flow.outcome not in {Outcome.HALF_OPEN, Outcome.UNANSWERED}:
            return []
        between = flow.conversation
        sightings = self._half_open.observe(
            (between.dst.packed, between.dst_port), (between.src.packed, between.src_port), flow.at
        )
        return [_nobody(Family.SYN_FLOOD, flow, sighting) for sighting in sightings]

    def _slow_http(self, flow: FlowSeen) -> list[Finding]:
        between, config = flow.conversation, self._config
        is_web = flow.app_proto == "http" or (not flow.app_proto and between.dst_port in _WEB_PORTS)
        if (
            not is_web
            or flow.end - flow.at < config.slow_http_duration_us
            or flow.bytes_out > config.slow_http_out_bytes_max
            or flow.bytes_back > config.slow_http_back_bytes_max
        ):
            return []
        key = (between.src.packed, between.dst.packed, between.dst_port)
        sightings = self._slow.observe(key, between.src_port, flow.at)
        return findings(Family.SLOW_HTTP, sightings, between)

    def _address_flood(self, flow: FlowSeen) -> list[Finding]:
        between = flow.conversation
        if flow.outcome is not Outcome.UNANSWERED:
            return []
        if between.src in self._home or between.dst in self._home:
            return []
        # Distinct senders count: one stranger that tries many others is a scanner.
        sightings = self._strangers.observe("wire", between.src.packed, flow.at)
        return [Finding(Family.ADDRESS_FLOOD, sighting) for sighting in sightings]

    def _spread_flood(self, flow: FlowSeen) -> list[Finding]:
        between = flow.conversation
        if between.proto == "UDP" and flow.outcome is Outcome.UNANSWERED:
            end = (between.src.packed, between.src_port)
            key = (between.dst.packed, between.dst_port)
            sightings = self._datagrams.observe(key, end, flow.at)
        elif "ICMP" in between.proto:
            sightings = self._pings.observe(between.dst.packed, between.src.packed, flow.at)
        else:
            return []
        return [_nobody(Family.PACKET_FLOOD, flow, sighting) for sighting in sightings]

    def _packet_flood(self, flow: FlowSeen) -> list[Finding]:
        config, is_icmp = self._config, "ICMP" in flow.conversation.proto
        limit = config.icmp_packets_per_s if is_icmp else config.udp_packets_per_s
        duration_us = max(flow.end - flow.at, SECOND)
        if flow.packets_out < config.flow_packets_min:
            return []
        if flow.packets_out * SECOND < limit * duration_us:
            return []
        if not is_icmp and flow.packets_back * _ONE_WAY > flow.packets_out:
            return []
        return [_nobody(Family.PACKET_FLOOD, flow, Sighting(flow.at, flow.end, 1))]


def _nobody(family: Family, flow: FlowSeen, sighting: Sighting) -> Finding:
    target = flow.conversation.dst
    port = flow.conversation.dst_port
    apart = target.packed + port.to_bytes(2, "big")
    return Finding(family, sighting, target=target, target_port=port, apart=apart)

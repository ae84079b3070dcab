"""Port and host scans, from finished flows.

A probe is a flow that went nowhere: refused, unanswered, cut off after the handshake, or (stealth
scans) packets that belong to no handshake. Counting probes only keeps busy honest clients quiet:

* A page load opens many connections, but they carry data.
* A dead server is retried on the same port, which counts once.
* When the uplink dies every connection of every client goes unanswered. Unanswered web and name
  lookups from home therefore do not count towards a horizontal scan.
* Stray answers of a flood (from port 80 to random high ports) look like a scan by the victim.
  Packets without a handshake count only when they go to the lower port.
* traceroute sends to ever higher UDP ports that nobody answers; its range is left out.
* A sensor that starts late sees the keep-alive packets of idle connections, one per server: packets
  without a handshake count towards the ports of one host only.
* Peer-to-peer clients knock at many dead peers, mostly by UDP: unanswered datagrams from home to
  the outside do not count towards a horizontal scan. Known weakness: those that insist on TCP.
"""

from hookprobe.detection.address import Networks
from hookprobe.detection.attack import Family
from hookprobe.detection.config import ScanConfig
from hookprobe.detection.event import Activity, FlowSeen, Outcome
from hookprobe.detection.evidence import EvidenceTable
from hookprobe.detection.finding import Finding, findings

_OUTAGE_PORTS = frozenset({53, 80, 123, 443})
_SYSTEM_PORT_MAX = 1023
_UDP_PACKETS_MAX = 3
# traceroute counts ports up from here, three for each of at most 64 hops.
_TRACEROUTE_PORTS = range(33_434, 33_434 + 3 * 64)


class ScanDetector:
    """Vertical, horizontal and slow scans.

    Args:
        config: Thresholds.
        home: The networks that are ours.
    """

    def __init__(self, config: ScanConfig, home: Networks) -> None:
        self._config = config
        self._home = home
        self._vertical = EvidenceTable(config.vertical)
        self._horizontal = EvidenceTable(config.horizontal)
        self._slow = EvidenceTable(config.slow, span_us=config.slow_span_us)

    def observe(self, record: Activity) -> list[Finding]:
        if not isinstance(record, FlowSeen) or not self._is_probe(record):
            return []
        between, at = record.conversation, record.at
        if between.dst.is_group or between.src == between.dst:
            return []
        pair = (between.src.packed, between.dst.packed)
        port = (between.proto, between.dst_port)
        vertical = self._vertical.observe(pair, port, at)
        found = findings(Family.VERTICAL_SCAN, vertical, between)
        if not self._may_be_honest(record):
            wide = (between.src.packed, *port)
            horizontal = self._horizontal.observe(wide, between.dst.packed, at)
            found += findings(Family.HORIZONTAL_SCAN, horizontal, between)
        slow = self._slow.observe(pair, port, at)
        if slow and not self._vertical.is_hot(pair, at):
            found += findings(Family.SLOW_SCAN, slow, between)
        return found

    def _is_probe(self, flow: FlowSeen) -> bool:
        between = flow.conversation
        if between.proto == "UDP":
            return (
                flow.packets_back == 0
                and flow.packets_out <= _UDP_PACKETS_MAX
                and between.dst_port not in _TRACEROUTE_PORTS
            )
        if between.proto != "TCP" or flow.app_proto:
            return False
        if flow.outcome is Outcome.UNTRACKED:
            downwards = _SYSTEM_PORT_MAX < between.src_port > between.dst_port
            return downwards and self._is_tiny(flow)
        if flow.outcome is Outcome.ESTABLISHED:
            return self._is_tiny(flow)
        return True

    def _is_tiny(self, flow: FlowSeen) -> bool:
        return (
            flow.packets_out <= self._config.probe_packets_max
            and flow.packets_back <= self._config.probe_packets_max
            and flow.bytes_out <= self._config.probe_packet_bytes_max * flow.packets_out
        )

    def _may_be_honest(self, flow: FlowSeen) -> bool:
        """Whether many hosts on this port may be an outage, or idle connections kept alive."""
        between = flow.conversation
        if flow.outcome is Outcome.UNTRACKED:
            return True
        if flow.outcome is not Outcome.UNANSWERED or between.src not in self._home:
            return False
        calls_peers = between.proto == "UDP" and between.dst not in self._home
        return calls_peers or between.dst_port in _OUTAGE_PORTS

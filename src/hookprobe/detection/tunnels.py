"""Data smuggled out in DNS names or ICMP payloads.

DNS: a tunnel asks for many different names under one domain, since a repeated name would be
answered from a cache. A question counts when its type is made for carrying data (NULL, private
use) or when its name is longer than names are for people. Thirty such names under one domain in
two minutes. False positives thought of: reverse lookups of IPv6 have 72 characters (left out, with
everything under .arpa and .local); content networks use long names, but few different ones at a
time; reputation services (antivirus, mail block lists) do tunnel data in names, deliberately: they
belong into the operator's exceptions.

ICMP: a tunnel fills packets towards the MTU and keeps at it, both ways.
"""

from hookprobe.detection.attack import Family
from hookprobe.detection.config import TunnelConfig
from hookprobe.detection.event import Activity, DnsSeen, FlowSeen
from hookprobe.detection.evidence import EvidenceTable, Sighting
from hookprobe.detection.finding import Finding

_CARRIER_TYPES = frozenset({"NULL", "PRIVATE", "KEY", "TYPE65399", "UNKNOWN"})
_LOCAL_SUFFIXES = (".arpa", ".local", ".lan", ".home", ".internal")
_COUNTRY_LETTERS = 2
_SHORT_LABEL = 3


class TunnelDetector:
    """DNS and ICMP tunnels."""

    def __init__(self, config: TunnelConfig) -> None:
        self._config = config
        self._dns = EvidenceTable(config.dns)

    def observe(self, record: Activity) -> list[Finding]:
        if isinstance(record, DnsSeen) and not record.is_answer:
            return self._question(record)
        if isinstance(record, FlowSeen) and "ICMP" in record.conversation.proto:
            return self._ping(record)
        return []

    def _question(self, question: DnsSeen) -> list[Finding]:
        name = question.name.lower().rstrip(".")
        if name.endswith(_LOCAL_SUFFIXES):
            return []
        is_carrier = question.rrtype.upper() in _CARRIER_TYPES
        if not is_carrier and len(name) < self._config.name_length_min:
            return []
        domain = registered_domain(name)
        between = question.conversation
        # Names differ at the front, where the data is.
        sightings = self._dns.observe((between.src.packed, domain), name[:64], question.at)
        return [
            Finding(
                Family.DNS_TUNNEL,
                sighting,
                source=between.src,
                target=between.dst,
                target_port=between.dst_port,
                domain=domain,
                apart=domain.encode("utf-8", "surrogatepass"),
            )
            for sighting in sightings
        ]

    def _ping(self, flow: FlowSeen) -> list[Finding]:
        packets, size = self._config.icmp_packets_min, self._config.icmp_packet_bytes_min
        if (
            flow.packets_out < packets
            or flow.packets_back < packets
            or flow.bytes_out + flow.bytes_back < size * (flow.packets_out + flow.packets_back)
        ):
            return []
        between = flow.conversation
        sighting = Sighting(flow.at, flow.end, 1)
        apart = between.dst.packed
        return [Finding(Family.ICMP_TUNNEL, sighting, between.src, between.dst, apart=apart)]


def registered_domain(name: str) -> str:
    """Return the part of a name that somebody registered, by shape.

    Two labels, or three where the last two look like a country's second level (`co.uk`). The
    Public Suffix List would know better; for counting names under one owner the shape suffices.
    """
    labels = name.rsplit(".", 3)
    if len(labels) > 2 and len(labels[-1]) == _COUNTRY_LETTERS and len(labels[-2]) <= _SHORT_LABEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])

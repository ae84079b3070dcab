"""ARP and DHCP on the local segment: two owners of one address, two servers with other answers.

Suricata writes `arp` events from version 8 on, Zeek with its ARP policy; older sensors leave ARP
spoofing invisible. False positives thought of: a fail-over pair moves an address rarely and, with
VRRP, under one shared MAC; two DHCP servers that back each other up hand out the same router.
Zeek's dhcp.log does not name the router, so there two servers on one subnet count as they are.
"""

from hookprobe.detection.attack import Family
from hookprobe.detection.config import LocalNetworkConfig
from hookprobe.detection.event import Activity, ArpSeen, DhcpSeen
from hookprobe.detection.evidence import EvidenceTable, Sighting
from hookprobe.detection.finding import Finding

_SERVER_ANSWERS = frozenset({"offer", "ack"})


class LocalNetworkDetector:
    """ARP spoofing and scans, rogue DHCP servers, DHCP pool exhaustion."""

    def __init__(self, config: LocalNetworkConfig) -> None:
        self._owners = EvidenceTable(config.owners)
        self._servers = EvidenceTable(config.servers)
        self._asked = EvidenceTable(config.arp_scan)
        self._clients = EvidenceTable(config.starvation)
        self._leases = EvidenceTable(config.greed)

    def observe(self, record: Activity) -> list[Finding]:
        if isinstance(record, ArpSeen):
            return self._spoof(record) + self._sweep(record)
        if isinstance(record, DhcpSeen):
            return self._rogue(record) + self._starvation(record)
        return []

    def _spoof(self, arp: ArpSeen) -> list[Finding]:
        # A probe for a free address (RFC 5227) claims none: its sender address is zero.
        if arp.address.is_group or not arp.mac:
            return []
        owner = arp.address
        return [
            Finding(Family.ARP_SPOOFING, sighting, target=owner, apart=owner.packed)
            for sighting in self._owners.observe(owner.packed, arp.mac, arp.at)
        ]

    def _sweep(self, arp: ArpSeen) -> list[Finding]:
        if arp.operation != "request" or arp.target is None or arp.address.is_group:
            return []
        sightings = self._asked.observe(arp.mac, arp.target.packed, arp.at)
        return [
            Finding(Family.ARP_SCAN, sighting, source=arp.address, target=arp.target)
            for sighting in sightings
        ]

    def _rogue(self, dhcp: DhcpSeen) -> list[Finding]:
        if dhcp.kind not in _SERVER_ANSWERS or dhcp.server is None or dhcp.assigned is None:
            return []
        subnet = dhcp.assigned.network24()
        answer = tuple(sorted(dhcp.routers)) or dhcp.server.packed
        return [
            Finding(Family.ROGUE_DHCP, sighting, target=dhcp.server, target_port=67, apart=subnet)
            for sighting in self._servers.observe(subnet, answer, dhcp.at)
        ]

    def _starvation(self, dhcp: DhcpSeen) -> list[Finding]:
        """Many clients at once (forged), or one that takes address after address."""
        sightings: list[Sighting] = []
        if dhcp.kind == "discover":
            sightings += self._clients.observe("segment", dhcp.client_mac, dhcp.at)
        if dhcp.assigned is not None and not dhcp.assigned.is_group:
            sightings += self._leases.observe(dhcp.client_mac, dhcp.assigned.packed, dhcp.at)
        return [Finding(Family.DHCP_STARVATION, sighting) for sighting in sightings]

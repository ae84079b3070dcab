"""Every threshold of the detection room, with its unit and where it comes from.

A rule looks at two neighbouring buckets of event time, so its window is between one and two
buckets long. Thresholds count distinct things (ports, hosts, connections), never lines.
"""

from dataclasses import dataclass, field, fields

from hookprobe.detection.address import HOME_NETWORKS
from hookprobe.errors import ConfigError
from hookprobe.wire.instant import HOUR, MINUTE, SECOND


@dataclass(frozen=True, slots=True)
class Rule:
    """So many distinct items under one key within two neighbouring buckets.

    Args:
        bucket_us: Length of a bucket; divides the incident window.
        threshold: Distinct items that make it a finding.
        keys_max: Keys remembered; the least recently seen is forgotten first.
        items_max: Distinct items remembered per key and bucket.
    """

    bucket_us: int
    threshold: int
    keys_max: int = 4096
    items_max: int = 512


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """Port and host scans: probes that were refused, unanswered or cut off."""

    # Zeek's scan policy took 15 ports with any failed connection; probes allow a little fewer.
    vertical: Rule = Rule(bucket_us=MINUTE, threshold=12)
    # Zeek took 25 hosts with any failed connection; refused and cut-off probes allow fewer.
    horizontal: Rule = Rule(bucket_us=MINUTE, threshold=6)
    # nmap -T1 sends a probe every 15 s: 60 to 120 in this window. Eight closed ports on one host
    # within half an hour are not reached by accident either.
    slow: Rule = Rule(bucket_us=15 * MINUTE, threshold=8)
    slow_span_us: int = 45 * SECOND
    probe_packets_max: int = 4
    probe_packet_bytes_max: int = 80


@dataclass(frozen=True, slots=True)
class FloodConfig:
    """Floods: more than a server's backlog (Linux default 128 to 4096) can hold, or sheer rate."""

    half_open: Rule = Rule(bucket_us=10 * SECOND, threshold=100, items_max=256)
    slow_http: Rule = Rule(bucket_us=MINUTE, threshold=20)
    # Slow headers and bodies dribble: long, few bytes, next to nothing back.
    slow_http_duration_us: int = 8 * SECOND
    slow_http_out_bytes_max: int = 4096
    slow_http_back_bytes_max: int = 1500
    # Datagrams nobody answers, from that many ends; pings from that many addresses.
    datagrams: Rule = Rule(bucket_us=10 * SECOND, threshold=300)
    pings: Rule = Rule(bucket_us=10 * SECOND, threshold=100)
    # macof and its like make up both ends: strangers talking to strangers on our wire.
    strangers: Rule = Rule(bucket_us=10 * SECOND, threshold=400)
    udp_packets_per_s: int = 1000
    icmp_packets_per_s: int = 100
    flow_packets_min: int = 1000


@dataclass(frozen=True, slots=True)
class BruteForceConfig:
    """Password guessing."""

    # OpenSSH allows 6 guesses a connection: 6 connections are up to 36 passwords in two minutes.
    ssh: Rule = Rule(bucket_us=MINUTE, threshold=6)
    # Key exchange alone takes about 8 packets; a session that got in and worked takes more than 40.
    ssh_packets_min: int = 10
    ssh_packets_max: int = 40
    ssh_bytes_max: int = 6000
    refused: Rule = Rule(bucket_us=MINUTE, threshold=8)
    # Short connections from outside to a service that asks for a password.
    service: Rule = Rule(bucket_us=MINUTE, threshold=20)
    service_ports: tuple[int, ...] = (
        23,
        110,
        143,
        389,
        445,
        993,
        995,
        1433,
        3306,
        3389,
        5432,
        5900,
    )
    service_packets_max: int = 40


@dataclass(frozen=True, slots=True)
class BeaconConfig:
    """Connections at regular intervals to one outside address."""

    # With no server name (bare address) 10 connections suffice, with one 24: updates and telemetry
    # of honest software name their server.
    unnamed_min: int = 10
    named_min: int = 24
    times_max: int = 128
    # As many connections as the shortest period makes in an incident window: flow records may all
    # come at its end, and must find their handshakes known.
    connections_max: int = 2048
    # Faster than this is polling within a page or a download loop, slower needs days of state.
    period_min_us: int = 1_800_000
    period_max_us: int = HOUR
    # Median absolute deviation of the intervals, as a share of the median: a jitter of +-30 %,
    # spread evenly, gives 15 %.
    deviation_max_percent: int = 18
    keys_max: int = 4096


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """Data carried by DNS names or ICMP payloads."""

    dns: Rule = Rule(bucket_us=MINUTE, threshold=30)
    # Long for a person: DNS-over-anything tools fill names towards the limit of 253.
    name_length_min: int = 40
    icmp_packets_min: int = 50
    # ping sends 98 bytes a packet, a tunnel near the MTU.
    icmp_packet_bytes_min: int = 200


@dataclass(frozen=True, slots=True)
class LocalNetworkConfig:
    """ARP and DHCP on the local segment."""

    owners: Rule = Rule(bucket_us=5 * MINUTE, threshold=2)
    servers: Rule = Rule(bucket_us=10 * MINUTE, threshold=2)
    arp_scan: Rule = Rule(bucket_us=MINUTE, threshold=30)
    starvation: Rule = Rule(bucket_us=MINUTE, threshold=40)
    # One client renews one lease; a second address after a move is honest, eight are not.
    greed: Rule = Rule(bucket_us=MINUTE, threshold=8)


@dataclass(frozen=True, slots=True)
class IncidentConfig:
    """How evidence becomes incidents."""

    # Aligned to event time, so that reading again gives the same incidents.
    window_us: int = HOUR
    # Evidence may come this much later than the newest: flow records arrive a median 65 s late.
    lateness_us: int = 10 * MINUTE
    # With no line at all for this long the open incidents are closed.
    idle_us: int = 5 * MINUTE
    signatures_min: int = 3
    repeats_min: int = 10
    open_max: int = 4096
    closed_max: int = 8192
    suspects_max: int = 8192
    signatures_max: int = 32
    targets_max: int = 8


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """The room's configuration."""

    home_networks: tuple[str, ...] = HOME_NETWORKS
    scans: ScanConfig = field(default_factory=ScanConfig)
    floods: FloodConfig = field(default_factory=FloodConfig)
    brute_force: BruteForceConfig = field(default_factory=BruteForceConfig)
    beacons: BeaconConfig = field(default_factory=BeaconConfig)
    tunnels: TunnelConfig = field(default_factory=TunnelConfig)
    local_network: LocalNetworkConfig = field(default_factory=LocalNetworkConfig)
    incidents: IncidentConfig = field(default_factory=IncidentConfig)
    # Two interfaces see one packet microseconds apart; forwarding under load takes longer.
    double_skew_us: int = 50_000
    doubles_max: int = 8192
    future_skew_us: int = 5 * MINUTE
    sensors_max: int = 16
    streams_max: int = 64
    kinds_max: int = 128

    def __post_init__(self) -> None:
        parts = (self.scans, self.floods, self.brute_force, self.tunnels, self.local_network)
        problems = [
            f"detection.{type(part).__name__}.{each.name}: {problem}"
            for part in parts
            for each in fields(part)
            if isinstance(rule := getattr(part, each.name), Rule)
            and (problem := _problem(rule, self.incidents.window_us))
        ]
        if problems:
            raise ConfigError(problems)


def _problem(rule: Rule, window_us: int) -> str:
    # A bucket across the border of two incident windows would depend on the order of evidence.
    if rule.bucket_us <= 0 or window_us % rule.bucket_us:
        return "bucket_us must divide incidents.window_us"
    if not 0 < rule.threshold <= rule.items_max:
        return "threshold must be from 1 to items_max"
    return ""

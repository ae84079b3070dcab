"""Each detector at its threshold, below it, and on the honest traffic that looks like it."""

import pytest
from tests.unit.detection.detection_replay import between, eve, flow, replay

from hookprobe.detection.address import Networks
from hookprobe.detection.beacons import BeaconDetector
from hookprobe.detection.config import (
    BeaconConfig,
    DetectionConfig,
    FloodConfig,
    Rule,
    ScanConfig,
)
from hookprobe.detection.event import TlsSeen
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.detection.tunnels import registered_domain
from hookprobe.errors import ConfigError
from hookprobe.wire.instant import HOUR, SECOND

BAD, HOST = "203.0.113.66", "10.1.0.20"


def titles(lines: list[bytes]) -> list[str]:
    result = replay(lines)
    assert result.detection.counts().refused == {}
    return result.titles


def probes(count: int, every_s: float = 0.1, **shape: object) -> list[bytes]:
    return [
        flow(n * every_s, between(BAD, 50000, HOST, 1000 + n), **shape)  # type: ignore[arg-type]
        for n in range(count)
    ]


def test_a_vertical_scan_needs_twelve_ports() -> None:
    assert titles(probes(11)) == []
    assert titles(probes(12)) == ["Vertical port scan"]


@pytest.mark.parametrize(
    "shape",
    [
        {"flags": ("02", "14")},
        {"flags": ("02", "00"), "packets": (2, 0)},
        {"flags": ("06", "12"), "packets": (2, 1)},
        {"flags": ("16", "12"), "packets": (3, 1), "bytes_": (180, 60)},
        {"flags": ("00", "00"), "packets": (1, 1)},
        {"flags": ("00", "00"), "packets": (2, 0)},
    ],
    ids=["closed", "filtered", "syn", "connect", "fin-closed", "null-filtered"],
)
def test_every_way_to_probe_is_seen(shape: dict[str, object]) -> None:
    assert titles(probes(30, 0.1, **shape)) == ["Vertical port scan"]


def test_a_udp_scan() -> None:
    lines = [flow(n, between(BAD, 50000, HOST, 1000 + n, "UDP"), packets=(1, 0)) for n in range(30)]
    assert titles(lines) == ["Vertical port scan"]


def test_a_slow_scan_and_the_same_few_ports_again_and_again() -> None:
    assert titles(probes(20, every_s=15)) == ["Slow port scan"]
    retries = [flow(n * 15, between(BAD, 50000 + n, HOST, 1000 + n % 5)) for n in range(100)]
    assert titles(retries) == []


def test_a_horizontal_scan_needs_six_hosts() -> None:
    lines = [flow(n, between(BAD, 50000, f"10.1.0.{n + 20}", 445)) for n in range(6)]
    assert titles(lines[:5]) == []
    assert titles(lines) == ["Horizontal port scan"]


def test_an_outage_is_no_scan() -> None:
    unanswered = {"flags": ("02", "00"), "packets": (3, 0)}
    lines = [
        flow(n, between(HOST, 50000 + n, f"198.51.100.{n}", 443), **unanswered)  # type: ignore[arg-type]
        for n in range(40)
    ]
    assert titles(lines) == []


def test_dead_peers_are_no_scan_but_a_worm_is() -> None:
    peers = [
        flow(n, between(HOST, 6881, f"198.51.100.{n}", 6881, "UDP"), packets=(2, 0))
        for n in range(60)
    ]
    worm = [
        flow(n / 10, between(HOST, 50000 + n, f"198.51.100.{n}", 23), flags=("02", "00"))
        for n in range(60)
    ]
    assert titles(peers) == []
    assert titles(worm) == ["Horizontal port scan"]


def test_pages_full_of_connections_are_no_scan() -> None:
    full = {"flags": ("1b", "1b"), "packets": (12, 20), "bytes_": (2000, 20000)}
    lines = [
        flow(n / 10, between(HOST, 50000 + n, f"198.51.100.{n}", 443), **full)  # type: ignore[arg-type]
        for n in range(60)
    ]
    assert titles(lines) == []


def test_stray_answers_of_a_flood_are_no_scan_by_its_victim() -> None:
    lines = [
        flow(n / 10, between(HOST, 80, BAD, 2000 + n), flags=("00", "00"), packets=(2, 0))
        for n in range(60)
    ]
    assert titles(lines) == []


def test_traceroute_and_multicast_are_no_scan() -> None:
    lines = [
        flow(n, between(HOST, 50000, "198.51.100.1", 33434 + n, "UDP"), packets=(1, 0))
        for n in range(90)
    ]
    lines += [
        flow(n, between(HOST, 50000, "239.255.255.250", 1000 + n, "UDP"), packets=(1, 0))
        for n in range(60)
    ]
    assert titles(lines) == []


def test_keep_alives_seen_midway_are_no_scan() -> None:
    lines = [
        flow(n, between(HOST, 50000 + n, f"198.51.100.{n}", 443), flags=("10", "10"))
        for n in range(40)
    ]
    assert titles(lines) == []


def syns(count: int) -> list[bytes]:
    return [
        flow(
            n / 100, between(f"198.51.{n % 100}.{n // 100}", 2000 + n, HOST, 80), flags=("02", "12")
        )
        for n in range(count)
    ]


def test_a_syn_flood_names_its_target_only() -> None:
    assert titles(syns(99)) == []
    (incident,) = replay(syns(300)).final.values()
    assert incident.title == "SYN flood"
    assert incident.source is None
    assert incident.hostile is None
    assert incident.count == 300
    assert [(each.address.text(), each.port) for each in incident.targets] == [(HOST, 80)]


def test_a_flood_does_not_push_a_scanner_out_of_memory() -> None:
    small = ScanConfig(vertical=Rule(bucket_us=60 * SECOND, threshold=12, keys_max=150))
    lines = probes(11) + syns(2000) + probes(12)[11:]
    found = replay(lines, config=DetectionConfig(scans=small)).titles
    assert found == ["SYN flood", "Vertical port scan"]


def test_floods_of_datagrams_pings_and_made_up_addresses() -> None:
    datagrams = [
        flow(n / 100, between(BAD, 2000 + n, HOST, 53, "UDP"), packets=(1, 0)) for n in range(400)
    ]
    assert "Packet flood" in titles(datagrams)
    pings = [flow(n / 100, between(f"198.51.100.{n}", 0, HOST, 0, "ICMP")) for n in range(150)]
    assert titles(pings) == ["Packet flood"]
    one = flow(0, between(BAD, 0, HOST, 0, "ICMP"), packets=(5000, 5000), duration_s=10)
    assert titles([one]) == ["Packet flood"]
    stream = flow(0, between(BAD, 7, HOST, 7, "UDP"), packets=(50_000, 0), duration_s=10)
    assert titles([stream]) == ["Packet flood"]
    macof = [
        flow(
            n / 100,
            between(f"198.{n % 250}.1.{n // 250}", 1000 + n, f"203.{n % 250}.9.9", 2000 + n),
            flags=("02", "00"),
            packets=(1, 0),
        )
        for n in range(500)
    ]
    assert titles(macof) == ["Flood of made-up addresses"]


def test_ping_and_video_are_no_flood() -> None:
    ping = flow(0, between(HOST, 0, BAD, 0, "ICMP"), packets=(3600, 3600), duration_s=3600)
    video = flow(0, between(BAD, 443, HOST, 50000, "UDP"), packets=(9000, 3000), duration_s=5)
    assert titles([ping, video]) == []


def slow(n: int, **change: object) -> bytes:
    shape: dict[str, object] = {
        "flags": ("1b", "13"),
        "packets": (10, 8),
        "bytes_": (1100, 500),
        "duration_s": 15,
        "app_proto": "http",
    }
    return flow(n / 10, between(BAD, 50000 + n, HOST, 80), **{**shape, **change})  # type: ignore[arg-type]


def test_slow_http_needs_twenty_starving_connections() -> None:
    assert titles([slow(n) for n in range(19)]) == []
    assert titles([slow(n) for n in range(20)]) == ["Slow HTTP attack"]
    assert titles([slow(n, bytes_=(1100, 9000)) for n in range(60)]) == []
    assert titles([slow(n, duration_s=2) for n in range(60)]) == []


def ssh(n: int, **change: object) -> bytes:
    shape: dict[str, object] = {
        "flags": ("1b", "1b"),
        "packets": (17, 16),
        "bytes_": (2700, 3100),
        "app_proto": "ssh",
    }
    return flow(n * 5, between(BAD, 50000 + n, HOST, 22), **{**shape, **change})  # type: ignore[arg-type]


def test_ssh_guessing_and_ssh_working() -> None:
    assert titles([ssh(n) for n in range(5)]) == []
    assert titles([ssh(n) for n in range(6)]) == ["SSH password guessing"]
    assert titles([ssh(n, packets=(200, 300), bytes_=(30000, 90000)) for n in range(30)]) == []
    assert titles([ssh(n, packets=(7, 7)) for n in range(30)]) == []


def test_refused_logins() -> None:
    http = [
        eve(
            "http",
            n,
            http={"hostname": "a.example", "url": "/x", "http_method": "GET", "status": 401},
            **between(BAD, 50000 + n, HOST, 80),
        )
        for n in range(8)
    ]
    assert titles(http[:7]) == []
    assert titles(http) == ["Password guessing"]
    one_connection = [
        eve("http", n, http={"url": "/", "status": 401}, tx_id=n, **between(BAD, 50000, HOST, 80))
        for n in range(8)
    ]
    assert titles(one_connection) == ["Password guessing"]
    welcome = [each.replace(b"401", b"200") for each in http * 5]
    assert titles(welcome) == []


def test_a_login_form_and_any_other_form() -> None:
    def post(url: str) -> list[bytes]:
        body = {"hostname": "a.example", "url": url, "http_method": "POST", "status": 200}
        return [eve("http", n, http=body, **between(BAD, 50000 + n, HOST, 80)) for n in range(40)]

    assert titles(post("/wp-login.php")) == ["Password guessing"]
    assert titles(post("/cart/update")) == []


def test_services_are_guessed_from_outside() -> None:
    def tries(src: str) -> list[bytes]:
        shape = {"flags": ("1b", "1b"), "packets": (8, 7), "bytes_": (700, 700)}
        return [
            flow(n, between(src, 50000 + n, HOST, 3306), **shape)  # type: ignore[arg-type]
            for n in range(40)
        ]

    assert titles(tries(BAD)) == ["Repeated short logins to a service"]
    assert titles(tries("10.1.0.9")) == []


def beacon(times: list[float], *, sni: str = "", dst: str = "203.0.113.10") -> list[bytes]:
    body = {"sni": sni} if sni else {}
    return [
        eve("tls", at, tls=body, **between(HOST, 50000 + n, dst, 443)) for n, at in enumerate(times)
    ]


JITTER = [0.0, 0.9, -0.8, 0.3, 0.6, -0.2, -0.9, 0.7, 0.1, -0.5]


def test_a_beacon_with_jitter() -> None:
    steady = [n * 10 + JITTER[n % 10] for n in range(40)]
    assert titles(beacon(steady[:9])) == []
    assert titles(beacon(steady[:10])) == ["Periodic connections (beacon)"]
    missed = [at for n, at in enumerate(steady) if n % 7]
    assert titles(beacon(missed)) == ["Periodic connections (beacon)"]


def test_honest_regularity_is_no_beacon() -> None:
    steady = [n * 10 + JITTER[n % 10] for n in range(40)]
    assert titles(beacon(steady[:20], sni="updates.example")) == []
    assert titles(beacon(steady, dst="10.9.9.9")) == []
    assert titles(beacon([n * 0.5 for n in range(100)])) == []
    browsing = [float(n * n) for n in range(50)]
    assert titles(beacon(browsing)) == []


def test_a_connection_reported_twice_is_one() -> None:
    steady = [n * 10.0 for n in range(9)]
    flows = [
        flow(
            at - 0.01,
            between(HOST, 50000 + n, "203.0.113.10", 443),
            flags=("1b", "1b"),
            packets=(9, 9),
            bytes_=(900, 900),
            app_proto="tls",
        )
        for n, at in enumerate(steady)
    ]
    assert titles(beacon(steady) + flows) == []


def questions(names: list[str], rrtype: str = "A") -> list[bytes]:
    ends = between(HOST, 50000, "10.1.0.1", 53, "UDP")
    return [
        eve("dns", n, dns={"type": "query", "rrname": name, "rrtype": rrtype, "id": n}, **ends)
        for n, name in enumerate(names)
    ]


def test_dns_tunnels() -> None:
    long = [f"{n:040x}.t.evil.example" for n in range(30)]
    assert titles(questions(long[:29])) == []
    (incident,) = replay(questions(long)).final.values()
    assert incident.title == "Data carried in DNS names"
    assert incident.hostile_domain == "evil.example"
    assert incident.hostile is None
    short = [f"p{n}.t.evil.example" for n in range(30)]
    assert titles(questions(short, "NULL")) == ["Data carried in DNS names"]


def test_honest_names_are_no_tunnel() -> None:
    assert titles(questions([f"img{n}.shop.example" for n in range(200)])) == []
    assert (
        titles(questions(["a-very-long-but-single-name-of-a-content-network.example"] * 200)) == []
    )
    nibbles = ".".join("0123456789abcdef" * 2)
    assert titles(questions([f"{n}.{nibbles}.ip6.arpa" for n in range(100)], "PTR")) == []


def test_icmp_tunnel_and_ping() -> None:
    ends = between(HOST, 0, "203.0.113.10", 0, "ICMP")
    tunnel = flow(0, ends, packets=(60, 60), bytes_=(60_000, 60_000), duration_s=30)
    ping = flow(0, ends, packets=(60, 60), bytes_=(5880, 5880), duration_s=60)
    assert titles([tunnel]) == ["Data carried in ICMP"]
    assert titles([ping]) == []


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.evil.example", "evil.example"),
        ("a.evil.co.uk", "evil.co.uk"),
        ("evil.example", "evil.example"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_registered_domain(name: str, domain: str) -> None:
    assert registered_domain(name) == domain


def arp(at_s: float, address: str, mac: str, operation: str = "reply", target: str = "") -> bytes:
    body = {"opcode": operation, "src_mac": mac, "src_ip": address, "dest_ip": target}
    return eve("arp", at_s, arp=body)


def test_arp_spoofing_of_suricata_8() -> None:
    honest = [arp(n, "10.1.0.1", "32:ed:60:c1:20:70") for n in range(5)]
    probe = [arp(3, "0.0.0.0", f"aa:00:00:00:00:0{n}", "request") for n in range(5)]
    assert titles(honest + probe) == []
    (incident,) = replay([*honest, arp(6, "10.1.0.1", "6e:fd:74:48:81:1a")]).final.values()
    assert incident.title == "Two owners of one address"
    assert incident.hostile is None


def test_arp_scan() -> None:
    lines = [arp(n / 10, HOST, "aa", "request", f"10.1.0.{n}") for n in range(1, 31)]
    assert titles(lines[:29]) == []
    assert titles(lines) == ["ARP scan"]


def offer(at_s: float, server: str, router: str, address: str) -> bytes:
    body = {
        "type": "reply",
        "dhcp_type": "offer",
        "id": round(at_s * 10),
        "client_mac": "02:00:00:00:00:01",
        "assigned_ip": address,
        "routers": [router],
    }
    return eve("dhcp", at_s, dhcp=body, src_ip=server, dest_ip="255.255.255.255")


def test_rogue_dhcp_and_honest_pairs() -> None:
    honest = offer(0, "10.1.0.1", "10.1.0.1", "10.1.0.50")
    partner = offer(1, "10.1.0.2", "10.1.0.1", "10.1.0.60")
    other_subnet = offer(2, "10.2.0.1", "10.2.0.1", "10.2.0.50")
    rogue = offer(3, "10.1.0.66", "10.1.0.66", "10.1.0.203")
    assert titles([honest, partner, other_subnet]) == []
    assert titles([honest, rogue]) == ["Two DHCP servers disagree"]


def test_dhcp_exhaustion() -> None:
    lines = [
        eve(
            "dhcp", n / 10, dhcp={"type": "request", "dhcp_type": "discover", "client_mac": f"m{n}"}
        )
        for n in range(40)
    ]
    assert titles(lines[:39]) == []
    assert titles(lines) == ["DHCP pool exhaustion"]


def test_thresholds_are_checked() -> None:
    crooked = FloodConfig(half_open=Rule(bucket_us=7, threshold=1000))
    with pytest.raises(ConfigError, match="half_open: bucket_us must divide"):
        DetectionConfig(floods=crooked)
    blind = ScanConfig(vertical=Rule(bucket_us=SECOND, threshold=513))
    with pytest.raises(ConfigError, match="vertical: threshold"):
        DetectionConfig(scans=blind)


def test_what_a_beacon_costs_is_bounded() -> None:
    config = BeaconConfig(keys_max=3, times_max=16, connections_max=20)
    detector = BeaconDetector(config, Networks(), HOUR)
    for n in range(200):
        for line in beacon([n * 10.0 + 5], dst=f"203.0.113.{n % 5}"):
            record = parse_eve_line(line)
            assert isinstance(record, TlsSeen)
            detector.observe(record)
    assert len(detector._trains) == 3
    for n, line in enumerate(beacon([n * 10.0 for n in range(100)])):
        record = parse_eve_line(line)
        assert isinstance(record, TlsSeen), n
        detector.observe(record)
    train = next(reversed(detector._trains.values()))
    assert len(train.starts) == 16
    assert len(train.connections) == 20


def test_an_outage_is_no_flood_of_made_up_addresses() -> None:
    def calls(src: str) -> list[bytes]:
        return [
            flow(
                n / 100,
                between(src, 1000 + n, f"198.51.{n // 250}.{n % 250}", 443),
                flags=("02", "00"),
                packets=(3, 0),
            )
            for n in range(450)
        ]

    assert titles(calls(HOST)) == []
    assert titles(calls(BAD)) == ["Horizontal port scan"]


def test_replies_that_never_come_home_are_no_flood_either() -> None:
    lines = [
        flow(
            n / 100,
            between(f"198.51.{n // 250}.{n % 250}", 1000 + n, f"10.1.{n // 250}.{n % 250}", 443),
            flags=("02", "00"),
            packets=(1, 0),
        )
        for n in range(450)
    ]
    assert titles(lines) == []

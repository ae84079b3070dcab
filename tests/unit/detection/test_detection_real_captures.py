"""Recorded attacks and benign traffic: what must be found, and where silence is right."""

import random

import pytest
from tests.unit.detection.detection_replay import OUTSIDE, eve_lines, keyed, replay

from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Severity
from hookprobe.detection.incident import Incident, IncidentOpened
from hookprobe.detection.pipeline import Detection, HealthReported, LineRefused

NSE = "ET SCAN Nmap Scripting Engine User-Agent Detected (Nmap Scripting Engine)"
LIBSSH = "ET SCAN LibSSH Based Frequent SSH Connections Likely BruteForce Attack"
FTP = "ET SCAN Potential FTP Brute-Force attempt response"
HEARTBEAT = "SURICATA TLS invalid heartbeat encountered, possible exploit attempt (heartbleed)"
# Capture: each incident's title, count, source and the address told to others.
ATTACKS: dict[str, list[tuple[str, int, str | None, str | None]]] = {
    "scan-syn-vertical": [("Vertical port scan", 1000, "203.0.113.66", "203.0.113.66")],
    "scan-horizontal": [("Horizontal port scan", 24, "203.0.113.66", "203.0.113.66")],
    "scan-service-nse": [(NSE, 29, "203.0.113.66", "203.0.113.66")],
    "brute-ssh": [
        (LIBSSH, 1, "203.0.113.66", "203.0.113.66"),
        ("SSH password guessing", 9, "203.0.113.66", "203.0.113.66"),
    ],
    "brute-http-basic": [
        ("ET SCAN Tomcat Auth Brute Force attempt (admin)", 8, "203.0.113.66", "203.0.113.66"),
        ("Password guessing", 40, "203.0.113.66", "203.0.113.66"),
    ],
    "brute-ftp": [
        (FTP, 6, "192.168.56.1", None),
        ("Password guessing", 30, "192.168.56.1", None),
    ],
    "dns-tunnel-iodine": [("Data carried in DNS names", 382, "10.1.0.20", "203.0.113.10")],
    "c2-beacon-tls": [("Periodic connections (beacon)", 24, "10.1.0.20", "203.0.113.10")],
    "c2-beacon-http": [("Periodic connections (beacon)", 12, "10.1.0.20", "203.0.113.10")],
    "dos-syn-flood": [("SYN flood", 5000, None, None)],
    "dos-slowloris": [("Slow HTTP attack", 60, "203.0.113.66", "203.0.113.66")],
    "dhcp-rogue": [("Two DHCP servers disagree", 11, None, None)],
    "lateral-psexec-smb": [
        ("ET RPC DCERPC SVCCTL - Remote Service Control Manager Access", 1, "192.168.10.31", None)
    ],
    "botnet-mirai-ua": [
        ("ET SCAN Mirai Variant User-Agent (Inbound)", 2, "41.108.52.138", "41.108.52.138")
    ],
    "botnet-irc": [
        ("ET CHAT IRC USER Likely bot with 0 0 colon checkin", 1, "172.16.1.10", "69.64.34.124")
    ],
    "exploit-heartbleed": [(HEARTBEAT, 2, "173.203.79.216", "173.203.79.216")],
    "tls-expired-cert": [("Expired server certificate", 1, None, None)],
    "live-edgeA": [
        (LIBSSH, 2, "203.0.113.66", "203.0.113.66"),
        ("SSH password guessing", 9, "203.0.113.66", "203.0.113.66"),
        ("Vertical port scan", 600, "203.0.113.66", "203.0.113.66"),
    ],
}
if any(OUTSIDE.glob("eve/c2-periodic-2s.*")):
    ATTACKS["c2-periodic-2s"] = [
        ("Periodic connections (beacon)", 297, "147.32.80.37", "141.193.213.21")
    ]
BUSY = ["live-edgeA"]
if any(OUTSIDE.glob("eve/real-24h-part1.*")):
    BUSY.append("real-24h-part1")

# arp-spoof is an attack, but Suricata 7 writes no ARP events: nothing to see, and no guessing.
SILENT = (
    "benign-mix",
    "benign-web",
    "ot-modbus",
    "communityid-tcp",
    "communityid-udp",
    "communityid-icmp",
    "arp-spoof",
)


def story(incident: Incident) -> tuple[str, int, str | None, str | None]:
    source = incident.source.text() if incident.source else None
    hostile = incident.hostile.text() if incident.hostile else None
    return (incident.title, incident.count, source, hostile)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_becomes_its_incidents(name: str) -> None:
    result = replay(eve_lines(name))
    found = sorted((story(each) for each in result.final.values()), key=str)
    assert found == sorted(ATTACKS[name], key=str)
    assert not [each for each in result.effects if isinstance(each, LineRefused)]


@pytest.mark.parametrize("name", SILENT)
def test_benign_traffic_is_silent(name: str) -> None:
    result = replay(eve_lines(name))
    assert result.opened == []
    assert not [each for each in result.effects if isinstance(each, LineRefused)]


@pytest.mark.parametrize("name", sorted({*ATTACKS, *SILENT}))
def test_no_event_type_is_unknown(name: str) -> None:
    lines = eve_lines(name)
    counts = replay(lines).detection.counts()
    assert counts.lines == len(lines)
    assert counts.unknown == {}
    assert counts.refused == {}
    assert sum(counts.records.values()) == len(lines)


def test_a_scanner_is_told_in_few_effects() -> None:
    lines = eve_lines("scan-syn-vertical")
    result = replay(lines)
    incident_effects = [each for each in result.effects if not isinstance(each, HealthReported)]
    assert len(lines) == 1001
    # Opened at 12, then 24, 48, 96, 192, 384, 768, then closed.
    assert len(incident_effects) == 8
    assert result.opened[0].count == 12


def test_the_edge_reacts_to_the_first_trigger() -> None:
    lines = eve_lines("scan-service-nse")
    result = replay(lines)
    first = next(each for each in result.effects if isinstance(each, IncidentOpened))
    assert first.incident.count == 1
    assert first.incident.severity is Severity.HIGH
    assert first.incident.techniques == ("T1046",)


def test_weak_alerts_support_the_incident_beside_them() -> None:
    result = replay(eve_lines("lateral-psexec-smb"))
    (incident,) = result.final.values()
    assert incident.supporting == (2010781, 2025699, 2025701)


def test_two_interfaces_count_once() -> None:
    lines = eve_lines("live-edgeA")
    counts = replay(lines).detection.counts()
    # 240 dns, 120 http, 120 tls and 18 ssh lines are pairs; fileinfo is not read.
    assert counts.records["DnsSeen"] == 240
    assert counts.doubles == 120 + 60 + 60 + 9 + 60 + 1578 // 2


@pytest.mark.parametrize("name", sorted({*ATTACKS, *SILENT}))
def test_every_line_twice_changes_nothing(name: str) -> None:
    lines = eve_lines(name)
    once = replay(lines).final
    twice = replay([line for line in lines for _ in range(2)]).final
    assert {key: story(each) for key, each in twice.items()} == {
        key: story(each) for key, each in once.items()
    }


def jumbled(lines: list[bytes], reach: int) -> list[bytes]:
    """Move each line up to `reach` places."""
    chance = random.Random(7)
    places = [place + chance.randrange(reach + 1) for place in range(len(lines))]
    return [line for _, line in sorted(zip(places, lines, strict=True), key=lambda pair: pair[0])]


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_order_within_the_lateness_changes_nothing(name: str) -> None:
    lines = eve_lines(name)
    shuffled = jumbled(lines, 200)
    assert shuffled != lines or len(lines) < 10
    once, again = replay(lines).final, replay(shuffled).final
    assert {key: story(each) for key, each in again.items()} == {
        key: story(each) for key, each in once.items()
    }


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_reading_again_after_a_crash_opens_nothing_twice(name: str) -> None:
    lines = eve_lines(name)
    first = replay(lines)
    known = [each.key for each in first.opened]
    second = replay(lines, detection=Detection(DetectionConfig(), keyed, announced=known))
    assert second.opened == []
    assert {key: story(each) for key, each in second.final.items()} == {
        key: story(each) for key, each in first.final.items()
    }


@pytest.mark.parametrize("name", BUSY)
def test_a_busy_capture_is_a_handful_of_incidents(name: str) -> None:
    # real-24h: 616 addresses knocked and 368 alerts were raised within a day.
    result = replay(eve_lines(name))
    assert 1 <= len(result.final) <= 5
    assert result.detection.counts().refused == {}

"""From evidence to incidents: what opens one, how it grows, when it ends."""

import hashlib
import json

import pytest
from tests.unit.detection.detection_replay import (
    LATER,
    SENSOR,
    START,
    alert,
    between,
    flow,
    keyed,
    replay,
)

from hookprobe.detection.address import Networks, parse_address
from hookprobe.detection.alert_policy import Weight, weigh
from hookprobe.detection.attack import PROFILES, Category, Family, classify_alert
from hookprobe.detection.config import DetectionConfig, IncidentConfig
from hookprobe.detection.event import SecurityEvent, Sensor, Severity
from hookprobe.detection.incident import IncidentClosed, IncidentOpened, IncidentUpdated
from hookprobe.detection.incidents import IncidentBook
from hookprobe.detection.pipeline import Detection
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.errors import LocalError

ENDS = between("203.0.113.66", 40000, "10.1.0.20", 80)


def many(count: int, every_s: float = 1.0) -> list[bytes]:
    return [alert(n * every_s, {**ENDS, "src_port": 1024 + n}) for n in range(count)]


def test_a_storm_of_one_signature_is_one_incident() -> None:
    result = replay(many(3032, 0.001))
    (incident,) = result.final.values()
    assert incident.count == 3032
    assert len(result.effects) == 13
    assert [type(each) for each in result.effects] == [
        IncidentOpened,
        *[IncidentUpdated] * 11,
        IncidentClosed,
    ]


def event(signature: str, severity: int = 1, sid: int = 2_000_001) -> SecurityEvent:
    record = parse_eve_line(alert(0, ENDS, sid, signature=signature, severity=severity))
    assert isinstance(record, SecurityEvent)
    return record


@pytest.mark.parametrize(
    ("signature", "severity", "weight"),
    [
        ("ET SCAN Something", 1, Weight.TRIGGER),
        ("ET EXPLOIT Something", 2, Weight.SUSPICION),
        ("ET EXPLOIT Something", 3, Weight.SUPPORT),
        ("ET HUNTING curl User-Agent to Dotted Quad", 2, Weight.SUPPORT),
        ("ET INFO Something", 1, Weight.SUPPORT),
        ("GPL ICMP_INFO PING *NIX", 3, Weight.SUPPORT),
        ("SURICATA IPv4 invalid checksum", 3, Weight.NOTHING),
        ("SURICATA STREAM Packet", 1, Weight.NOTHING),
        ("ET CHAT IRC USER Likely bot with 0 0 colon checkin", 3, Weight.TRIGGER),
        ("ET MALWARE Some CnC Checkin", 3, Weight.TRIGGER),
    ],
)
def test_the_policy(signature: str, severity: int, weight: Weight) -> None:
    assert weigh(event(signature, severity)) is weight


def test_an_engine_event_that_names_an_exploit_triggers() -> None:
    name = "SURICATA TLS invalid heartbeat encountered, possible exploit attempt (heartbleed)"
    assert weigh(event(name, 3, 2_230_013)) is Weight.TRIGGER
    assert weigh(event(name, 3, 2_230_099)) is Weight.NOTHING


def suspicion(sids: list[int], src: str = "203.0.113.66") -> list[bytes]:
    return [
        alert(n, {**ENDS, "src_ip": src, "src_port": 1024 + n}, sid, severity=2)
        for n, sid in enumerate(sids)
    ]


def test_three_different_suspicions_make_an_incident() -> None:
    assert replay(suspicion([1, 2, 1, 2, 1, 2])).opened == []
    result = replay(suspicion([1, 2, 1, 3, 3]))
    (incident,) = result.final.values()
    assert incident.signature_id == Family.MANY_SIGNATURES.value
    assert incident.count == 5
    assert incident.supporting == (1, 2, 3)
    assert result.opened[0].first_seen == START


def test_one_suspicion_that_repeats_and_names_an_attack_makes_an_incident() -> None:
    assert replay(suspicion([7] * 9)).opened == []
    (incident,) = replay(suspicion([7] * 25)).final.values()
    assert (incident.signature_id, incident.count) == (7, 25)
    assert incident.severity is Severity.MEDIUM
    nameless = [
        line.replace(b"ET SCAN Something", b"Something odd") for line in suspicion([7] * 25)
    ]
    assert replay(nameless).opened == []


def test_suspicions_of_different_sources_do_not_add_up() -> None:
    lines = suspicion([1]) + suspicion([2], "203.0.113.67") + suspicion([3], "203.0.113.68")
    assert replay(lines).opened == []


def test_ignored_alerts_never_open_whatever_their_number() -> None:
    lines = [
        alert(n, {**ENDS, "src_port": n}, n, signature=f"ET INFO {n}", severity=2)
        for n in range(1, 200)
    ]
    assert replay(lines).effects == []


def test_windows_are_apart_and_close_by_event_time() -> None:
    lines = [alert(0, ENDS), alert(3600, ENDS), alert(7200, ENDS)]
    detection = Detection(DetectionConfig(), keyed)
    effects = [
        type(effect)
        for n, line in enumerate(lines)
        for effect in detection.receive_line(SENSOR, line, n, LATER)
    ]
    assert effects == [
        IncidentOpened,
        IncidentOpened,
        IncidentOpened,
        IncidentClosed,
    ]


def test_late_evidence_is_added_without_opening_again() -> None:
    detection = Detection(DetectionConfig(), keyed)
    first = replay([alert(0, ENDS)], detection=detection)
    late = replay(
        [alert(1, {**ENDS, "src_port": 40001}), alert(2, {**ENDS, "src_port": 40002})],
        detection=detection,
    )
    assert len(first.opened) == 1
    assert late.opened == []
    (incident,) = late.final.values()
    assert incident.key == first.opened[0].key
    assert incident.count == 3


def test_a_severe_rule_raises_its_incident() -> None:
    ordinary = alert(0, ENDS)
    severe = json.loads(alert(1, ENDS))
    severe["alert"]["metadata"] = {"signature_severity": ["Critical"]}
    result = replay([ordinary, json.dumps(severe).encode()])
    assert [type(each) for each in result.effects[:2]] == [IncidentOpened, IncidentUpdated]
    (incident,) = result.final.values()
    assert (result.opened[0].severity, incident.severity) == (Severity.HIGH, Severity.CRITICAL)


def test_keys_are_keyed_and_differ_by_sensor_source_and_signature() -> None:
    base = replay([alert(0, ENDS)]).opened[0].key
    assert replay([alert(5, ENDS)]).opened[0].key == base
    other = {**ENDS, "src_ip": "203.0.113.67"}
    keys = {
        base,
        replay([alert(0, ENDS, 2_000_002)]).opened[0].key,
        replay([alert(0, other)]).opened[0].key,
        replay([alert(0, ENDS)], sensor=Sensor("edge-b")).opened[0].key,
        replay([alert(3600, ENDS)]).opened[0].key,
        replay(
            [alert(0, ENDS)],
            detection=Detection(DetectionConfig(), lambda data: hashlib.sha256(data).digest()),
        )
        .opened[0]
        .key,
    }
    assert len(keys) == 6


def test_a_keyed_hash_of_the_wrong_size_is_our_own_fault() -> None:
    detection = Detection(DetectionConfig(), lambda _data: b"short")
    with pytest.raises(LocalError, match="5 bytes"):
        replay([alert(0, ENDS)], detection=detection)


@pytest.mark.parametrize(
    ("src", "dst", "signature", "hostile"),
    [
        ("203.0.113.66", "10.1.0.20", "ET SCAN x", "203.0.113.66"),
        ("10.1.0.66", "10.1.0.20", "ET SCAN x", None),
        ("10.1.0.20", "203.0.113.10", "ET MALWARE x", "203.0.113.10"),
        ("203.0.113.66", "10.1.0.20", "ET MALWARE x", "203.0.113.66"),
        # A guess from inside at a stranger: the stranger is the victim.
        ("10.1.0.20", "203.0.113.10", "ET EXPLOIT x", None),
    ],
)
def test_only_the_outside_attacker_is_hostile(
    src: str, dst: str, signature: str, hostile: str | None
) -> None:
    (incident,) = replay([alert(0, between(src, 1, dst, 80), signature=signature)]).opened
    assert (incident.hostile.text() if incident.hostile else None) == hostile


def test_open_and_closed_incidents_are_bounded() -> None:
    config = IncidentConfig(open_max=5, closed_max=4)
    detection = Detection(DetectionConfig(incidents=config), keyed)
    lines = [alert(n, {**ENDS, "src_ip": f"203.0.113.{n}"}) for n in range(1, 21)]
    effects = [
        effect for line in lines for effect in detection.receive_line(SENSOR, line, 0, LATER)
    ]
    # The oldest is closed, and told, before the sixth opens.
    assert sum(isinstance(each, IncidentClosed) for each in effects) == 15
    assert detection._book.open_count(SENSOR.name) == 5
    assert len(detection._book._closed) == 4


def test_targets_and_suspects_are_bounded() -> None:
    config = IncidentConfig(targets_max=2, suspects_max=3, signatures_max=4)
    book = IncidentBook(config, Networks(), keyed)
    lines = [
        alert(n, {**ENDS, "dest_ip": f"10.1.0.{n}", "src_ip": "203.0.113.66"}) for n in range(1, 9)
    ]
    result = replay(lines, config=DetectionConfig(incidents=config))
    (incident,) = result.final.values()
    assert [each.address.text() for each in incident.targets] == ["10.1.0.1", "10.1.0.2"]
    for n in range(1, 20):
        weak = parse_eve_line(
            alert(0, {**ENDS, "src_ip": f"203.0.113.{n}"}, n, signature="ET INFO x")
        )
        assert isinstance(weak, SecurityEvent)
        assert book.observe_alert("edge-a", weak) == []
    assert len(book._suspects) == 3


def test_every_family_has_a_story() -> None:
    assert set(PROFILES) == set(Family)
    assert len({profile.title for profile in PROFILES.values()}) == len(Family)


@pytest.mark.parametrize(
    ("signature", "class_name", "category"),
    [
        ("ET SCAN Potential SSH Scan", "", Category.RECONNAISSANCE),
        ("ET SCAN Potential FTP Brute-Force attempt", "", Category.CREDENTIAL_ACCESS),
        ("ET MALWARE Win32/Thing", "", Category.MALWARE),
        ("Local rule", "Web Application Attack", Category.EXPLOITATION),
        ("Local rule", "never heard of", Category.SUSPICIOUS),
    ],
)
def test_classification(signature: str, class_name: str, category: Category) -> None:
    assert classify_alert(signature, class_name)[0] is category


def test_a_user_agent_proves_no_technique() -> None:
    assert classify_alert("ET USER_AGENTS Go HTTP Client User-Agent", "Misc activity")[1] == ()


def test_addresses_of_home_are_configurable() -> None:
    config = DetectionConfig(home_networks=("203.0.113.0/24",))
    (incident,) = replay([alert(0, ENDS)], config=config).opened
    assert incident.hostile is None
    assert incident.source == parse_address("203.0.113.66")


def test_findings_of_one_source_on_two_targets_are_one_incident() -> None:
    lines = [
        flow(n, between("203.0.113.66", 50000, f"10.1.0.{host}", 1000 + n))
        for host in (20, 21)
        for n in range(15)
    ]
    (incident,) = replay(lines).final.values()
    assert incident.count == 30
    assert {each.address.text() for each in incident.targets} == {"10.1.0.20", "10.1.0.21"}

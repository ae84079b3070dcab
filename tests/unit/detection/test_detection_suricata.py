"""EVE lines: what each becomes, and what is refused in which words."""

import json

import pytest
from tests.unit.detection.detection_replay import START, alert, between, eve, eve_lines, flow

from hookprobe.detection.event import (
    ArpSeen,
    DhcpSeen,
    DnsSeen,
    FlowSeen,
    HttpSeen,
    LoginSeen,
    Outcome,
    SecurityEvent,
    SensorHealth,
    Severity,
    TlsSeen,
    Unused,
)
from hookprobe.detection.kinds import EVE_COUNTED
from hookprobe.detection.suricata import LINE_MAX_BYTES, parse_eve_line
from hookprobe.errors import LimitExceededError, MalformedError

ENDS = between("203.0.113.66", 40000, "10.1.0.20", 22)


def test_an_alert_on_the_victims_answer_names_the_initiator() -> None:
    line = next(each for each in eve_lines("brute-ftp") if b"2002383" in each)
    event = parse_eve_line(line)
    assert isinstance(event, SecurityEvent)
    assert event.conversation is not None
    assert event.conversation.src.text() == "192.168.56.101"
    assert event.initiator is not None
    assert event.initiator.text() == "192.168.56.1"
    assert event.responder_port == 21
    assert event.severity is Severity.HIGH


def test_before_suricata_7_the_direction_tells_the_initiator() -> None:
    event = parse_eve_line(alert(0, ENDS, direction="to_client"))
    assert isinstance(event, SecurityEvent)
    assert event.initiator is not None
    assert event.initiator.text() == "10.1.0.20"
    assert event.responder_port == 40000


def test_an_alert_without_addresses_is_still_an_alert() -> None:
    line = next(each for each in eve_lines("communityid-tcp") if b'"alert"' in each)
    event = parse_eve_line(line)
    assert isinstance(event, SecurityEvent)
    assert event.conversation is None
    assert event.initiator is None


def test_a_rules_own_technique_and_level_are_taken() -> None:
    metadata = {"mitre_technique_id": ["T1190", "T1059"], "signature_severity": "Critical"}
    body = {"signature_id": 1, "signature": "x", "severity": 3, "metadata": metadata}
    event = parse_eve_line(eve("alert", 0, alert=body, **ENDS))
    assert isinstance(event, SecurityEvent)
    assert event.techniques == ("T1190", "T1059")
    assert event.severity is Severity.CRITICAL


def test_times_in_other_zones_are_the_same_instant() -> None:
    line = flow(0, ENDS).replace(b"2026-11-20T21:05:00.000000Z", b"2026-11-20T23:05:00.000000+0200")
    record = parse_eve_line(line)
    assert isinstance(record, FlowSeen)
    assert record.at == START


@pytest.mark.parametrize(
    ("flags", "packets", "outcome"),
    [
        (("02", "14"), (1, 1), Outcome.REFUSED),
        (("02", "00"), (3, 0), Outcome.UNANSWERED),
        (("02", "12"), (1, 2), Outcome.HALF_OPEN),
        (("06", "12"), (2, 1), Outcome.HALF_OPEN),
        (("00", "00"), (1, 1), Outcome.UNTRACKED),
        (("1b", "1b"), (6, 4), Outcome.ESTABLISHED),
        (("10", "10"), (6, 4), Outcome.UNTRACKED),
    ],
)
def test_tcp_flags_tell_how_far_a_flow_came(
    flags: tuple[str, str], packets: tuple[int, int], outcome: Outcome
) -> None:
    record = parse_eve_line(flow(0, ENDS, flags=flags, packets=packets))
    assert isinstance(record, FlowSeen)
    assert record.outcome is outcome


@pytest.mark.parametrize(
    ("body", "is_answer"),
    [
        ({"type": "query", "rrname": "a.example", "rrtype": "A"}, False),  # versions 1 and 2
        ({"version": 2, "type": "answer", "rrname": "a.example", "rrtype": "A"}, True),
        (
            {
                "version": 3,
                "type": "request",
                "queries": [{"rrname": "a.example", "rrtype": "A"}],
            },
            False,
        ),
        (
            {"version": 3, "type": "response", "queries": [{"rrname": "a.example", "rrtype": "A"}]},
            True,
        ),
    ],
)
def test_every_version_of_dns_says_the_same(body: dict[str, object], is_answer: bool) -> None:
    record = parse_eve_line(eve("dns", 0, dns=body, **ENDS))
    assert isinstance(record, DnsSeen)
    assert (record.name, record.rrtype, record.is_answer) == ("a.example", "A", is_answer)


def test_arp_of_suricata_8() -> None:
    body = {
        "hw_type": "ethernet",
        "opcode": "reply",
        "src_mac": "AA:BB:CC:00:00:01",
        "src_ip": "10.1.0.1",
        "dest_mac": "aa:bb:cc:00:00:02",
        "dest_ip": "10.1.0.20",
    }
    record = parse_eve_line(eve("arp", 0, arp=body))
    assert isinstance(record, ArpSeen)
    assert (record.mac, record.address.text()) == ("aa:bb:cc:00:00:01", "10.1.0.1")


def test_records_of_real_lines() -> None:
    tls = next(each for each in eve_lines("benign-mix") if b'"event_type":"tls"' in each)
    record = parse_eve_line(tls)
    assert isinstance(record, TlsSeen)
    assert record.server_name == "www.update.example"
    assert record.not_after > record.at
    dhcp = next(each for each in eve_lines("dhcp-rogue") if b'"offer"' in each)
    offer = parse_eve_line(dhcp)
    assert isinstance(offer, DhcpSeen)
    assert offer.server is not None
    assert offer.server.text() == "10.1.0.1"
    http = next(each for each in eve_lines("brute-http-basic") if b'"event_type":"http"' in each)
    request = parse_eve_line(http)
    assert isinstance(request, HttpSeen)
    assert (request.path, request.status) == ("/private", 401)
    logins = [parse_eve_line(each) for each in eve_lines("brute-ftp") if b'"PASS"' in each]
    assert len(logins) == 30
    assert all(isinstance(each, LoginSeen) and each.failed for each in logins)


def test_the_sensors_own_losses_are_surfaced() -> None:
    stats = {"capture": {"kernel_packets": 1000, "kernel_drops": 7}, "decoder": {"invalid": 2}}
    record = parse_eve_line(eve("stats", 0, stats=stats))
    assert isinstance(record, SensorHealth)
    assert (record.packets, record.dropped, record.invalid) == (1000, 7, 2)


@pytest.mark.parametrize("kind", sorted(EVE_COUNTED))
def test_a_known_type_that_nobody_reads_is_counted(kind: str) -> None:
    assert parse_eve_line(eve(kind, 0)) == Unused(kind, known=True)


def test_an_unknown_type_is_counted_too() -> None:
    assert parse_eve_line(eve("quantum", 0)) == Unused("quantum", known=False)


def test_a_certificate_without_a_sane_end_is_no_error() -> None:
    body = {"sni": "a.example", "notafter": "1949-12-31T23:59:59"}
    record = parse_eve_line(eve("tls", 0, tls=body, **ENDS))
    assert isinstance(record, TlsSeen)
    assert record.not_after == 0


GOOD = json.loads(alert(0, ENDS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "yesterday"}, "RFC 3339"),
        ({"timestamp": "2026-02-30T00:00:00.000000+0000"}, "calendar"),
        ({"timestamp": "2026-11-20T21:19:61.827739+0000"}, "calendar"),
        ({"src_ip": "203.0.113.666"}, "address"),
        ({"src_ip": "fe80::1%eth0"}, "zone"),
        ({"src_ip": 7}, "src_ip"),
        ({"src_port": 70000}, "src_port"),
        ({"src_port": -1}, "src_port"),
        ({"src_port": "22"}, "src_port"),
        ({"alert": None}, "alert"),
        ({"alert": {"signature_id": "x"}}, "signature_id"),
        ({"alert": {"signature_id": 2**40}}, "signature_id"),
        ({"alert": {}}, "signature_id"),
        ({"flow_id": 10**400}, "flow_id"),
        ({"event_type": 5}, "event_type"),
        ({"event_type": "x" * 65}, "event_type"),
        ({"event_type": "flow"}, "'flow'"),
        ({"event_type": "dns"}, "'dns'"),
        ({"event_type": "dhcp"}, "'dhcp'"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        parse_eve_line(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"7",
        b'"alert"',
        b"{}",
        b"{",
        b"\xff\xfe{}",
        b'{"event_type": "alert", "x": "\xff"}',
        b'{"event_type": "alert", "timestamp": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_garbage_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_eve_line(line)


@pytest.mark.parametrize("name", ["brute-ssh", "dhcp-rogue", "arp-spoof"])
def test_a_cut_line_is_refused_wherever_it_is_cut(name: str) -> None:
    line = eve_lines(name)[0].rstrip(b"\n")
    for end in range(0, len(line), 7):
        with pytest.raises(MalformedError):
            parse_eve_line(line[:end])


def test_a_huge_line_is_refused_before_it_is_read() -> None:
    line = b'{"event_type":"x","timestamp":"' + b"0" * LINE_MAX_BYTES + b'"}'
    with pytest.raises(LimitExceededError, match="limit 1048576"):
        parse_eve_line(line)


def test_messages_do_not_repeat_values() -> None:
    line = json.dumps({**GOOD, "src_port": "secret-password"}).encode()
    with pytest.raises(MalformedError) as caught:
        parse_eve_line(line)
    assert "secret-password" not in caught.value.message

"""Zeek logs, TSV and JSON, give the same records; real ones give the right incidents."""

import json

import pytest
from tests.unit.detection.detection_replay import OUTSIDE, ZEEK, eve_lines, lines_of, replay

from hookprobe.detection.event import (
    ArpSeen,
    DhcpSeen,
    DnsSeen,
    FlowSeen,
    Format,
    HttpSeen,
    LoginSeen,
    Outcome,
    SecurityEvent,
    Sensor,
    TlsSeen,
    Unused,
)
from hookprobe.detection.incident import Incident
from hookprobe.detection.kinds import ZEEK_COUNTED
from hookprobe.detection.pipeline import LineRefused
from hookprobe.detection.zeek import ZeekTsvParser, parse_zeek_json
from hookprobe.detection.zeek_rows import COLUMNS_MAX, LINE_MAX_BYTES
from hookprobe.errors import LimitExceededError, MalformedError, RemoteError

CONN: dict[str, object] = {
    "ts": 1700828217.314165,
    "uid": "C1",
    "id.orig_h": "192.168.1.9",
    "id.orig_p": 50820,
    "id.resp_h": "45.33.32.156",
    "id.resp_p": 443,
    "proto": "tcp",
    "duration": 0.25,
    "conn_state": "REJ",
    "history": "Sr",
    "orig_pkts": 1,
    "orig_ip_bytes": 60,
    "resp_pkts": 1,
    "resp_ip_bytes": 40,
}
HEADER = [
    b"#separator \\x09\n",
    b"#set_separator\t,\n",
    b"#empty_field\t(empty)\n",
    b"#unset_field\t-\n",
    b"#path\tconn\n",
    b"#open\t2020-10-06-17-32-56\n",
    (
        b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration"
        b"\tconn_state\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\n"
    ),
    (
        b"#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval"
        b"\tstring\tstring\tcount\tcount\tcount\tcount\n"
    ),
]
DATA = (
    b"1700828217.314165\tC1\t192.168.1.9\t50820\t45.33.32.156\t443\ttcp\t-\t0.250000"
    b"\tREJ\tSr\t1\t60\t1\t40\n"
)


def line(**change: object) -> bytes:
    return json.dumps({**CONN, **change}).encode()


def parser() -> ZeekTsvParser:
    made = ZeekTsvParser()
    for each in HEADER:
        assert made.receive_line(each) is None
    return made


def test_tsv_and_json_say_the_same() -> None:
    assert parser().receive_line(DATA) == parse_zeek_json(line(), "conn")


def test_a_connection() -> None:
    record = parse_zeek_json(line(), "conn")
    assert isinstance(record, FlowSeen)
    assert record.at == 1_700_828_217_314_165
    assert record.end - record.at == 250_000
    assert record.outcome is Outcome.REFUSED
    assert record.conversation.dst.text() == "45.33.32.156"


@pytest.mark.parametrize(
    ("state", "history", "outcome"),
    [
        ("S0", "S", Outcome.UNANSWERED),
        ("S0", "F", Outcome.UNTRACKED),
        ("RSTOS0", "R", Outcome.UNTRACKED),
        ("RSTO", "ShR", Outcome.HALF_OPEN),
        ("S1", "Sh", Outcome.HALF_OPEN),
        ("SF", "ShADadFf", Outcome.ESTABLISHED),
        ("OTH", "C", Outcome.UNTRACKED),
    ],
)
def test_connection_states(state: str, history: str, outcome: Outcome) -> None:
    record = parse_zeek_json(line(conn_state=state, history=history), "conn")
    assert isinstance(record, FlowSeen)
    assert record.outcome is outcome


def test_the_other_logs() -> None:
    ends = {key: value for key, value in CONN.items() if key in {"ts", "uid"} or key[:3] == "id."}

    def read(log: str, **fields: object) -> object:
        return parse_zeek_json(json.dumps({**ends, **fields}).encode(), log)

    dns = read("dns", query="a.example", qtype_name="TXT", trans_id=5)
    assert isinstance(dns, DnsSeen)
    assert (dns.name, dns.rrtype) == ("a.example", "TXT")
    assert isinstance(read("ssl", server_name="a.example"), TlsSeen)
    http = read("http", method="GET", host="a.example", uri="/x?secret=1", status_code=401)
    assert isinstance(http, HttpSeen)
    assert (http.path, http.status) == ("/x", 401)
    ssh = read("ssh", auth_success=False, auth_attempts=3)
    assert isinstance(ssh, LoginSeen)
    assert ssh.failed is True
    ftp = read("ftp", command="PASS", reply_code=530)
    assert isinstance(ftp, LoginSeen)
    assert ftp.failed is True
    assert read("ftp", command="LIST", reply_code=226) == Unused("ftp", known=True)
    dhcp = read("dhcp", mac="AA:00:00:00:00:01", server_addr="10.0.0.1", msg_types=["OFFER", "ACK"])
    assert isinstance(dhcp, DhcpSeen)
    assert dhcp.kind == "ack"
    arp = read("arp", operation="reply", orig_h="10.0.0.1", orig_hw="AA:00:00:00:00:01")
    assert isinstance(arp, ArpSeen)
    assert arp.mac == "aa:00:00:00:00:01"
    notice = read("notice", note="Scan::Port_Scan", src="203.0.113.66", p=22)
    assert isinstance(notice, SecurityEvent)
    assert notice.initiator is not None
    assert notice.initiator.text() == "203.0.113.66"


def test_the_line_may_name_its_log() -> None:
    assert parse_zeek_json(line(_path="weird"), "conn") == Unused("weird", known=True)


@pytest.mark.parametrize("log", sorted(ZEEK_COUNTED - {"ssh"}))
def test_a_known_log_that_nobody_reads_is_counted(log: str) -> None:
    assert parse_zeek_json(b'{"ts": 1.0}', log) == Unused(log, known=True)


def test_an_unknown_log_is_counted_too() -> None:
    assert parse_zeek_json(b'{"ts": 1.0}', "quantum") == Unused("quantum", known=False)


def test_unset_and_empty_fields() -> None:
    made = parser()
    record = made.receive_line(
        DATA.replace(b"0.250000", b"-").replace(b"Sr", b"(empty)").replace(b"REJ", b"S0")
    )
    assert isinstance(record, FlowSeen)
    assert record.end == record.at
    assert made.receive_line(b"#close\t2020-10-06-17-33-29\n") is None
    assert made.receive_line(b"\n") is None


def test_another_separator_and_escapes() -> None:
    made = ZeekTsvParser("weird")
    for each in (b"#separator \\x7c\n", b"#path|dns\n", b"#unset_field|~\n"):
        made.receive_line(each)
    names = b"ts|uid|id.orig_h|id.orig_p|id.resp_h|id.resp_p|query"
    made.receive_line(b"#fields|" + names + b"\n")
    made.receive_line(b"#types|time|string|addr|port|addr|port|string\n")
    record = made.receive_line(b"1.5|~|10.0.0.1|1|10.0.0.2|53|a\\x7cb.example\n")
    assert isinstance(record, DnsSeen)
    assert record.name == "a|b.example"
    assert record.at == 1_500_000


def test_masked_time_stamps_are_named_as_such() -> None:
    lines = lines_of(ZEEK / "scripts.base.protocols.ftp.ftp-ipv4__conn.log")
    result = replay(lines, sensor=Sensor("zeek", Format.ZEEK_TSV))
    refused = [each for each in result.effects if isinstance(each, LineRefused)]
    assert len(refused) == 5
    assert {each.reason for each in refused} == {"zeek log: the time stamps are masked"}


def test_zeek_and_suricata_agree_on_community_ids() -> None:
    for proto in ("tcp", "udp"):
        (ours,) = {
            json.loads(each)["community_id"]
            for each in eve_lines(f"communityid-{proto}")
            if b'"event_type":"flow"' in each
        }
        assert ours in (ZEEK / f"community_id.{proto}.out").read_text()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{",
        b'{"ts": "\xff"}',
        b"{}",
        line(ts="XXXXXXXXXX.XXXXXX"),
        line(ts=-1),
        line(ts=1e300),
        line(ts=True),
        line(ts=None),
        line(ts="2026-13-01T00:00:00Z"),
        line(**{"id.orig_p": 70000}),
        line(**{"id.orig_p": "x"}),
        line(**{"id.orig_h": None}),
        line(**{"id.orig_h": "nowhere"}),
        line(orig_pkts=-1),
        line(orig_pkts=True),
        line(duration="long"),
        line(history=7),
    ],
)
def test_bad_json_lines_are_refused(bad: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_zeek_json(bad, "conn")


@pytest.mark.parametrize(
    "bad",
    [
        DATA.replace(b"\t443\t", b"\t"),
        DATA.replace(b"\t443\t", b"\tx\t"),
        DATA.replace(b"\t443\t", b"\t99999\t"),
        DATA.replace(b"1700828217.314165", b"soon"),
        DATA.replace(b"1700828217.314165", b"9" * 30),
        DATA.replace(b"C1", b"\xff"),
        DATA[:40],
    ],
)
def test_bad_tsv_lines_are_refused_and_the_next_is_read(bad: bytes) -> None:
    made = parser()
    with pytest.raises(MalformedError):
        made.receive_line(bad)
    assert isinstance(made.receive_line(DATA), FlowSeen)


def test_data_before_its_header_is_refused() -> None:
    with pytest.raises(MalformedError, match="header"):
        ZeekTsvParser("conn").receive_line(DATA)
    made = parser()
    made.receive_line(b"#fields\tts\tuid\n")
    with pytest.raises(MalformedError, match="header"):
        made.receive_line(DATA)


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        parse_zeek_json(b" " * (LINE_MAX_BYTES + 1), "conn")
    with pytest.raises(LimitExceededError):
        ZeekTsvParser().receive_line(b"#" * (LINE_MAX_BYTES + 1))
    with pytest.raises(LimitExceededError, match="columns"):
        ZeekTsvParser().receive_line(b"#fields" + b"\tx" * (COLUMNS_MAX + 1))


def cut(data: bytes) -> RemoteError | None:
    try:
        parse_zeek_json(data, "conn")
    except RemoteError as error:
        return error
    return None


def test_a_cut_line_is_refused_wherever_it_is_cut() -> None:
    whole = line()
    assert all(cut(whole[:end]) for end in range(len(whole)))
    assert cut(whole) is None


REAL = {
    "slips-portscan-vertical-json/conn.log": ["Vertical port scan"],
    "slips-test10-tsv/conn.log": ["Horizontal port scan"],
    "slips-test10-tsv/dns.log": [],
    "slips-test10-tsv/notice.log": ["Zeek notice Scan::Address_Scan"],
    "slips-test10-tsv/ssl.log": [],
    "slips-test13-dhcpscan/dhcp.log": ["DHCP pool exhaustion"],
    "slips-test16-arp/arp.log": [],
}


def test_a_scan_in_json_becomes_one_incident() -> None:
    lines = [line(uid=f"C{port}", **{"id.resp_p": port}) + b"\n" for port in range(1, 41)]
    result = replay(lines, sensor=Sensor("zeek", Format.ZEEK_JSON, "conn"))
    (incident,) = result.final.values()
    assert (incident.title, incident.count) == ("Vertical port scan", 40)


def titles_of(name: str) -> list[str]:
    lines = lines_of(OUTSIDE / "zeek" / name)
    form = Format.ZEEK_JSON if lines[0].startswith(b"{") else Format.ZEEK_TSV
    log = name.rpartition("/")[2].removesuffix(".log")
    found: dict[str, Incident] = replay(lines, sensor=Sensor("zeek", form, log)).final
    return sorted(each.title for each in found.values())


def test_real_logs_outside_of_the_repository() -> None:
    present = {name: titles for name, titles in REAL.items() if (OUTSIDE / "zeek" / name).exists()}
    assert {name: titles_of(name) for name in present} == present

"""What counts as the same event, and what does not."""

import pytest
from tests.unit.detection.detection_replay import alert, between, eve, eve_lines

from hookprobe.detection.dedup import SIGHTINGS_MAX, DoubleFilter
from hookprobe.detection.event import Unused
from hookprobe.detection.suricata import parse_eve_line

ENDS = between("203.0.113.66", 40000, "10.1.0.20", 22)
CID = "1:abcdefghijklmnopqrstuvwxyz0="


def made() -> DoubleFilter:
    return DoubleFilter(50_000, 100)


def seen(filter_: DoubleFilter, line: bytes) -> bool:
    record = parse_eve_line(line)
    assert not isinstance(record, Unused)
    return filter_.is_double(record)


def on(iface: str, at_s: float, sid: int = 1, flow_id: int | None = None) -> bytes:
    ends = {**ENDS, "in_iface": iface, "community_id": CID}
    ends["flow_id"] = flow_id if flow_id is not None else len(iface)
    return alert(at_s, ends, sid)


def test_the_other_interface_sees_the_same_packet() -> None:
    filter_ = made()
    assert not seen(filter_, on("wan0", 1.0))
    assert seen(filter_, on("lan-0", 1.000_060))


def test_the_same_interface_later_is_real() -> None:
    filter_ = made()
    assert not seen(filter_, on("wan0", 1.0))
    assert not seen(filter_, on("wan0", 1.01))


def test_two_real_matches_on_two_interfaces_are_two_in_any_order() -> None:
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [2, 3, 0, 1], [3, 1, 2, 0]):
        lines = [
            on("wan0", 1.0),
            on("wan0", 1.01),
            on("lan-0", 1.000_060),
            on("lan-0", 1.010_060),
        ]
        filter_ = made()
        assert sum(not seen(filter_, lines[each]) for each in order) == 2


def test_far_apart_other_signature_other_flow_are_real() -> None:
    filter_ = made()
    assert not seen(filter_, on("wan0", 1.0))
    assert not seen(filter_, on("lan-0", 1.2))
    assert not seen(filter_, on("lan-0", 1.0, sid=2))
    assert not seen(filter_, alert(1.0, {**ENDS, "in_iface": "lan-0", "src_port": 40001}, 1))


@pytest.mark.parametrize("name", ["brute-ssh", "dhcp-rogue", "c2-beacon-http", "communityid-tcp"])
def test_a_line_read_twice_is_one(name: str) -> None:
    filter_ = made()
    for line in eve_lines(name):
        record = parse_eve_line(line)
        if isinstance(record, Unused) or b'"event_type":"stats"' in line:
            continue
        filter_.is_double(record)
        assert filter_.is_double(record)


def test_health_reports_are_never_doubles() -> None:
    filter_ = made()
    assert not seen(filter_, eve("stats", 1, stats={}))
    assert not seen(filter_, eve("stats", 1, stats={}))


def test_memory_is_bounded() -> None:
    filter_ = DoubleFilter(50_000, 10)
    for sid in range(50):
        seen(filter_, on("wan0", 1.0, sid))
    assert len(filter_) == 10
    for number in range(SIGHTINGS_MAX + 10):
        seen(filter_, on("wan0", 2 + number, 49))
    assert max(len(each) for each in filter_._seen.values()) == SIGHTINGS_MAX

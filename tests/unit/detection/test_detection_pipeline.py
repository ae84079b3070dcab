"""The machine as the node drives it: refusals, silence, restarts, limits."""

import pytest
from tests.unit.detection.detection_replay import (
    LATER,
    SENSOR,
    START,
    alert,
    between,
    eve,
    eve_lines,
    keyed,
    replay,
)

from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Format, Sensor
from hookprobe.detection.incident import IncidentClosed, IncidentOpened
from hookprobe.detection.pipeline import Detection, HealthReported, LineRefused
from hookprobe.errors import LocalError
from hookprobe.wire.instant import MINUTE, SECOND, Instant

ENDS = between("203.0.113.66", 40000, "10.1.0.20", 80)


def made(config: DetectionConfig | None = None) -> Detection:
    return Detection(config or DetectionConfig(), keyed)


def test_a_bad_line_is_named_and_the_next_is_read() -> None:
    detection = made()
    (refused,) = detection.receive_line(SENSOR, b"{nonsense}\n", 120, LATER)
    assert isinstance(refused, LineRefused)
    assert (refused.position, refused.code) == (120, "E-MALFORMED")
    (too_long,) = detection.receive_line(SENSOR, b"x" * (1 << 21), 131, LATER)
    assert isinstance(too_long, LineRefused)
    assert too_long.code == "E-LIMIT"
    assert len(detection.receive_line(SENSOR, alert(0, ENDS), 200, LATER)) == 1
    counts = detection.counts()
    assert counts.lines == 3
    assert counts.refused == {"E-MALFORMED": 1, "E-LIMIT": 1}


def test_a_stamp_from_the_future_cannot_close_windows() -> None:
    detection = made()
    detection.receive_line(SENSOR, alert(0, ENDS), 0, START)
    (refused,) = detection.receive_line(SENSOR, alert(86400, ENDS), 1, START)
    assert isinstance(refused, LineRefused)
    assert "future" in refused.reason
    assert detection.next_timeout() is not None
    allowed = alert(299, {**ENDS, "src_port": 40001})
    assert not [
        each
        for each in detection.receive_line(SENSOR, allowed, 2, START)
        if isinstance(each, LineRefused)
    ]


def test_silence_closes_what_is_open() -> None:
    detection = made()
    assert detection.next_timeout() is None
    assert detection.handle_timeout(LATER) == []
    detection.receive_line(SENSOR, alert(0, ENDS), 0, LATER)
    due = detection.next_timeout()
    assert due == LATER + 5 * MINUTE
    assert detection.handle_timeout(Instant(due - 1)) == []
    later = Instant(LATER + 60 * SECOND)
    detection.receive_line(SENSOR, eve("fileinfo", 1), 1, later)
    assert detection.handle_timeout(due) == []
    (closed,) = detection.handle_timeout(Instant(later + 5 * MINUTE))
    assert isinstance(closed, IncidentClosed)
    assert detection.next_timeout() is None


def test_a_busy_sensor_does_not_keep_a_silent_ones_incidents_open() -> None:
    detection = made()
    detection.receive_line(Sensor("silent"), alert(0, ENDS), 0, LATER)
    later = Instant(LATER + 4 * MINUTE)
    detection.receive_line(Sensor("busy"), alert(0, ENDS), 0, later)
    due = detection.next_timeout()
    assert due == LATER + 5 * MINUTE
    (closed,) = detection.handle_timeout(due)
    assert isinstance(closed, IncidentClosed)
    assert closed.incident.sensor == "silent"
    assert detection.next_timeout() == later + 5 * MINUTE


def test_health_is_passed_on() -> None:
    line = eve("stats", 0, stats={"capture": {"kernel_packets": 9, "kernel_drops": 3}})
    (reported,) = made().receive_line(SENSOR, line, 0, LATER)
    assert isinstance(reported, HealthReported)
    assert reported.health.dropped == 3


def test_the_low_watermark_follows_event_time() -> None:
    detection = made()
    assert detection.low_watermark(SENSOR) == 0
    for minute in range(200):
        line = alert(minute * 60, {**ENDS, "src_port": 1024 + minute})
        detection.receive_line(SENSOR, line, minute * 1000, LATER)
    # The incident window and the lateness: 70 minutes before the newest line.
    assert detection.low_watermark(SENSOR) == (199 - 70) * 1000


@pytest.mark.parametrize("stop", [1, 3, 80, 150])
def test_a_restart_from_the_low_watermark_loses_nothing(stop: int) -> None:
    lines = [alert(minute * 60, {**ENDS, "src_port": 1024 + minute}) for minute in range(200)]
    whole = replay(lines)
    before = made()
    opened: list[str] = []
    position, starts = 0, []
    for line in lines[:stop]:
        starts.append(position)
        effects = before.receive_line(SENSOR, line, position, LATER)
        opened += [each.incident.key for each in effects if isinstance(each, IncidentOpened)]
        position += len(line)
    again = starts.index(before.low_watermark(SENSOR))
    after = Detection(DetectionConfig(), keyed, announced=opened)
    rest = replay(lines[again:], detection=after)
    assert not {each.key for each in rest.opened} & set(opened)
    assert {each.key for each in rest.opened} | set(opened) == set(whole.final)
    assert all(
        rest.final[key].count == whole.final[key].count
        for key in rest.final
        if whole.final[key].window_start >= rest.opened[0].window_start
    )


def test_sensors_do_not_disturb_each_other() -> None:
    other = Sensor("edge-b")
    detection = made()
    for number, line in enumerate(eve_lines("c2-beacon-tls")):
        detection.receive_line(other, line, number, LATER)
    old = replay(eve_lines("brute-ftp"), detection=detection)
    # Recorded in 2014, beside a sensor of 2026: event time is each sensor's own.
    assert "Password guessing" in old.titles


def test_logs_of_one_zeek_meet() -> None:
    sensor = Sensor("zeek", Format.ZEEK_JSON, "conn")
    ssl = Sensor("zeek", Format.ZEEK_JSON, "ssl")
    detection = made()
    detection.receive_line(sensor, b"{}", 0, LATER)
    detection.receive_line(ssl, b"{}", 0, LATER)
    assert len(detection._lanes) == 1
    assert len(detection._streams) == 2


def test_sensors_streams_and_kinds_are_bounded() -> None:
    detection = made(DetectionConfig(sensors_max=2, streams_max=3, kinds_max=4))
    for name in ("a", "b"):
        detection.receive_line(Sensor(name), b"{}", 0, LATER)
    with pytest.raises(LocalError, match="2 sensors"):
        detection.receive_line(Sensor("c"), b"{}", 0, LATER)
    detection.receive_line(Sensor("a", Format.ZEEK_JSON), b"{}", 0, LATER)
    with pytest.raises(LocalError, match="3 sensor streams"):
        detection.receive_line(Sensor("a", Format.ZEEK_TSV), b"{}", 0, LATER)
    for number in range(50):
        detection.receive_line(Sensor("a"), eve(f"kind{number}", 0), 0, LATER)
    unknown = detection.counts().unknown
    assert len(unknown) == 5
    # The Zeek line without a log's name took one of the four.
    assert unknown["other"] == 47

"""Whatever the bytes, order and repetition: refusals are RemoteErrors, incidents stay the same."""

import dataclasses
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.detection.detection_replay import LATER, eve_lines, replay

from hookprobe.detection.address import Address
from hookprobe.detection.config import DetectionConfig, Rule
from hookprobe.detection.event import Format, Sensor
from hookprobe.detection.evidence import EvidenceTable
from hookprobe.detection.pipeline import Detection
from hookprobe.detection.privacy import SharedEvent, anonymize
from hookprobe.detection.stream import Line, LineStream
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.detection.zeek import ZeekTsvParser, parse_zeek_json
from hookprobe.errors import RemoteError
from hookprobe.wire.instant import Instant

QUICK = settings(deadline=None, derandomize=True, max_examples=150)
EVE_SAMPLES = [
    line
    for name in ("brute-ssh", "dhcp-rogue", "benign-mix", "scan-service-nse", "brute-ftp")
    for line in eve_lines(name)[:40:3]
]
TYPES = ["alert", "flow", "dns", "tls", "http", "ftp", "ssh", "dhcp", "arp", "stats", "x"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def keyed(data: bytes) -> bytes:
    return hmac.digest(bytes(32), data, "sha256")


def survives(line: bytes) -> None:
    """Feed a line to every parser and the machine: only RemoteError may come out of a parser."""
    tsv = ZeekTsvParser("conn")
    tsv.receive_line(b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\torig_pkts")
    tsv.receive_line(b"#types\ttime\tstring\taddr\tport\taddr\tport\tcount")
    for parse in (parse_eve_line, parse_zeek_json, tsv.receive_line):
        try:
            parse(line)
        except RemoteError:
            continue
    for log in ("conn", "dns", "ssl", "http", "ssh", "ftp", "dhcp", "arp", "notice"):
        try:
            parse_zeek_json(line, log)
        except RemoteError:
            continue
    detection = Detection(DetectionConfig(), keyed)
    for form in Format:
        detection.receive_line(Sensor("edge-a", form, "conn"), line, 0, LATER)


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    survives(line)


@QUICK
@given(st.data())
def test_any_real_line_with_a_wound(data: st.DataObject) -> None:
    line = bytearray(data.draw(st.sampled_from(EVE_SAMPLES)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(line) - 1))
        line[place] = data.draw(st.integers(0, 255))
    survives(bytes(line))


@QUICK
@given(st.data())
def test_any_real_line_with_another_value_somewhere(data: st.DataObject) -> None:
    fields = json.loads(data.draw(st.sampled_from(EVE_SAMPLES)))
    inner = [fields, *(each for each in fields.values() if isinstance(each, dict))]
    chosen = inner[data.draw(st.integers(0, len(inner) - 1))]
    name = data.draw(st.sampled_from(sorted(chosen)))
    chosen[name] = data.draw(VALUES)
    fields["event_type"] = data.draw(st.sampled_from([*TYPES, fields["event_type"]]))
    survives(json.dumps(fields).encode())


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "ts",
                "uid",
                "id.orig_h",
                "id.orig_p",
                "id.resp_h",
                "id.resp_p",
                "proto",
                "duration",
                "conn_state",
                "history",
                "note",
                "orig_pkts",
                "src",
                "dst",
                "p",
                "mac",
                "msg_types",
                "server_addr",
                "query",
                "trans_id",
                "status_code",
                "uri",
            ]
        ),
        VALUES,
    )
)
def test_any_zeek_row(row: dict[str, object]) -> None:
    row.setdefault("ts", 1.5)
    survives(json.dumps(row).encode())


@QUICK
@given(st.lists(st.binary(max_size=12)), st.binary(max_size=40))
def test_lines_do_not_depend_on_the_cuts(pieces: list[bytes], rest: bytes) -> None:
    data = b"".join(pieces) + rest
    cut, whole = LineStream(line_max_bytes=16), LineStream(line_max_bytes=16)
    found = [each for piece in [*pieces, rest] for each in cut.receive_bytes(piece)]
    assert found == whole.receive_bytes(data)
    assert cut.counts() == whole.counts()
    assert cut.position == whole.position
    for each in found:
        if isinstance(each, Line):
            assert data[each.position : each.position + len(each.data)] == each.data


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 60)), max_size=25),
    st.randoms(use_true_random=False),
)
def test_what_is_hot_does_not_depend_on_order(
    evidence: list[tuple[int, int]], chance: object
) -> None:
    rule = Rule(bucket_us=10, threshold=3)
    shuffled = evidence.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random, in Hypothesis' clothes
    totals = []
    for each in (evidence, shuffled):
        table = EvidenceTable(rule)
        sightings = [one for item, at in each for one in table.observe(0, item, Instant(at))]
        spans = (
            min((s.first for s in sightings), default=0),
            max((s.last for s in sightings), default=0),
        )
        totals.append((sum(one.weight for one in sightings), spans))
    assert totals[0] == totals[1]


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.sampled_from(["brute-ftp", "scan-service-nse", "dos-slowloris"]), st.data())
def test_shuffling_and_repeating_change_no_incident(name: str, data: st.DataObject) -> None:
    lines = eve_lines(name)
    twice = [line for line in lines for _ in range(data.draw(st.integers(1, 2)))]
    data.draw(st.randoms(use_true_random=False)).shuffle(twice)
    once, again = replay(lines).final, replay(twice).final
    assert {key: each.count for key, each in again.items()} == {
        key: each.count for key, each in once.items()
    }


ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
BASE = replay(eve_lines("c2-beacon-http")).opened[0]


@QUICK
@given(source=ADDRESSES, hostile=ADDRESSES, target=ADDRESSES)
def test_nothing_but_the_keyed_hash_depends_on_an_address(
    source: bytes, hostile: bytes, target: bytes
) -> None:
    raw = dataclasses.replace(
        BASE,
        source=Address(source),
        hostile=Address(hostile),
        targets=(dataclasses.replace(BASE.targets[0], address=Address(target)),),
    )
    # With a keyed hash that tells nothing, the bytes of any two addresses are the same: so no
    # form of an address (text, packed, hex, plain hash) is anywhere else in them.
    assert anonymize(raw, lambda _: bytes(32)) == anonymize(BASE, lambda _: bytes(32))
    shared = anonymize(raw, keyed)
    assert SharedEvent.decode(shared.encode()) == shared
    for packed in (source, hostile, target):
        address = Address(packed)
        assert address.text() not in shared.encode().decode() or len(address.text()) < 7
        if len(packed) == 16:
            assert packed.hex() not in shared.encode().decode()


@QUICK
@given(st.binary(max_size=400))
def test_any_bytes_as_a_shared_event(data: bytes) -> None:
    with pytest.raises(RemoteError):
        SharedEvent.decode(data)

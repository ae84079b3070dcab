"""What leaves the edge, and what does not."""

import dataclasses
import hmac
import json

import pytest
from tests.unit.detection.detection_replay import ROOT, alert, between, eve_lines, keyed, replay

from hookprobe.detection.attack import Category
from hookprobe.detection.event import Severity
from hookprobe.detection.incident import Incident
from hookprobe.detection.privacy import (
    INDICATORS_MAX,
    SIZE_MAX_BYTES,
    SharedEvent,
    anonymize,
    pseudonym,
    threat_score,
)
from hookprobe.errors import LimitExceededError, LocalError, MalformedError, RemoteError
from hookprobe.wire import canonical

CAPTURES = sorted(
    path.name.partition(".")[0] for path in (ROOT / "tests/data/sensors/eve").glob("*.eve.json*")
)


def incident() -> Incident:
    (opened,) = replay([alert(0, between("203.0.113.66", 40000, "10.1.0.20", 80))]).opened
    return opened


def tenant_key(data: bytes) -> bytes:
    return hmac.digest(b"the tenant's key, thirty-two bytes", data, "sha256")


def test_equal_attackers_have_equal_pseudonyms_under_one_key_only() -> None:
    here = anonymize(incident(), tenant_key)
    elsewhere = replay(
        [alert(99, between("203.0.113.66", 1, "10.9.9.9", 22), 7, signature="ET SCAN y")]
    ).opened[0]
    assert anonymize(elsewhere, tenant_key).indicators == here.indicators
    assert anonymize(incident(), keyed).indicators != here.indicators


def test_two_addresses_are_told_apart_by_nothing_but_the_keyed_hash() -> None:
    def constant(_data: bytes) -> bytes:
        return bytes(32)

    encodings = set()
    for src, dst in (("203.0.113.66", "10.1.0.20"), ("198.51.100.7", "192.168.7.7")):
        (opened,) = replay([alert(0, between(src, 40000, dst, 80))]).opened
        same_key = dataclasses.replace(opened, key="00" * 32)
        encodings.add(anonymize(same_key, constant).encode())
    assert len(encodings) == 1


@pytest.mark.parametrize("name", CAPTURES)
def test_no_form_of_any_address_of_a_capture_leaves(name: str) -> None:
    lines = eve_lines(name)
    texts = {
        str(value)
        for line in lines
        for key, value in json.loads(line).items()
        if key in {"src_ip", "dest_ip"}
    }
    for each in replay(lines).final.values():
        shared = anonymize(each, tenant_key).encode().decode()
        for text in sorted(texts):
            assert text not in shared
        for address in (each.source, each.hostile, *(target.address for target in each.targets)):
            if address is not None:
                assert address.text() not in shared
                assert address.packed.hex() not in shared
        if each.hostile_domain:
            assert each.hostile_domain not in shared


def test_the_fields_are_these_and_no_more() -> None:
    assert sorted(canonical.decode_object(anonymize(incident(), tenant_key).encode())) == [
        "category",
        "count",
        "event_id",
        "indicators",
        "sensor",
        "severity",
        "signature_id",
        "techniques",
        "threat_score",
        "v",
        "window_end",
        "window_start",
    ]


def test_numbers_are_coarse() -> None:
    raw = dataclasses.replace(incident(), count=3032)
    shared = anonymize(raw, tenant_key)
    assert shared.count == 2048
    assert shared.window_start % 300_000_000 == 0
    assert shared.window_end % 300_000_000 == 0
    assert shared.window_start <= raw.first_seen <= raw.last_seen < shared.window_end


def test_home_addresses_and_victims_have_no_pseudonym() -> None:
    (inside,) = replay([alert(0, between("10.1.0.66", 1, "10.1.0.20", 80))]).opened
    assert anonymize(inside, tenant_key).indicators == ()
    outside = incident()
    victim = outside.targets[0].address
    assert (
        pseudonym(victim.indicator(), tenant_key) not in anonymize(outside, tenant_key).indicators
    )


def test_a_tunnels_domain_is_an_indicator() -> None:
    (raw,) = replay(eve_lines("dns-tunnel-iodine")).final.values()
    shared = anonymize(raw, tenant_key)
    assert sorted(shared.indicators) == sorted(
        [pseudonym(b"dom:lab.example", tenant_key), pseudonym(b"ip4:203.0.113.10", tenant_key)]
    )


@pytest.mark.parametrize(
    "name", ["10.1.0.20", "sensor-10.1.0.20", "edge-10-1-0-20", "Edge", "", "a" * 33, "a b"]
)
def test_a_sensor_name_cannot_smuggle_an_address(name: str) -> None:
    with pytest.raises(LocalError):
        anonymize(dataclasses.replace(incident(), sensor=name), tenant_key)


def test_free_text_in_techniques_is_dropped() -> None:
    raw = dataclasses.replace(incident(), techniques=("T1046", "10.1.0.20", "T1110.001", "T1046"))
    assert anonymize(raw, tenant_key).techniques == ("T1046", "T1110.001")


def test_a_keyed_hash_of_the_wrong_size_is_our_own_fault() -> None:
    with pytest.raises(LocalError):
        pseudonym(b"ip4:203.0.113.66", lambda data: data)


def test_scores() -> None:
    assert threat_score(Severity.LOW, 1) == 20
    assert threat_score(Severity.HIGH, 1) == 70
    assert threat_score(Severity.HIGH, 3032) == 81
    assert threat_score(Severity.CRITICAL, 2**40) == 100
    assert threat_score(Severity.MEDIUM, 0) == 45


SHARED = SharedEvent(
    event_id="ab" * 32,
    sensor="edge-a",
    severity=Severity.HIGH,
    category=Category.RECONNAISSANCE,
    signature_id=9_000_001,
    techniques=("T1046",),
    count=1024,
    threat_score=80,
    window_start=incident().window_start,
    window_end=incident().window_end,
    indicators=("cd" * 32,),
)


def test_it_reads_back() -> None:
    assert SharedEvent.decode(SHARED.encode()) == SHARED


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"event_id": "ab"},
        {"event_id": "AB" * 32},
        {"sensor": "10.1.0.20"},
        {"severity": "worst"},
        {"severity": 3},
        {"category": "gossip"},
        {"signature_id": -1},
        {"techniques": ["T1046", "T1046"]},
        {"techniques": ["10.1.0.20"]},
        {"techniques": [1]},
        {"techniques": ["T1110", "T1046"]},
        {"count": 0},
        {"count": 3},
        {"threat_score": 101},
        {"window_start": 1},
        {"window_end": 0},
        {"indicators": ["203.0.113.66"]},
        {"indicators": ["cd" * 32] * 2},
        {"indicators": [f"{n:064x}" for n in range(INDICATORS_MAX + 1)]},
        {"extra": 1},
    ],
)
def test_what_others_send_is_checked(change: dict[str, canonical.Json]) -> None:
    fields = canonical.decode_object(SHARED.encode())
    with pytest.raises(RemoteError):
        SharedEvent.decode(canonical.encode({**fields, **change}))


@pytest.mark.parametrize("name", sorted(canonical.decode_object(SHARED.encode())))
def test_every_field_is_needed(name: str) -> None:
    fields = canonical.decode_object(SHARED.encode())
    del fields[name]
    with pytest.raises(MalformedError, match=name):
        SharedEvent.decode(canonical.encode(fields))


def test_size_is_bounded() -> None:
    with pytest.raises(LimitExceededError):
        SharedEvent.decode(b" " * (SIZE_MAX_BYTES + 1))

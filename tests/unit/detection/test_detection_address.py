"""Addresses: normal forms, and no way to serialise one by accident."""

import copy
import dataclasses
import json
import pickle

import msgspec
import pytest
from tests.unit.detection.detection_replay import alert, between, eve, flow

from hookprobe.detection.address import Address, Networks, parse_address
from hookprobe.detection.suricata import parse_eve_line
from hookprobe.errors import MalformedError
from hookprobe.wire import canonical


def test_normal_forms() -> None:
    assert parse_address("::ffff:10.1.0.20") == parse_address("10.1.0.20")
    long = parse_address("fe80:0000:0000:0000:54ec:7dff:fe70:a4fb")
    assert long.text() == "fe80::54ec:7dff:fe70:a4fb"
    assert parse_address("10.1.0.20") != parse_address("10.1.0.21")


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.4.5", "::g", "fe80::1%eth0", "10.0.0.1/8"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_address(text)


def test_indicators_are_canonical() -> None:
    assert parse_address("203.0.113.66").indicator() == b"ip4:203.0.113.66"
    first, second = parse_address("2001:db8:1:2::1"), parse_address("2001:db8:1:2:ffff::9")
    assert first.indicator() == second.indicator() == b"ip6net64:2001:db8:1:2::"


@pytest.mark.parametrize("text", ["224.0.0.251", "255.255.255.255", "0.0.0.0", "ff02::1", "::"])
def test_groups(text: str) -> None:
    assert parse_address(text).is_group


def test_networks() -> None:
    home = Networks()
    inside = ["10.1.0.20", "172.31.255.255", "192.168.0.0", "fe80::1", "fd00::1", "::1"]
    outside = ["203.0.113.66", "172.32.0.0", "11.0.0.0", "2001:db8::1"]
    assert all(parse_address(each) in home for each in inside)
    assert not any(parse_address(each) in home for each in outside)
    with pytest.raises(MalformedError):
        Networks(["10.0.0.0/33"])


def test_logs_do_not_show_addresses() -> None:
    shown = repr(parse_eve_line(alert(0, between("203.0.113.66", 1, "10.1.0.20", 22))))
    assert "203.0.113" not in shown
    assert "10.1.0" not in shown


RAW = [
    alert(0, between("203.0.113.66", 1, "10.1.0.20", 22)),
    flow(0, between("203.0.113.66", 1, "10.1.0.20", 22)),
    eve("arp", 0, arp={"src_ip": "10.1.0.1", "src_mac": "aa", "opcode": "reply"}),
]


@pytest.mark.parametrize("line", RAW)
def test_raw_records_have_no_encoder(line: bytes) -> None:
    record = parse_eve_line(line)
    assert dataclasses.is_dataclass(record)
    with pytest.raises(TypeError):
        msgspec.json.encode(record)
    with pytest.raises(TypeError):
        msgspec.to_builtins(record)
    with pytest.raises(TypeError):
        pickle.dumps(record)
    with pytest.raises(TypeError):
        dataclasses.asdict(record)
    with pytest.raises(TypeError):
        json.dumps(record)
    with pytest.raises(TypeError):
        copy.deepcopy(record)


def test_canonical_json_refuses_an_address() -> None:
    value: canonical.Json = [Address(b"\x0a\0\0\1")]  # type: ignore[list-item]  # the attack
    with pytest.raises(MalformedError):
        canonical.encode(value)

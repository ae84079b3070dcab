"""Hardware fingerprints: four kinds of hosts, what may change, and what betrays a clone."""

from pathlib import Path

import pytest

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.identity import fingerprint
from hookprobe.identity.fingerprint import Match, find_clones, judge, score, take
from hookprobe.runtime.hardware import collect
from hookprobe.wire.identifiers import NodeId

KEY = b"k" * 32
HOSTS = {
    "raspberry": {
        "serial": ["10000000abcdef01"], "macs": ["dc:a6:32:00:00:01"], "disks": ["cid-0001"],
        "machine-id": ["a1"], "model": ["Raspberry Pi 4 Model B"],
    },
    "pc": {
        "serial": ["uuid-1"], "macs": ["00:1b:21:00:00:01", "00:1b:21:00:00:02"],
        "disks": ["nvme-1", "sata-2"], "machine-id": ["b1"], "model": ["Xeon X11"],
    },
    "vm": {"serial": ["uuid-9"], "macs": [], "disks": [], "machine-id": ["c1"], "model": ["QEMU"]},
    "container": {"machine-id": ["d1"], "model": ["Xeon"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTS)
def test_the_same_host_is_the_same(kind: str) -> None:
    mark = take(HOSTS[kind], KEY)
    assert (score(mark, mark), judge(mark, mark)) == (10_000, Match.SAME)
    assert fingerprint.decode(mark.encode()) == mark


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"macs": ["00:1b:21:00:00:09", "00:1b:21:00:00:02"]}, Match.SAME),
        ({"disks": ["new"], "machine-id": ["new"]}, Match.REVIEW),
        ({"serial": ["x"], "macs": ["y"]}, Match.REVIEW),
        ({"serial": ["x"], "macs": ["y"], "disks": ["z"]}, Match.OTHER),
        ({"macs": []}, Match.SAME),
    ],
)
def test_what_changed_decides(changes: dict[str, list[str]], verdict: Match) -> None:
    enrolled = take(HOSTS["pc"], KEY)
    assert judge(enrolled, take({**HOSTS["pc"], **changes}, KEY)) is verdict


def test_a_swapped_card_of_two_keeps_a_third_of_its_weight() -> None:
    enrolled = take(HOSTS["pc"], KEY)
    swapped = take({**HOSTS["pc"], "macs": ["00:1b:21:00:00:01", "new"]}, KEY)
    assert score(enrolled, swapped) == 7_500 + 2_500 // 3


def test_a_tpm_decides_alone() -> None:
    enrolled = take({**HOSTS["pc"], "tpm": ["ek"]}, KEY)
    assert judge(enrolled, take({"tpm": ["ek"]}, KEY)) is Match.SAME
    assert judge(enrolled, take({**HOSTS["pc"], "tpm": ["other"]}, KEY)) is Match.OTHER
    assert judge(enrolled, take(HOSTS["pc"], KEY)) is Match.OTHER


def test_nothing_enrolled_matches_nothing() -> None:
    nothing = take({}, KEY)
    assert judge(nothing, take(HOSTS["pc"], KEY)) is Match.OTHER


def test_tenants_cannot_compare() -> None:
    ours, theirs = take(HOSTS["pc"], KEY), take(HOSTS["pc"], b"l" * 32)
    assert score(ours, theirs) == 0
    assert b"uuid-1" not in ours.encode()


def test_clones_are_found_by_hardware_and_by_image() -> None:
    devices = {NodeId(name): take(facts, KEY) for name, facts in HOSTS.items()}
    again = take(HOSTS["raspberry"], KEY)
    assert find_clones(devices, NodeId("new"), again) == ("raspberry",)
    assert find_clones(devices, NodeId("raspberry"), again) == ()
    card = take({**HOSTS["pc"], "machine-id": ["a1"]}, KEY)
    assert find_clones(devices, NodeId("pc"), card) == ("raspberry",)


def test_unknown_or_endless_components_are_refused() -> None:
    with pytest.raises(MalformedError, match="shoe-size"):
        take({"shoe-size": ["43"]}, KEY)
    with pytest.raises(LimitExceededError):
        take({"macs": [str(i) for i in range(17)]}, KEY)
    with pytest.raises(MalformedError):
        fingerprint.decode(take({}, KEY).encode().replace(b'"v":1', b'"v":2'))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_facts_are_collected_from_a_raspberry(tmp_path: Path) -> None:
    proc, sys, etc = tmp_path / "proc", tmp_path / "sys", tmp_path / "etc"
    put(proc / "cpuinfo", "processor\t: 0\nSerial\t\t: 10000000ABCDEF01\n")
    put(proc / "device-tree/model", "Raspberry Pi 4 Model B\0")
    put(etc / "machine-id", "0123abcd\n")
    put(sys / "block/mmcblk0/device/cid", "1b534d\n")
    for name, address, kind in (
        ("eth0", "dc:a6:32:00:00:01", "0"),
        ("usb0", "02:00:00:00:00:01", "0"),
        ("wlan0", "dc:a6:32:00:00:02", "3"),
    ):
        put(sys / f"class/net/{name}/address", address)
        put(sys / f"class/net/{name}/addr_assign_type", kind)
        (sys / f"class/net/{name}/device").mkdir()
    assert collect(proc, sys, etc) == {
        "serial": ["10000000ABCDEF01"],
        "macs": ["dc:a6:32:00:00:01"],
        "disks": ["1b534d"],
        "machine-id": ["0123abcd"],
        "model": ["Raspberry Pi 4 Model B"],
    }


def test_placeholders_and_nothing_are_absent(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/dmi/id/product_uuid", "00000000-0000-0000-0000-000000000000")
    put(tmp_path / "sys/class/dmi/id/board_name", "")
    found = collect(tmp_path / "proc", tmp_path / "sys", tmp_path / "etc")
    assert not any(found.values())
    assert take(collect(), KEY).encode()

import hashlib
from pathlib import Path

import pytest

from hookprobe.errors import LocalError, MalformedError, VerificationError
from hookprobe.neuro.measurement import (
    OPENING_BYTES,
    Counters,
    Opening,
    check_opening,
    commit,
    decode_opening,
)
from hookprobe.runtime.host_sensors import HostSensors

SALT = b"s" * 16


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def host(folder: Path) -> HostSensors:
    proc, sys = folder / "proc", folder / "sys"
    put(proc / "stat", "cpu  10 1 5 100 4 0 2 3 9 9\ncpu0 1 1 1 1 1 1 1 1\nctxt 777\n")
    put(proc / "meminfo", "MemTotal: 9 kB\nMemAvailable:   4096 kB\n")
    for name, values in (("eth0", (100, 10, 200, 20)), ("eth1", (1, 2, 3, 4))):
        (sys / f"class/net/{name}/device").mkdir(parents=True)
        for file, value in zip(
            ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets"), values, strict=True
        ):
            put(sys / f"class/net/{name}/statistics/{file}", f"{value}\n")
    put(sys / "class/net/lo/statistics/rx_bytes", "999999")
    put(sys / "block/vda/stat", " 1 2 30 4 5 6 70 8 9 10 11\n")
    put(sys / "block/loop0/stat", " 1 2 9999 4 5 6 9999 8 9 10 11\n")
    return HostSensors(lambda size: SALT[:size], proc, sys)


EXPECTED = Counters(21, 104, 4096, 101, 12, 203, 24, 30, 70, 777)


def test_counters_are_read_from_plain_files(tmp_path: Path) -> None:
    assert host(tmp_path).counters() == EXPECTED
    assert host(tmp_path / "again").read() == Opening(SALT, EXPECTED)


def test_what_is_not_there_is_absent_and_not_zero(tmp_path: Path) -> None:
    bare = HostSensors(lambda size: SALT[:size], tmp_path, tmp_path).counters()
    assert bare == Counters()
    assert len(bare.absent()) == 10
    assert commit(Opening(SALT, bare)) != commit(Opening(SALT, Counters(*[0] * 10)))


@pytest.mark.parametrize("garbage", ["", "cpu", "cpu x y\nctxt\n", "cpu -1 2\nctxt 1.5\n", "\0\0"])
def test_garbage_is_absence(tmp_path: Path, garbage: str) -> None:
    sensors = host(tmp_path)
    put(tmp_path / "proc/stat", garbage)
    assert {"cpu_busy", "cpu_idle", "context_switches"} <= set(sensors.counters().absent())


def test_this_host_has_counters() -> None:
    found = HostSensors(bytes).counters()
    assert found.context_switches is not None
    assert found.cpu_busy is not None
    assert found.cpu_busy > 0


def test_a_commitment_opens_to_its_counters_only() -> None:
    opening = Opening(SALT, EXPECTED)
    data = opening.encode()
    assert len(data) == OPENING_BYTES == 98
    assert decode_opening(data) == check_opening(commit(opening), data) == opening
    for at in (0, 17, 50, 97):
        forged = bytearray(data)
        forged[at] ^= 1
        with pytest.raises(VerificationError):
            check_opening(commit(opening), bytes(forged))
    with pytest.raises(MalformedError):
        decode_opening(data[:-1])


def test_an_absent_counter_cannot_carry_a_hidden_value() -> None:
    data = SALT + bytes(2) + (5).to_bytes(8, "big") + bytes(72)
    with pytest.raises(VerificationError, match="absent"):
        check_opening(hashlib.sha256(b"HP-E1" + data).digest(), data)


def test_the_salt_has_its_length() -> None:
    with pytest.raises(LocalError, match="salt"):
        commit(Opening(b"short", EXPECTED))


def test_counters_beyond_64_bits_wrap() -> None:
    assert Counters(cpu_busy=1 << 64).encode()[2:10] == bytes(8)

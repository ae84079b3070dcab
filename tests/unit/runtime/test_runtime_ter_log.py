import os
from pathlib import Path

import pytest
from tests.unit.neuro.neuro_vectors import vector_ters

from hookprobe.errors import HostError, LocalError, MalformedError
from hookprobe.runtime import ter_log
from hookprobe.runtime.ter_log import LOG_FILE, Kept, TerLog, read_log

RECORDS = vector_ters(6)
ENTRY = 72
HEADER = 32


def filled(folder: Path, count: int) -> TerLog:
    log = TerLog(folder)
    log.open(0, 0)
    for index, record in enumerate(RECORDS[:count]):
        log.append(0, index, record)
    return log


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    assert TerLog(tmp_path).open(0, 2) == Kept(0, 0, tuple(RECORDS[:4]))
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o777 == 0o600


def test_an_entry_is_synced_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path, 1)
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: sizes.append(os.fstat(fd).st_size))
    log.append(0, 1, RECORDS[1])
    assert sizes == [HEADER + 2 * ENTRY]


@pytest.mark.parametrize("left", [0, 1, 63, 64, 71])
def test_a_torn_tail_is_cut_off_and_written_anew(tmp_path: Path, left: int) -> None:
    filled(tmp_path, 3)
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes()[: HEADER + 2 * ENTRY + left])
    log = TerLog(tmp_path)
    assert log.open(0, 0).records == tuple(RECORDS[:2])
    assert read_log(path).torn == 0
    log.append(0, 2, RECORDS[2])
    assert read_log(path).records == tuple(RECORDS[:3])


@pytest.mark.parametrize("at", [0, 4, 10, 20, HEADER, HEADER + 70, HEADER + ENTRY + 5])
def test_damage_before_the_tail_is_never_skipped(tmp_path: Path, at: int) -> None:
    filled(tmp_path, 3)
    path = tmp_path / LOG_FILE
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(MalformedError):
        TerLog(tmp_path).open(0, 0)


def test_trim_keeps_what_follows(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    log.trim(3)
    log.append(0, 4, RECORDS[4])
    assert read_log(tmp_path / LOG_FILE) == Kept(0, 3, tuple(RECORDS[3:5]))
    for outside in (2, 6):
        with pytest.raises(LocalError):
            log.trim(outside)


def test_a_gap_before_the_log_is_an_error(tmp_path: Path) -> None:
    filled(tmp_path, 4).trim(2)
    for index in (1, 5):
        with pytest.raises(MalformedError, match="does not reach"):
            TerLog(tmp_path).open(0, index)


def test_records_come_in_order_once(tmp_path: Path) -> None:
    log = filled(tmp_path, 2)
    for epoch, index in ((0, 1), (0, 3), (1, 2)):
        with pytest.raises(LocalError):
            log.append(epoch, index, RECORDS[2])


def test_a_new_epoch_begins_empty_also_after_a_crash(tmp_path: Path) -> None:
    log = filled(tmp_path, 3)
    # The new epoch's snapshot is durable and the power goes before the log is begun.
    assert TerLog(tmp_path).open(1, 0) == Kept(1, 0, ())
    log.restart(2)
    log.append(2, 0, RECORDS[0])
    assert read_log(tmp_path / LOG_FILE) == Kept(2, 0, tuple(RECORDS[:1]))
    with pytest.raises(MalformedError):
        TerLog(tmp_path).open(1, 0)


def test_a_failed_write_leaves_nothing_in_front_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path, 1)

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(HostError, match="space"):
            log.append(0, 1, RECORDS[1])
    log.append(0, 1, RECORDS[1])
    assert read_log(tmp_path / LOG_FILE).records == tuple(RECORDS[:2])


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ter_log, "RECORDS_MAX", 2)
    log = filled(tmp_path, 2)
    with pytest.raises(LocalError, match="2 records"):
        log.append(0, 2, RECORDS[2])

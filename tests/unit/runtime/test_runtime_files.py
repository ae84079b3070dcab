from pathlib import Path

import pytest

from hookprobe.errors import HostError, MalformedError
from hookprobe.identity import secrets
from hookprobe.runtime.keystore import (
    KEY_FILE,
    load_secrets,
    read_file,
    save_secrets,
    write_atomically,
)
from hookprobe.runtime.tailer import Chunk, Rotated, Tailer
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

OURS = secrets.generate(NodeId("edge-1"), b"t" * 32, Instant(1), lambda count: b"s" * count)


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    save_secrets(tmp_path, OURS)
    path = tmp_path / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secrets(tmp_path) == OURS
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(HostError, match="let others read") as caught:
            load_secrets(tmp_path)
        assert "chmod 600" in caught.value.hint


def test_missing_or_damaged_secrets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        load_secrets(tmp_path)
    assert "init" in caught.value.hint
    write_atomically(tmp_path / KEY_FILE, b"{}", mode=0o600)
    with pytest.raises(MalformedError):
        load_secrets(tmp_path)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / "file.new").write_bytes(b"left over by a crash")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    with pytest.raises(HostError):
        write_atomically(tmp_path / "missing" / "file", b"")


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(HostError, match="larger"):
        read_file(tmp_path / "file", limit=4)
    with pytest.raises(HostError):
        read_file(tmp_path / "none", limit=4)


def read_all(tailer: Tailer) -> list[Chunk | Rotated]:
    found = []
    while new := tailer.read():
        found += new
    return found


def data(events: list[Chunk | Rotated]) -> list[object]:
    return [event.data if isinstance(event, Chunk) else "rotated" for event in events]


def test_growth_is_followed_with_positions(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    tailer = Tailer(path)
    assert tailer.read() == []
    path.write_bytes(b"one\n")
    assert data(read_all(tailer)) == ["rotated", b"one\n"]
    with path.open("ab") as file:
        file.write(b"two\n")
    assert read_all(tailer) == [Chunk(b"two\n", 4)]
    tailer.close()


def test_a_renamed_file_is_finished_before_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"one\n")
    tailer = Tailer(path)
    read_all(tailer)
    with path.open("ab") as file:
        file.write(b"last\n")
    path.rename(tmp_path / "eve.json.1")
    assert data(read_all(tailer)) == [b"last\n"]
    path.write_bytes(b"new\n")
    assert data(read_all(tailer)) == ["rotated", b"new\n"]
    tailer.close()


def test_a_truncated_file_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"a long first line\n")
    tailer = Tailer(path)
    read_all(tailer)
    path.write_bytes(b"short\n")
    assert data(read_all(tailer)) == ["rotated", b"short\n"]
    tailer.close()


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"one\ntwo\n")
    inode = path.stat().st_ino
    tailer = Tailer(path, inode=inode, position=4)
    assert data(read_all(tailer)) == [b"two\n"]
    tailer.close()


def test_a_restart_finishes_the_file_that_was_rotated_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"one\ntwo\n")
    inode = path.stat().st_ino
    path.rename(tmp_path / "eve.json.1")
    path.write_bytes(b"three\n")
    tailer = Tailer(path, inode=inode, position=4)
    found = [event for _ in range(8) for event in tailer.read()]
    assert data(found) == [b"two\n", "rotated", b"three\n"]
    tailer.close()


def test_a_restart_with_a_shorter_file_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"new\n")
    tailer = Tailer(path, inode=path.stat().st_ino, position=400)
    assert data([event for _ in range(4) for event in tailer.read()]) == ["rotated", b"new\n"]
    tailer.close()

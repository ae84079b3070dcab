"""Files on disk: confined, limited, atomic, resumable, whatever is planted or killed."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
    CHUNK_BYTES,
    FileError,
    FileFacts,
    FileRefusedError,
    ListRequest,
    PathRequest,
    WriteRequest,
)
from hookprobe.runtime import file_parts, file_paths, file_store
from hookprobe.runtime.file_parts import Part, open_source
from hookprobe.runtime.file_paths import open_beneath, open_by_kernel, open_by_steps
from hookprobe.runtime.file_store import FileStore, StoreLimits

LIMITS = StoreLimits(1 << 20, extensions=(".txt", ".bin"))
OLD = b"old content\n"
NEW = b"".join(hashlib.sha256(bytes((i,))).digest() for i in range(256)) * 32  # 4 chunks


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def request(data: bytes, path: str = "a.txt", *, if_match: bytes = ANY_CONTENT) -> WriteRequest:
    return WriteRequest(FileFacts(len(data), sha(data)), True, 0o777, if_match, path)


def store_at(root: Path, limits: StoreLimits = LIMITS) -> FileStore:
    return FileStore(root, "edge-1", limits)


def fill(part: Part, data: bytes, *, skip: int = 0, stop: int = 1000) -> None:
    for index in range(skip, min(stop, -(-len(data) // CHUNK_BYTES))):
        part.write(index * CHUNK_BYTES, data[index * CHUNK_BYTES :][:CHUNK_BYTES], (index,))


def put(store: FileStore, data: bytes, path: str = "a.txt", *, update: bool = False) -> None:
    part = store.open_part(request(data, path), update=update)
    fill(part, data)
    part.finish()


def refused(reason: FileError, work: Callable[[], object]) -> None:
    with pytest.raises(FileRefusedError) as caught:
        work()
    assert caught.value.reason is reason


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_create_update_read_list_stat_delete(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    put(store, OLD, "deep/er/a.txt")
    put(store, NEW, "deep/er/a.txt", update=True)
    assert (tmp_path / "deep/er/a.txt").read_bytes() == NEW
    source = store.open_source("deep/er/a.txt", sha(NEW))
    assert b"".join(source.read(i) for i in range(source.facts.chunks)) == NEW
    source.close()
    found = store.stat("deep/er/a.txt")
    assert (found.is_folder, found.facts) == (False, FileFacts(len(NEW), sha(NEW)))
    assert found.mode == 0o644, "no peer can make a file that runs"
    assert store.stat("deep").is_folder
    listing = store.list(ListRequest("deep", "", 10))
    assert [(entry.name, entry.is_folder) for entry in listing.entries] == [("er", True)]
    store.delete(PathRequest("deep/er/a.txt"))
    assert names(tmp_path) == []


def test_an_empty_file_and_one_byte(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    put(store, b"", "empty.txt")
    put(store, b"x", "one.txt")
    assert (tmp_path / "empty.txt").read_bytes() == b""
    assert (tmp_path / "one.txt").read_bytes() == b"x"
    put(store, b"", "one.txt", update=True)
    assert (tmp_path / "one.txt").read_bytes() == b""


def test_lists_page_by_cursor_and_hide_what_is_ours(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    for i in range(5):
        put(store, b"x", f"{i}.txt")
    (tmp_path / ".secret").write_bytes(b"")
    (tmp_path / "back\\slash.txt").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/not-utf8-\xff.txt")).write_bytes(b"")
    (tmp_path / "link.txt").symlink_to("0.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    first = store.list(ListRequest("", "", 3))
    assert [entry.name for entry in first.entries] == ["0.txt", "1.txt", "2.txt"]
    assert first.more
    rest = store.list(ListRequest("", "2.txt", 3))
    assert ([entry.name for entry in rest.entries], rest.more) == (["3.txt", "4.txt"], False)


# -- attack 33: leading elsewhere -----------------------------------------------------------------


@pytest.mark.parametrize("opening", [open_by_kernel, open_by_steps, open_beneath])
def test_attack_33_nothing_outside_is_opened(
    tmp_path: Path, opening: Callable[[int, str, int], int]
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "in").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret")
    (root / "in/plain.txt").write_bytes(b"plain")
    (root / "file.txt").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    (root / "inward").symlink_to("in")
    folder = os.open(root, os.O_RDONLY)
    os.close(opening(folder, "in/plain.txt", os.O_RDONLY))
    for path in (
        "../outside/secret.txt",
        str(outside / "secret.txt"),
        "file.txt",
        "folder/secret.txt",
        "inward/plain.txt",
        "in/../../outside/secret.txt",
    ):
        with pytest.raises(OSError, match=r"link|director") as caught:
            os.close(opening(folder, path, os.O_RDONLY))
        assert caught.value.errno in (errno.EXDEV, errno.ELOOP, errno.ENOTDIR), path
    os.close(folder)


@pytest.mark.parametrize("kernel", [True, False])
def test_attack_33_a_link_swapped_in_is_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    if not kernel:
        without_openat2(monkeypatch)
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    store = store_at(root)
    put(store, OLD, "folder/a.txt")
    part = store.open_part(request(NEW, "folder/b.txt"), update=False)
    fill(part, NEW)
    (root / "folder").rename(root / "moved")
    (root / "folder").symlink_to(outside)
    part.finish()
    assert names(outside) == []
    assert (root / "moved/b.txt").read_bytes() == NEW
    refused(FileError.FORBIDDEN, lambda: put(store, NEW, "folder/c.txt"))
    refused(FileError.FORBIDDEN, lambda: store.open_source("folder/a.txt"))
    refused(FileError.FORBIDDEN, lambda: store.delete(PathRequest("folder/a.txt")))
    refused(FileError.FORBIDDEN, lambda: store.list(ListRequest("folder", "", 9)))
    assert names(outside) == []


def test_attack_33_a_link_as_the_target_is_not_written_through(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim.txt"
    victim.write_bytes(OLD)
    root.mkdir()
    (root / "a.txt").symlink_to(victim)
    store = store_at(root)
    refused(FileError.EXISTS, lambda: put(store, NEW))
    refused(FileError.FORBIDDEN, lambda: put(store, NEW, update=True))
    assert victim.read_bytes() == OLD


def test_attack_33_devices_and_pipes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    store = store_at(tmp_path)
    for path in ("pipe.txt", "folder.txt"):
        refused(FileError.NOT_A_FILE, partial(store.open_source, path))
        refused(FileError.NOT_A_FILE, partial(store.delete, PathRequest(path)))
    refused(FileError.NOT_A_FILE, lambda: open_source(Path("/dev/null")))


def test_attack_33_only_allowed_ends_of_names(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    put(store, OLD, "LOUD.TXT")
    (tmp_path / "run.sh").write_bytes(b"")
    for path in ("run.sh", "txt", "a.txt.sh"):
        refused(FileError.FORBIDDEN, partial(put, store, NEW, path))
        refused(FileError.FORBIDDEN, partial(store.open_source, path))
        refused(FileError.FORBIDDEN, partial(store.delete, PathRequest(path)))


# -- attacks 36 to 40 -----------------------------------------------------------------------------


def test_attack_36_another_sha256_leaves_no_visible_file(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    part = store.open_part(request(NEW), update=False)
    fill(part, NEW[:-1] + b"!")
    refused(FileError.HASH, part.finish)
    assert names(tmp_path) == []
    put(store, OLD)
    part = store.open_part(request(NEW), update=True)
    fill(part, bytes(len(NEW)))
    refused(FileError.HASH, part.finish)
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == OLD


class Killed(BaseException):
    """The process is gone."""


class DyingOs:
    """`os`, until its n-th call; behind that nothing works any more, as for a killed process."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.opened: dict[int, None] = {}

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if not callable(real) or name in ("strerror", "fsencode"):
            return real

        def call(*args: object, **kwargs: object) -> object:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            found = real(*args, **kwargs)
            if name in ("open", "dup"):
                self.opened[found] = None
            elif name == "close":
                self.opened.pop(args[0], None)  # type: ignore[call-overload]
            return found

        return call


def without_openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(folder: int, path: str, flags: int) -> int:
        raise OSError(errno.ENOSYS, "no openat2")

    monkeypatch.setattr(file_paths, "open_by_kernel", absent)


@pytest.mark.parametrize("update", [False, True])
def test_attack_37_killed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    without_openat2(monkeypatch)
    seen_old = seen_new = 0
    finished = False
    for calls in range(300):
        root = tmp_path / str(calls)
        if update:
            put(store_at(root), OLD)
        dying = DyingOs(calls)
        with monkeypatch.context() as patch:
            patch.setattr(file_parts, "os", dying)
            patch.setattr(file_paths, "os", dying)
            patch.setattr(file_store, "os", dying)
            patch.setattr(file_paths, "_LIBC", object())  # renames by the calls that are counted
            try:
                put(store_at(root), NEW, update=update)
                finished = True
            except Killed:
                pass
        for handle in list(dying.opened):
            os.close(handle)
        content = (root / "a.txt").read_bytes() if (root / "a.txt").exists() else None
        assert content in ((OLD, NEW) if update else (None, NEW)), f"after {calls} calls"
        seen_old += content != NEW
        seen_new += content == NEW
        if content != NEW:
            put(store_at(root), NEW, update=update)  # the next attempt is not in the way of itself
        store_at(root).collect(2**63 - 1)
        assert names(root) == ["a.txt"]
        assert (root / "a.txt").read_bytes() == NEW
        if finished:
            break
    assert finished
    assert seen_old > 15
    assert seen_new > 3, "deaths behind the rename were tried too"


def test_attack_37_durable_before_visible_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store_at(tmp_path), OLD)
    part = store_at(tmp_path).open_part(request(NEW), update=True)
    fill(part, NEW)
    order: list[str] = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def note(
            *args: object, name: str = name, real: Callable[..., object] = real, **more: object
        ) -> object:
            folder = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)  # type: ignore[arg-type]
            order.append(f"{name} folder" if folder else name)
            return real(*args, **more)

        monkeypatch.setattr(os, name, note)
    part.finish()
    assert order == ["fsync", "rename", "fsync folder"]


def test_attack_38_a_transfer_resumes_after_a_restart(tmp_path: Path) -> None:
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    fill(part, NEW, stop=2)
    part.suspend()
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    assert bytes(part.here) == b"\1\1\0\0"
    fill(part, NEW, skip=2)
    part.finish()
    assert (tmp_path / "a.txt").read_bytes() == NEW
    assert names(tmp_path) == ["a.txt"]


def test_attack_38_a_changed_source_is_another_transfer(tmp_path: Path) -> None:
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    fill(part, NEW, stop=2)
    part.suspend()
    changed = b"!" + NEW[1:]
    part = store_at(tmp_path).open_part(request(changed), update=False)
    assert bytes(part.here) == bytes(4)
    fill(part, changed)
    part.finish()
    assert (tmp_path / "a.txt").read_bytes() == changed
    other = FileStore(tmp_path, "edge-2", LIMITS).open_part(request(NEW, "b.txt"), update=False)
    assert bytes(other.here) == bytes(4)
    other.discard()


def test_attack_38_a_source_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "source.txt"
    path.write_bytes(NEW)
    source = open_source(path)
    source.check()
    os.utime(path, ns=(1, 1))
    refused(FileError.CHANGED, source.check)
    path.write_bytes(OLD)
    refused(FileError.CHANGED, lambda: source.read(3))
    source.close()


def test_attack_38_a_journal_that_lies_costs_the_transfer_and_nothing_else(tmp_path: Path) -> None:
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    fill(part, NEW, stop=1)
    part.suspend()
    journal = next(tmp_path.glob(".*.journal"))
    journal.write_bytes(b"\1\1\1\1")
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    refused(FileError.HASH, part.finish)
    assert names(tmp_path) == []
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    part.suspend()
    journal.write_bytes(b"\1" * 5)
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    assert bytes(part.here) == bytes(4)
    part.discard()


def test_attack_38_the_journal_of_a_part_that_is_gone_claims_nothing(tmp_path: Path) -> None:
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    fill(part, NEW)
    part.suspend()
    next(tmp_path.glob(".*.part")).unlink()
    store_at(tmp_path).open_part(request(NEW), update=False).close()  # killed before any chunk
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    assert bytes(part.here) == bytes(4)
    part.discard()


def test_the_same_transfer_twice_at_once_is_refused(tmp_path: Path) -> None:
    part = store_at(tmp_path).open_part(request(NEW), update=False)
    refused(FileError.BUSY, lambda: store_at(tmp_path).open_part(request(NEW), update=False))
    fill(part, NEW)
    part.finish()
    assert (tmp_path / "a.txt").read_bytes() == NEW


def test_attack_39_the_quota_counts_files_and_parts(tmp_path: Path) -> None:
    store = store_at(tmp_path, StoreLimits(len(NEW) + 100, files_max=3))
    put(store, NEW)
    refused(FileError.QUOTA, lambda: put(store, bytes(101), "b.txt"))
    put(store, bytes(60), "b.txt")
    part = store.open_part(request(bytes(40), "c.txt"), update=False)
    refused(FileError.QUOTA, lambda: put(store, b"x", "d.txt"))
    part.suspend()
    part = store.open_part(request(bytes(40), "c.txt"), update=False)  # its room is its own
    part.discard()
    store.delete(PathRequest("a.txt"))
    put(store, b"x", "d.txt")
    put(store, b"x", "e.txt")
    refused(FileError.QUOTA, lambda: put(store, b"x", "f.txt"))  # three files


def test_attack_39_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        refused(FileError.NO_SPACE, lambda: put(store, NEW))
    assert names(tmp_path) == []
    part = store.open_part(request(NEW), update=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        refused(FileError.NO_SPACE, lambda: part.write(0, NEW[:CHUNK_BYTES], (0,)))
    part.discard()


def test_attack_40_a_stale_if_match(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    put(store, OLD)
    one = store.open_part(request(NEW, if_match=sha(OLD)), update=True)
    two = store.open_part(request(b"two", if_match=sha(OLD)), update=True)
    fill(one, NEW)
    fill(two, b"two")
    one.finish()
    refused(FileError.CONFLICT, two.finish)
    assert (tmp_path / "a.txt").read_bytes() == NEW
    assert names(tmp_path) == ["a.txt"]
    stale = request(b"three", if_match=sha(OLD))
    refused(FileError.CONFLICT, lambda: store.open_part(stale, update=True))
    refused(FileError.CONFLICT, lambda: store.open_source("a.txt", sha(OLD)))
    refused(FileError.CONFLICT, lambda: store.delete(PathRequest("a.txt", sha(OLD))))
    refused(FileError.NOT_FOUND, lambda: put(store, NEW, "none.txt", update=True))


def test_attack_40_two_creations_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for libc in (file_paths._LIBC, object()):
        monkeypatch.setattr(file_paths, "_LIBC", libc)
        without_openat2(monkeypatch)
        root = tmp_path / type(libc).__name__
        store = store_at(root)
        one = store.open_part(request(NEW), update=False)
        two = store.open_part(request(OLD), update=False)
        fill(one, NEW)
        fill(two, OLD)
        one.finish()
        refused(FileError.EXISTS, two.finish)
        assert names(root) == ["a.txt"]
        assert (root / "a.txt").read_bytes() == NEW


def test_forgotten_parts_are_collected_and_files_are_not(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    put(store, OLD)
    store.open_part(request(NEW, "folder/b.txt"), update=False).suspend()
    assert store.collect(1) == 0
    assert store.collect(2**63 - 1) == 2
    assert names(tmp_path) == ["a.txt"]

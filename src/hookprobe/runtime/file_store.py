"""Files of one peer below one folder: confined, limited, and never half there.

How a file comes into being is the business of `file_parts`; what may be where is decided here.
"""

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hookprobe.errors import HostError, UnauthorizedError
from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
    CHUNK_LOG2,
    Entry,
    FileError,
    FileFacts,
    FileRefusedError,
    FileStat,
    Listing,
    ListRequest,
    PathRequest,
    WriteRequest,
)
from hookprobe.htp.transfer_paths import check_path
from hookprobe.runtime.file_parts import (
    JOURNAL,
    READ_FLAGS,
    SUFFIXES,
    Part,
    Source,
    hash_at,
    refusing,
)
from hookprobe.runtime.file_paths import open_beneath, open_folder, open_root

_KEY_DIGITS = 32


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What one peer may have.

    Attributes:
        quota_bytes: Of all its files, those under way included; None: not counted.
        files_max: How many.
        extensions: Allowed ends of names, lower case with the dot; empty: all.
    """

    quota_bytes: int | None
    files_max: int = 10_000
    extensions: tuple[str, ...] = ()


class FileStore:
    """The files of one peer, or a folder of ours that files are fetched into.

    Args:
        root: The folder; made when something is written.
        owner: The peer's name; part of what makes two transfers the same one.
        limits: What it may have.
    """

    def __init__(self, root: Path, owner: str, limits: StoreLimits) -> None:
        self._root = root
        self._owner = owner
        self._limits = limits
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def _opened(self, what: str) -> Iterator[int]:
        with refusing(what):
            root = open_root(self._root)
            try:
                yield root
            finally:
                os.close(root)

    def _check_extension(self, path: str) -> None:
        allowed = self._limits.extensions
        if allowed and not path.lower().endswith(allowed):
            raise FileRefusedError(FileError.FORBIDDEN, f"file {path}: end of its name")

    def open_part(self, request: WriteRequest, *, update: bool) -> Part:
        """Begin or take up a file.

        Raises:
            FileRefusedError: It exists, or does not or is another one, or a limit is reached.
        """
        self._check_extension(request.path)
        outer, _, name = request.path.rpartition("/")
        with self.lock, self._opened(request.path) as root:
            with contextlib.ExitStack() as stack:
                folder = open_folder(root, outer, create=not update)
                stack.callback(os.close, folder)
                replacing = self._replacing(folder, name, request) if update else None
                if not update and _exists(folder, name):
                    raise FileRefusedError(FileError.EXISTS, f"file {request.path}")
                key = self._key(request)
                self._check_room(root, key, request.facts.size)
                part = Part(self.lock, folder, request, key)
                stack.pop_all()  # the folder is the part's from here on
            part.replacing = replacing
            self._prepare(part)
            return part

    def _prepare(self, part: Part) -> None:
        try:
            part.prepare()
        except BlockingIOError:
            part.close()
            raise
        except OSError:
            part.discard()
            raise

    def _replacing(self, folder: int, name: str, request: WriteRequest) -> bytes:
        current = hash_at(folder, name)
        if request.if_match not in (ANY_CONTENT, current):
            raise FileRefusedError(FileError.CONFLICT, f"file {request.path}")
        return current

    def _key(self, request: WriteRequest) -> str:
        facts = request.facts
        said = (self._owner, request.path, str(facts.size), facts.sha256.hex(), CHUNK_LOG2)
        joined = "\n".join(str(part) for part in said)
        return hashlib.sha256(joined.encode()).hexdigest()[:_KEY_DIGITS]

    def _check_room(self, root: int, key: str, size: int) -> None:
        if self._limits.quota_bytes is None:
            return
        used = count = 0
        for _, name, found in self._walk(root):
            # The room of an attempt that is taken up is the transfer's already.
            if not name.startswith(f".{key}."):
                used += found.st_size
                count += not name.endswith(JOURNAL)
        if used + size > self._limits.quota_bytes or count >= self._limits.files_max:
            raise FileRefusedError(FileError.QUOTA, "file: no more room for this peer")

    def _walk(self, root: int) -> Iterator[tuple[int, str, os.stat_result]]:
        for _, _, names, folder in os.fwalk(".", dir_fd=root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    yield folder, name, os.stat(name, dir_fd=folder, follow_symlinks=False)

    def open_source(self, path: str, if_match: bytes = ANY_CONTENT) -> Source:
        """Open a file to send it.

        Raises:
            FileRefusedError: Not there, not the one that `if_match` names, or not to be had.
        """
        self._check_extension(path)
        with self._opened(path) as root:
            source = Source(open_beneath(root, path, READ_FLAGS), path)
        if if_match not in (ANY_CONTENT, source.facts.sha256):
            source.close()
            raise FileRefusedError(FileError.CONFLICT, f"file {path}")
        return source

    def stat(self, path: str) -> FileStat:
        """Describe a file or a folder.

        Raises:
            FileRefusedError: Not there.
        """
        with self._opened(path) as root:
            handle = open_beneath(root, path or ".", READ_FLAGS)
            found = os.fstat(handle)
            if not stat.S_ISDIR(found.st_mode):
                source = Source(handle, path)
                source.close()
                return FileStat(False, source.facts, source.mode, source.modified_us)
            os.close(handle)
        mode = stat.S_IMODE(found.st_mode)
        return FileStat(True, FileFacts(0, ANY_CONTENT), mode, found.st_mtime_ns // 1000)

    def list(self, request: ListRequest) -> Listing:
        """Return the names behind the cursor; what is hidden or neither file nor folder is not.

        Raises:
            FileRefusedError: No such folder.
        """
        entries: list[Entry] = []
        with self._opened(request.path) as root:
            folder = open_folder(root, request.path)
            try:
                for name in _names(folder):
                    if name <= request.cursor or not _can_be_named(name):
                        continue
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
                        is_folder = stat.S_ISDIR(found.st_mode)
                        entries.append(Entry(name, is_folder, 0 if is_folder else found.st_size))
                    if len(entries) > request.limit:
                        break
            finally:
                os.close(folder)
        return Listing(tuple(entries[: request.limit]), len(entries) > request.limit)

    def delete(self, request: PathRequest) -> None:
        """Delete a file, durably.

        Raises:
            FileRefusedError: Not there, not a file, or not the one that `if_match` names.
        """
        self._check_extension(request.path)
        outer, _, name = request.path.rpartition("/")
        with self.lock, self._opened(request.path) as root:
            folder = open_folder(root, outer)
            try:
                current = hash_at(folder, name)
                if request.if_match not in (ANY_CONTENT, current):
                    raise FileRefusedError(FileError.CONFLICT, f"file {request.path}")
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
            finally:
                os.close(folder)

    def collect(self, before_ns: int) -> int:
        """Delete parts and journals that nobody has touched since; return how many.

        Raises:
            HostError: The folder cannot be read.
        """
        gone = 0
        try:
            with self._opened("parts") as root:
                for folder, name, found in self._walk(root):
                    ours = name.startswith(".") and name.endswith(SUFFIXES)
                    if ours and found.st_mtime_ns < before_ns:
                        os.unlink(name, dir_fd=folder)
                        gone += 1
        except FileRefusedError as error:
            raise HostError(f"{self._root}: {error.message}") from error
        return gone


def _can_be_named(name: str) -> bool:
    """Whether a peer could ask for this name; somebody else may have put others here."""
    try:
        check_path(name)
    except UnauthorizedError:
        return False
    return True


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True

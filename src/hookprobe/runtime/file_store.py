"""Files of one peer below one folder: confined, limited, and never half there.

A file comes into being as a part, `.<key>.part`, beside its later place: room is reserved first,
chunks are written where they belong, the whole is read again and its SHA-256 compared, then fsync,
rename, fsync of the folder. A crash at any point leaves the old file or the new one. A journal,
`.<key>.journal`, has one byte for each chunk and is only written behind an fdatasync of the part,
so what it claims is there; the key is made of everything that makes two transfers the same one.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hookprobe.errors import HostError
from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
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
from hookprobe.runtime.file_paths import open_beneath, open_folder, open_root, rename_noreplace

JOURNAL_EVERY_CHUNKS = 512
_READ_BYTES = 1 << 20
_KEY_DIGITS = 32
_SUFFIXES = (".part", ".journal")
_READ = os.O_RDONLY | os.O_NONBLOCK  # a FIFO in the folder must not make us wait for its writer

_REASONS = {
    errno.ENOENT: FileError.NOT_FOUND,
    errno.EEXIST: FileError.EXISTS,
    errno.ENOSPC: FileError.NO_SPACE,
    errno.EDQUOT: FileError.NO_SPACE,
    errno.EXDEV: FileError.FORBIDDEN,
    errno.ELOOP: FileError.FORBIDDEN,
    errno.ENOTDIR: FileError.FORBIDDEN,
    errno.EACCES: FileError.FORBIDDEN,
    errno.EFBIG: FileError.TOO_LARGE,
    errno.EISDIR: FileError.NOT_A_FILE,
    errno.ENXIO: FileError.NOT_A_FILE,
    errno.EWOULDBLOCK: FileError.BUSY,
}


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


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what the host says no to into the code a peer is told."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, FileError.HOST)
        raise FileRefusedError(reason, f"file {what}") from error


def hash_file(handle: int) -> bytes:
    """Return the SHA-256 of an open file's content."""
    found = hashlib.sha256()
    offset = 0
    while data := os.pread(handle, _READ_BYTES, offset):
        found.update(data)
        offset += len(data)
    return found.digest()


class Source:
    """An open file that is read chunk by chunk.

    Args:
        handle: An open descriptor; it is closed with this object.
        what: For error messages.

    Raises:
        FileRefusedError: Not a regular file, too large, or changed while its hash was taken.
    """

    def __init__(self, handle: int, what: str) -> None:
        self._handle = handle
        self._what = what
        try:
            self._seen = os.fstat(handle)
            if not stat.S_ISREG(self._seen.st_mode):
                raise FileRefusedError(FileError.NOT_A_FILE, f"file {what}")
            with _refusing(what):
                self.facts = FileFacts(self._seen.st_size, hash_file(handle))
            self.check()
        except BaseException:
            os.close(handle)
            raise
        self.mode = stat.S_IMODE(self._seen.st_mode)
        self.modified_us = self._seen.st_mtime_ns // 1000

    def read(self, index: int) -> bytes:
        """Return a chunk.

        Raises:
            FileRefusedError: The file is shorter than it was.
        """
        size = self.facts.chunk_size(index)
        with _refusing(self._what):
            data = os.pread(self._handle, size, index << self.facts.chunk_log2)
        if len(data) != size:
            raise FileRefusedError(FileError.CHANGED, f"file {self._what}")
        return data

    def check(self) -> None:
        """Look whether the file is still the one that was hashed.

        Raises:
            FileRefusedError: It has changed.
        """
        now = os.fstat(self._handle)
        if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
            raise FileRefusedError(FileError.CHANGED, f"file {self._what}")

    def close(self) -> None:
        os.close(self._handle)


def open_source(path: Path) -> Source:
    """Open a file of our own to send it.

    Raises:
        FileRefusedError: As `Source`, or not there.
    """
    with _refusing(path.name):
        handle = os.open(path, _READ | os.O_CLOEXEC)
    return Source(handle, path.name)


class Part:
    """A file under way; see the module's docstring.

    Args:
        store: Whose files are guarded against changing while this one takes its place.
        folder: The open folder; closed with this object.
        request: What is to come.
        update: Whether a file is replaced.
    """

    def __init__(self, store: "FileStore", folder: int, request: WriteRequest, key: str) -> None:
        self._store = store
        self._folder = folder
        self._request = request
        self._name = request.path.rpartition("/")[2]
        self._part, self._journal = f".{key}.part", f".{key}.journal"
        self._unjournalled = 0
        self.replacing: bytes | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self._part, flags, 0o600, dir_fd=folder)
        self.here = bytearray(request.facts.chunks)

    def prepare(self) -> None:
        """Take up an earlier attempt or make room for a new one."""
        fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = self._request.facts.size
        if size and os.fstat(self._handle).st_size == size:
            self._take_up()
            return
        # The journal of another attempt must be gone before the part has its size again.
        self._unlink(self._journal)
        os.ftruncate(self._handle, 0)
        if size:
            os.posix_fallocate(self._handle, 0, size)

    def _take_up(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            journal = os.open(self._journal, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._folder)
            try:
                found = os.read(journal, len(self.here) + 1)
            finally:
                os.close(journal)
            if len(found) == len(self.here):
                self.here[:] = found

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Write a chunk at its place.

        Raises:
            FileRefusedError: The disk failed.
        """
        with _refusing(self._name):
            done = 0
            while done < len(data):
                done += os.pwrite(self._handle, data[done:], offset + done)
        self.here[index] = 1
        self._unjournalled += 1
        if self._unjournalled >= JOURNAL_EVERY_CHUNKS:
            self.journal()

    def journal(self) -> None:
        """Make what is here durable, then claim it.

        Raises:
            FileRefusedError: The disk failed.
        """
        with _refusing(self._name):
            os.fdatasync(self._handle)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(self._journal, flags, 0o600, dir_fd=self._folder)
            try:
                # Bytes only ever turn from 0 to 1, so a torn write still tells the truth.
                os.pwrite(handle, bytes(self.here), 0)
            finally:
                os.close(handle)
        self._unjournalled = 0

    def finish(self) -> None:
        """Check the whole, make it durable, and give it its name.

        Raises:
            FileRefusedError: Another SHA-256, a file of that name came or changed, the disk failed.
        """
        try:
            with _refusing(self._name):
                if hash_file(self._handle) != self._request.facts.sha256:
                    raise FileRefusedError(FileError.HASH, f"file {self._name}")
                os.fchmod(self._handle, self._request.mode & 0o644 | 0o600)
                os.fsync(self._handle)
                with self._store.lock:
                    self._take_place()
                os.fsync(self._folder)
        except FileRefusedError:
            self._unlink(self._part)
            raise
        finally:
            self._unlink(self._journal)
            self.close()

    def _take_place(self) -> None:
        if self.replacing is None:
            rename_noreplace(self._folder, self._part, self._name)
            return
        if hash_at(self._folder, self._name) != self.replacing:
            raise FileRefusedError(FileError.CONFLICT, f"file {self._name}")
        os.rename(self._part, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def suspend(self) -> None:
        """Leave what is here for a later attempt."""
        try:
            self.journal()
        finally:
            self.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._unlink(self._part)
        self._unlink(self._journal)
        self.close()

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of the descriptors and nothing else."""
        os.close(self._handle)
        os.close(self._folder)


def hash_at(folder: int, name: str) -> bytes:
    """Return the SHA-256 of a regular file of an open folder.

    Raises:
        FileRefusedError: Not there, or not a regular file.
    """
    with _refusing(name):
        source = Source(open_beneath(folder, name, _READ), name)
    source.close()
    return source.facts.sha256


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
        with _refusing(what):
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
            folder = open_folder(root, outer, create=not update)
            try:
                replacing = self._replacing(folder, name, request) if update else None
                if not update and _exists(folder, name):
                    raise FileRefusedError(FileError.EXISTS, f"file {request.path}")
                key = self._key(request)
                self._check_room(root, folder, key, request.facts.size)
                part = Part(self, folder, request, key)
            except BaseException:
                os.close(folder)
                raise
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
        said = (self._owner, request.path, str(facts.size), facts.sha256.hex(), facts.chunk_log2)
        joined = "\n".join(str(part) for part in said)
        return hashlib.sha256(joined.encode()).hexdigest()[:_KEY_DIGITS]

    def _check_room(self, root: int, folder: int, key: str, size: int) -> None:
        if self._limits.quota_bytes is None:
            return
        used = count = 0
        for _, _, found in self._walk(root):
            used += found.st_size
            count += 1
        with contextlib.suppress(FileNotFoundError):
            # The room of the attempt that is taken up is ours already.
            used -= os.stat(f".{key}.part", dir_fd=folder, follow_symlinks=False).st_size
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
            source = Source(open_beneath(root, path, _READ), path)
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
            handle = open_beneath(root, path or ".", _READ)
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
                    if name <= request.cursor or name.startswith("."):
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
                    ours = name.startswith(".") and name.endswith(_SUFFIXES)
                    if ours and found.st_mtime_ns < before_ns:
                        os.unlink(name, dir_fd=folder)
                        gone += 1
        except FileRefusedError as error:
            raise HostError(f"{self._root}: {error.message}") from error
        return gone


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True

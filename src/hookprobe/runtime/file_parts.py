"""Files that are read and files that come into being, chunk by chunk.

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
from collections.abc import Sequence
from pathlib import Path

from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    FileError,
    FileFacts,
    FileRefusedError,
    WriteRequest,
)
from hookprobe.runtime.file_paths import open_beneath, rename_noreplace

JOURNAL_EVERY_CHUNKS = 64  # 4 MiB
_READ_BYTES = 1 << 17  # read again and again into the same place, which stays in the caches
JOURNAL = ".journal"
SUFFIXES = (".part", JOURNAL)
READ_FLAGS = (
    os.O_RDONLY | os.O_NONBLOCK
)  # a FIFO in the folder must not make us wait for its writer

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


class refusing:  # noqa: N801 (it is used like contextlib's)
    """Turn what the host says no to into the code a peer is told."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = _REASONS.get(error.errno or 0, FileError.HOST)
            raise FileRefusedError(reason, f"file {self._what}") from error


def hash_file(handle: int) -> bytes:
    """Return the SHA-256 of an open file's content."""
    found = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    offset = 0
    while size := os.preadv(handle, [buffer], offset):
        found.update(buffer[:size])
        offset += size
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
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, handle)
            self._seen = os.fstat(handle)
            if not stat.S_ISREG(self._seen.st_mode):
                raise FileRefusedError(FileError.NOT_A_FILE, f"file {what}")
            with refusing(what):
                self.facts = FileFacts(self._seen.st_size, hash_file(handle))
            self.check()
            stack.pop_all()
        self._last = self.facts.chunks - 1
        self.mode = stat.S_IMODE(self._seen.st_mode)
        self.modified_us = self._seen.st_mtime_ns // 1000

    def read(self, index: int) -> bytes:
        """Return a chunk.

        Raises:
            FileRefusedError: The file is shorter than it was.
        """
        size = self.facts.chunk_size(index) if index == self._last else CHUNK_BYTES
        with refusing(self._what):
            data = os.pread(self._handle, size, index * CHUNK_BYTES)
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
    with refusing(path.name):
        handle = os.open(path, READ_FLAGS | os.O_CLOEXEC)
    return Source(handle, path.name)


class Part:
    """A file under way; see the module's docstring.

    Args:
        lock: Guards the peer's files while this one takes its place.
        folder: The open folder; closed with this object.
        request: What is to come.
        key: What makes two transfers the same one.
    """

    def __init__(self, lock: threading.Lock, folder: int, request: WriteRequest, key: str) -> None:
        self._lock = lock
        self._folder = folder
        self._request = request
        self._name = request.path.rpartition("/")[2]
        self._part, self._journal = f".{key}.part", f".{key}{JOURNAL}"
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

    def write(self, offset: int, data: bytes, whole: Sequence[int]) -> None:
        """Write bytes at their place; the chunks `whole` are then complete.

        Raises:
            FileRefusedError: The disk failed.
        """
        with refusing(self._name):
            done = 0
            while done < len(data):
                done += os.pwrite(self._handle, data[done:], offset + done)
        for index in whole:
            self.here[index] = 1
        self._unjournalled += len(whole)
        if self._unjournalled >= JOURNAL_EVERY_CHUNKS:
            self.journal()

    def journal(self) -> None:
        """Make what is here durable, then claim it.

        Raises:
            FileRefusedError: The disk failed.
        """
        with refusing(self._name):
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
            with refusing(self._name):
                if hash_file(self._handle) != self._request.facts.sha256:
                    raise FileRefusedError(FileError.HASH, f"file {self._name}")
                os.fchmod(self._handle, self._request.mode & 0o644 | 0o600)
                os.fsync(self._handle)
                with self._lock:
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
    with refusing(name):
        source = Source(open_beneath(folder, name, READ_FLAGS), name)
    source.close()
    return source.facts.sha256

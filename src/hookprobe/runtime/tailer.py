"""Follow a growing log file through rotation, truncation and restarts.

Each `read` returns what is new: `Chunk`s of bytes, and a `Rotated` mark where a new file begins.
A renamed file is read to its end before the new one is opened; a truncated one starts again at 0.
Nothing here looks into the bytes.
"""

import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from hookprobe.errors import HostError

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Chunk:
    """New bytes; `position` is the offset of the first one in its file."""

    data: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """What follows comes from a new file (or the same one, emptied), from offset 0."""

    inode: int


def end_of(path: Path) -> tuple[int, int]:
    """Return inode and size of a file, (0, 0) where there is none yet.

    Raises:
        HostError: It is there but cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="check the sensor's log file") from error
    return found.st_ino, found.st_size


class Tailer:
    """Follows one path.

    Args:
        path: The file; it may not exist yet.
        inode: The file that `position` belongs to; 0 when nothing was read before.
        position: Where to go on reading in that file.
    """

    def __init__(self, path: Path, *, inode: int = 0, position: int = 0) -> None:
        self._path = path
        self._file: BufferedReader | None = None
        self._inode = inode
        self._position = position

    @property
    def inode(self) -> int:
        return self._inode

    def read(self) -> list[Chunk | Rotated]:
        """Return what is new, at most `CHUNK_BYTES` and one rotation at a time.

        Raises:
            HostError: The file is there but cannot be read.
        """
        if self._file is None:
            return self._open()
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size < self._position:
                self._file.seek(0)
                self._position = 0
                return [Rotated(self._inode)]
            data = self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise self._failure(error) from error
        if data:
            chunk = Chunk(data, self._position)
            self._position += len(data)
            return [chunk]
        if self._was_replaced():
            self.close()
            self._inode = self._position = 0
            return self._open()
        return []

    def _was_replaced(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return False  # renamed, and the new file is not there yet

    def _open(self) -> list[Chunk | Rotated]:
        path = self._path
        if self._inode and self._position and not self._same_file(path):
            # The file we were reading was rotated while we were away: finish it first.
            path = self._rotated_sibling() or path
        try:
            self._file = path.open("rb")
            found = os.fstat(self._file.fileno())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failure(error) from error
        if found.st_ino == self._inode and found.st_size >= self._position:
            self._file.seek(self._position)
            return self.read()
        self._inode, self._position = found.st_ino, 0
        return [Rotated(self._inode)]

    def _same_file(self, path: Path) -> bool:
        try:
            return path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _rotated_sibling(self) -> Path | None:
        candidates = sorted(self._path.parent.glob(self._path.name + "*"))
        return next((path for path in candidates if self._same_file(path)), None)

    def _failure(self, error: OSError) -> HostError:
        return HostError(f"{self._path}: {error.strerror}", hint="check the sensor's log file")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

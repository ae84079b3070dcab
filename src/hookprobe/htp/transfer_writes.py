"""What the receiver of a file has written: bytes at their places, neighbours in one go."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.errors import MalformedError


@dataclass(frozen=True, slots=True)
class WritePart:
    """Put these bytes at this place of the part; the chunks `whole` are then complete."""

    file_id: int
    offset: int
    data: bytes
    whole: tuple[int, ...]


def check_pieces(pieces: Sequence[bytes], start: int, step: int, size: int) -> None:
    """Refuse neighbours from `start` on that are not equal fragments of a chunk of `size` bytes."""
    lengths = {*map(len, pieces[:-1])}
    last = start + (len(pieces) - 1) * step
    right = len(pieces[-1]) == (step if last + step <= size else size - last)
    if last >= size or not right or not lengths <= {step}:
        raise MalformedError(f"CHUNK: a fragment of {len(pieces[-1])} bytes at {last}")


class WriteRun:
    """Neighbouring fragments on their way to the disk in one write."""

    def __init__(self, file_id: int) -> None:
        self._file_id = file_id
        self._writes: list[WritePart] = []
        self._data: list[bytes] = []
        self.whole: list[int] = []
        self._start = self._stop = 0

    def add(self, offset: int, pieces: Sequence[bytes]) -> None:
        if offset != self._stop:
            self._flush()
            self._start = offset
        self._data += pieces
        self._stop = offset + sum(map(len, pieces))

    def add_missing(self, offset: int, pieces: Sequence[bytes], missing: int) -> None:
        """Take neighbours of one size of which bit i of `missing` says that piece i is wanted."""
        if missing & (1 << len(pieces)) - 1 == (1 << len(pieces)) - 1:
            self.add(offset, pieces)
            return
        for place, piece in enumerate(pieces):
            if missing >> place & 1:
                self.add(offset + place * len(pieces[0]), (piece,))

    def _flush(self) -> None:
        if self._data:
            data = b"".join(self._data)
            self._writes.append(WritePart(self._file_id, self._start, data, tuple(self.whole)))
            self._data, self.whole = [], []

    def finish(self) -> list[WritePart]:
        self._flush()
        return self._writes


def inflate(data: bytes, size: int) -> bytes:
    """Return the `size` bytes that were compressed, and never hold more than one too many.

    Raises:
        MalformedError: Not one whole zlib stream of exactly that many bytes.
    """
    stream = zlib.decompressobj()
    try:
        # One byte of room beyond the size lets zlib reach its checksum; it is never filled.
        found = stream.decompress(data, size + 1)
    except zlib.error:
        raise MalformedError("CHUNK: not a zlib stream") from None
    if not stream.eof or stream.unconsumed_tail or stream.unused_data or len(found) != size:
        raise MalformedError("CHUNK: compressed data of another size")
    return found

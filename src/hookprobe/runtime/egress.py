"""The egress record: every message and every datagram that leaves a node, for those who doubt.

A binary file, appended: `kind u8 || length u32 || bytes`, kind 1 for a message in its plain form
before sealing, kind 2 for a datagram as it went to the network. Off unless configured: it grows
with the traffic and holds what the mesh is told in plain.
"""

from collections.abc import Iterator
from pathlib import Path

from hookprobe.errors import HostError
from hookprobe.wire.reader import Reader, Writer

MESSAGE = 1
DATAGRAM = 2
_RECORD_MAX_BYTES = 1 << 21


class EgressRecord:
    """Appends to one file.

    Raises:
        HostError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error

    def add(self, kind: int, data: bytes) -> None:
        """Append one entry.

        Raises:
            HostError: The disk failed: what cannot be recorded must not leave.
        """
        try:
            self._file.write(Writer().u8(kind).block32(data).finish())
        except OSError as error:
            raise HostError(f"{self._file.name}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, bytes) of a record file; a last entry cut off by a crash is left out.

    Raises:
        HostError: The file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    reader = Reader(data, str(path))
    while reader.remaining >= 5:
        kind, length = reader.u8(), reader.u32()
        if length > min(reader.remaining, _RECORD_MAX_BYTES):
            return
        yield kind, reader.take(length)

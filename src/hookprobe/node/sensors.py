"""Sensor files as an edge reads them: bytes to lines, and where to read again after a restart.

A position counts bytes over all files of one sensor since this node first followed it, so it grows
for ever while files rotate under it. What is kept durably is the file (inode) and offset that the
oldest open evidence begins at: after a crash that part is read again, and nothing is lost. Reading
it again reports nothing twice, because incident keys are functions of the evidence.
"""

from dataclasses import dataclass

from hookprobe.detection.event import Sensor
from hookprobe.detection.stream import Line, LineSkipped, LineStream
from hookprobe.dsm.store import StoreReader, Table, Write
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields

FILES_REMEMBERED_MAX = 8
_PREFIX = b"sensor/"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on reading: a file and an offset in it; inode 0 for "never read"."""

    inode: int
    offset: int


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a sensor: its inode, and the position of its first byte."""

    inode: int
    base: int


class SensorFeed:
    """One followed file.

    Args:
        sensor: Which sensor writes it.
        path: Its path; names the durable row.
        reader: The store as it was left.
    """

    def __init__(self, sensor: Sensor, path: str, reader: StoreReader) -> None:
        self.sensor = sensor
        self._row = _PREFIX + path.encode()
        self.begin_at(_load(reader.get(Table.NODE, self._row)))

    def begin_at(self, place: Place) -> None:
        """Go on reading at a place; only before the first bytes."""
        self.place = place
        self._files = [_File(place.inode, 0)]
        self._stream = LineStream(place.offset)
        self._read = place.offset
        self._kept = place

    def receive_bytes(self, data: bytes) -> list[Line | LineSkipped]:
        """Return the lines that new bytes complete; positions count over all files."""
        base = self._files[-1].base
        self._read += len(data)
        return [_moved(item, base) for item in self._stream.receive_bytes(data)]

    def receive_rotation(self, inode: int) -> list[Line | LineSkipped]:
        """Go on with a new file; a half-written last line of the old one is named."""
        last = self._files[-1]
        skipped = [_moved(item, last.base) for item in self._stream.receive_rotation()]
        self._files.append(_File(inode, last.base + self._read))
        self._files = self._files[-FILES_REMEMBERED_MAX:]
        self._read = 0
        return skipped

    def keep(self, watermark: int) -> list[Write]:
        """Return the row that makes `watermark` the place to restart from; none if unchanged."""
        file = next((f for f in reversed(self._files) if f.base <= watermark), self._files[0])
        place = Place(file.inode, max(0, watermark - file.base))
        if place == self._kept:
            return []
        self._kept = place
        document = canonical.encode({"inode": place.inode, "offset": place.offset})
        return [(Table.NODE, self._row, document)]


def _moved(item: Line | LineSkipped, base: int) -> Line | LineSkipped:
    if isinstance(item, Line):
        return Line(item.position + base, item.data)
    return LineSkipped(item.position + base, item.reason)


def _load(row: bytes | None) -> Place:
    if row is None:
        return Place(0, 0)
    fields = Fields(canonical.decode_object(row), "stored sensor position")
    place = Place(fields.integer("inode"), fields.integer("offset"))
    fields.finish()
    return place

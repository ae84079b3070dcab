"""The device's own log of records: appended and synced before a record counts.

    header  "HPNL", version 1, u32 epoch, u64 index of the first record, 15 zero bytes
    entry   64 bytes record, first 8 bytes of SHA-256(index || record)

After a crash the last entry may be torn: it was never confirmed, so it is cut off. A damaged entry
before it is no crash; it is an error, and nothing is skipped over. Records of one epoch stand in
one file; the hash finds accidents, the verifier finds edits.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hookprobe.errors import HostError, LocalError, MalformedError
from hookprobe.neuro import ter
from hookprobe.neuro.ter import TER_BYTES, Ter
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.wire.reader import Reader, Writer

LOG_FILE = "ter.log"
SNAPSHOT_FILE = "neuro.snapshot"
RECORDS_MAX = 1 << 17  # twice what may wait for the verifier
_MAGIC = b"HPNL"
_VERSION = 1
_HEADER_BYTES = 32
_MARK_BYTES = 8
_ENTRY_BYTES = TER_BYTES + _MARK_BYTES
LOG_MAX_BYTES = _HEADER_BYTES + RECORDS_MAX * _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Kept:
    """What a log holds: `records[0]` has index `first`. `torn` bytes were cut off."""

    epoch: int
    first: int
    records: tuple[Ter, ...]
    torn: int = 0


def _header(epoch: int, first: int) -> bytes:
    head = Writer().put(_MAGIC).u8(_VERSION).u32(epoch).u64(first).finish()
    return head.ljust(_HEADER_BYTES, b"\0")


def _entry(index: int, record: bytes) -> bytes:
    mark = hashlib.sha256(index.to_bytes(8, "big") + record).digest()[:_MARK_BYTES]
    return record + mark


def read_log(path: Path) -> Kept:
    """Read a log.

    Raises:
        HostError: Not readable, or too large.
        MalformedError: Not a log, or damaged before its last entry.
    """
    data = read_file(path, limit=LOG_MAX_BYTES)
    reader = Reader(data[:_HEADER_BYTES], "TER log")
    if reader.take(len(_MAGIC)) != _MAGIC or reader.u8() != _VERSION:
        raise MalformedError(f"{path}: not a TER log of this version")
    epoch, first = reader.u32(), reader.u64()
    if data[:_HEADER_BYTES] != _header(epoch, first):
        raise MalformedError(f"{path}: damaged header")
    body = data[_HEADER_BYTES:]
    records: list[Ter] = []
    for at in range(0, len(body), _ENTRY_BYTES):
        entry = body[at : at + _ENTRY_BYTES]
        if entry != _entry(first + len(records), entry[:TER_BYTES]):
            if at + _ENTRY_BYTES < len(body):
                raise MalformedError(
                    f"{path}: entry {first + len(records)} is damaged",
                    hint="restore log and snapshot together, or ask for a new epoch",
                )
            return Kept(epoch, first, tuple(records), len(entry))
        records.append(ter.decode(entry[:TER_BYTES]))
    return Kept(epoch, first, tuple(records))


class TerLog:
    """An open log.

    Args:
        folder: Where it lies; it is made with the first record's epoch and index.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._epoch = 0
        self._first = 0
        self._next = 0

    def peek(self, epoch: int, index: int) -> Kept:
        """Read the log without touching it; another process may be writing.

        Args:
            epoch: The epoch of the snapshot.
            index: The index of the snapshot.

        Raises:
            HostError: The disk failed.
            MalformedError: The log is damaged, or has a gap between the snapshot and its first
                record.
        """
        kept = read_log(self._path) if self._path.exists() else Kept(epoch, index, ())
        if kept.epoch < epoch:
            kept = Kept(epoch, index, ())  # a crash fell between a new epoch's snapshot and log
        if kept.epoch > epoch or not kept.first <= index <= kept.first + len(kept.records):
            raise MalformedError(
                f"{self._path}: does not reach the snapshot at epoch {epoch}, record {index}",
                hint="restore log and snapshot together, or ask for a new epoch",
            )
        return kept

    def open(self, epoch: int, index: int) -> Kept:
        """Read the log to go on writing it, or begin one; a torn tail is cut off durably.

        Raises:
            HostError: The disk failed.
            MalformedError: See `peek`.
        """
        kept = self.peek(epoch, index)
        if kept.torn or not kept.records:
            self._write(kept.epoch, kept.first, kept.records)
        self._epoch, self._first = kept.epoch, kept.first
        self._next = kept.first + len(kept.records)
        return kept

    def append(self, epoch: int, index: int, record: Ter) -> None:
        """Write one record; when this returns it survives a power loss.

        Raises:
            LocalError: Not the next record, or the log is full.
            HostError: The disk failed.
        """
        if (epoch, index) != (self._epoch, self._next):
            raise LocalError(f"TER log: record {index} after {self._next - 1}")
        if index - self._first >= RECORDS_MAX:
            raise LocalError(f"TER log: {RECORDS_MAX} records are kept already")
        try:
            with self._path.open("r+b") as file:
                # A write that failed may have left a part of this entry; it is written over.
                file.seek(_HEADER_BYTES + (index - self._first) * _ENTRY_BYTES)
                file.write(_entry(index, record.encode()))
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}", hint="check free space") from error
        self._next = index + 1

    def trim(self, first: int) -> None:
        """Forget the records below an index; after the snapshot at that index is durable.

        Raises:
            LocalError: An index outside the log.
            HostError: The disk failed.
        """
        if not self._first <= first <= self._next:
            raise LocalError(f"TER log: no record {first} to begin with")
        kept = read_log(self._path)
        self._write(self._epoch, first, kept.records[first - self._first :])
        self._first = first

    def restart(self, epoch: int) -> None:
        """Begin an epoch; its snapshot is durable already."""
        self._write(epoch, 0, ())
        self._epoch, self._first, self._next = epoch, 0, 0

    def _write(self, epoch: int, first: int, records: Sequence[Ter]) -> None:
        entries = [_entry(first + i, record.encode()) for i, record in enumerate(records)]
        write_atomically(self._path, b"".join([_header(epoch, first), *entries]), mode=0o600)

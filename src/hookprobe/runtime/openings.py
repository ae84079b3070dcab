"""Keeps what opens a device's entropy commitments, for 30 days, and on this machine only.

One file for each day of record time; each entry is u32 epoch, u64 index, 98 bytes opening. A
verifier may ask for one; none leaves by itself, because counters say how a machine is used.
"""

import os
from pathlib import Path

from hookprobe.errors import HostError
from hookprobe.neuro.measurement import OPENING_BYTES, Opening
from hookprobe.runtime.keystore import read_file
from hookprobe.wire.instant import DAY, Instant

DAYS_KEPT = 30
DAY_FILE_MAX_BYTES = 1 << 24  # a record a second for a day needs 9.5 MB
_PLACE_BYTES = 12
_ENTRY_BYTES = _PLACE_BYTES + OPENING_BYTES
_PATTERN = "openings-*.bin"


def _place(epoch: int, index: int) -> bytes:
    return epoch.to_bytes(4, "big") + index.to_bytes(8, "big")


class Openings:
    """The openings of one device.

    Args:
        folder: Where the day files lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _day(self, at: Instant) -> Path:
        return self._folder / f"openings-{at // DAY:08d}.bin"

    def keep(self, epoch: int, index: int, opening: Opening, at: Instant) -> None:
        """Append an opening; call it before the record is appended.

        Raises:
            HostError: The disk failed.
        """
        path = self._day(at)
        if not path.exists():
            self._forget(at)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(_place(epoch, index) + opening.encode())
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", hint="check free space") from error

    def find(self, epoch: int, index: int) -> bytes | None:
        """Return the latest opening kept for a record; None if it is not kept any more."""
        wanted = _place(epoch, index)
        for path in sorted(self._folder.glob(_PATTERN), reverse=True):
            data = read_file(path, limit=DAY_FILE_MAX_BYTES)
            starts = range(len(data) // _ENTRY_BYTES * _ENTRY_BYTES - _ENTRY_BYTES, -1,
                           -_ENTRY_BYTES)  # fmt: skip
            for at in starts:
                if data[at : at + _PLACE_BYTES] == wanted:
                    return data[at + _PLACE_BYTES : at + _ENTRY_BYTES]
        return None

    def _forget(self, at: Instant) -> None:
        oldest = self._day(Instant(max(0, at - DAYS_KEPT * DAY)))
        for path in sorted(self._folder.glob(_PATTERN)):
            if path.name < oldest.name:
                path.unlink(missing_ok=True)

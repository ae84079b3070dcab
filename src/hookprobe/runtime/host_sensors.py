"""Reads a Linux host's integer counters out of /proc and /sys.

Only plain files are read, a quarter of a millisecond in all; nothing is averaged, no float is made.
A file that is not there (containers, small virtual machines) gives None, never a zero.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hookprobe.neuro.measurement import SALT_BYTES, Counters, Opening

PROC = Path("/proc")
SYS = Path("/sys")
_CPU_IDLE = (3, 4)  # idle and iowait, of the columns of the line "cpu"
_CPU_COLUMNS = 8  # guest time, beyond, is counted in user time already
_VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")


@dataclass(frozen=True, slots=True)
class HostSensors:
    """Where to read; tests point it at a made-up host."""

    random_bytes: Callable[[int], bytes]
    proc: Path = PROC
    sys: Path = SYS

    def read(self) -> Opening:
        """Read all counters under a fresh salt."""
        return Opening(self.random_bytes(SALT_BYTES), self.counters())

    def counters(self) -> Counters:
        """Return all counters."""
        busy, idle, switches = self._processor()
        received, sent = self._network()
        read, written = self._disks()
        return Counters(
            cpu_busy=busy,
            cpu_idle=idle,
            memory_available_kib=self._memory(),
            received_bytes=received[0],
            received_packets=received[1],
            sent_bytes=sent[0],
            sent_packets=sent[1],
            disk_read_sectors=read,
            disk_written_sectors=written,
            context_switches=switches,
        )

    def _processor(self) -> tuple[int | None, int | None, int | None]:
        busy = idle = switches = None
        for line in read_lines(self.proc / "stat"):
            name, *values = line.split()
            if name == "cpu":
                ticks = _integers(values[:_CPU_COLUMNS])
                if len(ticks) > max(_CPU_IDLE):
                    idle = sum(ticks[place] for place in _CPU_IDLE)
                    busy = sum(ticks) - idle
            elif name == "ctxt":
                switches = next(iter(_integers(values[:1])), None)
        return busy, idle, switches

    def _memory(self) -> int | None:
        for line in read_lines(self.proc / "meminfo"):
            if line.startswith("MemAvailable:"):
                return next(iter(_integers(line.split()[1:2])), None)
        return None

    def _network(self) -> tuple[tuple[int | None, int | None], tuple[int | None, int | None]]:
        physical = [path.parent for path in matching(self.sys / "class/net", "*/device")]
        totals = [
            _total(path / "statistics" / name for path in physical)
            for name in ("rx_bytes", "rx_packets", "tx_bytes", "tx_packets")
        ]
        return (totals[0], totals[1]), (totals[2], totals[3])

    def _disks(self) -> tuple[int | None, int | None]:
        rows = [
            _integers(read_text(path / "stat").split())
            for path in matching(self.sys / "block", "*")
            if not path.name.startswith(_VIRTUAL_DISKS)
        ]
        known = [row for row in rows if len(row) > 6]
        if not known:
            return None, None
        return sum(row[2] for row in known), sum(row[6] for row in known)


def read_text(path: Path) -> str:
    """Return a small file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a small file that hold something; none where it cannot be read."""
    return [line for line in read_text(path).splitlines() if line.strip()]


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths below a folder that match, sorted; none where it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _integers(values: Sequence[str]) -> list[int]:
    return [int(value) for value in values if value.isascii() and value.isdigit()]


def _total(paths: Iterable[Path]) -> int | None:
    found = [value for path in paths for value in _integers([read_text(path)])]
    return sum(found) if found else None

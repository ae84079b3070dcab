"""A device's NEURO state on disk: snapshot, log, openings, and what of the host is measured.

`DeviceStore.open` is the restart: snapshot, then the log's records after it. `execute` does what
the attester asks of the disk, in the order it asks for it; a record is on disk before the attester
hears so.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hookprobe
from hookprobe.errors import VerificationError
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro import snapshot
from hookprobe.neuro.attester import Reading
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.effects import AppendRecord, Effect, SaveSnapshot, TrimLog
from hookprobe.neuro.measurement import Components, Opening, commit
from hookprobe.neuro.snapshot import SNAPSHOT_BYTES, Snapshot
from hookprobe.neuro.ter import Ter
from hookprobe.node.resonance import FIRST_EPOCH, device_state
from hookprobe.runtime.host_sensors import SYS, HostSensors, read_text
from hookprobe.runtime.integrity import Integrity, Places
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.runtime.openings import Openings
from hookprobe.runtime.ter_log import SNAPSHOT_FILE, TerLog
from hookprobe.wire.instant import Instant

SYSTEM_CONFIG = Path("/etc/hookprobe")
_RTC = Path("/sys/class/rtc/rtc0")
_HYPERVISOR_CLOCK = Path("/dev/ptp0")
_HYPERVISOR_SOURCES = ("kvm-clock", "hyperv", "xen")
_TIMEX_BYTES = 256  # struct timex has 208; all zero asks without setting anything
_TIME_ERROR = 5  # adjtimex: the clock is not synchronized


class DeviceStore:
    """The files of one device.

    Args:
        folder: The node's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._snapshot = folder / SNAPSHOT_FILE
        self.log = TerLog(folder)
        self.openings = Openings(folder)

    def open(
        self, ours: NodeSecrets, engine: EngineFactory, *, read_only: bool = False
    ) -> tuple[Snapshot, tuple[Ter, ...]]:
        """Return the snapshot to continue from and the log's records after it.

        Args:
            ours: The device's secrets, for a first start.
            engine: The backend.
            read_only: Only look; the node may be running.

        Raises:
            HostError: The disk failed.
            MalformedError: Snapshot or log is damaged, or they do not meet.
        """
        if self._snapshot.exists():
            data = read_file(self._snapshot, limit=SNAPSHOT_BYTES)
            start = snapshot.decode(data, engine)
        else:
            start = Snapshot(FIRST_EPOCH, device_state(ours, FIRST_EPOCH, engine))
        read = self.log.peek if read_only else self.log.open
        kept = read(start.epoch, start.state.count)
        records = kept.records[start.state.count - kept.first :]
        before = kept.records[: start.state.count - kept.first]
        if before and before[-1] != start.state.previous:
            raise VerificationError("TER log and snapshot are of different histories")
        return start, records

    def execute(self, effect: Effect) -> None:
        """Do what an effect asks of the disk; other effects are not for the disk.

        Raises:
            HostError: The disk failed; the node must stop and start again from disk.
        """
        match effect:
            case AppendRecord():
                self.log.append(effect.epoch, effect.index, effect.record)
            case SaveSnapshot():
                write_atomically(self._snapshot, effect.data, mode=0o600)
                if effect.index == 0:
                    self.log.restart(effect.epoch)
            case TrimLog():
                self.log.trim(effect.first_index)
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Capture:
    """One measurement of the host, with what opens it."""

    reading: Reading
    opening: Opening
    components: Components


class HostCapture:
    """Measures this host for records.

    Args:
        sensors: Its counters.
        integrity: Its files.
    """

    def __init__(self, sensors: HostSensors, integrity: Integrity) -> None:
        self._sensors = sensors
        self._integrity = integrity

    def capture(self, now: Instant, *, full: bool = False) -> Capture:
        """Measure once.

        Raises:
            HostError: More files than the bound.
        """
        components = self._integrity.measure(now, full=full)
        opening = self._sensors.read()
        reading = Reading(commit(opening), components.h_integrity(), clock_trusted())
        return Capture(reading, opening, components)


def host_capture(settings: Path | None, random_bytes: Callable[[int], bytes]) -> HostCapture:
    """Return the capture of this host: our package and interpreter, and the configuration."""
    configs = tuple(path for path in (settings, SYSTEM_CONFIG) if path is not None)
    package = Path(hookprobe.__file__).parent
    places = Places((package, Path(os.path.realpath(sys.executable))), configs)
    return HostCapture(HostSensors(random_bytes), Integrity(places, random_bytes))


def clock_trusted() -> bool:
    """Whether this host knows the time: a clock chip, a hypervisor's clock, or a time service.

    The kernel says whether any time service (NTP, PTP) keeps its clock. A virtual machine gets its
    time from its host; its clock source or the precision clock of the hypervisor shows that.
    """
    if _RTC.exists() or _HYPERVISOR_CLOCK.exists():
        return True
    available = read_text(SYS / "devices/system/clocksource/clocksource0/available_clocksource")
    if any(name in available for name in _HYPERVISOR_SOURCES):
        return True
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR

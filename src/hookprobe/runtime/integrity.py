"""Measures kernel, own package and configuration, cheaply each minute and fully now and then.

    kernel  running build id (/sys/kernel/notes), /proc/version, /proc/cmdline without volatile
            keys, and the boot image, config.txt and cmdline.txt where they can be read
    binary  every file of the package and of its native libraries, and the interpreter
    config  every file below the configuration folders

Sweep: modification and change time, size and inode of every file. Full hash: when the sweep finds
anything moved, every ten minutes at a random offset, and when a verifier asks. A change that keeps
all four and is undone between two full hashes is not seen; no software measurement sees it.

Loaded modules and the taint flag stay out: a plugged-in device must not look like tampering.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hookprobe.errors import HostError
from hookprobe.neuro.measurement import Components, component
from hookprobe.runtime.host_sensors import PROC, SYS, read_text
from hookprobe.wire.instant import MINUTE, Instant

FULL_EVERY_US = 10 * MINUTE
FILES_MAX = 20_000
_CHUNK_BYTES = 1 << 20
_SKIPPED = ("__pycache__",)
# Boot loaders write these anew at each start, or they name a boot and not a system.
_VOLATILE_KEYS = ("BOOT_IMAGE", "initrd", "systemd.machine_id", "smsc95xx.macaddr", "bcm2708_fb")
_BOOT_FILES = ("config.txt", "cmdline.txt", "firmware/config.txt", "firmware/cmdline.txt")
_BOOT_IMAGES = ("firmware/kernel8.img", "kernel8.img", "firmware/kernel_2712.img")

# What the sweep compares: modification time, change time, size, inode.
Trace = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Places:
    """What is measured.

    Attributes:
        binaries: Folders and files of the program; links are followed for files named here.
        configs: Folders and files of the configuration.
    """

    binaries: tuple[Path, ...]
    configs: tuple[Path, ...]
    boot: Path = Path("/boot")
    proc: Path = PROC
    sys: Path = SYS


@dataclass(slots=True)
class Integrity:
    """Measures on demand, with a memory of the last full hash.

    Args:
        places: What to measure.
        random_bytes: A source for the offset of the periodic full hash.
    """

    places: Places
    random_bytes: Callable[[int], bytes]
    full_hashes: int = 0
    _traces: dict[str, Trace | None] = field(default_factory=dict)
    _last: Components | None = None
    _full_due: Instant = field(default=Instant(0))

    def measure(self, now: Instant, *, full: bool = False) -> Components:
        """Return the measurement; hash everything if asked, if due, or if anything moved.

        Raises:
            HostError: More files than the bound.
        """
        traces = self._sweep()
        if self._last is None or full or now >= self._full_due or traces != self._traces:
            self._last = self._hash()
            self._traces = traces
            self.full_hashes += 1
            offset = int.from_bytes(self.random_bytes(4), "big") % (FULL_EVERY_US // 2)
            self._full_due = Instant(now + FULL_EVERY_US // 2 + offset)
        return self._last

    def _sweep(self) -> dict[str, Trace | None]:
        found: dict[str, Trace | None] = {}
        for path in self._files():
            if len(found) >= FILES_MAX:
                raise HostError(f"integrity: more than {FILES_MAX} files to measure")
            found[str(path)] = _trace(path)
        return found

    def _files(self) -> Iterator[Path]:
        for root in (*self.places.binaries, *self.places.configs):
            yield from walk(root)
        yield from self._boot()

    def _boot(self) -> list[Path]:
        boot = self.places.boot
        release = read_text(self.places.proc / "sys/kernel/osrelease")
        images = [boot / f"vmlinuz-{release}"] if release else []
        return images + [boot / name for name in (*_BOOT_IMAGES, *_BOOT_FILES)]

    def _hash(self) -> Components:
        places = self.places
        kernel: dict[str, bytes | None] = {
            "build-id": _hash_file(places.sys / "kernel/notes"),
            "cmdline": _hash_text(stable_cmdline(read_text(places.proc / "cmdline"))),
            "version": _hash_text(read_text(places.proc / "version")),
        }
        for path in self._boot():
            kernel[str(path)] = _hash_file(path)
        return Components(
            component(kernel),
            component(_hash_all(places.binaries)),
            component(_hash_all(places.configs)),
        )


def stable_cmdline(text: str) -> str:
    """Return a kernel command line without the keys that change from boot to boot."""
    kept = [word for word in text.split() if word.split("=")[0] not in _VOLATILE_KEYS]
    return " ".join(kept)


def walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted; a root that is a file, or absent, yields itself."""
    if not root.is_dir():
        yield root
        return
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            yield Path(folder) / name


def _hash_all(roots: Sequence[Path]) -> dict[str, bytes | None]:
    return {str(path): _hash_file(path) for root in roots for path in walk(root)}


def _trace(path: Path) -> Trace | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _hash_text(text: str) -> bytes | None:
    return hashlib.sha256(text.encode()).digest() if text else None


def _hash_file(path: Path) -> bytes | None:
    """Return the SHA-256 of a file with its mode; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = hashlib.sha256(mode.to_bytes(4, "big"))
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
    except OSError:
        return None
    return found.digest()

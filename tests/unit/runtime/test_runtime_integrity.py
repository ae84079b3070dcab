import hashlib
import os
from pathlib import Path

import pytest

from hookprobe.errors import HostError
from hookprobe.neuro.measurement import Components, component
from hookprobe.runtime import integrity
from hookprobe.runtime.integrity import FULL_EVERY_US, Integrity, Places, stable_cmdline
from hookprobe.wire.instant import SECOND, Instant

NOW = Instant(1_800_000_000_000_000)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def places(tmp_path: Path) -> Places:
    put(tmp_path / "proc/version", "Linux version 6.1")
    put(tmp_path / "proc/cmdline", "BOOT_IMAGE=/a root=/dev/vda quiet")
    put(tmp_path / "proc/sys/kernel/osrelease", "6.1.0\n")
    put(tmp_path / "sys/kernel/notes", "build id")
    put(tmp_path / "boot/vmlinuz-6.1.0", "kernel image")
    put(tmp_path / "app/main.py", "print(1)")
    put(tmp_path / "app/sub/more.py", "print(2)")
    put(tmp_path / "etc/settings.yaml", "a: 1")
    return Places(
        (tmp_path / "app",),
        (tmp_path / "etc",),
        tmp_path / "boot",
        tmp_path / "proc",
        tmp_path / "sys",
    )


def measuring(places: Places) -> Integrity:
    return Integrity(places, bytes)


def test_the_measurement_is_ripemd_of_three_component_hashes() -> None:
    made = Components(*(hashlib.sha256(name).digest() for name in (b"k", b"b", b"c")))
    expected = hashlib.new("ripemd160", made.kernel + made.binary + made.config).digest()
    assert made.h_integrity() == expected


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ("boot/vmlinuz-6.1.0", "kernel"),
        ("sys/kernel/notes", "kernel"),
        ("app/sub/more.py", "binary"),
        ("etc/settings.yaml", "config"),
        ("app/new_file.py", "binary"),
        ("etc/deep/new.yaml", "config"),
    ],
)
def test_a_change_moves_its_own_component_only(
    places: Places, tmp_path: Path, changed: str, moved: str
) -> None:
    before = measuring(places).measure(NOW)
    put(tmp_path / changed, "something else")
    after = measuring(places).measure(NOW)
    differing = [
        name for name in ("kernel", "binary", "config")
        if getattr(before, name) != getattr(after, name)
    ]  # fmt: skip
    assert differing == [moved]
    assert before.h_integrity() != after.h_integrity()


def test_rights_count_and_removal_counts(places: Places, tmp_path: Path) -> None:
    before = measuring(places).measure(NOW)
    (tmp_path / "app/main.py").chmod(0o777)
    loosened = measuring(places).measure(NOW)
    (tmp_path / "app/main.py").unlink()
    removed = measuring(places).measure(NOW)
    assert len({before.binary, loosened.binary, removed.binary}) == 3


def test_volatile_boot_keys_and_caches_do_not_count(places: Places, tmp_path: Path) -> None:
    before = measuring(places).measure(NOW)
    put(tmp_path / "proc/cmdline", "BOOT_IMAGE=/b root=/dev/vda quiet")
    put(tmp_path / "app/__pycache__/main.pyc", "compiled")
    assert measuring(places).measure(NOW) == before
    put(tmp_path / "proc/cmdline", "BOOT_IMAGE=/b root=/dev/vda quiet init=/bin/sh")
    assert measuring(places).measure(NOW).kernel != before.kernel
    assert stable_cmdline("BOOT_IMAGE=x a=1  b") == "a=1 b"


def test_a_quiet_minute_sweeps_and_a_change_rehashes(places: Places, tmp_path: Path) -> None:
    made = measuring(places)
    first = made.measure(NOW)
    assert made.measure(Instant(NOW + 60 * SECOND)) == first
    assert made.full_hashes == 1
    put(tmp_path / "etc/settings.yaml", "a: 2")
    assert made.measure(Instant(NOW + 61 * SECOND)) != first
    assert made.full_hashes == 2


def test_a_change_that_hides_from_the_sweep_is_found_by_the_full_hash(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_trace", lambda path: (0, 0, 0, 0))
    made = measuring(places)
    first = made.measure(NOW)
    put(tmp_path / "app/main.py", "print(9)")
    assert made.measure(Instant(NOW + SECOND)) == first
    assert made.measure(Instant(NOW + SECOND), full=True) != first
    put(tmp_path / "app/main.py", "print(1)")
    assert made.measure(Instant(NOW + FULL_EVERY_US)) == first


def test_nothing_readable_is_still_a_measurement_and_not_zeros(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    bare = measuring(Places((nowhere,), (nowhere,), nowhere, nowhere, nowhere)).measure(NOW)
    assert bare.binary == bare.config != bytes(32)
    assert bare.binary == component({str(nowhere): None})
    assert component({"a": None}) != component({"a": bytes(32)})
    assert component({"a": None}) != component({})


def test_files_are_bounded(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "FILES_MAX", 3)
    with pytest.raises(HostError, match="3 files"):
        measuring(places).measure(NOW)


def test_an_own_change_restores_the_old_value(places: Places, tmp_path: Path) -> None:
    made = measuring(places)
    first = made.measure(NOW)
    put(tmp_path / "app/main.py", "print(9)")
    changed = made.measure(NOW)
    put(tmp_path / "app/main.py", "print(1)")
    os.utime(tmp_path / "app/main.py", ns=(1, 1))
    assert made.measure(NOW) == first != changed

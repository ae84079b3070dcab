"""A validator lives within the memory that its unit allows, which the kernel enforces here, too."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.bench_mesh import SETTINGS, ignore, storm

from hookprobe.cli.watch import MeshWatch
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, MeshShape

UNIT = Path(__file__).parents[2] / "deploy/systemd/dsm-validator.service"
EDGES = ("edge-1", "edge-2")
ALERTS = 400


class Group:
    """A control group of our own with a limit of memory; of either version of the interface.

    Args:
        name: Below the root of the hierarchy.
        limit_bytes: What its processes may use together, page cache included.
    """

    def __init__(self, name: str, limit_bytes: int) -> None:
        first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self._old = (first / "memory.limit_in_bytes").exists()
        root = first if self._old else second
        if not self._old and not (second / "cgroup.controllers").exists():
            pytest.skip("kernel: no control groups here")
        member = r"^\d+:memory:(.*)$" if self._old else r"^0::(.*)$"
        found = re.search(member, Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        assert found, "this process is in some group"
        self._home, self._path = root / found[1].lstrip("/"), root / name
        try:
            if not self._old:
                (root / "cgroup.subtree_control").write_text("+memory")
            self._path.mkdir()
        except OSError as error:
            pytest.skip(f"kernel: no right to make a group with a limit of memory: {error}")
        limit = "memory.limit_in_bytes" if self._old else "memory.max"
        (self._path / limit).write_text(str(limit_bytes))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in the group for a while, so that processes started meanwhile stay in it."""
        mine = str(os.getpid())
        (self._path / "cgroup.procs").write_text(mine)
        try:
            yield
        finally:
            home = self._home if self._home.exists() else self._path.parent
            (home / "cgroup.procs").write_text(mine)

    def processes(self) -> list[int]:
        return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]

    def killed(self) -> int:
        """Return how many processes the limit cost."""
        told = self._path / ("memory.oom_control" if self._old else "memory.events")
        found = re.search(r"^oom_kill (\d+)$", told.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def peak_bytes(self) -> int:
        peak = self._path / ("memory.max_usage_in_bytes" if self._old else "memory.peak")
        return int(peak.read_text())

    def remove(self) -> None:
        self._path.rmdir()


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    made = Group(f"hookprobe-{os.getpid()}", request.param)
    yield made
    made.remove()


def allowed() -> int:
    found = re.search(r"^MemoryMax=(\d+)M$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return int(found[1]) << 20


async def validate(folder: Path, group: Group) -> None:
    """Let a validator in the group take what two storming edges report."""
    settings: dict[str, dict[str, object]] = {**SETTINGS, "neuro": {"interval_ms": 2_000}}
    mesh = LocalMesh(folder, MeshShape(4, tuple((name, "t") for name in EDGES), 1_000, settings))
    watch = MeshWatch(mesh, ignore)
    try:
        with group.inside():
            await mesh.start(["validator-1"])
        await mesh.start(["validator-2", "validator-3", "validator-4", VERIFIER, *EDGES])
        await watch.until(
            lambda facts: all(facts.sessions[name] >= 4 for name in EDGES), 90, "connecting"
        )
        for number, name in enumerate(EDGES):
            mesh.feed(name, storm(1_000 * number, ALERTS))
        await watch.until(
            lambda facts: all(facts.proven.get(name, 0) >= ALERTS for name in EDGES), 120, "proofs"
        )
        assert mesh.running("validator-1")
        assert mesh.process_id("validator-1") in group.processes()
    finally:
        await mesh.stop()


@pytest.mark.parametrize("group", [allowed()], indirect=True)
def test_a_validator_lives_within_the_memory_its_unit_allows(group: Group, tmp_path: Path) -> None:
    asyncio.run(validate(tmp_path / "mesh", group))
    assert group.killed() == 0
    assert (30 << 20) < group.peak_bytes() <= allowed()


@pytest.mark.parametrize("group", [24 << 20], indirect=True)
def test_the_kernel_does_enforce_the_limit(group: Group, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, TimeoutError, OSError)):
        asyncio.run(asyncio.wait_for(validate(tmp_path / "mesh", group), 60))
    assert group.killed() > 0

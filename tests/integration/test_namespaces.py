"""Validators on hosts of their own, in namespaces: cut, healed, killed, paused, slow, out of time.

After every perturbation epochs must go on where a quorum is left, stand still where none is, and in
the end all validators hold one history and evidence verifies with the stand-alone verifier.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.namespaces import Switch, needs_namespaces, run
from tests.integration.test_kill_nine import alert
from tests.soak import checkpoints

from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, LogLine, MeshShape

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, dict[str, object]] = {
    "dsm": {
        "epoch_gap_ms": 100,
        "propose_grace_ms": 100,
        "view_timeout_ms": 600,
        "quorum_alarm_ms": 2000,
    },
    "htp": {"retry_initial_ms": 200},
    "neuro": {"interval_ms": 1000},
}
WAIT_S = 60
# The library itself: its program forks, and a killed parent would leave the node running.
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Lab:
    """Validators, a verifier and an edge, each on a host of its own."""

    def __init__(self, folder: Path, validators: int) -> None:
        needs_namespaces()
        self.validators = [f"validator-{i + 1}" for i in range(validators)]
        self.everyone = [*self.validators, VERIFIER, "edge-a"]
        self.switch = Switch(self.everyone)
        shape = MeshShape(validators, (("edge-a", "t"),), 500, SETTINGS, self.switch.addresses)
        self.mesh = LocalMesh(folder / "mesh", shape)
        for name in self.everyone:
            self.mesh.launch[name] = self.switch.within(name)
        self.folder = folder
        self.epochs: dict[str, int] = dict.fromkeys(self.validators, -1)
        self.told: Counter[tuple[str, str]] = Counter()
        self.complaints: list[str] = []
        self._fed = 0

    async def listen(self) -> None:
        while True:
            self._take(await self.mesh.lines.get())

    def _take(self, line: LogLine) -> None:
        self.told[(line.node, line.event)] += 1
        if line.event == "CheckpointFinalized" and line.node in self.epochs:
            epoch = int(str(line.fields["epoch"]))
            self.epochs[line.node] = max(self.epochs[line.node], epoch)
        elif line.event == "Ended" and line.fields["complaint"]:
            self.complaints.append(f"{line.node}: {line.fields['complaint']}")

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < end, f"{what}: {self.epochs}"
            await asyncio.sleep(0.1)

    async def go_on(self, *names: str, by: int = 4) -> None:
        """Wait until these validators have seen some more epochs than anybody has now."""
        goal = max(self.epochs.values()) + by
        await self.until(lambda: all(self.epochs[n] >= goal for n in names), f"{names} stand still")

    async def stand_still(self, seconds: float) -> None:
        """Nothing may become final for a while."""
        await asyncio.sleep(1)
        before = dict(self.epochs)
        await asyncio.sleep(seconds)
        assert self.epochs == before, "something became final without a quorum"

    def feed(self) -> None:
        self.mesh.feed("edge-a", b"".join(alert(self._fed + i) for i in range(2)))
        self._fed += 2

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.mesh.process_id(name), number)

    async def end(self) -> None:
        """Stop, and judge what is left on the disks."""
        target = self.folder / "edge-a.hpe"
        settings = str(self.mesh.folder / "edge-a" / "hookprobe.yaml")
        words = ("evidence", "export", "--output", str(target), "-c", settings)
        await asyncio.to_thread(hookprobe, *words)
        await self.mesh.stop()
        while not self.mesh.lines.empty():
            self._take(self.mesh.lines.get_nowait())
        assert self.complaints == []
        bad = ("ForkDetected", "MisbehaviourDetected", "NodeQuarantined", "ForkFound")
        assert [key for key in self.told if key[1] in bad] == []
        histories = [checkpoints(self.mesh.state_of(name)) for name in self.validators]
        for epoch in set().union(*histories):
            assert len({h[epoch] for h in histories if epoch in h}) == 1, f"two epochs {epoch}"
        genesis = str(self.mesh.folder / "genesis.json")
        said = await asyncio.to_thread(hookprobe, "verify", str(target), "--trust", genesis)
        chain = json.loads(said)["chain"].split()[0]
        stand_alone = [sys.executable, "-I", str(ROOT / "tools/verify_bundle.py")]
        await asyncio.to_thread(run, *stand_alone, str(target), "--trust", chain)


def hookprobe(*words: str) -> str:
    return run(sys.executable, "-m", "hookprobe", *words)


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Callable[[int], Lab]]:
    made: list[Lab] = []

    def make(validators: int) -> Lab:
        made.append(Lab(tmp_path / str(validators), validators))
        return made[-1]

    yield make
    for lab in made:
        lab.switch.close()


async def tell(lab: Lab, story: Callable[[], Awaitable[None]]) -> None:
    """Start everybody, tell a story, judge its end; stop everybody whatever happens."""
    listening = asyncio.create_task(lab.listen())
    try:
        await lab.mesh.start(lab.everyone)
        await lab.go_on(*lab.validators)
        lab.feed()
        await story()
        await lab.end()
    finally:
        listening.cancel()
        await lab.mesh.stop()


async def four(lab: Lab, slow_disk: str) -> None:
    one, two, three, last = lab.validators

    # Two and two: nobody has a quorum, and both sides say so; then they make it up together.
    lab.switch.partition([one, two, "edge-a", VERIFIER], [three, last])
    await lab.stand_still(4)
    await lab.until(lambda: lab.told[(one, "QuorumLost")] > 0, "no alarm")
    assert lab.told[(last, "QuorumLost")] > 0
    lab.switch.heal()
    await lab.go_on(*lab.validators)

    # Three and one: the three go on, and the one catches up.
    lab.switch.partition([one, two, three, "edge-a", VERIFIER], [last])
    lab.feed()
    await lab.go_on(one, two, three)
    lab.switch.heal()
    await lab.go_on(*lab.validators)

    # One is paused for a while, one is killed for good measure.
    lab.signal(two, signal.SIGSTOP)
    await lab.go_on(one, three, last)
    lab.signal(two, signal.SIGCONT)
    await lab.mesh.kill(three)
    await lab.go_on(one, two, last)
    await lab.mesh.start([three])
    await lab.go_on(*lab.validators)

    # One has a clock that is two minutes ahead, another a disk that takes a fifth of a second.
    ahead = ["env", f"LD_PRELOAD={FAKETIME[0]}", "FAKETIME=+120s"]
    lab.mesh.launch[last] = [*lab.switch.within(last), *ahead]
    slow = ["env", f"LD_PRELOAD={slow_disk}", "SLOW_SYNC_MS=200"]
    lab.mesh.launch[one] = [*lab.switch.within(one), *slow]
    for name in (last, one):
        await lab.mesh.kill(name)
        await lab.mesh.start([name])
    lab.feed()
    await lab.go_on(*lab.validators)
    # And back: the clock jumps two minutes into the past.
    lab.mesh.launch[last] = lab.switch.within(last)
    await lab.mesh.kill(last)
    await lab.mesh.start([last])
    await lab.go_on(*lab.validators)


async def seven(lab: Lab) -> None:
    most, few = lab.validators[:5], lab.validators[5:]
    lab.switch.partition([*most, "edge-a", VERIFIER], few)
    lab.feed()
    await lab.go_on(*most)
    lab.switch.heal()
    await lab.go_on(*lab.validators)
    for name in few:
        await lab.mesh.kill(name)
    await lab.go_on(*most)
    lab.switch.partition(lab.validators[:3], lab.validators[3:5], ["edge-a", VERIFIER])
    await lab.stand_still(3)
    lab.switch.heal()
    await lab.mesh.start(few)
    await lab.go_on(*lab.validators)


@pytest.fixture
def slow_disk(tmp_path: Path) -> str:
    if shutil.which("gcc") is None or not FAKETIME:
        pytest.skip("gcc or libfaketime is not installed")
    library = tmp_path / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


@pytest.mark.slow
@pytest.mark.needs_root
@pytest.mark.timeout(420)
def test_four_validators_on_hosts_of_their_own(labs: Callable[[int], Lab], slow_disk: str) -> None:
    lab = labs(4)
    asyncio.run(tell(lab, lambda: four(lab, slow_disk)))


@pytest.mark.slow
@pytest.mark.needs_root
@pytest.mark.timeout(420)
def test_seven_validators_on_hosts_of_their_own(labs: Callable[[int], Lab]) -> None:
    lab = labs(7)
    asyncio.run(tell(lab, lambda: seven(lab)))

"""What a supervisor hears of a node: ready, alive at the rate asked for, stopping."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookprobe.runtime.supervision import YOUNG_OBJECTS_MAX, Supervisor


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def heard(listener: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(listener.recv(100).decode())
    except BlockingIOError:
        return found


async def run_a_while(supervisor: Supervisor, beats: int, listener: socket.socket) -> list[str]:
    task = asyncio.create_task(supervisor.run())
    found: list[str] = []
    while len(found) < beats:
        await asyncio.sleep(0)
        found += heard(listener)
    task.cancel()
    await asyncio.wait([task])
    return found


def test_it_beats_until_the_node_stops(listener: socket.socket) -> None:
    path = str(listener.getsockname())
    supervisor = Supervisor({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200"})
    supervisor.ready()
    assert heard(listener) == ["READY=1"]
    assert set(asyncio.run(run_a_while(supervisor, 3, listener))) == {"WATCHDOG=1"}
    assert heard(listener)[-1] == "STOPPING=1"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"WATCHDOG_USEC": "nonsense"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "200", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
def test_nobody_waits_for_beats(listener: socket.socket, asked: dict[str, str]) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(listener.getsockname()), **asked})
    asyncio.run(run_a_while(supervisor, 0, listener))
    assert "WATCHDOG=1" not in heard(listener)


def test_without_a_supervisor_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    Supervisor({}).ready()
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_an_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(f"\0hookprobe-test-{os.getpid()}")
        far.settimeout(5)
        Supervisor({"NOTIFY_SOCKET": f"@hookprobe-test-{os.getpid()}"}).ready()
        assert far.recv(100) == b"READY=1"


def test_what_the_start_made_is_out_of_the_collectors_way() -> None:
    program = (
        "import gc; from hookprobe.runtime.supervision import settle; kept = [[]]; settle();"
        "print(gc.get_freeze_count() > 1000, gc.get_threshold()[0],"
        " any(one is kept for one in gc.get_objects()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", str(YOUNG_OBJECTS_MAX), "False"]

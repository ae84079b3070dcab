"""How a node's process settles, is told to stop, and tells its supervisor how it is (sd_notify(3)).

Where a supervisor gave a socket in `NOTIFY_SOCKET`, it hears `READY=1` when the node answers on its
sockets, `WATCHDOG=1` from the node's own loop at twice the rate asked for in `WATCHDOG_USEC`, and
`STOPPING=1`. A loop that no longer turns falls silent and the supervisor starts the node again.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping

# So many containers more than at the last look, and the collector looks at the young ones again.
YOUNG_OBJECTS_MAX = 20_000


def settle() -> None:
    """Tell the collector of cycles that what the start made stays, and to look less often.

    Almost nothing of a node is in a cycle, and each new session makes objects that live long: with
    Python's own limit of 700 a storm of handshakes costs a twentieth of its time in looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX)


class Supervisor:
    """Tells whoever supervises this process; without one, nothing is done.

    Args:
        environment: The process's environment.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        period_us = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._beat_s = int(period_us) / 2e6 if ours and period_us.isdecimal() else 0.0

    def tell(self, state: str) -> None:
        """Send one assignment; a supervisor that is gone is no reason to stop."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mine:
            mine.setblocking(False)
            mine.sendto(state.encode(), self._address)

    def ready(self) -> None:
        """Say that the node answers."""
        self.tell("READY=1")

    async def run(self) -> None:
        """Beat until cancelled; then say that the node stops."""
        try:
            while self._address and self._beat_s:
                self.tell("WATCHDOG=1")
                await asyncio.sleep(self._beat_s)
            await asyncio.Event().wait()
        finally:
            self.tell("STOPPING=1")


def stop_event(*, with_stdin: bool) -> asyncio.Event:
    """Return what SIGTERM and SIGINT set, and the end of standard input if that is wanted."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_stdin:
        loop.add_reader(sys.stdin, _stop_at_end, stop)
    return stop


def _stop_at_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
        asyncio.get_running_loop().remove_reader(sys.stdin)

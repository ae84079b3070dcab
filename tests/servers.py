"""Real servers for tests, started and stopped by them: PostgreSQL and Redis.

`tests/prerequisites.py` installs both. PostgreSQL refuses to run as root, so it runs as nobody.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NOBODY = 65534
WAIT_S = 20.0


def program(name: str) -> str:
    """Return where a program is; Debian keeps those of PostgreSQL apart."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    assert found is not None, f"no {name}: run tests/prerequisites.py as root"
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Postgres:
    """One server in a folder of its own, reached by a socket file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql://hookprobe@/postgres?host={folder}"
        self._server: subprocess.Popen[bytes] | None = None
        self._as_nobody: list[str] = []
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            who = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            self._as_nobody = ["setpriv", *who, "--"]
        made = [program("initdb"), "-D", str(folder / "data"), "-U", "hookprobe", "-A", "trust"]
        command = [*self._as_nobody, *made]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    def start(self, file_bytes_max: int | None = None) -> None:
        """Start; with a limit, no file of the server can grow beyond it."""
        command = [program("postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-c", "max_connections=12"]
        if file_bytes_max is not None:
            command = ["prlimit", f"--fsize={file_bytes_max}", *command]
        command = [*self._as_nobody, *command]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        ready = [program("pg_isready"), "-q", "-h", str(self.folder)]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop; SIGKILL is the power cut."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(WAIT_S)
            self._server = None


@contextlib.contextmanager
def postgres(file_bytes_max: int | None = None) -> Iterator[Postgres]:
    """Run a PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="hookprobe-pg-") as folder:
        server = Postgres(Path(folder))
        server.start(file_bytes_max)
        try:
            yield server
        finally:
            server.stop()


class Redis:
    """One server on a port of the loopback address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, with nothing remembered."""
        command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self.folder)]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Stop at once; what it held is gone."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(WAIT_S)
            self._server = None


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """Run a Redis."""
    server = Redis(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()

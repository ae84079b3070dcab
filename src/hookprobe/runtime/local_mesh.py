"""A whole mesh on this machine: real node processes over loopback UDP, in one folder.

For the demonstration, for `replay` and for tests. The nodes are started like any other
(`hookprobe edge run`), speak JSON log lines on standard output, and stop when this process ends,
however it ends: their standard input is a pipe from here.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hookprobe.errors import HostError
from hookprobe.node import provision
from hookprobe.node.provision import NodePlan
from hookprobe.runtime import folders
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keystore import write_atomically
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND

HOST = "127.0.0.1"
VERIFIER = "verifier-1"
EVE_FILE = "eve.json"
EGRESS_FILE = "egress.bin"
_LINE_MAX_BYTES = 1 << 20
_STOP_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class MeshShape:
    """What to found.

    Attributes:
        validators: How many; a verifier, `VERIFIER`, is always beside them.
        edges: Name and tenant of each edge.
        epoch_ms: Length of an epoch.
        settings: Further settings of every node, as a nested mapping of `hookprobe.yaml`.
        hosts: The address of a node's host; 127.0.0.1 where none is named.
    """

    validators: int
    edges: tuple[tuple[str, str], ...]
    epoch_ms: int
    settings: Mapping[str, Mapping[str, object]]
    hosts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line a node wrote; `fields` as in `runtime/logs.py`."""

    node: str
    event: str
    fields: Mapping[str, object]


class LocalMesh:
    """Founds, starts, watches, kills and stops.

    Args:
        folder: Where everything goes; empty or new.
        shape: What to found.

    Attributes:
        launch: Words before the program of a node, such as `ip netns exec NAME`.

    Raises:
        HostError: The folder cannot be used.
    """

    def __init__(self, folder: Path, shape: MeshShape) -> None:
        self.folder = folder
        self.lines: asyncio.Queue[LogLine] = asyncio.Queue()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._roles: dict[str, str] = {}
        self.launch: dict[str, Sequence[str]] = {}
        self._found(shape)

    def _found(self, shape: MeshShape) -> None:
        names = [f"validator-{i + 1}" for i in range(shape.validators)]
        places = {
            name: f"{shape.hosts.get(name, HOST)}:{port}"
            for name, port in zip((*names, VERIFIER), free_ports(len(names) + 1), strict=True)
        }
        plans = [NodePlan(NodeId(name), "validator", "operator", places[name]) for name in names]
        plans.append(NodePlan(NodeId(VERIFIER), "verifier", "operator", places[VERIFIER]))
        plans += [NodePlan(NodeId(name), "edge", tenant) for name, tenant in shape.edges]
        folders.make_folder(self.folder)
        mesh = provision.found(
            NodeId("local"), plans, shape.epoch_ms * MILLISECOND, Clock().now(), secrets.token_bytes
        )
        folders.write_authority(self.folder, mesh)
        documents = (mesh.genesis.encode(), mesh.directory)
        for plan, enrolled in zip(plans, mesh.nodes, strict=True):
            host = shape.hosts.get(plan.node, HOST)
            settings = _settings(plan, host, shape.settings)
            folders.write_node(self.folder / plan.node, enrolled, documents, settings)
            if plan.role == "verifier":
                folders.write_grants(self.folder / plan.node, mesh.grants())
            self._roles[plan.node] = plan.role

    def adopt(self, name: str, role: str) -> None:
        """Take a node that was enrolled in `folder`/`name` afterwards."""
        self._roles[name] = role

    def state_of(self, name: str) -> Path:
        """Return a node's state folder."""
        return self.folder / name / folders.STATE_FOLDER

    def running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.returncode is None

    def process_id(self, name: str) -> int:
        """Return the process id of a started node."""
        return self._processes[name].pid

    async def start(self, names: Sequence[str]) -> None:
        """Start nodes."""
        for name in names:
            settings = self.folder / name / folders.SETTINGS_FILE
            command = ["-m", "hookprobe", self._roles[name], "run", "-c", str(settings)]
            process = await asyncio.create_subprocess_exec(
                *self.launch.get(name, ()),
                sys.executable,
                *command,
                "--log-level",
                "debug",
                "--stop-with-stdin",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_MAX_BYTES,
            )
            self._processes[name] = process
            self._readers.append(asyncio.create_task(self._read(name, process)))

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        while line := await process.stdout.readline():
            fields = json.loads(line)
            await self.lines.put(LogLine(name, fields.pop("event"), fields))
        complaint = (await process.stderr.read()).decode(errors="replace").strip()
        await process.wait()
        fields = {"status": process.returncode, "complaint": complaint}
        await self.lines.put(LogLine(name, "Ended", fields))

    async def kill(self, name: str) -> None:
        """End a node at once (SIGKILL), as a power cut would."""
        process = self._processes[name]
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Stop all nodes; kill those that do not."""
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), _STOP_WAIT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.gather(*self._readers)

    def feed(self, edge: str, data: bytes) -> None:
        """Append sensor output to an edge's EVE file.

        Raises:
            HostError: The disk failed.
        """
        path = self.folder / edge / EVE_FILE
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error

    def change_settings(self, name: str, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Change a stopped node's settings."""
        path = self.folder / name / folders.SETTINGS_FILE
        settings = _merge(yaml.safe_load(path.read_bytes()), changes)
        write_atomically(path, yaml.safe_dump(settings, sort_keys=False).encode())


def free_ports(count: int) -> list[int]:
    """Return UDP ports of the loopback address that were free a moment ago."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _settings(
    plan: NodePlan, host: str, more: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    settings: dict[str, object] = {
        "dsm": {"node": {"id": str(plan.node), "role": plan.role}},
        "htp": {"listen": [plan.address or f"{host}:0"], "retry_initial_ms": 200},
    }
    if plan.role == "edge":
        settings["sensors"] = {"suricata": [EVE_FILE], "start": "beginning"}
        settings["egress"] = {"path": EGRESS_FILE}
    return _merge(settings, more)


def _merge(
    settings: dict[str, object], more: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    merged = dict(settings)
    for name, changes in more.items():
        old = merged.get(name)
        merged[name] = {**(old if isinstance(old, dict) else {}), **changes}
    return merged

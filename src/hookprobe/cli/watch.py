"""Watching a local mesh: facts gathered from the nodes' log lines, and waiting for some of them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hookprobe.errors import UnavailableError
from hookprobe.runtime.local_mesh import LocalMesh, LogLine


@dataclass(slots=True)
class MeshFacts:
    """What the nodes have said so far.

    Attributes:
        started: Nodes that run.
        sessions: Live sessions of each node.
        incidents: Incidents each edge opened.
        blocks: Blocks each edge wrote.
        proven: Last block of each edge that a certified checkpoint holds.
        epochs: Last final epoch of each validator.
        latencies_us: Time from opening to final, as each validator saw it.
        certified: Blocks in final checkpoints, by epoch.
        quorum_lost: Validators that say there is no quorum.
        sources: Raw source address of each incident key; it never leaves this machine.
        standing: What each validator (first) last heard of each device (second).
        complaints: What nodes wrote to standard error.
    """

    started: dict[str, None] = field(default_factory=dict)
    sessions: Counter[str] = field(default_factory=Counter)
    incidents: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    proven: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    latencies_us: list[int] = field(default_factory=list)
    certified: dict[int, int] = field(default_factory=dict)
    voters: dict[int, int] = field(default_factory=dict)
    quorum_lost: dict[str, None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    standing: dict[tuple[str, str], str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def take(self, line: LogLine) -> None:
        """Take one log line."""
        node, fields = line.node, line.fields
        match line.event:
            case "Started":
                self.started[node] = None
            case "SessionUp":
                self.sessions[node] += 1
            case "SessionDown":
                self.sessions[node] -= 1
            case "BlockAppended":
                self.blocks[node] += 1
            case "ReceiptReceived":
                self.proven[node] = max(self.proven.get(node, 0), _number(fields["last"]))
            case "IncidentOpened":
                self._take_opened(node, fields)
            case _:
                self._take_rest(line)

    def _take_opened(self, node: str, fields: Mapping[str, object]) -> None:
        self.incidents[node] += 1
        incident = fields.get("incident")
        if isinstance(incident, dict):
            self.sources[str(incident["key"])] = str(incident.get("source") or "")

    def _take_rest(self, line: LogLine) -> None:
        node, fields = line.node, line.fields
        match line.event:
            case "StandingChanged":
                self.standing[(node, str(fields["node"]))] = str(fields["status"])
            case "CheckpointFinalized":
                epoch = _number(fields["epoch"])
                self.epochs[node] = epoch
                self.certified[epoch] = _number(fields["blocks"])
                self.voters[epoch] = _number(fields["voters"])
                self.quorum_lost.pop(node, None)
                if latency := _number(fields["latency_us"]):
                    self.latencies_us.append(latency)
            case "QuorumLost":
                self.quorum_lost[node] = None
            case "Ended":
                self.started.pop(node, None)
                self.sessions.pop(node, None)
                if fields["complaint"]:
                    self.complaints.append(f"{node}: {fields['complaint']}")
            case _:
                pass


class MeshWatch:
    """Reads a mesh's log lines, keeps facts, and tells a listener.

    Args:
        mesh: The mesh.
        listen: Called with each line after the facts have taken it.
    """

    def __init__(self, mesh: LocalMesh, listen: Callable[[LogLine, MeshFacts], None]) -> None:
        self.facts = MeshFacts()
        self._mesh = mesh
        self._listen = listen

    async def until(self, reached: Callable[[MeshFacts], bool], seconds: float, what: str) -> None:
        """Wait until the facts say so.

        Raises:
            UnavailableError: They do not within `seconds`, or a node complained.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not reached(self.facts):
            left = deadline - loop.time()
            with contextlib.suppress(TimeoutError):
                self._take(await asyncio.wait_for(self._mesh.lines.get(), max(left, 0.001)))
            if self.facts.complaints:
                raise UnavailableError(f"a node failed: {self.facts.complaints[0][-2000:]}")
            if left <= 0 and not reached(self.facts):
                raise UnavailableError(f"{what}: not within {seconds:.0f} s")

    async def during(self, seconds: float) -> None:
        """Keep watching for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                self._take(await asyncio.wait_for(self._mesh.lines.get(), left))

    def _take(self, line: LogLine) -> None:
        self.facts.take(line)
        self._listen(line, self.facts)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def percentile(values: list[int], share: float) -> int:
    """Return the value below which `share` of the values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0

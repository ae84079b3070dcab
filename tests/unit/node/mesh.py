"""A mesh of real nodes in memory: one clock, datagrams that arrive, stores that remember."""

import random
from dataclasses import dataclass, field
from typing import TypeVar

from hookprobe.detection.config import DetectionConfig, IncidentConfig
from hookprobe.detection.event import Sensor
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, Transmit
from hookprobe.node import provision
from hookprobe.node.build import Documents, Parts, Settings, build_edge, build_validator
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect
from hookprobe.node.observations import MessageSent, Observation
from hookprobe.node.provision import Enrolled, Mesh, NodePlan
from hookprobe.node.validator import ValidatorNode
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

START = Instant(1_800_000_000 * SECOND)  # after every recording
T = TypeVar("T")
EVE_PATH = "eve.json"
EPOCH_US = 500 * MILLISECOND

SETTINGS = Settings(
    LedgerConfig(
        cut_grace_us=50 * MILLISECOND,
        view_timeout_us=400 * MILLISECOND,
        quorum_alarm_us=3 * SECOND,
        epoch_gap_us=100 * MILLISECOND,
        recovery_wait_us=1 * SECOND,
    ),
    HtpConfig(retry_initial_us=200 * MILLISECOND, silence_us=5 * SECOND),
    DetectionConfig(incidents=IncidentConfig(idle_us=2 * SECOND)),
)


@dataclass
class Host:
    """One node's machine."""

    name: str
    address: Address
    store: MemoryStore = field(default_factory=MemoryStore)
    node: EdgeNode | ValidatorNode | None = None
    seen: list[Observation] = field(default_factory=list)
    datagrams: list[bytes] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[T]:
        return [item for item in self.seen if isinstance(item, kind)]

    @property
    def edge(self) -> EdgeNode:
        assert isinstance(self.node, EdgeNode)
        return self.node

    def messages(self) -> bytes:
        return b"".join(item.data for item in self.seen if isinstance(item, MessageSent))


class MemoryMesh:
    """Founds and runs a mesh; `loss` drops datagrams, seeded."""

    def __init__(self, edges: tuple[str, ...], *, loss: float = 0.0, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.now = START
        self.loss = loss
        self.doubled = 0.0
        self.damaged = 0.0
        self.delay_max_us = 3000
        self.cut: dict[frozenset[str], None] = {}
        names = [f"validator-{i}" for i in (1, 2, 3, 4)]
        plans = [
            NodePlan(NodeId(name), "validator", "operator", f"10.9.0.{i + 1}:4719")
            for i, name in enumerate(names)
        ]
        plans += [NodePlan(NodeId(name), "edge", f"tenant-{name}") for name in edges]
        self.mesh: Mesh = provision.found(NodeId("test"), plans, EPOCH_US, START, self.random_bytes)
        self.hosts: dict[str, Host] = {}
        self.by_address: dict[Address, Host] = {}
        for i, enrolled in enumerate(self.mesh.nodes):
            host = Host(enrolled.secrets.node, Address(f"10.9.0.{i + 1}", 4719))
            self.hosts[host.name] = self.by_address[host.address] = host
        self.wires: list[tuple[Instant, int, Address, Address, bytes]] = []
        self._sent = 0
        for name in self.hosts:
            self.boot(name)

    def random_bytes(self, count: int) -> bytes:
        return self.dice.randbytes(count)

    def enrolled(self, name: str) -> Enrolled:
        return next(node for node in self.mesh.nodes if node.secrets.node == name)

    def boot(self, name: str) -> None:
        """Start a node over what its store holds."""
        host, enrolled = self.hosts[name], self.enrolled(name)
        documents = Documents(
            enrolled.secrets,
            enrolled.enrolment,
            self.mesh.genesis.encode(),
            self.mesh.directory,
        )
        parts = Parts(host.store, self.random_bytes, self.now)
        if enrolled.device.role == "edge":
            host.node = build_edge(documents, SETTINGS, parts, {EVE_PATH: Sensor("suricata")})
        else:
            host.node = build_validator(documents, SETTINGS, parts)
        self.execute(host, host.node.start(self.now))

    def crash(self, name: str) -> None:
        """Lose a node's memory; its store stays."""
        self.hosts[name].node = None

    def execute(self, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                host.store.apply(effect)
            elif isinstance(effect, Transmit):
                host.datagrams.append(effect.data)
                self._carry(host, effect)
            else:
                host.seen.append(effect)

    def _carry(self, host: Host, effect: Transmit) -> None:
        """Lose, delay, double or damage a datagram; nothing crosses a partition."""
        target = self.by_address.get(effect.address)
        if target is None or frozenset((host.name, target.name)) in self.cut:
            return
        copies = 0 if self.dice.random() < self.loss else 1
        copies += self.dice.random() < self.doubled
        for _ in range(copies):
            data = effect.data
            if self.dice.random() < self.damaged:
                at = self.dice.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << self.dice.randrange(8)]) + data[at + 1 :]
            self._sent += 1
            arrival = Instant(self.now + self.dice.randrange(200, self.delay_max_us))
            self.wires.append((arrival, self._sent, host.address, effect.address, data))

    def feed(self, name: str, data: bytes) -> None:
        host = self.hosts[name]
        assert isinstance(host.node, EdgeNode)
        self.execute(host, host.node.receive_bytes(EVE_PATH, data, self.now))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = Instant(self.now + int(seconds * SECOND))
        while True:
            self.wires.sort()
            due = [self.wires[0][0]] if self.wires else []
            for host in self.hosts.values():
                timeout = host.node.next_timeout() if host.node is not None else None
                due += [timeout] if timeout is not None else []
            if not due or min(due) > end:
                self.now = end
                return
            self.now = Instant(max(self.now, min(due)))
            self._step()

    def _step(self) -> None:
        while self.wires and self.wires[0][0] <= self.now:
            _, _, source, target, data = self.wires.pop(0)
            host = self.by_address.get(target)
            if host is not None and host.node is not None:
                self.execute(host, host.node.receive_datagram(data, source, self.now))
        for host in self.hosts.values():
            timeout = host.node.next_timeout() if host.node is not None else None
            if host.node is not None and timeout is not None and timeout <= self.now:
                self.execute(host, host.node.handle_timeout(self.now))

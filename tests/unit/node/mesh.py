"""A mesh of real nodes in memory: one clock, datagrams that arrive, stores that remember."""

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tests.unit.neuro.paper_tpm import PaperTpm

from hookprobe.detection.config import DetectionConfig, IncidentConfig
from hookprobe.detection.event import Sensor
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, Transmit
from hookprobe.neuro.attester import Reading
from hookprobe.neuro.backends.numpy_engine import NumpyEngine
from hookprobe.neuro.config import NeuroConfig
from hookprobe.neuro.effects import (
    AppendRecord,
    AskTpm,
    FindOpening,
    HostRequest,
    MeasureHost,
    SaveSnapshot,
    TrimLog,
)
from hookprobe.neuro.measurement import Counters, Opening, commit
from hookprobe.neuro.messages import Place
from hookprobe.neuro.quotes import qualify
from hookprobe.neuro.snapshot import Snapshot, decode
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import Ter
from hookprobe.node import provision
from hookprobe.node.build import (
    DeviceHistory,
    Documents,
    Parts,
    Settings,
    build_edge,
    build_validator,
    build_verifier,
)
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect
from hookprobe.node.observations import MessageSent, Observation
from hookprobe.node.provision import Enrolled, Mesh, NodePlan
from hookprobe.node.resonance import device_state
from hookprobe.node.validator import ValidatorNode
from hookprobe.node.verifier import VerifierNode
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Duration, Instant

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
    NeuroConfig(interval_us=SECOND, grace_us=Duration(30 * SECOND), backend="numpy"),
)
VERIFIER = "verifier-1"


GOLDEN = hashlib.sha256(b"golden").digest()[:20]
EVIL = hashlib.sha256(b"evil").digest()[:20]


@dataclass
class DeviceDisk:
    """What an edge's host measures, and what its NEURO disk holds; a copy of it is a clone."""

    measured: bytes = GOLDEN
    snapshot: bytes = b""
    first: int = 0
    log: list[Ter] = field(default_factory=list)
    openings: dict[Place, Opening] = field(default_factory=dict)
    salt: bytes = b"salt"
    tpm: PaperTpm | None = None
    hardware: bytes = b""

    def measure(self, now: Instant) -> tuple[Reading, Opening]:
        salt = hashlib.sha256(self.salt + now.to_bytes(8, "big")).digest()[:16]
        opening = Opening(salt, Counters(cpu_busy=now % (1 << 60)))
        return Reading(commit(opening), self.measured), opening

    def history(self, fresh: NeuroState) -> DeviceHistory:
        start = decode(self.snapshot, NumpyEngine) if self.snapshot else Snapshot(0, fresh)
        claim = self.tpm.claim().encode() if self.tpm is not None else b""
        records = tuple(self.log[start.state.count - self.first :])
        return DeviceHistory(start, records, self.hardware, claim)


@dataclass
class Host:
    """One node's machine."""

    name: str
    address: Address
    store: MemoryStore = field(default_factory=MemoryStore)
    node: EdgeNode | ValidatorNode | VerifierNode | None = None
    disk: DeviceDisk = field(default_factory=DeviceDisk)
    seen: list[Observation] = field(default_factory=list)
    datagrams: list[bytes] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[T]:
        return [item for item in self.seen if isinstance(item, kind)]

    @property
    def validator(self) -> ValidatorNode:
        assert isinstance(self.node, ValidatorNode)
        return self.node

    @property
    def verifier(self) -> VerifierNode:
        assert isinstance(self.node, VerifierNode)
        return self.node

    @property
    def edge(self) -> EdgeNode:
        assert isinstance(self.node, EdgeNode)
        return self.node

    def messages(self) -> bytes:
        return b"".join(item.data for item in self.seen if isinstance(item, MessageSent))


class MemoryMesh:
    """Founds and runs a mesh; `loss` drops datagrams, seeded; `verified` adds a verifier."""

    def __init__(
        self,
        edges: tuple[str, ...],
        *,
        loss: float = 0.0,
        seed: int = 1,
        verified: bool = False,
        settings: Settings = SETTINGS,
        epoch_us: int = EPOCH_US,
    ) -> None:
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
        if verified:
            plans.append(NodePlan(NodeId(VERIFIER), "verifier", "operator", "10.9.0.5:4719"))
        plans += [
            NodePlan(NodeId(name), "edge", tenant or f"tenant-{name}")
            for name, _, tenant in (edge.partition("@") for edge in edges)
        ]
        self.mesh: Mesh = provision.found(NodeId("test"), plans, epoch_us, START, self.random_bytes)
        self.hosts: dict[str, Host] = {}
        self.by_address: dict[Address, Host] = {}
        for i, enrolled in enumerate(self.mesh.nodes):
            host = Host(enrolled.secrets.node, Address(f"10.9.0.{i + 1}", 4719))
            self.hosts[host.name] = self.by_address[host.address] = host
        self.wires: list[tuple[Instant, int, Address, Address, bytes]] = []
        self._sent = 0
        self.settings = settings
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
        settings = self.settings
        if enrolled.device.role == "edge":
            fresh = device_state(enrolled.secrets, engine=NumpyEngine)
            parts = replace(parts, history=host.disk.history(fresh))
            host.node = build_edge(documents, settings, parts, {EVE_PATH: Sensor("suricata")})
        elif enrolled.device.role == "verifier":
            host.node = build_verifier(documents, settings, parts, self.mesh.grants())
        else:
            host.node = build_validator(documents, settings, parts)
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
            elif isinstance(effect, HostRequest):
                self._perform(host, effect)
            else:
                host.seen.append(effect)

    def _perform(self, host: Host, request: HostRequest) -> None:
        """Do what an edge asks of its machine."""
        disk, edge = host.disk, host.edge
        match request:
            case MeasureHost():
                reading, opening = disk.measure(self.now)
                effects = edge.receive_reading(reading, self.now)
                for effect in effects:
                    if isinstance(effect, AppendRecord):
                        disk.openings[Place(effect.epoch, effect.index)] = opening
                self.execute(host, effects)
            case AppendRecord(_, index, record):
                disk.log.append(record)
                self.execute(host, edge.receive_appended(index, self.now))
            case SaveSnapshot(_, index, data):
                disk.snapshot = data
                if not index:
                    disk.log, disk.first = [], 0
            case TrimLog(_, first):
                del disk.log[: first - disk.first]
                disk.first = first
            case FindOpening(place):
                opened = disk.openings.get(place)
                data = opened.encode() if opened is not None else b""
                self.execute(host, edge.receive_opening(place, data, self.now))
            case AskTpm(challenge, shown):
                assert disk.tpm is not None
                secret = disk.tpm.activate(challenge.credential)
                if secret is not None:
                    key = self.enrolled(host.name).device.signing_key
                    quote = disk.tpm.quote(qualify(challenge, secret, shown, key))
                    self.execute(host, edge.receive_quote(quote, self.now))

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

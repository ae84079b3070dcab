"""A small mesh for the ledger's tests: keys, blocks and a network without faults."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hookprobe.dsm.certificate import (
    QuorumCertificate,
    VoteKind,
    encode_bitmap,
    vote_message,
)
from hookprobe.dsm.chain import Event
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Court, convene
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import Disconnect, Effect, Send
from hookprobe.dsm.enrolment import Enrolment
from hookprobe.dsm.frames import decode, encode
from hookprobe.dsm.history import History
from hookprobe.dsm.messages import Message
from hookprobe.dsm.microblock import NO_PARENT, Microblock, SignedBlock, sign_block
from hookprobe.dsm.misbehaviour import Verdict, judge
from hookprobe.dsm.roll import Roll
from hookprobe.dsm.scribe import ChainHost
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.sim.mesh import START, Keys, Mesh
from hookprobe.sim.scenario import CONFIG
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import DAY, MILLISECOND, SECOND, Instant

NOW = Instant(START + SECOND)
EDGE = NodeId("edge")
QUICK = replace(CONFIG, cut_grace_us=0, partition_us=DAY)


def mesh_of(size: int = 4, *, real: bool = False) -> Mesh:
    return Mesh(size, Keys(1, real=real))


def court_of(mesh: Mesh) -> Court:
    return convene(mesh.genesis, mesh.keys.schemes)


def host_of(store: MemoryStore) -> ChainHost:
    return ChainHost(store, lambda count: b"s" * count)


def history_of(mesh: Mesh) -> History:
    return History(mesh.genesis, court_of(mesh), MemoryStore())


def judged(evidence: bytes, court: Court, epochs: int = 1) -> Verdict:
    return judge(evidence, Roll(court), range(epochs))


def enrolment_of(mesh: Mesh, node: str = EDGE) -> Enrolment:
    return mesh.edge_keys(NodeId(node)).enrolment


def chain_of(
    mesh: Mesh, count: int, *, node: str = EDGE, inc: int = 1, salt: int = 0
) -> list[SignedBlock]:
    """Return the first `count` blocks of a chain; another salt gives another branch."""
    name, signer = NodeId(node), mesh.keys.signer(node)
    blocks: list[SignedBlock] = []
    for seq in range(1, count + 1):
        body = enrolment_of(mesh, node).to_body() if seq == 1 else None
        blocks.append(
            sign_block(
                Microblock(
                    chain=mesh.chain,
                    node_id=name,
                    inc=inc,
                    seq=seq,
                    prev=blocks[-1].id if blocks else NO_PARENT,
                    timestamp_ms=NOW // MILLISECOND,
                    event_type="enrol" if seq == 1 else "alert",
                    payload_hash=bytes([salt]) * 32,
                    body=body,
                ),
                signer,
            )
        )
    return blocks


def certificate_of(
    mesh: Mesh, kind: VoteKind, place: tuple[int, int], digest: bytes, signers: Sequence[int]
) -> QuorumCertificate:
    """Return a genuine certificate for place = (epoch, view)."""
    epoch, view = place
    message = vote_message(mesh.chain, kind, epoch, view, digest)
    votes = [mesh.keys.vote_signer(mesh.names[signer]).sign(message) for signer in signers]
    return QuorumCertificate(
        kind,
        epoch,
        view,
        digest,
        encode_bitmap(signers, len(mesh.names)),
        mesh.keys.schemes.votes.aggregate(votes),
    )


@dataclass(slots=True)
class Net:
    """Validators and edges in one process; every message arrives at once and in order."""

    mesh: Mesh
    config: LedgerConfig = QUICK
    now: Instant = NOW
    stores: dict[NodeId, MemoryStore] = field(default_factory=dict)
    nodes: dict[NodeId, ValidatorLedger | EdgeLedger] = field(default_factory=dict)
    seen: list[tuple[NodeId, Effect]] = field(default_factory=list)
    frames: int = 0
    _queue: deque[tuple[NodeId, NodeId, Message]] = field(default_factory=deque)

    def add_validators(self, count: int | None = None) -> None:
        for name in self.mesh.names[:count]:
            self.boot_validator(name)

    def boot_validator(self, name: NodeId) -> ValidatorLedger:
        store = self.stores.setdefault(name, MemoryStore())
        ledger = ValidatorLedger(
            self.mesh.genesis,
            self.mesh.validator_keys(name),
            self.mesh.keys.schemes,
            host_of(store),
            self.config,
        )
        self._boot(name, ledger)
        return ledger

    def boot_edge(self, name: NodeId = EDGE) -> EdgeLedger:
        store = self.stores.setdefault(name, MemoryStore())
        host = host_of(store)
        keys = self.mesh.edge_keys(name)
        ledger = EdgeLedger(self.mesh.genesis, keys, self.mesh.keys.schemes, host, self.config)
        self._boot(name, ledger)
        return ledger

    def _boot(self, name: NodeId, node: ValidatorLedger | EdgeLedger) -> None:
        self.nodes[name] = node
        self.execute(name, node.start(self.now))
        for other in list(self.nodes):
            if other != name:
                self.execute(name, node.peer_connected(other, self.now))
                self.execute(other, self.nodes[other].peer_connected(name, self.now))

    def kill(self, name: NodeId) -> None:
        del self.nodes[name]
        for other, node in list(self.nodes.items()):
            self.execute(other, node.peer_disconnected(name, self.now))

    def execute(self, name: NodeId, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.stores[name].apply(effect)
            elif isinstance(effect, Send):
                self._queue.append((name, effect.peer, effect.message))
            else:
                assert not isinstance(effect, Disconnect), effect
                self.seen.append((name, effect))

    def deliver(self) -> None:
        while self._queue:
            sender, receiver, message = self._queue.popleft()
            frame = encode(message)
            assert encode(decode(frame)) == frame
            self.frames += 1
            node = self.nodes.get(receiver)
            if node is not None:
                self.execute(receiver, node.receive_frame(sender, frame, self.now))

    def run(self, until: int) -> None:
        """Let time pass, waking nodes in order of their timers."""
        self.deliver()
        while True:
            due = [(node.next_timeout(), name) for name, node in sorted(self.nodes.items())]
            times = [(when, name) for when, name in due if when is not None and when <= until]
            if not times:
                break
            when, name = min(times)
            self.now = Instant(max(self.now, when))
            self.execute(name, self.nodes[name].handle_timeout(self.now))
            self.deliver()
        self.now = Instant(until)

    def write(self, edge: EdgeLedger, *texts: bytes, name: NodeId = EDGE) -> None:
        events = [Event("ids_alert", text) for text in texts]
        self.execute(name, edge.append(events, self.now))
        self.deliver()

    def of(self, kind: type[Effect], name: NodeId | None = None) -> list[Effect]:
        return [
            effect for who, effect in self.seen if isinstance(effect, kind) and name in (None, who)
        ]

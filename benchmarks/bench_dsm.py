"""What the ledger costs, each figure beside the raw operation that it cannot do without.

Run `python benchmarks/bench_dsm.py`; `run()` gives the rows (name, value, unit).
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from hookprobe.crypto import merkle
from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.chain import Event
from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import convene
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import CheckpointFinalized, Effect, Send
from hookprobe.dsm.frames import decode, encode
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.linked import link
from hookprobe.dsm.messages import Message, Pack, PackEntry, Receipt
from hookprobe.dsm.microblock import parse_block
from hookprobe.dsm.receipts import encode_receipt
from hookprobe.dsm.scribe import ChainHost
from hookprobe.dsm.store import MemoryStore, Persist, StoreReader, Table
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.runtime.sqlite_store import SqliteStore
from hookprobe.sim.mesh import START, Keys, Mesh
from hookprobe.sim.scenario import PROFILES
from hookprobe.sim.scenario import run as simulate
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

Row = tuple[str, float, str]
NOW = Instant(START + SECOND)
BLOCKS = 2_048
PROOF_VALIDATORS = 10
MILLION = 1_000_000
LEAVES = 100_000


def seconds(
    action: Callable[[], object], rounds: int = 5, clock: Callable[[], float] = time.process_time
) -> float:
    """Return the best time of a few rounds; processor time, so that neighbours do not count."""
    best = float("inf")
    for _ in range(rounds):
        start = clock()
        action()
        best = min(best, clock() - start)
    return best


def edge_of(mesh: Mesh, store: StoreReader) -> EdgeLedger:
    config = LedgerConfig()
    keys = mesh.edge_keys(NodeId("edge"))
    return EdgeLedger(mesh.genesis, keys, mesh.keys.schemes, ChainHost(store, bytes), config)


def blocks_rows(mesh: Mesh) -> list[Row]:
    signer, scheme = Ed25519Signer(b"s" * 32), Ed25519()
    message = b"m" * 32
    signature = signer.sign(message)
    raw_sign = BLOCKS / seconds(lambda: [signer.sign(message) for _ in range(BLOCKS)])
    raw_verify = BLOCKS / seconds(
        lambda: [scheme.verify(signer.public_key, message, signature) for _ in range(BLOCKS)]
    )
    events = [Event("ids_alert", b"payload of an alert %d" % number) for number in range(64)]

    def create(store: SqliteStore) -> None:
        # Group commit as the host does it: what one wake brought (here four batches of 64 blocks,
        # about 10 ms of work) becomes durable together before anything is made of it.
        chain = edge_of(mesh, store).chain
        effects = chain.begin([], NOW)
        for _ in range(BLOCKS // 256):
            for _ in range(4):
                effects += chain.append(events, NOW)
            store.apply([effect for effect in effects if isinstance(effect, Persist)])
            effects = []

    with tempfile.TemporaryDirectory() as folder:
        waited = []
        rows: Sequence[tuple[bytes, bytes]] = ()
        for number in range(5):
            (Path(folder) / str(number)).mkdir()
            store = SqliteStore(Path(folder) / str(number))
            start = time.perf_counter()  # wall time: waiting for the disk is part of the price
            create(store)
            waited.append(time.perf_counter() - start)
            rows = store.scan(Table.BLOCKS, b"", b"\xff" * 80, 2 * BLOCKS)
            store.close()
        created = len(rows) / min(waited)
    wire = [(value[2:-64], value[-64:]) for _, value in rows]

    court = convene(mesh.genesis, mesh.keys.schemes)

    def ingest() -> None:
        book = LaneBook(court, MemoryStore(), LedgerConfig())
        for raw, signed in wire:
            book.insert(parse_block(raw, signed), solicited=False)

    ingested = len(wire) / seconds(ingest)
    caught_up = catch_up(mesh, rows)
    return [
        ("raw Ed25519 sign", raw_sign, "1/s"),
        ("microblocks created, group commit to SQLite", created, "1/s"),
        ("microblocks created / raw Ed25519 signing", created / raw_sign, "ratio"),
        ("raw Ed25519 verify", raw_verify, "1/s"),
        ("validator ingest, every signature", ingested, "1/s"),
        ("validator ingest / raw verification", ingested / raw_verify, "ratio"),
        ("catch-up ingest, signature of each range head", caught_up, "1/s"),
        ("catch-up ingest / full-verify ingest", caught_up / ingested, "ratio"),
    ]


def catch_up(mesh: Mesh, rows: Sequence[tuple[bytes, bytes]]) -> float:
    """Return blocks per second of a validator that takes final ranges of 500 from frames."""
    court = convene(mesh.genesis, mesh.keys.schemes)
    lane = (NodeId("edge"), int.from_bytes(rows[0][0][32:36], "big"))
    blocks = [link(lane, value[2:-64], value[-64:]) for _, value in rows]
    parts = [blocks[at : at + 500] for at in range(0, len(blocks), 500)]
    frames = [encode(Pack(0, lane, tuple(PackEntry(item) for item in part))) for part in parts]

    def ingest() -> None:
        book = LaneBook(court, MemoryStore(), LedgerConfig())
        for part in parts:
            book.finalize(Range(*lane, part[0].seq, part[-1].seq, part[-1].id))
        for frame, part in zip(frames, parts, strict=True):
            pack = decode(frame)
            assert isinstance(pack, Pack)
            taken = [entry.signed for entry in pack.entries]
            assert taken[-1].id == part[-1].id
            assert all(child.prev == parent.id for parent, child in pairwise(taken))
            book.trust(taken)

    return len(blocks) / seconds(ingest)


def plain_root(leaves: list[bytes]) -> bytes:
    """Build an RFC 6962 root level by level, without any trick."""
    level = [sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level = [
            sha256(b"\1" + level[at] + level[at + 1]).digest() if at + 1 < len(level) else level[at]
            for at in range(0, len(level), 2)
        ]
    return level[0]


def tree_rows() -> list[Row]:
    leaves = [sha256(number.to_bytes(4, "big")).digest() for number in range(LEAVES)]
    assert plain_root(leaves) == merkle.root(leaves)
    ours, plain = seconds(lambda: merkle.root(leaves)), seconds(lambda: plain_root(leaves))
    proof, root = merkle.prove_inclusion(leaves, 777), merkle.root(leaves)

    def check() -> None:
        for _ in range(2000):
            merkle.check_inclusion(leaves[777], 777, LEAVES, proof, root)

    checked = seconds(check)
    return [
        ("epoch root of 100k ids", ours * 1e3, "ms"),
        ("epoch root / plain level loop", ours / plain, "ratio"),
        ("inclusion proofs verified", 2000 / checked, "1/s"),
    ]


class Loop:
    """Validators in one process over encoded frames; counts the processor time."""

    def __init__(self, mesh: Mesh) -> None:
        self.nodes: dict[NodeId, ValidatorLedger | EdgeLedger] = {}
        self.stores: dict[NodeId, MemoryStore] = {}
        self.queue: list[tuple[NodeId, NodeId, Message]] = []
        self.finals = 0
        for name in mesh.names:
            self.stores[name] = MemoryStore()
            self.nodes[name] = ValidatorLedger(
                mesh.genesis,
                mesh.validator_keys(name),
                mesh.keys.schemes,
                ChainHost(self.stores[name], bytes),
                LedgerConfig(),
            )
        edge = NodeId("edge")
        self.stores[edge] = MemoryStore()
        self.edge = edge_of(mesh, self.stores[edge])
        self.nodes[edge] = self.edge
        for name, node in self.nodes.items():
            self.run(name, node.start(Instant(START)))
            for other in self.nodes:
                if other != name:
                    self.run(name, node.peer_connected(other, Instant(START)))
        self.drain(Instant(START))

    def run(self, name: NodeId, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.stores[name].apply(effect)
            elif isinstance(effect, Send):
                self.queue.append((name, effect.peer, effect.message))
            elif isinstance(effect, CheckpointFinalized):
                self.finals += 1

    def drain(self, now: Instant) -> None:
        while self.queue:
            batch, self.queue = self.queue, []
            for sender, receiver, message in batch:
                frame = encode(message)
                self.run(receiver, self.nodes[receiver].receive_frame(sender, frame, now))

    def epoch(self, now: Instant) -> None:
        """Wake everybody once and deliver all that follows."""
        for name, node in self.nodes.items():
            self.run(name, node.handle_timeout(now))
        self.drain(now)


def bls_verify_s() -> float:
    """Return the seconds that one BLS signature takes to check."""
    signer, votes = BlsSigner(b"s" * 32), Bls()
    signature = signer.sign(b"m")
    return seconds(lambda: votes.verify(signer.public_key, b"m", signature), 10)


def finality_rows(size: int) -> list[Row]:
    mesh = Mesh(size, Keys(3, real=True))
    loop = Loop(mesh)
    times = []
    for epoch in range(12 if size <= 10 else 5):
        now = Instant(START + (epoch + 1) * 4 * SECOND)
        before = loop.finals
        start = time.process_time()
        loop.epoch(now)
        times.append(time.process_time() - start)
        assert loop.finals == before + size
    times.sort()
    median = times[len(times) // 2]
    checks = median / size / bls_verify_s()
    rows = [
        (f"finality in process, n={size}, all validators, p50", median * 1e3, "ms"),
        (f"CPU of one validator for an epoch, n={size} / BLS verify", checks, "times"),
    ]
    return rows + (proof_rows(loop) if size == PROOF_VALIDATORS else [])


def simulator_rows() -> list[Row]:
    """Return how fast the seeded simulator runs the nodes of a mesh of four that is undisturbed."""
    profile = replace(PROFILES["fast"], sizes=(4,), stormy=False, churn_percent=0, epochs=40)
    begin = time.process_time()
    outcomes = [simulate(seed, profile) for seed in range(5)]
    spent = time.process_time() - begin
    assert not any(one.violations for one in outcomes)
    return [("simulator, n=4, production nodes", sum(one.epochs for one in outcomes) / spent,
             "epochs/s")]  # fmt: skip


def proof_rows(loop: Loop) -> list[Row]:
    """Return the size of a receipt: header, certificate, which block, its index and path."""
    validator = next(node for node in loop.nodes.values() if isinstance(node, ValidatorLedger))
    sealed = validator.history.sealed(validator.history.next_epoch - 1)
    assert sealed is not None
    path = merkle.prove_inclusion([bytes(32)] * MILLION, 777)
    covered = Range(NodeId("edge"), 1, 777, 777, bytes(32))
    receipt = Receipt(sealed.raw, sealed.certificate, covered, 777, tuple(path))
    what = f"receipt of one block of 1,000,000, n={PROOF_VALIDATORS}"
    return [(what, float(len(encode_receipt(receipt))), "bytes")]


def bundle_rows() -> list[Row]:
    mesh = Mesh(4, Keys(4, real=True))
    loop = Loop(mesh)
    name = NodeId("edge")
    loop.run(name, loop.edge.append([Event("ids_alert", b"x" * 100)], Instant(START)))
    for step in range(1, 40):
        loop.epoch(Instant(START + step * SECOND // 4))
    data = export_bundle(mesh.genesis, name, loop.stores[name])
    verifier = BundleVerifier(mesh.keys.schemes, mesh.chain)
    verifier.check(data)
    checked = seconds(lambda: verifier.check(data), 10)
    single = bls_verify_s()
    return [
        ("bundle verified, genesis known", checked * 1e3, "ms"),
        ("BLS verify", single * 1e3, "ms"),
        ("bundle verification / one BLS verification", single / checked, "ratio"),
        ("bundle size, one receipt chain", float(len(data)), "bytes"),
    ]


def run() -> list[Row]:
    """Measure everything."""
    mesh = Mesh(4, Keys(2, real=True))
    rows = blocks_rows(mesh) + tree_rows()
    for size in (4, 10, 40, 100):
        rows += finality_rows(size)
    return rows + bundle_rows() + simulator_rows()


if __name__ == "__main__":
    for label, value, unit in run():
        print(f"{label:58} {value:12.2f} {unit}")

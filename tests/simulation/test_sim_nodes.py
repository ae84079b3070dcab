"""Whole nodes under a storm: the real cryptography and transport, a bad network, crashes.

Each seed is a story of its own; after the storm everything must be in order again.
"""

import gzip
import random
from pathlib import Path

import pytest
from tests.unit.node.mesh import MemoryMesh

from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.effects import ForkDetected, MisbehaviourDetected, NodeQuarantined
from hookprobe.dsm.store import Table
from hookprobe.node.build import SCHEMES
from hookprobe.wire.identifiers import NodeId

EVE = Path(__file__).parents[1] / "data/sensors/eve"
RECORDINGS = [
    gzip.decompress((EVE / f"{name}.eve.json.gz").read_bytes())
    for name in ("scan-syn-vertical", "brute-http-basic", "c2-beacon-tls", "lateral-psexec-smb")
]
EDGES = ("edge-a", "edge-b")
VALIDATORS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))


def storm(mesh: MemoryMesh, dice: random.Random) -> None:
    """Feed the edges while links fail and one node at a time is down."""
    mesh.loss, mesh.doubled = dice.choice((0.0, 0.05, 0.2)), dice.choice((0.0, 0.1))
    mesh.damaged, mesh.delay_max_us = dice.choice((0.0, 0.02)), dice.choice((2_000, 80_000))
    names = [*EDGES, *VALIDATORS]
    offsets = dict.fromkeys(EDGES, 0)
    feeds = {edge: dice.choice(RECORDINGS) for edge in EDGES}
    for _ in range(5):
        victim = dice.choice(names)
        first, second = dice.sample(names, 2)
        mesh.cut = {frozenset((first, second)): None}
        mesh.run(dice.uniform(0.2, 1.5))
        for edge in EDGES:
            step = len(feeds[edge]) // 5 + 1
            if mesh.hosts[edge].node is not None:
                mesh.feed(edge, feeds[edge][offsets[edge] : offsets[edge] + step])
                offsets[edge] += step
        mesh.crash(victim)
        mesh.run(dice.uniform(0.1, 1.0))
        mesh.boot(victim)
        if victim in EDGES:
            offsets[victim] = mesh.hosts[victim].edge.place("eve.json").offset
    for edge in EDGES:
        mesh.feed(edge, feeds[edge][offsets[edge] :])


def headers(mesh: MemoryMesh, name: str) -> dict[bytes, bytes]:
    rows = mesh.hosts[name].store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 10_000)
    return {key: decode_sealed(value).hash for key, value in rows}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_after_a_storm_everything_told_is_proven_and_agreed(seed: int) -> None:
    dice = random.Random(seed)
    mesh = MemoryMesh(EDGES, seed=seed)
    mesh.run(2)
    storm(mesh, dice)
    mesh.loss = mesh.doubled = mesh.damaged = 0.0
    mesh.cut, mesh.delay_max_us = {}, 3_000
    mesh.run(45)

    histories = [headers(mesh, name) for name in VALIDATORS]
    for epoch in sorted(set.intersection(*(set(history) for history in histories))):
        assert len({history[epoch] for history in histories}) == 1
    assert len(histories[0]) > 10
    for host in mesh.hosts.values():
        assert host.of(ForkDetected) == []
        assert host.of(MisbehaviourDetected) == []
        assert host.of(NodeQuarantined) == []
    for edge in EDGES:
        host = mesh.hosts[edge]
        for head in host.edge.ledger.chain.heads.values():
            assert head.receipted == head.seq, f"{edge}: {head.seq - head.receipted} not proven"
        bundle = export_bundle(mesh.mesh.genesis, NodeId(edge), host.store)
        assert BundleVerifier(SCHEMES).check(bundle).blocks > 1

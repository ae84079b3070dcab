"""Whole nodes with the real cryptography and transport, on a virtual clock."""

import gzip
import ipaddress
import json
from pathlib import Path

import pytest
from tests.unit.node.mesh import SETTINGS, START, MemoryMesh

from hookprobe.crypto.signing import Ed25519
from hookprobe.detection.incident import IncidentOpened
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.effects import CheckpointFinalized, ForkDetected, QuorumLost, ReceiptReceived
from hookprobe.dsm.microblock import decode_block
from hookprobe.dsm.store import Table
from hookprobe.errors import LocalError, UnavailableError, VerificationError
from hookprobe.identity.directory import accept
from hookprobe.node.build import SCHEMES, Documents, Parts, build_edge
from hookprobe.node.observations import IncidentRecorded
from hookprobe.node.resonance import (
    DeviceResonance,
    EnrolledFingerprints,
    KnownFingerprints,
    device_state,
)
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

EVE = Path(__file__).parents[2] / "data/sensors/eve"
SCAN = gzip.decompress((EVE / "scan-syn-vertical.eve.json.gz").read_bytes())
BRUTE = gzip.decompress((EVE / "brute-http-basic.eve.json.gz").read_bytes())
BENIGN = gzip.decompress((EVE / "benign-mix.eve.json.gz").read_bytes())


def test_a_scan_becomes_verified_evidence() -> None:
    mesh = MemoryMesh(("edge-a", "edge-b"))
    mesh.run(3)
    mesh.feed("edge-a", SCAN)
    mesh.feed("edge-b", BENIGN)
    mesh.run(6)
    edge = mesh.hosts["edge-a"]
    titles = [item.title for item in edge.of(IncidentRecorded)]
    assert titles == ["Vertical port scan", "Vertical port scan"]  # as it opened, as it ended
    assert edge.of(ReceiptReceived)
    assert mesh.hosts["edge-b"].of(IncidentRecorded) == []

    bundle = export_bundle(mesh.mesh.genesis, NodeId("edge-a"), edge.store)
    report = BundleVerifier(SCHEMES, mesh.mesh.genesis.chain_id()).check(bundle)
    assert report.blocks == 3
    assert report.voters >= 3
    finals = [host.of(CheckpointFinalized) for host in mesh.hosts.values()]
    roots = {(item.epoch, item.header_hash) for final in finals for item in final}
    assert len(roots) == len({epoch for epoch, _ in roots}) > 5


def test_no_raw_address_leaves_an_edge() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    mesh.feed("edge-a", SCAN)
    mesh.feed("edge-a", BRUTE)
    mesh.run(6)
    edge = mesh.hosts["edge-a"]
    assert len(edge.of(IncidentRecorded)) >= 4
    sent = edge.messages()
    for text in ("203.0.113.66", "10.1.0.20"):
        packed = ipaddress.ip_address(text).packed
        for form in (text.encode(), packed, packed.hex().encode()):
            assert form not in sent
    for title in ("Vertical", "203.0", "attack"):
        assert title.encode() not in sent


def test_loss_delays_but_loses_nothing() -> None:
    mesh = MemoryMesh(("edge-a",), loss=0.1, seed=3)
    mesh.run(5)
    mesh.feed("edge-a", BRUTE)
    mesh.run(20)
    edge = mesh.hosts["edge-a"]
    head = edge.edge.ledger.chain.open_head
    assert head is not None
    assert head.receipted == head.seq > 1


@pytest.mark.parametrize("moment", range(6))
def test_a_crash_between_any_two_effects_tells_nothing_twice(moment: int) -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    edge = mesh.hosts["edge-a"]
    effects = edge.edge.receive_bytes("eve.json", SCAN, mesh.now)
    cut = len(effects) * moment // 5
    mesh.execute(edge, effects[:cut])
    mesh.crash("edge-a")
    mesh.run(0.5)
    mesh.boot("edge-a")
    mesh.run(2)
    place = edge.edge.place("eve.json")
    mesh.feed("edge-a", SCAN[place.offset :])
    mesh.run(8)
    events = [key for key, _ in edge.store.scan(Table.NODE, b"incident/", b"incident0", 100)]
    assert len(events) == 1
    blocks = [decode_block(row) for _, row in edge.store.scan(Table.BLOCKS, b"", b"\xff" * 80, 99)]
    told = [signed.id for signed in blocks if signed.block.event_type == "ids_alert"]
    assert len(told) == 2, "once as it opened, once as it ended"
    assert not any(host.of(ForkDetected) for host in mesh.hosts.values())
    chain = edge.edge.ledger.chain
    assert all(head.receipted == head.seq for head in chain.heads.values())


def test_one_of_four_may_die_and_two_are_too_many() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    mesh.crash("validator-4")
    before = len(mesh.hosts["validator-1"].of(CheckpointFinalized))
    mesh.run(8)
    with_three = len(mesh.hosts["validator-1"].of(CheckpointFinalized))
    assert with_three > before + 4
    mesh.crash("validator-3")
    mesh.run(8)
    assert len(mesh.hosts["validator-1"].of(CheckpointFinalized)) <= with_three + 1
    assert mesh.hosts["validator-1"].of(QuorumLost)
    mesh.boot("validator-3")
    mesh.run(12)
    assert len(mesh.hosts["validator-1"].of(CheckpointFinalized)) > with_three + 2
    assert not any(host.of(ForkDetected) for host in mesh.hosts.values())


def test_an_edge_works_alone_and_catches_up() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    for name in ("validator-1", "validator-2", "validator-3", "validator-4"):
        mesh.crash(name)
    mesh.run(1)
    mesh.feed("edge-a", BRUTE)
    mesh.run(4)
    edge = mesh.hosts["edge-a"]
    assert edge.of(IncidentOpened)
    head = edge.edge.ledger.chain.open_head
    assert head is not None
    assert head.seq > head.receipted
    with pytest.raises(UnavailableError):
        export_bundle(mesh.mesh.genesis, NodeId("edge-a"), edge.store, head.block_id)
    for name in ("validator-1", "validator-2", "validator-3", "validator-4"):
        mesh.boot(name)
    mesh.run(30)
    head = edge.edge.ledger.chain.open_head
    assert head is not None
    assert head.seq == head.receipted


def documents(mesh: MemoryMesh, name: str) -> Documents:
    enrolled = mesh.enrolled(name)
    genesis = mesh.mesh.genesis.encode()
    return Documents(enrolled.secrets, enrolled.enrolment, genesis, mesh.mesh.directory)


def test_documents_of_two_meshes_do_not_mix() -> None:
    ours, theirs = MemoryMesh(("edge-a",)), MemoryMesh(("edge-a",), seed=2)
    mixed = documents(ours, "edge-a")
    parts = Parts(ours.hosts["edge-a"].store, ours.random_bytes, START)
    foreign = Documents(mixed.secrets, mixed.enrolment, mixed.genesis, theirs.mesh.directory)
    with pytest.raises(VerificationError, match="no CA"):
        build_edge(foreign, SETTINGS, parts, {})
    other = theirs.enrolled("edge-a").secrets
    stolen = Documents(other, mixed.enrolment, mixed.genesis, mixed.directory)
    with pytest.raises(LocalError, match="not those enrolled"):
        build_edge(stolen, SETTINGS, parts, {})


def test_an_edge_that_is_not_in_the_directory_does_not_start() -> None:
    ours, more = MemoryMesh(("edge-a",)), MemoryMesh(("edge-a", "edge-b"))
    stranger = more.enrolled("edge-b")
    known = documents(ours, "edge-a")
    parts = Parts(ours.hosts["edge-a"].store, ours.random_bytes, START)
    unknown = Documents(stranger.secrets, stranger.enrolment, known.genesis, known.directory)
    with pytest.raises(LocalError, match="not in the directory"):
        build_edge(unknown, SETTINGS, parts, {})


def test_an_expired_directory_stops_a_start() -> None:
    mesh = MemoryMesh(("edge-a",))
    late = Instant(START + 91 * 24 * 3600 * 1_000_000)
    parts = Parts(mesh.hosts["edge-a"].store, mesh.random_bytes, late)
    with pytest.raises(VerificationError, match="expired"):
        build_edge(documents(mesh, "edge-a"), SETTINGS, parts, {})


def test_fingerprints_are_the_enrolled_ones() -> None:
    mesh = MemoryMesh(("edge-a", "edge-b"))
    enrolled = mesh.enrolled("edge-a")
    source = DeviceResonance(NodeId("edge-a"), device_state(enrolled.secrets))
    directory = accept(mesh.mesh.directory, mesh.mesh.genesis.ca_keys, Ed25519(), START)
    check = KnownFingerprints(EnrolledFingerprints(directory))
    challenge = bytes(32) + b"h" * 32
    rdv, posf = source.respond(challenge)
    assert check.check(NodeId("edge-a"), source.w_fingerprint(), challenge, rdv, posf)
    assert not check.check(NodeId("edge-b"), source.w_fingerprint(), challenge, rdv, posf)
    assert not check.check(NodeId("edge-c"), source.w_fingerprint(), challenge, rdv, posf)
    assert source.respond(bytes(32) + b"i" * 32) != (rdv, posf)


def test_the_story_is_the_same_for_the_same_seed() -> None:
    def story() -> list[str]:
        mesh = MemoryMesh(("edge-a",), seed=5)
        mesh.run(2)
        mesh.feed("edge-a", BRUTE)
        mesh.run(3)
        edge = mesh.hosts["edge-a"]
        return [json.dumps(item.title) for item in edge.of(IncidentRecorded)]

    assert story() == story() != []


def test_blocks_carry_fingerprint_and_proof_of_the_device() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    mesh.feed("edge-a", SCAN)
    edge = mesh.hosts["edge-a"]
    state = device_state(mesh.enrolled("edge-a").secrets)
    blocks = [decode_block(row) for _, row in edge.store.scan(Table.BLOCKS, b"", b"\xff" * 80, 99)]
    assert len(blocks) >= 2
    expected = DeviceResonance(NodeId("edge-a"), state)
    for signed in blocks:
        block = signed.block
        assert block.neuro == expected.bind(block.payload_hash, block.prev, block.seq)
    proofs = [signed.block.neuro.posf_signature for signed in blocks if signed.block.neuro]
    assert len(dict.fromkeys(proofs)) == len(blocks)

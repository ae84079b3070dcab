"""What a verifier knows of the machines under devices: TPMs that witness, hardware that differs."""

from tests.unit.neuro.paper_tpm import PaperTpm
from tests.unit.node.mesh import GOLDEN, VERIFIER, MemoryMesh
from tests.unit.node.test_node_neuro import EDGE, WATCHED, count_at

from hookprobe.identity import fingerprint
from hookprobe.identity.fingerprint import Match
from hookprobe.neuro.quotes import BootChanged, TpmQuoted, TpmRefused
from hookprobe.node.appraisals import Count
from hookprobe.node.observations import CloneSuspected, HardwareDiffers, MessageRefused
from hookprobe.wire.identifiers import NodeId


def with_tpm(device: PaperTpm) -> MemoryMesh:
    mesh = MemoryMesh(("edge-a",), verified=True)
    mesh.crash("edge-a")
    mesh.hosts["edge-a"].disk.tpm = device
    mesh.boot("edge-a")
    mesh.run(4)
    return mesh


def label_at(mesh: MemoryMesh) -> str:
    appraisals = mesh.hosts[WATCHED].validator.appraisals
    assert appraisals is not None
    return appraisals.rows(mesh.now)[0][3]


def test_a_vouched_tpm_is_seen_by_validators_and_its_change_is_tampering() -> None:
    mesh = with_tpm(device := PaperTpm())
    assert mesh.hosts[VERIFIER].of(TpmQuoted)
    assert label_at(mesh) == "software-attested", "nobody vouches for this TPM yet"
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.vouch(EDGE, mesh.now), mesh.now))
    mesh.run(2)
    assert label_at(mesh) == "tpm-attested"
    device.pcrs[0] = b"\x09" * 32
    mesh.crash("edge-a")
    mesh.boot("edge-a")
    mesh.run(12)
    assert verifier.of(BootChanged) == [BootChanged(EDGE, (0,))]
    assert count_at(mesh) is Count.LOST
    mesh.execute(verifier, verifier.verifier.carry(room.accept(EDGE, None, mesh.now), mesh.now))
    mesh.run(4)
    assert (count_at(mesh), label_at(mesh)) == (Count.YES, "tpm-attested")
    mesh.crash(VERIFIER)
    mesh.boot(VERIFIER)
    mesh.run(12)
    assert label_at(mesh) == "tpm-attested", "what was vouched for and golden is remembered"


def test_a_lying_root_with_a_tpm_is_seen_if_it_changed_the_boot() -> None:
    """The same lie as without a TPM, golden measurements over changed software: now it shows."""
    mesh = with_tpm(device := PaperTpm())
    device.pcrs[7] = b"\x01" * 32
    mesh.hosts["edge-a"].disk.measured = GOLDEN
    mesh.crash("edge-a")
    mesh.boot("edge-a")
    mesh.run(12)
    assert count_at(mesh) is Count.LOST


def test_a_copied_disk_in_another_machine_has_another_tpm() -> None:
    mesh = with_tpm(PaperTpm())
    mesh.crash("edge-a")
    mesh.hosts["edge-a"].disk.tpm = PaperTpm(seed=1000)
    mesh.boot("edge-a")
    mesh.run(12)
    refused = mesh.hosts[VERIFIER].of(TpmRefused)
    assert TpmRefused(EDGE, "another TPM than the one enrolled") in refused


def boot_on(mesh: MemoryMesh, name: str, facts: dict[str, list[str]]) -> None:
    """Start an edge on a machine with these identifiers."""
    mesh.crash(name)
    key = mesh.enrolled(name).secrets.tenant
    mesh.hosts[name].disk.hardware = fingerprint.take(facts, key).encode()
    mesh.boot(name)


def test_other_hardware_and_copied_images_are_named() -> None:
    board = {"serial": ["10000000a"], "macs": ["dc:a6:32:01"], "machine-id": ["m1"]}
    mesh = MemoryMesh(("edge-a@acme", "edge-b@acme", "edge-c@other"), verified=True)
    verifier = mesh.hosts[VERIFIER]
    boot_on(mesh, "edge-a", board)
    mesh.run(3)
    assert not verifier.of(HardwareDiffers)
    assert not verifier.of(CloneSuspected)
    # The same image on another board of the same tenant, and on one of another tenant.
    other = {"serial": ["10000000b"], "macs": ["dc:a6:32:02"], "machine-id": ["m1"]}
    boot_on(mesh, "edge-b", other)
    boot_on(mesh, "edge-c", other)
    mesh.run(3)
    assert verifier.of(CloneSuspected) == [CloneSuspected(NodeId("edge-b"), (EDGE,))]
    # The disk of edge-a in a board that shares nothing but the image.
    boot_on(mesh, "edge-a", {**other, "serial": ["10000000c"], "macs": ["dc:a6:32:03"]})
    mesh.run(12)
    (differs,) = verifier.of(HardwareDiffers)
    assert (differs.node, differs.match) == (EDGE, Match.OTHER)
    mesh.crash(VERIFIER)
    mesh.boot(VERIFIER)
    mesh.run(12)
    assert len(verifier.of(HardwareDiffers)) == 2, "what it was first seen on is remembered"


def test_a_fingerprint_that_is_none_is_refused() -> None:
    mesh = MemoryMesh(("edge-a",), verified=True)
    mesh.crash("edge-a")
    mesh.hosts["edge-a"].disk.hardware = b'{"type":"F"}'
    mesh.boot("edge-a")
    mesh.run(3)
    assert [item.peer for item in mesh.hosts[VERIFIER].of(MessageRefused)] == [EDGE]
    assert count_at(mesh) is Count.YES, "the history counts all the same"

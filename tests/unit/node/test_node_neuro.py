"""Devices that prove their histories across a whole mesh, and those that cannot."""

import copy
from dataclasses import replace

import pytest
from tests.unit.node.mesh import EVIL, GOLDEN, SETTINGS, VERIFIER, MemoryMesh
from tests.unit.node.test_node_mesh import BRUTE, SCAN

from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.dsm.effects import BlockAccepted
from hookprobe.dsm.microblock import decode_block
from hookprobe.dsm.store import MemoryStore, Table
from hookprobe.errors import LocalError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.neuro import certificate as certificates
from hookprobe.neuro import messages
from hookprobe.neuro.certificate import ResonanceCertificate
from hookprobe.neuro.effects import (
    Appraised,
    BaselineLearned,
    DeviceSilent,
    ForkFound,
    ResyncNeeded,
    VerdictHeard,
)
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.messages import Kind, Place
from hookprobe.neuro.verdict import Verdict
from hookprobe.node.appraisals import Count
from hookprobe.node.doubts import ASTRAY, EXPIRED, UNCERTIFIED
from hookprobe.node.observations import (
    CommitmentOpened,
    MessageRefused,
    ReportRefused,
    StandingChanged,
)
from hookprobe.node.resonance import BlockProof, ProofFound, device_state
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, MILLISECOND, MINUTE, SECOND, Duration, Instant

EDGE = NodeId("edge-a")
WATCHED = "validator-1"


def started(*edges: str, seconds: float = 4) -> MemoryMesh:
    mesh = MemoryMesh(edges or ("edge-a",), verified=True)
    mesh.run(seconds)
    return mesh


def slow(seconds: float) -> MemoryMesh:
    """A mesh for stories of many minutes: long epochs, few records."""
    neuro = replace(SETTINGS.neuro, interval_us=Duration(20 * SECOND))
    htp = HtpConfig(retry_initial_us=200 * MILLISECOND)
    settings = replace(SETTINGS, neuro=neuro, transport=htp)
    mesh = MemoryMesh(("edge-a",), verified=True, settings=settings, epoch_us=60 * SECOND)
    mesh.run(seconds)
    return mesh


def count_at(mesh: MemoryMesh, validator: str = WATCHED, node: NodeId = EDGE) -> Count:
    appraisals = mesh.hosts[validator].validator.appraisals
    assert appraisals is not None
    return appraisals.count(node, mesh.now)


def verdicts(mesh: MemoryMesh) -> list[Verdict]:
    return [item.verdict for item in mesh.hosts[VERIFIER].of(Appraised)]


def accepted(mesh: MemoryMesh, validator: str = WATCHED) -> int:
    return len(mesh.hosts[validator].of(BlockAccepted))


def test_a_device_proves_its_history_and_its_reports_count() -> None:
    mesh = started()
    assert mesh.hosts[VERIFIER].of(BaselineLearned) == [BaselineLearned(EDGE, GOLDEN)]
    assert verdicts(mesh)
    assert dict.fromkeys(verdicts(mesh)) == {Verdict.RESONANT: None}
    for name in ("validator-1", "validator-2", "validator-3", "validator-4"):
        assert count_at(mesh, name) is Count.YES
    before = accepted(mesh)
    mesh.feed("edge-a", SCAN)
    mesh.run(3)
    assert accepted(mesh) > before
    blocks = [
        decode_block(row)
        for _, row in mesh.hosts["edge-a"].store.scan(Table.BLOCKS, b"", b"\xff" * 80, 99)
    ]
    prints = [signed.block.neuro.w_fingerprint for signed in blocks if signed.block.neuro]
    assert len(dict.fromkeys(prints)) > 1, "blocks carry the weights of their moment"


def test_sessions_carry_the_certified_state() -> None:
    mesh = started(seconds=6)
    enrolled = device_state(mesh.enrolled("edge-a").secrets).commitments().w_fingerprint
    appraisals = mesh.hosts[WATCHED].validator.appraisals
    assert appraisals is not None
    known = appraisals.of(EDGE)
    assert 1 < len(known) <= 4
    assert enrolled not in known
    mesh.crash("edge-a")
    mesh.boot("edge-a")  # its log is there: the same state again
    before = len(mesh.hosts[VERIFIER].of(Appraised))
    mesh.run(12)
    assert WATCHED in mesh.hosts["edge-a"].edge.peers
    assert len(mesh.hosts[VERIFIER].of(Appraised)) > before
    assert verdicts(mesh)[-1] is Verdict.RESONANT


def test_a_tampered_device_is_seen_by_edge_validator_and_operator_and_stops_counting() -> None:
    mesh = started()
    mesh.hosts["edge-a"].disk.measured = EVIL
    mesh.run(2)
    heard = mesh.hosts["edge-a"].of(VerdictHeard)[-1]
    assert heard.verdict is Verdict.TAMPER_REPORTED
    assert verdicts(mesh)[-1] is Verdict.TAMPER_REPORTED
    assert count_at(mesh) is Count.LOST
    assert mesh.hosts[WATCHED].of(StandingChanged)[-1].status == "tamper-reported"
    before = accepted(mesh)
    mesh.feed("edge-a", SCAN)
    mesh.run(4)
    assert accepted(mesh) == before
    refused = mesh.hosts[WATCHED].of(ReportRefused)
    assert refused.count(ReportRefused(EDGE, Count.LOST.value)) <= 1, "said once, not per packet"
    # Measuring golden again does not help: an operator has to look.
    mesh.hosts["edge-a"].disk.measured = GOLDEN
    mesh.run(3)
    assert count_at(mesh) is Count.LOST
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.accept(EDGE, None, mesh.now), mesh.now))
    mesh.run(6)
    assert count_at(mesh) is Count.YES
    assert accepted(mesh) > before, "what was held back is not lost"


def test_a_node_names_what_it_holds_against_a_device() -> None:
    mesh = MemoryMesh(("edge-a",), verified=True)
    assert mesh.hosts[WATCHED].validator.doubt(EDGE, mesh.now) is UNCERTIFIED
    mesh = started()
    validator, verifier = mesh.hosts[WATCHED].validator, mesh.hosts[VERIFIER].verifier
    assert validator.doubt(EDGE, mesh.now) is None
    assert verifier.doubt(EDGE, mesh.now) is None
    assert validator.doubt(EDGE, Instant(mesh.now + 9 * HOUR)) is EXPIRED
    assert validator.doubt(NodeId(VERIFIER), mesh.now) is None, "no device"
    assert verifier.doubt(NodeId(WATCHED), mesh.now) is None
    mesh.hosts["edge-a"].disk.measured = EVIL
    mesh.run(2)
    assert validator.doubt(EDGE, mesh.now) is ASTRAY
    doubt = verifier.doubt(EDGE, mesh.now)
    assert doubt is not None
    assert doubt.reason.startswith("this verifier gives it a trust of ")
    assert doubt.reason.endswith(" %, 60 % are wanted")


def test_an_approved_update_keeps_counting() -> None:
    mesh = started()
    verifier = mesh.hosts[VERIFIER]
    update = Manifest(1, EVIL, (GOLDEN,), Instant(mesh.now - SECOND), 72 * 60 * MINUTE)
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.announce((EDGE,), update), mesh.now))
    mesh.hosts["edge-a"].disk.measured = EVIL
    mesh.run(3)
    assert dict.fromkeys(verdicts(mesh)) == {Verdict.RESONANT: None}
    assert count_at(mesh) is Count.YES


def test_who_has_the_keys_but_not_the_history_cannot_report() -> None:
    """The thief runs the device's keys on a fresh disk: its weights are those of the first day."""
    mesh = started(seconds=6)
    thief = mesh.hosts["edge-a"]
    mesh.crash("edge-a")
    thief.disk = type(thief.disk)(salt=b"thief")
    thief.store = MemoryStore()
    before = accepted(mesh)
    mesh.boot("edge-a")
    mesh.feed("edge-a", SCAN)
    mesh.run(8)
    assert thief.of(ResyncNeeded)
    assert WATCHED not in thief.edge.peers, "validators do not know the enrolled state any more"
    assert accepted(mesh) == before


def test_a_clone_that_runs_beside_the_device_convicts_itself() -> None:
    mesh = started()
    original = mesh.hosts["edge-a"]
    copied, store = copy.deepcopy(original.disk), copy.deepcopy(original.store)
    mesh.run(3)
    mesh.crash("edge-a")  # one address book entry: the clone takes the place of the original
    copied.salt = b"clone"
    original.disk, original.store = copied, store
    mesh.boot("edge-a")
    mesh.run(12)
    (found, *_) = mesh.hosts[VERIFIER].of(ForkFound)
    assert found.node == EDGE
    assert count_at(mesh) is Count.LOST
    assert original.of(ResyncNeeded)
    # An operator orders a new epoch; the device follows and counts again.
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.order_epoch(EDGE, mesh.now), mesh.now))
    mesh.run(12)
    assert room.standings()[0].epoch == 1
    assert count_at(mesh) is Count.YES


def test_an_order_that_was_lost_is_given_again() -> None:
    mesh = started()
    mesh.crash("edge-a")
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.order_epoch(EDGE, mesh.now), mesh.now))
    mesh.crash(VERIFIER)
    mesh.boot(VERIFIER)
    mesh.boot("edge-a")
    mesh.run(12)
    standing = mesh.hosts[VERIFIER].verifier.verification.standings()[0]
    assert (standing.epoch, standing.verdict) == (1, Verdict.RESONANT)


def test_a_verifier_that_restarts_goes_on_where_it_was() -> None:
    mesh = started(seconds=6)
    records = mesh.hosts[VERIFIER].verifier.verification.standings()[0].state.count
    assert records >= 4
    mesh.crash(VERIFIER)
    mesh.boot(VERIFIER)
    assert mesh.hosts[VERIFIER].verifier.verification.standings()[0].state.count == records
    mesh.run(8)
    standing = mesh.hosts[VERIFIER].verifier.verification.standings()[0]
    assert standing.state.count > records
    assert dict.fromkeys(verdicts(mesh)) == {Verdict.RESONANT: None}
    assert count_at(mesh) is Count.YES


def test_a_verifier_that_is_away_stops_reports_only_after_the_grace() -> None:
    mesh = slow(4)
    mesh.crash(VERIFIER)
    life = 5 * MINUTE // SECOND
    mesh.run(life - 10)
    assert count_at(mesh) is Count.YES
    mesh.run(30)
    assert count_at(mesh) is Count.YES, "expired, but within the grace"
    mesh.run(30)
    assert count_at(mesh) is Count.STALE
    before = accepted(mesh)
    mesh.feed("edge-a", SCAN)
    mesh.run(3)
    assert accepted(mesh) == before
    mesh.boot(VERIFIER)
    mesh.run(70)
    assert count_at(mesh) is Count.YES
    assert accepted(mesh) > before


def test_a_device_that_falls_silent_is_named() -> None:
    mesh = slow(4)
    mesh.crash("edge-a")
    mesh.run(6 * MINUTE // SECOND)
    assert [item.node for item in mesh.hosts[VERIFIER].of(DeviceSilent)] == [EDGE]


def test_a_verifier_has_a_commitment_opened() -> None:
    mesh = started()
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.demand_opening(EDGE, 1), mesh.now))
    mesh.run(1)
    (opened,) = verifier.of(CommitmentOpened)
    assert opened.counters == mesh.hosts["edge-a"].disk.openings[Place(0, 1)].counters
    with pytest.raises(LocalError, match="no verified record 999"):
        room.demand_opening(EDGE, 999)


def test_an_opening_of_something_else_is_refused() -> None:
    mesh = started()
    openings = mesh.hosts["edge-a"].disk.openings
    openings[Place(0, 1)] = openings[Place(0, 2)]
    verifier = mesh.hosts[VERIFIER]
    room = verifier.verifier.verification
    mesh.execute(verifier, verifier.verifier.carry(room.demand_opening(EDGE, 1), mesh.now))
    mesh.run(1)
    assert verifier.of(CommitmentOpened) == []
    assert [item.peer for item in verifier.of(MessageRefused)] == [EDGE]
    del openings[Place(0, 2)]
    mesh.execute(verifier, verifier.verifier.carry(room.demand_opening(EDGE, 2), mesh.now))
    mesh.run(1)
    assert verifier.of(CommitmentOpened) == [CommitmentOpened(EDGE, 2, None)]


def certificate_of(mesh: MemoryMesh, **changes: object) -> ResonanceCertificate:
    issued = mesh.now
    fields = {
        "node": EDGE,
        "epoch": 0,
        "ter_index": 9,
        "w_fingerprint": b"\x07" * 64,
        "status": Verdict.RESONANT,
        "issued": issued,
        "not_after": Instant(issued + MINUTE),
    }
    return ResonanceCertificate(**{**fields, **changes})  # type: ignore[arg-type]


def told(mesh: MemoryMesh, data: bytes) -> list[object]:
    """What validator-1 says to a certificate, whoever carries it."""
    appraisals = mesh.hosts[WATCHED].validator.appraisals
    assert appraisals is not None
    message = messages.encode(Kind.CERTIFICATE, data)
    return list(appraisals.receive(EDGE, Channel.TER, message, mesh.now))


def test_only_a_verifier_of_the_directory_certifies() -> None:
    mesh = started()
    stranger = Ed25519Signer(b"\x66" * 32)
    device = Ed25519Signer(mesh.enrolled("edge-a").secrets.signing)
    for signer in (stranger, device):
        (refused,) = told(mesh, certificates.issue(certificate_of(mesh), signer))
        assert isinstance(refused, MessageRefused)
    genuine = Ed25519Signer(mesh.enrolled(VERIFIER).secrets.signing)
    (refused,) = told(mesh, certificates.issue(certificate_of(mesh, node=NodeId("x")), genuine))
    assert isinstance(refused, MessageRefused)
    whole = certificates.issue(certificate_of(mesh), genuine)
    assert isinstance(told(mesh, whole[:-3])[0], MessageRefused)
    assert isinstance(told(mesh, whole.replace(b"resonant", b"rezonant"))[0], MessageRefused)


def test_an_old_certificate_does_not_undo_a_warning() -> None:
    mesh = started()
    genuine = Ed25519Signer(mesh.enrolled(VERIFIER).secrets.signing)
    good = certificates.issue(certificate_of(mesh), genuine)
    bad = certificates.issue(
        certificate_of(mesh, status=Verdict.DISSONANT, issued=Instant(mesh.now + 1)), genuine
    )
    told(mesh, bad)
    assert count_at(mesh) is Count.LOST
    assert told(mesh, good) == []
    assert count_at(mesh) is Count.LOST


def test_a_validator_remembers_warnings_over_restarts() -> None:
    mesh = started()
    mesh.hosts["edge-a"].disk.measured = EVIL
    mesh.run(3)
    mesh.crash(WATCHED)
    mesh.crash(VERIFIER)
    mesh.boot(WATCHED)
    assert count_at(mesh) is Count.LOST


def proof_of(mesh: MemoryMesh) -> BlockProof:
    rows = mesh.hosts["edge-a"].store.scan(Table.BLOCKS, b"", b"\xff" * 80, 99)
    block = decode_block(rows[-1][1]).block
    assert block.neuro is not None
    return BlockProof(
        payload_hash=block.payload_hash,
        prev=block.prev,
        seq=block.seq,
        ter_hash=bytes.fromhex(block.neuro.ter_hash),
        w_fingerprint=bytes.fromhex(block.neuro.w_fingerprint),
        posf=bytes.fromhex(block.neuro.posf_signature),
    )


def test_the_proof_in_a_block_can_be_checked_against_the_history() -> None:
    mesh = started()
    mesh.feed("edge-a", BRUTE)
    mesh.run(3)
    proof = proof_of(mesh)
    room = mesh.hosts[VERIFIER].verifier.verification

    def found(**changes: object) -> ProofFound:
        fields = {name: getattr(proof, name) for name in BlockProof.__slots__}
        return room.proof_check(EDGE)(BlockProof(**{**fields, **changes}))

    assert found() is ProofFound.HOLDS
    assert found(payload_hash=b"\x01" * 32) is ProofFound.FORGED
    assert found(seq=proof.seq + 1) is ProofFound.FORGED
    assert found(posf=bytes(32)) is ProofFound.FORGED
    assert found(w_fingerprint=bytes(64)) is ProofFound.OTHER_STATE
    assert found(ter_hash=b"\x05" * 32) is ProofFound.UNKNOWN_RECORD


def test_a_lying_root_without_a_tpm_is_resonant_and_labelled() -> None:
    """The honest limit: files were changed, the agent is told to report golden measurements."""
    mesh = started()
    mesh.hosts["edge-a"].disk.measured = GOLDEN
    mesh.run(3)
    assert count_at(mesh) is Count.YES
    appraisals = mesh.hosts[WATCHED].validator.appraisals
    assert appraisals is not None
    ((_, _, _, label),) = appraisals.rows(mesh.now)
    assert label == "software-attested"


def test_nothing_secret_of_a_history_is_shown_or_sent_to_validators() -> None:
    mesh = started()
    secrets = mesh.enrolled("edge-a").secrets
    (grant,) = mesh.mesh.grants()
    assert secrets.neuro.hex() not in repr(grant)
    chain = mesh.hosts[VERIFIER].verifier.verification.standings()[0].state.chain
    for name in (WATCHED, VERIFIER):
        sent = mesh.hosts[name].messages()
        assert chain not in sent
        assert secrets.neuro not in sent
    assert chain not in mesh.hosts["edge-a"].messages()


def test_an_edge_of_a_verified_mesh_needs_its_history() -> None:
    mesh = MemoryMesh(("edge-a",), verified=True)
    from tests.unit.node.test_node_mesh import documents

    from hookprobe.node.build import Parts, build_edge

    parts = Parts(MemoryStore(), mesh.random_bytes, mesh.now)
    with pytest.raises(LocalError, match="no history"):
        build_edge(documents(mesh, "edge-a"), SETTINGS, parts, {})


def test_a_mesh_with_loss_still_resonates() -> None:
    mesh = MemoryMesh(("edge-a", "edge-b"), loss=0.1, seed=3, verified=True)
    mesh.run(30)
    assert count_at(mesh) is Count.YES
    assert count_at(mesh, node=NodeId("edge-b")) is Count.YES
    assert dict.fromkeys(verdicts(mesh)) == {Verdict.RESONANT: None}

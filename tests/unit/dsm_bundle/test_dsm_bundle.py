"""What honest nodes export verifies, says what it proves, and stays readable for ever."""

from pathlib import Path

import pytest
from tests.unit.dsm_bundle.attacks import MESH, enrolled, sample_bytes
from tests.unit.dsm_bundle.change_attacks import turning_bytes
from tests.unit.dsm_bundle.forge import (
    CA,
    EDGE,
    START,
    Document,
    Mesh,
    Writer,
    lines_of,
    pack,
    read,
    reseal,
    sample,
    schemes,
    seal,
    sign_line,
)

from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.chain import Event
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import UnavailableError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND

DATA = Path(__file__).parents[2] / "data/bundles"
verifier = BundleVerifier(schemes())


def test_the_report_says_what_is_proven() -> None:
    report = verifier.check(sample_bytes())
    assert report.chain == MESH.chain
    assert not report.pinned
    assert report.nodes == (EDGE,)
    assert (report.blocks, report.disclosed) == (7, 6)
    assert report.epochs == (0, 2, 4)
    assert (report.voters, report.validators) == (3, 4)


def test_the_frozen_bundle_still_verifies() -> None:
    genesis = decode_genesis((DATA / "edge-a-genesis.json").read_bytes())
    frozen = (DATA / "edge-a.hpe").read_bytes()
    report = BundleVerifier(schemes(), genesis.chain_id()).check(frozen)
    assert (report.pinned, report.blocks, report.epochs) == (True, 7, (0, 2, 4))


def test_the_format_has_not_changed() -> None:
    assert (DATA / "edge-a.hpe").read_bytes() == sample(Mesh())
    assert (DATA / "edge-a-genesis.json").read_bytes() == Mesh().genesis.encode()


@pytest.mark.parametrize("size", [1, 3, 4, 7, 9])
def test_meshes_of_any_size_prove(size: int) -> None:
    mesh = Mesh(size)
    report = BundleVerifier(schemes(), mesh.chain).check(sample(mesh))
    assert (report.voters, report.validators) == (mesh.quorum, size)


def test_a_bundle_proves_across_changes_of_the_validator_set() -> None:
    report = verifier.check(turning_bytes())
    assert (report.blocks, report.epochs) == (4, (0, 4, 8))
    assert (report.voters, report.validators) == (3, 4)
    kinds = [document["type"] for document in read(turning_bytes())]
    assert kinds.count("change") == 2


@pytest.mark.parametrize("signers", [(0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_any_quorum_will_do(signers: tuple[int, ...]) -> None:
    documents = read(sample_bytes())
    for place in (2, 6, 9):
        certificate = MESH.certify(documents[place]["header"], signers=signers)
        documents[place]["certificate"] = certificate
    assert verifier.check(pack(documents)).voters == len(signers)


def test_the_weakest_certificate_is_reported() -> None:
    documents = read(sample_bytes())
    documents[2]["certificate"] = MESH.certify(documents[2]["header"], signers=(0, 1, 2, 3))
    assert verifier.check(pack(documents)).voters == 3


def test_payloads_may_be_held_back() -> None:
    documents = read(sample_bytes())
    for document in documents:
        document.pop("payload", None)
        document.pop("salt", None)
    assert verifier.check(pack(documents)).disclosed == 0


def test_receipts_in_the_middle_may_be_left_out() -> None:
    documents = read(sample_bytes())
    assert verifier.check(pack([*documents[:6], *documents[9:]])).epochs == (0, 4)


def test_rebuilt_bundles_are_sound_without_a_change() -> None:
    # The tools of the attacks make valid bundles; so an attack fails for its one difference.
    documents = read(sample_bytes())
    assert pack(documents) == sample_bytes() == lines_of(documents)
    for place in (3, 4, 5):
        sign_line(documents[place])
    reseal(MESH, documents, 2)
    assert verifier.check(pack(documents)).blocks == 7


def test_one_block_brings_only_what_proves_it() -> None:
    mesh = Mesh()
    writer = Writer(mesh)
    seal(mesh, [(writer, writer.blocks)])
    for score in range(3):
        writer.append(Event("scan", bytes([score])))
        seal(mesh, [(writer, writer.blocks[-1:])])
    wanted = writer.blocks[2].id
    report = verifier.check(export_bundle(mesh.genesis, EDGE, writer.store, wanted))
    assert (report.blocks, report.epochs) == (2, (0, 4))
    first = export_bundle(mesh.genesis, EDGE, writer.store, writer.blocks[0].id)
    assert verifier.check(first).epochs == (0,)
    with pytest.raises(UnavailableError):
        export_bundle(mesh.genesis, EDGE, writer.store, b"x" * 32)


def test_what_follows_an_unproven_first_block_waits_for_it() -> None:
    mesh = Mesh()
    writer = Writer(mesh)
    seal(mesh, [(writer, writer.blocks)])
    writer.append(Event("scan", b"late"))
    seal(mesh, [(writer, writer.blocks[-1:])])
    rows = writer.store.scan(Table.RECEIPTS, b"", b"\xff" * 13, 9)
    first = rows[0]
    writer.store.apply(Persist(((Table.RECEIPTS, first[0], None),)))
    for wanted in (None, writer.blocks[-1].id):
        with pytest.raises(UnavailableError):
            export_bundle(mesh.genesis, EDGE, writer.store, wanted)
    writer.store.apply(Persist(((Table.RECEIPTS, *first),)))
    assert verifier.check(export_bundle(mesh.genesis, EDGE, writer.store)).blocks == 2


def test_nothing_is_exported_before_it_is_proven() -> None:
    writer = Writer(Mesh())
    with pytest.raises(UnavailableError):
        export_bundle(writer.mesh.genesis, EDGE, writer.store)
    seal(writer.mesh, [(writer, writer.blocks)])
    with pytest.raises(UnavailableError):
        export_bundle(writer.mesh.genesis, NodeId("someone"), writer.store)


def test_every_place_in_every_small_tree_proves() -> None:
    for count in range(1, 8):
        mesh = Mesh(1)
        writers = [Writer(mesh, NodeId(f"n{place}")) for place in range(count)]
        writers[0].append(Event("scan", b""), Event("scan", b""))
        seal(mesh, [(writer, writer.blocks) for writer in writers])
        for writer in writers:
            data = export_bundle(mesh.genesis, writer.name, writer.store)
            assert verifier.check(data).nodes == (writer.name,)


def test_several_nodes_fit_one_bundle() -> None:
    mesh = Mesh()
    one, two = Writer(mesh, NodeId("a")), Writer(mesh, NodeId("b"))
    seal(mesh, [(one, one.blocks), (two, two.blocks)])
    bundles = [read(export_bundle(mesh.genesis, node.name, node.store)) for node in (one, two)]
    joined: list[Document] = [*bundles[0], *bundles[1][2:]]
    assert verifier.check(pack(joined)).nodes == ("a", "b")


def test_a_node_certificate_counts_to_its_very_ends() -> None:
    now = START // MILLISECOND
    made = enrolled("", CA, CA.public_key, not_before=now, not_after=now)
    assert verifier.check(pack(read(made.data)[:6])).blocks == 3

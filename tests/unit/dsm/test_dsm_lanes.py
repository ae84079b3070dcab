from dataclasses import replace

import pytest
from tests.unit.dsm.kit import EDGE, chain_of, court_of, judged, mesh_of

from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.lanes import LaneBook, Status
from hookprobe.dsm.microblock import SignedBlock, sign_block
from hookprobe.dsm.misbehaviour import Fault
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.errors import LimitExceededError, VerificationError

MESH = mesh_of()
COURT = court_of(MESH)
LANE = (EDGE, 1)


def book(config: LedgerConfig | None = None) -> LaneBook:
    return LaneBook(COURT, MemoryStore(), config or LedgerConfig())


def fill(lanes: LaneBook, blocks: list[SignedBlock]) -> None:
    for block in blocks:
        assert lanes.insert(block, solicited=False).status is Status.ACCEPTED


def test_a_chain_enters_in_order() -> None:
    lanes = book()
    fill(lanes, chain_of(MESH, 3))
    assert lanes.heads() == [(LANE, 3)]
    assert lanes.insert(chain_of(MESH, 3)[1], solicited=False).status is Status.KNOWN


def test_blocks_that_overtake_wait_for_their_parents() -> None:
    lanes, blocks = book(), chain_of(MESH, 4)
    fill(lanes, blocks[:1])
    for late in (blocks[3], blocks[2]):
        found = lanes.insert(late, solicited=False)
        assert found.status is Status.WAITING
        assert found.missing is not None
        assert found.missing[:2] == (2, late.seq - 1)
    assert lanes.insert(blocks[1], solicited=False).accepted == tuple(blocks[1:])


def test_an_unknown_node_is_refused_before_its_signature_is_checked() -> None:
    class Untouched:
        def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
            raise AssertionError(f"checked {len(public_key + message + signature)} bytes")

    lanes = LaneBook(replace(COURT, signatures=Untouched()), MemoryStore(), LedgerConfig())
    found = lanes.insert(chain_of(MESH, 2)[1], solicited=False)
    assert (found.status, found.missing) == (Status.REFUSED, (1, 2, bytes(32)))


@pytest.mark.parametrize("seq", [1, 2])
def test_a_wrong_signature_is_refused(seq: int) -> None:
    lanes, blocks = book(), chain_of(MESH, 2)
    fill(lanes, blocks[: seq - 1])
    forged = replace(blocks[seq - 1], signature=bytes(64))
    with pytest.raises(VerificationError, match="signature"):
        lanes.insert(forged, solicited=False)


def test_a_block_of_another_chain_id_is_refused() -> None:
    block = replace(chain_of(MESH, 1)[0].block, chain=b"x" * 32)
    with pytest.raises(VerificationError, match="another chain"):
        book().insert(sign_block(block, MESH.keys.signer(EDGE)), solicited=False)


def test_a_first_block_with_the_certificate_of_another_node_is_refused() -> None:
    body = chain_of(MESH, 1, node="other")[0].block.body
    block = replace(chain_of(MESH, 1)[0].block, body=body)
    with pytest.raises(VerificationError, match="another node"):
        book().insert(sign_block(block, MESH.keys.signer("other")), solicited=False)


def test_a_number_cannot_be_skipped_behind_a_known_parent() -> None:
    lanes, blocks = book(), chain_of(MESH, 2)
    fill(lanes, blocks)
    skipping = replace(blocks[1].block, seq=4, prev=blocks[1].id)
    found = lanes.insert(sign_block(skipping, MESH.keys.signer(EDGE)), solicited=False)
    assert found.accepted == ()
    assert lanes.heads() == [(LANE, 2)]


def test_a_fork_gives_evidence_that_verifies_and_accuses_the_node() -> None:
    lanes = book()
    fill(lanes, chain_of(MESH, 3))
    rival = replace(chain_of(MESH, 3)[2].block, payload_hash=b"z" * 32)
    found = lanes.insert(sign_block(rival, MESH.keys.signer(EDGE)), solicited=False)
    assert found.fork is not None
    verdict = judged(found.fork, COURT)
    assert (verdict.fault, verdict.offender, verdict.lane, verdict.seq) == (
        *(Fault.FORK, EDGE, LANE, 3),
    )
    assert lanes.heads() == [(LANE, 3)]


def test_a_fork_of_first_blocks_gives_evidence() -> None:
    lanes = book()
    fill(lanes, chain_of(MESH, 1))
    found = lanes.insert(chain_of(MESH, 1, salt=9)[0], solicited=False)
    assert found.fork is not None
    assert judged(found.fork, COURT).seq == 1


def test_a_second_block_with_a_final_number_is_a_fork() -> None:
    store = MemoryStore()
    lanes = LaneBook(COURT, store, LedgerConfig())
    blocks = chain_of(MESH, 3)
    fill(lanes, blocks)
    store.apply(Persist(tuple((Table.BLOCKS, item.row_key(), item.encode()) for item in blocks)))
    lanes.finalize(Range(EDGE, 1, 1, 3, blocks[2].id))
    rival = replace(blocks[1].block, payload_hash=b"z" * 32)
    found = lanes.insert(sign_block(rival, MESH.keys.signer(EDGE)), solicited=False)
    assert found.fork is not None
    assert judged(found.fork, COURT).seq == 2


def test_a_path_is_one_chain_from_the_final_block_to_the_stated_head() -> None:
    lanes = book()
    blocks = chain_of(MESH, 4)
    fill(lanes, blocks)
    lane = lanes.lanes[LANE]
    assert lane.path(3, blocks[2].id) == blocks[:3]
    assert lane.path(3, blocks[3].id) is None
    assert lane.path(2, blocks[2].id) is None
    assert lane.path(5, b"?" * 32) is None


def test_the_branch_that_becomes_final_replaces_the_main_one() -> None:
    lanes = book()
    fill(lanes, chain_of(MESH, 2))
    one = chain_of(MESH, 2)
    signer = MESH.keys.signer(EDGE)
    rival = sign_block(replace(one[1].block, payload_hash=b"z" * 32), signer)
    child = sign_block(replace(one[1].block, seq=3, prev=rival.id), signer)
    for block in (rival, child):
        lanes.insert(block, solicited=True)
    path, rows = lanes.finalize(Range(EDGE, 1, 1, 2, rival.id))
    assert path == [one[0], rival]
    assert (Table.BLOCKS, one[1].row_key(), None) in rows
    assert lanes.lanes[LANE].main == [child]


def test_waiting_blocks_are_limited() -> None:
    lanes = book(replace(LedgerConfig(), waiting_blocks_max=3))
    blocks = chain_of(MESH, 9)
    fill(lanes, blocks[:1])
    for block in blocks[2:]:
        lanes.insert(block, solicited=False)
    assert len(lanes.lanes[LANE].waiting) == 3


def test_unfinished_incarnations_of_a_node_are_limited() -> None:
    lanes = book(replace(LedgerConfig(), open_lanes_max=2))
    for inc in (1, 2):
        fill(lanes, chain_of(MESH, 1, inc=inc))
    with pytest.raises(LimitExceededError, match="incarnations"):
        lanes.insert(chain_of(MESH, 1, inc=3)[0], solicited=False)


def test_blocks_not_yet_final_are_limited() -> None:
    lanes = book(replace(LedgerConfig(), lane_blocks_max=2))
    blocks = chain_of(MESH, 3)
    fill(lanes, blocks[:2])
    with pytest.raises(LimitExceededError, match="not yet final"):
        lanes.insert(blocks[2], solicited=False)


def test_a_node_in_quarantine_is_refused() -> None:
    lanes = book()
    lanes.revoked = {EDGE: 0}
    assert lanes.insert(chain_of(MESH, 1)[0], solicited=False).status is Status.REFUSED


def test_a_block_on_a_branch_that_lost_leads_to_no_path() -> None:
    lanes, blocks = book(), chain_of(MESH, 3)
    fill(lanes, blocks)
    signer = MESH.keys.signer(EDGE)
    rival = sign_block(replace(blocks[1].block, payload_hash=b"z" * 32), signer)
    lanes.insert(rival, solicited=True)
    lanes.finalize(Range(EDGE, 1, 1, 2, rival.id))
    lane = lanes.lanes[LANE]
    assert blocks[2].id in lane.known
    assert lane.path(3, blocks[2].id) is None
    assert lane.main == []

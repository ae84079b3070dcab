"""Who announces what it does not have takes nobody else's place."""

from tests.unit.dsm.kit import NOW, host_of, mesh_of

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import Want
from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.messages import HAVE_MAX, GetRange, Have
from hookprobe.dsm.microblock import LaneKey
from hookprobe.dsm.store import MemoryStore
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

MESH = mesh_of(4)
V0, V1, V2, V3 = MESH.names
EDGES = (NodeId("edge"), NodeId("other"))
CONFIG = LedgerConfig(requests_max=64)
SHARE = 16


def ledger() -> ValidatorLedger:
    node = ValidatorLedger(
        MESH.genesis, MESH.validator_keys(V0), MESH.keys.schemes, host_of(MemoryStore()), CONFIG
    )
    for name in (V1, V2, V3, *EDGES):
        node.peer_connected(name, NOW)
    return node


def ghosts(first: int, count: int) -> Have:
    heads = [((NodeId(f"ghost{place}"), 1), 9) for place in range(first, first + count)]
    return Have(tuple(heads))


def asked(effects: list[Effect]) -> list[tuple[NodeId, LaneKey]]:
    return [
        (item.peer, item.message.lane)
        for item in effects
        if isinstance(item, Send) and isinstance(item.message, GetRange)
    ]


def test_a_flood_of_announcements_leaves_the_others_their_shares() -> None:
    node = ledger()
    assert len(asked(node.receive_message(V1, ghosts(0, 4000), NOW))) == SHARE
    assert asked(node.receive_message(V1, ghosts(4000, 4000), NOW)) == []
    assert len(node.gossip.announcements) <= HAVE_MAX
    lane = (NodeId("real"), 1)
    assert asked(node.receive_message(V2, Have(((lane, 3),)), NOW)) == [(V2, lane)]


def test_the_queue_goes_on_when_requests_end_and_is_forgotten_with_its_peer() -> None:
    node = ledger()
    node.receive_message(V1, ghosts(0, 40), NOW)
    later = asked(node.handle_timeout(Instant(NOW + 3 * SECOND)))
    assert [peer for peer, _ in later] == [V1] * SHARE
    assert len(node.gossip.announcements) == 40 - 2 * SHARE
    node.peer_disconnected(V1, Instant(NOW + 3 * SECOND))
    node.gossip.announcements.go_on(Instant(NOW + 3 * SECOND))
    assert len(node.gossip.announcements) == 0


def test_agreement_gets_its_blocks_whatever_was_announced() -> None:
    node = ledger()
    for name in (V1, V2, V3):
        node.receive_message(name, ghosts(0, 4000), NOW)
    lane = (NodeId("needed"), 1)
    assert asked(node.gossip.fetch(Want(lane, 1, 2, bytes(32)), [V2, V3], NOW)) == [(V2, lane)]
    ghost = (NodeId("ghost0"), 1)
    sends = node.gossip.fetch(Want(ghost, 1, 2, bytes(32)), [V2, V3], NOW)
    assert asked(sends) == [(V2, ghost)]


def test_edges_are_asked_one_request_each_about_themselves() -> None:
    node = ledger()
    heads = tuple(((EDGES[0], inc), 3) for inc in range(1, 20))
    assert len(asked(node.receive_message(EDGES[0], Have(heads), NOW))) == 1
    assert len(asked(node.receive_message(EDGES[1], Have((((EDGES[1], 1), 2),)), NOW))) == 1

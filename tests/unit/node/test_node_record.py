"""Events that another program of the host gives to an edge stand in its chain beside incidents."""

from itertools import pairwise

from tests.unit.node.mesh import MemoryMesh
from tests.unit.node.test_node_mesh import SCAN
from tests.unit.runtime.api_mesh import event

from hookprobe.detection.privacy import SharedEvent
from hookprobe.dsm.effects import BlockAppended, ReceiptReceived
from hookprobe.node.observations import IncidentRecorded


def test_given_events_and_incidents_keep_their_places_and_marks() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(3)
    host = mesh.hosts["edge-a"]
    given = SharedEvent.decode(event(1))
    mesh.execute(host, host.edge.record("ids_alert", given, mesh.now))
    mesh.feed("edge-a", SCAN)
    mesh.execute(host, host.edge.record("mitigation", given, mesh.now))
    mesh.execute(host, host.edge.record("ids_alert", given, mesh.now))
    mesh.run(6)
    blocks = [item.signed for item in host.of(BlockAppended)]
    assert [block.block.event_type for block in blocks] == [
        "enrol",
        "ids_alert",
        "ids_alert",
        "mitigation",
        "ids_alert",
        "ids_alert",
    ]
    assert all(later.block.prev == earlier.id for earlier, later in pairwise(blocks))
    recorded = host.of(IncidentRecorded)
    assert [item.seq for item in recorded] == [3, 6], "only its own incidents are marked"
    assert host.of(ReceiptReceived)

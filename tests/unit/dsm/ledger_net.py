"""Running meshes for the tests of whole ledgers."""

from tests.unit.dsm.kit import NOW, Net, mesh_of

from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import (
    CheckpointFinalized,
)
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND

V0, V1, V2, V3 = (NodeId(f"v0{place}") for place in range(4))


def net_of(size: int = 4) -> Net:
    net = Net(mesh_of(size))
    net.add_validators()
    return net


def validator(net: Net, name: NodeId) -> ValidatorLedger:
    node = net.nodes[name]
    assert isinstance(node, ValidatorLedger)
    return node


def finals(net: Net, name: NodeId) -> list[CheckpointFinalized]:
    return [
        item for item in net.of(CheckpointFinalized, name) if isinstance(item, CheckpointFinalized)
    ]


def running(events: int = 3) -> tuple[Net, EdgeLedger]:
    """Four validators, one edge, some events and two epochs."""
    net = net_of()
    edge = net.boot_edge()
    net.deliver()
    net.write(edge, *(b"event %d" % number for number in range(events)))
    net.run(NOW + 3 * SECOND)
    return net, edge

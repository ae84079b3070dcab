"""Orders to a running validator."""

import asyncio

import pytest
from tests.unit.node.mesh import MemoryMesh

from hookprobe.errors import HookProbeError
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row
from hookprobe.runtime.validator_desk import ValidatorDesk
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.instant import Instant


class MeshClock(Clock):
    """The time of a mesh in memory."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh

    def now(self) -> Instant:
        return self._mesh.now


def desk_of(mesh: MemoryMesh, name: str) -> ValidatorDesk:
    host = mesh.hosts[name]
    desk = ValidatorDesk(host.validator, MeshClock(mesh))
    desk.execute = lambda effects: mesh.execute(host, list(effects))
    return desk


def order(desk: ValidatorDesk, **request: str) -> list[Row]:
    document: JsonObject = dict(request)
    return asyncio.run(desk.perform(Fields(document, "request"), lambda _: None))


def test_orders_become_blocks_and_show_in_the_status() -> None:
    mesh = MemoryMesh(())
    mesh.run(3)
    desk = desk_of(mesh, "validator-1")
    rows = order(desk, op="status")
    assert [row["validator"] for row in rows] == [f"validator-{i}" for i in (1, 2, 3, 4)]
    assert {row["state"] for row in rows} == {"member"}
    assert order(desk, op="remove", validator="validator-4")[0]["state"] == "waiting"
    mesh.run(6)
    rows = order(desk_of(mesh, "validator-2"), op="status")
    assert [row["votes"] for row in rows] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "dance"},
        {"op": "approve", "application": "00" * 32},
        {"op": "approve", "application": "xy"},
        {"op": "remove", "validator": "nobody"},
        {"op": "apply", "attestation": "XX"},
        {"op": "status", "more": "1"},
        {},
    ],
)
def test_orders_that_cannot_be_are_refused(request_: dict[str, str]) -> None:
    mesh = MemoryMesh(())
    with pytest.raises(HookProbeError):
        order(desk_of(mesh, "validator-1"), **request_)

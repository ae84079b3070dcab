"""Orders to a running validator."""

import asyncio
from dataclasses import replace

import pytest
from tests.unit.node.mesh import MemoryMesh

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.effects import NodeRevoked
from hookprobe.dsm.governance import Approve, revoke
from hookprobe.dsm.notes import WITNESS_KEY, Note, NoteKey, cosign, parse_note
from hookprobe.dsm.store import Table
from hookprobe.dsm.tree_log import NOTE_ROW, TreeLog, parse_tile_path, tile_path
from hookprobe.errors import HookProbeError, LocalError, MalformedError, RemoteError
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.control import Row
from hookprobe.runtime.log_publisher import LogPublisher
from hookprobe.runtime.validator_desk import ValidatorDesk
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

WITNESS = Ed25519Signer(b"\x09" * 32)
WITNESS_NAME = NoteKey("witness.example/w1", WITNESS_KEY, WITNESS.public_key)


class MeshClock(Clock):
    """The time of a mesh in memory."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh

    def now(self) -> Instant:
        return self._mesh.now


def desk_of(mesh: MemoryMesh, name: str) -> ValidatorDesk:
    host = mesh.hosts[name]
    history = host.validator.ledger.history
    log = TreeLog(history, host.store, (WITNESS_NAME,), Ed25519())
    publisher = LogPublisher(log, Ed25519Signer(mesh.enrolled(name).secrets.signing))
    desk = ValidatorDesk(host.validator, publisher, MeshClock(mesh))
    for speaker in (publisher, desk):
        speaker.execute = lambda effects: mesh.execute(host, list(effects))
    return desk


def test_a_witness_is_kept_beside_the_checkpoint_it_saw() -> None:
    mesh = MemoryMesh(())
    mesh.run(4)
    host = mesh.hosts["validator-1"]
    log = TreeLog(host.validator.ledger.history, host.store, (WITNESS_NAME,), Ed25519())
    publisher = LogPublisher(log, WITNESS)
    publisher.execute = lambda effects: mesh.execute(host, list(effects))
    publisher.publish()
    kept = host.store.get(Table.META, NOTE_ROW)
    assert kept is not None
    note = parse_note(kept)
    line = cosign(note.text, WITNESS_NAME, WITNESS, 1_800_000_000)
    given = Note(note.text, (line,)).encode()
    assert order(desk_of(mesh, "validator-1"), op="witness", note=given.hex()) == [
        {"cosignatures": 1}
    ]
    publisher.publish()
    shown = host.store.get(Table.META, NOTE_ROW)
    assert shown is not None
    assert line in parse_note(shown).signatures
    forged = Note(note.text.replace("\n", "\n1", 1), (line,)).encode()
    with pytest.raises(RemoteError):
        order(desk_of(mesh, "validator-1"), op="witness", note=forged.hex())


@pytest.mark.parametrize("level", [None, 0, 7])
@pytest.mark.parametrize("index", [0, 999, 1000, 1234067])
@pytest.mark.parametrize("width", [1, 255, 256])
def test_a_tile_has_one_path(level: int | None, index: int, width: int) -> None:
    path = tile_path(level, index, width)
    assert parse_tile_path(path) == (level, index, width)
    bad = (path + "/", path + ".p/256", path.replace("tile/", "tile//"), path + ".p/0", "x" + path)
    for other in bad:
        with pytest.raises(MalformedError):
            parse_tile_path(other)


def order(desk: ValidatorDesk, **request: Json) -> list[Row]:
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


def test_an_authority_revokes_a_node_through_any_validator() -> None:
    mesh = MemoryMesh(("edge-a",))
    mesh.run(4)
    desk, chain = desk_of(mesh, "validator-1"), mesh.mesh.genesis.chain_id()
    genuine = revoke(chain, NodeId("edge-a"), mesh.mesh.authority.signer())
    for bad in (
        revoke(chain, NodeId("edge-a"), WITNESS),
        revoke(bytes(32), NodeId("edge-a"), mesh.mesh.authority.signer()),
        replace(genuine, node_id=NodeId("validator-2")),
        Approve(bytes(32)),
    ):
        with pytest.raises(RemoteError):
            order(desk, op="revoke", body=bad.to_body())
    order(desk, op="revoke", body=genuine.to_body())
    mesh.run(6)
    assert [item.node_id for item in mesh.hosts["validator-3"].of(NodeRevoked)] == ["edge-a"]


def test_a_spare_key_must_be_there_to_be_asked_for() -> None:
    mesh = MemoryMesh(())
    mesh.run(3)
    with pytest.raises(LocalError, match="no spare voting key"):
        order(desk_of(mesh, "validator-1"), op="apply", spare=True)

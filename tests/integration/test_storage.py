"""Real nodes over the stores that are not the default: killed, asked, backed up."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.servers import postgres, redis_server

from hookprobe.dsm.checkpoint import decode_sealed
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.store import Table
from hookprobe.errors import HostError, NotFoundError
from hookprobe.runtime.ledger_store import StorePlace, open_store
from hookprobe.runtime.local_mesh import VERIFIER, LocalMesh, LogLine, MeshShape
from hookprobe.runtime.pending_board import PendingBoard
from hookprobe.runtime.postgres_checkpoints import PostgresCheckpoints
from hookprobe.runtime.store_lock import MARK_NAME

EVE = Path(__file__).parents[1] / "data/sensors/eve/brute-ssh.eve.json"
VALIDATORS = tuple(f"validator-{i}" for i in (1, 2, 3, 4))
WAIT_S = 60.0
FORKS = ("ForkDetected", "NodeQuarantined", "MisbehaviourDetected")
BAD_EVENTS = (*FORKS, "Ended")


def hookprobe(*arguments: object, status: int = 0) -> str:
    command = [sys.executable, "-m", "hookprobe", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout + done.stderr


def shape(storage: dict[str, object]) -> MeshShape:
    return MeshShape(
        validators=4,
        edges=(("edge-a", "tenant-a"),),
        epoch_ms=300,
        settings={
            "dsm": {"epoch_gap_ms": 100, "propose_grace_ms": 50, "storage": storage},
            "sensors": {"idle_ms": 500},
            "neuro": {"interval_ms": 1000},
        },
    )


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


def finals(place: StorePlace) -> dict[int, bytes]:
    if not (place.state / MARK_NAME).exists():
        return {}
    store = open_store(place, read_only=True)
    try:
        rows = store.scan(Table.CHECKPOINTS, b"", b"\xff" * 9, 100_000)
        return {int.from_bytes(key, "big"): decode_sealed(value).hash for key, value in rows}
    finally:
        store.close()


def everything(mesh: LocalMesh) -> list[LogLine]:
    return [mesh.lines.get_nowait() for _ in range(mesh.lines.qsize())]


def complaints(mesh: LocalMesh) -> list[LogLine]:
    return [
        line
        for line in everything(mesh)
        if line.event in BAD_EVENTS and (line.event != "Ended" or line.fields["complaint"])
    ]


@pytest.mark.slow
def test_nodes_on_rocksdb_are_killed_and_fork_nothing(tmp_path: Path) -> None:
    mesh = LocalMesh(tmp_path / "mesh", shape({"microblocks": {"backend": "rocksdb"}}))
    places = {name: StorePlace(mesh.state_of(name), "rocksdb") for name in VALIDATORS}

    async def story() -> None:
        try:
            await mesh.start([VERIFIER, *VALIDATORS, "edge-a"])
            mesh.feed("edge-a", EVE.read_bytes())
            await until(lambda: len(finals(places["validator-1"])) > 5)
            for victim in ("validator-1", "edge-a", "validator-2", "validator-1"):
                await mesh.kill(victim)
                await mesh.start([victim])
                seen = len(finals(places["validator-1"]))
                await until(lambda seen=seen: len(finals(places["validator-1"])) > seen + 3)  # type: ignore[misc]
        finally:
            await mesh.stop()

    asyncio.run(story())
    assert complaints(mesh) == []
    histories = [finals(place) for place in places.values()]
    shared = set.intersection(*(set(history) for history in histories))
    assert len(shared) > 15
    assert all(len({history[epoch] for history in histories}) == 1 for epoch in shared)
    settings = tmp_path / "mesh/edge-a/hookprobe.yaml"
    bundle = tmp_path / "edge-a.hpe"
    hookprobe("evidence", "export", "-c", settings, "--output", bundle)
    shown = json.loads(
        hookprobe("verify", bundle, "--trust", tmp_path / "mesh/genesis.json", "--json")
    )
    assert shown["result"] == "VERIFIED"
    mesh.change_settings("edge-a", {"dsm": {"storage": {"microblocks": {"backend": "sqlite"}}}})
    said = hookprobe("edge", "run", "-c", settings, status=1)
    assert "this node's ledger is in rocksdb" in said


@pytest.mark.slow
def test_a_validator_copies_to_postgresql_through_an_outage(tmp_path: Path) -> None:
    with postgres() as server:
        mesh = LocalMesh(tmp_path / "mesh", shape({"checkpoints": {"backend": "sqlite"}}))
        copied = {"backend": "postgresql", "url": server.url}
        storage = {"storage": {"checkpoints": copied}, "epoch_gap_ms": 100, "propose_grace_ms": 50}
        mesh.change_settings("validator-1", {"dsm": storage})
        place = StorePlace(mesh.state_of("validator-1"))

        def tip() -> int:
            with contextlib.closing(PostgresCheckpoints(server.url, read_only=True)) as table:
                return table.tip()[0]

        async def story() -> None:
            await mesh.start([*VALIDATORS])
            await until(lambda: len(finals(place)) > 4)
            await until(lambda: tip() > 3)
            server.stop(signal.SIGKILL)
            seen = len(finals(place))
            await until(lambda: len(finals(place)) > seen + 4)  # agreement does not wait for it
            server.start()
            await until(lambda: tip() > seen + 4)
            await mesh.kill("validator-1")
            await mesh.start(["validator-1"])
            seen = len(finals(place))
            await until(lambda: tip() > seen + 3)
            await mesh.stop()

        asyncio.run(story())
        history = finals(place)
        with contextlib.closing(PostgresCheckpoints(server.url, read_only=True)) as table:
            rows = table.scan(0, 10_000)
        assert [epoch for epoch, _, _ in rows] == list(range(len(rows)))
        assert all(decode_sealed(sealed).hash == history[epoch] for epoch, sealed, _ in rows)
        failures = [line for line in everything(mesh) if line.event == "Failed"]
        assert failures
        assert all("postgresql" in str(line.fields["reason"]) for line in failures)


@pytest.mark.slow
def test_pending_validations_are_shown_in_redis_and_missed_by_nobody(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        mesh = LocalMesh(tmp_path / "mesh", shape({"pending": {"url": server.url}}))
        mesh.change_settings("validator-2", {"dsm": {"storage": {"pending": {"url": ""}}}})
        place = StorePlace(mesh.state_of("validator-1"))
        settings = [tmp_path / "mesh" / name / "hookprobe.yaml" for name in VALIDATORS[:2]]

        genesis = decode_genesis((tmp_path / "mesh/genesis.json").read_bytes())
        board = PendingBoard(server.url, genesis.chain_id(), "validator-1")

        def epoch() -> int:
            with contextlib.suppress(HostError, NotFoundError):
                return int(str(board.read()["epoch"]))
            return -1

        async def shown(path: Path, status: int = 0) -> str:
            return await asyncio.to_thread(hookprobe, "dsm", "pending", "-c", path, status=status)

        async def story() -> None:
            await mesh.start(VALIDATORS)
            await until(lambda: epoch() > 3)
            for path in settings:  # between two epochs no CUT is here
                said = [await shown(path)]
                while "validator-1" not in said[-1]:
                    assert len(said) < 50, said[-1]
                    said.append(await shown(path))
            server.stop()
            seen = len(finals(place))
            await until(lambda: len(finals(place)) > seen + 4)
            assert "redis: ConnectionError" in await shown(settings[0], status=1)
            server.start()
            await mesh.kill("validator-1")
            await mesh.start(["validator-1"])
            await until(lambda: epoch() > seen + 4)
            await mesh.stop()

        asyncio.run(story())
        lines = everything(mesh)
        assert [line for line in lines if line.event in FORKS] == []
        assert any(line.event == "Failed" and "redis" in str(line.fields) for line in lines)


@pytest.mark.slow
def test_a_running_validator_is_backed_up_moved_and_checked(tmp_path: Path) -> None:
    mesh = LocalMesh(tmp_path / "mesh", shape({"checkpoints": {"backend": "sqlite"}}))
    place = StorePlace(mesh.state_of("validator-1"))
    rocks = StorePlace(mesh.state_of("validator-1"), "rocksdb")
    settings, copy = tmp_path / "mesh/validator-1/hookprobe.yaml", tmp_path / "copy"
    export = tmp_path / "ledger.hpl"

    async def story() -> None:
        await mesh.start([VERIFIER, *VALIDATORS, "edge-a"])
        mesh.feed("edge-a", EVE.read_bytes())
        await until(lambda: len(finals(place)) > 8)
        for verb in (["backup"], ["export"]):
            target = copy if verb == ["backup"] else export
            await asyncio.to_thread(hookprobe, "dsm", *verb, "-c", settings, target)
        await asyncio.to_thread(hookprobe, "dsm", "fsck", "-c", settings)
        await asyncio.to_thread(hookprobe, "dsm", "restore", "-c", settings, "--check", copy)
        said = await asyncio.to_thread(hookprobe, "dsm", "restore", "-c", settings, copy, status=1)
        assert "in use" in said
        await mesh.kill("validator-1")
        storage = {"microblocks": {"backend": "rocksdb"}}
        quick = {"epoch_gap_ms": 100, "propose_grace_ms": 50, "storage": storage}
        mesh.change_settings("validator-1", {"dsm": quick})
        said = await asyncio.to_thread(hookprobe, "dsm", "restore", "-c", settings, copy)
        assert "signs nothing before epoch" in said
        await mesh.start(["validator-1"])
        seen = len(finals(StorePlace(mesh.state_of("validator-2"))))
        await until(lambda: len(finals(rocks)) > seen + 8)
        await mesh.stop()

    asyncio.run(story())
    assert complaints(mesh) == []
    hookprobe("dsm", "fsck", "-c", settings)
    mesh.change_settings("validator-4", {"state": {"path": "elsewhere"}})
    other = tmp_path / "mesh/validator-4/hookprobe.yaml"
    assert "OK" in hookprobe("dsm", "import", "-c", other, export)
    assert "OK" in hookprobe("dsm", "fsck", "-c", other)

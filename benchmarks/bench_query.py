"""What a question to a node's ledger costs, beside the operations that it cannot do without.

Run `python benchmarks/bench_query.py`; `run()` gives the rows (name, value, unit).
"""

import http.client
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.unit.runtime.api_mesh import EDGE, finished

from hookprobe.crypto.bls import Bls
from hookprobe.dsm.court import convene
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.errors import UnauthorizedError
from hookprobe.runtime.access import Caller, Role
from hookprobe.runtime.api import Api, ApiSettings, Request, Sources
from hookprobe.runtime.api_server import ApiServer, Listening, make_application
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.exposition import render
from hookprobe.runtime.ledger_checks import AnswerChecker
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.runtime.ledger_store import StorePlace
from hookprobe.runtime.sqlite_store import SqliteStore
from hookprobe.wire.instant import Instant

Row = tuple[str, float, str]
ROUNDS = 200
ANYBODY = Caller("token bench", Role.AUDITOR)


def per_second(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return how often an action runs in a second of processor time; the best of three."""
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        for _ in range(rounds):
            action()
        best = max(best, rounds / (time.process_time() - start))
    return best


@dataclass(frozen=True)
class Ledger:
    """A finished ledger on disk."""

    genesis: Genesis
    folder: Path
    query: LedgerQuery
    api: Api


def ledger_of(folder: Path) -> Ledger:
    net = finished(real=True)
    store = SqliteStore(folder)
    memory = next(iter(net.stores.values()))
    store.apply([Persist(tuple(rows_of(memory)))])
    store.close()
    court = convene(net.mesh.genesis, net.mesh.keys.schemes)
    query = LedgerQuery(net.mesh.genesis, court, SqliteStore(folder, read_only=True))
    sources = Sources(lambda: query, dict, _Nobody(), render)
    return Ledger(net.mesh.genesis, folder, query, Api(sources, ApiSettings(anonymous=True)))


def rows_of(memory: MemoryStore) -> list[tuple[Table, bytes, bytes]]:
    return [
        (table, key, value)
        for table in Table
        for key, value in memory.scan(table, b"", b"\xff" * 80, 1_000_000)
    ]


class _Nobody:
    def check(self, text: str, now: Instant) -> Caller:
        raise UnauthorizedError(f"nobody at {now}: {text}")


def asked(ledger: Ledger, path: str, query: str = "") -> dict[str, object]:
    request = Request("GET", path, query, {}, "127.0.0.1")
    answer = ledger.api.answer(request, ANYBODY, Clock().now())
    assert answer.status == 200, answer.body
    document: dict[str, object] = json.loads(answer.body)
    return document


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = ledger_of(Path(folder))
        items = asked(ledger, "/api/v1/microblocks", "event_type=ids_alert")["items"]
        assert isinstance(items, list)
        epoch, block = items[0]["epoch"], items[0]["id"]
        rows = answer_rows(ledger, f"/api/v1/checkpoints/{epoch}/blocks/{block}")
        rows += check_rows(ledger, epoch, block)
        return [*rows, *http_rows(ledger, f"/api/v1/checkpoints/{epoch}")]


def answer_rows(ledger: Ledger, proof: str) -> list[Row]:
    store = SqliteStore(ledger.folder, read_only=True)
    key = (0).to_bytes(8, "big")
    reads = per_second(lambda: store.get(Table.CHECKPOINTS, key), 5_000)
    checkpoints = per_second(lambda: asked(ledger, "/api/v1/checkpoints/0"))
    proofs = per_second(lambda: asked(ledger, proof))
    page = per_second(lambda: asked(ledger, "/api/v1/microblocks", f"node_id={EDGE}"), 50)
    return [
        ("raw reads of a row, SQLite", reads, "1/s"),
        ("checkpoints answered, no network", checkpoints, "1/s"),
        ("checkpoints answered / raw reads", checkpoints / reads, "ratio"),
        ("inclusion proofs answered, no network", proofs, "1/s"),
        ("pages of seven blocks answered, no network", page, "1/s"),
    ]


def check_rows(ledger: Ledger, epoch: int, block: str) -> list[Row]:
    document = asked(ledger, f"/api/v1/checkpoints/{epoch}/blocks/{block}")
    court = convene(ledger.genesis, finished(real=True).mesh.keys.schemes)
    checker = AnswerChecker(court)
    final = ledger.query.checkpoint(epoch)
    keys = [court.validators.vote_keys[signer] for signer in final.certificate.signers()]
    scheme = Bls()
    raw = per_second(
        lambda: scheme.verify_aggregate(keys, b"m" * 85, final.certificate.signature), 50
    )
    checked = per_second(
        lambda: checker.check_inclusion(
            json.loads(json.dumps(document)), bytes.fromhex(block), epoch
        ),
        50,
    )
    return [
        ("BLS aggregate checks", raw, "1/s"),
        ("proofs checked by the client, cold certificate", checked, "1/s"),
        ("proofs checked / BLS checks", checked / raw, "ratio"),
    ]


def http_rows(ledger: Ledger, path: str) -> list[Row]:
    settings = ApiSettings(anonymous=True, requests_per_s=10_000)
    application = make_application(ledger.genesis, StorePlace(ledger.folder), settings, Clock())
    server = ApiServer(application, Listening("127.0.0.1", 0))
    port = server.start()
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> None:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        response.read()

    try:
        ask()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            ask()
        rate = ROUNDS / (time.perf_counter() - start)
    finally:
        connection.close()
        server.stop()
    return [("checkpoints over HTTP on loopback, one connection", rate, "1/s")]


if __name__ == "__main__":
    for name, value, unit in run():
        print(f"{name:<60}{value:>14,.2f} {unit}")

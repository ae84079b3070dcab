"""The query API's server: uvicorn in a thread of its own, reading the ledger in two more.

A node's loop never waits for whoever asks: requests are taken by another loop, and answered by
`READERS` threads that each hold a read-only connection. What takes longer than `ANSWER_S` is given
up (503), what waits behind too many others is turned away.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import uvicorn

from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.court import Schemes, convene
from hookprobe.dsm.genesis import Genesis
from hookprobe.errors import HookProbeError, HostError, MalformedError, UnavailableError
from hookprobe.runtime import status
from hookprobe.runtime.access import TokenFile
from hookprobe.runtime.api import Answer, Api, ApiSettings, Request, Sources, problem
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.exposition import render
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.runtime.ledger_store import StorePlace, open_store

READERS = 2
ANSWER_S = 10.0
WAITING_MAX = 32
CONNECTIONS_MAX = 128
HEADER_BYTES_MAX = 16 << 10
START_S = 10.0
_USED_HEADERS = (b"authorization", b"if-none-match")

Scope = Mapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the API answers."""

    host: str
    port: int


class Ledgers:
    """One read-only connection for each thread that reads.

    Args:
        genesis: The chain's genesis document.
        place: Where the node's ledger is.
    """

    def __init__(self, genesis: Genesis, place: StorePlace) -> None:
        self._genesis = genesis
        self._court = convene(genesis, Schemes(Ed25519(), Bls()))
        self._place = place
        self._local = threading.local()

    def query(self) -> LedgerQuery:
        """Return this thread's view.

        Raises:
            HostError: There is no ledger, or it cannot be read.
        """
        found: LedgerQuery | None = getattr(self._local, "query", None)
        if found is None:
            store = open_store(self._place, read_only=True)
            found = LedgerQuery(self._genesis, self._court, store)
            self._local.query = found
        return found


class ApiApplication:
    """The ASGI application: takes requests, hands them to readers, sends what comes back."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # a question has no body
        if scope["type"] != "http":
            return
        request = _request(scope)
        answer = await self._answer(request, has_body=_has_body(scope))
        headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, request: Request, *, has_body: bool) -> Answer:
        if has_body:
            return problem(MalformedError("a body is not read here"), request, status=413)
        try:
            caller = self._api.admit(request, self._clock.now())
            if self._waiting >= WAITING_MAX:
                raise UnavailableError("too many requests are waiting")
        except HookProbeError as error:
            return problem(error, request)
        self._waiting += 1
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._readers, self._read, request, caller)
        work.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(work), ANSWER_S)
        except TimeoutError:
            return problem(UnavailableError("this takes too long; ask for less"), request)

    def _done(self, work: "asyncio.Future[Answer]") -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # whoever waited got it; nobody else is to be told again

    def _read(self, request: Request, caller: Any) -> Answer:
        try:
            return self._api.answer(request, caller, self._clock.now())
        except HostError as error:
            return problem(error, request)


def _request(scope: Scope) -> Request:
    wanted = [(name, value) for name, value in scope["headers"] if name in _USED_HEADERS]
    path = scope.get("raw_path") or scope["path"].encode()
    client = scope.get("client") or ("local", 0)
    return Request(
        method=scope["method"],
        path=path.decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers={name.decode(): value.decode("latin-1") for name, value in wanted},
        client=str(client[0]),
    )


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def make_application(
    genesis: Genesis, place: StorePlace, settings: ApiSettings, clock: Clock
) -> ApiApplication:
    """Put the API of a node's state folder together."""
    state = place.state
    ledgers = Ledgers(genesis, place)
    sources = Sources(ledgers.query, lambda: status.read(state), TokenFile(state), render)
    return ApiApplication(Api(sources, settings), clock)


class ApiServer:
    """The API, listening.

    Args:
        application: What answers.
        listening: Where; port 0 takes any free one.
    """

    def __init__(self, application: ApiApplication, listening: Listening) -> None:
        config = uvicorn.Config(
            application,
            host=listening.host,
            port=listening.port,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Serve in a thread of its own and return the port.

        Raises:
            HostError: The address is taken or not ours.
        """
        self._thread = threading.Thread(target=self._run_quietly, name="api", daemon=True)
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_S / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.02)
        if not self._server.started:
            raise HostError(
                f"the API cannot listen on {self._server.config.host}:{self._server.config.port}",
                hint="is the port taken? see api.listen",
            )
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def _run_quietly(self) -> None:
        try:
            self._server.run()
        except SystemExit:
            return  # uvicorn leaves so when it cannot listen; `start` says it

    def stop(self) -> None:
        """Stop serving; requests under way are answered."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=10)

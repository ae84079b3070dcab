"""The query API without its server: a request in, an answer out, bounded and read-only.

* Every answer to a question about the ledger needs a token, unless the operator lets anybody read.
* Each caller has a token bucket; whoever guesses tokens empties that of their address.
* A wrong request gets an RFC 9457 problem whose `code` is that of `errors.py`.
* Every good answer has a strong ETag, the hash of its bytes.
"""

import base64
import hashlib
import html
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, unquote

from hookprobe.errors import (
    HookProbeError,
    HostError,
    LimitExceededError,
    MalformedError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from hookprobe.runtime import api_routes, status
from hookprobe.runtime.access import Caller, Role
from hookprobe.runtime.api_handlers import HANDLERS, Question
from hookprobe.runtime.api_routes import Route
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.wire.bucket import Bucket
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.instant import Instant

URL_BYTES_MAX = 2_048
PARAMETERS_MAX = 16
CALLERS_MAX = 10_000
RETRY_AFTER_S = 2
PROBLEM = "application/problem+json"
_STATUS = {
    "E-MALFORMED": 400,
    "E-UNAUTHORIZED": 401,
    "E-NOT-FOUND": 404,
    "E-LIMIT": 429,
    "E-UNAVAILABLE": 503,
    "E-HOST": 503,
}
_TITLES = {
    400: "The request is not right",
    401: "A token is wanted",
    404: "There is no such thing here",
    405: "This API only answers GET and HEAD",
    413: "A question has no body",
    429: "Too much at once",
    500: "This node is at fault",
    503: "Not now",
}
_COMMON = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("referrer-policy", "no-referrer"),
    ("vary", "authorization"),
    ("x-content-type-options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived.

    Attributes:
        method: In capitals.
        path: As it was sent: percent-encoded, without the query.
        query: Likewise, without `?`.
        headers: Names in lower case; only those that are used.
        client: The address it came from.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The operator's choices.

    Attributes:
        anonymous: Whether anybody may read what role reader may.
        requests_per_s: For each caller, with one second of burst.
        service: What /api/v1/health calls this service.
        metrics: Whether /metrics is answered.
    """

    anonymous: bool = False
    requests_per_s: int = 20
    service: str = "mssp-cloud"
    metrics: bool = True


class Door(Protocol):
    """Says who holds a token."""

    def check(self, text: str, now: Instant) -> Caller:
        """Raises UnauthorizedError: nobody."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where answers come from.

    Attributes:
        ledger: Returns the ledger as the calling thread may read it.
        status: Returns the node's status document.
        door: Knows the tokens.
        render: Turns the metrics of a status into Prometheus' text.
    """

    ledger: Callable[[], LedgerQuery]
    status: Callable[[], Mapping[str, object]]
    door: Door
    render: Callable[[Mapping[str, object], Instant], bytes]


class Api:
    """Answers requests.

    Args:
        sources: Where answers come from.
        settings: The operator's choices.
    """

    def __init__(self, sources: Sources, settings: ApiSettings) -> None:
        self._sources = sources
        self._settings = settings
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, request: Request, now: Instant) -> Caller:
        """Say who asks; quick, for the thread that takes requests.

        Raises:
            UnauthorizedError: A token is wanted, or this one is none.
            LimitExceededError: This caller asks too often.
        """
        text = request.headers.get("authorization", "")
        address = Caller(f"address {request.client}", Role.READER)
        if not text:
            self._count(address, now)
            return address
        scheme, _, token = text.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise UnauthorizedError("the scheme must be Bearer")
            caller = self._sources.door.check(token.strip(), now)
        except UnauthorizedError:
            self._count(address, now)
            raise
        self._count(caller, now)
        return caller

    def _count(self, caller: Caller, now: Instant) -> None:
        rate = self._settings.requests_per_s
        bucket = self._buckets.pop(caller.key, None) or Bucket(rate, rate, now)
        if len(self._buckets) >= CALLERS_MAX:
            self._buckets.popitem(last=False)
        self._buckets[caller.key] = bucket
        if not bucket.take(1, now):
            raise LimitExceededError(f"more than {rate} requests a second")

    def answer(self, request: Request, caller: Caller, now: Instant) -> Answer:
        """Answer an admitted request; may read the disk."""
        if request.method not in {"GET", "HEAD"}:
            return problem(MalformedError(f"method {request.method[:20]}"), request, status=405)
        try:
            route, in_path = _route(request)
            if not (route.open or self._settings.anonymous or caller.key.startswith("token ")):
                raise UnauthorizedError("no token", hint="Authorization: Bearer hp_...")
            values = _values(route, in_path, request)
            found = self._body(route, Question(caller, values, now))
        except HookProbeError as error:
            return problem(error, request)
        return _good(route, found, request)

    def _body(self, route: Route, question: Question) -> bytes:
        match route.name:
            case "alive":
                return b"ok\n"
            case "ready":
                return _json(self._ready(question.now))
            case "health":
                self._ready(question.now)
                service = self._settings.service
                return _json({"status": "ok", "service": service, "version": "1.0-Liberty"})
            case "metrics":
                if not self._settings.metrics:
                    raise NotFoundError(
                        "no metrics here", hint="dsm.integrations.pod_005.metrics_export"
                    )
                return self._sources.render(self._sources.status(), question.now)
            case "openapi":
                return _json(api_routes.openapi())
            case "docs":
                return docs_page().encode()
            case "log_checkpoint":
                return self._sources.ledger().log_checkpoint()
            case "log_tile":
                return self._sources.ledger().log_tile(f"tile/{question.text('tile')}")
            case _:
                found = HANDLERS[route.name](self._sources.ledger(), question)
                return found if isinstance(found, bytes) else _json(found)

    def _ready(self, now: Instant) -> JsonObject:
        """Return what is in order.

        Raises:
            UnavailableError: The node does not run, or has no quorum, or its ledger is not there.
        """
        epochs = self._sources.ledger().next_epoch()
        document = self._sources.status()
        at = document.get("at")
        if not isinstance(at, int) or now - at > status.STALE_US:
            raise UnavailableError("the node does not run", hint="hookprobe status")
        if document.get("quorum_lost"):
            raise UnavailableError("the mesh has no quorum", hint="docs/operate/nodes.md")
        return {"epochs": epochs, "ready": True}


def _route(request: Request) -> tuple[Route, dict[str, str]]:
    if len(request.path) + len(request.query) > URL_BYTES_MAX:
        raise MalformedError(f"an address of more than {URL_BYTES_MAX} characters")
    found = api_routes.find(request.path)
    if found is None:
        raise NotFoundError("no such path", hint="/api/v1/docs lists them")
    return found


def _values(
    route: Route, in_path: Mapping[str, str], request: Request
) -> dict[str, api_routes.Value]:
    try:
        query = parse_qsl(
            request.query,
            keep_blank_values=True,
            strict_parsing=bool(request.query),
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError as error:
        raise MalformedError("the query is not one of names and values") from error
    return route.parse({name: unquote(text) for name, text in in_path.items()}, query)


def _json(document: JsonObject) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _good(route: Route, body: bytes, request: Request) -> Answer:
    digest = hashlib.sha256(body).digest()[:16]
    tag = f'"{base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}"'
    headers = dict(_COMMON) | {"content-type": route.form.value, "etag": tag}
    headers["cache-control"] = (
        "private, max-age=3600, immutable" if route.immutable else "private, no-cache"
    )
    known = [item.strip() for item in request.headers.get("if-none-match", "").split(",")]
    if "*" in known or tag in [item.removeprefix("W/") for item in known]:
        return Answer(304, tuple(headers.items()), b"")
    headers["content-length"] = str(len(body))
    return Answer(200, tuple(headers.items()), b"" if request.method == "HEAD" else body)


def problem(error: HookProbeError, request: Request, status: int | None = None) -> Answer:
    """Return the RFC 9457 form of an error; what is wrong inside this machine stays inside."""
    number = status or _STATUS.get(error.code, 500)
    inside = isinstance(error, HostError) or number == 500
    document: JsonObject = {
        "type": f"urn:hookprobe:error:{error.code}",
        "title": _TITLES[number],
        "status": number,
        "detail": "the node cannot read its own records" if inside else error.message,
        "code": error.code,
        "instance": request.path[:200],
    }
    if error.hint and not inside:
        document["hint"] = error.hint
    body = _json(document)
    headers = dict(_COMMON) | {"content-type": PROBLEM, "content-length": str(len(body))}
    if number in {429, 503}:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if number == 401:
        headers["www-authenticate"] = 'Bearer realm="hookprobe"'
    if number == 405:
        headers["allow"] = "GET, HEAD"
    return Answer(number, tuple(headers.items()), b"" if request.method == "HEAD" else body)


def docs_page() -> str:
    """Return the routes as a page for people; it loads nothing from anywhere."""
    rows = "".join(
        f"<h2><code>GET {html.escape(route.template)}</code></h2><p>{html.escape(route.about)}"
        f"{'' if route.open else ' Needs a token.'}</p>{_parameters(route)}"
        for route in api_routes.ROUTES
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>HookProbe DSM query API'
        "</title><style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto}"
        "h2{font-size:1rem;margin:2rem 0 0}</style><h1>HookProbe DSM query API</h1>"
        "<p>For programs: <code>/api/v1/openapi.json</code>. Authorization: "
        f"<code>Bearer hp_…</code> from <code>hookprobe token create</code>.</p>{rows}</html>"
    )


def _parameters(route: Route) -> str:
    items = _listed(route.parameters)
    return f"<ul>{items}</ul>" if items else ""


def _listed(parameters: Sequence[api_routes.Parameter]) -> str:
    return "".join(
        f"<li><code>{html.escape(each.name)}</code> {html.escape(each.about)}</li>"
        for each in parameters
    )

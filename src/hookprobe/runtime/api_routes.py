"""What the query API offers: one table of routes, from which requests are read and OpenAPI written.

A parameter is parsed once, here, into the type that its handler wants; one that is missing, given
twice, unknown or out of form is refused and named.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique

from hookprobe import __version__
from hookprobe.dsm.tree_log import parse_tile_path
from hookprobe.errors import MalformedError
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.identifiers import (
    INTEGER_MAX,
    parse_block_id,
    parse_node_id,
)
from hookprobe.wire.instant import DAY, HOUR, MINUTE, SECOND, parse_iso

PAGE_DEFAULT = 100
PAGE_MAX = 500
_SPAN = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_CURSOR = re.compile(r"(0|[1-9]\d{0,15})\.(0|[1-9]\d{0,15})", re.ASCII)
_DIGITS = re.compile(r"0|[1-9]\d{0,15}", re.ASCII)

Value = str | int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """A form that a parameter may have; `schema` says it in OpenAPI's words."""

    parse: Callable[[str], Value]
    schema: Mapping[str, Json]


def parse_count(text: str) -> int:
    """Read a decimal number below 2^53."""
    if _DIGITS.fullmatch(text) is None or int(text) > INTEGER_MAX:
        raise MalformedError(f"not a number from 0 to 2^53-1: {text[:40]!r}")
    return int(text)


def parse_span(text: str) -> int:
    """Read a span like 90s, 15m, 24h or 30d; microseconds."""
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[1]):
        raise MalformedError(f"not a span like 24h: {text[:40]!r}", hint="units: s, m, h, d")
    return int(match[1]) * _UNITS[match[2]]


def _page_size(text: str) -> int:
    value = parse_count(text)
    if not 1 <= value <= PAGE_MAX:
        raise MalformedError(f"a page has 1 to {PAGE_MAX} items")
    return value


def _cursor(text: str) -> tuple[int, int]:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise MalformedError("not a cursor of this API", hint="use `next` of the page before")
    return int(match[1]), int(match[2])


def _tile(text: str) -> str:
    parse_tile_path(f"tile/{text}")
    return text


def _word(text: str) -> str:
    if _WORD.fullmatch(text) is None:
        raise MalformedError(f"not a word: {text[:40]!r}")
    return text


COUNT = Kind(parse_count, {"type": "integer", "minimum": 0, "maximum": INTEGER_MAX})
NODE = Kind(parse_node_id, {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{0,31}$"})
HEX64 = Kind(parse_block_id, {"type": "string", "pattern": "^[0-9a-f]{64}$"})
WORD = Kind(_word, {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"})
TIME = Kind(parse_iso, {"type": "string", "format": "date-time"})
SPAN = Kind(parse_span, {"type": "string", "pattern": "^[0-9]{1,6}[smhd]$", "example": "24h"})
TILE = Kind(_tile, {"type": "string", "example": "0/x001/234.p/5"})
CURSOR = Kind(_cursor, {"type": "string", "description": "opaque"})
SIZE = Kind(_page_size, {"type": "integer", "minimum": 1, "maximum": PAGE_MAX})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a route; those in the path are always required."""

    name: str
    kind: Kind
    about: str
    required: bool = False


@unique
class Form(Enum):
    """What an answer is."""

    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"
    HTML = "text/html; charset=utf-8"
    METRICS = "text/plain; version=0.0.4; charset=utf-8"
    BYTES = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Route:
    """One question that may be asked.

    Attributes:
        path: With `{name}` for parameters of the path, `{name*}` for one that may hold slashes.
        name: The handler, and OpenAPI's operationId.
        about: One sentence for people.
        parameters: All that are known.
        open: Whether it needs no token.
        form: What the answer is.
        immutable: Whether the same question has the same answer for ever.
    """

    path: str
    name: str
    about: str
    parameters: tuple[Parameter, ...] = ()
    open: bool = False
    form: Form = Form.JSON
    immutable: bool = False
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        pattern = re.sub(r"\\{(\w+)\\\*\\}", r"(?P<\1>.+)", pattern)
        object.__setattr__(self, "_pattern", re.compile(pattern))

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace("*}", "}")

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters in a path, None if it is not this route's."""
        found = self._pattern.fullmatch(path)
        return found.groupdict() if found is not None else None

    def parse(
        self, in_path: Mapping[str, str], query: Sequence[tuple[str, str]]
    ) -> dict[str, Value]:
        """Return the parameters as their types.

        Raises:
            MalformedError: One is missing, given twice, unknown or out of form.
        """
        given = dict(in_path)
        for name, text in query:
            if name in given:
                raise MalformedError(f"parameter {name[:40]!r} is given twice")
            given[name] = text
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.name in given:
                values[parameter.name] = _parse(parameter, given.pop(parameter.name))
            elif parameter.required:
                raise MalformedError(f"parameter {parameter.name!r} is missing")
        if given:
            raise MalformedError(f"unknown parameter {next(iter(given))[:40]!r}")
        return values


def _parse(parameter: Parameter, text: str) -> Value:
    try:
        return parameter.kind.parse(text)
    except MalformedError as error:
        raise MalformedError(f"{parameter.name}: {error.message}", hint=error.hint) from error


_EPOCH = Parameter("epoch", COUNT, "The epoch of a final checkpoint.")
_LIMIT = Parameter("limit", SIZE, f"Items of a page; {PAGE_DEFAULT} unless said otherwise.")
_NEXT = Parameter("cursor", CURSOR, "`next` of the page before.")
_SINCE = Parameter("since", TIME, "Only what a checkpoint of this time or later holds.")

ROUTES = (
    Route("/healthz", "alive", "Whether the API runs.", open=True, form=Form.TEXT),
    Route("/readyz", "ready", "Whether node and ledger are in order.", open=True),
    Route("/metrics", "metrics", "Prometheus metrics.", open=True, form=Form.METRICS),
    Route("/api/v1/health", "health", "Whether the service is up, as load balancers ask.",
          open=True),
    Route("/api/v1/docs", "docs", "This API for people.", open=True, form=Form.HTML),
    Route("/api/v1/openapi.json", "openapi", "This API for programs.", open=True),
    Route("/api/v1/genesis", "genesis", "The chain's genesis document and id.", immutable=True),
    Route("/api/v1/validators", "validators", "The validators, their keys and the quorum."),
    Route("/api/v1/validators/changes", "changes",
          "Proof of every change of the validator set, oldest first.",
          (Parameter("from_epoch", COUNT, "Only those that headers from here on made."),)),
    Route("/api/v1/nodes/{node_id}", "node",
          "The first blocks of a node's chains: they carry its certificate.",
          (Parameter("node_id", NODE, "The node."),)),
    Route("/api/v1/checkpoints", "checkpoints", "Final checkpoints, oldest first.",
          (Parameter("from_epoch", COUNT, "The first epoch."), _SINCE, _LIMIT)),
    Route("/api/v1/checkpoints/latest", "latest_checkpoint", "The last final checkpoint."),
    Route("/api/v1/checkpoints/{epoch}", "checkpoint", "One final checkpoint.", (_EPOCH,),
          immutable=True),
    Route("/api/v1/checkpoints/{epoch}/blocks/{block_id}", "inclusion",
          "A block and the proof that the checkpoint holds it.",
          (_EPOCH, Parameter("block_id", HEX64, "The block.")), immutable=True),
    Route("/api/v1/checkpoints/{epoch}/blocks/{block_id}/tlog-proof", "log_proof",
          "That the log has the block (c2sp.org/tlog-proof), with the checkpoint of the log.",
          (_EPOCH, Parameter("block_id", HEX64, "The block.")), form=Form.TEXT),
    Route("/api/v1/checkpoints/{epoch}/receipts/{node_id}/{inc}", "receipt",
          "One proof for all blocks of a chain in an epoch.",
          (_EPOCH, Parameter("node_id", NODE, "The node."),
           Parameter("inc", COUNT, "The incarnation of its chain.")), immutable=True),
    Route("/api/v1/history/consistency", "consistency",
          "Proof that the history of `new` checkpoints continues that of `old` ones.",
          (Parameter("old", COUNT, "The smaller size.", required=True),
           Parameter("new", COUNT, "The larger size.", required=True)), immutable=True),
    Route("/api/v1/microblocks", "microblocks",
          "Blocks: of one node in the order of its chain, or of all in the order of the epochs.",
          (Parameter("node_id", NODE, "Whose; with it also blocks that are not final yet."),
           Parameter("start_seq", COUNT, "The first number; with node_id only."),
           Parameter("end_seq", COUNT, "The last number; with node_id only."),
           Parameter("event_type", WORD, "Only blocks of this type."), _SINCE,
           Parameter("until", TIME, "Only blocks that say they are earlier than this."),
           _LIMIT, _NEXT)),
    Route("/tlog/checkpoint", "log_checkpoint",
          "The history as a log (c2sp.org/tlog-tiles): the last tree head this validator signed.",
          open=True, form=Form.TEXT),
    Route("/tlog/tile/{tile*}", "log_tile", "A tile of hashes, or a bundle of entries.",
          (Parameter("tile", TILE, "Level or `entries`, index, and the width of a partial one."),),
          open=True, form=Form.BYTES, immutable=True),
    Route("/api/v1/threat-intel", "threat_intel",
          "Incidents that were disclosed to you; nothing else is known or made up.",
          (Parameter("threat_type", WORD, "A category, or a name for some: c2, scan, exploit."),
           Parameter("time_range", SPAN, "How far back; 24h unless said otherwise."),
           _LIMIT, _NEXT)),
)  # fmt: skip


def find(path: str) -> tuple[Route, dict[str, str]] | None:
    """Return the route of a path and the parameters in it; the earlier one wins."""
    for route in ROUTES:
        found = route.match(path)
        if found is not None:
            return route, found
    return None


def openapi() -> JsonObject:
    """Return the OpenAPI 3.1 document of the routes."""
    paths: JsonObject = {route.template: {"get": _operation(route)} for route in ROUTES}
    problem: JsonObject = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "example": "E-NOT-FOUND"},
            "hint": {"type": "string"},
            "instance": {"type": "string"},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "HookProbe DSM query API", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _is_in_path(parameter: Parameter, route: Route) -> bool:
    return f"{{{parameter.name}}}" in route.template


def _operation(route: Route) -> JsonObject:
    parameters: list[Json] = [
        {
            "name": each.name,
            "in": "path" if _is_in_path(each, route) else "query",
            "required": each.required or _is_in_path(each, route),
            "description": each.about,
            "schema": dict(each.kind.schema),
        }
        for each in route.parameters
    ]
    media = route.form.value.partition(";")[0]
    problem: JsonObject = {
        "description": "RFC 9457 problem",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    answers: JsonObject = {"200": {"description": route.about, "content": {media: {}}}}
    wrong = ["400", "429", "503"] + ([] if route.open else ["401"])
    wrong += ["404"] if "{" in route.path or not route.open else []
    answers |= dict.fromkeys(sorted(wrong), problem)
    answers["304"] = {"description": "The answer is the one you have (ETag)."}
    return {
        "operationId": route.name,
        "summary": route.about,
        "parameters": parameters,
        "responses": answers,
        "security": [] if route.open else [{"token": []}],
    }

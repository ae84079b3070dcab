"""A small mesh with a finished ledger, and an API over a validator's store, without a server."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.unit.dsm.kit import NOW, Net, mesh_of

from hookprobe.detection.attack import Category
from hookprobe.detection.event import Severity
from hookprobe.detection.privacy import SharedEvent
from hookprobe.dsm.court import convene
from hookprobe.errors import HookProbeError, UnauthorizedError
from hookprobe.runtime.access import Caller, Role
from hookprobe.runtime.api import Answer, Api, ApiSettings, Request, Sources, problem
from hookprobe.runtime.exposition import render
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND, Instant

EDGE, OTHER = NodeId("edge"), NodeId("other-edge")
BUCKET = 5 * MINUTE
EVENTS = 5
LATER = Instant(NOW + 4 * SECOND)
CALLERS = {
    "hp_reader": Caller("token reader", Role.READER),
    "hp_tenant": Caller("token tenant", Role.TENANT, "tenant"),
    "hp_rival": Caller("token rival", Role.TENANT, "rival"),
    "hp_auditor": Caller("token auditor", Role.AUDITOR),
}


def event(number: int, category: Category = Category.COMMAND_AND_CONTROL) -> bytes:
    start = Instant(NOW // BUCKET * BUCKET)
    return SharedEvent(
        event_id=f"{number:064x}",
        sensor="suricata",
        severity=Severity.HIGH,
        category=category,
        signature_id=number,
        techniques=("T1071",),
        count=4,
        threat_score=70,
        window_start=start,
        window_end=Instant(start + BUCKET),
        indicators=("ab" * 32,),
    ).encode()


@cache
def finished(*, real: bool = False) -> Net:
    """Four validators, two edges of one tenant, and a few final epochs; real: real signatures."""
    net = Net(mesh_of(real=real))
    net.add_validators()
    first, second = net.boot_edge(EDGE), net.boot_edge(OTHER)
    net.deliver()
    net.write(first, *(event(number) for number in range(EVENTS)), name=EDGE)
    net.write(second, event(90, Category.RECONNAISSANCE), b"not an event", name=OTHER)
    net.run(NOW + 2 * SECOND)
    net.write(first, event(91), name=EDGE)
    net.run(NOW + 4 * SECOND)
    return net


class Doorkeeper:
    """Knows the callers by their tokens."""

    def check(self, text: str, now: Instant) -> Caller:
        if text not in CALLERS:
            raise UnauthorizedError("unknown token")
        return CALLERS[text]


@dataclass
class Desk:
    """An API, asked as a client would."""

    settings: ApiSettings = field(default_factory=lambda: ApiSettings(requests_per_s=1_000))
    status: dict[str, object] = field(default_factory=dict)
    real: bool = False
    now: Instant = LATER
    store: str = "v00"
    other: Net | None = None

    def __post_init__(self) -> None:
        self.net = self.other or finished(real=self.real)
        mesh = self.net.mesh
        court = convene(mesh.genesis, mesh.keys.schemes)
        self.query = LedgerQuery(mesh.genesis, court, self.net.stores[NodeId(self.store)])
        sources = Sources(lambda: self.query, lambda: self.status, Doorkeeper(), render)
        self.api = Api(sources, self.settings)

    def ask(self, url: str, token: str = "hp_auditor", **more: Any) -> Answer:
        path, _, query = url.partition("?")
        headers: Mapping[str, str] = more.pop("headers", {})
        if token:
            headers = {**headers, "authorization": f"Bearer {token}"}
        request = Request(more.pop("method", "GET"), path, query, headers, "192.0.2.1")
        try:
            caller = self.api.admit(request, self.now)
        except HookProbeError as error:
            return problem(error, request)
        return self.api.answer(request, caller, self.now)

    def get(self, url: str, token: str = "hp_auditor") -> Any:
        answer = self.ask(url, token)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def fail(self, url: str, token: str = "hp_auditor") -> tuple[int, str]:
        answer = self.ask(url, token)
        document = json.loads(answer.body)
        assert document["status"] == answer.status
        assert dict(answer.headers)["content-type"] == "application/problem+json"
        return answer.status, document["code"]

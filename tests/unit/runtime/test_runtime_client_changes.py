"""`DSMClient` follows the validator set from the genesis document, and only by proof."""

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from tests.unit.dsm.kit import NOW, Net, mesh_of
from tests.unit.dsm.test_dsm_changes import V4, admit
from tests.unit.runtime.api_mesh import Desk

from hookprobe.dsm import DSMClient
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.wire.instant import SECOND, Instant

Document = dict[str, Any]


@cache
def changed() -> Desk:
    """A mesh that admitted a fifth validator."""
    net = Net(mesh_of(real=True))
    net.add_validators()
    net.run(NOW + SECOND)
    admit(net)
    return Desk(other=net, now=Instant(net.now))


def client_of(lie: Callable[[str, Document], Document]) -> DSMClient:
    def fetch(path: str) -> Document:
        answer = changed().ask(path)
        assert answer.status == 200, answer.body
        return lie(path, copy.deepcopy(json.loads(answer.body)))

    return DSMClient(trust=changed().net.mesh.chain.hex(), fetch=fetch)


def latest() -> int:
    return int(changed().get("/api/v1/checkpoints/latest")["epoch"])


def test_a_client_follows_a_change_of_the_set() -> None:
    client = client_of(lambda path, document: document)
    assert V4 in [
        item["validator_id"] for item in changed().get("/api/v1/validators")["validators"]
    ]
    assert client.get_checkpoint(latest())["epoch"] == latest()
    assert client.get_checkpoint(0)["epoch"] == 0
    assert client.verify_history(1, latest()) is True


def without_changes(path: str, document: Document) -> Document:
    return document | {"items": []} if "changes" in path else document


def in_change(name: str, to: Callable[[Any], Any]) -> Callable[[str, Document], Document]:
    def lie(path: str, document: Document) -> Document:
        if "changes" in path:
            document["items"][0][name] = to(document["items"][0][name])
        return document

    return lie


def drop_member(text: str) -> str:
    return json.dumps(json.loads(text)[:-1], separators=(",", ":"), sort_keys=True)


@pytest.mark.parametrize(
    "lie",
    [
        without_changes,
        in_change("members", drop_member),
        in_change("canonical", lambda text: text.replace('"epoch":', '"epoch":1')),
        in_change("certificate", lambda item: item | {"signature": "00" * 96}),
        in_change("certificate", lambda item: item | {"bitmap": "01"}),
    ],
    ids=["hidden", "other members", "other header", "no signature", "one voter"],
)
def test_a_change_that_is_not_proven_is_not_followed(
    lie: Callable[[str, Document], Document],
) -> None:
    with pytest.raises((VerificationError, MalformedError)):
        client_of(lie).get_checkpoint(latest())

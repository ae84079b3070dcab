"""`DSMClient` against an honest server, and against every lie we could think of."""

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.api_mesh import EDGE, EVENTS, Desk, event

from hookprobe.dsm import DSMClient
from hookprobe.dsm.microblock import sign_block
from hookprobe.errors import (
    ConfigError,
    HookProbeError,
    LimitExceededError,
    MalformedError,
    NotFoundError,
    RemoteError,
    UnauthorizedError,
    UnavailableError,
    VerificationError,
)
from hookprobe.runtime import ledger_client
from hookprobe.runtime.ledger_answers import read_block, show_block
from hookprobe.runtime.ledger_client import AsyncDSMClient, HttpFetch

Document = dict[str, Any]
Lie = Callable[[str, Document], Document]


def honest(path: str, document: Document) -> Document:
    return document


class Server:
    """Answers as the API would; what it says passes through a lie."""

    def __init__(self, lie: Lie = honest, token: str = "hp_auditor") -> None:
        self.desk = Desk(real=True)
        self.asked: list[str] = []
        self._lie = lie
        self._token = token

    def __call__(self, path: str) -> Document:
        self.asked.append(path)
        answer = self.desk.ask(path, self._token)
        document = json.loads(answer.body)
        if answer.status != 200:
            raise ledger_client._ERRORS[document["code"]](document["detail"])
        return self._lie(path, copy.deepcopy(document))


def client_of(lie: Lie = honest, token: str = "hp_auditor", trust: str = "") -> DSMClient:
    server = Server(lie, token)
    return DSMClient(trust=trust or server.desk.net.mesh.chain.hex(), fetch=server)


@pytest.fixture(scope="module")
def held() -> tuple[int, str]:
    """An epoch with several blocks, and one of them."""
    items = Desk(real=True).get("/api/v1/microblocks?event_type=ids_alert")["items"]
    return items[1]["epoch"], items[1]["id"]


# -- the documents' example ---------------------------------------------------------------------


def test_the_documents_calls_work(held: tuple[int, str]) -> None:
    epoch, block_id = held
    client = client_of()
    blocks = client.get_microblocks(node_id=EDGE, start_seq=2, end_seq=4)
    assert [block["seq"] for block in blocks] == [2, 3, 4]
    assert client.get_checkpoint(epoch=epoch)["epoch"] == epoch
    assert client.verify_block_in_checkpoint(block_id=block_id, checkpoint_epoch=epoch) is True
    threats = client.query_threat_intel(threat_type="c2", time_range="24h")
    assert len(threats) == EVENTS + 1
    assert {threat["category"] for threat in threats} == {"command-and-control"}
    assert {threat["node_id"] for threat in threats} == {EDGE}
    assert client.verify_history(1, 3) is True


def test_the_same_calls_can_be_awaited(held: tuple[int, str]) -> None:
    async def ask() -> None:
        client = AsyncDSMClient(client_of())
        epoch, block_id = held
        checkpoint, holds, blocks, threats = await asyncio.gather(
            client.get_checkpoint(epoch),
            client.verify_block_in_checkpoint(block_id, epoch),
            client.get_microblocks(EDGE),
            client.query_threat_intel(),
        )
        assert (checkpoint["epoch"], holds, len(blocks)) == (epoch, True, EVENTS + 2)
        assert len(threats) == EVENTS + 2

    asyncio.run(ask())


def test_a_block_of_another_epoch_or_none_is_not_in_the_checkpoint(held: tuple[int, str]) -> None:
    epoch, block_id = held
    client = client_of()
    assert client.verify_block_in_checkpoint(block_id, epoch + 1) is False
    assert client.verify_block_in_checkpoint("0" * 64, epoch) is False
    assert client.verify_block_in_checkpoint(block_id, 10_000) is False


def test_a_reader_gets_blocks_without_payloads_and_no_incidents() -> None:
    client = client_of(token="hp_reader")
    assert not any("payload" in block for block in client.get_microblocks(EDGE))
    assert client.query_threat_intel() == []


def test_a_tenant_can_check_the_checkpoints_it_sees_a_part_of(held: tuple[int, str]) -> None:
    assert client_of(token="hp_rival").get_checkpoint(held[0])["ranges_hidden"] == 2


# -- a lying server -----------------------------------------------------------------------------


def flip(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def one_voter_less(bitmap: str) -> str:
    bits = int(bitmap, 16)
    return f"{bits & (bits - 1):02x}"


def other_voters(bitmap: str) -> str:
    return "0f" if bitmap != "0f" else "07"


def in_header(name: str, value: Any) -> Lie:
    def lie(path: str, document: Document) -> Document:
        if "canonical" in document and "certificate" in document:
            header = json.loads(document["canonical"])
            header[name] = value(header[name])
            document["canonical"] = json.dumps(header, separators=(",", ":"), sort_keys=True)
        return document

    return lie


def change(*keys: Any, to: Callable[[Any], Any]) -> Lie:
    def lie(path: str, document: Document) -> Document:
        if "certificate" in document:
            place: Any = document
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = to(place[keys[-1]])
        return document

    return lie


def other_block(path: str, document: Document) -> Document:
    if "/blocks/" in path:
        return Server()(path.replace(path[-64:], Server().desk.get(
            "/api/v1/microblocks?event_type=ids_alert")["items"][2]["id"]))  # fmt: skip
    return document


def other_text(path: str, document: Document) -> Document:
    if "/blocks/" in path:
        items = Server().desk.get("/api/v1/microblocks?event_type=ids_alert")["items"]
        document["block"] = {
            name: value for name, value in items[2].items() if name not in {"epoch", "index"}
        }
    return document


def other_epoch(path: str, document: Document) -> Document:
    if path.startswith("/api/v1/checkpoints/") and "/blocks/" not in path:
        return Server()("/api/v1/checkpoints/0")
    return document


LIES: dict[str, Lie] = {
    "other root": in_header("merkle_root", flip),
    "other count": in_header("count", lambda count: count + 1),
    "other chain": in_header("chain", flip),
    "other validators": in_header("validators_hash", flip),
    "other epoch number": in_header("epoch", lambda epoch: epoch + 1),
    "another block": other_block,
    "another index": change("index", to=lambda index: index + 1),
    "a path cut short": change("path", to=lambda path: path[:-1]),
    "a path too long": change("path", to=lambda path: [*path, path[0]]),
    "a path changed": change("path", 0, to=flip),
    "a block changed": change("block", "canonical", to=lambda text: text.replace(EDGE, "edgy")),
    "a block's field changed": change("block", "event_type", to=lambda _: "mitigation"),
    "another block's text under the right path": other_text,
    "certificate cut short": change("certificate", "signature", to=lambda text: text[:-2]),
    "certificate changed": change("certificate", "signature", to=flip),
    "a voter left out": change("certificate", "bitmap", to=one_voter_less),
    "a voter too many": change("certificate", "bitmap", to=other_voters),
    "no voter": change("certificate", "bitmap", to=lambda _: "00"),
    "another view": change("certificate", "view", to=lambda view: view + 1),
    "no certificate": change("certificate", to=lambda _: {}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_about_a_block_is_found_out(lie: Lie, held: tuple[int, str]) -> None:
    epoch, block_id = held
    assert client_of().verify_block_in_checkpoint(block_id, epoch) is True
    client = client_of(lie)
    assert client.verify_block_in_checkpoint(block_id, epoch) is False
    with pytest.raises((VerificationError, MalformedError)):
        client.prove_block_in_checkpoint(block_id, epoch)


CHECKPOINT_LIES: dict[str, Lie] = {
    name: LIES[name]
    for name in LIES
    if not {"path", "block", "index"} & set(name.replace("'s", "").split())
} | {
    "the checkpoint of another epoch": other_epoch,
    "ranges left out": change("ranges", to=lambda ranges: ranges[:-1]),
    "a range changed": change("ranges", 0, "last", to=lambda last: last - 1),
    "another head of a range": change("ranges", 0, "head", to=flip),
    "another range shown": change("included_ranges", EDGE, to=lambda _: [1, 999]),
    "another root shown": change("merkle_root", to=flip),
    "another time shown": change("timestamp", to=lambda text: text.replace("2023", "2024")),
    "more voters shown": change("validator_count", to=lambda count: count + 1),
    "another count shown": change("microblock_count", to=lambda count: count + 1),
}
del CHECKPOINT_LIES["other count"]
CHECKPOINT_LIES["other count"] = LIES["other count"]


@pytest.mark.parametrize("lie", CHECKPOINT_LIES.values(), ids=CHECKPOINT_LIES.keys())
def test_a_lie_about_a_checkpoint_is_found_out(lie: Lie, held: tuple[int, str]) -> None:
    with pytest.raises((VerificationError, MalformedError)):
        client_of(lie).get_checkpoint(held[0])


def on_items(to: Callable[[list[Any]], list[Any]]) -> Lie:
    def lie(path: str, document: Document) -> Document:
        if "items" in document:
            document["items"] = to(document["items"])
        return document

    return lie


def on_item(name: str, to: Callable[[Any], Any]) -> Lie:
    def one(items: list[Any]) -> list[Any]:
        for item in items:
            if name in item:
                item[name] = to(item[name])
                break
        return items

    return on_items(one)


BLOCK_LIES: dict[str, Lie] = {
    "a block left out": on_items(lambda items: items[:2] + items[3:]),
    "the first left out": on_items(lambda items: items[1:]),
    "two exchanged": on_items(lambda items: [items[1], items[0], *items[2:]]),
    "one twice": on_items(lambda items: [items[0], *items]),
    "signature": on_item("signature", flip),
    "shown field": on_item("seq", lambda seq: seq + 1),
    "text": on_item("canonical", lambda text: text.replace('"timestamp":1', '"timestamp":2')),
    "payload": on_item("payload", lambda data: event(7).hex()),
    "salt": on_item("salt", flip),
    "salt cut": on_item("salt", lambda salt: salt[:-2]),
    "nothing": on_items(lambda items: [None]),
    "no object": on_items(lambda items: ["x"]),
}


@pytest.mark.parametrize("lie", BLOCK_LIES.values(), ids=BLOCK_LIES.keys())
def test_a_lie_about_blocks_is_found_out(lie: Lie) -> None:
    assert len(client_of().get_microblocks(EDGE)) == EVENTS + 2
    with pytest.raises((VerificationError, MalformedError)):
        client_of(lie).get_microblocks(EDGE)


def test_a_block_of_another_branch_does_not_fit() -> None:
    """The node itself signed two blocks with one number: both hold, but not in one run."""

    def lie(path: str, document: Document) -> Document:
        if "items" in document:
            signed, _ = read_block(document["items"][3])
            signer = Server().desk.net.mesh.keys.signer(EDGE)
            twin = sign_block(replace(signed.block, prev=b"\x05" * 32), signer)
            document["items"][3] = show_block(twin)
        return document

    with pytest.raises(VerificationError, match="does not follow"):
        client_of(lie).get_microblocks(EDGE, start_seq=1, end_seq=4)


def test_another_nodes_blocks_are_not_taken() -> None:
    def lie(path: str, document: Document) -> Document:
        return Server()(path.replace(f"node_id={EDGE}&", "node_id=other-edge&"))

    with pytest.raises(VerificationError, match="vouches"):
        client_of(lie).get_microblocks(EDGE)


def test_a_false_enrolment_vouches_for_nobody() -> None:
    def lie(path: str, document: Document) -> Document:
        for item in document.get("enrolments", []):
            item["canonical"] = item["canonical"].replace('"role":"edge"', '"role":"edgy"')
            item |= {"signature": item["signature"]}
        return document

    with pytest.raises(RemoteError):
        client_of(lie).get_microblocks(EDGE)


def test_incidents_are_not_made_up() -> None:
    for lie in (BLOCK_LIES["payload"], BLOCK_LIES["signature"], BLOCK_LIES["text"]):
        with pytest.raises((VerificationError, MalformedError)):
            client_of(lie).query_threat_intel("c2")

    def scans(path: str, document: Document) -> Document:
        return Server()(path.replace("c2", "scan"))

    with pytest.raises(VerificationError, match="something else"):
        client_of(scans).query_threat_intel("c2")


def test_another_mesh_is_not_ours(held: tuple[int, str]) -> None:
    with pytest.raises(VerificationError, match="not of the trusted one"):
        client_of(trust="ab" * 32).get_checkpoint(held[0])


def test_another_history_is_found_out() -> None:
    def lie(path: str, document: Document) -> Document:
        if "consistency" in path:
            document["proof"][0] = flip(document["proof"][0])
        return document

    assert client_of(lie).verify_history(1, 3) is False
    assert client_of().verify_history(3, 1) is False


def test_pages_without_end_are_left() -> None:
    def lie(path: str, document: Document) -> Document:
        if "items" in document:
            document["next"] = "1.1"
        return document

    with pytest.raises(MalformedError, match="do not end"):
        client_of(lie).get_microblocks(EDGE)


# -- what it trusts and where tokens go ---------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("URL", "TOKEN", "TOKEN_FILE"):
        monkeypatch.delenv(f"HOOKPROBE_API_{name}", raising=False)
    monkeypatch.delenv("HOOKPROBE_TRUST", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_without_a_mesh_to_trust_there_is_no_answer(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match="which mesh"):
        DSMClient()
    with pytest.raises(ConfigError, match="neither"):
        DSMClient(trust="somebody")


def test_a_genesis_document_can_be_trusted(nowhere: Path, held: tuple[int, str]) -> None:
    server = Server()
    folder = nowhere / "hookprobe"
    folder.mkdir()
    (folder / "genesis.json").write_bytes(server.desk.net.mesh.genesis.encode())
    assert DSMClient(fetch=server).get_checkpoint(held[0])
    assert not any("genesis" in path for path in server.asked)


def test_a_token_stays_off_open_lines_and_out_of_sight(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match="does not go over http"):
        HttpFetch("http://api.example.com", "hp_secret", 1.0)
    HttpFetch("http://127.0.0.1:1", "hp_secret", 1.0)
    HttpFetch("http://api.example.com", "", 1.0)
    for url in ("ftp://x", "https://", "api.example.com", "https://x/path", "file:///etc/passwd"):
        with pytest.raises(ConfigError):
            HttpFetch(url, "", 1.0)
    assert "hp_secret" not in repr(vars(HttpFetch("https://x", "", 1.0)))


def test_nobody_there_is_no_proof_of_anything() -> None:
    server = Server()
    client = DSMClient("http://127.0.0.1:9", trust=server.desk.net.mesh.chain.hex(), timeout_s=1)
    with pytest.raises(UnavailableError):
        client.verify_block_in_checkpoint("0" * 64, 0)


def test_a_refused_token_is_no_proof_either(held: tuple[int, str]) -> None:
    with pytest.raises(UnauthorizedError):
        client_of(token="hp_stranger").verify_block_in_checkpoint(held[1], held[0])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b'{"code":"E-NOT-FOUND","detail":"x"}', NotFoundError),
        (429, b'{"code":"E-LIMIT"}', LimitExceededError),
        (500, b'{"code":"E-WHATEVER"}', UnavailableError),
        (502, b"<html>", UnavailableError),
        (301, b"{}", UnavailableError),
        (200, b"[]", MalformedError),
        (200, b"[" * 100_000, UnavailableError),
    ],
)
def test_answers_of_no_api_are_named(status: int, body: bytes, kind: type[HookProbeError]) -> None:
    with pytest.raises(kind):
        ledger_client._read(status, body, "host")

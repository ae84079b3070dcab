"""The query API: what it tells, to whom, and what it refuses."""

import json
from typing import Any

import pytest
from tests.unit.dsm.ledger_net import V0
from tests.unit.runtime.api_mesh import CALLERS, EDGE, EVENTS, OTHER, Desk

from hookprobe.crypto import merkle
from hookprobe.dsm.checkpoint import header_hash, parse_header
from hookprobe.dsm.court import convene
from hookprobe.dsm.history import History
from hookprobe.dsm.notes import LOG_KEY, NoteKey
from hookprobe.dsm.tree_log import TreeLog, check_proof, decode_proof, parse_place
from hookprobe.runtime import api_handlers, ledger_query
from hookprobe.runtime.api import ApiSettings
from hookprobe.runtime.api_routes import ROUTES
from hookprobe.wire.instant import SECOND, Instant, format_iso


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()


def held(desk: Desk) -> tuple[int, str]:
    """An epoch that holds blocks, and the id of one of them."""
    items = desk.get("/api/v1/microblocks?event_type=ids_alert")["items"]
    return items[0]["epoch"], items[0]["id"]


# -- what it tells ----------------------------------------------------------------------------


def test_a_checkpoint_is_told_in_the_documents_words(desk: Desk) -> None:
    epoch, _ = held(desk)
    told = desk.get(f"/api/v1/checkpoints/{epoch}")
    assert told["type"] == "C"
    assert told["epoch"] == epoch
    assert told["included_ranges"][EDGE] == [1, 1 + EVENTS]
    assert told["validator_count"] >= 3
    header = parse_header(told["canonical"].encode())
    assert told["merkle_root"] == header.merkle_root.hex()
    assert told["hash"] == header_hash(told["canonical"].encode()).hex()
    assert desk.get("/api/v1/checkpoints/latest")["epoch"] == desk.query.next_epoch() - 1


def test_checkpoints_come_in_pages(desk: Desk) -> None:
    seen: list[int] = []
    following: int | None = 0
    while following is not None:
        page = desk.get(f"/api/v1/checkpoints?from_epoch={following}&limit=2")
        seen += [item["epoch"] for item in page["items"]]
        following = page["next_epoch"]
    assert seen == list(range(desk.query.next_epoch()))


def test_blocks_of_a_node_come_in_pages_without_gap_or_repetition(desk: Desk) -> None:
    url = f"/api/v1/microblocks?node_id={EDGE}&limit=2"
    seen: list[Any] = []
    following: str | None = ""
    while following is not None:
        page = desk.get(url + (f"&cursor={following}" if following else ""))
        assert len(page["items"]) <= 2
        seen += [item["seq"] for item in page["items"]]
        following = page["next"]
    assert seen == list(range(1, EVENTS + 3))
    some = desk.get(f"/api/v1/microblocks?node_id={EDGE}&start_seq=3&end_seq=4")["items"]
    assert [item["seq"] for item in some] == [3, 4]


def test_blocks_of_all_nodes_come_in_the_order_of_the_epochs(desk: Desk) -> None:
    seen: list[Any] = []
    following: str | None = ""
    while following is not None:
        page = desk.get(
            "/api/v1/microblocks?limit=3" + (f"&cursor={following}" if following else "")
        )
        seen += [(item["epoch"], item["index"], item["id"]) for item in page["items"]]
        following = page["next"]
    assert seen == sorted(seen, key=lambda item: item[:2])
    total = sum(item["microblock_count"] for item in desk.get("/api/v1/checkpoints")["items"])
    assert len(seen) == total == len({item[2] for item in seen})


def test_blocks_are_filtered_by_type_and_time(desk: Desk) -> None:
    types = {item["event_type"] for item in desk.get("/api/v1/microblocks")["items"]}
    assert {"ids_alert"} < types
    only = desk.get("/api/v1/microblocks?event_type=ids_alert")["items"]
    assert {item["event_type"] for item in only} == {"ids_alert"}
    last = desk.get("/api/v1/checkpoints/latest")
    later = desk.get(f"/api/v1/microblocks?since={last['timestamp']}")["items"]
    assert all(item["epoch"] == last["epoch"] for item in later)
    until = format_iso(Instant(0)).replace("+", "%2B")
    assert desk.get(f"/api/v1/microblocks?until={until}")["items"] == []


def test_inclusion_receipt_and_consistency_proofs_hold(desk: Desk) -> None:
    epoch, block_id = held(desk)
    told = desk.get(f"/api/v1/checkpoints/{epoch}/blocks/{block_id}")
    header = parse_header(told["canonical"].encode())
    path = [bytes.fromhex(item) for item in told["path"]]
    leaf = bytes.fromhex(block_id)
    merkle.check_inclusion(leaf, told["index"], header.count, path, header.merkle_root)
    receipt = desk.get(f"/api/v1/checkpoints/{epoch}/receipts/{EDGE}/{told['block']['inc']}")
    blocks = desk.get(f"/api/v1/microblocks?node_id={EDGE}&end_seq={receipt['last']}")["items"]
    ids = [bytes.fromhex(item["id"]) for item in blocks]
    proof = [bytes.fromhex(item) for item in receipt["proof"]]
    merkle.check_range(ids, receipt["start"], header.count, proof, header.merkle_root)
    size = desk.query.next_epoch()
    found = desk.get(f"/api/v1/history/consistency?old=2&new={size}")
    steps = [bytes.fromhex(item) for item in found["proof"]]
    old, new = bytes.fromhex(found["old_root"]), bytes.fromhex(found["new_root"])
    merkle.check_consistency(2, size, old, new, steps)
    third = parse_header(desk.get("/api/v1/checkpoints/2")["canonical"].encode())
    assert (third.history_size, third.history_root) == (2, old)


def test_the_validators_are_told_with_their_quorum(desk: Desk) -> None:
    told = desk.get("/api/v1/validators")
    assert (told["quorum"], told["faults_tolerated"], len(told["validators"])) == (3, 1, 4)
    assert told["convicted"] == []
    assert desk.get("/api/v1/genesis")["chain"] == desk.net.mesh.chain.hex()


# -- to whom ----------------------------------------------------------------------------------


def test_payloads_go_to_those_who_may_read_them(desk: Desk) -> None:
    url = f"/api/v1/microblocks?node_id={EDGE}&start_seq=2&end_seq=2"
    for token, shown in {"hp_auditor": True, "hp_tenant": True, "hp_reader": False}.items():
        (item,) = desk.get(url, token)["items"]
        assert ("payload" in item, "salt" in item) == (shown, shown), token


def test_a_tenant_learns_nothing_of_others(desk: Desk) -> None:
    epoch, block_id = held(desk)
    inc = desk.get(f"/api/v1/nodes/{EDGE}")["enrolments"][0]["inc"]
    paths = [route.path for route in ROUTES if not route.open]
    for path in paths:
        url = path.format(epoch=epoch, block_id=block_id, node_id=EDGE, inc=inc)
        url += "?old=1&new=2" if "consistency" in url else ""
        answer = desk.ask(url, "hp_rival")
        assert EDGE not in answer.body.decode().replace(f'"instance":"{url}"', "").replace(
            f"node {EDGE} that", ""
        ), url
        assert OTHER not in answer.body.decode(), url
    assert desk.get("/api/v1/microblocks", "hp_rival")["items"] == []
    told = desk.get(f"/api/v1/checkpoints/{epoch}", "hp_rival")
    assert told["ranges"] == []
    assert told["ranges_hidden"] == 2
    unknown = desk.ask("/api/v1/nodes/nobody", "hp_rival")
    foreign = desk.ask(f"/api/v1/nodes/{EDGE}", "hp_rival")
    assert unknown.body.replace(b"nobody", b"edge") == foreign.body


def test_threat_intel_is_what_was_disclosed_and_nothing_else(desk: Desk) -> None:
    found = desk.get("/api/v1/threat-intel?threat_type=c2&time_range=24h")["items"]
    assert len(found) == EVENTS + 1
    assert all(item["node_id"] == EDGE for item in found)
    (scan,) = desk.get("/api/v1/threat-intel?threat_type=scan")["items"]
    assert json.loads(bytes.fromhex(scan["payload"]))["category"] == "reconnaissance"
    assert len(desk.get("/api/v1/threat-intel")["items"]) == EVENTS + 2
    assert desk.get("/api/v1/threat-intel", "hp_reader")["items"] == []
    assert desk.get("/api/v1/threat-intel", "hp_rival")["items"] == []
    assert desk.get("/api/v1/threat-intel?threat_type=malware")["items"] == []
    assert desk.fail("/api/v1/threat-intel?threat_type=zombies") == (400, "E-MALFORMED")


def test_a_token_is_wanted(desk: Desk) -> None:
    for route in ROUTES:
        url = route.template.format(
            epoch=0, block_id="0" * 64, node_id="n", inc=1, tile="0/000.p/1"
        )
        answer = desk.ask(url, "")
        if route.open:
            assert answer.status != 401, url
        else:
            assert answer.status == 401, url
            assert dict(answer.headers)["www-authenticate"].startswith("Bearer")
    assert desk.fail("/api/v1/validators", "hp_stranger") == (401, "E-UNAUTHORIZED")
    basic = desk.ask("/api/v1/validators", "", headers={"authorization": "Basic eDp5"})
    assert basic.status == 401


def test_anybody_may_read_structure_if_the_operator_says_so() -> None:
    desk = Desk(ApiSettings(anonymous=True, requests_per_s=1_000))
    items = desk.get("/api/v1/microblocks", "")["items"]
    assert items
    assert not any("payload" in item for item in items)


# -- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "node_id=Edge",
        "node_id=..",
        "start_seq=1",
        f"node_id={EDGE}&start_seq=0",
        f"node_id={EDGE}&start_seq=5&end_seq=4",
        f"node_id={EDGE}&end_seq=9007199254740993",
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e3",
        "limit=1&limit=2",
        "cursor=nonsense",
        "cursor=1",
        "cursor=01.1",
        "since=yesterday",
        "colour=red",
        "event_type=a%20b",
        "event_type=%ff",
        "event_type",
        "&".join(f"x{number}=1" for number in range(17)),
    ],
)
def test_a_wrong_question_is_named(desk: Desk, query: str) -> None:
    assert desk.fail(f"/api/v1/microblocks?{query}") == (400, "E-MALFORMED")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/nothing",
        "/api/v1/checkpoints/999",
        f"/api/v1/checkpoints/0/blocks/{'0' * 64}",
        "/api/v1/nodes/nobody",
        "/api/v1/checkpoints/0/receipts/nobody/1",
        "/api/v1/history/consistency?old=1&new=999",
    ],
)
def test_what_is_not_there_is_not_found(desk: Desk, path: str) -> None:
    assert desk.fail(path) == (404, "E-NOT-FOUND")


@pytest.mark.parametrize("epoch", ["-1", "x", "1.0", "%31%30x", "9" * 20, "01"])
def test_an_epoch_is_a_number(desk: Desk, epoch: str) -> None:
    assert desk.fail(f"/api/v1/checkpoints/{epoch}") == (400, "E-MALFORMED")


def test_only_questions_are_answered(desk: Desk) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert desk.ask("/api/v1/validators", method=method).status == 405
    head = desk.ask("/api/v1/validators", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert desk.ask("/api/v1/microblocks?node_id=" + "a" * 3000).status == 400


def test_too_many_questions_are_turned_away_and_time_heals() -> None:
    desk = Desk(ApiSettings(requests_per_s=5))
    answers = [desk.ask("/api/v1/validators").status for _ in range(6)]
    assert answers == [200] * 5 + [429]
    assert desk.ask("/api/v1/validators", "hp_reader").status == 200, "others are not held up"
    guesses = [desk.ask("/api/v1/validators", f"hp_{number}").status for number in range(7)]
    assert guesses == [401] * 5 + [429] * 2, "guessing empties the bucket of the address"
    desk.now = Instant(desk.now + SECOND)
    assert desk.ask("/api/v1/validators").status == 200


def test_one_request_looks_at_so_much_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_query, "LOOKED_AT_MAX", 3)
    seen = pages = 0
    following: str | None = ""
    while following is not None:
        url = "/api/v1/microblocks?event_type=none" + (f"&cursor={following}" if following else "")
        page = desk.get(url)
        seen, following, pages = seen + len(page["items"]), page["next"], pages + 1
    assert seen == 0
    assert pages > 3


def test_an_answer_one_has_is_not_sent_again(desk: Desk) -> None:
    first = desk.ask("/api/v1/checkpoints/0")
    tag = dict(first.headers)["etag"]
    again = desk.ask("/api/v1/checkpoints/0", headers={"if-none-match": f'"x", W/{tag}'})
    assert (again.status, again.body) == (304, b"")
    assert desk.ask("/api/v1/checkpoints/1", headers={"if-none-match": tag}).status == 200
    assert "immutable" in dict(first.headers)["cache-control"]
    assert dict(first.headers)["vary"] == "authorization"


def test_blocks_that_are_missing_here_make_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    epoch, block_id = held(desk)
    monkeypatch.setattr(desk.query, "_rows", lambda item: [])
    url = f"/api/v1/checkpoints/{epoch}/blocks/{block_id}"
    assert desk.fail(url) == (503, "E-UNAVAILABLE")


def test_a_block_is_proven_up_to_the_checkpoint_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    epoch, block_id = held(desk)
    url = f"/api/v1/checkpoints/{epoch}/blocks/{block_id}/tlog-proof"
    assert desk.fail(url) == (404, "E-NOT-FOUND"), "this node signs no checkpoints"
    keys, store = desk.net.mesh.keys, desk.net.stores[V0]
    history = History(desk.net.mesh.genesis, convene(desk.net.mesh.genesis, keys.schemes), store)
    log = TreeLog(history, store, (), keys.schemes.signatures)

    def signed_at(size: int) -> None:
        note = log.checkpoint(keys.signer(V0), size).encode()
        monkeypatch.setattr(desk.query, "log_checkpoint", lambda: note)

    signed_at(epoch)
    assert desk.fail(url) == (404, "E-NOT-FOUND"), "signed before the block was in"
    for size in (epoch + 1, history.next_epoch):
        signed_at(size)
        answer = desk.ask(url, "hp_tenant")
        assert answer.status == 200
        assert dict(answer.headers)["content-type"] == "text/plain; charset=utf-8"
        assert "immutable" not in dict(answer.headers)["cache-control"]
        proof = decode_proof(answer.body)
        place = parse_place(proof.extra)
        key = NoteKey(log.origin, LOG_KEY, keys.signer(V0).public_key)
        assert proof.index == epoch
        assert list(check_proof(proof, place.leaf(), [key], keys.schemes.signatures)) == [key]
        assert place.check(bytes.fromhex(block_id)).epoch == epoch
    assert desk.fail(url, "hp_rival") == (404, "E-NOT-FOUND"), "not its tenant's"
    assert desk.ask(url, "").status == 401


# -- health and description -------------------------------------------------------------------


def test_health_is_exactly_what_the_guide_says() -> None:
    desk = Desk()
    desk.status |= {"at": desk.now, "quorum_lost": False}
    answer = desk.ask("/api/v1/health", "")
    assert answer.body == b'{"status":"ok","service":"mssp-cloud","version":"1.0-Liberty"}'
    assert desk.ask("/healthz", "").body == b"ok\n"
    assert desk.ask("/readyz", "").status == 200
    desk.status["quorum_lost"] = True
    assert [desk.ask(url, "").status for url in ("/healthz", "/readyz", "/api/v1/health")] == [
        200,
        503,
        503,
    ]
    desk.status |= {"at": desk.now - 60 * SECOND, "quorum_lost": False}
    assert desk.ask("/readyz", "").status == 503


def test_metrics_can_be_kept_back() -> None:
    assert Desk().ask("/metrics", "").status == 200
    kept = Desk(ApiSettings(metrics=False))
    assert kept.fail("/metrics", "") == (404, "E-NOT-FOUND")


def test_the_description_has_every_route_and_every_parameter(desk: Desk) -> None:
    document = desk.get("/api/v1/openapi.json", "")
    assert document["openapi"].startswith("3.1")
    assert sorted(document["paths"]) == sorted(route.template for route in ROUTES)
    for route in ROUTES:
        operation = document["paths"][route.template]["get"]
        assert [item["name"] for item in operation["parameters"]] == [
            each.name for each in route.parameters
        ]
        assert bool(operation["security"]) is not route.open
    page = desk.ask("/api/v1/docs", "").body.decode()
    assert all(route.template in page for route in ROUTES)
    assert "http://" not in page
    assert "https://" not in page
    named = {route.name for route in ROUTES if not route.open}
    assert named == set(api_handlers.HANDLERS)
    assert {caller.role.value for caller in CALLERS.values()} == {"reader", "tenant", "auditor"}


def test_an_edge_answers_for_its_own_chain() -> None:
    desk = Desk(store="edge")
    items = desk.get(f"/api/v1/microblocks?node_id={EDGE}")["items"]
    assert len(items) == EVENTS + 2
    assert desk.fail("/api/v1/checkpoints/0") == (404, "E-NOT-FOUND")

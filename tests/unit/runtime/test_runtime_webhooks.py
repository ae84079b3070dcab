"""Webhooks: settings, what is told, how it is signed, where it may go, and a real receiver."""

import asyncio
import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hookprobe.dsm import effects as ledger
from hookprobe.errors import ConfigError, HostError, UnavailableError
from hookprobe.htp.effects import Dropped, DropReason
from hookprobe.node.observations import Observation
from hookprobe.runtime import webhook_events
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.metrics import Meter
from hookprobe.runtime.webhook_events import Sender, events_of, render
from hookprobe.runtime.webhook_outbox import Outcome, State
from hookprobe.runtime.webhook_post import Parcel, headers_of, is_public, post, resolve, sign
from hookprobe.runtime.webhook_service import WebhookService
from hookprobe.runtime.webhook_settings import Hook, read_hooks
from hookprobe.runtime.webhook_store import WebhookStore
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

SECRET = b"\x07" * 32
SECRET_TEXT = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
FINAL = ledger.CheckpointFinalized(147, 12, 3, b"\xaa" * 32, 21_000)
SENDER = Sender("validator-1", "ab" * 32)

DOCUMENTS_FILE = """
webhooks:
  - url: "https://siem.company.com/hookprobe/events"
    events: ["checkpoint_finalized"]
    auth:
      type: "bearer"
      token: "${SIEM_TOKEN}"

  - url: "https://slack.com/webhooks/..."
    events: ["validator_quorum_lost"]
    format: "slack"
"""


def settings(folder: Path, text: str, **environment: str) -> tuple[Hook, ...]:
    path = folder / "dsm-webhooks.yaml"
    path.write_text(text)
    return read_hooks(path, environment)


def one(folder: Path, more: str) -> tuple[Hook, ...]:
    return settings(folder, "webhooks:\n  - url: https://x.example\n    " + more)


# -- settings -----------------------------------------------------------------------------------


def test_the_documents_file_is_read(tmp_path: Path) -> None:
    siem, slack = settings(tmp_path, DOCUMENTS_FILE, SIEM_TOKEN="t0ken")
    assert (siem.id, siem.bearer, siem.form) == ("webhook-1", "t0ken", "json")
    assert (slack.events, slack.form, slack.bearer) == (("validator_quorum_lost",), "slack", "")


def test_a_secret_can_stay_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "siem.token"
    secret.write_text("t0ken\n")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="let others read it"):
        settings(tmp_path, DOCUMENTS_FILE, SIEM_TOKEN_FILE=str(secret))
    secret.chmod(0o600)
    (hook, slack) = settings(tmp_path, DOCUMENTS_FILE, SIEM_TOKEN_FILE=str(secret))
    assert hook.bearer == "t0ken"
    (tmp_path / "hmac").write_text(SECRET_TEXT)
    (tmp_path / "hmac").chmod(0o600)
    (signed,) = one(tmp_path, "events: [fork_detected]\n    auth: {type: hmac, secret_file: hmac}")
    assert signed.secret == SECRET
    shown = repr((hook, slack, signed))
    assert "t0ken" not in shown
    assert "slack.com" not in shown, "Slack's address is a secret itself"
    assert repr(SECRET) not in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("events: [nonsense]", "unknown event"),
        ("events: []", "events"),
        ("events: fork_detected", "events"),
        ("events: [fork_detected]\n    colour: red", "no such key"),
        ("events: [fork_detected]\n    format: xml", "json or slack"),
        ("events: [fork_detected]\n    id: Big Name", "id"),
        ("events: [fork_detected]\n    allow_private: 1", "true or false"),
        ("events: [fork_detected]\n    auth: {type: basic}", "auth"),
        ("events: [fork_detected]\n    auth: {type: bearer}", "auth"),
        ("events: [fork_detected]\n    auth: {type: bearer, token: ''}", "empty"),
        ('events: [fork_detected]\n    auth: {type: bearer, token: "a\\r\\nb"}', "printable"),
        ("events: [fork_detected]\n    auth: {type: bearer, token: a, secret: b}", "one of"),
        ("events: [fork_detected]\n    auth: {type: hmac, secret: whsec_YWJj}", "24 to 64"),
        ("events: [fork_detected]\n    auth: {type: hmac, secret: '!!'}", "24 to 64"),
        ("events: [fork_detected]\n    auth: {type: bearer, token: '${NOT_SET}'}", "not set"),
        ("events: [fork_detected]\n    auth: {type: bearer, token_file: gone}", "gone"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        one(tmp_path, more)


@pytest.mark.parametrize(
    "url",
    ["http://x.example", "ftp://x", "https://", "https://u:p@x", "https://x:0", "https://x:99999",
     "https://x#f", "", "https://[", "file:///etc/passwd"],
)  # fmt: skip
def test_a_wrong_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        settings(tmp_path, f"webhooks: [{{url: '{url}', events: [fork_detected]}}]")


@pytest.mark.parametrize(
    "text", ["", "[]", "webhooks: 1", "webhooks: []\nmore: 1", "a: [", "webhooks: [1]"]
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        settings(tmp_path, text)
    with pytest.raises(HostError):
        read_hooks(tmp_path / "gone.yaml", {})


def test_a_mistake_does_not_quote_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, "events: [x]\n    auth: {type: hmac, secret: whsec_c2VjcmV0}")
    assert "c2VjcmV0" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, "webhooks:\n - {id: a, url: https://x, events: [fork_detected]}\n" * 1
                 + " - {id: a, url: https://x, events: [fork_detected]}")  # fmt: skip
    assert "used twice" in str(caught.value)


# -- what is told -------------------------------------------------------------------------------

SEEN: tuple[Observation, ...] = (
    FINAL,
    ledger.QuorumLost(8, 2, 3),
    ledger.ForkDetected((NodeId("edge-1"), 1), 9),
    ledger.NodeQuarantined(NodeId("edge-1"), 8),
    ledger.MisbehaviourDetected("validator-2", "VOTES"),
    ledger.VotingSuspended(12),
    ledger.ValidatorSetChanged(9, (), (NodeId("validator-3"),), ()),
    ledger.ValidatorSetChanged(9, (NodeId("validator-5"),), (), ()),
    ledger.ValidatorSetChanged(9, (), (), (NodeId("validator-1"),)),
    ledger.ValidatorApplied(NodeId("validator-5"), b"\x01" * 32, 9),
    ledger.SlashDue(NodeId("validator-3"), "VOTES", 9, b"\x01" * 32),
    ledger.NodeRevoked(NodeId("edge-1"), 9),
)


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: type(seen).__name__)
def test_every_event_has_a_body_and_a_sentence(seen: Observation) -> None:
    (event,) = events_of(seen, Instant(0))
    body = json.loads(render(event, SENDER, "json"))
    assert body["type"] == event.name
    assert body["data"]["node_id"] == "validator-1"
    assert list(json.loads(render(event, SENDER, "slack"))) == ["text"]


def test_the_documents_events_exist_and_others_are_not_told() -> None:
    named = {
        "checkpoint_finalized",
        "validator_quorum_lost",
        "fork_detected",
        "validator_removed",
    }
    assert named <= set(webhook_events.NAMES)
    both = ledger.ValidatorSetChanged(9, (NodeId("a"),), (NodeId("b"),), ())
    assert [event.name for event in events_of(both, Instant(0))] == [
        "validator_removed",
        "validator_admitted",
    ]
    assert events_of(Dropped(DropReason.SEAL), Instant(0)) == []
    (event,) = events_of(FINAL, Instant(0))
    assert json.loads(render(event, SENDER, "json"))["data"]["hash"] == "aa" * 32


def test_slack_text_cannot_carry_markup() -> None:
    (event,) = events_of(ledger.MisbehaviourDetected("<!channel> & co", "VOTES"), Instant(0))
    text = json.loads(render(event, SENDER, "slack"))["text"]
    assert "<" not in text
    assert "&lt;!channel&gt; &amp; co" in text


# -- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "name", "seconds", "body", "wanted"),
    [
        # From the public documentation of Standard Webhooks and of its first implementation.
        ("plJ3nmyCDGBKInavdOK15jsl", "msg_loFOjxBNrRLzqYUf", "1731705121",
         '{"event_type":"ping","data":{"success":true}}',
         "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330",
         '{"test": 2432232314}',
         "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ],
)  # fmt: skip
def test_signatures_are_those_of_standard_webhooks(
    secret: str, name: str, seconds: str, body: str, wanted: str
) -> None:
    assert sign(base64.b64decode(secret), Parcel(name, body.encode()), seconds) == wanted


def test_the_receiver_in_the_documents_checks_what_we_send() -> None:
    page = Path(__file__).parents[3] / "docs/operate/webhooks.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    now, body = Clock().now(), b'{"a":1}'
    headers = headers_of(hook_of("https://x", secret=SECRET), Parcel("msg_1", body), now)
    assert names["check"](SECRET_TEXT, headers, body) is True
    assert names["check"](SECRET_TEXT, headers, body + b" ") is False
    assert names["check"](SECRET_TEXT, headers | {"webhook-id": "msg_2"}, body) is False
    old = headers_of(hook_of("https://x", secret=SECRET), Parcel("msg_1", body), Instant(0))
    assert names["check"](SECRET_TEXT, old, body) is False


def hook_of(url: str, **more: object) -> Hook:
    fields: dict[str, object] = {
        "id": "siem",
        "url": url,
        "events": ("checkpoint_finalized",),
        "form": "json",
        "bearer": "",
        "secret": b"",
        "allow_private": True,
    }
    return Hook(**(fields | more))  # type: ignore[arg-type]


def test_each_attempt_has_the_same_id_and_its_own_time() -> None:
    hook, parcel = hook_of("https://x", secret=SECRET), Parcel("msg_1", b"{}")
    first = headers_of(hook, parcel, Instant(100 * SECOND))
    second = headers_of(hook, parcel, Instant(200 * SECOND))
    assert first["webhook-id"] == second["webhook-id"]
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("100", "200")
    assert first["webhook-signature"] != second["webhook-signature"]
    assert "authorization" not in first
    bearer = headers_of(hook_of("https://x", bearer="t"), parcel, Instant(0))
    assert bearer["authorization"] == "Bearer t"
    assert "webhook-signature" not in bearer


# -- where it may go ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
     "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0",
     "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
     "2002:7f00:1::", "2001:db8::1"],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are() -> None:
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(address)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", (address, 443)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(UnavailableError, match="not a public address"):
        resolve("evil.example", 443, allow_private=False)
    assert resolve("inside.example", 443, allow_private=True) == "8.8.8.8"


def test_a_private_receiver_is_not_reached_unless_allowed() -> None:
    for url in (
        "https://127.0.0.1:1/",
        "https://localhost/",
        "https://[::1]/",
        "https://2130706433/",
    ):
        outcome = post(hook_of(url, allow_private=False), Parcel("m", b""), Instant(0))
        assert outcome.status == 0
        assert "not a public address" in outcome.error


# -- a real receiver ----------------------------------------------------------------------------


class Receiver:
    """A receiver in fifteen lines that checks what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(outer.status)
                self.send_header("location", "http://127.0.0.1:1/")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def test_a_receiver_can_check_what_it_gets(receiver: Receiver) -> None:
    hook, parcel = hook_of(receiver.url, secret=SECRET), Parcel("msg_1", b'{"a":1}')
    assert post(hook, parcel, Instant(1_700_000_000 * SECOND)) == Outcome(200)
    ((headers, body),) = receiver.got
    seconds = headers["webhook-timestamp"]
    assert headers["webhook-signature"] == sign(
        SECRET, Parcel(headers["webhook-id"], body), seconds
    )
    assert headers["webhook-signature"] != sign(SECRET, Parcel("msg_2", body), seconds)
    assert headers["webhook-signature"] != sign(SECRET, Parcel("msg_1", body + b" "), seconds)


def test_redirects_are_not_followed_and_silence_is_told(receiver: Receiver) -> None:
    receiver.status = 302
    assert post(hook_of(receiver.url), Parcel("m", b""), Instant(0)).status == 302
    assert len(receiver.got) == 1
    receiver.server.shutdown()
    receiver.server.server_close()
    outcome = post(hook_of(receiver.url, bearer="t0ken"), Parcel("m", b""), Instant(0))
    assert outcome == Outcome(0, "ConnectionRefusedError")


async def until(reached: object, seconds: float = 10.0) -> None:
    assert callable(reached)
    deadline = asyncio.get_running_loop().time() + seconds
    while not reached():
        assert asyncio.get_running_loop().time() < deadline, "in time"
        await asyncio.sleep(0.02)


def test_a_node_tells_and_remembers_over_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    hooks = (hook_of(receiver.url, secret=SECRET),)

    async def tell() -> None:
        meter = Meter()
        first = WebhookService(hooks, SENDER, tmp_path, Clock(), meter)
        first.report(FINAL)
        first.report(ledger.QuorumLost(8, 2, 3))  # nobody asked for that
        await first.end()  # a crash before anything was sent
        assert receiver.got == []
        second = WebhookService(hooks, SENDER, tmp_path, Clock(), meter)
        running = asyncio.create_task(second.run())
        await until(lambda: second.waiting == 0)
        assert [json.loads(body)["data"]["epoch"] for _, body in receiver.got] == [147]
        receiver.status = 410
        second.report(FINAL)
        await until(lambda: second.waiting == 0)
        side = WebhookStore(tmp_path)
        (dead,) = side.all(State.DEAD)
        assert dead.error == "status 410"
        receiver.status = 200
        assert side.ask_again() == 1
        await until(lambda: len(receiver.got) == 3)
        await until(lambda: side.all() == [])
        assert receiver.got[1][0]["webhook-id"] == receiver.got[2][0]["webhook-id"] == dead.id
        side.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await second.end()
        counts = meter.snapshot()["hookprobe_webhook_deliveries_total"]
        assert counts == {"delivered": 2, "dead": 1}

    asyncio.run(tell())


def test_a_service_stops_also_when_news_come_at_that_moment(tmp_path: Path) -> None:
    async def stop() -> None:
        hooks = (hook_of("http://127.0.0.1:1/"),)
        service = WebhookService(hooks, SENDER, tmp_path, Clock(), Meter(), lambda *_: Outcome(200))
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0.05)
        service._news.set()
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
        assert done, "a cancellation is not lost"
        await service.end()

    asyncio.run(stop())


def test_a_store_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    async def fail() -> None:
        hooks = (hook_of("http://127.0.0.1:1/"),)
        service = WebhookService(hooks, SENDER, tmp_path, Clock(), Meter(), lambda *_: Outcome(200))
        service.report(FINAL)

        def broken(delivery_id: str) -> None:
            raise HostError("disk full")

        service._store.forget = broken  # type: ignore[method-assign]
        with pytest.raises(HostError, match="disk full"):
            await asyncio.wait_for(service.run(), 10)
        await service.end()

    asyncio.run(fail())


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    store = WebhookStore(tmp_path)
    store._database.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(HostError, match="format 99"):
        WebhookStore(tmp_path)

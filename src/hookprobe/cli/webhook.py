"""`hookprobe webhook list|test|replay`: who is told what, whether it arrives, and once more."""

import os
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import Row, emit, emit_one, message
from hookprobe.config.load import Config, load
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.errors import ConfigError, NotFoundError, UnauthorizedError, UnavailableError
from hookprobe.runtime import folders, webhook_post
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.keystore import read_file
from hookprobe.runtime.webhook_events import TEST_EVENT, Event, Sender, render
from hookprobe.runtime.webhook_outbox import State
from hookprobe.runtime.webhook_post import Parcel
from hookprobe.runtime.webhook_service import new_id
from hookprobe.runtime.webhook_settings import Hook, read_hooks
from hookprobe.runtime.webhook_store import WebhookStore
from hookprobe.wire.instant import MILLISECOND, format_iso


@click.group()
def webhook() -> None:
    """Webhooks of a node."""


def _hooks(settings: Config) -> tuple[Hook, ...]:
    if not settings.text("webhooks.path"):
        raise ConfigError(
            ["webhooks.path: no file of webhooks is set"], hint="docs/operate/webhooks.md"
        )
    return read_hooks(settings.file("webhooks.path"))


@webhook.command(name="list")
@config_option
@click.option("--dead", is_flag=True, help="The deliveries that were given up, one by one.")
@form_option
def list_hooks(path: Path | None, dead: bool, form: str | None) -> None:
    """Receivers, and how many deliveries wait or were given up."""
    settings = load(path, os.environ, {})
    hooks = _hooks(settings)
    store = WebhookStore(settings.file("state.path"))
    try:
        emit(_dead(store) if dead else _summary(hooks, store), form)
    finally:
        store.close()


def _summary(hooks: tuple[Hook, ...], store: WebhookStore) -> list[Row]:
    counts = store.counts()
    return [
        {
            "id": hook.id,
            "host": hook.host,
            "events": list(hook.events),
            "format": hook.form,
            "auth": "bearer" if hook.bearer else "hmac" if hook.secret else "none",
            "waiting": counts.get((hook.id, "waiting"), 0) + counts.get((hook.id, "asked"), 0),
            "dead": counts.get((hook.id, "dead"), 0),
        }
        for hook in hooks
    ]


def _dead(store: WebhookStore) -> list[Row]:
    return [
        {
            "id": item.id,
            "hook": item.hook,
            "event": item.event,
            "created": format_iso(item.created),
            "attempts": item.attempts,
            "error": item.error,
        }
        for item in store.all(State.DEAD)
    ]


@webhook.command()
@config_option
@click.argument("name")
@form_option
def test(path: Path | None, name: str, form: str | None) -> None:
    """Post a test event now, once; exit 4 without an answer, 5 if it is refused."""
    settings = load(path, os.environ, {})
    hook = next((each for each in _hooks(settings) if each.id == name), None)
    if hook is None:
        raise NotFoundError(f"no webhook {name[:40]!r}", hint="hookprobe webhook list")
    genesis_path = settings.file("identity.path") / folders.GENESIS_FILE
    chain = decode_genesis(read_file(genesis_path, limit=1 << 20)).chain_id().hex()
    clock = Clock()
    start = clock.now()
    event = Event(TEST_EVENT, {}, "this is a test", start)
    body = render(event, Sender(settings.text("dsm.node.id"), chain), hook.form)
    outcome = webhook_post.post(hook, Parcel(new_id(), body), start)
    took_ms = (clock.now() - start) // MILLISECOND
    emit_one({"id": hook.id, "status": outcome.status, "ms": took_ms, "error": outcome.error}, form)
    if not outcome.status:
        raise UnavailableError(f"{hook.host}: {outcome.error}")
    if not 200 <= outcome.status < 300:
        raise UnauthorizedError(f"{hook.host} answered with status {outcome.status}")


@webhook.command()
@config_option
@click.option("--failed", is_flag=True, help="All that were given up.")
@click.option("--hook", default="", help="Those of one receiver.")
@click.option("--id", "delivery_id", default="", help="One of them.")
def replay(path: Path | None, failed: bool, hook: str, delivery_id: str) -> None:
    """Ask the node to send again what was given up; it does so while it runs."""
    if not (failed or hook or delivery_id):
        raise ConfigError(["say which: --failed, --hook ID or --id ID"])
    settings = load(path, os.environ, {})
    store = WebhookStore(settings.file("state.path"))
    try:
        count = store.ask_again(hook, delivery_id)
    finally:
        store.close()
    if not count:
        raise NotFoundError("no such delivery was given up", hint="hookprobe webhook list --dead")
    message(f"{count} to be sent again")

"""`hookprobe token create|list|revoke`: who may ask a node's query API."""

import os
import secrets
from pathlib import Path

import click

from hookprobe.cli.configuration import config_option, form_option
from hookprobe.cli.output import emit, emit_one, message
from hookprobe.config.load import load
from hookprobe.errors import ConfigError
from hookprobe.runtime import access
from hookprobe.runtime.access import Grant, Role, TokenFile
from hookprobe.runtime.api_routes import parse_span
from hookprobe.runtime.clock import Clock
from hookprobe.wire.instant import Instant, format_iso


@click.group()
def token() -> None:
    """Tokens of the query API."""


def _file(path: Path | None) -> TokenFile:
    return TokenFile(load(path, os.environ, {}).file("state.path"))


@token.command()
@config_option
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default="reader",
    show_default=True,
    help="reader: no payloads; tenant: its own; auditor: all.",
)
@click.option("--tenant", default="", help="The pseudonym in its nodes' certificates.")
@click.option("--expires", default="90d", show_default=True, help="A span like 12h or 90d.")
@click.option("--note", default="", help="For whom; shown by list.")
@form_option
def create(
    path: Path | None, role: str, tenant: str, expires: str, note: str, form: str | None
) -> None:
    """Make a token and show it, once."""
    now = Clock().now()
    grant = Grant(Role(role), tenant, parse_span(expires), note)
    text, made = access.issue(grant, now, secrets.token_bytes)
    _file(path).add(made, now)
    emit_one(
        {"token": text, "id": made.id, "role": role, "expires": format_iso(made.expires)}, form
    )
    message("this is the only time the token is shown")


@token.command(name="list")
@config_option
@form_option
def list_tokens(path: Path | None, form: str | None) -> None:
    """All tokens, never their text."""
    now = Clock().now()
    emit(
        [
            {
                "id": each.id,
                "role": each.role.value,
                "tenant": each.tenant,
                "state": "active" if each.expires > now else "expired",
                "expires": format_iso(Instant(each.expires)),
                "note": each.note,
            }
            for each in _file(path).all()
        ],
        form,
    )


@token.command()
@config_option
@click.argument("token_id")
def revoke(path: Path | None, token_id: str) -> None:
    """Forget a token; it is refused from the next request on."""
    if token_id.startswith(access.PREFIX):
        raise ConfigError(["name the token by its id; its text belongs on no command line"])
    _file(path).revoke(token_id)
    message(f"{token_id}: revoked")

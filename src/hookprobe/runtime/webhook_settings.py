"""Reading `dsm-webhooks.yaml`: who is told what, and how they know that it is us.

    webhooks:
      - id: siem-1                        # optional: the name in commands and logs
        url: "https://siem.example/hookprobe/events"
        events: ["checkpoint_finalized"]
        auth: {type: bearer, token: "${SIEM_TOKEN}"}

`auth` may be `{type: bearer, token: ...}` or `{type: hmac, secret: whsec_...}`, and `token_file` or
`secret_file` in place of the value. `${NAME}` is the environment's NAME, or the content of the file
that NAME_FILE names. `format` is json or slack. Where a receiver is on a private network,
`allow_private: true` says so; plain http goes nowhere else.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from hookprobe.errors import ConfigError, HookProbeError
from hookprobe.runtime.keystore import read_file, read_private
from hookprobe.runtime.webhook_events import NAMES

FILE_MAX_BYTES = 1 << 18
HOOKS_MAX = 100
SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret begins with)
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_KEYS = {"id", "url", "events", "format", "auth", "allow_private"}
_AUTH_KEYS = {"bearer": "token", "hmac": "secret"}


@dataclass(frozen=True, slots=True)
class Hook:
    """One receiver.

    Attributes:
        id: Its name.
        url: Where it listens; it may hold a secret itself, as Slack's does, and is never logged.
        events: The names of the events it wants.
        form: json or slack.
        bearer: Token to send; empty for none.
        secret: Key of the HMAC signature; empty for none.
        allow_private: Whether it may be on a private network, or speak plain http.
    """

    id: str
    url: str = field(repr=False)
    events: tuple[str, ...]
    form: str
    bearer: str = field(repr=False)
    secret: bytes = field(repr=False)
    allow_private: bool

    @property
    def host(self) -> str:
        """The part of the URL that may be shown."""
        return urlsplit(self.url).hostname or ""


@dataclass(slots=True)
class _Reading:
    """One file being read, with all that is wrong in it."""

    path: Path
    environment: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def wrong(self, where: str, what: str) -> None:
        self.problems.append(f"{self.path}: {where}: {what}")

    def expand(self, text: str, where: str) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match[1]
            named = self.environment.get(f"{name}_FILE")
            if named and name not in self.environment:
                return self.secret_file(named, where)
            if name not in self.environment:
                self.wrong(where, f"environment variable {name} is not set, nor {name}_FILE")
            return self.environment.get(name, "")

        return _VARIABLE.sub(replace, text)

    def secret_file(self, name: str, where: str) -> str:
        try:
            return read_private(self.path.parent / name).decode("utf-8", "replace").strip()
        except HookProbeError as error:
            self.wrong(where, error.message)
            return ""


def read_hooks(path: Path, environment: Mapping[str, str] | None = None) -> tuple[Hook, ...]:
    """Read all receivers.

    Raises:
        ConfigError: Names everything that is wrong; never a secret.
        HostError: The file cannot be read.
    """
    reading = _Reading(path, os.environ if environment is None else environment)
    try:
        document = yaml.safe_load(read_file(path, limit=FILE_MAX_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError([f"{path}{line}: not YAML"]) from error
    items = document.get("webhooks") if isinstance(document, dict) else None
    if not isinstance(items, list) or set(document) != {"webhooks"} or len(items) > HOOKS_MAX:
        raise ConfigError([f"{path}: one list `webhooks` of at most {HOOKS_MAX} is wanted"])
    hooks = [_hook(reading, number, item) for number, item in enumerate(items, 1)]
    names = [hook.id for hook in hooks if hook is not None]
    for name in sorted(dict.fromkeys(name for name in names if names.count(name) > 1)):
        reading.wrong(name, "the id is used twice")
    if reading.problems:
        raise ConfigError(reading.problems, hint=f"events: {', '.join(NAMES)}")
    return tuple(hook for hook in hooks if hook is not None)


def _hook(reading: _Reading, number: int, item: object) -> Hook | None:
    where = f"webhooks[{number}]"
    if not isinstance(item, dict):
        reading.wrong(where, "keys and values are wanted")
        return None
    for name in sorted(str(key) for key in item.keys() - _KEYS):
        reading.wrong(where, f"{name}: no such key")
    name = item.get("id", f"webhook-{number}")
    if not isinstance(name, str) or _ID.fullmatch(name) is None:
        reading.wrong(where, "id: 1 to 32 of a-z, 0-9 and '-' are wanted")
    form = item.get("format", "json")
    if form not in {"json", "slack"}:
        reading.wrong(where, "format: json or slack")
    private = item.get("allow_private", False)
    if not isinstance(private, bool):
        reading.wrong(where, "allow_private: true or false")
    bearer, secret = _auth(reading, where, item.get("auth"))
    url = _url(reading, where, item.get("url"), private=private is True)
    events = _events(reading, where, item.get("events"))
    return Hook(str(name), url, events, str(form), bearer, secret, private is True)


def _url(reading: _Reading, where: str, value: object, *, private: bool) -> str:
    url = reading.expand(value, where) if isinstance(value, str) else ""
    try:
        parts = urlsplit(url)
        known = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, known = urlsplit(""), False
    if not known or parts.scheme not in {"https", "http"} or parts.username or parts.fragment:
        reading.wrong(where, "url: https://host[:port]/path without a user is wanted")
    elif parts.scheme == "http" and not private:
        reading.wrong(where, "url: plain http needs allow_private: true")
    return url


def _events(reading: _Reading, where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        reading.wrong(where, "events: a list of names is wanted")
        return ()
    for name in value:
        if name not in NAMES:
            reading.wrong(where, f"events: unknown event {str(name)[:40]!r}")
    return tuple(str(name) for name in value)


def _auth(reading: _Reading, where: str, value: object) -> tuple[str, bytes]:
    """Return bearer token and HMAC key; at most one of them is not empty."""
    if value is None:
        return "", b""
    kind = value.get("type") if isinstance(value, dict) else None
    name = _AUTH_KEYS.get(str(kind))
    if not isinstance(value, dict) or name is None:
        reading.wrong(where, "auth: {type: bearer, token: ...} or {type: hmac, secret: ...}")
        return "", b""
    text, file = value.get(name), value.get(f"{name}_file")
    if set(value) != {"type", name if file is None else f"{name}_file"}:
        reading.wrong(where, f"auth: type and one of {name} or {name}_file are wanted")
        return "", b""
    if file is not None:
        found = reading.secret_file(str(file), where)
    else:
        found = reading.expand(text, where) if isinstance(text, str) else ""
    if kind == "hmac":
        return "", _secret(reading, where, found)
    if not found.isascii() or not found.isprintable() or not found:
        reading.wrong(where, "auth: the token is empty or not printable ASCII")
    return found, b""


def _secret(reading: _Reading, where: str, text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        reading.wrong(where, "auth: the secret is whsec_ and the base64 of 24 to 64 bytes")
    return secret

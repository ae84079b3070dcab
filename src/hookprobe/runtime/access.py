"""Who may ask the query API, and what they may see: tokens, roles, tenants.

A token is `hp_` and 43 characters (32 random bytes, base64url). It is shown once, when it is made;
`tokens.json` in the node's state folder keeps its SHA-256 only. A hash without salt is right here:
nobody guesses 32 random bytes. A token ends by itself after 90 days unless told otherwise.

| role | blocks and checkpoints | payloads |
|---|---|---|
| reader | all | none |
| tenant | its own tenant's nodes | its own tenant's |
| auditor | all | all |
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from hookprobe.errors import (
    HostError,
    LimitExceededError,
    MalformedError,
    NotFoundError,
    UnauthorizedError,
)
from hookprobe.runtime.keystore import read_file, write_atomically
from hookprobe.wire.instant import DAY, Instant

TOKENS_FILE = "tokens.json"
PREFIX = "hp_"
SECRET_BYTES = 32
TOKEN_CHARS = len(PREFIX) + 43
LIFE_US = 90 * DAY
LIFE_MAX_US = 366 * DAY
TOKENS_MAX = 1_000
NOTE_CHARS_MAX = 80
_FILE_MAX_BYTES = 1 << 20
_ID_CHARS = 12


@unique
class Role(Enum):
    """What a token is for."""

    READER = "reader"
    TENANT = "tenant"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        key: What the rate limit counts by: the token's id, or where the request came from.
        role: What they are.
        tenant: The pseudonym of their tenant in node certificates; for role tenant only.
    """

    key: str
    role: Role
    tenant: str = ""

    def sees_node(self, tenant: str) -> bool:
        """Whether they may see blocks of a tenant's nodes; an unknown tenant is nobody's."""
        return self.role is not Role.TENANT or (bool(tenant) and tenant == self.tenant)

    def sees_payload(self, tenant: str) -> bool:
        """Whether they may read what those blocks are about."""
        return self.role is not Role.READER and self.sees_node(tenant)


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token."""

    id: str
    digest: str
    role: Role
    tenant: str
    created: Instant
    expires: Instant
    note: str

    def to_json(self) -> dict[str, object]:
        return {
            "created": self.created,
            "expires": self.expires,
            "id": self.id,
            "note": self.note,
            "role": self.role.value,
            "sha256": self.digest,
            "tenant": self.tenant,
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new token shall be."""

    role: Role
    tenant: str = ""
    life_us: int = LIFE_US
    note: str = ""


def issue(grant: Grant, now: Instant, random_bytes: Callable[[int], bytes]) -> tuple[str, Token]:
    """Make a token.

    Returns:
        Its text, which is kept nowhere, and what is kept.

    Raises:
        MalformedError: Role and tenant do not fit each other.
        LimitExceededError: A life or note that is too long.
    """
    if (grant.role is Role.TENANT) != bool(grant.tenant):
        raise MalformedError("a tenant belongs to role tenant, and to no other")
    if not 0 < grant.life_us <= LIFE_MAX_US or len(grant.note) > NOTE_CHARS_MAX:
        raise LimitExceededError("a token lives 1 to 366 days, its note has 80 characters at most")
    secret = base64.urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    text = PREFIX + secret
    found = _digest(text)
    expires = Instant(now + grant.life_us)
    return text, Token(found[:_ID_CHARS], found, grant.role, grant.tenant, now, expires, grant.note)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TokenFile:
    """The tokens of one node; a change of the file counts from the next request on.

    Args:
        folder: The node's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TOKENS_FILE
        self._seen: tuple[int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def check(self, text: str, now: Instant) -> Caller:
        """Return who holds this token.

        Raises:
            UnauthorizedError: Nobody, or not any more.
        """
        self._refresh()
        # The lookup is by a hash of 32 random bytes: its timing tells nothing about a token.
        token = self._tokens.get(_digest(text)) if len(text) == TOKEN_CHARS else None
        if token is None:
            raise UnauthorizedError("unknown token", hint="hookprobe token create --help")
        if token.expires <= now:
            raise UnauthorizedError(f"token {token.id} has expired", hint="make a new one")
        return Caller(f"token {token.id}", token.role, token.tenant)

    def all(self) -> list[Token]:
        """Return all tokens, oldest first."""
        self._refresh()
        return sorted(self._tokens.values(), key=lambda token: (token.created, token.id))

    def add(self, token: Token, now: Instant) -> None:
        """Keep a token; those that have expired are forgotten.

        Raises:
            LimitExceededError: There are too many.
        """
        kept = [each for each in self.all() if each.expires > now]
        if len(kept) >= TOKENS_MAX:
            raise LimitExceededError(f"{TOKENS_MAX} tokens are in use", hint="revoke some")
        self._write([*kept, token])

    def revoke(self, token_id: str) -> None:
        """Forget a token.

        Raises:
            NotFoundError: There is none with this id.
        """
        kept = [each for each in self.all() if each.id != token_id]
        if len(kept) == len(self._tokens):
            raise NotFoundError(f"no token {token_id[:40]!r}", hint="hookprobe token list")
        self._write(kept)

    def _write(self, tokens: Sequence[Token]) -> None:
        document = json.dumps([token.to_json() for token in tokens], indent=1)
        write_atomically(self._path, document.encode(), mode=0o600)
        self._seen = None

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._tokens, self._seen = {}, None
            return
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_ino)
        if seen != self._seen:
            self._tokens = {token.digest: token for token in self._read()}
            self._seen = seen

    def _read(self) -> list[Token]:
        try:
            document = json.loads(read_file(self._path, limit=_FILE_MAX_BYTES))
            return [
                Token(
                    str(item["id"]),
                    str(item["sha256"]),
                    Role(item["role"]),
                    str(item["tenant"]),
                    Instant(int(item["created"])),
                    Instant(int(item["expires"])),
                    str(item["note"]),
                )
                for item in document
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(f"{self._path}: not a token file") from error

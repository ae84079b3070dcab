"""Tokens of the query API: kept as hashes, for a time, for a role."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hookprobe.errors import (
    HostError,
    LimitExceededError,
    MalformedError,
    NotFoundError,
    UnauthorizedError,
)
from hookprobe.runtime import access
from hookprobe.runtime.access import Caller, Grant, Role, TokenFile, issue
from hookprobe.wire.instant import DAY, Instant

NOW = Instant(1_000 * DAY)
READER = Grant(Role.READER)


def secret(byte: int = 7) -> Callable[[int], bytes]:
    return lambda count: bytes([byte]) * count


def test_a_token_is_known_until_it_expires(tmp_path: Path) -> None:
    text, token = issue(Grant(Role.TENANT, "acme"), NOW, secret())
    tokens = TokenFile(tmp_path)
    tokens.add(token, NOW)
    last = Instant(NOW + 90 * DAY - 1)
    assert tokens.check(text, last) == Caller(f"token {token.id}", Role.TENANT, "acme")
    with pytest.raises(UnauthorizedError, match="expired"):
        tokens.check(text, Instant(last + 1))


def test_the_file_holds_no_token_and_is_private(tmp_path: Path) -> None:
    text, token = issue(READER, NOW, secret())
    TokenFile(tmp_path).add(token, NOW)
    path = tmp_path / access.TOKENS_FILE
    assert text.removeprefix("hp_") not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert text not in repr(token)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t[:-2] + "zz",
        lambda t: t.upper(),
        lambda _: "",
        lambda _: "hp_",
    ],
)
def test_another_token_is_nobody(tmp_path: Path, change: Callable[[str], str]) -> None:
    text, token = issue(READER, NOW, secret())
    tokens = TokenFile(tmp_path)
    tokens.add(token, NOW)
    with pytest.raises(UnauthorizedError):
        tokens.check(change(text), NOW)
    with pytest.raises(UnauthorizedError):
        tokens.check(token.digest, NOW)


def test_a_revoked_token_is_refused_by_who_read_it_before(tmp_path: Path) -> None:
    text, token = issue(READER, NOW, secret())
    here, there = TokenFile(tmp_path), TokenFile(tmp_path)
    here.add(token, NOW)
    there.check(text, NOW)
    here.revoke(token.id)
    with pytest.raises(UnauthorizedError):
        there.check(text, NOW)
    with pytest.raises(NotFoundError):
        here.revoke(token.id)


def test_there_is_a_limit_and_the_expired_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TOKENS_MAX", 2)
    tokens = TokenFile(tmp_path)
    for byte in (1, 2):
        tokens.add(issue(READER, NOW, secret(byte))[1], NOW)
    with pytest.raises(LimitExceededError):
        tokens.add(issue(READER, NOW, secret(3))[1], NOW)
    later = Instant(NOW + 91 * DAY)
    tokens.add(issue(READER, later, secret(3))[1], later)
    assert len(tokens.all()) == 1


def test_a_grant_must_make_sense() -> None:
    for grant in (Grant(Role.TENANT), Grant(Role.READER, "acme"), Grant(Role.AUDITOR, "acme")):
        with pytest.raises(MalformedError):
            issue(grant, NOW, secret())
    for grant in (
        Grant(Role.READER, life_us=0),
        Grant(Role.READER, life_us=367 * DAY),
        Grant(Role.READER, note="x" * 81),
    ):
        with pytest.raises(LimitExceededError):
            issue(grant, NOW, secret())


@pytest.mark.parametrize("text", ["{", "{}x", '[{"id": 1}]', "[1]", '[{"role": "king"}]'])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    (tmp_path / access.TOKENS_FILE).write_text(text)
    with pytest.raises(HostError):
        TokenFile(tmp_path).check("hp_" + "A" * 43, NOW)


def test_roles_see_what_they_may() -> None:
    rows = {
        Caller("r", Role.READER): (True, True, False, False),
        Caller("t", Role.TENANT, "acme"): (True, False, True, False),
        Caller("t", Role.TENANT, ""): (False, False, False, False),
        Caller("a", Role.AUDITOR): (True, True, True, True),
    }
    for caller, wanted in rows.items():
        seen = (caller.sees_node("acme"), caller.sees_node("rival"))
        read = (caller.sees_payload("acme"), caller.sees_payload("rival"))
        assert seen + read == wanted, caller
        assert caller.sees_node("") is (caller.role is not Role.TENANT)
    assert json.dumps([role.value for role in Role]) == '["reader", "tenant", "auditor"]'

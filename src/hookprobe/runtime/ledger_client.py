"""`DSMClient`: questions to a node's query API; answers are checked before they are given.

    from hookprobe.dsm import DSMClient

    client = DSMClient()
    checkpoint = client.get_checkpoint(epoch=147)

Where nothing is said, the environment is asked: HOOKPROBE_API_URL, HOOKPROBE_API_TOKEN_FILE or
HOOKPROBE_API_TOKEN, and HOOKPROBE_TRUST (a chain id or a genesis.json); then the folder
`~/.config/hookprobe` with `token` and `genesis.json`. A client that does not know which mesh to
trust refuses to answer. Tokens go to https and to this very machine only; redirects are not
followed.
"""

import asyncio
import http.client
import json
import os
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from hookprobe.detection.attack import Category
from hookprobe.detection.privacy import SharedEvent
from hookprobe.dsm.checkpoint import Header
from hookprobe.dsm.microblock import SignedBlock
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
from hookprobe.node.casebook import EVENT_TYPE
from hookprobe.runtime.api_handlers import threat_category
from hookprobe.runtime.keystore import read_file, read_private
from hookprobe.runtime.ledger_answers import read_block
from hookprobe.runtime.ledger_checks import AnswerChecker, trusted_court
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject, check_nesting
from hookprobe.wire.identifiers import (
    parse_block_id,
    parse_chain_id,
    parse_epoch,
    parse_node_id,
)

URL_DEFAULT = "http://127.0.0.1:4780"
ANSWER_MAX_BYTES = 16 << 20
ANSWER_DEPTH_MAX = 32
BLOCKS_MAX = 100_000
PAGES_MAX = 10_000
BUSY_TRIES = 5
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ERRORS: Mapping[str, type[HookProbeError]] = {
    error.code: error
    for error in (
        LimitExceededError,
        MalformedError,
        NotFoundError,
        UnauthorizedError,
        UnavailableError,
    )
}

Fetch = Callable[[str], JsonObject]
"""Asks for a path with its query; raises `HookProbeError`."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the client trusts: the id of a chain, or its genesis document."""

    chain: bytes | None
    genesis: bytes | None


class HttpFetch:
    """Asks a server.

    Args:
        url: http or https, host and port; nothing else.
        token: Of the API; empty for none.
        timeout_s: For each request.

    Raises:
        ConfigError: Not such a URL, or a token would go over an open line.
    """

    def __init__(self, url: str, token: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
            raise ConfigError([f"url: {url[:80]!r} is not http(s)://host:port"])
        if parts.scheme == "http" and token and parts.hostname not in _LOOPBACK:
            raise ConfigError(
                [f"url: a token does not go over http to {parts.hostname}"], hint="use https"
            )
        self._secure = parts.scheme == "https"
        self._place = (parts.hostname, parts.port)
        self._token = token
        self._timeout_s = timeout_s

    def __call__(self, path: str) -> JsonObject:
        pause = threading.Event()
        for _ in range(BUSY_TRIES - 1):
            try:
                return self._ask(path)
            except LimitExceededError:
                pause.wait(1.0)  # the server counts by the second
        return self._ask(path)

    def _ask(self, path: str) -> JsonObject:
        host, port = self._place
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        headers = {"accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(ANSWER_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"{host}: {str(error) or type(error).__name__}", hint="does the API run there?"
            ) from error
        finally:
            connection.close()
        if len(body) > ANSWER_MAX_BYTES:
            raise MalformedError(f"an answer of more than {ANSWER_MAX_BYTES} bytes")
        return _read(response.status, body, host)


def _read(status: int, body: bytes, host: str) -> JsonObject:
    try:
        check_nesting(body, ANSWER_DEPTH_MAX)
        document = json.loads(body)
    except (ValueError, LimitExceededError) as error:
        raise UnavailableError(f"{host}: status {status}, no answer of this API") from error
    if not isinstance(document, dict):
        raise MalformedError(f"{host}: an object is wanted")
    if status != 200:
        kind = _ERRORS.get(str(document.get("code")), UnavailableError)
        raise kind(
            f"{host}: {str(document.get('detail'))[:200]}",
            hint=str(document.get("hint") or "")[:200],
        )
    return document


class DSMClient:
    """Asks one node about the mesh's ledger.

    Args:
        url: The node's API.
        token: Of that API.
        trust: The chain to trust: its id (64 hex digits), or the path of a genesis.json.
        timeout_s: For each request.
        fetch: Asks in place of HTTP; for programs that have a way of their own.

    Raises:
        ConfigError: Something named here or in the environment is not what it should be.
        HostError: A file named here or in the environment cannot be read.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        trust: str | Path | None = None,
        timeout_s: float = 10.0,
        fetch: Fetch | None = None,
    ) -> None:
        environment = os.environ
        self._fetch = fetch or HttpFetch(
            url or environment.get("HOOKPROBE_API_URL") or URL_DEFAULT,
            token if token is not None else _find_token(environment),
            timeout_s,
        )
        self._anchor = _find_anchor(trust, environment)
        self._checker: AnswerChecker | None = None

    # -- the documents' calls -----------------------------------------------------------------

    def get_microblocks(
        self,
        node_id: str,
        start_seq: int = 1,
        end_seq: int | None = None,
        event_type: str | None = None,
    ) -> list[JsonObject]:
        """Return blocks of a node, in the order of its chain.

        Args:
            node_id: The node.
            start_seq: The first number.
            end_seq: The last number; None for all there are.
            event_type: Only blocks of this type.

        Returns:
            Objects with the documents' fields, and `payload` where that was disclosed.

        Raises:
            RemoteError: The node is not known, or an answer does not hold.
            LimitExceededError: More than 100,000 blocks.
            UnavailableError: No answer.
        """
        node = parse_node_id(node_id)
        self._learn(node)
        query: dict[str, object] = {"node_id": node, "start_seq": start_seq, "limit": 500}
        query |= {"end_seq": end_seq} if end_seq is not None else {}
        query |= {"event_type": event_type} if event_type is not None else {}
        items = self._pages("/api/v1/microblocks", query)
        checker = self._checked()
        blocks = [checker.check_block(item) for item in items]
        for signed in blocks:
            inside = start_seq <= signed.seq and (end_seq is None or signed.seq <= end_seq)
            if signed.block.node_id != node or not inside:
                raise VerificationError(f"block {signed.id.hex()[:16]} was not asked for")
            if event_type is not None and signed.block.event_type != event_type:
                raise VerificationError(f"block {signed.id.hex()[:16]} is of another type")
        if event_type is None:
            checker.check_run(blocks, max(1, start_seq))
        return items

    def get_checkpoint(self, epoch: int) -> JsonObject:
        """Return the final checkpoint of an epoch; its certificate and ranges hold.

        Raises:
            NotFoundError: The server does not have it.
            RemoteError: An answer does not hold.
            UnavailableError: No answer.
        """
        document = self._fetch(f"/api/v1/checkpoints/{parse_epoch(epoch)}")
        self._following(document).check_checkpoint(document, epoch)
        return document

    def verify_block_in_checkpoint(self, block_id: str, checkpoint_epoch: int) -> bool:
        """Say whether the mesh's checkpoint of this epoch holds a block.

        Returns:
            True only if the server proved it; False if it has no such block or its proof does not
            hold. `prove_block_in_checkpoint` says why.

        Raises:
            UnavailableError: No answer, which is no proof of anything.
            UnauthorizedError: The server does not answer to this token.
        """
        try:
            self.prove_block_in_checkpoint(block_id, checkpoint_epoch)
        except UnauthorizedError:
            raise
        except RemoteError:
            return False
        return True

    def query_threat_intel(
        self, threat_type: str | None = None, time_range: str = "24h"
    ) -> list[JsonObject]:
        """Return incidents that nodes of the mesh disclosed to this client.

        Args:
            threat_type: c2, scan, exploit, anomaly, or a category of incidents; None for all.
            time_range: How far back: 90s, 15m, 24h, 30d.

        Returns:
            The fields of each incident, with `block_id` and `node_id`; signed by that node.

        Raises:
            RemoteError: The question or an answer does not hold.
            UnavailableError: No answer.
        """
        query: dict[str, object] = {"time_range": time_range, "limit": 500}
        query |= {"threat_type": threat_type} if threat_type is not None else {}
        items = self._pages("/api/v1/threat-intel", query)
        wanted = threat_category(threat_type or "")
        return [self._incident(item, wanted) for item in items]

    # -- beyond the documents -----------------------------------------------------------------

    def prove_block_in_checkpoint(self, block_id: str, checkpoint_epoch: int) -> JsonObject:
        """Return a block after its proof held.

        Raises:
            NotFoundError: The checkpoint does not hold it, says the server.
            RemoteError: The answer does not hold; the message says what.
            UnavailableError: No answer.
        """
        name, epoch = parse_block_id(block_id), parse_epoch(checkpoint_epoch)
        document = self._fetch(f"/api/v1/checkpoints/{epoch}/blocks/{name}")
        self._following(document).check_inclusion(document, bytes.fromhex(name), epoch)
        block = document["block"]
        assert isinstance(block, dict), "read above"
        return block

    def verify_history(self, old_epoch: int, new_epoch: int) -> bool:
        """Say whether the history before one checkpoint is the beginning of that before another.

        Raises:
            UnavailableError: No answer.
        """
        try:
            old, new = self._header(old_epoch), self._header(new_epoch)
            proof = self._fetch(
                f"/api/v1/history/consistency?old={old.history_size}&new={new.history_size}"
            )
            self._checked().check_history(proof, old, new)
        except UnauthorizedError:
            raise
        except RemoteError:
            return False
        return True

    def _header(self, epoch: int) -> Header:
        document = self._fetch(f"/api/v1/checkpoints/{parse_epoch(epoch)}")
        return self._following(document).check_checkpoint(document, epoch)

    # -- asking -------------------------------------------------------------------------------

    def _checked(self) -> AnswerChecker:
        if self._checker is None:
            raw = self._anchor.genesis
            if raw is None:
                document = self._fetch("/api/v1/genesis")
                raw = str(document.get("canonical", "")).encode()
            self._checker = AnswerChecker(trusted_court(raw, self._anchor.chain))
        return self._checker

    def _following(self, document: JsonObject) -> AnswerChecker:
        """Return the checker, with the validator sets that an answer rests on, if they are."""
        checker = self._checked()
        for _ in range(PAGES_MAX):
            if not checker.lacks(document):
                break
            since = checker.roll.since
            page = self._fetch(f"/api/v1/validators/changes?from_epoch={since}")
            items = page.get("items")
            if not isinstance(items, list):
                raise MalformedError("a page without items")
            checker.follow(items)
            if checker.roll.since == since:
                break  # the server shows no more: the check will say what is missing
        return checker

    def _learn(self, node: str) -> None:
        document = self._fetch(f"/api/v1/nodes/{quote(node)}")
        enrolments = document.get("enrolments")
        if not isinstance(enrolments, list):
            raise MalformedError("node: enrolments are missing")
        blocks = [read_block(item)[0] for item in enrolments]
        if any(signed.block.node_id != node for signed in blocks):
            raise VerificationError("enrolment of another node")
        self._checked().learn(blocks)

    def _pages(self, path: str, query: dict[str, object]) -> list[JsonObject]:
        found: list[JsonObject] = []
        for _ in range(PAGES_MAX):
            page = self._fetch(f"{path}?{urlencode(query)}")
            items, following = page.get("items"), page.get("next")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise MalformedError("a page without items")
            found += [item for item in items if isinstance(item, dict)]
            if len(found) > BLOCKS_MAX:
                raise LimitExceededError(f"more than {BLOCKS_MAX} blocks", hint="ask for less")
            if following is None:
                return found
            if following == query.get("cursor"):
                raise MalformedError("the pages do not end")
            query = query | {"cursor": following}
        raise LimitExceededError(f"more than {PAGES_MAX} pages")

    def _incident(self, item: JsonObject, wanted: Category | None) -> JsonObject:
        signed, payload = read_block(item)
        self._vouch(signed)
        self._checked().check_block(item)
        if payload is None or signed.block.event_type != EVENT_TYPE:
            raise VerificationError(f"block {signed.id.hex()[:16]} is no disclosed incident")
        event = SharedEvent.decode(payload.data)
        if wanted is not None and event.category is not wanted:
            raise VerificationError(f"block {signed.id.hex()[:16]} is about something else")
        return canonical.decode_object(payload.data) | {
            "block_id": signed.id.hex(),
            "node_id": signed.block.node_id,
        }

    def _vouch(self, signed: SignedBlock) -> None:
        if not self._checked().knows(signed.lane):
            self._learn(signed.block.node_id)


class AsyncDSMClient:
    """`DSMClient` for programs with an event loop: the same calls, each in a thread.

    Args:
        client: What asks; its calls must not run at the same time from elsewhere.
    """

    def __init__(self, client: DSMClient | None = None) -> None:
        self._client = client or DSMClient()
        self._turn = asyncio.Lock()

    async def get_microblocks(
        self,
        node_id: str,
        start_seq: int = 1,
        end_seq: int | None = None,
        event_type: str | None = None,
    ) -> list[JsonObject]:
        """See `DSMClient.get_microblocks`."""
        async with self._turn:
            return await asyncio.to_thread(
                self._client.get_microblocks, node_id, start_seq, end_seq, event_type
            )

    async def get_checkpoint(self, epoch: int) -> JsonObject:
        """See `DSMClient.get_checkpoint`."""
        async with self._turn:
            return await asyncio.to_thread(self._client.get_checkpoint, epoch)

    async def verify_block_in_checkpoint(self, block_id: str, checkpoint_epoch: int) -> bool:
        """See `DSMClient.verify_block_in_checkpoint`."""
        async with self._turn:
            return await asyncio.to_thread(
                self._client.verify_block_in_checkpoint, block_id, checkpoint_epoch
            )

    async def query_threat_intel(
        self, threat_type: str | None = None, time_range: str = "24h"
    ) -> list[JsonObject]:
        """See `DSMClient.query_threat_intel`."""
        async with self._turn:
            return await asyncio.to_thread(self._client.query_threat_intel, threat_type, time_range)


def _home(environment: Mapping[str, str]) -> Path:
    configured = environment.get("XDG_CONFIG_HOME")
    folder = Path(configured) if configured else Path(environment.get("HOME", "/")) / ".config"
    return folder / "hookprobe"


def _find_token(environment: Mapping[str, str]) -> str:
    named = environment.get("HOOKPROBE_API_TOKEN_FILE")
    kept = _home(environment) / "token"
    if named or (kept.exists() and "HOOKPROBE_API_TOKEN" not in environment):
        return read_private(Path(named) if named else kept).decode("ascii", "replace").strip()
    return environment.get("HOOKPROBE_API_TOKEN", "")


def _find_anchor(trust: str | Path | None, environment: Mapping[str, str]) -> Anchor:
    named = str(trust or environment.get("HOOKPROBE_TRUST") or "")
    kept = _home(environment) / "genesis.json"
    if not named and not kept.exists():
        raise ConfigError(
            ["trust: which mesh is to be trusted is not said"],
            hint="name a chain id or a genesis.json: trust=, HOOKPROBE_TRUST, or "
            "~/.config/hookprobe/genesis.json",
        )
    path = Path(named) if named else kept
    if path.exists():
        return Anchor(None, read_file(path, limit=1 << 20))
    try:
        return Anchor(bytes.fromhex(parse_chain_id(named)), None)
    except MalformedError as error:
        raise ConfigError([f"trust: {named[:80]} is neither a chain id nor a file"]) from error

"""Pending validations in Redis or Valkey (extra `redis`), for dashboards and other processes.

One key a validator, `hookprobe:pending:<chain, 16 digits>:<validator>`: JSON as of a second ago,
gone `KEPT_S` after the validator is. The node never reads it back; a server that is away or empty
changes nothing but this view.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import redis

from hookprobe.errors import HostError, NotFoundError
from hookprobe.wire.canonical import JsonObject

EVERY_S = 1.0
KEPT_S = 30
ANSWER_S = 2.0
RETRY_S = 10.0


class PendingBoard:
    """Shows one validator's pending validations.

    Args:
        url: The server: redis://, rediss://, valkey:// or unix://.
        chain: The chain id.
        node: The validator's name.
    """

    def __init__(self, url: str, chain: bytes, node: str) -> None:
        plain = url.replace("valkey://", "redis://", 1)
        self._key = f"hookprobe:pending:{chain.hex()[:16]}:{node}"
        self._server = redis.Redis.from_url(
            plain, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
        )

    def show(self, document: JsonObject) -> None:
        """Put a document there.

        Raises:
            HostError: The server does not answer.
        """
        try:
            self._server.set(self._key, json.dumps(document, separators=(",", ":")), ex=KEPT_S)
        except redis.RedisError as error:
            raise _failure(error) from error

    def read(self) -> JsonObject:
        """Return what is there.

        Raises:
            HostError: The server does not answer.
            NotFoundError: The validator does not run, or began a moment ago.
        """
        try:
            found = self._server.get(self._key)
        except redis.RedisError as error:
            raise _failure(error) from error
        if not isinstance(found, bytes):
            raise NotFoundError(f"{self._key} is not there", hint="does the validator run?")
        document: JsonObject = json.loads(found)
        return document

    async def run(
        self, current: Callable[[], JsonObject], failed: Callable[[HostError], None]
    ) -> None:
        """Show what `current` returns every second until cancelled."""
        loop, worker = asyncio.get_running_loop(), ThreadPoolExecutor(1, "pending")
        try:
            while True:
                try:
                    await loop.run_in_executor(worker, self.show, current())
                    await asyncio.sleep(EVERY_S)
                except HostError as error:
                    failed(error)
                    await asyncio.sleep(RETRY_S)
        finally:
            worker.submit(self.close)
            worker.shutdown(wait=False)

    def close(self) -> None:
        """Let go of the connection."""
        self._server.close()


def _failure(error: redis.RedisError) -> HostError:
    # The text of the error may name the address but never a password.
    return HostError(
        f"redis: {type(error).__name__}",
        hint="check the server and dsm.storage.pending.url; the node needs it for nothing else",
    )

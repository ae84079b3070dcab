"""What a node shows and tells outside the mesh, if the operator wants that: API and webhooks.

Each part is imported where it is wanted: together they take nearly 2 MiB, which a small edge saves.
"""

import asyncio
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from hookprobe.config.load import Config
from hookprobe.dsm.genesis import Genesis
from hookprobe.errors import ConfigError, HostError
from hookprobe.identity.directory import parse_address
from hookprobe.node.observations import Observation
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.ledger_store import place_of
from hookprobe.runtime.metrics import Meter
from hookprobe.runtime.status import StatusBoard

if TYPE_CHECKING:
    from hookprobe.runtime.api import ApiSettings
    from hookprobe.runtime.api_server import ApiServer
    from hookprobe.runtime.checkpoint_copy import CheckpointCopy
    from hookprobe.runtime.pending_board import PendingBoard
    from hookprobe.runtime.webhook_service import WebhookService

EXTRA = "api"
PACKAGES = ("uvicorn", "prometheus_client")
LISTEN_DEFAULT = "127.0.0.1:4780"


def api_settings(config: Config) -> "ApiSettings":
    """Return the API's settings."""
    from hookprobe.runtime.api import ApiSettings

    return ApiSettings(
        anonymous=config.text("api.anonymous") == "reader",
        requests_per_s=config.integer("api.requests_per_s"),
        service=config.text("api.service"),
        metrics=config.flag("dsm.integrations.pod_005.metrics_export"),
    )


def open_api(config: Config, genesis: Genesis, clock: Clock, listen: str) -> "ApiServer":
    """Make the server of a node's API; it does not listen yet.

    Raises:
        ConfigError: The packages of the extra are not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            [f"api.listen: the package {missing[0]} is not installed"],
            hint=f"pip install 'hookprobe[{EXTRA}]', or leave api.listen empty",
        )
    from hookprobe.runtime.api_server import ApiServer, Listening, make_application

    host, port = parse_address(listen, port_min=0)
    application = make_application(genesis, place_of(config), api_settings(config), clock)
    return ApiServer(application, Listening(host, port))


def open_webhooks(
    config: Config, node: str, chain: bytes, clock: Clock, meter: Meter
) -> "WebhookService | None":
    """Return the webhooks of a node; None where none are wanted.

    Raises:
        ConfigError: The file of webhooks is wrong.
        HostError: It, or the deliveries that are kept, cannot be read.
    """
    name = config.text("webhooks.path")
    if not name:
        return None
    from hookprobe.runtime.webhook_events import Sender
    from hookprobe.runtime.webhook_service import WebhookService
    from hookprobe.runtime.webhook_settings import read_hooks

    hooks, state = read_hooks(config.file("webhooks.path")), config.file("state.path")
    return WebhookService(hooks, Sender(node, chain.hex()), state, clock, meter)


def open_copy(
    config: Config, clock: Clock, failed: Callable[[HostError], None]
) -> "CheckpointCopy | None":
    """Return the copy of a validator's checkpoints to a server; None where none is wanted.

    Raises:
        ConfigError: The package of the extra is not installed.
    """
    storage = "dsm.storage.checkpoints."
    role = config.text("dsm.node.role")
    if config.text(storage + "backend") != "postgresql" or role != "validator":
        return None
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            [f"{storage}backend: the package psycopg is not installed"],
            hint="pip install 'hookprobe[postgresql]', or set sqlite",
        )
    from hookprobe.runtime.checkpoint_copy import CheckpointCopy, CopyTask

    days = config.integer(storage + "retention_days")
    task = CopyTask(place_of(config), config.text(storage + "url"), days)
    return CheckpointCopy(task, clock, failed)


def open_pending(config: Config, chain: bytes, node: str) -> "PendingBoard | None":
    """Return where a validator shows what waits; None where that is its status only.

    Raises:
        ConfigError: The package of the extra is not installed.
    """
    url = config.text("dsm.storage.pending.url")
    if not url or config.text("dsm.node.role") != "validator":
        return None
    if importlib.util.find_spec("redis") is None:
        raise ConfigError(
            ["dsm.storage.pending.url: the package redis is not installed"],
            hint="pip install 'hookprobe[redis]', or leave it empty",
        )
    from hookprobe.runtime.pending_board import PendingBoard

    return PendingBoard(url, chain, node)


class Outside:
    """Everything of that kind that one running node has.

    Args:
        config: The node's settings.
        genesis: The chain's genesis document.
        node: The node's name.
        clock: Says what time it is.
        board: Counts; it is told how many deliveries wait.

    Attributes:
        failed: Is told of servers that cannot be reached; the node goes on.

    Raises:
        ConfigError: The settings are wrong, or packages of the extra are not installed.
        HostError: Files cannot be read.
    """

    def __init__(
        self, config: Config, genesis: Genesis, node: str, clock: Clock, board: StatusBoard
    ) -> None:
        self.failed: Callable[[HostError], None] = lambda _: None
        self._copy = open_copy(config, clock, self._tell)
        self._pending = open_pending(config, genesis.chain_id(), node)
        listen = config.text("api.listen")
        self._board = board
        self._webhooks = open_webhooks(config, node, genesis.chain_id(), clock, board.meter)
        self._api = open_api(config, genesis, clock, listen) if listen else None

    def report(self, observation: Observation) -> None:
        """Take one observation."""
        if self._webhooks is not None:
            self._webhooks.report(observation)

    def start(self) -> int | None:
        """Begin to listen; returns the API's port, None where there is none.

        Raises:
            HostError: The address is taken or not ours.
        """
        return self._api.start() if self._api is not None else None

    async def run(self) -> None:
        """Work until cancelled."""
        running = [part.run() for part in (self._webhooks, self._copy) if part is not None]
        if self._pending is not None:
            running.append(self._pending.run(self._board.pending, self._tell))
        await asyncio.gather(*running, asyncio.Event().wait())

    def _tell(self, error: HostError) -> None:
        self.failed(error)

    def count(self) -> None:
        """Tell the board what waits."""
        if self._webhooks is not None:
            self._board.webhooks_waiting = self._webhooks.waiting

    async def end(self) -> None:
        """Stop: requests under way are answered, deliveries are kept."""
        if self._api is not None:
            await asyncio.to_thread(self._api.stop)
        if self._webhooks is not None:
            await self._webhooks.end()

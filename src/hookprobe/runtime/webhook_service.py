"""Webhooks of a running node: observations in, posts out, nothing forgotten on the way."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from hookprobe.node.observations import Observation
from hookprobe.runtime import webhook_events, webhook_post
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.metrics import Meter
from hookprobe.runtime.webhook_events import Event, Sender
from hookprobe.runtime.webhook_outbox import (
    Delivery,
    Effect,
    Ended,
    Forget,
    Keep,
    Outbox,
    Outcome,
    Post,
    State,
)
from hookprobe.runtime.webhook_post import Parcel
from hookprobe.runtime.webhook_settings import Hook
from hookprobe.runtime.webhook_store import WebhookStore
from hookprobe.wire.instant import Instant

LOOK_EVERY_S = 1.0
Poster = Callable[[Hook, Parcel, Instant], Outcome]


def new_id() -> str:
    """Return a fresh `webhook-id`."""
    return f"msg_{secrets.token_hex(16)}"


class WebhookService:
    """Feeds an outbox and carries out what it says.

    Args:
        hooks: The receivers.
        sender: Who tells.
        state: The node's state folder.
        clock: Says what time it is.
        meter: Counts deliveries.
        poster: Posts one parcel; runs in a thread.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        sender: Sender,
        state: Path,
        clock: Clock,
        meter: Meter,
        poster: Poster = webhook_post.post,
    ) -> None:
        self._hooks = {hook.id: hook for hook in hooks}
        self._sender = sender
        self._clock = clock
        self._meter = meter
        self._poster = poster
        self._store = WebhookStore(state)
        self._outbox = Outbox(tuple(self._hooks), self._store.all(), secrets.randbelow)
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._failure: BaseException | None = None

    @property
    def waiting(self) -> int:
        """How many deliveries wait."""
        return self._outbox.waiting

    def report(self, observation: Observation) -> None:
        """Take one observation; what is an event is durable when this returns."""
        for event in webhook_events.events_of(observation, self._clock.now()):
            self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell everybody who wants this event."""
        for hook in self._hooks.values():
            if event.name in hook.events:
                body = webhook_events.render(event, self._sender, hook.form)
                delivery = Delivery(new_id(), hook.id, event.name, body, event.at)
                self._carry_out(self._outbox.add(delivery))
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            HostError: The deliveries cannot be kept any more.
        """
        self._carry_out(self._outbox.start())
        while self._failure is None:
            for asked in self._store.all(State.ASKED):
                self._carry_out(self._outbox.revive(asked, self._clock.now()))
            now = self._clock.now()
            self._carry_out(self._outbox.handle_timeout(now))
            due = self._outbox.next_timeout()
            left_s = LOOK_EVERY_S if due is None else min(LOOK_EVERY_S, max(0, due - now) / 1e6)
            self._news.clear()
            # Not `wait_for`: before Python 3.12 it can lose a cancellation that comes with news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
        raise self._failure

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        if not flight.cancelled() and flight.exception() is not None:
            self._failure = flight.exception()
            self._news.set()

    async def end(self) -> None:
        """Stop; what is under way is sent again after the next start."""
        for flight in self._flights.values():
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        self._store.close()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Keep(delivery):
                    self._store.keep(delivery)
                case Forget(delivery_id):
                    self._store.forget(delivery_id)
                case Post(delivery):
                    flight = asyncio.create_task(self._fly(delivery))
                    self._flights[delivery.id] = flight
                    flight.add_done_callback(self._landed)
                case Ended(_, outcome):
                    if outcome == "failed":
                        self._meter.count("hookprobe_webhook_failures_total")
                    else:
                        self._meter.count("hookprobe_webhook_deliveries_total", outcome)

    async def _fly(self, delivery: Delivery) -> None:
        parcel = Parcel(delivery.id, delivery.body)
        hook = self._hooks[delivery.hook]
        try:
            outcome = await asyncio.to_thread(self._poster, hook, parcel, self._clock.now())
        finally:
            del self._flights[delivery.id]
        self._carry_out(self._outbox.finish(delivery.id, outcome, self._clock.now()))
        self._news.set()

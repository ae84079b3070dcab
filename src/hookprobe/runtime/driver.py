"""Run one node: datagrams and timers in, effects out, on an asyncio loop.

Group commit: all `Persist` effects of one wake are written in one transaction, then the rest runs
in order. That keeps the promise "durable before sent"; a datagram that a crash holds back is a
lost datagram, which the protocols expect anyway.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hookprobe.dsm.store import Persist
from hookprobe.errors import HostError
from hookprobe.htp.effects import Leaving, Transmit, TransmitRun, each_datagram
from hookprobe.neuro.effects import HostRequest
from hookprobe.node.host import Effect, Node
from hookprobe.node.observations import MessageSent, Observation
from hookprobe.runtime.alarm import Alarm
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.egress import DATAGRAM, MESSAGE, EgressRecord
from hookprobe.runtime.qlog import SessionTrace
from hookprobe.runtime.udp import Received, UdpSocket


class Store(Protocol):
    """Where effects of the ledger go."""

    def apply(self, batches: Sequence[Persist]) -> None: ...


class Driver:
    """One node on one socket and one store.

    Args:
        node: What to run.
        socket: Its bound socket.
        store: Its durable store.
        clock: Says what time it is.
        report: Takes every observation; must be quick.
        egress: Where everything that leaves is recorded, if it is.

    Attributes:
        perform: Carries out what an edge asks of its host; see `runtime.device_host`.
        started: Is called once when datagrams are taken.
        trace: Is shown the datagrams of one session, if somebody looks.
    """

    def __init__(
        self,
        node: Node,
        socket: UdpSocket,
        store: Store,
        clock: Clock,
        report: Callable[[Observation], None],
        egress: EgressRecord | None = None,
    ) -> None:
        self._node = node
        self._socket = socket
        self._store = store
        self._clock = clock
        self._report = report
        self._egress = egress
        self.perform: Callable[[HostRequest], None] | None = None
        self.started: Callable[[], None] = lambda: None
        self.trace: SessionTrace | None = None
        self._alarm = Alarm(clock, self._wake)
        self._failed: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            HostError: The store failed: a node that cannot remember must not go on speaking.
            Exception: A bug of ours, from wherever it fell: a node whose state is in doubt stops.
        """
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        loop.set_exception_handler(self._crash)
        self.execute(self._node.start(self._clock.now()))
        self._socket.attach(loop, self._receive)
        self.started()
        stopping = asyncio.create_task(_until(stop))
        try:
            await asyncio.wait({stopping, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                await self._failed
        finally:
            stopping.cancel()
            self._failed.cancel()
            self._socket.close(loop)
            self._alarm.cancel()

    def _crash(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The loop would report an exception of a callback and go on with the next.
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failed is None:
            raise error
        if not self._failed.done():
            self._failed.set_exception(error)

    def _receive(self, received: Received) -> None:
        if self.trace is not None:
            self.trace.received(received)
        self.execute(self._node.receive_batch(received, self._clock.now()))

    def _wake(self) -> None:
        self.execute(self._node.handle_timeout(self._clock.now()))

    def execute(self, effects: Sequence[Effect]) -> None:
        """Carry out effects and set the next timer; a failing store ends `run`."""
        batches = [effect for effect in effects if isinstance(effect, Persist)]
        if batches and not self._persist(batches):
            return
        leaving: list[Leaving] = []
        for effect in effects:
            self._record(effect)
            if isinstance(effect, Transmit | TransmitRun):
                leaving.append(effect)
            elif isinstance(effect, HostRequest):
                self._socket.send_batch(leaving)
                leaving = []
                if not self._ask_host(effect):
                    return
            elif not isinstance(effect, Persist):
                if leaving:
                    self._socket.send_batch(leaving)
                    leaving = []
                self._report(effect)
        if leaving:
            self._socket.send_batch(leaving)
        self._alarm.set(self._node.next_timeout())

    def _record(self, effect: Effect) -> None:
        egress = self._egress
        if isinstance(effect, Transmit | TransmitRun):
            if egress is not None:
                for one in each_datagram((effect,)):
                    egress.add(DATAGRAM, one.data)
            if self.trace is not None:
                self.trace.sent(effect)
        elif egress is not None and isinstance(effect, MessageSent):
            egress.add(MESSAGE, effect.data)

    def _persist(self, batches: Sequence[Persist]) -> bool:
        try:
            self._store.apply(batches)
        except HostError as error:
            self._fail(error)
            return False
        return self._failed is None or not self._failed.done()

    def _ask_host(self, request: HostRequest) -> bool:
        assert self.perform is not None, "a node that measures has a host that can"
        try:
            self.perform(request)
        except HostError as error:
            self._fail(error)
            return False
        return True


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()

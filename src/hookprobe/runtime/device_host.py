"""Carries out what an edge asks of its host for NEURO: measure, write records, find openings.

A measurement hashes files when something moved, so it runs in a thread; everything else is short.
The opening of a record is on disk before the record, and the record before the node goes on from
it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from hookprobe.config.load import Config
from hookprobe.errors import HostError
from hookprobe.identity import fingerprint
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro.backends.selection import load_backend
from hookprobe.neuro.effects import AppendRecord, FindOpening, HostRequest, MeasureHost
from hookprobe.neuro.measurement import Opening
from hookprobe.node.build import DeviceHistory
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.hardware import collect
from hookprobe.runtime.neuro_device import Capture, DeviceStore
from hookprobe.wire.instant import Instant


class Measuring(Protocol):
    """What measures the host; see `runtime.neuro_device.HostCapture`."""

    def capture(self, now: Instant, *, full: bool = False) -> Capture: ...


def read_history(store: DeviceStore, ours: NodeSecrets, config: Config) -> DeviceHistory:
    """Return a device's history from its disk, and what the device runs on.

    Raises:
        HostError: The disk failed.
        MalformedError: Snapshot or log is damaged.
        ConfigError: The backend is not installed.
    """
    start, records = store.open(ours, load_backend(config.text("neuro.backend")))
    hardware = fingerprint.take(collect(), ours.tenant)
    return DeviceHistory(start, records, hardware.encode())


class DeviceHost:
    """The host of one edge.

    Args:
        node: The edge.
        store: Its records.
        capture: Measures this host.
        clock: Says what time it is.
        complain: Told why a measurement failed; the next one is tried all the same.
    """

    def __init__(
        self,
        node: EdgeNode,
        store: DeviceStore,
        capture: Measuring,
        clock: Clock,
        complain: Callable[[HostError], None],
    ) -> None:
        self._node = node
        self._store = store
        self._capture = capture
        self._clock = clock
        self._complain = complain
        self._opening: Opening | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._challenged = False
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    def perform(self, request: HostRequest) -> None:
        """Do what the node asks.

        Raises:
            HostError: The disk failed; the node must stop.
        """
        match request:
            case MeasureHost():
                if self._measuring is None or self._measuring.done():
                    self._measuring = asyncio.create_task(self._measure())
            case AppendRecord(epoch, index, record):
                assert self._opening is not None, "a record is made of a measurement"
                self._store.openings.keep(epoch, index, self._opening, record.timestamp)
                self._store.execute(request)
                self.execute(self._node.receive_appended(index, self._clock.now()))
            case FindOpening(place):
                self._challenged = True  # whoever looks closely gets a full hash next
                found = self._store.openings.find(place.epoch, place.index) or b""
                self.execute(self._node.receive_opening(place, found, self._clock.now()))
            case _:
                self._store.execute(request)

    async def _measure(self) -> None:
        full, self._challenged = self._challenged, False
        try:
            found = await asyncio.to_thread(self._capture.capture, self._clock.now(), full=full)
        except HostError as error:
            self._complain(error)
            return
        self._opening = found.opening
        self.execute(self._node.receive_reading(found.reading, self._clock.now()))

    async def run(self) -> None:
        """End with the error of a measurement that broke the node; else never."""
        while True:
            if self._measuring is not None and self._measuring.done():
                self._measuring.result()
            await asyncio.sleep(1)

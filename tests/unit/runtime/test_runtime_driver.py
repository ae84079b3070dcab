"""The loop around a node: order of effects, and what ends it."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from hookprobe.dsm.store import Persist, Table
from hookprobe.errors import HostError
from hookprobe.htp.effects import Address, Dropped, DropReason, Transmit
from hookprobe.htp.path import Received, each_received
from hookprobe.node.host import Effect
from hookprobe.node.observations import Observation
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.driver import Driver
from hookprobe.runtime.udp import UdpSocket
from hookprobe.wire.instant import Instant

ROW = Persist(((Table.META, b"k", b"v"),))


class ToldNode:
    """Answers every datagram with what the test wants."""

    def __init__(self, effects: Sequence[Effect] = (), error: BaseException | None = None) -> None:
        self.effects = list(effects)
        self.error = error
        self.received: list[bytes] = []
        self.timeout: Instant | None = None
        self.woken = 0

    def start(self, now: Instant) -> list[Effect]:
        return []

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        found: list[Effect] = []
        for data, address in each_received(received):
            found += self.receive_datagram(data, address, now)
        return found

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        self.received.append(data)
        if self.error is not None:
            raise self.error
        return self.effects

    def next_timeout(self) -> Instant | None:
        return self.timeout

    def handle_timeout(self, now: Instant) -> list[Effect]:
        self.woken += 1
        self.timeout = None
        return []


class ToldStore:
    def __init__(self, error: HostError | None = None) -> None:
        self.error = error
        self.batches: list[Persist] = []

    def apply(self, batches: Sequence[Persist]) -> None:
        if self.error is not None:
            raise self.error
        self.batches += batches


async def run(
    node: ToldNode, store: ToldStore, seen: list[Observation], datagrams: int = 1
) -> list[bytes]:
    """Run a driver, send datagrams to it, and return what it answered."""
    udp = UdpSocket(Address("127.0.0.1", 0))
    driver = Driver(node, udp, store, Clock(), seen.append)
    stop = asyncio.Event()
    running = asyncio.create_task(driver.run(stop))
    await asyncio.sleep(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        host, port = peer.getsockname()
        node.effects = [
            Transmit(Address(host, port), effect.data) if isinstance(effect, Transmit) else effect
            for effect in node.effects
        ]
        for number in range(datagrams):
            peer.sendto(bytes([number]), udp.address)
        answers: list[bytes] = []
        for _ in range(100):
            await asyncio.sleep(0.005)
            if running.done():
                break
            try:
                answers.append(peer.recv(100))
            except BlockingIOError:
                if len(node.received) == datagrams:
                    break
    stop.set()
    await running
    return answers


def test_effects_are_durable_before_they_are_sent_and_reported() -> None:
    seen: list[Observation] = []
    dropped = Dropped(DropReason.RATE)
    node = ToldNode([ROW, Transmit(Address("", 0), b"answer"), dropped])
    store = ToldStore()
    assert asyncio.run(run(node, store, seen)) == [b"answer"]
    assert store.batches == [ROW]
    assert seen == [dropped]


def test_a_store_that_fails_stops_the_node_before_it_speaks() -> None:
    seen: list[Observation] = []
    node = ToldNode([ROW, Transmit(Address("", 0), b"answer")])
    with pytest.raises(HostError, match="disk full"):
        asyncio.run(run(node, ToldStore(HostError("disk full")), seen))


def test_a_bug_of_ours_stops_the_node() -> None:
    node = ToldNode(error=AssertionError("an invariant of ours"))
    with pytest.raises(AssertionError, match="an invariant of ours"):
        asyncio.run(run(node, ToldStore(), []))


def test_timers_fire() -> None:
    node = ToldNode()
    node.timeout = Instant(Clock().now() + 1_000)
    asyncio.run(run(node, ToldStore(), [], datagrams=3))
    assert node.woken == 1
    assert node.received == [b"\x00", b"\x01", b"\x02"]

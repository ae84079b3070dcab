"""Endpoints on one virtual clock, joined by a link that can be told to misbehave."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    Dropped,
    DropReason,
    Effect,
    MessageReceived,
    Transmit,
    TransmitRun,
    each_datagram,
)
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, RegisteredPeer, Seams
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

START = Instant(1_800_000_000 * SECOND)


def fingerprint_of(node: str) -> bytes:
    return hashlib.sha512(b"weights of " + node.encode()).digest()


def answer_of(fingerprint: bytes, challenge: bytes) -> tuple[bytes, bytes]:
    rdv = hashlib.sha256(b"rdv" + fingerprint + challenge).digest()
    return rdv, hashlib.sha256(b"posf" + fingerprint + challenge + rdv).digest()


class Weights:
    """A resonance source whose answers anybody with the fingerprint can check."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint

    def w_fingerprint(self) -> bytes:
        return self.fingerprint

    def respond(self, challenge: bytes) -> tuple[bytes, bytes]:
        return answer_of(self.fingerprint, challenge)


class Replay:
    """The checking side of `Weights`."""

    def __init__(self) -> None:
        self.distrusted: list[NodeId] = []

    def check(
        self, node: NodeId, fingerprint: bytes, challenge: bytes, rdv: bytes, posf: bytes
    ) -> bool:
        return node not in self.distrusted and (rdv, posf) == answer_of(fingerprint, challenge)


class Scores:
    """A source of trust that the tests write; who is not in it is trusted."""

    def __init__(self) -> None:
        self.scores: dict[NodeId, int] = {}

    def trust(self, node: NodeId, now: Instant) -> int:
        del now
        return self.scores.get(node, 0xFFFF)


class Book:
    """A registry that the tests write."""

    def __init__(self) -> None:
        self.entries: dict[NodeId, RegisteredPeer] = {}
        self.lookups = 0

    def find(self, node: NodeId) -> RegisteredPeer | None:
        self.lookups += 1
        return self.entries.get(node)


def seeded_random(seed: int) -> Callable[[int], bytes]:
    return Random(seed).randbytes


def identity_of(name: str) -> LocalIdentity:
    def secret(use: str) -> bytes:
        return hashlib.sha256(f"{use} of {name}".encode()).digest()

    return LocalIdentity(
        NodeId(name),
        Ed25519Signer(secret("signing seed")),
        AgreementKey(secret("static seed")),
        secret("reset key"),
    )


class Host:
    """An endpoint with its address and everything that came out of it."""

    def __init__(
        self, name: str, address: Address, config: HtpConfig, book: Book, now: Instant
    ) -> None:
        self.name = NodeId(name)
        self.address = address
        self.config = config
        self.book = book
        self.identity = identity_of(name)
        self.weights = Weights(fingerprint_of(name))
        self.replay = Replay()
        self.scores = Scores()
        parts = (book, self.weights, self.replay, Ed25519(), MlKem(), self.scores)
        self.seams = Seams(*parts)
        self.effects: list[Effect] = []
        self.starts = 0
        self.endpoint = self.boot(now)

    def boot(self, now: Instant) -> Endpoint:
        """Start, or start again with nothing remembered but the identity."""
        self.starts += 1
        seed = int.from_bytes(hashlib.sha256(f"{self.name}{self.starts}".encode()).digest()[:4])
        self.endpoint = Endpoint(self.config, self.identity, self.seams, seeded_random(seed), now)
        return self.endpoint

    def enlist(self, *, active: bool = True, checked: bool = True) -> RegisteredPeer:
        return RegisteredPeer(
            self.identity.signer.public_key,
            active,
            (self.weights.fingerprint,) if checked else None,
        )

    def pin(self) -> PinnedPeer:
        return PinnedPeer(self.name, self.address, self.identity.static_key.public_key)

    def of(self, kind: type[Effect]) -> list[Effect]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def messages(self) -> list[bytes]:
        return [one.data for one in self.effects if isinstance(one, MessageReceived)]

    def drops(self) -> list[DropReason]:
        return [one.reason for one in self.effects if isinstance(one, Dropped)]


@dataclass
class Weather:
    """What the link does to datagrams, in parts per thousand."""

    latency_us: int = 10 * MILLISECOND
    jitter_us: int = 0
    loss: int = 0
    duplication: int = 0
    corruption: int = 0
    mtu: int = 65_535
    seed: int = 0
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def chance(self, per_mille: int) -> bool:
        return bool(per_mille) and self.random.randrange(1000) < per_mille


class Bottleneck:
    """A slow link with a buffer in front of one address, shared by all who send there."""

    def __init__(self, towards: Address, rate_per_s: int, buffer_bytes: int) -> None:
        self.towards = towards
        self.rate = rate_per_s
        self.buffer = buffer_bytes
        self.free_at = 0
        self.peak_us = 0
        self.dropped = 0

    def admit(self, size: int, now: int) -> int | None:
        """Return how long a datagram takes to get through; None if the buffer is full."""
        queued_us = max(0, self.free_at - now)
        if queued_us * self.rate // SECOND + size > self.buffer:
            self.dropped += 1
            return None
        self.free_at = max(now, self.free_at) + size * SECOND // self.rate
        self.peak_us = max(self.peak_us, self.free_at - now)
        return self.free_at - now


def datagrams(effects: list[Effect]) -> list[bytes]:
    """Return everything that leaves, datagram by datagram."""
    leaving = [one for one in effects if isinstance(one, Transmit | TransmitRun)]
    return [one.data for one in each_datagram(leaving)]


Interceptor = Callable[["World", Address, Address, bytes], "bytes | None"]


class World:
    """One clock, hosts by address, datagrams on their way."""

    def __init__(self, weather: Weather | None = None) -> None:
        self.now = START
        self.weather = weather or Weather()
        self.book = Book()
        self.hosts: dict[Address, Host] = {}
        self.names: dict[str, Host] = {}
        self.moved: dict[Address, Address] = {}
        self.intercept: Interceptor | None = None
        self.bottleneck: Bottleneck | None = None
        self.wire: list[tuple[Address, Address, bytes]] = []
        self._queue: list[tuple[int, int, Address, Address, bytes]] = []
        self._count = 0

    def add(self, name: str, config: HtpConfig | None = None, *, known: bool = True) -> Host:
        address = Address(f"10.0.0.{len(self.hosts) + 1}", 4719)
        host = Host(name, address, config or HtpConfig(), self.book, self.now)
        self.hosts[address] = self.names[name] = host
        if known:
            self.book.entries[host.name] = host.enlist()
        return host

    def execute(self, host: Host, effects: list[Effect]) -> list[Effect]:
        """Carry out effects: put datagrams on the link, remember everything."""
        host.effects += effects
        for effect in effects:
            if isinstance(effect, TransmitRun):
                self.execute(host, [*each_datagram((effect,))])
            elif isinstance(effect, Transmit):
                source = self.moved.get(host.address, host.address)
                self.post(source, effect.address, effect.data)
        return effects

    def post(self, source: Address, target: Address, data: bytes) -> None:
        """Send a datagram as the weather and the interceptor allow."""
        self.wire.append((source, target, data))
        if self.intercept is not None:
            changed = self.intercept(self, source, target, data)
            if changed is None:
                return
            data = changed
        weather = self.weather
        if len(data) > weather.mtu or weather.chance(weather.loss):
            return
        for _ in range(2 if weather.chance(weather.duplication) else 1):
            sent = data
            if weather.chance(weather.corruption):
                spot = weather.random.randrange(len(data))
                sent = data[:spot] + bytes((data[spot] ^ 1,)) + data[spot + 1 :]
            self.inject(source, target, sent)

    def inject(self, source: Address, target: Address, data: bytes) -> None:
        """Put a datagram on the link, past interceptor and loss."""
        weather = self.weather
        delay = weather.latency_us
        if self.bottleneck is not None and target == self.bottleneck.towards:
            waited = self.bottleneck.admit(len(data), self.now)
            if waited is None:
                return
            delay += waited
        if weather.jitter_us:
            delay += weather.random.randrange(weather.jitter_us)
        self._count += 1
        heappush(self._queue, (self.now + delay, self._count, source, target, data))

    def _host_at(self, target: Address) -> Host | None:
        for home, current in self.moved.items():
            if current == target:
                return self.hosts[home]
        return None if target in self.moved else self.hosts.get(target)

    def step(self, until: int) -> bool:
        """Do the next thing that happens up to `until`; False if there is none."""
        timers = [
            (due, index)
            for index, host in enumerate(self.hosts.values())
            if (due := host.endpoint.next_timeout()) is not None
        ]
        at_timer = min(timers)[0] if timers else until + 1
        at_packet = self._queue[0][0] if self._queue else until + 1
        if min(at_timer, at_packet) > until:
            self.now = Instant(max(self.now, until))
            return False
        if at_packet <= at_timer:
            at, _, source, target, data = heappop(self._queue)
            self.now = Instant(max(self.now, at))
            host = self._host_at(target)
            if host is not None:
                self.execute(host, host.endpoint.receive_datagram(data, source, self.now))
            return True
        host = list(self.hosts.values())[min(timers)[1]]
        self.now = Instant(max(self.now, at_timer))
        self.execute(host, host.endpoint.handle_timeout(self.now))
        return True

    def run(self, span_us: int, *, steps_max: int = 400_000) -> None:
        """Let `span_us` pass."""
        until = self.now + span_us
        for _ in range(steps_max):
            if not self.step(until):
                return
        raise AssertionError("the endpoints never come to rest")

    def connect(self, dialler: Host, answerer: Host) -> None:
        self.execute(dialler, dialler.endpoint.connect(answerer.pin(), self.now))


def pair(
    config: HtpConfig | None = None, weather: Weather | None = None
) -> tuple[World, Host, Host]:
    """Return a world with a connected edge and validator."""
    world = World(weather)
    edge, validator = world.add("edge-1", config), world.add("validator-1", config)
    world.connect(edge, validator)
    for _ in range(600):
        world.run(SECOND)
        if edge.endpoint.peers and validator.endpoint.peers:
            break
    return world, edge, validator

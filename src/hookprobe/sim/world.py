"""The simulated world: an event queue, a virtual clock, hosts that crash and restart.

The machines are the production classes; the world does for them what the shell does in production:
executes effects in order, carries messages, wakes them. Everything that happens follows from the
seed, and the digest of the trace proves it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Protocol

from hookprobe.dsm.effects import Disconnect, Effect, Observation, Send
from hookprobe.dsm.frames import decode, encode
from hookprobe.dsm.messages import Message
from hookprobe.dsm.store import Persist
from hookprobe.sim.dice import Dice
from hookprobe.sim.disk import Disk
from hookprobe.sim.network import Network
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

RESTART_MIN_US = 50_000
RECONNECT_US = 5_000


class Machine(Protocol):
    """What the world can run."""

    def start(self, now: Instant) -> list[Effect]: ...

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]: ...

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]: ...

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]: ...

    def next_timeout(self) -> Instant | None: ...

    def handle_timeout(self, now: Instant) -> list[Effect]: ...


@dataclass(slots=True)
class Host:
    """One simulated computer."""

    name: NodeId
    build: Callable[[Disk], Machine]
    honest: bool
    friends: tuple[NodeId, ...]  # whom it links to
    skew_us: int = 0
    disk: Disk = field(default_factory=Disk)
    machine: Machine | None = None
    links: dict[NodeId, bool] = field(default_factory=dict)
    life: int = 0
    booted_at: int = 0
    wake_at: int | None = None
    crash_in: int | None = None
    down_us: int = RESTART_MIN_US


class World:
    """Hosts, a queue and a clock.

    Args:
        network: Decides what arrives.
        dice: Chance for everything but the network.
        start: The first instant.
        watch: Called with every observation of an honest host.
        recode_every: Every n-th message goes through its encoding; 0 for none.
    """

    def __init__(
        self,
        network: Network,
        dice: Dice,
        start: int,
        watch: Callable[[Host, Observation], None],
        recode_every: int,
    ) -> None:
        self.now = start
        self.hosts: dict[NodeId, Host] = {}
        self.steps = 0
        self.sent = 0
        self._network = network
        self._dice = dice
        self._watch = watch
        self._recode_every = recode_every
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._trace = blake2b(digest_size=16)

    def trace_digest(self) -> str:
        return self._trace.hexdigest()

    def at(self, when: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self._order += 1
        heappush(self._queue, (when, self._order, action))

    def run_until(self, end: int, done: Callable[[], bool]) -> bool:
        """Run until `done` or the end; returns whether it was done."""
        while self._queue and self._queue[0][0] <= end:
            when, _, action = heappop(self._queue)
            self.now = max(self.now, when)
            self.steps += 1
            action()
            if done():
                return True
        self.now = end
        return done()

    # -- hosts ------------------------------------------------------------------------------

    def add(self, host: Host) -> None:
        self.hosts[host.name] = host

    def boot(self, host: Host) -> None:
        """Start a host's machine over its disk and link it to the friends that are up."""
        host.machine = host.build(host.disk)
        host.life += 1
        host.booted_at = self.now
        host.wake_at = None
        self._execute(host, host.machine.start(self._clock(host)))
        for name in host.friends:
            friend = self.hosts[name]
            if friend.machine is not None:
                self._link_later(host, friend)

    def _link_later(self, one: Host, other: Host) -> None:
        lives = one.life, other.life

        def link() -> None:
            if (one.life, other.life) != lives or one.machine is None or other.machine is None:
                return
            if other.name in one.links:
                return
            one.links[other.name] = other.links[one.name] = True
            self._execute(one, one.machine.peer_connected(other.name, self._clock(one)))
            if other.machine is not None:
                effects = other.machine.peer_connected(one.name, self._clock(other))
                self._execute(other, effects)

        self.at(self.now + self._dice.below(RECONNECT_US), link)

    def crash(self, host: Host) -> None:
        """Stop a host where it stands; it restarts later."""
        if host.machine is None:
            return
        host.machine = None
        host.life += 1
        host.crash_in = None
        for name in list(host.links):
            self._unlink(host, self.hosts[name])
        self._note(f"crash {host.name}")

        def restart() -> None:
            if host.machine is None:
                self.boot(host)

        self.at(self.now + host.down_us, restart)

    def _unlink(self, one: Host, other: Host) -> None:
        one.links.pop(other.name, None)
        if other.links.pop(one.name, None) is None:
            return
        life = other.life

        def tell() -> None:
            if other.machine is not None and other.life == life:
                effects = other.machine.peer_disconnected(one.name, self._clock(other))
                self._execute(other, effects)

        self.at(self.now + 1, tell)

    def _clock(self, host: Host) -> Instant:
        return Instant(self.now + host.skew_us)

    def set_clock(self, host: Host, skew_us: int) -> None:
        """Step a host's clock; its timers are set anew."""
        host.skew_us = skew_us
        host.wake_at = None
        self._schedule(host)

    # -- effects ----------------------------------------------------------------------------

    def act(self, host: Host, command: Callable[[Machine, Instant], list[Effect]]) -> None:
        """Let a command run on a host that is up."""
        if host.machine is not None:
            self._execute(host, command(host.machine, self._clock(host)))

    def _execute(self, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            if host.crash_in is not None:
                host.crash_in -= 1
                if host.crash_in <= 0:
                    self.crash(host)
                    return
            self._execute_one(host, effect)
        self._schedule(host)

    def _execute_one(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(host, effect)
        elif isinstance(effect, Persist):
            host.disk.apply(effect)
        elif isinstance(effect, Disconnect):
            if effect.peer in host.links:
                self._unlink(self.hosts[effect.peer], host)
                self._unlink(host, self.hosts[effect.peer])
                self._relink(host, self.hosts[effect.peer], effect.until)
        elif host.honest:
            self._watch(host, effect)

    def _relink(self, one: Host, other: Host, until: int) -> None:
        def again() -> None:
            if one.machine is not None and other.machine is not None:
                self._link_later(one, other)

        self.at(max(until - one.skew_us, self.now) + 1, again)

    def _send(self, host: Host, send: Send) -> None:
        receiver = self.hosts.get(send.peer)
        if receiver is None or send.peer not in host.links:
            return
        self.sent += 1
        message = send.message
        if self._recode_every and self.sent % self._recode_every == 0:
            message = decode(encode(message))
            if message != send.message:
                raise AssertionError(f"{type(message).__name__} changed in its encoding")
        for when in self._network.arrivals(host.name, send.peer, self.now):
            self._deliver_at(when, host.name, receiver, message)

    def _deliver_at(self, when: int, sender: NodeId, receiver: Host, message: Message) -> None:
        def deliver() -> None:
            machine = receiver.machine
            if machine is None or sender not in receiver.links:
                return
            self._note(f"{receiver.name}<{sender} {type(message).__name__}")
            effects = machine.receive_message(sender, message, self._clock(receiver))
            self._execute(receiver, effects)

        self.at(when, deliver)

    def _schedule(self, host: Host) -> None:
        if host.machine is None:
            return
        due = host.machine.next_timeout()
        if due is None:
            return
        when = max(due - host.skew_us, self.now)
        if host.wake_at is not None and host.wake_at <= when:
            return
        host.wake_at = when
        life = host.life

        def wake() -> None:
            if host.life != life or host.machine is None or host.wake_at != when:
                return
            host.wake_at = None
            due = host.machine.next_timeout()
            if due is not None and due - host.skew_us <= self.now:
                self._note(f"{host.name} wakes")
                self._execute(host, host.machine.handle_timeout(self._clock(host)))
            else:
                self._schedule(host)

        self.at(when, wake)

    def _note(self, text: str) -> None:
        self._trace.update(f"{self.now} {text}\n".encode())

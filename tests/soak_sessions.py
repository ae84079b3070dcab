"""One validator and a hundred thousand edges: python -m tests.soak_sessions --sessions 100000

All in one process on a virtual clock, with the real endpoint at either end, hybrid handshakes and
default timers; only sockets are missing. Edges join within a minute and then live: heartbeats every
20 to 30 seconds, a message every five minutes, keys renewed after an hour. Datagrams get lost.
Every minute some edges leave and others come in their place, some vanish without a word, some
restart with nothing remembered, some move to another port. In the end every edge that lives must
have its session under keys that are not too old, every table must be within its bound, and memory
must be where it was after the first ten minutes (in a short life, after half of it).
"""

import argparse
import gc
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path

from tests.unit.htp.htp_pair import START, Book, Host

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    Effect,
    MessageReceived,
    SessionDown,
    SessionRenewed,
    SessionUp,
    Transmit,
)
from hookprobe.wire.instant import MINUTE, SECOND, Instant

PAGE_BYTES = 4096
JOIN_S = 60
BATCH = 64
MESSAGE_GAP_S = 300
WARM_MINUTES = 10
GROWTH_MAX = 8  # objects of both ends together, for each session, from the tenth minute on
PER_MILLE_A_MINUTE = {"leave": 2, "vanish": 1, "restart": 2, "move": 2}


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


class Fleet:
    """A validator, its edges, and the network between them.

    Args:
        count: Edges that live at any time.
        loss: Datagrams lost, of a thousand.
        seed: Of everything that happens by chance.
        rekey_minutes: Age at which keys are renewed, +-10 %.
    """

    def __init__(self, count: int, loss: int, seed: int, rekey_minutes: int) -> None:
        self.now, self.count, self.loss = START, count, loss
        self.dice = random.Random(seed)
        self.book = Book()
        self.config = HtpConfig(peers_max=2 * count, rekey_us=rekey_minutes * MINUTE)
        self.validator = self._host("validator-1", Address("192.0.2.1", 4719))
        self.edges: dict[Address, Host] = {}
        self.living: list[Host] = []
        self.made = 0
        self.told: Counter[str] = Counter()
        self._due: dict[int, set[Address]] = {}

    def _host(self, name: str, address: Address) -> Host:
        return Host(name, address, self.config, self.book, self.now)

    # -- the network --------------------------------------------------------------------------

    def _carry(self, effects: list[Effect], edge: Host) -> None:
        """Carry what an edge says, and all that follows from it."""
        waiting: deque[tuple[bytes, Address]] = deque()
        self._hear_edge(effects, edge, waiting)
        self._answer(waiting)

    def _answer(self, waiting: deque[tuple[bytes, Address]]) -> None:
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            effects = self.validator.endpoint.receive_batch(batch, self.now)
            self._deliver(effects, waiting)

    def _deliver(self, effects: list[Effect], waiting: deque[tuple[bytes, Address]]) -> None:
        source = self.validator.address
        for one in effects:
            if not isinstance(one, Transmit):
                self._tell("validator", one)
            elif self.dice.randrange(1000) >= self.loss:
                edge = self.edges.get(one.address)
                if edge is not None:
                    found = edge.endpoint.receive_datagram(one.data, source, self.now)
                    self._hear_edge(found, edge, waiting)

    def _hear_edge(
        self, effects: list[Effect], edge: Host, waiting: deque[tuple[bytes, Address]]
    ) -> None:
        for one in effects:
            if not isinstance(one, Transmit):
                self._tell("edge", one)
            elif self.dice.randrange(1000) >= self.loss:
                waiting.append((one.data, edge.address))
        self._plan(edge)

    def _tell(self, which: str, effect: Effect) -> None:
        if isinstance(effect, (SessionUp, SessionRenewed, MessageReceived)):
            self.told[f"{which} {type(effect).__name__}"] += 1
        elif isinstance(effect, SessionDown):
            self.told[f"{which} SessionDown {effect.reason.value}"] += 1

    def _plan(self, edge: Host) -> None:
        due = edge.endpoint.next_timeout()
        if due is not None:
            second = max(due // SECOND, self.now // SECOND) + 1
            self._due.setdefault(second, set()).add(edge.address)

    # -- what edges do ------------------------------------------------------------------------

    def join(self) -> None:
        """Let a new edge dial in."""
        self.made += 1
        number = self.made
        address = Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4719)
        edge = self._host(f"edge-{number}", address)
        self.book.entries[edge.name] = edge.enlist()
        self.edges[address] = edge
        self.living.append(edge)
        self._dial(edge)

    def _dial(self, edge: Host) -> None:
        self._carry(edge.endpoint.connect(self.validator.pin(), self.now), edge)

    def _take(self) -> Host:
        """Take some edge out of those that live."""
        place = self.dice.randrange(len(self.living))
        self.living[place], self.living[-1] = self.living[-1], self.living[place]
        return self.living.pop()

    def _end(self, edge: Host) -> None:
        del self.edges[edge.address], self.book.entries[edge.name]
        self.join()

    def leave(self) -> None:
        """An edge says good-bye; another one comes."""
        edge = self._take()
        self._carry(edge.endpoint.close(self.validator.name, self.now), edge)
        self._end(edge)

    def vanish(self) -> None:
        """An edge is never heard of again; another one comes."""
        self._end(self._take())

    def restart(self) -> None:
        """An edge forgets everything but who it is."""
        edge = self.dice.choice(self.living)
        edge.boot(self.now)
        self._dial(edge)

    def move(self) -> None:
        """An edge gets another port, as from a NAT."""
        edge = self.dice.choice(self.living)
        del self.edges[edge.address]
        edge.address = Address(edge.address.host, self.dice.randrange(1024, 65_536))
        self.edges[edge.address] = edge
        self._plan(edge)

    def _send(self) -> None:
        edge = self.dice.choice(self.living)
        if edge.endpoint.peers:
            self.told["sent"] += 1
            found = edge.endpoint.send(self.validator.name, Channel.TER, bytes(300), self.now)
            self._carry(found, edge)

    # -- time ---------------------------------------------------------------------------------

    def second(self) -> None:
        """Let a second pass."""
        self.now = Instant(self.now + SECOND)
        waiting: deque[tuple[bytes, Address]] = deque()
        for address in sorted(self._due.pop(self.now // SECOND, ())):
            edge = self.edges.get(address)
            if edge is not None:
                self._hear_edge(edge.endpoint.handle_timeout(self.now), edge, waiting)
        self._answer(waiting)
        self._deliver(self.validator.endpoint.handle_timeout(self.now), waiting)
        self._answer(waiting)

    def minute(self) -> None:
        """Let a minute pass in which edges come and go and speak."""
        events = [
            getattr(self, name)
            for name, share in PER_MILLE_A_MINUTE.items()
            for _ in range(max(1, self.count * share // 1000))
        ]
        events += [self._send] * (self.count * 60 // MESSAGE_GAP_S)
        self.dice.shuffle(events)
        for second in range(60):
            self.second()
            for event in events[second::60]:
                event()

    def fill(self) -> None:
        """Let all edges join within a minute."""
        for second in range(JOIN_S):
            for _ in range(self.count * second // JOIN_S, self.count * (second + 1) // JOIN_S):
                self.join()
            self.second()

    def rests(self) -> bool:
        """Let time pass until no more links are awake than may be; False: not within a renewal.

        For half a minute after their keys were renewed links cannot rest, and those that came
        together renew within a few minutes of each other.
        """
        for _ in range(2 * self.config.rekey_us // SECOND):
            if len(self.validator.endpoint._links.awake) <= self.config.awake_max:
                return True
            self.second()
        return False

    def faults(self) -> list[str]:
        """Return what is wrong at the end, behind three quiet minutes."""
        loss, self.loss = self.loss, 0
        for _ in range(3 * 60):
            self.second()
        self.rests()
        self.loss = loss
        peers = set(self.validator.endpoint.peers)
        lost = [edge.name for edge in self.living if edge.name not in peers]
        lone = [edge.name for edge in self.living if not edge.endpoint.peers]
        found = [f"{len(lost)} edges have no session at the validator"] if lost else []
        found += [f"{len(lone)} edges believe to have no session"] if lone else []
        if len(peers) != self.count:
            found.append(f"{len(peers)} sessions for {self.count} edges")
        oldest = max(map(self._key_age, self.living))
        if oldest > self.config.rekey_us * 11 // 10 + MINUTE:
            found.append(f"keys of {oldest // MINUTE} minutes")
        return found + self._overfull()

    def _key_age(self, edge: Host) -> int:
        links = edge.endpoint._links.awake.values()
        return max((self.now - link.session.created for link in links), default=0)

    def _overfull(self) -> list[str]:
        endpoint, config = self.validator.endpoint, self.config
        table, responder = endpoint._table, endpoint._responder
        sizes = {
            # Replaced keys open packets for half a minute more.
            "sessions by token": (len(table.sessions) + len(table._resting), self.count * 11 // 10),
            "unconfirmed sessions": (len(table.pending), 0),
            "links awake": (len(endpoint._links.awake), config.awake_max),
            "cipher objects": (len(endpoint._ciphers), config.ciphers_max),
            "used cookies": (len(responder._used), config.used_cookies_max),
            "halves of ATTESTs": (len(responder._parts), config.partial_attests_max),
            "rates of prefixes": (len(responder._limiter), config.prefixes_max),
            "deadlines": (len(endpoint._agenda._due), self.count + 1),
        }
        return [f"{name}: {size}, at most {most}" for name, (size, most) in sizes.items()
                if size > most]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--minutes", type=int, default=70)
    parser.add_argument("--loss", type=int, default=5, help="datagrams lost, of a thousand")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rekey-minutes", type=int, default=60, help="age of keys when renewed")
    options = parser.parse_args()
    begin, empty = time.process_time(), resident()
    warm = min(WARM_MINUTES, options.minutes // 2)
    fleet = Fleet(options.sessions, options.loss, options.seed, options.rekey_minutes)
    gc.disable()  # edges that are replaced are cycles; they are collected where memory is measured
    fleet.fill()
    gc.collect()
    sizes, held = [resident()], sys.getallocatedblocks()
    for minute in range(1, options.minutes + 1):
        fleet.minute()
        if minute == warm:
            fleet.rests()
            gc.collect()
            held = sys.getallocatedblocks()
        sizes.append(resident())
        endpoint = fleet.validator.endpoint
        sys.stdout.write(
            f"minute {minute}: {len(endpoint.peers)} sessions, {sizes[-1] >> 20} MiB, "
            f"{time.process_time() - begin:.0f} s of CPU\n"
        )
        sys.stdout.flush()
    faults = fleet.faults()
    gc.collect()
    # Not what is resident, for that stays as high as it was while keys were being renewed.
    grown = (sys.getallocatedblocks() - held) / options.sessions
    if grown > GROWTH_MAX:
        faults.append(f"{grown:.1f} objects more for each session")
    for fault in faults:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(
        f"{options.sessions} sessions, {options.minutes} minutes, {fleet.made} edges, "
        f"{(sizes[0] - empty) / options.sessions:.0f} bytes each for both ends when joined, "
        f"{grown:+.1f} objects each from minute {warm} on, {resident() >> 20} MiB resident, "
        f"{dict(sorted(fleet.told.items()))}: {'FAILED' if faults else 'ok'}\n"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

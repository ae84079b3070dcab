"""Many sessions for long: what an answering end holds does not grow.

With a hundred thousand sessions it is `python -m tests.soak_sessions`.
"""

import pytest
from tests.soak_sessions import Fleet, resident
from tests.unit.htp.htp_pair import START, Book, Host

from hookprobe.htp.config import SUITE_CLASSICAL, HtpConfig
from hookprobe.htp.effects import Address, Effect, Transmit
from hookprobe.wire.instant import SECOND, Instant

SESSIONS, ROUNDS, WARM = 4_000, 16, 4


def exchange(edge: Host, validator: Host, effects: list[Effect], now: Instant) -> None:
    """Carry datagrams between the two until neither has more to say."""
    waiting = [(edge, one) for one in effects if isinstance(one, Transmit)]
    while waiting:
        sender, one = waiting.pop(0)
        receiver = validator if sender is edge else edge
        found = receiver.endpoint.receive_datagram(one.data, sender.address, now)
        waiting += [(receiver, answer) for answer in found if isinstance(answer, Transmit)]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_47_thousands_of_sessions_speak_for_long_and_memory_does_not_grow() -> None:
    now, book = START, Book()
    config = HtpConfig(suites_offered=SUITE_CLASSICAL, peers_max=2 * SESSIONS)
    validator = Host("validator-1", Address("192.0.2.1", 4719), config, book, now)
    edges = []
    for number in range(SESSIONS):
        address = Address(f"10.0.{number >> 8}.{number & 255}", 4719)
        edge = Host(f"edge-{number}", address, config, book, now)
        book.entries[edge.name] = edge.enlist()
        exchange(edge, validator, edge.endpoint.connect(validator.pin(), now), now)
        edges.append(edge)
    assert len(validator.endpoint.peers) == SESSIONS
    sizes = []
    for _ in range(ROUNDS):
        now = Instant(now + 30 * SECOND)
        for edge in edges:
            exchange(edge, validator, edge.endpoint.handle_timeout(now), now)
        validator.endpoint.handle_timeout(now)
        sizes.append(resident())
    assert len(validator.endpoint.peers) == SESSIONS
    sent = min(meter.received for meter in validator.endpoint.sessions(now))
    assert sent >= ROUNDS, "each of them spoke in every round"
    grown = sizes[-1] - sizes[WARM]
    assert grown < SESSIONS * 400, f"{grown} bytes in {ROUNDS - WARM} rounds"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_47_edges_come_and_go_and_every_table_stays_within_its_bound() -> None:
    fleet = Fleet(300, loss=5, seed=47, rekey_minutes=5)
    fleet.fill()
    for _ in range(8):
        fleet.minute()
    assert fleet.faults() == []
    told = fleet.told
    assert told["validator SessionRenewed"] >= 200
    assert told["validator MessageReceived"] == told["sent"] > 400
    for reason in ("closed_by_peer", "idle", "replaced"):
        assert told[f"validator SessionDown {reason}"] >= 5

"""Several worker processes on one port: sessions stay with their worker, whatever the address."""

import contextlib
import multiprocessing
import os
import select
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.unit.htp.htp_pair import Book, Replay, Weights, fingerprint_of, identity_of

from hookprobe.crypto.agreement import MlKem
from hookprobe.crypto.signing import Ed25519
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, Effect, MessageReceived, Transmit
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.packet import PacketType, decode_header
from hookprobe.htp.path import each_received
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, RegisteredPeer, Seams, Worker
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.udp import UdpSocket, bind_group
from hookprobe.wire.identifiers import NodeId

WORKERS, CLIENTS, WAIT_S = 3, 24, 20
HERE = Address("127.0.0.1", 0)
VALIDATOR = NodeId("validator-1")
CONFIG = HtpConfig(attest_rate_per_s=1000, attest_burst=1000)


def build(name: str, worker: Worker) -> Endpoint:
    book = Book()
    for number in range(CLIENTS):
        client = f"edge-{number}"
        key = identity_of(client).signer.public_key
        book.entries[NodeId(client)] = RegisteredPeer(key, True, (fingerprint_of(client),))
    plain = identity_of(name)
    identity = LocalIdentity(
        plain.node, plain.signer, plain.static_key, plain.reset_key, worker=worker
    )
    seams = Seams(book, Weights(fingerprint_of(name)), Replay(), Ed25519(), MlKem())
    return Endpoint(CONFIG, identity, seams, os.urandom, Clock().now())


class Runner:
    """An endpoint on a socket, a turn at a time."""

    def __init__(self, endpoint: Endpoint, found: UdpSocket) -> None:
        self.endpoint = endpoint
        self.socket = found
        self.clock = Clock()
        self.got: list[MessageReceived] = []
        self.sent: list[bytes] = []

    def execute(self, effects: list[Effect]) -> None:
        leaving = [one for one in effects if isinstance(one, Transmit)]
        self.sent += [one.data for one in leaving]
        self.socket.send_batch(leaving)
        self.got += [one for one in effects if isinstance(one, MessageReceived)]

    def turn(self) -> None:
        now = self.clock.now()
        received = self.socket.drain()
        if received:
            self.execute(self.endpoint.receive_batch(received, now))
        due = self.endpoint.next_timeout()
        if due is not None and due <= now:
            self.execute(self.endpoint.handle_timeout(now))


def work(index: int, found: UdpSocket, root: bytes) -> None:
    """Echo every message with our index in front, for ever."""
    runner = Runner(build(VALIDATOR, Worker(index, WORKERS, root)), found)
    while True:
        select.select([found._socket], [], [], 0.02)
        runner.turn()
        for message in runner.got:
            data = b"%d:%s" % (index, message.data)
            now = runner.clock.now()
            runner.execute(runner.endpoint.send(message.peer, Channel.TER, data, now))
        runner.got.clear()


@contextlib.contextmanager
def workers() -> Iterator[Address]:
    group, root = bind_group(HERE, WORKERS), os.urandom(32)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=work, args=(index, found, root), daemon=True)
        for index, found in enumerate(group)
    ]
    try:
        for process in processes:
            process.start()
        yield group[0].address
        assert all(process.is_alive() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for found in group:
            found.shut()


def client(number: int, at: Address) -> Runner:
    runner = Runner(build(f"edge-{number}", Worker()), UdpSocket(HERE))
    pinned = PinnedPeer(VALIDATOR, at, identity_of(VALIDATOR).static_key.public_key)
    runner.execute(runner.endpoint.connect(pinned, runner.clock.now()))
    return runner


def until(clients: list[Runner], ready: str) -> None:
    """Let the clients run until all have a session, or all have an answer."""
    for _ in range(WAIT_S * 200):
        for runner in clients:
            runner.turn()
        if all(runner.got if ready == "answers" else runner.endpoint.peers for runner in clients):
            return
        time.sleep(0.005)
    raise AssertionError(f"no {ready}")


def ask(clients: list[Runner], text: bytes) -> list[int]:
    """Send a message from each and return which worker answered."""
    for runner in clients:
        runner.got.clear()
        now = runner.clock.now()
        runner.execute(runner.endpoint.send(VALIDATOR, Channel.TER, text, now))
    until(clients, "answers")
    answers = [runner.got[0].data.split(b":") for runner in clients]
    assert {answer for _, answer in answers} == {text}
    return [int(index) for index, _ in answers]


def test_sessions_of_many_clients_are_spread_and_stay_where_they_are() -> None:
    with workers() as at:
        clients = [client(number, at) for number in range(CLIENTS)]
        until(clients, "sessions")
        first = ask(clients, b"one")
        assert len(Counter(first)) == WORKERS
        for runner in clients:  # the NAT forgets: new ports for all
            runner.socket.shut()
            runner.socket = UdpSocket(HERE)
        assert ask(clients, b"two") == first
        assert ask(clients, b"three") == first
        for runner in clients:
            runner.socket.shut()


def test_a_repeated_attest_meets_the_worker_that_answered_it() -> None:
    with workers() as at:
        clients = [client(number, at) for number in range(6)]
        until(clients, "sessions")
        for runner in clients:
            runner.turn()
            attest = [one for one in runner.sent if kind_of(one) is PacketType.ATTEST]
            for data in attest[:2]:
                runner.socket.send(at, data)
            answers = [one for one in collected(runner) if kind_of(one) is PacketType.ACCEPT]
            assert len(answers) == 2, "the answer is kept where the cookie leads"
            again = runner.endpoint.receive_batch([(one, at) for one in answers], Clock().now())
            assert not any(isinstance(one, MessageReceived) for one in again)
            runner.socket.shut()


def kind_of(data: bytes) -> PacketType:
    return decode_header(data).kind


def collected(runner: Runner) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(100):
        found += [data for data, _ in each_received(runner.socket.drain())]
        time.sleep(0.002)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 7, 256])
def test_tokens_lead_back_to_their_worker(count: int) -> None:
    for index in {0, count // 2, count - 1}:
        worker = Worker(index, count)
        for first in range(256):
            token = bytes((first,)) + b"1234567"
            assert worker.own(token)[0] % count == index
            assert worker.own(token)[1:] == token[1:]

"""The socket on the loopback: runs of datagrams, hosts that refuse them (condition 43)."""

import asyncio
import ctypes
import errno
import socket
import time
from collections.abc import Iterator, Sequence
from mmap import PAGESIZE as PAGE_BYTES
from pathlib import Path

import pytest

from hookprobe.errors import HostError, LocalError
from hookprobe.htp.bulk import RUN_MAX as SEGMENTS_MAX
from hookprobe.htp.bulk import RUN_MAX_BYTES
from hookprobe.htp.effects import Address, Transmit, TransmitRun
from hookprobe.htp.path import each_received
from hookprobe.runtime import udp
from hookprobe.runtime.mmsg import SLOTS, SMALL_BYTES, Found, ManyDatagrams
from hookprobe.runtime.udp import DATAGRAM_MAX_BYTES, UdpSocket

HERE = Address("127.0.0.1", 0)


class Kernel:
    """A socket that passes on to a real one, and refuses what it is told to."""

    def __init__(self, real: socket.socket, refusal: int, *, single: bool = False) -> None:
        self.real = real
        self.refusal = refusal
        self.single = single
        self.runs: list[int] = []
        self.singles = 0

    def sendmsg(self, run: Sequence[bytes], *rest: object) -> int:
        self.runs.append(len(run))
        raise OSError(self.refusal, "refused")

    def sendto(self, data: bytes, address: Address) -> int:
        self.singles += 1
        if self.single:
            raise OSError(self.refusal, "refused")
        return self.real.sendto(data, address)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.fixture
def ends() -> Iterator[tuple[UdpSocket, UdpSocket]]:
    loop = asyncio.new_event_loop()
    sender, receiver = UdpSocket(HERE), UdpSocket(HERE)
    yield sender, receiver
    sender.close(loop)
    receiver.close(loop)
    loop.close()


def drained(receiver: UdpSocket, count: int) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(2000):
        found += [data for data, _ in each_received(receiver.drain())]
        if len(found) >= count:
            break
        time.sleep(0.001)
    return found


def batch(to: UdpSocket, *sizes: int) -> list[Transmit]:
    return [Transmit(to.address, bytes((place & 255,)) * size) for place, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "sizes",
    [
        (1200,),
        (1200,) * 64,
        (1200,) * 150,
        (1200, 1200, 700),
        (1200, 700, 1200, 1200),
        (116, 1200, 1200, 116, 116),
        (8952,) * 20,
        (1,) * 70,
    ],
    ids=str,
)
def test_what_is_sent_in_runs_arrives_as_it_was(
    ends: tuple[UdpSocket, UdpSocket], sizes: tuple[int, ...]
) -> None:
    sender, receiver = ends
    wanted = batch(receiver, *sizes)
    sender.send_batch(wanted)
    assert drained(receiver, len(sizes)) == [one.data for one in wanted]
    assert (sender.sent_bytes, sender.unsent) == (sum(sizes), 0)
    assert sender.segmenting


def test_runs_end_where_address_or_size_change_and_at_their_limits() -> None:
    first, second = Address("10.0.0.1", 1), Address("10.0.0.2", 1)
    sent = [Transmit(first, bytes(100))] * 3 + [Transmit(second, bytes(100))] * 2
    sent += [Transmit(second, bytes(90)), Transmit(second, bytes(90)), Transmit(second, bytes(91))]
    runs = [(address, [len(data) for data in run]) for address, run in udp._runs(sent)]
    assert runs == [(first, [100] * 3), (second, [100, 100, 90]), (second, [90]), (second, [91])]
    counts = [len(run) for _, run in udp._runs([Transmit(first, bytes(10))] * 100)]
    assert counts == [SEGMENTS_MAX, 36]
    large = [sum(map(len, run)) for _, run in udp._runs([Transmit(first, bytes(8952))] * 10)]
    assert max(large) <= RUN_MAX_BYTES


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL], ids=["EIO", "EINVAL"])
def test_43_a_host_that_refuses_runs_gets_single_datagrams_from_there_on(
    ends: tuple[UdpSocket, UdpSocket], code: int
) -> None:
    sender, receiver = ends
    kernel = Kernel(sender._socket, code)
    sender._socket = kernel  # type: ignore[assignment]
    for _ in range(2):
        wanted = batch(receiver, *(1200,) * 20)
        sender.send_batch(wanted)
        assert drained(receiver, 20) == [one.data for one in wanted]
    assert (kernel.runs, kernel.singles, sender.segmenting) == ([20], 40, False)
    assert sender.unsent == 0


def test_43_one_datagram_too_large_does_not_end_segmentation(
    ends: tuple[UdpSocket, UdpSocket],
) -> None:
    sender, receiver = ends
    sender._socket = Kernel(sender._socket, errno.EMSGSIZE, single=True)  # type: ignore[assignment]
    sender.send_batch(batch(receiver, *(1200,) * 5))
    assert (sender.segmenting, sender.unsent) == (True, 5)


def test_43_a_full_buffer_is_lost_packets_and_no_more(ends: tuple[UdpSocket, UdpSocket]) -> None:
    sender, receiver = ends
    kernel = Kernel(sender._socket, errno.EAGAIN)
    sender._socket = kernel  # type: ignore[assignment]
    sender.send_batch(batch(receiver, *(1200,) * 5))
    assert (sender.segmenting, sender.unsent, kernel.singles) == (True, 5, 0)


def test_a_socket_without_offload_sends_one_by_one() -> None:
    loop = asyncio.new_event_loop()
    sender, receiver = UdpSocket(HERE, offload=False), UdpSocket(HERE, offload=False)
    wanted = batch(receiver, *(1200,) * 30)
    sender.send_batch(wanted)
    assert drained(receiver, 30) == [one.data for one in wanted]
    sender.close(loop)
    receiver.close(loop)
    loop.close()


def test_datagrams_are_never_made_into_ip_fragments(ends: tuple[UdpSocket, UdpSocket]) -> None:
    sender, receiver = ends
    found = sender._socket.getsockopt(socket.IPPROTO_IP, udp.IP_MTU_DISCOVER)
    assert found == udp.PMTUDISC_PROBE
    sender.send(receiver.address, bytes(65_508))
    assert sender.unsent == 1


def test_a_port_in_use_is_a_clear_error(ends: tuple[UdpSocket, UdpSocket]) -> None:
    with pytest.raises(HostError, match="cannot listen"):
        UdpSocket(ends[0].address)


def crowd(count: int) -> list[socket.socket]:
    found = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
        one.settimeout(5)
    return found


@pytest.mark.parametrize("way", ["many", "plain"])
def test_many_peers_are_heard_and_answered_each_with_its_own(
    ends: tuple[UdpSocket, UdpSocket], way: str
) -> None:
    here, _ = ends
    if way == "plain":
        here.many = None
    peers = crowd(150)
    sent = [bytes((number,)) * (number % 7 * 300) for number in range(150)]
    for peer, data in zip(peers, sent, strict=True):
        peer.sendto(data, here.address)
    heard: list[tuple[bytes, Address]] = []
    while len(heard) < 150:
        heard += each_received(here.drain())
    assert heard == [
        (data, Address(*peer.getsockname())) for peer, data in zip(peers, sent, strict=True)
    ]
    here.send_batch([Transmit(address, data) for data, address in heard])
    assert [peer.recv(4000) for peer in peers] == sent
    assert (here.sent_bytes, here.unsent) == (sum(map(len, sent)), 0)
    for peer in peers:
        peer.close()


def test_runs_among_single_datagrams_arrive_as_they_were(
    ends: tuple[UdpSocket, UdpSocket],
) -> None:
    sender, receiver = ends
    sizes = (100, *(1200,) * 20, 90, *(700,) * 30, 80)
    wanted = [one.data for one in batch(receiver, *sizes)]
    for data in wanted[:1]:
        sender.send(receiver.address, data)
    run = wanted[1:21]
    sender.send_batch([TransmitRun(receiver.address, run)])
    sender.send_batch([Transmit(receiver.address, data) for data in wanted[21:]])
    assert drained(receiver, len(sizes)) == wanted


def test_what_the_host_does_not_take_is_lost_alone(ends: tuple[UdpSocket, UdpSocket]) -> None:
    sender, _ = ends
    peers = crowd(8)
    homes = [Address(*peer.getsockname()) for peer in peers]
    nowhere = [Address("127.0.0.1", 0), Address("no address", 1)]
    sender.send_batch(
        [Transmit(home, b"x") for home in (*homes[:3], nowhere[0], *homes[3:6], nowhere[1])]
        + [Transmit(homes[6], bytes(3000)), Transmit(homes[7], b"x")]
    )
    assert [len(peer.recv(4000)) for peer in peers] == [1] * 6 + [3000, 1]
    assert sender.unsent == 2
    for peer in peers:
        peer.close()


def test_a_closed_socket_sends_nothing_by_a_descriptor_that_is_another_ones() -> None:
    here, peers = UdpSocket(HERE), crowd(8)
    homes = [Transmit(Address(*peer.getsockname()), b"x") for peer in peers]
    here.shut()
    heir = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # gets the number that became free
    here.send_batch(homes)
    assert (here.sent_bytes, here.unsent) == (0, 8)
    for one in (heir, *peers):
        one.close()


def test_ipv6_and_hosts_without_the_calls_do_each_datagram_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    here = UdpSocket(HERE)
    assert here.many is None
    here.shut()
    monkeypatch.undo()
    if socket.has_ipv6:
        here = UdpSocket(Address("::1", 0))
        assert here.many is None
        here.shut()


def test_more_than_the_blocks_hold_is_refused_before_the_host_sees_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        many = ManyDatagrams(one.fileno(), (0, 0))
        address = Address("127.0.0.1", 9)
        for batch in (
            [Transmit(address, b"x")] * (SLOTS + 1),
            [Transmit(address, b"x" * (SMALL_BYTES + 1))] * SLOTS,
        ):
            with pytest.raises(LocalError):
                many.send(batch)


def test_a_socket_takes_memory_for_what_came_only() -> None:
    pages = Path("/proc/self/statm")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        before = int(pages.read_text().split()[1])
        kept = [ManyDatagrams(one.fileno(), (0, 0)) for _ in range(16)]
        grown = (int(pages.read_text().split()[1]) - before) * PAGE_BYTES
        assert kept[0].receive() == []
    assert grown < SLOTS * DATAGRAM_MAX_BYTES, "each would take as much as that for itself"


def send_run(peer: socket.socket, run: list[bytes], there: Address) -> None:
    """Send a run in one call; the host hands it over as one."""
    size = len(run[0]).to_bytes(2, "little")
    peer.sendmsg(run, [(udp.SOL_UDP, udp.UDP_SEGMENT, size)], 0, there)


@pytest.mark.parametrize(("size", "together"), [(800, [7]), (8000, [])])
def test_short_runs_of_a_crowd_come_in_one_call_and_long_ones_do_not(
    size: int, together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, peers, taken = UdpSocket(HERE), crowd(8), []
    assert here.many is not None
    real = here.many.receive

    def receive() -> Found:
        found = real()
        taken.append(len(found))
        return found

    monkeypatch.setattr(here.many, "receive", receive)
    for number, peer in enumerate(peers):
        send_run(peer, [bytes((number,)) * size, bytes((number,)) * 700], here.address)
    turns = [here.drain(), here.drain()]
    assert [len(data) for data, _ in each_received(turns[0])] == [size, 700] * 8
    assert (turns[1], taken) == ([], together)
    here.shut()
    for one in peers:
        one.close()

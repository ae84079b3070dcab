"""One UDP socket with its own receive loop, and segmentation offload where the host has it.

asyncio's datagram protocol costs five to ten times more per packet than draining the socket when
it becomes readable, so that is what happens here: a bounded number of datagrams per wake, so that
timers and sensors get their turn too.

Runs of datagrams of one size to one address go to the host in one call (UDP_SEGMENT) and come from
it in one (UDP_GRO): a system call costs more than sealing a packet. Drivers of network cards that
cannot do it refuse with EIO or EINVAL; then the run is sent again one by one, and the socket does
without from there on. Fragments of IP are never made: the transport searches for the path's size.
"""

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

from hookprobe.errors import HostError
from hookprobe.htp.bulk import RUN_MAX as SEGMENTS_MAX
from hookprobe.htp.bulk import RUN_MAX_BYTES
from hookprobe.htp.effects import Address, Leaving, Transmit, TransmitRun, each_datagram
from hookprobe.htp.path import Burst
from hookprobe.runtime.mmsg import SLOTS, SMALL_BYTES, ManyDatagrams

DRAIN_MAX = 256
SHORT_RUN_BYTES = 4096  # both halves of an ATTEST come as one run, from many dialling peers
MANY = 4  # datagrams to several peers from which on one call for all of them pays
DATAGRAM_MAX_BYTES = 65_535
ADDRESSES_MAX = 4096
_BUFFER_BYTES = 8 << 20

# Of <linux/udp.h>, <linux/in.h> and <linux/in6.h>; Python's socket module does not name them.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
SO_ATTACH_REUSEPORT_CBPF = 51
# Of <linux/bpf_common.h>: load half a word or a byte of the packet, jump, modulo, return.
_LDH, _LDB, _JEQ, _JA, _MOD, _RET_A = 0x28, 0x30, 0x15, 0x05, 0x94, 0x16
_HELLO = 1
_REFUSALS = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP)

Received = list[tuple[bytes, Address] | Burst]


class UdpSocket:
    """A bound, non-blocking socket.

    Args:
        address: Where to listen; port 0 takes a free one.
        offload: Whether runs of datagrams may be handed to the host in one call.
        shared: Whether other sockets of ours may have the same port; see `bind_group`.

    Raises:
        HostError: The address cannot be bound.

    Attributes:
        segmenting: Whether runs are handed over in one call now.
        many: Takes and sends datagrams of many peers in one call; None: this host, or IPv6, has
            each of them in a call of its own, which costs a seventh more for each heartbeat.
        sent_bytes: All that the host took.
        unsent: Datagrams that it did not take.
    """

    def __init__(self, address: Address, *, offload: bool = True, shared: bool = False) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        _set_options(self._socket, offload=offload)
        if shared:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._socket.bind((address.host, address.port))
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"cannot listen on {address.host} port {address.port}: {error.strerror}",
                hint="is another process using the port, or is the address not on this host?",
            ) from error
        self._buffer = memoryview(bytearray(DATAGRAM_MAX_BYTES))
        self._addresses: dict[tuple[object, ...], Address] = {}
        self.segmenting = offload
        self.many = _many(self._socket) if offload else None
        self._calm = True  # the last turn brought no long runs
        self.sent_bytes = 0
        self.unsent = 0

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return Address(str(host), int(port))

    def attach(self, loop: asyncio.AbstractEventLoop, receive: Callable[[Received], None]) -> None:
        """Call `receive` with what has arrived, whenever something has."""
        loop.add_reader(self._socket, lambda: receive(self.drain()))

    def drain(self) -> Received:
        """Return what has arrived, as far as it is not more than a turn's work."""
        received: Received = []
        buffers, buffer, count = [self._buffer], self._buffer, 0
        while count < DRAIN_MAX:
            try:
                size, ancillary, _, source = self._socket.recvmsg_into(buffers, 64)
            except OSError:  # nothing left, or the report of an earlier packet that bounced
                break
            address = self._addresses.get(source) or self._remember(source)
            step = _segment_bytes(ancillary) or max(size, 1)
            whole = bytes(buffer[:size])
            count += max(1, -(-size // step))
            received.append(Burst(whole, address, step) if step < size else (whole, address))
            if self.many is not None and self._calm and size <= SHORT_RUN_BYTES:
                # More of them are likely to wait.
                more = self.many.receive()
                received += more
                count += len(more)
                if len(more) < SLOTS:
                    break
        # Long runs in such numbers would be more than a turn's work.
        self._calm = not any(
            isinstance(one, Burst) and len(one.data) > SHORT_RUN_BYTES for one in received
        )
        return received

    def _remember(self, source: tuple[object, ...]) -> Address:
        if len(self._addresses) >= ADDRESSES_MAX:
            self._addresses.clear()
        address = self._addresses[source] = Address(str(source[0]), int(str(source[1])))
        return address

    def send(self, address: Address, data: bytes) -> None:
        """Send one datagram; what the host refuses is a lost packet, counted in `unsent`."""
        try:
            self._socket.sendto(data, address)
            self.sent_bytes += len(data)
        except OSError:
            self.unsent += 1

    def send_batch(self, batch: Sequence[Leaving]) -> None:
        """Send datagrams in order, runs of them in one call where the host can."""
        singles: list[Transmit] = []
        for one in batch:
            if isinstance(one, Transmit):
                singles.append(one)
            elif self.segmenting and _fits(one):
                self._send_singles(singles)
                singles = []
                self._send_run(*one)
            else:
                singles += each_datagram((one,))
        self._send_singles(singles)

    def _send_singles(self, batch: Sequence[Transmit]) -> None:
        if not self.segmenting or len(batch) <= 1:
            for address, data in batch:
                self.send(address, data)
            return
        if len({address for address, _ in batch}) == len(batch):  # no two can be of one run
            self._send_alone(batch)
            return
        alone: list[Transmit] = []
        for address, run in _runs(batch):
            if len(run) == 1:
                alone.append(Transmit(address, run[0]))
            else:
                self._send_alone(alone)
                alone = []
                self._send_run(address, run)
        self._send_alone(alone)

    def _send_alone(self, batch: Sequence[Transmit]) -> None:
        """Send what belongs to no run: many of them in one call, if there are many."""
        start = 0
        while self.many is not None and len(batch) - start >= MANY:
            window = batch[start : start + SLOTS]
            sizes = [len(data) for _, data in window]
            if max(sizes) > SMALL_BYTES:
                break
            count = self.many.send(window)
            self.sent_bytes += sum(sizes[:count])
            start += count
            if count < len(window):  # this one by itself, which also says why
                self.send(*batch[start])
                start += 1
        for one in batch[start:]:
            self.send(*one)

    def _send_run(self, address: Address, run: Sequence[bytes]) -> None:
        size = len(run[0]).to_bytes(2, "little" if _LITTLE else "big")
        try:
            self.sent_bytes += self._socket.sendmsg(run, [(SOL_UDP, UDP_SEGMENT, size)], 0, address)
        except BlockingIOError:
            self.unsent += len(run)
        except OSError as error:
            # A run may also be refused for what one datagram of it is: each is tried by itself.
            self.segmenting = self.segmenting and error.errno not in _REFUSALS
            for data in run:
                self.send(address, data)

    def steer(self, count: int) -> None:
        """Tell the host how packets find their way among `count` sockets of this port.

        Raises:
            HostError: It cannot.
        """
        steps = (
            (_LDH, 0, 0, 2),
            (_JEQ, 0, 2, _HELLO),
            (_LDB, 0, 0, 100),
            (_JA, 0, 0, 1),
            (_LDB, 0, 0, 12),
            (_MOD, 0, 0, count),
            (_RET_A, 0, 0, 0),
        )
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        program = struct.pack("HP", len(steps), ctypes.addressof(code))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)
        except OSError as error:
            raise HostError(
                f"cannot steer packets among {count} workers: {error.strerror}",
                hint="Linux 4.5 or later can; run one worker elsewhere",
            ) from error

    def shut(self) -> None:
        """Close a socket that was never attached."""
        self.many = None  # its descriptor may soon be somebody else's
        self._socket.close()

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop calling; what arrives waits in the host's buffer, as far as that goes."""
        loop.remove_reader(self._socket)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._socket)
        self.shut()


def bind_group(address: Address, count: int) -> list[UdpSocket]:
    """Return sockets of one port, for as many worker processes; a packet comes to one of them.

    The host runs a classic BPF program on each packet: `token[0] mod count`, and for a HELLO
    `client_random[0] mod count`, is the place in this list. So a session stays with its worker when
    the address of its peer changes. The group has to be closed and bound as a whole.

    Raises:
        HostError: The address cannot be bound, or the host cannot steer.
    """
    sockets = [UdpSocket(address, shared=True)]
    try:
        while len(sockets) < count:
            sockets.append(UdpSocket(sockets[0].address, shared=True))
        sockets[0].steer(count)
    except HostError:
        for one in sockets:
            one.shut()
        raise
    return sockets


_LITTLE = socket.htons(1) != 1


def _set_options(found: socket.socket, *, offload: bool) -> None:
    # Everything here makes things faster or finer; a host without it gets slower service only.
    for plain, forced in ((socket.SO_RCVBUF, SO_RCVBUFFORCE), (socket.SO_SNDBUF, SO_SNDBUFFORCE)):
        try:
            found.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except OSError:
            found.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
    with contextlib.suppress(OSError):
        if found.family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            found.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if offload:
        with contextlib.suppress(OSError):
            found.setsockopt(SOL_UDP, UDP_GRO, 1)


def _segment_bytes(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the size of the datagrams in a run that the host put together; 0 for a single one."""
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            return int.from_bytes(data[:2], "little" if _LITTLE else "big")
    return 0


def _many(found: socket.socket) -> ManyDatagrams | None:
    if found.family != socket.AF_INET:
        return None
    try:
        return ManyDatagrams(found.fileno(), (SOL_UDP, UDP_GRO))
    except OSError:
        return None


def _fits(run: TransmitRun) -> bool:
    """Whether the host takes a run in one call; what is alone goes by itself, as all others do."""
    count = len(run.packets)
    return 1 < count <= SEGMENTS_MAX and count * len(run.packets[0]) <= RUN_MAX_BYTES


def _runs(batch: Sequence[Transmit]) -> Iterator[tuple[Address, list[bytes]]]:
    """Cut a batch where address or size changes; the last datagram of a run may be shorter."""
    start, stop = 0, len(batch)
    while start < stop:
        target, first = batch[start]
        size = len(first)
        window = batch[start : start + max(1, min(SEGMENTS_MAX, RUN_MAX_BYTES // max(size, 1)))]
        if len(window) > 1 and window[1].address == target and len(window[1].data) == size:
            # As a rule the long run of one transfer, which needs no look at each.
            run = [data for address, data in window if address == target]
            if [len(data) for data in run].count(size) < len(window):
                run = _run_of(window)
        else:
            run = _run_of(window)
        yield target, run
        start += len(run)


def _run_of(window: Sequence[Transmit]) -> list[bytes]:
    target, first = window[0]
    run = [first]
    for address, data in window[1:]:
        if address != target or len(data) > len(first):
            break
        run.append(data)
        if len(data) < len(first):
            break
    return run

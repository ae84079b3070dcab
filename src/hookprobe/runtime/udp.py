"""One UDP socket with its own receive loop.

asyncio's datagram protocol costs five to ten times more per packet than draining the socket when
it becomes readable, so that is what happens here: at most `DRAIN_MAX` datagrams per wake, so that
timers and sensors get their turn too.
"""

import asyncio
import socket
from collections.abc import Callable

from hookprobe.errors import HostError
from hookprobe.htp.effects import Address

DRAIN_MAX = 64
DATAGRAM_MAX_BYTES = 65_535
_BUFFER_BYTES = 4 << 20

Received = list[tuple[bytes, Address]]


class UdpSocket:
    """A bound, non-blocking socket.

    Args:
        address: Where to listen; port 0 takes a free one.

    Raises:
        HostError: The address cannot be bound.
    """

    def __init__(self, address: Address) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        try:
            self._socket.bind((address.host, address.port))
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"cannot listen on {address.host} port {address.port}: {error.strerror}",
                hint="is another process using the port, or is the address not on this host?",
            ) from error
        self.sent_bytes = 0
        self.unsent = 0

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return Address(str(host), int(port))

    def attach(self, loop: asyncio.AbstractEventLoop, receive: Callable[[Received], None]) -> None:
        """Call `receive` with what has arrived, whenever something has."""
        loop.add_reader(self._socket, lambda: receive(self._drain()))

    def _drain(self) -> Received:
        received: Received = []
        for _ in range(DRAIN_MAX):
            try:
                data, source = self._socket.recvfrom(DATAGRAM_MAX_BYTES)
            except OSError:  # nothing left, or the report of an earlier packet that bounced
                break
            received.append((data, Address(source[0], source[1])))
        return received

    def send(self, address: Address, data: bytes) -> None:
        """Send one datagram; what the host refuses is a lost packet, counted in `unsent`."""
        try:
            self._socket.sendto(data, address)
            self.sent_bytes += len(data)
        except OSError:
            self.unsent += 1

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._socket)
        self._socket.close()

"""Where a peer is (HTP spec 3.4, roaming).

The address follows the newest packet that opened, and only that: replaying an old packet from
elsewhere moves nothing. A new address may receive three times the bytes that came from it until it
echoes a probe; if it does not in time, the proven address returns.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from hookprobe.htp.effects import Address
from hookprobe.wire.instant import Instant

AMPLIFICATION = 3


class Arrival(NamedTuple):
    """Where and when a datagram came in, and its size."""

    address: Address
    size: int
    now: Instant


class Burst(NamedTuple):
    """Datagrams of one size from one address, back to back; the last one may be shorter."""

    data: bytes
    address: Address
    size: int

    def datagrams(self, start: int = 0) -> list[tuple[bytes, Address]]:
        """Return them one by one, from the one with the number `start` on."""
        data, address, size = self
        offsets = range(start * size, len(data), size)
        return [(data[at : at + size], address) for at in offsets]


Received: TypeAlias = Sequence[tuple[bytes, Address] | Burst]


def parts_of(received: Received) -> Iterator[Burst | list[tuple[bytes, Address]]]:
    """Yield bursts, and what came between them, in the order of arrival; nothing is empty."""
    between: list[tuple[bytes, Address]] = []
    for one in received:
        if isinstance(one, Burst):
            if between:
                yield between
                between = []
            yield one
        else:
            between.append(one)
    if between:
        yield between


def each_received(received: Received) -> Iterator[tuple[bytes, Address]]:
    """Yield all datagrams one by one."""
    for part in parts_of(received):
        yield from part.datagrams() if isinstance(part, Burst) else part


class Path:
    """The current and, while a move is unproven, the last proven address.

    Args:
        address: The address proven in the handshake.
        patience_us: How long a new one may stay unproven.
    """

    __slots__ = (
        "_fallback",
        "_patience_us",
        "_received",
        "_sent",
        "address",
        "deadline",
        "probe",
    )

    def __init__(self, address: Address, patience_us: int) -> None:
        self.address = address
        self._patience_us = patience_us
        self._fallback: Address | None = None
        self._received = self._sent = 0
        self.deadline: Instant | None = None
        self.probe = b""

    @property
    def proven(self) -> bool:
        """Whether the current address has echoed a probe."""
        return self._fallback is None

    def arrive(self, address: Address, size: int, now: Instant, *, newest: bool) -> bool:
        """Note a packet that opened; True if the address is new and has to be probed."""
        if address == self.address:
            self._received += size
            return False
        if not newest:
            return False
        if address == self._fallback:
            self._settle(address)
            return False
        if self._fallback is None:
            self._fallback = self.address
        self.address = address
        self._received, self._sent = size, 0
        self.deadline = Instant(now + self._patience_us)
        return True

    def may_send(self, size: int) -> bool:
        """Whether the three-fold limit leaves room for a packet."""
        return self.proven or self._sent + size <= AMPLIFICATION * self._received

    @property
    def overdrawn(self) -> bool:
        """Whether more was meant for an unproven address than the three-fold limit allows."""
        return not self.proven and self._sent > AMPLIFICATION * self._received

    def on_sent(self, size: int) -> None:
        """Note a packet sent to the current address."""
        self._sent += size

    def echo(self, probe: bytes) -> bool:
        """Take a probe echo; True if it proves the current address."""
        if self.proven or probe != self.probe:
            return False
        self._settle(self.address)
        return True

    def handle_timeout(self, now: Instant) -> None:
        """Return to the proven address when the new one stayed silent."""
        if self.deadline is not None and now >= self.deadline and self._fallback is not None:
            self._settle(self._fallback)

    def _settle(self, address: Address) -> None:
        self.address = address
        self._fallback = None
        self.deadline = None
        self.probe = b""

"""Many single datagrams in one call of the host: recvmmsg and sendmmsg of Linux.

Segmentation serves the long run of one transfer. An answering end with many quiet peers gets and
sends one small datagram for each, and there the call costs more than the copy. Python's socket
module does not know these calls; they are reached by ctypes, once for up to 64 datagrams, and all
that the host reads or writes are five blocks of memory that are laid out here:

    struct iovec   { void *base; size_t length; };
    struct mmsghdr { void *name; socklen_t; struct iovec *; size_t; void *control; size_t;
                     int flags; unsigned length; };
"""

import ctypes
import mmap
import socket
import struct
from collections.abc import Sequence
from itertools import accumulate, chain

from hookprobe.errors import LocalError
from hookprobe.htp.effects import Address, Transmit
from hookprobe.htp.path import Burst

SLOTS = 64
SMALL_BYTES = 2048  # what is larger does not gain
_ROOM_BYTES = 65_536 + 192  # any datagram; not a power of two, or all would share their cache lines
_NAME_BYTES = 16  # struct sockaddr_in
_CONTROL_BYTES = 64
_KNOWN_MAX = 4096
_DONTWAIT = 0x40

_VECTOR = struct.Struct("@PN")
_HEADER = struct.Struct("@PIPNPNi0PI0P")
_NAME = struct.Struct("=H2s4s8x")
_CONTROL = struct.Struct("@Niii")

Found = list[tuple[bytes, Address] | Burst]


class _Blocks:
    """What one of the calls works on: its slots point to each other for good."""

    def __init__(self, room_bytes: int, control_bytes: int) -> None:
        self.room_bytes = room_bytes
        # Such a map, other than a bytearray, takes memory only where something was put.
        self.data = mmap.mmap(-1, SLOTS * room_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.names = bytearray(SLOTS * _NAME_BYTES)
        control = bytearray(SLOTS * control_bytes)
        self.control = memoryview(control)
        self.vectors = bytearray(SLOTS * _VECTOR.size)
        self.headers = bytearray(SLOTS * _HEADER.size)
        self.base = _place(self.data)
        starts = (_place(self.names), _place(self.vectors), _place(control) if control else 0)
        for slot in range(SLOTS):
            vector = (self.base + slot * room_bytes, room_bytes)
            _VECTOR.pack_into(self.vectors, slot * _VECTOR.size, *vector)
            name, vectors = starts[0] + slot * _NAME_BYTES, starts[1] + slot * _VECTOR.size
            notes = (starts[2] + slot * control_bytes, control_bytes) if control else (0, 0)
            fields = (name, _NAME_BYTES, vectors, 1, *notes, 0, 0)
            _HEADER.pack_into(self.headers, slot * _HEADER.size, *fields)
        self.place = _place(self.headers)
        self.fresh = bytes(self.headers)


def _place(block: bytearray | mmap.mmap) -> int:
    # The block can change its contents from here on, and not its size.
    return ctypes.addressof((ctypes.c_char * len(block)).from_buffer(block))


class ManyDatagrams:
    """Receives and sends up to 64 datagrams of an IPv4 socket in one call.

    Args:
        handle: The socket's descriptor.
        segment_kind: (level, type) of the host's note on the size of the datagrams in a run.

    Raises:
        OSError: This host has no such calls.
    """

    def __init__(self, handle: int, segment_kind: tuple[int, int]) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        try:
            self._receive, self._send = library.recvmmsg, library.sendmmsg
        except AttributeError as error:
            raise OSError("no recvmmsg and sendmmsg") from error
        self._handle = handle
        self._segment_kind = segment_kind
        self._in = _Blocks(_ROOM_BYTES, _CONTROL_BYTES)
        self._out = _Blocks(SMALL_BYTES, 0)
        self._addresses: dict[bytes, Address] = {}
        self._names: dict[Address, bytes] = {}

    def receive(self) -> Found:
        """Return what has arrived, up to 64 datagrams or runs of them."""
        blocks = self._in
        blocks.headers[:] = blocks.fresh
        place = ctypes.c_void_p(blocks.place)
        count = self._receive(self._handle, place, SLOTS, _DONTWAIT, None)
        if count <= 0:
            return []
        found: Found = []
        data, names, room = blocks.data, bytes(blocks.names), blocks.room_bytes
        headers = memoryview(blocks.headers)[: count * _HEADER.size]
        for slot, fields in enumerate(_HEADER.iter_unpack(headers)):
            name = names[slot * _NAME_BYTES : (slot + 1) * _NAME_BYTES]
            address = self._addresses.get(name) or self._remember(name)
            whole = data[slot * room : slot * room + fields[7]]
            step = self._segment_bytes(slot) if fields[5] else 0
            found.append(Burst(whole, address, step) if 0 < step < len(whole) else (whole, address))
        return found

    def _remember(self, name: bytes) -> Address:
        _, port, host = _NAME.unpack(name)
        address = Address(socket.inet_ntop(socket.AF_INET, host), int.from_bytes(port))
        if len(self._addresses) >= _KNOWN_MAX:
            self._addresses.clear()
        self._addresses[name] = address
        return address

    def _segment_bytes(self, slot: int) -> int:
        _, level, kind, size = _CONTROL.unpack_from(self._in.control, slot * _CONTROL_BYTES)
        return size if (level, kind) == self._segment_kind else 0

    def send(self, batch: Sequence[Transmit]) -> int:
        """Send datagrams in order; return how many the host took before one that it did not.

        At most 64 of at most 2048 bytes; one of another kind of address is one that it did not.

        Raises:
            LocalError: More than that. The blocks must never grow: the host knows their places.
        """
        blocks = self._out
        known = self._names.get
        names = [known(address) or self._name(address) for address, _ in batch]
        if b"" in names:
            names = names[: names.index(b"")]
        packets = [data for _, data in batch[: len(names)]]
        lengths = [*map(len, packets)]
        if len(names) > SLOTS or sum(lengths) > len(blocks.data):
            raise LocalError(f"{len(names)} datagrams of {sum(lengths)} bytes in one call")
        places = accumulate(lengths, initial=blocks.base)
        blocks.data[: sum(lengths)] = b"".join(packets)
        blocks.names[: len(names) * _NAME_BYTES] = b"".join(names)
        vectors = chain.from_iterable(zip(places, lengths, strict=False))
        struct.pack_into("@" + "PN" * len(names), blocks.vectors, 0, *vectors)
        place = ctypes.c_void_p(blocks.place)
        return max(0, self._send(self._handle, place, len(names), 0)) if names else 0

    def _name(self, address: Address) -> bytes:
        try:
            host = socket.inet_pton(socket.AF_INET, address.host)
        except OSError:
            return b""
        name = _NAME.pack(socket.AF_INET, address.port.to_bytes(2), host)
        if len(self._names) >= _KNOWN_MAX:
            self._names.clear()
        self._names[address] = name
        return name

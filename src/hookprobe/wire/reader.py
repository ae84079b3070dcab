"""Bounded big-endian reading and writing; the only module that uses `struct`.

Rules:
* A read past the end raises `MalformedError`, never returns fewer bytes than asked for.
* `finish()` refuses trailing bytes, so every decoder accepts exactly one encoding.
* All integers are unsigned and big-endian; a value that does not fit is our own bug (`ValueError`).

What the fields mean is left to the room that owns the message.
"""

import struct

from hookprobe.errors import LimitExceededError, MalformedError

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class Reader:
    """Reads fields off the front of a byte string.

    Args:
        data: The received bytes.
        what: What the bytes claim to be, for error messages.
    """

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._offset

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            MalformedError: Fewer than `count` bytes are left.
        """
        end = self._offset + count
        if count < 0 or end > len(self._data):
            raise MalformedError(
                f"{self._what}: {count} bytes wanted at offset {self._offset}, "
                f"{self.remaining} left"
            )
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        value: int = _U16.unpack(self.take(2))[0]
        return value

    def u32(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def block16(self, limit: int) -> bytes:
        """Return the bytes behind a u16 length, at most `limit` of them."""
        return self._block(self.u16(), limit)

    def block32(self, limit: int) -> bytes:
        """Return the bytes behind a u32 length, at most `limit` of them."""
        return self._block(self.u32(), limit)

    def _block(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise LimitExceededError(f"{self._what}: field of {length} bytes, limit {limit}")
        return self.take(length)

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(self.remaining)

    def finish(self) -> None:
        """Refuse trailing bytes.

        Raises:
            MalformedError: Bytes are left over.
        """
        if self.remaining:
            raise MalformedError(f"{self._what}: {self.remaining} bytes too many")


class Writer:
    """Appends fields to a byte string; the mirror image of `Reader`."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def put(self, data: bytes) -> "Writer":
        self._parts.append(data)
        return self

    def u8(self, value: int) -> "Writer":
        return self.put(bytes((value,)))

    def u16(self, value: int) -> "Writer":
        return self.put(_pack(_U16, value))

    def u32(self, value: int) -> "Writer":
        return self.put(_pack(_U32, value))

    def u64(self, value: int) -> "Writer":
        return self.put(_pack(_U64, value))

    def block16(self, data: bytes) -> "Writer":
        """Append a u16 length and the bytes."""
        return self.u16(len(data)).put(data)

    def block32(self, data: bytes) -> "Writer":
        """Append a u32 length and the bytes."""
        return self.u32(len(data)).put(data)

    def finish(self) -> bytes:
        return b"".join(self._parts)


def _pack(form: struct.Struct, value: int) -> bytes:
    try:
        return form.pack(value)
    except struct.error as error:
        raise ValueError(f"{value} does not fit {form.size} unsigned bytes") from error

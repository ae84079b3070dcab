"""What the two hashes of a record are made of; reading the host is somebody else's work.

    h_entropy   = SHA-256("HP-E1" || salt 16 || u16 mask || 10 x u64 counters)
    h_integrity = RIPEMD-160(SHA-256 kernel || SHA-256 binary || SHA-256 config)

A counter the host does not have is 0 with its mask bit clear, so absence and zero differ. The
entropy commitment proves nothing by itself, a verifier cannot recompute it; it binds the device to
counters it can be asked to open. Each component is a hash over a sorted list of named items, where
an absent item is listed as absent: what must be there is the baseline's decision.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields

from hookprobe.crypto.ripemd import ripemd160
from hookprobe.errors import LocalError, VerificationError
from hookprobe.neuro.ter import ENTROPY_BYTES
from hookprobe.wire.reader import Reader, Writer

SALT_BYTES = 16
_LABEL = b"HP-E1"
_ABSENT, _PRESENT = 0, 1
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Counters:
    """Integer counters of a host since boot; None where it has none.

    Attributes:
        cpu_busy: Clock ticks not idle, all processors.
        cpu_idle: Clock ticks idle.
        memory_available_kib: Available memory.
        received_bytes: Over physical network interfaces, as the next three.
        received_packets: Packets.
        sent_bytes: Bytes.
        sent_packets: Packets.
        disk_read_sectors: Of 512 bytes, over whole disks.
        disk_written_sectors: Of 512 bytes.
        context_switches: All processors.
    """

    cpu_busy: int | None = None
    cpu_idle: int | None = None
    memory_available_kib: int | None = None
    received_bytes: int | None = None
    received_packets: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
    disk_read_sectors: int | None = None
    disk_written_sectors: int | None = None
    context_switches: int | None = None

    def encode(self) -> bytes:
        """Return mask and counters, 82 bytes; the first counter has the lowest bit."""
        values: tuple[int | None, ...] = astuple(self)
        mask = sum(1 << place for place, value in enumerate(values) if value is not None)
        writer = Writer().u16(mask)
        for value in values:
            writer.u64((value or 0) & _U64)
        return writer.finish()

    def absent(self) -> tuple[str, ...]:
        """Return the names of the counters the host does not have."""
        return tuple(item.name for item in fields(self) if getattr(self, item.name) is None)


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens an entropy commitment; the device keeps it for 30 days."""

    salt: bytes
    counters: Counters

    def encode(self) -> bytes:
        """Return salt and counters."""
        return self.salt + self.counters.encode()


OPENING_BYTES = SALT_BYTES + len(Counters().encode())


def commit(opening: Opening) -> bytes:
    """Return h_entropy, 32 bytes.

    Raises:
        LocalError: The salt has not 16 bytes.
    """
    if len(opening.salt) != SALT_BYTES:
        raise LocalError(f"HP-E1: salt of {len(opening.salt)} bytes, {SALT_BYTES} are wanted")
    return hashlib.sha256(_LABEL + opening.encode()).digest()


def decode_opening(data: bytes) -> Opening:
    """Read what `Opening.encode` returned.

    Raises:
        MalformedError: Another length.
    """
    reader = Reader(data, "HP-E1 opening")
    salt, mask = reader.take(SALT_BYTES), reader.u16()
    names = [item.name for item in fields(Counters)]
    values = {name: reader.u64() for name in names}
    reader.finish()
    present = {name: values[name] for place, name in enumerate(names) if mask >> place & 1}
    return Opening(salt, Counters(**present))


def check_opening(h_entropy: bytes, data: bytes) -> Opening:
    """Return the counters behind a commitment, as the device opened it.

    Raises:
        MalformedError: Not an opening.
        VerificationError: It opens another commitment.
    """
    found = hashlib.sha256(_LABEL + data).digest()
    if len(h_entropy) != ENTROPY_BYTES or not hmac.compare_digest(found, h_entropy):
        raise VerificationError("HP-E1: the opening does not belong to this record")
    opening = decode_opening(data)
    if opening.encode() != data:
        raise VerificationError("HP-E1: an absent counter has a value")
    return opening


def component(items: Mapping[str, bytes | None]) -> bytes:
    """Return the SHA-256 of a component: its items sorted by name.

    Args:
        items: The 32-byte hash of each item; None where it is absent.
    """
    writer = Writer()
    for name, value in sorted(items.items()):
        writer.block16(name.encode("utf-8", "surrogateescape"))
        if value is None:
            writer.u8(_ABSENT)
        else:
            writer.u8(_PRESENT).put(value)
    return hashlib.sha256(writer.finish()).digest()


@dataclass(frozen=True, slots=True)
class Components:
    """The three parts of an integrity measurement, 32 bytes each."""

    kernel: bytes
    binary: bytes
    config: bytes

    def h_integrity(self) -> bytes:
        """Return the 20 bytes a record carries."""
        return ripemd160(self.kernel + self.binary + self.config)

"""The Temporal Event Record: 64 bytes that say what a device was at one moment (HP-NEURO-1 7.1).

    off len field
      0  32  h_entropy      commitment to the sensor counters
     32  20  h_integrity    measurement of kernel, own package and configuration
     52   8  timestamp_us   microseconds since 1970, strictly increasing
     60   2  sequence       index modulo 65,536
     62   2  chain          CRC-16/CCITT-FALSE of the previous record's 64 bytes; 0 for the first

The CRC finds accidents in transit, nothing else: two bytes repair it. The chain that counts is the
SHA-256 chain of `state.py`, which is never sent.
"""

import binascii
import hashlib
from dataclasses import dataclass

from hookprobe.errors import LocalError, MalformedError
from hookprobe.wire.instant import Instant

TER_BYTES = 64
ENTROPY_BYTES = 32
INTEGRITY_BYTES = 20
SEQUENCE_PERIOD = 1 << 16
NO_RECORD = bytes(32)  # stands for the name of the last record while there is none


@dataclass(frozen=True, slots=True)
class Ter:
    """One record; build with `following` so that sequence and chain are right."""

    h_entropy: bytes
    h_integrity: bytes
    timestamp: Instant
    sequence: int
    chain: int

    def encode(self) -> bytes:
        """Return the 64 bytes."""
        return (
            self.h_entropy
            + self.h_integrity
            + self.timestamp.to_bytes(8, "big")
            + self.sequence.to_bytes(2, "big")
            + self.chain.to_bytes(2, "big")
        )


def decode(data: bytes) -> Ter:
    """Read 64 bytes.

    Raises:
        MalformedError: Another length.
    """
    if len(data) != TER_BYTES:
        raise MalformedError(f"TER: {len(data)} bytes, {TER_BYTES} are wanted")
    return Ter(
        h_entropy=data[:32],
        h_integrity=data[32:52],
        timestamp=Instant(int.from_bytes(data[52:60], "big")),
        sequence=int.from_bytes(data[60:62], "big"),
        chain=int.from_bytes(data[62:], "big"),
    )


def hash_record(record: Ter | None) -> bytes:
    """Return the 32 bytes that name a record: its SHA-256; `NO_RECORD` for none."""
    return NO_RECORD if record is None else hashlib.sha256(record.encode()).digest()


def checksum(record: bytes) -> int:
    """Return CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xFFFF)."""
    return binascii.crc_hqx(record, 0xFFFF)


def following(
    previous: Ter | None, h_entropy: bytes, h_integrity: bytes, timestamp: Instant
) -> Ter:
    """Return the record after `previous`; None starts an epoch (sequence 0, chain 0).

    Raises:
        LocalError: Wrong field lengths, or a timestamp that does not increase.
    """
    if len(h_entropy) != ENTROPY_BYTES or len(h_integrity) != INTEGRITY_BYTES:
        raise LocalError("TER: h_entropy must have 32 bytes and h_integrity 20")
    if previous is None:
        return Ter(h_entropy, h_integrity, timestamp, 0, 0)
    if timestamp <= previous.timestamp:
        raise LocalError("TER: the timestamp must increase; use max(now, previous + 1)")
    sequence = (previous.sequence + 1) % SEQUENCE_PERIOD
    return Ter(h_entropy, h_integrity, timestamp, sequence, checksum(previous.encode()))

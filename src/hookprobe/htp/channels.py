"""What rides in DATA packets: one table of channels and their priorities.

A channel is an independent ordered stream of messages between two peers. Kinds below 0x30 are
application channels; 0x30 carries file operations, whose own header begins with 0x30 to 0x38. The
content is opaque here.
"""

from enum import IntEnum

from hookprobe.errors import MalformedError


class Channel(IntEnum):
    """The kind byte of a DATA payload."""

    TER = 0x01
    MICROBLOCK = 0x02
    GOSSIP = 0x03
    QSECBIT = 0x04
    WITNESS = 0x05
    CONSENSUS = 0x06
    ADVISORY = 0x07
    MODEL = 0x08
    DIRECTORY = 0x09
    FILE = 0x30


BULK_KIND = b"\x36"  # a chunk of a file, whose fragments go past the channels


class Priority(IntEnum):
    """Who goes first when the path is full; lower is earlier."""

    CONSENSUS = 0
    SYNC = 1
    DATA = 2
    FILES = 3


PRIORITIES = {
    Channel.TER: Priority.DATA,
    Channel.MICROBLOCK: Priority.SYNC,
    Channel.GOSSIP: Priority.SYNC,
    Channel.QSECBIT: Priority.DATA,
    Channel.WITNESS: Priority.CONSENSUS,
    Channel.CONSENSUS: Priority.CONSENSUS,
    Channel.ADVISORY: Priority.SYNC,
    Channel.MODEL: Priority.DATA,
    Channel.DIRECTORY: Priority.SYNC,
    Channel.FILE: Priority.FILES,
}

# A lower priority may fill only part of the send queue, so bulk data can never lock out a vote.
QUEUE_QUARTERS = {
    Priority.CONSENSUS: 4,
    Priority.SYNC: 3,
    Priority.DATA: 2,
    Priority.FILES: 1,
}

# What rides here are alerts: they wait for the congestion window, but not for pacing (BURST).
ALERTS = frozenset({Channel.MICROBLOCK, Channel.ADVISORY})

_CHANNELS = {channel.value: channel for channel in Channel}


def parse_channel(kind: int) -> Channel:
    """Return the channel of a kind byte.

    Raises:
        MalformedError: No application channel has this kind.
    """
    channel = _CHANNELS.get(kind)
    if channel is None:
        raise MalformedError(f"DATA: unknown channel kind {kind:#04x}")
    return channel

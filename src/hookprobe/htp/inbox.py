"""Messages coming in: fragments put together, delivered in order within each channel.

Flow control: the peer may send `credit` cost bytes in total since the channels began, which is what
the application has taken plus a window. Pieces of the message that is next in its channel count as
taken, so credit never waits for something that only more credit could complete; what can be held is
therefore the window plus one message of 1 MiB per channel.
"""

from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.htp.bulk import HEAD_BYTES
from hookprobe.htp.channels import Channel, parse_channel
from hookprobe.htp.config import MESSAGE_MAX_BYTES
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.messages import FragmentHeader, decode_fragment, message_tag
from hookprobe.htp.outbox import CHUNK_BYTES, CREDIT_INITIAL_BYTES, FRAGMENT_COST_BYTES
from hookprobe.htp.packet import Header

CHUNKS_MAX = MESSAGE_MAX_BYTES // CHUNK_BYTES

_HALF = 1 << 31


class _Partial:
    """A message of which pieces are here."""

    __slots__ = ("chunks", "cost", "lasts", "pieces", "sequence", "size", "tag", "wanted")

    def __init__(self, header: FragmentHeader, sequence: int) -> None:
        self.chunks = header.chunks
        self.tag = header.tag
        self.sequence = sequence
        self.pieces: dict[int, bytes] = {}
        self.lasts: dict[int, int] = {}
        self.wanted = 0
        self.size = 0
        self.cost = 0

    @property
    def complete(self) -> bool:
        """Whether every piece of every chunk is here."""
        return len(self.lasts) == self.chunks and len(self.pieces) == self.wanted

    def add(self, outer: Header, header: FragmentHeader, piece: bytes) -> int:
        """Take a piece and return its cost, 0 for a repeated one."""
        if (self.chunks, self.tag, self.sequence) != (header.chunks, header.tag, outer.sequence):
            raise MalformedError("DATA: fragments of one message disagree")
        key = header.chunk_index << 8 | outer.frag_index
        if key in self.pieces:
            return 0
        if header.chunk_index not in self.lasts:
            self.lasts[header.chunk_index] = outer.frag_last
            self.wanted += outer.frag_last + 1
        elif self.lasts[header.chunk_index] != outer.frag_last:
            raise MalformedError("DATA: fragments of one chunk disagree")
        self.pieces[key] = piece
        self.size += len(piece)
        if self.size > MESSAGE_MAX_BYTES:
            raise LimitExceededError(f"DATA: message of more than {MESSAGE_MAX_BYTES} bytes")
        cost = len(piece) + FRAGMENT_COST_BYTES
        self.cost += cost
        return cost

    def join(self) -> bytes:
        """Return the whole message."""
        data = b"".join(self.pieces[key] for key in sorted(self.pieces))
        if message_tag(data) != self.tag:
            raise MalformedError("DATA: message and tag differ")
        return data


class _Stream:
    """One channel: the number of the next message and what came before its turn."""

    __slots__ = ("expected", "partials")

    def __init__(self) -> None:
        self.expected = 0
        self.partials: dict[int, _Partial] = {}

    def place(self, number: int) -> int:
        """Return the full message number of a 32-bit one, the one nearest to the next."""
        return self.expected + (number - self.expected + _HALF) % (2 * _HALF) - _HALF


def read_datagram(outer: Header, payload: bytes) -> tuple[Channel, bytes]:
    """Return channel and content of a message that is sent once.

    Raises:
        MalformedError: An unknown channel, or a message in pieces.
    """
    header, data = decode_fragment(payload)
    if outer.frag_last or header.chunks != 1 or header.chunk_index:
        raise MalformedError("DATA: a datagram in pieces")
    return parse_channel(header.kind), data


def read_bulk(outer: Header, payload: bytes) -> BulkFragment:
    """Return a fragment of a chunk; what it belongs to is for the receiver of files to judge.

    Raises:
        MalformedError: Shorter than the 16 bytes that every fragment repeats.
    """
    if len(payload) <= HEAD_BYTES:
        raise MalformedError("DATA: shorter than its header")
    fields = (payload[:HEAD_BYTES], outer.frag_index, outer.frag_last, (payload[HEAD_BYTES:],))
    return tuple.__new__(BulkFragment, fields)


class Inbox:
    """The receive side of all channels of one peer.

    Args:
        window_bytes: What may be on its way to us beyond what was taken.
    """

    __slots__ = ("_received", "_streams", "_taken", "_window")

    def __init__(self, window_bytes: int) -> None:
        self._window = window_bytes
        self._streams: dict[Channel, _Stream] = {}
        self._received = 0
        self._taken = 0

    @property
    def credit(self) -> int:
        """Cost bytes the peer may have sent since the channels began."""
        return max(CREDIT_INITIAL_BYTES, self._taken + self._window)

    @property
    def held(self) -> int:
        """Cost bytes that arrived before their turn."""
        return self._received - self._taken

    def receive(self, outer: Header, payload: bytes) -> list[tuple[Channel, bytes]]:
        """Take one fragment and return the messages it completes, in order.

        Raises:
            MalformedError: An unknown channel, impossible numbers or disagreeing fragments.
            LimitExceededError: More than 1 MiB in a message, or more than the credit in all.
        """
        header, piece = decode_fragment(payload)
        channel = parse_channel(header.kind)
        if not 0 < header.chunks <= CHUNKS_MAX or header.chunk_index >= header.chunks:
            raise MalformedError("DATA: impossible chunk numbers")
        stream = self._streams.setdefault(channel, _Stream())
        number = stream.place(header.number)
        if number < stream.expected:
            return []
        partial = stream.partials.get(number)
        if partial is None:
            partial = stream.partials[number] = _Partial(header, outer.sequence)
        cost = partial.add(outer, header, piece)
        self._received += cost
        if number == stream.expected:
            self._taken += cost
        if self._received > self.credit:
            raise LimitExceededError("DATA: more than the credit allows")
        return self._deliver(channel, stream)

    def _deliver(self, channel: Channel, stream: _Stream) -> list[tuple[Channel, bytes]]:
        ready = []
        partial = stream.partials.get(stream.expected)
        while partial is not None and partial.complete:
            ready.append((channel, partial.join()))
            del stream.partials[stream.expected]
            stream.expected += 1
            partial = stream.partials.get(stream.expected)
            if partial is not None:
                self._taken += partial.cost
        return ready

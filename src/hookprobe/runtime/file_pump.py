"""What leaves of file operations, as fast as the transport has room: answers, then chunks in turn.

Sixteen transfers share the path evenly, one chunk of each after the other. Chunks are handed over a
batch at a time, because a turn of the loop for each would cost as much as sending it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hookprobe.htp.bulk import CHUNK_COST_BYTES
from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    FileFacts,
    FileFlags,
    FileRefusedError,
    encode_error,
)
from hookprobe.htp.transfer_sender import Outgoing
from hookprobe.runtime.file_call import Call
from hookprobe.wire.identifiers import NodeId

ROOM_WAIT_S = 0.005
REPLIES_MAX = 256
BATCH_CHUNKS = 4  # a quarter of a mebibyte between two turns of the loop
CHUNK_ROOM_BYTES = CHUNK_BYTES + CHUNK_COST_BYTES


class Room(Enum):
    """What became of a message that was to be sent."""

    SENT = "sent"
    FULL = "full"
    GONE = "gone"


class Carrier(Protocol):
    """How file messages reach a peer."""

    def message(self, peer: NodeId, data: bytes) -> Room:
        """Send one message of the channel, if there is room."""

    def room(self, peer: NodeId) -> int:
        """Return how many bytes of chunks are taken now; negative without a session."""

    def chunks(self, peer: NodeId, chunks: list[tuple[bytes, bytes]]) -> None:
        """Send chunks, header and content, that there is room for; they may arrive in any order."""


class ChunkSource(Protocol):
    """Where the chunks of a file come from; see `file_parts.Source`."""

    @property
    def facts(self) -> FileFacts: ...

    def read(self, index: int) -> bytes: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Stream:
    """A file on its way out; `call` if we are who asked."""

    outgoing: Outgoing
    source: ChunkSource
    call: Call | None = None


class Pump:
    """The sending side of one peer's file operations.

    Args:
        peer: Who.
        carrier: Sends messages and chunks.
        ended: Told of streams that are all sent, or failed.
    """

    def __init__(
        self,
        peer: NodeId,
        carrier: Carrier,
        ended: Callable[[Stream, FileRefusedError | None], None],
    ) -> None:
        self._peer = peer
        self._carrier = carrier
        self._ended = ended
        self._replies: deque[bytes] = deque()
        self._streams: deque[Stream] = deque()
        self._wake = asyncio.Event()

    def post(self, data: bytes) -> None:
        """Send a message when there is room; beyond 256 waiting ones it is lost."""
        if len(self._replies) < REPLIES_MAX:
            self._replies.append(data)
            self._wake.set()

    def add(self, stream: Stream) -> None:
        """Send a file, in turn with others."""
        self._streams.append(stream)
        self._wake.set()

    def drop(self, file_id: int, *, response: bool) -> None:
        """Send no more of a file."""
        for stream in list(self._streams):
            if stream.outgoing.file_id == file_id and (stream.call is None) is response:
                self._streams.remove(stream)
                if response:
                    stream.source.close()

    def end(self) -> None:
        """Send nothing any more; files that the peer asked for are closed."""
        for stream in self._streams:
            if stream.call is None:
                stream.source.close()
        self._streams.clear()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._wake.wait()
            if self._replies:
                await self._say(self._replies.popleft())
            elif self._streams:
                await self._send_chunks()
            else:
                self._wake.clear()
            await asyncio.sleep(0)

    async def _say(self, data: bytes) -> None:
        while self._carrier.message(self._peer, data) is Room.FULL:  # noqa: ASYNC110 (room is asked for)
            await asyncio.sleep(ROOM_WAIT_S)

    async def _send_chunks(self) -> None:
        """Send as many chunks as there is room for, in turn of each transfer."""
        room = self._carrier.room(self._peer)
        if room < CHUNK_ROOM_BYTES:
            await asyncio.sleep(ROOM_WAIT_S)
            return
        batch: list[tuple[bytes, bytes]] = []
        message = b""
        while self._streams and not message:
            head, data, bulk = self._next_chunk()
            if bulk:
                batch.append((head, data))
                room -= CHUNK_ROOM_BYTES
            else:
                message = head + data
            if len(batch) >= BATCH_CHUNKS or room < CHUNK_ROOM_BYTES:
                break
        if batch:
            self._carrier.chunks(self._peer, batch)
        if message:
            await self._say(message)

    def _next_chunk(self) -> tuple[bytes, bytes, bool]:
        """Return (header, body, whether it is bulk) of the transfer whose turn it is."""
        stream = self._streams.popleft()
        try:
            return self._advance(stream)
        except FileRefusedError as error:
            self._ended(stream, error)
            flags = FileFlags.RESPONSE if stream.call is None else FileFlags(0)
            return encode_error(stream.outgoing.file_id, error.reason, flags), b"", False

    def _advance(self, stream: Stream) -> tuple[bytes, bytes, bool]:
        index = stream.outgoing.wanted
        if index is None:
            stream.source.check()
            self._ended(stream, None)
            return stream.outgoing.complete(), b"", False
        chunk = stream.source.read(index)
        head, data = stream.outgoing.encode(chunk)
        if stream.call is not None:
            stream.call.moved = True
        self._streams.append(stream)
        # Compressed chunks have to be whole to be read: they go by the channel.
        return head, data, data is chunk

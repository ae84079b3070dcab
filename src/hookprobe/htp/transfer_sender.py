"""The sending side of one file: which chunk goes next, and how it looks on the wire.

It is asked for work, so whoever carries its messages decides the pace: `wanted` names the chunk to
read, `encode` makes its message, and when the last one is gone `complete` ends the transfer.

Compression (HTP spec 3.5): zlib level 1 for each chunk by itself, kept if it saves a tenth. Data
that does not compress costs more to try than to send, so when none of the first three chunks gained
anything no further one is tried.
"""

import zlib

from hookprobe.errors import LocalError
from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    ChunkRange,
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
    encode_facts,
    encode_frame,
)

COMPRESSION_LEVEL = 1
SAMPLES = 3
KEEP_PERCENT = 90


class Outgoing:
    """One file on its way out.

    Args:
        facts: Size and SHA-256.
        file_id: The transfer.
        response: Whether we are the asked end.
        compressible: Whether chunks may be compressed.
    """

    __slots__ = (
        "_chunks",
        "_compressible",
        "_front",
        "_gained",
        "_next",
        "_ranges",
        "_response",
        "_tried",
        "facts",
        "file_id",
        "sent_chunks",
        "wire_bytes",
    )

    def __init__(
        self, facts: FileFacts, file_id: int, *, response: bool, compressible: bool
    ) -> None:
        self.facts = facts
        self.file_id = file_id
        self._chunks = facts.chunks
        self._front = facts.sha256[:4]
        self._response = FileFlags.RESPONSE if response else FileFlags(0)
        self._compressible = compressible
        self._ranges: list[ChunkRange] = []
        self._next: int | None = None
        self._tried = self._gained = 0
        self.sent_chunks = 0
        self.wire_bytes = 0

    def begin(self, missing: tuple[ChunkRange, ...]) -> None:
        """Send these chunks.

        Raises:
            LocalError: One is not of this file.
        """
        if missing and missing[-1].last >= self.facts.chunks:
            raise LocalError("file transfer: chunks outside of the file")
        self._ranges = list(reversed(missing))
        self._next = self._ranges[-1].first if self._ranges else None

    @property
    def wanted(self) -> int | None:
        """The chunk that goes next; None when all have gone."""
        return self._next

    def encode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return header and body of the wanted chunk's message and move on to the next one.

        A body as long as the chunk is not compressed and may go as bulk data.

        Raises:
            LocalError: No chunk is wanted, or the data has another length.
        """
        index = self._next
        flags, right = self._response, CHUNK_BYTES
        if index is not None and index == self._chunks - 1:
            flags, right = flags | FileFlags.LAST, self.facts.chunk_size(index)
        if index is None or len(data) != right:
            raise LocalError("file transfer: not the chunk that is wanted")
        packed = self._compress(data)
        if packed is not None:
            flags |= FileFlags.COMPRESSED
            data = packed
        if index == self._ranges[-1].last:
            self._ranges.pop()
            self._next = self._ranges[-1].first if self._ranges else None
        else:
            self._next = index + 1
        self.sent_chunks += 1
        self.wire_bytes += len(data)
        return encode_frame(self._header(FileOperation.CHUNK, flags, index)), data

    def _compress(self, data: bytes) -> bytes | None:
        if not self._compressible or (self._tried >= SAMPLES and not self._gained):
            return None
        self._tried += 1
        packed = zlib.compress(data, COMPRESSION_LEVEL)
        if len(packed) * 100 > len(data) * KEEP_PERCENT:
            return None
        self._gained += 1
        return packed

    def complete(self) -> bytes:
        """Return the message behind the last chunk.

        Raises:
            LocalError: Chunks have not gone yet.
        """
        if self._next is not None:
            raise LocalError("file transfer: not all chunks have gone")
        header = self._header(FileOperation.COMPLETE, self._response, 0)
        return encode_frame(header, encode_facts(self.facts))

    def _header(self, operation: FileOperation, flags: FileFlags, index: int) -> FileHeader:
        fields = (operation, flags, index, self.file_id, self._chunks, self._front)
        return tuple.__new__(FileHeader, fields)

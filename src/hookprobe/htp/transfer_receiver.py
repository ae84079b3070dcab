"""The receiving side of files: which chunks are here, and the desk that peers' requests come to.

`Incoming` is one file: it checks each chunk against the file it belongs to and says where its bytes
go. `Desk` is one peer's requests: it decides what may begin, and the host does it. No byte of a
file is kept here.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.errors import (
    LimitExceededError,
    MalformedError,
    RemoteError,
    UnauthorizedError,
    VerificationError,
)
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    CHUNK_LOG2,
    ChunkRange,
    FileError,
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
    FileRefusedError,
    ListRequest,
    PathRequest,
    ReadRequest,
    WriteRequest,
    decode_error,
    decode_facts,
    decode_frame,
    decode_list,
    decode_path,
    decode_read,
    decode_write,
    encode_error,
    encode_facts,
    encode_frame,
    encode_ranges,
    plain_header,
)
from hookprobe.htp.transfer_writes import WritePart, WriteRun, check_pieces, inflate
from hookprobe.wire.instant import MINUTE, Instant

TRANSFERS_MAX = 16
IDLE_US = MINUTE
PARTIAL_MAX = 128  # chunks; senders have half as many on the way

_NOT_BULK = (FileFlags.COMPRESSED | FileFlags.RESUME | FileFlags.NOREPLACE).value
_LAST = FileFlags.LAST.value
_USUAL = (0, FileFlags.RESPONSE.value)
_FRONT = struct.Struct(">BBH")
_PRESENT = b"\0" + b"\1" * 255


@dataclass(frozen=True, slots=True)
class OpenPart:
    """Make room for a file; answer with `opened` or `fail`."""

    file_id: int
    request: WriteRequest
    update: bool


@dataclass(frozen=True, slots=True)
class FinishPart:
    """Check, make durable and visible; answer with `finished` or `fail`."""

    file_id: int


@dataclass(frozen=True, slots=True)
class SuspendPart:
    """Keep what is here for a later attempt; the transfer is over for now."""

    file_id: int


Question: TypeAlias = ReadRequest | PathRequest | ListRequest


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a question; `settle` or `fail` when that is done."""

    file_id: int
    operation: FileOperation
    question: Question


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The peer wants no more of an answer."""

    file_id: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this message."""

    data: bytes


Effect: TypeAlias = WritePart | OpenPart | FinishPart | SuspendPart | Ask | Withdraw | Reply


class Incoming:
    """One file on its way in.

    Args:
        facts: Size and SHA-256 as announced.
        file_id: The transfer.
        here: One byte for each chunk, not 0 for those that are here from an earlier attempt.
    """

    __slots__ = ("_compressible", "_ends", "_left", "_partial", "facts", "file_id", "here")

    def __init__(
        self, facts: FileFacts, file_id: int, here: bytes = b"", *, compressible: bool = True
    ) -> None:
        self.facts = facts
        self.file_id = file_id
        fits = len(here) == facts.chunks
        self.here = bytearray(here.translate(_PRESENT) if fits else facts.chunks)
        self._left = self.here.count(0)
        self._ends = facts.chunks.to_bytes(4) + facts.sha256[:4]  # of the head of each fragment
        self._compressible = compressible
        # Chunks of which fragments are here: into how many they are cut, less one, and a bit for
        # each that is not here.
        self._partial: dict[int, tuple[int, int]] = {}

    @property
    def whole(self) -> bool:
        """Whether every chunk is here."""
        return self._left == 0

    @property
    def held_chunks(self) -> int:
        return self.facts.chunks - self._left

    def missing(self) -> tuple[ChunkRange, ...]:
        """Return the ranges that are not here, ascending."""
        return tuple(self._gaps())

    def _gaps(self) -> Iterator[ChunkRange]:
        start = self.here.find(0)
        while start >= 0:
            stop = self.here.find(1, start)
            stop = len(self.here) if stop < 0 else stop
            yield ChunkRange(start, stop - 1)
            start = self.here.find(0, stop)

    def receive_chunk(self, header: FileHeader, body: bytes) -> WritePart | None:
        """Return what is to be written; None for a chunk that is here already.

        Raises:
            MalformedError: Of another file, of a wrong size, or not what zlib makes.
        """
        index = self._check(header)
        size = self.facts.chunk_size(index)
        if header.flags & FileFlags.COMPRESSED:
            if not self._compressible:
                raise MalformedError("CHUNK: compressed, and it was said that none would be")
            body = inflate(body, size)
        if len(body) != size:
            raise MalformedError(f"CHUNK: {len(body)} bytes where {size} belong")
        if self.here[index]:
            return None
        self._hold(index)
        return WritePart(self.file_id, index << CHUNK_LOG2, body, (index,))

    def _check(self, header: FileHeader) -> int:
        facts, index = self.facts, header.chunk_index
        if (header.total_chunks, header.file_hash) != (facts.chunks, facts.sha256[:4]):
            raise MalformedError("CHUNK: of another file")
        if index >= facts.chunks:
            raise MalformedError("CHUNK: an empty file has none")
        if bool(header.flags.value & _LAST) != (index == facts.chunks - 1):
            raise MalformedError("CHUNK: the flag LAST is on the last chunk only")
        return index

    def _hold(self, index: int) -> None:
        self.here[index] = 1
        self._left -= 1
        self._partial.pop(index, None)

    def receive_fragments(self, fragments: Sequence[BulkFragment]) -> list[WritePart]:
        """Return what is to be written of uncompressed chunks' fragments; neighbours together.

        Raises:
            MalformedError: Of another file, of a wrong size or place; nothing is to be written.
            LimitExceededError: Pieces of more chunks than anybody would have on the way.
        """
        run, here = WriteRun(self.file_id), self.here
        last_index = len(here) - 1
        known, cut, index, size, step, missing = b"", -1, 0, 0, 0, 0
        for head, place, last, pieces in fragments:
            if head != known or last != cut:
                if missing:
                    self._partial[index] = (cut, missing)
                index = self._place_of(head)
                size = self.facts.chunk_size(index) if index == last_index else CHUNK_BYTES
                known, cut, step = head, last, -(-size // (last + 1))
                missing = 0 if here[index] else self._missing(index, last)
            start, count = place * step, len(pieces)
            if start + count * step > size or [*map(len, pieces)] != [step] * count:
                check_pieces(pieces, start, step, size)
            named = (1 << count) - 1 << place
            if not missing & named:
                continue
            run.add_missing((index << CHUNK_LOG2) + start, pieces, missing >> place)
            missing &= ~named
            if not missing:
                self._hold(index)
                run.whole.append(index)
        if missing:
            self._partial[index] = (cut, missing)
        return run.finish()

    def _place_of(self, head: bytes) -> int:
        operation, flags, index = _FRONT.unpack_from(head)
        usual = operation == FileOperation.CHUNK and flags in _USUAL and head[8:] == self._ends
        if usual and index < len(self.here) - 1:
            return int(index)  # what the longer way would say, too
        header, _ = decode_frame(head)
        if header.operation is not FileOperation.CHUNK or header.flags.value & _NOT_BULK:
            raise MalformedError("CHUNK: a fragment of something else")
        return self._check(header)

    def _missing(self, index: int, last: int) -> int:
        """Return a bit for each fragment of a cut to come; none if a finer cut replaced it."""
        known, missing = self._partial.get(index, (-1, 0))
        if last == known:
            return missing
        if last < known:
            return 0
        if known < 0 and len(self._partial) >= PARTIAL_MAX:
            raise LimitExceededError("CHUNK: pieces of too many chunks")
        return (2 << last) - 1

    def receive_complete(self, body: bytes) -> bool:
        """Check the message behind the last chunk; False if chunks it overtook are to come.

        Raises:
            MalformedError: Of another file.
        """
        if decode_facts(body) != self.facts:
            raise MalformedError("COMPLETE: of another file")
        return self.whole


@dataclass(slots=True)
class _Job:
    """What a peer asked for and is not over; `incoming` once its part is open."""

    heard: Instant
    operation: FileOperation
    request: WriteRequest | None
    incoming: Incoming | None = None
    complete: bool = False
    finishing: bool = False


class Desk:
    """The requests of one peer.

    Args:
        transfers_max: How many may be under way.
    """

    def __init__(self, transfers_max: int = TRANSFERS_MAX) -> None:
        self._max = transfers_max
        self._jobs: dict[int, _Job] = {}

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._jobs)

    def awaits(self, file_id: int) -> bool:
        """Whether a request is still to be answered."""
        return file_id in self._jobs

    def receive_frame(self, data: bytes, now: Instant) -> list[Effect]:
        """Take a message of the asking end; whatever it holds, no exception comes out."""
        try:
            header, body = decode_frame(data)
        except RemoteError:
            return []  # it names no transfer that an answer could name
        try:
            return self._take(header, body, now)
        except RemoteError as error:
            return self.fail(header.file_id, error_of(error))

    def _take(self, header: FileHeader, body: bytes, now: Instant) -> list[Effect]:
        if header.flags & FileFlags.RESPONSE:
            raise MalformedError("file message: an answer to nothing")
        job = self._jobs.get(header.file_id)
        if header.operation in (FileOperation.CHUNK, FileOperation.COMPLETE):
            return self._take_content(header, body, now)
        if header.operation is FileOperation.ERROR:
            return self._take_error(header.file_id, body)
        if job is not None:
            raise MalformedError("file message: this transfer is under way")
        if len(self._jobs) >= self._max:
            # Not `fail`: no job of this number exists that could be ended.
            return [Reply(encode_error(header.file_id, FileError.BUSY, FileFlags.RESPONSE))]
        return self._begin(header, body, now)

    def _begin(self, header: FileHeader, body: bytes, now: Instant) -> list[Effect]:
        operation, file_id = header.operation, header.file_id
        if operation in (FileOperation.CREATE, FileOperation.UPDATE):
            update = operation is FileOperation.UPDATE
            if bool(header.flags & FileFlags.NOREPLACE) is update:
                raise MalformedError("CREATE never replaces and UPDATE always does")
            request = decode_write(body, update=update)
            self._jobs[file_id] = _Job(now, operation, request)
            return [OpenPart(file_id, request, update)]
        question: Question
        if operation is FileOperation.READ:
            question = decode_read(body)
        elif operation is FileOperation.LIST:
            question = decode_list(body)
        else:
            question = decode_path(body, folder=operation is FileOperation.STAT)
        self._jobs[file_id] = _Job(now, operation, None)
        return [Ask(file_id, operation, question)]

    def _take_content(self, header: FileHeader, body: bytes, now: Instant) -> list[Effect]:
        job = self._jobs.get(header.file_id)
        if job is None:
            return []  # of a transfer that failed while this was on its way
        if job.incoming is None or job.finishing:
            raise MalformedError("file message: content before or behind its time")
        job.heard = now
        if header.operation is FileOperation.CHUNK:
            write = job.incoming.receive_chunk(header, body)
            return [] if write is None else [write, *self._finish_if_whole(header.file_id, job)]
        job.complete = True
        job.incoming.receive_complete(body)
        return self._finish_if_whole(header.file_id, job)

    def _finish_if_whole(self, file_id: int, job: _Job) -> list[Effect]:
        if not job.complete or job.incoming is None or not job.incoming.whole:
            return []
        job.finishing = True
        return [FinishPart(file_id)]

    def receive_fragments(
        self, file_id: int, fragments: Sequence[BulkFragment], now: Instant
    ) -> list[Effect]:
        """Take fragments of one transfer's chunks; no exception comes out."""
        job = self._jobs.get(file_id)
        if job is None or job.finishing:
            return []  # repeated, of a transfer that is over
        try:
            if job.incoming is None:
                raise MalformedError("file message: content before its time")
            writes = job.incoming.receive_fragments(fragments)
        except RemoteError as error:
            return self.fail(file_id, error_of(error))
        job.heard = now
        return [*writes, *self._finish_if_whole(file_id, job)]

    def _take_error(self, file_id: int, body: bytes) -> list[Effect]:
        decode_error(body)
        job = self._jobs.get(file_id)
        if job is None or job.finishing:
            return []
        del self._jobs[file_id]
        return [Withdraw(file_id) if job.request is None else SuspendPart(file_id)]

    def opened(self, file_id: int, here: bytes) -> list[Effect]:
        """The part is open; `here` as in `Incoming`."""
        job = self._jobs.get(file_id)
        if job is None or job.request is None:
            return [SuspendPart(file_id)]  # given up while it was being opened
        compressible = job.request.compressible
        job.incoming = Incoming(job.request.facts, file_id, here, compressible=compressible)
        flags = FileFlags.RESPONSE
        if job.incoming.held_chunks:
            flags |= FileFlags.RESUME
        header = plain_header(job.operation, flags, file_id)
        return [Reply(encode_frame(header, encode_ranges(job.incoming.missing())))]

    def finished(self, file_id: int) -> list[Effect]:
        """The file is durable and visible: say so, and only now."""
        job = self._jobs.pop(file_id, None)
        if job is None or job.request is None:
            return []
        header = plain_header(FileOperation.COMPLETE, FileFlags.RESPONSE, file_id)
        return [Reply(encode_frame(header, encode_facts(job.request.facts)))]

    def settle(self, file_id: int) -> None:
        """A question is answered."""
        self._jobs.pop(file_id, None)

    def fail(self, file_id: int, code: FileError) -> list[Effect]:
        """Tell the peer that a request came to nothing; an open part is kept."""
        effects: list[Effect] = []
        job = self._jobs.pop(file_id, None)
        if job is not None and job.request is None:
            effects.append(Withdraw(file_id))
        elif job is not None:
            effects.append(SuspendPart(file_id))
        return [*effects, Reply(encode_error(file_id, code, FileFlags.RESPONSE))]

    def end(self) -> list[Effect]:
        """The session is over: keep what is here."""
        return [effect for file_id in list(self._jobs) for effect in self._give_up(file_id)]

    def _give_up(self, file_id: int) -> list[Effect]:
        job = self._jobs[file_id]
        if job.finishing:
            return []  # the host is past the point where it could be stopped
        del self._jobs[file_id]
        return [Withdraw(file_id) if job.request is None else SuspendPart(file_id)]

    def next_timeout(self) -> Instant | None:
        """Return when a silent transfer is given up."""
        heard = [job.heard for job in self._jobs.values() if _waits(job)]
        return Instant(min(heard) + IDLE_US) if heard else None

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Give up transfers whose sender is silent, so that they do not count any more."""
        late = [
            file_id
            for file_id, job in self._jobs.items()
            if _waits(job) and job.heard + IDLE_US <= now
        ]
        return [effect for file_id in late for effect in self._give_up(file_id)]


def _waits(job: _Job) -> bool:
    return job.incoming is not None and not job.finishing


def error_of(error: RemoteError) -> FileError:
    """Return the code that tells a peer of an error."""
    match error:
        case FileRefusedError():
            return error.reason
        case UnauthorizedError():
            return FileError.FORBIDDEN
        case LimitExceededError():
            return FileError.TOO_LARGE
        case VerificationError():
            return FileError.INCOMPLETE
        case _:
            return FileError.MALFORMED

"""`HTPFileTransfer`: files of a peer, as a program uses them.

    async with HTPFileTransfer(session) as ft:
        await ft.create("/notes/today.txt", b"content")
        data = await ft.read("/notes/today.txt")

Paths are relative to the folder that the peer keeps for us, with or without a slash in front. What
is larger than memory goes by `put` and `get`, which resume where an earlier attempt ended.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from hookprobe.errors import LocalError, VerificationError
from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
    CHUNK_LOG2,
    LIST_MAX,
    ChunkRange,
    Entry,
    FileError,
    FileFacts,
    FileFlags,
    FileOperation,
    FileRefusedError,
    FileStat,
    ListRequest,
    PathRequest,
    ReadRequest,
    WriteRequest,
    decode_facts,
    decode_listing,
    decode_ranges,
    decode_stat,
    encode_frame,
    encode_list,
    encode_path,
    encode_read,
    encode_write,
    plain_header,
)
from hookprobe.htp.transfer_paths import check_path
from hookprobe.htp.transfer_receiver import Incoming
from hookprobe.runtime.file_call import ChunkSink
from hookprobe.runtime.file_conversation import Conversation
from hookprobe.runtime.file_parts import Part, open_source
from hookprobe.runtime.file_pump import ChunkSource
from hookprobe.runtime.file_store import FileStore, StoreLimits

LISTED_MAX = 100_000

# The source is no more: no later attempt could complete what is here.
_HOPELESS = (FileError.CONFLICT, FileError.CHANGED, FileError.NOT_FOUND)

Progress = Callable[[int, int], None]
"""Takes the bytes that are there and all bytes."""


def _no_progress(done: int, total: int) -> None:
    del done, total


class _BytesSource:
    """Bytes in memory, as a file to be sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._facts = FileFacts(len(data), hashlib.sha256(data).digest())

    @property
    def facts(self) -> FileFacts:
        return self._facts

    def read(self, index: int) -> bytes:
        start = index << CHUNK_LOG2
        return self._data[start : start + self._facts.chunk_size(index)]

    def check(self) -> None:
        """Bytes do not change."""

    def close(self) -> None:
        """Nothing is open."""


class _BytesSink:
    """Memory that a file comes into."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, data: bytes, whole: Sequence[int]) -> None:
        del whole
        self.data[offset : offset + len(data)] = data


class HTPFileTransfer:
    """File operations on one peer.

    Args:
        session: Of the file service, with that peer.
        compress: Whether chunks are compressed where it pays. Off for what mixes secrets with text
            that an attacker may choose: the sizes of messages would tell about the secrets.
    """

    def __init__(self, session: Conversation, *, compress: bool = True) -> None:
        self._session = session
        self._compress = compress

    async def __aenter__(self) -> "HTPFileTransfer":
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Nothing is held between calls."""

    async def create(self, path: str, data: bytes) -> None:
        """Create a file.

        Raises:
            FileRefusedError: It exists, or the peer refuses.
            UnavailableError: The session ended.
        """
        await self._send(_BytesSource(data), WriteTarget(path), _no_progress)

    async def update(self, path: str, data: bytes, *, if_match: bytes = ANY_CONTENT) -> None:
        """Replace a file, if it is the one with the SHA-256 `if_match`.

        Raises:
            FileRefusedError: It does not exist, is another one, or the peer refuses.
            UnavailableError: The session ended.
        """
        await self._send(_BytesSource(data), WriteTarget(path, True, if_match), _no_progress)

    async def put(
        self, local: Path, target: "WriteTarget", progress: Progress = _no_progress
    ) -> FileFacts:
        """Send a file of ours.

        Raises:
            FileRefusedError: It changed meanwhile, or the peer refuses.
            UnavailableError: The session ended; the same call resumes.
        """
        source = await asyncio.to_thread(open_source, local)
        try:
            await self._send(source, target, progress)
        finally:
            source.close()
        return source.facts

    async def _send(self, source: ChunkSource, target: "WriteTarget", progress: Progress) -> None:
        facts = source.facts
        path = check_path(target.path.removeprefix("/"))
        request = WriteRequest(facts, self._compress, 0o644, target.if_match, path)
        operation = FileOperation.UPDATE if target.update else FileOperation.CREATE
        flags = FileFlags(0) if target.update else FileFlags.NOREPLACE
        with self._session.call() as call:
            header = plain_header(operation, flags, call.file_id)
            self._session.post(encode_frame(header, encode_write(request, update=target.update)))
            _, body = await call.answer()
            missing = decode_ranges(body, facts.chunks)
            source = _Counted(source, missing, progress)
            self._session.stream(call, source, missing, compress=self._compress)
            answer, body = await call.answer()
            if answer.operation is not FileOperation.COMPLETE or decode_facts(body) != facts:
                raise VerificationError("COMPLETE: the peer has another file")

    async def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            FileRefusedError: The peer refuses.
            UnavailableError: The session ended.
            VerificationError: What came has another SHA-256.
        """
        facts = (await self._stat_file(path)).facts
        sink = _BytesSink(facts.size)
        incoming = Incoming(facts, 0)
        await self._fetch(path, incoming, sink, _no_progress)
        if hashlib.sha256(sink.data).digest() != facts.sha256:
            raise VerificationError(f"file {path}: its SHA-256 is another one")
        return bytes(sink.data)

    async def get(
        self, path: str, local: Path, *, replace: bool = False, progress: Progress = _no_progress
    ) -> FileFacts:
        """Fetch a file into one of ours.

        Raises:
            FileRefusedError: It changed meanwhile, ours exists, or the peer refuses.
            UnavailableError: The session ended; the same call resumes.
        """
        facts = (await self._stat_file(path)).facts
        store = FileStore(local.parent, self._session.peer, StoreLimits(None))
        request = WriteRequest(facts, False, 0o644, ANY_CONTENT, local.name)
        part = await asyncio.to_thread(_open_part, store, request, local, replace)
        with contextlib.ExitStack() as stack:
            stack.callback(part.suspend)
            incoming = Incoming(facts, 0, bytes(part.here))
            progress(min(incoming.held_chunks << CHUNK_LOG2, facts.size), facts.size)
            try:
                await self._fetch(path, incoming, part, progress)
            except FileRefusedError as error:
                if error.reason in _HOPELESS:
                    stack.pop_all()
                    part.discard()
                raise
            stack.pop_all()
        await asyncio.to_thread(part.finish)
        return facts

    async def _stat_file(self, path: str) -> FileStat:
        found = await self.stat(path)
        if found.is_folder:
            raise FileRefusedError(FileError.NOT_A_FILE, f"file {path}")
        return found

    async def _fetch(
        self, path: str, incoming: Incoming, sink: ChunkSink, progress: Progress
    ) -> None:
        facts = incoming.facts
        for first, last in incoming.missing():
            offset = first << CHUNK_LOG2
            length = (last + 1 << CHUNK_LOG2) - offset
            plain = check_path(path.removeprefix("/"))
            request = ReadRequest(plain, offset, length, facts.sha256)
            with self._session.call() as call:
                call.receive(incoming, ChunkRange(first, last), _Noted(sink, incoming, progress))
                header = plain_header(FileOperation.READ, FileFlags(0), call.file_id)
                self._session.post(encode_frame(header, encode_read(request)))
                for wanted in (FileOperation.READ, FileOperation.COMPLETE):
                    answer, body = await call.answer()
                    if answer.operation is not wanted or decode_facts(body) != facts:
                        raise VerificationError(f"file {path}: the peer sends another one")
        if not incoming.whole:
            raise VerificationError(f"file {path}: chunks are missing")

    async def delete(self, path: str, *, if_match: bytes = ANY_CONTENT) -> None:
        """Delete a file, if it is the one with the SHA-256 `if_match`.

        Raises:
            FileRefusedError: It does not exist, is another one, or the peer refuses.
            UnavailableError: The session ended.
        """
        request = PathRequest(check_path(path.removeprefix("/")), if_match)
        await self._ask(FileOperation.DELETE, encode_path(request))

    async def stat(self, path: str) -> FileStat:
        """Describe a file or folder.

        Raises:
            FileRefusedError: It does not exist, or the peer refuses.
            UnavailableError: The session ended.
        """
        request = PathRequest(check_path(path.strip("/"), folder=True))
        return decode_stat(await self._ask(FileOperation.STAT, encode_path(request)))

    async def list(self, path: str = "/") -> list[Entry]:
        """Return the names of a folder, sorted.

        Raises:
            FileRefusedError: There is no such folder, or the peer refuses.
            UnavailableError: The session ended.
        """
        plain = check_path(path.strip("/"), folder=True)
        found: list[Entry] = []
        more = True
        while more and len(found) < LISTED_MAX:
            request = ListRequest(plain, found[-1].name if found else "", LIST_MAX)
            listing = decode_listing(await self._ask(FileOperation.LIST, encode_list(request)))
            if listing.entries and listing.entries[0].name <= request.cursor:
                raise VerificationError("LIST: the peer repeats itself")
            found += listing.entries
            more = listing.more and bool(listing.entries)
        return found

    async def _ask(self, operation: FileOperation, body: bytes) -> bytes:
        with self._session.call() as call:
            header = plain_header(operation, FileFlags(0), call.file_id)
            self._session.post(encode_frame(header, body))
            answer, found = await call.answer()
        if answer.operation is not operation:
            raise VerificationError(f"the peer answers {operation.name} with something else")
        return found


class WriteTarget:
    """Where a file goes.

    Args:
        path: At the peer.
        update: Whether a file is replaced, else it must not exist.
        if_match: SHA-256 of the file to be replaced, or `ANY_CONTENT`.
    """

    __slots__ = ("if_match", "path", "update")

    def __init__(self, path: str, update: bool = False, if_match: bytes = ANY_CONTENT) -> None:
        if if_match != ANY_CONTENT and not update:
            raise LocalError("a condition on the present file makes sense for an update only")
        self.path = path
        self.update = update
        self.if_match = if_match


def _open_part(store: FileStore, request: WriteRequest, local: Path, replace: bool) -> Part:
    return store.open_part(request, update=replace and local.exists())


class _Counted:
    """A source that tells how far it has been read."""

    def __init__(
        self, source: ChunkSource, missing: tuple[ChunkRange, ...], progress: Progress
    ) -> None:
        self._source = source
        facts = source.facts
        self._done = facts.size - sum(
            facts.chunk_size(last) + (last - first << CHUNK_LOG2) for first, last in missing
        )
        self._progress = progress
        progress(self._done, facts.size)

    @property
    def facts(self) -> FileFacts:
        return self._source.facts

    def read(self, index: int) -> bytes:
        data = self._source.read(index)
        self._done += len(data)
        self._progress(self._done, self.facts.size)
        return data

    def check(self) -> None:
        self._source.check()

    def close(self) -> None:
        self._source.close()


class _Noted:
    """A sink that tells how much has come."""

    def __init__(self, sink: ChunkSink, incoming: Incoming, progress: Progress) -> None:
        self._sink = sink
        self._incoming = incoming
        self._progress = progress

    def write(self, offset: int, data: bytes, whole: Sequence[int]) -> None:
        self._sink.write(offset, data, whole)
        incoming = self._incoming
        size = incoming.facts.size
        self._progress(min(incoming.held_chunks << CHUNK_LOG2, size), size)

"""File operations with one peer of a running node: its requests served, ours carried.

Requests of the peer go to its `Desk`; what the desk decides is
done here, slow work (hashing, fsync) in threads, chunks at once. What is sent leaves through one
pump that asks the transport for room and waits when there is none: answers first, then one chunk of
each transfer in turn, so sixteen transfers share the path evenly.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from hookprobe.errors import RemoteError, UnavailableError
from hookprobe.htp.transfer_codec import (
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
    decode_error,
    decode_frame,
    encode_error,
    encode_facts,
    encode_frame,
    encode_listing,
    encode_stat,
    plain_header,
)
from hookprobe.htp.transfer_receiver import (
    Ask,
    Desk,
    Effect,
    FinishPart,
    Incoming,
    OpenPart,
    Reply,
    SuspendPart,
    Withdraw,
    WritePart,
    error_of,
)
from hookprobe.htp.transfer_sender import Outgoing
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.file_parts import Part
from hookprobe.runtime.file_store import FileStore
from hookprobe.wire.identifiers import NodeId

ROOM_WAIT_S = 0.005
STALL_S = 60.0
REPLIES_MAX = 256
ANSWERS_MAX = 16


class Room(Enum):
    """What became of a message that was to be sent."""

    SENT = "sent"
    FULL = "full"
    GONE = "gone"


Carry = Callable[[NodeId, bytes], Room]


class ChunkSource(Protocol):
    """Where the chunks of a file come from; see `file_parts.Source`."""

    @property
    def facts(self) -> FileFacts: ...

    def read(self, index: int) -> bytes: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


class ChunkSink(Protocol):
    """Where the chunks of a file go; see `file_parts.Part`."""

    def write(self, index: int, offset: int, data: bytes) -> None: ...


@dataclass(slots=True)
class Call:
    """A request of ours.

    Attributes:
        file_id: Its number.
        answers: What the peer said, content aside; None when the session ended.
        incoming: Where content is checked, if content is to come.
        sink: Where it goes.
        moved: Whether anything happened since this was last looked at.
    """

    file_id: int
    answers: asyncio.Queue[tuple[FileHeader, bytes] | RemoteError | None]
    incoming: Incoming | None = None
    sink: ChunkSink | None = None
    moved: bool = False

    async def answer(self) -> tuple[FileHeader, bytes]:
        """Wait for the peer.

        Raises:
            FileRefusedError: It said no.
            UnavailableError: The session ended, or nothing happened for a minute.
            RemoteError: What it sent breaks the rules.
        """
        while True:
            self.moved = False
            try:
                answer = await asyncio.wait_for(self.answers.get(), STALL_S)
            except TimeoutError:
                if self.moved:
                    continue
                raise UnavailableError("the peer does not answer", hint="try again") from None
            if answer is None:
                raise UnavailableError("the session ended", hint="the same command resumes")
            if isinstance(answer, RemoteError):
                raise answer
            if answer[0].operation is FileOperation.ERROR:
                raise FileRefusedError(decode_error(answer[1]), "the peer refused")
            return answer


@dataclass(slots=True)
class _Stream:
    """A file on its way out; `call` if we are who asked."""

    outgoing: Outgoing
    source: ChunkSource
    call: Call | None = None


@dataclass(slots=True)
class _Queue:
    """What waits for room."""

    replies: deque[bytes] = field(default_factory=deque)
    streams: deque[_Stream] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Conversation:
    """File operations with one peer, both ways.

    Args:
        peer: Who.
        carry: Sends one message, if there is room.
        store: The peer's files here; None if none are served.
        clock: Says what time it is.
    """

    def __init__(self, peer: NodeId, carry: Carry, store: FileStore | None, clock: Clock) -> None:
        self.peer = peer
        self._carry = carry
        self._store = store
        self._clock = clock
        self._desk = Desk()
        self._parts: dict[int, Part] = {}
        self._calls: dict[int, Call] = {}
        self._next_id = 0
        self._queue = _Queue()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._pumping = asyncio.get_running_loop().create_task(self._pump())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    # -- our requests ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def call(self) -> Iterator[Call]:
        """Begin a request of ours; it is over when the context is left."""
        self._next_id = self._next_id + 1 & 0xFFFFFFFF
        call = Call(self._next_id, asyncio.Queue(ANSWERS_MAX))
        self._calls[call.file_id] = call
        over = False
        try:
            yield call
            over = True
        finally:
            if not over:  # the peer may be in the middle of it
                self.post(encode_error(call.file_id, FileError.INCOMPLETE, FileFlags(0)))
            del self._calls[call.file_id]
            self._drop_stream(call.file_id, response=False)

    def post(self, data: bytes) -> None:
        """Send a message when there is room; beyond 256 waiting ones it is lost."""
        if len(self._queue.replies) < REPLIES_MAX:
            self._queue.replies.append(data)
            self._queue.wake.set()

    def stream(
        self, call: Call, source: ChunkSource, missing: tuple[ChunkRange, ...], *, compress: bool
    ) -> None:
        """Send these chunks and COMPLETE; the source stays the caller's to close."""
        outgoing = Outgoing(source.facts, call.file_id, response=False, compressible=compress)
        outgoing.begin(missing)
        self._queue.streams.append(_Stream(outgoing, source, call))
        self._queue.wake.set()

    # -- what the peer sends --------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take a message of the peer; whatever it holds, no exception comes out."""
        if len(data) > 1 and data[1] & FileFlags.RESPONSE:
            self._take_answer(data)
        else:
            self._execute(self._desk.receive_frame(data, self._clock.now()))

    def _take_answer(self, data: bytes) -> None:
        try:
            header, body = decode_frame(data)
        except RemoteError:
            return  # names no request of ours
        call = self._calls.get(header.file_id)
        if call is None:
            return
        call.moved = True
        answer: tuple[FileHeader, bytes] | RemoteError = (header, body)
        if header.operation is FileOperation.CHUNK:
            try:
                self._take_chunk(call, header, body)
            except RemoteError as error:
                answer = error
            else:
                return
        if not call.answers.full():
            call.answers.put_nowait(answer)

    @staticmethod
    def _take_chunk(call: Call, header: FileHeader, body: bytes) -> None:
        if call.incoming is None or call.sink is None:
            return
        write = call.incoming.receive_chunk(header, body)
        if write is not None:
            call.sink.write(write.index, write.offset, write.data)

    def _execute(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case WritePart():
                    self._write(effect)
                case Reply(data):
                    self.post(data)
                case OpenPart():
                    self._spawn(self._open(effect))
                case FinishPart(file_id):
                    self._spawn(self._finish(file_id, self._parts.pop(file_id)))
                case SuspendPart(file_id):
                    part = self._parts.pop(file_id, None)
                    if part is not None:
                        self._spawn(_suspend(part))
                case Ask():
                    self._spawn(self._answer(effect))
                case Withdraw(file_id):
                    self._drop_stream(file_id, response=True)

    def _write(self, write: WritePart) -> None:
        try:
            self._parts[write.file_id].write(write.index, write.offset, write.data)
        except FileRefusedError as error:
            self._execute(self._desk.fail(write.file_id, error.reason))

    async def _open(self, effect: OpenPart) -> None:
        try:
            store = self._served()
            part = await asyncio.to_thread(store.open_part, effect.request, update=effect.update)
        except RemoteError as error:
            self._execute(self._desk.fail(effect.file_id, error_of(error)))
            return
        self._parts[effect.file_id] = part
        self._execute(self._desk.opened(effect.file_id, bytes(part.here)))

    async def _finish(self, file_id: int, part: Part) -> None:
        try:
            await asyncio.to_thread(part.finish)
        except RemoteError as error:
            self._execute(self._desk.fail(file_id, error_of(error)))
        else:
            self._execute(self._desk.finished(file_id))

    async def _answer(self, ask: Ask) -> None:
        try:
            store, question = self._served(), ask.question
            if isinstance(question, ReadRequest):
                await self._begin_read(store, ask.file_id, question)
                return
            body = await asyncio.to_thread(_look_up, store, ask.operation, question)
        except RemoteError as error:
            self._execute(self._desk.fail(ask.file_id, error_of(error)))
        else:
            header = plain_header(ask.operation, FileFlags.RESPONSE, ask.file_id)
            self.post(encode_frame(header, body))
            self._desk.settle(ask.file_id)

    async def _begin_read(self, store: FileStore, file_id: int, question: ReadRequest) -> None:
        source = await asyncio.to_thread(store.open_source, question.path, question.if_match)
        if not self._desk.awaits(file_id):
            source.close()  # withdrawn while it was being opened
            return
        facts = source.facts
        header = plain_header(FileOperation.READ, FileFlags.RESPONSE, file_id)
        self.post(encode_frame(header, encode_facts(facts)))
        outgoing = Outgoing(facts, file_id, response=True, compressible=False)
        outgoing.begin(chunks_of(facts, question.offset, question.length))
        self._queue.streams.append(_Stream(outgoing, source))
        self._queue.wake.set()

    def _served(self) -> FileStore:
        if self._store is None:
            raise FileRefusedError(FileError.FORBIDDEN, "files: none are served here")
        return self._store

    # -- sending --------------------------------------------------------------------------------

    async def _pump(self) -> None:
        queue = self._queue
        while True:
            await queue.wake.wait()
            data = queue.replies.popleft() if queue.replies else self._next_chunk()
            if data is None:
                queue.wake.clear()
                continue
            room = self._carry(self.peer, data)
            while room is Room.FULL:
                await asyncio.sleep(ROOM_WAIT_S)
                room = self._carry(self.peer, data)
            await asyncio.sleep(0)

    def _next_chunk(self) -> bytes | None:
        """Return the next message of the transfer whose turn it is."""
        streams = self._queue.streams
        if not streams:
            return None
        stream = streams.popleft()
        try:
            return self._advance(stream)
        except FileRefusedError as error:
            self._end(stream, error)
            flags = FileFlags.RESPONSE if stream.call is None else FileFlags(0)
            return encode_error(stream.outgoing.file_id, error.reason, flags)

    def _advance(self, stream: _Stream) -> bytes:
        index = stream.outgoing.wanted
        if index is None:
            stream.source.check()
            self._end(stream, None)
            return stream.outgoing.complete()
        data = stream.outgoing.encode(stream.source.read(index))
        if stream.call is not None:
            stream.call.moved = True
        self._queue.streams.append(stream)
        return data

    def _end(self, stream: _Stream, error: FileRefusedError | None) -> None:
        if stream.call is None:
            stream.source.close()
            self._desk.settle(stream.outgoing.file_id)
        elif error is not None and not stream.call.answers.full():
            stream.call.answers.put_nowait(error)

    def _drop_stream(self, file_id: int, *, response: bool) -> None:
        for stream in list(self._queue.streams):
            if stream.outgoing.file_id == file_id and (stream.call is None) is response:
                self._queue.streams.remove(stream)
                if response:
                    stream.source.close()

    # -- life -----------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Give up what is silent."""
        self._execute(self._desk.handle_timeout(self._clock.now()))

    async def end(self) -> None:
        """The session is over: keep what is here, tell who waits."""
        self._pumping.cancel()
        self._execute(self._desk.end())
        for call in list(self._calls.values()):
            if not call.answers.full():
                call.answers.put_nowait(None)
        for stream in self._queue.streams:
            if stream.call is None:
                stream.source.close()
        self._queue.streams.clear()
        while self._tasks:
            await asyncio.wait(list(self._tasks))


async def _suspend(part: Part) -> None:
    # A journal that cannot be written costs sending chunks again, nothing else.
    with contextlib.suppress(FileRefusedError):
        await asyncio.to_thread(part.suspend)


def _look_up(
    store: FileStore, operation: FileOperation, question: PathRequest | ListRequest
) -> bytes:
    if isinstance(question, ListRequest):
        return encode_listing(store.list(question))
    if operation is FileOperation.DELETE:
        store.delete(question)
        return b""
    return encode_stat(store.stat(question.path))


def chunks_of(facts: FileFacts, offset: int, length: int) -> tuple[ChunkRange, ...]:
    """Return the chunks that hold `length` bytes from `offset` on, as far as there are any."""
    stop = min(offset + length, facts.size)
    if offset >= stop:
        return ()
    return (ChunkRange(offset >> facts.chunk_log2, stop - 1 >> facts.chunk_log2),)

"""File operations with one peer of a running node: its requests served, ours carried.

Requests of the peer go to its `Desk`; what the desk decides is
done here, slow work (hashing, fsync) in threads, chunks at once. What is sent leaves through one
pump that asks the transport for room and waits when there is none.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial

from hookprobe.errors import RemoteError
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.transfer_codec import (
    CHUNK_LOG2,
    ChunkRange,
    FileError,
    FileFacts,
    FileFlags,
    FileOperation,
    FileRefusedError,
    ListRequest,
    PathRequest,
    ReadRequest,
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
    OpenPart,
    Reply,
    SuspendPart,
    Withdraw,
    error_of,
)
from hookprobe.htp.transfer_sender import Outgoing
from hookprobe.htp.transfer_writes import WritePart
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.file_call import ANSWERS_MAX, Call
from hookprobe.runtime.file_parts import Part
from hookprobe.runtime.file_pump import Carrier, ChunkSource, Pump, Stream
from hookprobe.runtime.file_store import FileStore
from hookprobe.wire.identifiers import NodeId

_RESPONSE = FileFlags.RESPONSE.value


class Conversation:
    """File operations with one peer, both ways.

    Args:
        peer: Who.
        carrier: Sends messages and chunks.
        store: The peer's files here; None if none are served.
        clock: Says what time it is.
    """

    def __init__(
        self, peer: NodeId, carrier: Carrier, store: FileStore | None, clock: Clock
    ) -> None:
        self.peer = peer
        self._store = store
        self._clock = clock
        self._desk = Desk()
        self._parts: dict[int, Part] = {}
        self._calls: dict[int, Call] = {}
        self._next_id = 0
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._pump = Pump(peer, carrier, self._end)
        self._pumping = asyncio.get_running_loop().create_task(self._pump.run())

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
            self._pump.drop(call.file_id, response=False)

    def post(self, data: bytes) -> None:
        """Send a message when there is room; beyond 256 waiting ones it is lost."""
        self._pump.post(data)

    def stream(
        self, call: Call, source: ChunkSource, missing: tuple[ChunkRange, ...], *, compress: bool
    ) -> None:
        """Send these chunks and COMPLETE; the source stays the caller's to close."""
        outgoing = Outgoing(source.facts, call.file_id, response=False, compressible=compress)
        outgoing.begin(missing)
        self._pump.add(Stream(outgoing, source, call))

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
        if header.operation is not FileOperation.CHUNK:
            call.take((header, body))
        elif call.incoming is not None:
            incoming = call.incoming
            self._put(call, lambda: _one(incoming.receive_chunk(header, body)))

    def receive_fragments(self, fragments: Sequence[BulkFragment]) -> None:
        """Take fragments of chunks; whatever they hold, no exception comes out."""
        groups: dict[tuple[int, bytes], list[BulkFragment]] = {}
        for one in fragments:
            key = (one.head[1] & _RESPONSE, one.head[4:8])
            group = groups.get(key)
            if group is None:
                groups[key] = [one]
            else:
                group.append(one)
        for (response, name), group in groups.items():
            file_id = int.from_bytes(name)
            if not response:
                self._execute(self._desk.receive_fragments(file_id, group, self._clock.now()))
                continue
            call = self._calls.get(file_id)
            if call is not None and call.incoming is not None:
                self._put(call, partial(call.incoming.receive_fragments, group))

    @staticmethod
    def _put(call: Call, receive: Callable[[], Sequence[WritePart]]) -> None:
        """Put content where it belongs; what is wrong with it ends the call."""
        try:
            for write in receive():
                if call.sink is not None:
                    call.sink.write(write.offset, write.data, write.whole)
        except RemoteError as error:
            call.take(error)
        else:
            call.moved = True
            call.check()

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
                    self._pump.drop(file_id, response=True)

    def _write(self, write: WritePart) -> None:
        try:
            self._parts[write.file_id].write(write.offset, write.data, write.whole)
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
        self._pump.add(Stream(outgoing, source))

    def _served(self) -> FileStore:
        if self._store is None:
            raise FileRefusedError(FileError.FORBIDDEN, "files: none are served here")
        return self._store

    def _end(self, stream: Stream, error: FileRefusedError | None) -> None:
        if stream.call is None:
            stream.source.close()
            self._desk.settle(stream.outgoing.file_id)
        elif error is not None and not stream.call.answers.full():
            stream.call.answers.put_nowait(error)

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
        self._pump.end()
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


def _one(write: WritePart | None) -> tuple[WritePart, ...]:
    return () if write is None else (write,)


def chunks_of(facts: FileFacts, offset: int, length: int) -> tuple[ChunkRange, ...]:
    """Return the chunks that hold `length` bytes from `offset` on, as far as there are any."""
    stop = min(offset + length, facts.size)
    if offset >= stop:
        return ()
    return (ChunkRange(offset >> CHUNK_LOG2, stop - 1 >> CHUNK_LOG2),)

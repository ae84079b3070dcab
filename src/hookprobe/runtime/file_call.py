"""A request of ours to a peer's files, and what comes in answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hookprobe.errors import RemoteError, UnavailableError
from hookprobe.htp.transfer_codec import (
    ChunkRange,
    FileHeader,
    FileOperation,
    FileRefusedError,
    decode_error,
)
from hookprobe.htp.transfer_receiver import Incoming

STALL_S = 60.0
ANSWERS_MAX = 16
NO_CHUNKS = ChunkRange(0, -1)


class ChunkSink(Protocol):
    """Where the chunks of a file go; see `file_parts.Part`."""

    def write(self, offset: int, data: bytes, whole: Sequence[int]) -> None: ...


@dataclass(slots=True)
class Call:
    """A request of ours.

    Attributes:
        file_id: Its number.
        answers: What the peer said, content aside; None when the session ended.
        incoming: Where content is checked, if content is to come.
        wanted: Which of its chunks were asked for.
        sink: Where they go.
        complete: COMPLETE, if it came before all of them.
        moved: Whether anything happened since this was last looked at.
    """

    file_id: int
    answers: asyncio.Queue[tuple[FileHeader, bytes] | RemoteError | None]
    incoming: Incoming | None = None
    wanted: ChunkRange = NO_CHUNKS
    sink: ChunkSink | None = None
    complete: tuple[FileHeader, bytes] | None = None
    moved: bool = False

    def receive(self, incoming: Incoming, wanted: ChunkRange, sink: ChunkSink) -> None:
        """Await content."""
        self.incoming, self.wanted, self.sink = incoming, wanted, sink

    def take(self, answer: tuple[FileHeader, bytes] | RemoteError) -> None:
        """Hand over what the peer said; COMPLETE waits for chunks that it overtook."""
        self.moved = True
        if not isinstance(answer, RemoteError) and answer[0].operation is FileOperation.COMPLETE:
            self.complete = answer
            self.check()
        elif not self.answers.full():
            self.answers.put_nowait(answer)

    def check(self) -> None:
        """See whether COMPLETE can be believed now."""
        if self.complete is not None and self._is_whole():
            if not self.answers.full():
                self.answers.put_nowait(self.complete)
            self.complete = None

    def _is_whole(self) -> bool:
        first, last = self.wanted
        return self.incoming is None or self.incoming.here.find(0, first, last + 1) < 0

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

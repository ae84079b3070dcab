"""Copies final checkpoints from a validator's ledger to PostgreSQL, in order, whenever it can.

Order of writes: (1) the ledger, one durable batch; (2) what the node says to others; (3) this
copy, from what is durable in the ledger. Between (1) and (3) anything may crash: where the copy
goes on is asked of the table itself, so there is no second place that could disagree. A server
that is down or slow costs nothing but the copy's age; the node's loop never waits for it.

The table can be ahead only if the ledger fell back: a backup was restored. Then the copy waits
until the ledger is there again; what continues the table must name its last header.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hookprobe.dsm.checkpoint import SealedHeader, decode_sealed
from hookprobe.dsm.history import STATE_KEY
from hookprobe.dsm.store import StoreReader, Table
from hookprobe.errors import HostError, RemoteError
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.ledger_store import LedgerStore, StorePlace, open_store
from hookprobe.runtime.postgres_checkpoints import PostgresCheckpoints, Row
from hookprobe.wire.instant import DAY, MILLISECOND, Instant
from hookprobe.wire.reader import Reader

BATCH = 256
EVERY_S = 1.0
RETRY_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class CopyTask:
    """What is copied, and where to.

    Attributes:
        place: The node's ledger.
        url: The server.
        keep_days: How long contents are kept there; 0: for ever.
    """

    place: StorePlace
    url: str
    keep_days: int


class CheckpointCopy:
    """The copy of one running node.

    Args:
        task: What and where.
        clock: Says what time it is.
        failed: Is told of each failure; a failure is never the node's end.
    """

    def __init__(self, task: CopyTask, clock: Clock, failed: Callable[[HostError], None]) -> None:
        self.copied = 0
        self._task = task
        self._clock = clock
        self._failed = failed
        self._ledger: LedgerStore | None = None
        self._server: PostgresCheckpoints | None = None

    async def run(self) -> None:
        """Copy until cancelled."""
        loop, pause = asyncio.get_running_loop(), EVERY_S
        # One thread, always the same: a connection to SQLite belongs to its thread.
        worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-copy")
        try:
            while True:
                try:
                    more = await loop.run_in_executor(worker, self.step)
                    pause = 0.0 if more else EVERY_S
                except HostError as error:
                    self._failed(error)
                    await loop.run_in_executor(worker, self.close)
                    pause = min(max(2 * pause, EVERY_S), RETRY_MAX_S)
                await asyncio.sleep(pause)
        finally:
            worker.submit(self.close)
            worker.shutdown(wait=False)

    def step(self) -> bool:
        """Copy the next checkpoints; return whether there are more.

        Raises:
            HostError: The server or the ledger cannot be reached, or they are of two histories.
        """
        if self._ledger is None:
            self._ledger = open_store(self._task.place, read_only=True)
        if self._server is None:
            self._server = PostgresCheckpoints(self._task.url)
            _check_same(self._server, self._ledger)
        first, _ = self._server.tip()
        rows = _rows(self._ledger, first)
        if rows:
            self._server.append(rows, self._clock.now())
            self._forget(self._server, rows[-1].sealed)
        self.copied = first + len(rows)
        return len(rows) == BATCH

    def _forget(self, server: PostgresCheckpoints, last: SealedHeader) -> None:
        # By chain time, like all pruning (DSM spec 2.9).
        if self._task.keep_days:
            chain_time = last.header.timestamp_ms * MILLISECOND
            server.drop_contents(Instant(max(0, chain_time - self._task.keep_days * DAY)))

    def close(self) -> None:
        """Let go of both ends."""
        for end in (self._server, self._ledger):
            if end is not None:
                end.close()
        self._server = self._ledger = None


def _rows(ledger: StoreReader, first: int) -> list[Row]:
    stop = (first + BATCH).to_bytes(8, "big")
    found = ledger.scan(Table.CHECKPOINTS, first.to_bytes(8, "big"), stop, BATCH)
    return [Row(_sealed(value), ledger.get(Table.CONTENTS, key)) for key, value in found]


def _sealed(value: bytes) -> SealedHeader:
    try:
        return decode_sealed(value)
    except RemoteError as error:
        raise HostError(
            f"ledger: a stored checkpoint cannot be read: {error.message}",
            hint="hookprobe dsm fsck says where",
        ) from error


def _check_same(server: PostgresCheckpoints, ledger: StoreReader) -> None:
    state = ledger.get(Table.META, STATE_KEY)
    here = Reader(state, "stored history").u64() if state is not None else 0
    epoch = min(server.tip()[0], here) - 1
    stored = ledger.get(Table.CHECKPOINTS, epoch.to_bytes(8, "big")) if epoch >= 0 else None
    if stored is not None and server.hash_at(epoch) != _sealed(stored).hash:
        raise HostError(
            f"dsm_checkpoints: epoch {epoch} is another one than in this ledger",
            hint="the database belongs to another ledger; name another one",
        )

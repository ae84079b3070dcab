"""A validator's checkpoints of the history as a transparency log: signed after every final epoch.

The note is kept in the store, so that an API in another process, which has no key, can show it. Who
wants the signatures of several validators asks several and merges them (`dsm.notes.merge`).
"""

import asyncio
from collections.abc import Callable, Sequence

from hookprobe.crypto.signing import Signer
from hookprobe.dsm.effects import CheckpointFinalized
from hookprobe.dsm.store import Persist, Table
from hookprobe.dsm.tree_log import NOTE_ROW, TreeLog
from hookprobe.node.host import Effect
from hookprobe.node.observations import Observation


class LogPublisher:
    """Signs the tree head of one validator.

    Args:
        log: Its history as a log.
        signer: Its Ed25519 key.
    """

    def __init__(self, log: TreeLog, signer: Signer) -> None:
        self._log = log
        self._signer = signer
        self._due = asyncio.Event()
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    def report(self, observation: Observation) -> None:
        """Take note that the history has grown."""
        if isinstance(observation, CheckpointFinalized):
            self._due.set()

    def accept(self, note: bytes) -> int:
        """Keep the cosignatures of witnesses on one of our checkpoints; returns how many.

        Raises:
            RemoteError: Not our tree, or no witness that we know signed.
        """
        writes = self._log.accept(note)
        self.execute([Persist(writes)])
        self._due.set()
        return len(writes)

    def publish(self) -> None:
        """Sign the tree head over all that is durable."""
        note = self._log.checkpoint(self._signer)
        self.execute([Persist(((Table.META, NOTE_ROW, note.encode()),))])

    async def run(self) -> None:
        """Publish whenever the history has grown."""
        while True:
            self.publish()
            self._due.clear()
            await self._due.wait()

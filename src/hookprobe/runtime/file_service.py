"""File operations of a running node: one conversation for each peer in reach."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hookprobe.errors import UnavailableError
from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import (
    FragmentsReceived,
    LevelChanged,
    MessageReceived,
    SessionDown,
    SessionUp,
    TrustReported,
)
from hookprobe.htp.trust import FULL_FROM, FULL_TRUST, Level, permits
from hookprobe.node.doubts import Doubt
from hookprobe.node.observations import Observation
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.file_conversation import Conversation
from hookprobe.runtime.file_pump import Carrier
from hookprobe.runtime.file_store import FileStore, StoreLimits
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, Instant

TIDY_EVERY_S = 5.0
PART_LIFE_US = 24 * HOUR


class FileService:
    """All conversations of a node.

    Args:
        carrier: Sends messages and chunks to peers.
        root: Folder of the peers' folders; None if none are served.
        limits: What each peer may have.
        clock: Says what time it is.
        doubt: Says what is held against a peer that dialled us.
    """

    def __init__(
        self,
        carrier: Carrier,
        root: Path | None,
        limits: StoreLimits,
        clock: Clock,
        doubt: Callable[[NodeId, Instant], Doubt | None] = lambda _peer, _now: None,
    ) -> None:
        self._carrier = carrier
        self._root = root
        self._limits = limits
        self._clock = clock
        self._doubt = doubt
        self._dialled: dict[NodeId, int] = {}
        self._conversations: dict[NodeId, Conversation] = {}
        self._levels: dict[NodeId, Level] = {}
        self._ending: dict[asyncio.Task[None], None] = {}

    def report(self, observation: Observation) -> None:
        """Take what the node says; only sessions and file messages matter here."""
        match observation:
            case MessageReceived(peer, Channel.FILE, data):
                conversation = self._conversations.get(peer)
                if conversation is not None:
                    conversation.receive(data)
            case FragmentsReceived(peer, fragments):
                conversation = self._conversations.get(peer)
                if conversation is not None:
                    conversation.receive_fragments(fragments)
            case SessionUp(peer, _, dialled):
                self._end(peer)
                if dialled:
                    self._dialled[peer] = FULL_TRUST
                store = self._store(peer)
                self._conversations[peer] = Conversation(peer, self._carrier, store, self._clock)
            case TrustReported(peer, trust):
                self._dialled[peer] = trust
            case LevelChanged(peer, level):
                self._levels[peer] = Level(level)
            case SessionDown(peer):
                self._levels.pop(peer, None)
                self._dialled.pop(peer, None)
                self._end(peer)
            case _:
                pass

    def _store(self, peer: NodeId) -> FileStore | None:
        if self._root is None:
            return None
        return FileStore(self._root / peer, peer, self._limits)

    def _end(self, peer: NodeId) -> None:
        conversation = self._conversations.pop(peer, None)
        if conversation is not None:
            task = asyncio.get_running_loop().create_task(conversation.end())
            self._ending[task] = None
            task.add_done_callback(lambda done: self._ending.pop(done, None))

    def session(self, peer: NodeId) -> Conversation:
        """Return the conversation with a connected peer.

        Raises:
            UnavailableError: There is no session with it, or not yet the trust that files need.
        """
        conversation = self._conversations.get(peer)
        if conversation is None:
            raise UnavailableError(
                f"no session with {peer}", hint="`hookprobe status` lists the peers in reach"
            )
        if not permits(self._levels.get(peer, Level.FULL), Channel.FILE):
            raise self._refusal(peer)
        return conversation

    def _refusal(self, peer: NodeId) -> UnavailableError:
        """Say why trust does not permit files: ours in a peer, or of a peer in us."""
        trust = self._dialled.get(peer)
        if trust is not None:
            # Rounded down, so that what falls short of what is wanted also looks like it.
            share, wanted = trust * 100 // FULL_TRUST, FULL_FROM * 100 // FULL_TRUST
            return UnavailableError(
                f"{peer} trusts this node with {share} %, files need {wanted} %",
                hint="the reason is known there: `ReportRefused` in the log of a validator, "
                "`hookprobe verifier devices` on a verifier",
            )
        doubt = self._doubt(peer, self._clock.now())
        if doubt is None:
            return UnavailableError(f"the session with {peer} does not permit files at the moment")
        return UnavailableError(f"{peer} may not move files: {doubt.reason}", hint=doubt.hint)

    async def run(self) -> None:
        """Give up silent transfers, and delete parts that nobody took up for a day."""
        collected = None
        while True:
            for conversation in list(self._conversations.values()):
                conversation.tidy()
            now = self._clock.now()
            if self._root is not None and (collected is None or now - collected >= HOUR):
                collected = now
                await asyncio.to_thread(self._collect, self._root, now - PART_LIFE_US)
            await asyncio.sleep(TIDY_EVERY_S)

    def _collect(self, root: Path, before_us: int) -> None:
        FileStore(root, "", self._limits).collect(before_us * 1000)

    async def end(self) -> None:
        """End all conversations; what has arrived of files under way is kept."""
        for peer in list(self._conversations):
            self._end(peer)
        await asyncio.gather(*self._ending, return_exceptions=True)

"""Catching up with checkpoints that others have already made final (DSM spec 2.8).

Every link carries a STATUS every 5 s and when a validator set begins. Who is behind asks one peer
at a time for final checkpoints; each must be certified and continue the history, so it does not
matter who sends them. Blocks that their ranges name are fetched afterwards: final is final, also
while they are missing.
"""

from collections.abc import Sequence

from hookprobe.dsm.checkpoint import FinalCheckpoint
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.history import History
from hookprobe.dsm.messages import (
    ANSWER_MAX_BYTES,
    CHECKPOINTS_MAX,
    Checkpoints,
    GetCheckpoints,
)
from hookprobe.dsm.peers import Peer
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class Synchronizer:
    """The checkpoint requests of one validator: at most one outstanding."""

    def __init__(self, history: History, config: LedgerConfig) -> None:
        self._history = history
        self._config = config
        self._asked: NodeId | None = None
        self._answered: dict[NodeId, bool] = {}  # late or repeated answers are no offence
        self._deadline = Instant(0)

    def want(self, peer: NodeId, now: Instant) -> list[Effect]:
        """Ask a peer for what follows our history, unless somebody is being asked."""
        if self._asked is not None:
            return []
        self._asked = peer
        self._deadline = Instant(now + self._config.request_timeout_us)
        return [Send(peer, GetCheckpoints(self._history.next_epoch, CHECKPOINTS_MAX))]

    def receive_get(self, peer: Peer, message: GetCheckpoints) -> list[Effect]:
        """Answer with as many consecutive checkpoints as a frame takes."""
        items: list[FinalCheckpoint] = []
        room = ANSWER_MAX_BYTES
        for epoch in range(message.first, message.first + min(message.count, CHECKPOINTS_MAX)):
            final = self._history.checkpoint(epoch)
            if final is None:
                break
            room -= len(final.encode())
            if room < 0 and items:
                break
            items.append(final)
        return [Send(peer.node_id, Checkpoints(tuple(items)))]

    def receive_checkpoints(self, peer: Peer, message: Checkpoints) -> Sequence[FinalCheckpoint]:
        """Accept an answer; the caller checks and applies the items in order.

        Raises:
            VerificationError: Nobody asked this peer.
        """
        if self._asked == peer.node_id:
            self._asked = None
            self._answered[peer.node_id] = True
        elif peer.node_id not in self._answered:
            raise VerificationError("checkpoints that were not asked for")
        return message.items

    def peer_disconnected(self, peer: NodeId) -> None:
        self._answered.pop(peer, None)
        if self._asked == peer:
            self._asked = None

    def next_timeout(self) -> Instant | None:
        """Return when the outstanding request is overdue."""
        return self._deadline if self._asked is not None else None

    def handle_timeout(self, now: Instant) -> list[NodeId]:
        """Give up an overdue request and return who did not answer."""
        if self._asked is None or self._deadline > now:
            return []
        late, self._asked = self._asked, None
        self._answered[late] = True
        return [late]

"""What a validator tells whoever asks: blocks, and the agreed past.

Answers cost more than questions. What a peer is given in a second is bounded by what the answers
weigh: a block counts one, what is larger counts more. A question beyond that is left unanswered, as
a lost one is; who asks in good faith asks somebody else.
"""

from hookprobe.dsm.backlog import Backlog
from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import (
    ANSWER_MAX_BYTES,
    CHANGES_MAX,
    Blocks,
    Changes,
    Checkpoints,
    GetChanges,
    GetCheckpoints,
    GetHeads,
    GetPack,
    GetRange,
    GetReceipts,
    GetRelics,
    HeadsReply,
    Pack,
    Relics,
)
from hookprobe.dsm.peers import Budget, Peer
from hookprobe.dsm.receipts import ReceiptDesk
from hookprobe.dsm.relics import RelicDesk
from hookprobe.dsm.sync import Synchronizer
from hookprobe.errors import UnauthorizedError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

Request = GetRange | GetPack | GetCheckpoints | GetHeads | GetReceipts | GetChanges | GetRelics

REQUEST_WEIGHT = 16
DOCUMENT_WEIGHT = 64  # a checkpoint, a receipt, a change of the set


class AnswerDesk:
    """Hands requests to whoever knows.

    Args:
        history: Set changes.
        book: Heads of chains.
        blocks: Held and final blocks.
        sync: Final checkpoints.
        receipts: Receipts of edges.
        relics: What outlives pruned blocks.
    """

    def __init__(
        self,
        history: History,
        book: LaneBook,
        blocks: tuple[Gossip, Backlog],
        sync: Synchronizer,
        receipts: ReceiptDesk,
        relics: RelicDesk,
    ) -> None:
        self._history = history
        self._book = book
        self._gossip, self._backlog = blocks
        self._sync = sync
        self._receipts = receipts
        self._relics = relics

    def receive_get(self, peer: Peer, message: Request, now: Instant) -> list[Effect]:
        """Answer one request, unless the peer was given enough already.

        Raises:
            UnauthorizedError: An edge asks for what only validators need.
            VerificationError: Numbers out of order.
        """
        bucket = peer.buckets[Budget.ANSWERS]
        if not bucket.has_any(now):
            return []
        answers = self._answer(peer, message)
        bucket.spend(REQUEST_WEIGHT + sum(map(_weight, answers)))
        return answers

    def _answer(self, peer: Peer, message: Request) -> list[Effect]:
        match message:
            case GetRange():
                return self._gossip.receive_get_range(peer, message)
            case GetPack():
                return self._backlog.receive_get_pack(peer, message)
            case GetCheckpoints():
                return self._sync.receive_get(peer, message)
            case GetHeads():
                return [Send(peer.node_id, HeadsReply(self._book.incarnations(peer.node_id)))]
            case GetReceipts():
                return self._receipts.receive_get(peer, message)
            case GetChanges(first):
                return self.changes(peer.node_id, first)
            case GetRelics():
                if peer.place is None and self._book.role(peer.node_id) != "validator":
                    raise UnauthorizedError("relics asked for by an edge")
                return self._relics.receive_get(peer, message)

    def changes(self, node_id: NodeId, first: int) -> list[Effect]:
        """Return the set changes from an epoch on, as many as a frame takes."""
        room, items = ANSWER_MAX_BYTES, []
        for change in self._history.changes(first, CHANGES_MAX):
            room -= len(change.encode())
            if room < 0:
                break
            items.append(change)
        return [Send(node_id, Changes(tuple(items)))] if items else []


def _weight(effect: Effect) -> int:
    match effect:
        case Send(_, Blocks(_, entries)):
            return len(entries)
        case Send(_, Pack(_, _, packed)):
            return len(packed)
        case Send(_, Relics(_, _, relics)):
            return len(relics)
        case Send(_, Checkpoints(items)):
            return DOCUMENT_WEIGHT * len(items)
        case Send(_, Changes(changes)):
            return DOCUMENT_WEIGHT * len(changes)
        case _:
            return DOCUMENT_WEIGHT

"""What a validator tells whoever asks about the agreed past."""

from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import (
    ANSWER_MAX_BYTES,
    CHANGES_MAX,
    Changes,
    GetChanges,
    GetCheckpoints,
    GetHeads,
    GetReceipts,
    GetRelics,
    HeadsReply,
)
from hookprobe.dsm.peers import Peer
from hookprobe.dsm.receipts import ReceiptDesk
from hookprobe.dsm.relics import RelicDesk
from hookprobe.dsm.sync import Synchronizer
from hookprobe.errors import UnauthorizedError
from hookprobe.wire.identifiers import NodeId

Request = GetCheckpoints | GetHeads | GetReceipts | GetChanges | GetRelics


class AnswerDesk:
    """Hands requests to whoever knows.

    Args:
        history: Set changes.
        book: Heads of chains.
        sync: Final checkpoints.
        receipts: Receipts of edges.
        relics: What outlives pruned blocks.
    """

    def __init__(
        self,
        history: History,
        book: LaneBook,
        sync: Synchronizer,
        receipts: ReceiptDesk,
        relics: RelicDesk,
    ) -> None:
        self._history = history
        self._book = book
        self._sync = sync
        self._receipts = receipts
        self._relics = relics

    def receive_get(self, peer: Peer, message: Request) -> list[Effect]:
        """Answer one request.

        Raises:
            UnauthorizedError: An edge asks for what only validators need.
        """
        match message:
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

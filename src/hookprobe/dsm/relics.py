"""What outlives pruned blocks: first blocks and governance, for whoever comes late (DSM spec 2.9).

Blocks go after a month, but a validator that joins after a year must know whose key signs which
chain, who was revoked and what is pending. Each validator therefore keeps, for ever and by epoch,
the first block of every chain and every block with a governance body: a few rows a day.

Who lacks blocks of a final epoch that others may have pruned asks all validators for its relics.
Every block verifies by itself; that none is left out cannot be seen from one answer, so it takes
f+1 equal ones, of which at least one is honest. The ranges of that epoch then count as read; what
they held besides is gone for everybody.
"""

from collections.abc import Sequence

from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.finality import Finality
from hookprobe.dsm.history import History
from hookprobe.dsm.messages import ANSWER_MAX_BYTES, GetRelics, Relics
from hookprobe.dsm.microblock import SignedBlock, decode_block
from hookprobe.dsm.peers import Peer, PeerBook
from hookprobe.dsm.store import StoreReader, Table
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId

ROWS_MAX = 4096
EPOCHS_PER_ANSWER_MAX = 4096


class RelicDesk:
    """Asks for relics, gives them, and reads epochs from f+1 equal answers.

    Args:
        history: The agreed past.
        finality: What is not read yet.
        peers: The connected peers.
        reader: The store.
    """

    def __init__(
        self, history: History, finality: Finality, peers: PeerBook, reader: StoreReader
    ) -> None:
        self._history = history
        self._finality = finality
        self._peers = peers
        self._reader = reader
        self._answers: dict[NodeId, Relics] = {}
        self._asked: range | None = None

    def ask(self) -> list[Effect]:
        """Ask all validators for the epochs that their blocks may be gone of."""
        self._asked, self._answers = self._finality.stale(), {}
        if self._asked is None:
            return []
        request = GetRelics(self._asked.start, self._asked.stop - 1)
        return [Send(peer, request) for peer in self._peers.validators()]

    def receive_get(self, peer: Peer, message: GetRelics) -> list[Effect]:
        """Answer with what is kept of final epochs, whole epochs only."""
        last = min(message.last, message.first + EPOCHS_PER_ANSWER_MAX)
        last = min(last, self._history.next_epoch - 1)
        blocks: list[tuple[int, SignedBlock]] = []
        room = ANSWER_MAX_BYTES
        start, stop = message.first.to_bytes(8, "big"), (last + 1).to_bytes(8, "big")
        rows = self._reader.scan(Table.RELICS, start, stop, ROWS_MAX)
        for number, (key, value) in enumerate(rows):
            room -= len(value) + 16
            epoch = int.from_bytes(key[:8], "big")
            if room < 0 or number == ROWS_MAX - 1:
                last = epoch - 1
                break
            blocks.append((epoch, decode_block(value)))
        whole = tuple(item for item in blocks if item[0] <= last)
        return [Send(peer.node_id, Relics(message.first, last, whole))] if last >= 0 else []

    def receive(self, peer: Peer, message: Relics) -> list[Effect]:
        """Take an answer; read when f+1 validators gave the same one.

        Raises:
            VerificationError: Nobody asked for it, or what f+1 say does not verify.
        """
        asked = self._asked
        if asked is None or peer.place is None or message.first != asked.start:
            if self._history.roll.knows(peer.node_id):
                return []  # late
            raise VerificationError("relics that were not asked for")
        self._answers[peer.node_id] = message
        told = _upto(message, asked)
        equal = [item for item in self._answers.values() if _upto(item, asked) == told]
        if len(equal) <= self._history.court.validators.faults:
            return []
        self._asked, self._answers = None, {}
        return self._finality.read_relics(message.last, message.blocks)


def _upto(message: Relics, asked: range) -> tuple[int, Sequence[tuple[int, bytes]]]:
    last = min(message.last, asked.stop - 1)
    return last, [(epoch, signed.id) for epoch, signed in message.blocks if epoch <= last]

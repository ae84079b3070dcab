"""A validator's own chain: what it applies for, approves and removes, and whatever else it records.

The blocks go into the validator's own book like those of any node and spread from there. A node
that is not in the set yet pushes nothing: it tells the validators its heads and they pull.
"""

from collections.abc import Sequence

from hookprobe.dsm.chain import Event
from hookprobe.dsm.effects import BlockAppended, Effect, Send
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import BLOCKS_MAX, GetHeads
from hookprobe.dsm.peers import PeerBook
from hookprobe.dsm.scribe import Scribe
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class Clerk:
    """Writes a validator's chain into its own book.

    Args:
        node_id: Whose chain.
        scribe: Writes it.
        gossip: Spreads it.
        book: Where it belongs.
        peers: The connected peers.
    """

    def __init__(
        self, node_id: NodeId, scribe: Scribe, gossip: Gossip, book: LaneBook, peers: PeerBook
    ) -> None:
        self._node_id = node_id
        self._scribe = scribe
        self._gossip = gossip
        self._book = book
        self._peers = peers

    @property
    def has_chain(self) -> bool:
        """Whether this validator ever wrote a block."""
        return bool(self._scribe.chain.heads)

    def start(self, now: Instant, *, writes_at_once: bool) -> list[Effect]:
        """Bring the book up to the chain; begin to want the own head if there is need."""
        effects: list[Effect] = []
        chain = self._scribe.chain
        for inc, head in sorted(chain.heads.items()):
            lane = self._book.lanes.get(chain.lane(inc))
            held = lane.head_seq if lane is not None else 0
            while held < head.seq:
                entries = chain.entries(inc, held + 1, min(head.seq, held + BLOCKS_MAX))
                if not entries:
                    break
                effects += self._gossip.take_own([entry.signed for entry in entries], now)
                held = entries[-1].signed.seq
        if writes_at_once:
            self._scribe.start(now)
        return effects + self._asks()

    def append(self, events: Sequence[Event], now: Instant) -> list[Effect]:
        """Write events down; see `Scribe.append`."""
        waiting = self._scribe.waiting
        effects = self._entered(self._scribe.append(events, now), now)
        return effects if waiting else effects + self._asks()

    def greet(self, peer: NodeId) -> list[Effect]:
        """Ask a validator that has just connected, if the own head is wanted."""
        return [Send(peer, GetHeads())] if self._scribe.waiting else []

    def _asks(self) -> list[Effect]:
        asks = self._peers.validators() if self._scribe.waiting else []
        return [Send(peer, GetHeads()) for peer in asks]

    def receive_heads(
        self, peer: NodeId, heads: tuple[Head, ...], faults: int, now: Instant
    ) -> list[Effect]:
        """Take what a validator knows of our chain."""
        # Our own book may hold blocks of ours that came back from others.
        known = (*heads, *self._book.incarnations(self._node_id))
        return self._entered(self._scribe.receive_heads(peer, known, faults, now), now)

    def next_timeout(self) -> Instant | None:
        """Return when the wait for answers ends."""
        return self._scribe.begin_at

    def handle_timeout(self, faults: int, now: Instant) -> list[Effect]:
        """Begin without answers."""
        begin_at = self._scribe.begin_at
        if begin_at is None or begin_at > now:
            return []
        return self._entered(self._scribe.begin(faults, now), now)

    def _entered(self, effects: list[Effect], now: Instant) -> list[Effect]:
        written = [effect.signed for effect in effects if isinstance(effect, BlockAppended)]
        return effects + (self._gossip.take_own(written, now) if written else [])

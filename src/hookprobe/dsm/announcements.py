"""What peers say they hold and we do not: pulled one after the other, each peer within its share.

A peer may announce thousands of chains that it does not have, or never serve them. Its requests
must not take the place of others', so every validator has an equal share of the requests under way,
all edges together at most half of them, and what exceeds a share waits in the peer's own queue.
"""

from collections.abc import Sequence

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import HAVE_MAX, BlockEntry
from hookprobe.dsm.microblock import NO_PARENT, LaneKey
from hookprobe.dsm.peers import Peer, PeerBook
from hookprobe.dsm.pulls import Pull, Puller
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

VALIDATORS_MIN = 4


class Announcements:
    """The queues of one validator.

    Args:
        puller: Does the fetching.
        book: The blocks held.
        peers: The connected peers.
        config: Limits.
    """

    def __init__(
        self, puller: Puller[BlockEntry], book: LaneBook, peers: PeerBook, config: LedgerConfig
    ) -> None:
        self._puller = puller
        self._book = book
        self._peers = peers
        self._most = config.requests_max
        self._waiting: dict[NodeId, dict[LaneKey, int]] = {}

    def __len__(self) -> int:
        return max((len(queue) for queue in self._waiting.values()), default=0)

    def take(self, peer: Peer, heads: Sequence[tuple[LaneKey, int]], now: Instant) -> list[Effect]:
        """Take the heads that a peer announces, and ask for what it may be asked for now."""
        queue = self._waiting.setdefault(peer.node_id, {})
        for lane, seq in heads:
            if self._lacks(lane, seq) and (lane in queue or len(queue) < HAVE_MAX):
                queue[lane] = seq
        return self._ask(peer, now)

    def go_on(self, now: Instant) -> list[Effect]:
        """Ask for more where requests have ended, or their peers are gone."""
        effects: list[Effect] = []
        for node in list(self._waiting):
            peer = self._peers.peers.get(node)
            if peer is None:
                del self._waiting[node]
            else:
                effects += self._ask(peer, now)
        return effects

    def _lacks(self, lane: LaneKey, seq: int) -> bool:
        held = self._book.lanes.get(lane)
        return seq > (held.head_seq if held is not None else 0) and not self._revoked(lane)

    def _revoked(self, lane: LaneKey) -> bool:
        return lane[0] in self._book.revoked

    def _ask(self, peer: Peer, now: Instant) -> list[Effect]:
        queue = self._waiting[peer.node_id]
        effects: list[Effect] = []
        while queue and self._may_ask(peer):
            lane = next(iter(queue))
            seq = queue.pop(lane)
            if self._lacks(lane, seq):
                held = self._book.lanes.get(lane)
                first = held.head_seq + 1 if held is not None else 1
                pull = Pull(lane, first, seq, NO_PARENT, [peer.node_id])
                effects += self._puller.want(pull, now)
        if not queue:
            del self._waiting[peer.node_id]
        return effects

    def _may_ask(self, peer: Peer) -> bool:
        under_way = self._puller.asked_of(peer.node_id)
        if peer.place is None:
            return not under_way and len(self._puller) < self._most // 2
        share = self._most // max(len(self._peers.validators()), VALIDATORS_MIN)
        return under_way < max(share, 1) and len(self._puller) < self._most

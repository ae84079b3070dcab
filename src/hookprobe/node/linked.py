"""What all kinds of nodes have in common: links, which their host drives."""

from hookprobe.htp.effects import Address
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.path import Received
from hookprobe.htp.traffic import Chunks
from hookprobe.node.doubts import Doubt
from hookprobe.node.host import Effect
from hookprobe.node.links import MeshLinks
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class LinkedNode:
    """A node around its links; a kind that has to look at what they say overrides `_told`."""

    def __init__(self, links: MeshLinks) -> None:
        self._links = links

    def _told(self, effects: list[Effect]) -> list[Effect]:
        return effects

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._links.peers

    def start(self, now: Instant) -> list[Effect]:
        return self._links.start(now)

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        return self._told(self._links.receive_datagram(data, address, now))

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        return self._told(self._links.receive_batch(received, now))

    def send_file(self, peer: NodeId, data: bytes, now: Instant) -> list[Effect]:
        return self._told(self._links.send_file(peer, data, now))

    def sessions(self, now: Instant) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""
        return self._links.sessions(now)

    def doubt(self, peer: NodeId, now: Instant) -> Doubt | None:
        """Return what this node holds against a peer that dialled it; None if nothing."""
        del peer, now
        return None

    def chunk_room(self, peer: NodeId) -> int:
        return self._links.chunk_room(peer)

    def send_chunks(self, peer: NodeId, chunks: Chunks, now: Instant) -> list[Effect]:
        return self._told(self._links.send_chunks(peer, chunks, now))

    def next_timeout(self) -> Instant | None:
        return self._links.next_timeout()

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return self._told(self._links.handle_timeout(now))

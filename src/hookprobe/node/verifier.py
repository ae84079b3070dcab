"""A verifier: it replays the histories of the mesh's devices and tells validators whose hold.

Edges dial it; it dials the validators. It writes no chain and has no vote.
"""

from hookprobe.htp.effects import Address
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.path import Received
from hookprobe.htp.traffic import Chunks
from hookprobe.node.host import Effect
from hookprobe.node.links import MeshLinks
from hookprobe.node.rooms import RoomEffect
from hookprobe.node.verification import Verification
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class VerifierNode:
    """Composition of a `Verification` and its links; see `node.build.build_verifier`."""

    def __init__(self, verification: Verification, links: MeshLinks) -> None:
        self.verification = verification
        self._links = links

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._links.peers

    def start(self, now: Instant) -> list[Effect]:
        return self._links.start(now)

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        return self._links.receive_datagram(data, address, now)

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        return self._links.receive_batch(received, now)

    def send_file(self, peer: NodeId, data: bytes, now: Instant) -> list[Effect]:
        return self._links.send_file(peer, data, now)

    def sessions(self, now: Instant) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""
        return self._links.sessions(now)

    def chunk_room(self, peer: NodeId) -> int:
        return self._links.chunk_room(peer)

    def send_chunks(self, peer: NodeId, chunks: Chunks, now: Instant) -> list[Effect]:
        return self._links.send_chunks(peer, chunks, now)

    def carry(self, effects: list[RoomEffect], now: Instant) -> list[Effect]:
        """Carry out what an operator's order to `verification` returned."""
        return self._links.carry(effects, now)

    def next_timeout(self) -> Instant | None:
        return self._links.next_timeout()

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return self._links.handle_timeout(now)

"""A verifier: it replays the histories of the mesh's devices and tells validators whose hold.

Edges dial it; it dials the validators. It writes no chain and has no vote.
"""

from hookprobe.node.doubts import Doubt
from hookprobe.node.host import Effect
from hookprobe.node.linked import LinkedNode
from hookprobe.node.links import MeshLinks
from hookprobe.node.rooms import RoomEffect
from hookprobe.node.verification import Verification
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class VerifierNode(LinkedNode):
    """Composition of a `Verification` and its links; see `node.build.build_verifier`."""

    def __init__(self, verification: Verification, links: MeshLinks) -> None:
        super().__init__(links)
        self.verification = verification

    def doubt(self, peer: NodeId, now: Instant) -> Doubt | None:
        """Return what this verifier holds against a device; see `LinkedNode.doubt`."""
        return self.verification.doubt(peer, now)

    def carry(self, effects: list[RoomEffect], now: Instant) -> list[Effect]:
        """Carry out what an operator's order to `verification` returned."""
        return self._links.carry(effects, now)

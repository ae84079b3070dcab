"""A validator: the ledger of a validator over HTP sessions with every other one and with edges.

The validator whose name sorts first dials the other, so each pair has one session. Edges dial in.
"""

from hookprobe.dsm.governance import Governance
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.htp.effects import Address
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.path import Received
from hookprobe.htp.traffic import Chunks
from hookprobe.node.appraisals import Appraisals
from hookprobe.node.host import Effect
from hookprobe.node.links import MeshLinks
from hookprobe.node.rooms import carried
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class ValidatorNode:
    """Composition of a `ValidatorLedger` and its links; see `node.build.build_validator`.

    Args:
        ledger: The ledger.
        links: Its links.
        appraisals: What verifiers say of devices; None in a mesh without a verifier.
    """

    def __init__(
        self, ledger: ValidatorLedger, links: MeshLinks, appraisals: Appraisals | None = None
    ) -> None:
        self.ledger = ledger
        self.appraisals = appraisals
        self._links = links

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._links.peers

    def act(self, what: Governance, now: Instant) -> list[Effect]:
        """Write what an operator ordered into this validator's own chain.

        Raises:
            UnavailableError: Too many orders wait for the own head to be known.
        """
        return self._links.carry(carried(self.ledger.act(what, now)), now)

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

    def next_timeout(self) -> Instant | None:
        return self._links.next_timeout()

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return self._links.handle_timeout(now)

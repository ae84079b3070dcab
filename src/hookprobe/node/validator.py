"""A validator: the ledger of a validator over HTP sessions with every other one and with edges.

The validator whose name sorts first dials the other, so each pair has one session. Edges dial in.
"""

from hookprobe.dsm.governance import Governance
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.node.appraisals import Appraisals
from hookprobe.node.doubts import Doubt
from hookprobe.node.host import Effect
from hookprobe.node.linked import LinkedNode
from hookprobe.node.links import MeshLinks
from hookprobe.node.rooms import carried
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class ValidatorNode(LinkedNode):
    """Composition of a `ValidatorLedger` and its links; see `node.build.build_validator`.

    Args:
        ledger: The ledger.
        links: Its links.
        appraisals: What verifiers say of devices; None in a mesh without a verifier.
    """

    def __init__(
        self, ledger: ValidatorLedger, links: MeshLinks, appraisals: Appraisals | None = None
    ) -> None:
        super().__init__(links)
        self.ledger = ledger
        self.appraisals = appraisals

    def doubt(self, peer: NodeId, now: Instant) -> Doubt | None:
        """Return what verifiers hold against a device; see `LinkedNode.doubt`."""
        return None if self.appraisals is None else self.appraisals.doubt(peer, now)

    def act(self, what: Governance, now: Instant) -> list[Effect]:
        """Write what an operator ordered into this validator's own chain.

        Raises:
            UnavailableError: Too many orders wait for the own head to be known.
        """
        return self._links.carry(carried(self.ledger.act(what, now)), now)

"""Weight epochs: starting again from the same secret (HP-NEURO-1 3.2, "Resync").

    {"epoch": n, "issued": us, "node": id, "type": "E", "v": 1}

signed by the mesh authority. A device that lost its weights but kept its secret, or whose fork was
cleared up by an operator, continues in epoch n: seed(n), record index 0. Epochs only grow. A device
that lost its secret enrols again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.neuro import envelope
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id
from hookprobe.wire.instant import Instant

EPOCH_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order to continue in another epoch."""

    node: NodeId
    epoch: int
    issued: Instant

    def to_json(self) -> JsonObject:
        return {
            "epoch": self.epoch,
            "issued": self.issued,
            "node": self.node,
            "type": "E",
            "v": 1,
        }


def sign_order(order: EpochOrder, signer: Signer) -> bytes:
    """Return the signed order."""
    return envelope.seal(order.to_json(), Domain.NEURO_EPOCH, signer)


def open_order(data: bytes, keys: Sequence[bytes], scheme: SignatureScheme) -> EpochOrder:
    """Return an order that one of `keys` signed.

    Raises:
        MalformedError: Not an order.
        UnauthorizedError: Signed by somebody else.
        VerificationError: The signature does not hold.
    """
    fields = Fields(envelope.open_sealed(data, Domain.NEURO_EPOCH, keys, scheme), "epoch order")
    fields.literal("type", "E")
    fields.literal("v", 1)
    order = EpochOrder(
        node=parse_node_id(fields.take("node")),
        epoch=fields.integer("epoch", low=1, high=EPOCH_MAX),
        issued=Instant(fields.integer("issued")),
    )
    fields.finish()
    return order

"""Everything a node must keep to itself, as one document that the key store writes and reads.

Fields, hex of fixed length:

    signing     32  Ed25519 seed: blocks, cuts, handshakes
    voting      32  BLS seed: votes (validators)
    agreement   32  X25519 private key: what dialling peers pin
    reset       32  key of stateless resets; the same over restarts
    neuro       32  NEURO secret from the enrolment grant
    salt        32  salts the weight seed; random until hardware fingerprints are scored
    tenant      32  key of the pseudonyms that replace addresses; shared inside one tenant only

The document never leaves the device and never enters a log or an error message.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from hookprobe.errors import MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id
from hookprobe.wire.instant import Instant

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class NodeSecrets:
    """A node's secrets; `repr` shows the name only."""

    node: NodeId
    provisioned: Instant
    signing: bytes
    voting: bytes
    agreement: bytes
    reset: bytes
    neuro: bytes
    salt: bytes
    tenant: bytes

    def __repr__(self) -> str:
        return f"NodeSecrets(node={self.node!r})"

    def encode(self) -> bytes:
        """Return the canonical document."""
        secrets = {name: getattr(self, name).hex() for name in _SECRETS}
        return canonical.encode(
            {"node": self.node, "provisioned": self.provisioned, "type": "K", "v": 1, **secrets}
        )


_SECRETS = tuple(
    field.name for field in fields(NodeSecrets) if field.name not in {"node", "provisioned"}
)


def generate(
    node: NodeId, tenant_key: bytes, now: Instant, random_bytes: Callable[[int], bytes]
) -> NodeSecrets:
    """Draw a new node's secrets.

    Args:
        node: Its name.
        tenant_key: The 32-byte key its tenant's nodes share.
        now: The provisioning time.
        random_bytes: A cryptographic source.
    """
    drawn = {name: random_bytes(SECRET_BYTES) for name in _SECRETS if name != "tenant"}
    return NodeSecrets(node=node, provisioned=now, tenant=tenant_key, **drawn)


def decode(data: bytes) -> NodeSecrets:
    """Read a secrets document.

    Raises:
        MalformedError: Not one; the message never quotes its content.
    """
    try:
        document = Fields(canonical.decode_object(data, limit=4096), "key file")
        document.literal("type", "K")
        document.literal("v", 1)
        secrets = NodeSecrets(
            node=parse_node_id(document.take("node")),
            provisioned=Instant(document.integer("provisioned")),
            **{name: document.hex(name, SECRET_BYTES) for name in _SECRETS},
        )
        document.finish()
    except MalformedError:
        # The cause may quote bytes of the file, so it is not chained.
        raise MalformedError(
            "key file: not a HookProbe key file", hint="restore it from a backup or enrol again"
        ) from None
    return secrets

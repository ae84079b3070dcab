"""What a verifier must know to replay a device: the secret half of its enrolment grant.

    {"devices": [{node, neuro, provisioned, salt, signing_key, tenant}, ...], "type": "G", "v": 1}

The mesh authority writes it, the verifier keeps it (0600), nobody else ever sees it: whoever has
`neuro` and `salt` can compute the device's weights from its records.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.errors import MalformedError
from hookprobe.identity.secrets import SECRET_BYTES
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id
from hookprobe.wire.instant import Instant

DEVICES_MAX = 16_384
GRANTS_MAX_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """One device; `repr` shows the name only.

    Attributes:
        node: Its name.
        tenant: Its tenant's pseudonym.
        signing_key: Its Ed25519 operating key, 32 bytes.
        neuro: Its NEURO secret, 32 bytes.
        salt: Salts the seed, 32 bytes.
        provisioned: When it was enrolled.
    """

    node: NodeId
    tenant: str
    signing_key: bytes
    neuro: bytes
    salt: bytes
    provisioned: Instant

    def __repr__(self) -> str:
        return f"DeviceGrant(node={self.node!r})"

    def to_json(self) -> Json:
        return {
            "neuro": self.neuro.hex(),
            "node": self.node,
            "provisioned": self.provisioned,
            "salt": self.salt.hex(),
            "signing_key": self.signing_key.hex(),
            "tenant": self.tenant,
        }


def encode_grants(grants: Sequence[DeviceGrant]) -> bytes:
    """Return the secret document, devices sorted by name."""
    devices: list[Json] = [
        grant.to_json() for grant in sorted(grants, key=lambda grant: grant.node)
    ]
    return canonical.encode({"devices": devices, "type": "G", "v": 1})


def decode_grants(data: bytes) -> tuple[DeviceGrant, ...]:
    """Read what `encode_grants` returned.

    Raises:
        MalformedError: Not a grants document; the message never quotes its content.
    """
    try:
        fields = Fields(canonical.decode_object(data, limit=GRANTS_MAX_BYTES), "grants")
        fields.literal("type", "G")
        fields.literal("v", 1)
        grants = tuple(_grant(item) for item in fields.array("devices", limit=DEVICES_MAX))
        fields.finish()
    except MalformedError:
        # The cause may quote bytes of the file, so it is not chained.
        raise MalformedError(
            "grants: not a grants file", hint="copy the mesh authority's grants.json again"
        ) from None
    names = [grant.node for grant in grants]
    if names != sorted(dict.fromkeys(names)):
        raise MalformedError("grants: devices must be sorted by node id and named once")
    return grants


def _grant(item: Json) -> DeviceGrant:
    fields = Fields({"device": item}, "grants")
    device = Fields(fields.object("device"), "grant")
    grant = DeviceGrant(
        node=parse_node_id(device.take("node")),
        tenant=device.text("tenant", limit=64),
        signing_key=device.hex("signing_key", 32),
        neuro=device.hex("neuro", SECRET_BYTES),
        salt=device.hex("salt", SECRET_BYTES),
        provisioned=Instant(device.integer("provisioned")),
    )
    device.finish()
    return grant

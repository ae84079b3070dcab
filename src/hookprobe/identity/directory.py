"""The signed directory: who may talk to the mesh, who answers where, who is suspended.

A snapshot, not a service: a node checks the signature, a version that never goes back and an
expiry, and from then on needs nobody to decide who is who. Canonical JSON:

    {"document": {chain, devices: [...], expires, issued, type: "D", v: 1, version},
     "key": CA key, "signature": Ed25519 over H(directory, document)}

Tenants appear as opaque pseudonyms. Devices are sorted by node id and named once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.identity.device import DeviceStatus
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import ChainId, NodeId, parse_chain_id, parse_node_id
from hookprobe.wire.instant import Instant

DIRECTORY_MAX_BYTES = 1 << 23
DEVICES_MAX = 16_384
ADDRESSES_MAX = 4
_ROLES = ("edge", "validator", "verifier")
_STATUSES = {status.value: status for status in DeviceStatus}


@dataclass(frozen=True, slots=True)
class Device:
    """One registered node.

    Attributes:
        node: Its name.
        role: `edge`, `validator` or `verifier`.
        tenant: Opaque pseudonym of the tenant it belongs to.
        status: Only ACTIVE nodes hold sessions.
        signing_key: Ed25519, 32 bytes.
        agreement_key: X25519, 32 bytes; what a dialling node pins. Empty where nobody dials it.
        addresses: `host:port` texts where it answers, best first.
        w_fingerprint: The 64-byte weight fingerprint it was enrolled with.
    """

    node: NodeId
    role: str
    tenant: str
    status: DeviceStatus
    signing_key: bytes
    agreement_key: bytes
    addresses: tuple[str, ...]
    w_fingerprint: bytes

    def to_json(self) -> JsonObject:
        addresses: list[Json] = list(self.addresses)
        return {
            "addresses": addresses,
            "agreement_key": self.agreement_key.hex(),
            "node": self.node,
            "role": self.role,
            "signing_key": self.signing_key.hex(),
            "status": self.status.value,
            "tenant": self.tenant,
            "w_fingerprint": self.w_fingerprint.hex(),
        }


@dataclass(frozen=True, slots=True)
class Directory:
    """One version of the directory; times in microseconds since 1970."""

    chain: ChainId
    version: int
    issued: Instant
    expires: Instant
    devices: tuple[Device, ...]

    def find(self, node: NodeId) -> Device | None:
        return next((device for device in self.devices if device.node == node), None)

    def validators(self) -> tuple[Device, ...]:
        """Return the active validators, sorted by name."""
        return self._active("validator")

    def verifiers(self) -> tuple[Device, ...]:
        """Return the active NEURO verifiers, sorted by name."""
        return self._active("verifier")

    def _active(self, role: str) -> tuple[Device, ...]:
        return tuple(
            device
            for device in self.devices
            if device.role == role and device.status is DeviceStatus.ACTIVE
        )

    def to_json(self) -> JsonObject:
        devices: list[Json] = [device.to_json() for device in self.devices]
        return {
            "chain": self.chain,
            "devices": devices,
            "expires": self.expires,
            "issued": self.issued,
            "type": "D",
            "v": 1,
            "version": self.version,
        }


def sign(directory: Directory, authority: Signer) -> bytes:
    """Return the signed document."""
    document = directory.to_json()
    signature = authority.sign(digest(Domain.DIRECTORY, canonical.encode(document)))
    return canonical.encode(
        {
            "document": document,
            "key": authority.public_key.hex(),
            "signature": signature.hex(),
        }
    )


def accept(
    data: bytes,
    ca_keys: Sequence[bytes],
    scheme: SignatureScheme,
    now: Instant,
    current: Directory | None = None,
) -> Directory:
    """Check a received directory and return it.

    Args:
        data: The signed document.
        ca_keys: The CAs of the genesis document.
        scheme: Checks the signature.
        now: Decides about the expiry.
        current: The directory held so far, if any.

    Raises:
        MalformedError: Not a directory.
        VerificationError: Not signed by a CA, another chain, expired, or older than `current`.
    """
    outer = Fields(canonical.decode_object(data, limit=DIRECTORY_MAX_BYTES), "directory")
    document = outer.object("document")
    key, signature = outer.hex("key", 32), outer.hex("signature", 64)
    outer.finish()
    if key not in ca_keys:
        raise VerificationError("directory: signed by a key that is no CA of this mesh")
    if not scheme.verify(key, digest(Domain.DIRECTORY, canonical.encode(document)), signature):
        raise VerificationError("directory: the CA signature does not hold")
    directory = _parse(document)
    if now >= directory.expires:
        raise VerificationError(
            f"directory: version {directory.version} has expired",
            hint="fetch the current directory from the mesh authority",
        )
    if current is not None:
        _check_successor(directory, current)
    return directory


def _check_successor(directory: Directory, current: Directory) -> None:
    if directory.chain != current.chain:
        raise VerificationError("directory: of another chain than the one held")
    if directory.version < current.version or (
        directory.version == current.version and directory != current
    ):
        raise VerificationError(
            f"directory: version {directory.version} after version {current.version}"
        )


def _parse(document: JsonObject) -> Directory:
    fields = Fields(document, "directory")
    fields.literal("type", "D")
    fields.literal("v", 1)
    directory = Directory(
        chain=parse_chain_id(fields.take("chain")),
        version=fields.integer("version", low=1),
        issued=Instant(fields.integer("issued")),
        expires=Instant(fields.integer("expires")),
        devices=tuple(_device(item) for item in fields.array("devices", limit=DEVICES_MAX)),
    )
    fields.finish()
    names = [device.node for device in directory.devices]
    if names != sorted(dict.fromkeys(names)):
        raise MalformedError("directory: devices must be sorted by node id and named once")
    return directory


def _device(item: Json) -> Device:
    if not isinstance(item, dict):
        raise MalformedError("directory: a device must be an object")
    fields = Fields(item, "directory device")
    role = fields.text("role")
    status = _STATUSES.get(fields.text("status"))
    if role not in _ROLES or status is None:
        raise MalformedError("directory device: unknown role or status")
    device = Device(
        node=parse_node_id(fields.take("node")),
        role=role,
        tenant=fields.text("tenant", limit=64),
        status=status,
        signing_key=fields.hex("signing_key", 32),
        agreement_key=_optional_key(fields),
        addresses=tuple(_address(a) for a in fields.array("addresses", limit=ADDRESSES_MAX)),
        w_fingerprint=fields.hex("w_fingerprint", 64),
    )
    fields.finish()
    return device


def _optional_key(fields: Fields) -> bytes:
    text = fields.text("agreement_key", limit=64)
    if text == "":
        return b""
    return Fields({"agreement_key": text}, "directory device").hex("agreement_key", 32)


def _address(item: Json) -> str:
    if not isinstance(item, str):
        raise MalformedError("directory device: an address must be text")
    parse_address(item)
    return item


def parse_address(text: str, *, port_min: int = 1) -> tuple[str, int]:
    """Split `host:port` or `[host]:port`; `port_min` 0 allows "any free port" for listening.

    Raises:
        MalformedError: Not of that form, or no port from `port_min` to 65535.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise MalformedError(f"address: {text[:80]!r} is not host:port")
    if not port_min <= int(port) <= 65535:
        raise MalformedError(f"address: {text[:80]!r} has no port from {port_min} to 65535")
    return host, int(port)

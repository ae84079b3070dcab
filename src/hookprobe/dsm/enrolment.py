"""The first block of a chain: whose key signs it, and who vouches for that (DSM spec 2.2).

Node certificate, canonical JSON, signed by a CA key of the genesis document over
H(node certificate, document):

    {chain, key, node_id, not_after, not_before, role, tenant, type: "N", v: 1}

Times are in milliseconds. Bodies of a first block:

    {"ca_key", "ca_signature", "certificate": {...}, "kind": "enrol"}
    the same with "kind": "recover", "last_inc", "last_seq", "last_head": after a lost store

A block chain therefore proves its own key; no registry outside the chain is needed. The
certificate must be valid at the time stamp of the block that carries it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id

ROLES = ("edge", "validator", "verifier")


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """What a CA says about a node; `tenant` is an opaque pseudonym."""

    chain: bytes
    node_id: NodeId
    role: str
    tenant: str
    key: bytes
    not_before_ms: int
    not_after_ms: int

    def to_json(self) -> JsonObject:
        return {
            "chain": self.chain.hex(),
            "key": self.key.hex(),
            "node_id": self.node_id,
            "not_after": self.not_after_ms,
            "not_before": self.not_before_ms,
            "role": self.role,
            "tenant": self.tenant,
            "type": "N",
            "v": 1,
        }

    def digest(self) -> bytes:
        """Return what the CA signs."""
        return digest(Domain.NODE_CERTIFICATE, canonical.encode(self.to_json()))


@dataclass(frozen=True, slots=True)
class Head:
    """The last block of one incarnation of a node's chain; seq 0 and a zero id: none."""

    inc: int
    seq: int
    block_id: bytes


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A certificate, the CA's signature, and after a lost store the last head that was known."""

    certificate: NodeCertificate
    ca_key: bytes
    ca_signature: bytes
    lost: Head | None = None

    def to_body(self) -> JsonObject:
        body: JsonObject = {
            "ca_key": self.ca_key.hex(),
            "ca_signature": self.ca_signature.hex(),
            "certificate": self.certificate.to_json(),
            "kind": "enrol",
        }
        if self.lost is not None:
            body |= {
                "kind": "recover",
                "last_head": self.lost.block_id.hex(),
                "last_inc": self.lost.inc,
                "last_seq": self.lost.seq,
            }
        return body


def check_enrolment(
    enrolment: Enrolment,
    chain: bytes,
    at_ms: int,
    ca_keys: Sequence[bytes],
    scheme: SignatureScheme,
) -> bytes:
    """Check a node's enrolment and return its Ed25519 key.

    Args:
        enrolment: What the first block of the chain carries.
        chain: The chain id.
        at_ms: The time stamp of that block.
        ca_keys: The CAs of the genesis document.
        scheme: Checks the CA's signature.

    Raises:
        VerificationError: Another chain, an unknown CA, not valid at that time, or not signed.
    """
    certificate = enrolment.certificate
    what = f"enrolment of {certificate.node_id}"
    if certificate.chain != chain:
        raise VerificationError(f"{what}: certificate of another chain")
    if enrolment.ca_key not in ca_keys:
        raise VerificationError(f"{what}: the CA is not in the genesis document")
    if not certificate.not_before_ms <= at_ms <= certificate.not_after_ms:
        raise VerificationError(f"{what}: certificate is not valid at {at_ms} ms")
    if not scheme.verify(enrolment.ca_key, certificate.digest(), enrolment.ca_signature):
        raise VerificationError(f"{what}: CA signature does not hold")
    return certificate.key


def issue(certificate: NodeCertificate, authority: Signer) -> Enrolment:
    """Sign a certificate as a CA."""
    return Enrolment(certificate, authority.public_key, authority.sign(certificate.digest()))


def parse_enrolment(body: JsonObject) -> Enrolment:
    """Read the body of a first block.

    Raises:
        MalformedError: Not an enrolment or recovery body.
    """
    fields = Fields(body, "enrolment body")
    kind = fields.text("kind")
    if kind not in ("enrol", "recover"):
        raise MalformedError(f"enrolment body: unknown kind {kind[:20]!r}")
    lost = None
    if kind == "recover":
        lost = Head(
            fields.integer("last_inc", high=2**32 - 1),
            fields.integer("last_seq"),
            fields.hex("last_head", 32),
        )
    enrolment = Enrolment(
        _parse_certificate(fields.object("certificate")),
        fields.hex("ca_key", 32),
        fields.hex("ca_signature", 64),
        lost,
    )
    fields.finish()
    return enrolment


def _parse_certificate(document: JsonObject) -> NodeCertificate:
    fields = Fields(document, "node certificate")
    fields.literal("type", "N")
    fields.literal("v", 1)
    role = fields.text("role")
    if role not in ROLES:
        raise MalformedError(f"node certificate: unknown role {role[:20]!r}")
    certificate = NodeCertificate(
        fields.hex("chain", 32),
        parse_node_id(fields.text("node_id")),
        role,
        fields.text("tenant", limit=64),
        fields.hex("key", 32),
        fields.integer("not_before"),
        fields.integer("not_after"),
    )
    fields.finish()
    return certificate

"""What validators and authorities write into their chains to change who may do what.

Bodies of blocks behind the first one (DSM spec 2.2, 2.7):

| kind | on whose chain | fields |
|---|---|---|
| apply | the applicant's, enrolled as validator | vote_key, possession, attestation? (hex) |
| approve | a current validator's | application: id of the APPLY block |
| remove | a current validator's | validator: a name; one's own name is a resignation |
| revoke | anybody's | node, ca_key, ca_signature over H(identity/revocation, statement) |

The statement of a revocation is {chain, node_id, type: "R", v: 1}: only an authority of the genesis
document can make one, and it does not matter who carries it. The applicant's certificate and
Ed25519 key are those of the chain that the block stands in. The ledger keeps an attestation and
does not judge it; validators do for their operators. Bodies of other kinds and malformed ones mean
nothing.
"""

from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.enrolment import Enrolment
from hookprobe.dsm.microblock import SignedBlock
from hookprobe.errors import MalformedError, RemoteError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id

EVENT_TYPE = "governance"
KINDS = ("apply", "approve", "remove", "revoke")
ATTESTATION_MAX_BYTES = 3 << 10


@dataclass(frozen=True, slots=True)
class Apply:
    """A node asks to become a validator, or a validator to use other keys."""

    vote_key: bytes
    possession_proof: bytes
    attestation: bytes = b""

    def to_body(self) -> JsonObject:
        body: JsonObject = {
            "kind": "apply",
            "possession": self.possession_proof.hex(),
            "vote_key": self.vote_key.hex(),
        }
        if self.attestation:
            body["attestation"] = self.attestation.hex()
        return body


@dataclass(frozen=True, slots=True)
class Approve:
    """A validator votes for an application."""

    application: bytes

    def to_body(self) -> JsonObject:
        return {"application": self.application.hex(), "kind": "approve"}


@dataclass(frozen=True, slots=True)
class Remove:
    """A validator votes to remove one, or leaves itself."""

    validator_id: NodeId

    def to_body(self) -> JsonObject:
        return {"kind": "remove", "validator": self.validator_id}


@dataclass(frozen=True, slots=True)
class Revoke:
    """An authority revokes a node: from the next checkpoint on none of its blocks counts."""

    node_id: NodeId
    ca_key: bytes
    ca_signature: bytes

    def to_body(self) -> JsonObject:
        return {
            "ca_key": self.ca_key.hex(),
            "ca_signature": self.ca_signature.hex(),
            "kind": "revoke",
            "node": self.node_id,
        }


Governance: TypeAlias = Apply | Approve | Remove | Revoke


@dataclass(frozen=True, slots=True)
class Act:
    """Something of this in a final block, with the enrolment of its chain."""

    author: Enrolment
    block_id: bytes
    what: Governance

    @property
    def node_id(self) -> NodeId:
        return self.author.certificate.node_id


def revocation_statement(chain: bytes, node_id: NodeId) -> bytes:
    """Return what an authority signs to revoke a node."""
    document: JsonObject = {"chain": chain.hex(), "node_id": node_id, "type": "R", "v": 1}
    return digest(Domain.REVOCATION, canonical.encode(document))


def revoke(chain: bytes, node_id: NodeId, authority: Signer) -> Revoke:
    """Sign a revocation as an authority."""
    signature = authority.sign(revocation_statement(chain, node_id))
    return Revoke(node_id, authority.public_key, signature)


def is_governance(signed: SignedBlock) -> bool:
    """Tell whether a block may hold something of this."""
    body = signed.block.body
    return body is not None and body.get("kind") in KINDS


def act_of(signed: SignedBlock, author: Enrolment) -> Act | None:
    """Return what a final block does, None for nearly all of them."""
    body = signed.block.body
    if body is None or signed.seq == 1:
        return None
    try:
        found = parse_governance(body)
    except RemoteError:
        return None
    return Act(author, signed.id, found)


def parse_governance(body: JsonObject) -> Governance:
    """Read a body.

    Raises:
        MalformedError: Not one of these kinds, or not its fields.
    """
    fields = Fields(body, "governance body")
    found = _parse(fields, fields.text("kind"))
    fields.finish()
    return found


def _parse(fields: Fields, kind: str) -> Governance:
    match kind:
        case "apply":
            key, proof = fields.hex("vote_key", 48), fields.hex("possession", 96)
            return Apply(key, proof, _attestation(fields) if fields.has("attestation") else b"")
        case "approve":
            return Approve(fields.hex("application", 32))
        case "remove":
            return Remove(parse_node_id(fields.text("validator")))
        case "revoke":
            return Revoke(
                parse_node_id(fields.text("node")),
                fields.hex("ca_key", 32),
                fields.hex("ca_signature", 64),
            )
        case _:
            raise MalformedError(f"governance body: unknown kind {kind[:20]!r}")


def _attestation(fields: Fields) -> bytes:
    text = fields.text("attestation", limit=2 * ATTESTATION_MAX_BYTES)
    if not text or len(text) % 2 or text.strip("0123456789abcdef"):
        raise MalformedError("governance body: attestation must be lower-case hex digits")
    return bytes.fromhex(text)

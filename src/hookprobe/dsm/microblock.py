"""Microblocks: the signed, hash-linked events of one node (DSM spec 2.2).

    id        = H(microblock, canonical JSON of the fields)
    signature = Ed25519(node key, H(microblock-sig, id))
    payload_hash = H(payload, salt[16] || payload)

Fields: type "M", v 1, chain, node_id, inc, seq, prev, timestamp (ms), event_type, payload_hash and
optionally neuro {ter_hash, w_fingerprint, posf_signature} and body. Neither the id nor the
signature is among them, so the id can be recomputed from what is stored. The received bytes are
kept, hashed and forwarded. The salt keeps a payload that can be guessed from being confirmed by
its hash; payloads travel beside the block and only to those who may read them.

Time stamps are advisory: a clock that is set back must not stall a chain.
"""

from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import LimitExceededError, MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, pack_node_id, parse_node_id
from hookprobe.wire.reader import Reader, Writer

NO_PARENT = bytes(32)
SIGNATURE_BYTES = 64
SALT_BYTES = 16
BODY_MAX_BYTES = 8 << 10
BLOCK_MAX_BYTES = 12 << 10
PAYLOAD_MAX_BYTES = 60 << 10
NEURO_MAX_CHARS = 256
INC_MAX = 2**32 - 1

LaneKey = tuple[NodeId, int]
"""One incarnation of one node's chain."""


@dataclass(frozen=True, slots=True)
class NeuroBinding:
    """What the neuro layer says about the node at this event: opaque lower-case hex here."""

    ter_hash: str
    w_fingerprint: str
    posf_signature: str

    def to_json(self) -> JsonObject:
        return {
            "posf_signature": self.posf_signature,
            "ter_hash": self.ter_hash,
            "w_fingerprint": self.w_fingerprint,
        }


@dataclass(frozen=True, slots=True)
class Payload:
    """What happened, in bytes that only the application reads, and the salt of its hash."""

    salt: bytes
    data: bytes

    def hash(self) -> bytes:
        return digest(Domain.PAYLOAD, self.salt + self.data)


@dataclass(frozen=True, slots=True)
class Microblock:
    """The fields of a block."""

    chain: bytes
    node_id: NodeId
    inc: int
    seq: int
    prev: bytes
    timestamp_ms: int
    event_type: str
    payload_hash: bytes
    neuro: NeuroBinding | None = None
    body: JsonObject | None = None

    def encode(self) -> bytes:
        """Return the canonical JSON that is hashed to the id."""
        document: JsonObject = {
            "chain": self.chain.hex(),
            "event_type": self.event_type,
            "inc": self.inc,
            "node_id": self.node_id,
            "payload_hash": self.payload_hash.hex(),
            "prev": self.prev.hex(),
            "seq": self.seq,
            "timestamp": self.timestamp_ms,
            "type": "M",
            "v": 1,
        }
        if self.neuro is not None:
            document["neuro"] = self.neuro.to_json()
        if self.body is not None:
            document["body"] = self.body
        return canonical.encode(document)


@dataclass(frozen=True, slots=True)
class SignedBlock:
    """A block as it travels; parsed, but its signature counts only after `verify_block`."""

    block: Microblock
    raw: bytes
    signature: bytes
    id: bytes

    @property
    def lane(self) -> LaneKey:
        return (self.block.node_id, self.block.inc)

    @property
    def seq(self) -> int:
        return self.block.seq

    @property
    def prev(self) -> bytes:
        return self.block.prev

    def row_key(self) -> bytes:
        """Return the key of the block in the store."""
        return lane_row(self.lane) + self.block.seq.to_bytes(8, "big") + self.id

    def write(self, writer: Writer) -> None:
        writer.block16(self.raw).put(self.signature)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()


def lane_row(lane: LaneKey) -> bytes:
    """Return the store key of a lane: node[32] inc[4]."""
    return pack_node_id(lane[0]) + lane[1].to_bytes(4, "big")


def sign_block(block: Microblock, signer: Signer) -> SignedBlock:
    """Hash and sign a block.

    Raises:
        LimitExceededError: The block or its body is too large.
    """
    raw = block.encode()
    _check_body(block.body)
    if len(raw) > BLOCK_MAX_BYTES:
        raise LimitExceededError(f"microblock of {len(raw)} bytes, limit {BLOCK_MAX_BYTES}")
    block_id = digest(Domain.MICROBLOCK, raw)
    signature = signer.sign(digest(Domain.MICROBLOCK_SIGNATURE, block_id))
    return SignedBlock(block, raw, signature, block_id)


def verify_block(signed: SignedBlock, key: bytes, scheme: SignatureScheme) -> None:
    """Check the signature.

    Raises:
        VerificationError: It was not made by `key` over this block.
    """
    if not scheme.verify(key, digest(Domain.MICROBLOCK_SIGNATURE, signed.id), signed.signature):
        raise VerificationError(
            f"microblock {signed.block.node_id}/{signed.block.inc}/{signed.seq}: "
            "signature does not hold"
        )


def parse_block(raw: bytes, signature: bytes) -> SignedBlock:
    """Read a block from its canonical bytes and detached signature.

    Raises:
        MalformedError: Not the canonical form of a microblock.
        LimitExceededError: Too large.
    """
    fields = Fields(canonical.decode_object(raw, limit=BLOCK_MAX_BYTES), "microblock")
    fields.literal("type", "M")
    fields.literal("v", 1)
    neuro = _parse_neuro(fields.object("neuro")) if fields.has("neuro") else None
    body = fields.object("body") if fields.has("body") else None
    _check_body(body)
    block = Microblock(
        fields.hex("chain", 32),
        parse_node_id(fields.text("node_id")),
        fields.integer("inc", low=1, high=INC_MAX),
        fields.integer("seq", low=1),
        fields.hex("prev", 32),
        fields.integer("timestamp"),
        fields.text("event_type", limit=64),
        fields.hex("payload_hash", 32),
        neuro,
        body,
    )
    fields.finish()
    if (block.seq == 1) != (block.prev == NO_PARENT):
        raise MalformedError("microblock: exactly the first block of a chain has no parent")
    if len(signature) != SIGNATURE_BYTES:
        raise MalformedError(f"microblock: signature of {len(signature)} bytes")
    return SignedBlock(block, raw, signature, digest(Domain.MICROBLOCK, raw))


def _check_body(body: JsonObject | None) -> None:
    """Refuse a body that is too large, or too deep for the evidence line that wraps its block.

    Raises:
        LimitExceededError: More than `BODY_MAX_BYTES`, or more than 6 levels.
    """
    # Block and evidence line are two levels around the body; two lists stand for them here.
    if body is not None and len(canonical.encode([[body]])) - 4 > BODY_MAX_BYTES:
        raise LimitExceededError(f"microblock body of more than {BODY_MAX_BYTES} bytes")


def read_block(reader: Reader) -> SignedBlock:
    """Read what `SignedBlock.write` wrote."""
    return parse_block(reader.block16(BLOCK_MAX_BYTES), reader.take(SIGNATURE_BYTES))


def decode_block(data: bytes) -> SignedBlock:
    """Read what `SignedBlock.encode` returned."""
    reader = Reader(data, "microblock")
    signed = read_block(reader)
    reader.finish()
    return signed


def encode_payload(payload: Payload) -> bytes:
    """Return salt and data in one."""
    return payload.salt + payload.data


def decode_payload(data: bytes) -> Payload:
    """Read what `encode_payload` returned.

    Raises:
        MalformedError: No room for the salt.
        LimitExceededError: Too large.
    """
    if len(data) < SALT_BYTES:
        raise MalformedError("payload: shorter than its salt")
    if len(data) > SALT_BYTES + PAYLOAD_MAX_BYTES:
        raise LimitExceededError(f"payload of {len(data)} bytes, limit {PAYLOAD_MAX_BYTES}")
    return Payload(data[:SALT_BYTES], data[SALT_BYTES:])


def _parse_neuro(document: JsonObject) -> NeuroBinding:
    fields = Fields(document, "neuro binding")
    binding = NeuroBinding(
        _hex_text(fields, "ter_hash"),
        _hex_text(fields, "w_fingerprint"),
        _hex_text(fields, "posf_signature"),
    )
    fields.finish()
    return binding


def _hex_text(fields: Fields, name: str) -> str:
    text = fields.text(name, limit=NEURO_MAX_CHARS)
    if len(text) % 2 or text.strip("0123456789abcdef"):
        raise MalformedError(f"neuro binding: field {name!r} must be lower-case hex digits")
    return text

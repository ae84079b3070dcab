"""Checkpoints: the header that is agreed, and the content that it commits to (DSM spec 2.4).

    header_hash  = H(checkpoint, canonical JSON of the header)
    merkle_root  = RFC 6962 root over the block ids of the epoch in order (node_id, inc, seq)
    history_root = RFC 6962 root over the header hashes of epochs 0..e-1
    ranges_root  = H(ranges, each range: node[32] inc u32 first u64 last u64 head[32])
    cuts_root    = H(cuts, ids of the CUTs in order of validator id)
    evidence_root = H(evidence, evidence ids in ascending order)

The header is a function of the previous state, the CUTs (Q) and the ranges, so every voter builds
it anew and compares bytes. The author's signature (Ed25519 over the header hash), the
content and the certificate are detached from the hash. Empty epochs have count 0 and the empty
root: they prove freshness and absence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.certificate import QuorumCertificate, VoteKind, read_certificate
from hookprobe.dsm.cut import SignedCut, read_cut
from hookprobe.dsm.microblock import SIGNATURE_BYTES, LaneKey
from hookprobe.dsm.validators import VALIDATORS_MAX
from hookprobe.errors import LimitExceededError, MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, pack_node_id, parse_node_id, unpack_node_id
from hookprobe.wire.reader import Reader, Writer

HEADER_MAX_BYTES = 4 << 10
RANGES_MAX = 8192
EVIDENCE_MAX = 64
EVIDENCE_MAX_BYTES = 40 << 10
MEMBERS_MAX_BYTES = 96 << 10
NO_CHECKPOINT = bytes(32)


def evidence_id(evidence: bytes) -> bytes:
    """Return the digest under which evidence is sorted, counted once and committed to."""
    return digest(Domain.EVIDENCE, evidence)


@dataclass(frozen=True, slots=True)
class Range:
    """The blocks first..last of one chain; `head` is the id of the last one."""

    node_id: NodeId
    inc: int
    first: int
    last: int
    head: bytes

    @property
    def lane(self) -> LaneKey:
        return (self.node_id, self.inc)

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def write(self, writer: Writer) -> None:
        writer.put(pack_node_id(self.node_id)).u32(self.inc)
        writer.u64(self.first).u64(self.last).put(self.head)


def read_range(reader: Reader) -> Range:
    """Read what `Range.write` wrote."""
    node_id = unpack_node_id(reader.take(32))
    found = Range(node_id, reader.u32(), reader.u64(), reader.u64(), reader.take(32))
    if not 1 <= found.first <= found.last < 2**53 or found.inc < 1:
        raise MalformedError("range: numbers out of order")
    return found


@dataclass(frozen=True, slots=True)
class Content:
    """What a header commits to besides the blocks themselves."""

    ranges: tuple[Range, ...]
    cuts: tuple[SignedCut, ...]
    evidence: tuple[bytes, ...]

    def ranges_root(self) -> bytes:
        writer = Writer()
        for item in self.ranges:
            item.write(writer)
        return digest(Domain.RANGES, writer.finish())

    def cuts_root(self) -> bytes:
        return digest(Domain.CUTS, b"".join(signed.id for signed in self.cuts))

    def evidence_root(self) -> bytes:
        return digest(Domain.EVIDENCE, b"".join(evidence_id(item) for item in self.evidence))


@dataclass(frozen=True, slots=True)
class Header:
    """What validators agree on for one epoch."""

    chain: bytes
    epoch: int
    prev: bytes
    timestamp_ms: int
    merkle_root: bytes
    count: int
    ranges_root: bytes
    cuts_root: bytes
    evidence_root: bytes
    history_root: bytes
    history_size: int
    validators_hash: bytes
    next_validators_hash: bytes
    validator_id: NodeId

    def encode(self) -> bytes:
        """Return the canonical JSON that is hashed."""
        return canonical.encode(
            {
                "chain": self.chain.hex(),
                "count": self.count,
                "cuts_root": self.cuts_root.hex(),
                "epoch": self.epoch,
                "evidence_root": self.evidence_root.hex(),
                "history_root": self.history_root.hex(),
                "history_size": self.history_size,
                "merkle_root": self.merkle_root.hex(),
                "next_validators_hash": self.next_validators_hash.hex(),
                "prev": self.prev.hex(),
                "ranges_root": self.ranges_root.hex(),
                "timestamp": self.timestamp_ms,
                "type": "C",
                "v": 1,
                "validator_id": self.validator_id,
                "validators_hash": self.validators_hash.hex(),
            }
        )

    def write(self, writer: Writer) -> None:
        """Append the fields, half as long as their JSON, which follows from them."""
        writer.u64(self.epoch).u64(self.count).u64(self.timestamp_ms).u64(self.history_size)
        writer.put(pack_node_id(self.validator_id)).put(self.chain).put(self.prev)
        writer.put(self.merkle_root).put(self.ranges_root).put(self.cuts_root)
        writer.put(self.evidence_root).put(self.history_root)
        writer.put(self.validators_hash).put(self.next_validators_hash)


def read_header(reader: Reader) -> Header:
    """Read what `Header.write` wrote.

    Raises:
        MalformedError: No header; its JSON would not be canonical.
    """
    epoch, count, timestamp_ms, history_size = (reader.u64() for _ in range(4))
    if max(epoch, count, timestamp_ms, history_size) >= 2**53:
        raise MalformedError("checkpoint header: number of more than 53 bits")
    validator_id = unpack_node_id(reader.take(32))
    chain, prev, merkle_root, ranges_root, cuts_root = (reader.take(32) for _ in range(5))
    evidence_root, history_root, current, following = (reader.take(32) for _ in range(4))
    return Header(
        chain,
        epoch,
        prev,
        timestamp_ms,
        merkle_root,
        count,
        ranges_root,
        cuts_root,
        evidence_root,
        history_root,
        history_size,
        current,
        following,
        validator_id,
    )


def parse_header(raw: bytes) -> Header:
    """Read a header from its canonical bytes.

    Raises:
        MalformedError: Not the canonical form of a header.
    """
    fields = Fields(canonical.decode_object(raw, limit=HEADER_MAX_BYTES), "checkpoint header")
    fields.literal("type", "C")
    fields.literal("v", 1)
    header = Header(
        fields.hex("chain", 32),
        fields.integer("epoch"),
        fields.hex("prev", 32),
        fields.integer("timestamp"),
        fields.hex("merkle_root", 32),
        fields.integer("count"),
        fields.hex("ranges_root", 32),
        fields.hex("cuts_root", 32),
        fields.hex("evidence_root", 32),
        fields.hex("history_root", 32),
        fields.integer("history_size"),
        fields.hex("validators_hash", 32),
        fields.hex("next_validators_hash", 32),
        parse_node_id(fields.text("validator_id")),
    )
    fields.finish()
    return header


def header_hash(raw: bytes) -> bytes:
    """Return H(checkpoint, canonical header)."""
    return digest(Domain.CHECKPOINT, raw)


def certificate_of(raw: bytes, view: int, bitmap: bytes, signature: bytes) -> QuorumCertificate:
    """Return the FINALIZE certificate of a header, from what must be told of it beside the header.

    Raises:
        MalformedError: Not the canonical form of a header.
    """
    epoch, kind = parse_header(raw).epoch, VoteKind.FINALIZE
    return QuorumCertificate(kind, epoch, view, header_hash(raw), bitmap, signature)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A proposed checkpoint: nothing about it is certain but its own bytes."""

    header: Header
    raw: bytes
    hash: bytes
    author_signature: bytes
    content: Content

    def write(self, writer: Writer) -> None:
        writer.block16(self.raw).put(self.author_signature)
        write_content(writer, self.content)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()

    def check_content(self) -> None:
        """Check that the content is the one that the header commits to.

        Raises:
            VerificationError: One of the three roots differs.
        """
        header, content = self.header, self.content
        for name, found, wanted in (
            ("ranges_root", content.ranges_root(), header.ranges_root),
            ("cuts_root", content.cuts_root(), header.cuts_root),
            ("evidence_root", content.evidence_root(), header.evidence_root),
        ):
            if found != wanted:
                raise VerificationError(f"checkpoint {header.epoch}: {name} does not fit")
        if sum(item.count for item in content.ranges) != header.count:
            raise VerificationError(f"checkpoint {header.epoch}: count does not fit the ranges")


@dataclass(frozen=True, slots=True)
class FinalCheckpoint:
    """A checkpoint with the FINALIZE certificate that makes it final.

    `members` is the canonical array of the next validator set where the header names another one
    and the sender knows it; the header's hash binds it.
    """

    checkpoint: Checkpoint
    certificate: QuorumCertificate
    members: bytes = b""

    def write(self, writer: Writer) -> None:
        self.checkpoint.write(writer)
        self.certificate.write(writer)
        writer.block32(self.members)

    def sealed(self) -> "SealedHeader":
        """Return the part that is kept for ever."""
        made = self.checkpoint
        return SealedHeader(
            made.header, made.raw, made.hash, made.author_signature, self.certificate
        )

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()


@dataclass(frozen=True, slots=True)
class SealedHeader:
    """What is kept of a final checkpoint for ever: header, author's signature, certificate."""

    header: Header
    raw: bytes
    hash: bytes
    author_signature: bytes
    certificate: QuorumCertificate

    def encode(self) -> bytes:
        writer = Writer().block16(self.raw).put(self.author_signature)
        self.certificate.write(writer)
        return writer.finish()

    def joined(self, content: Content, members: bytes) -> FinalCheckpoint:
        """Return the whole checkpoint; the caller knows that the content is that of the header."""
        checkpoint = Checkpoint(self.header, self.raw, self.hash, self.author_signature, content)
        return FinalCheckpoint(checkpoint, self.certificate, members)


def decode_sealed(data: bytes) -> SealedHeader:
    """Read what `SealedHeader.encode` returned."""
    reader = Reader(data, "sealed header")
    raw = reader.block16(HEADER_MAX_BYTES)
    signature = reader.take(SIGNATURE_BYTES)
    certificate = read_certificate(reader)
    reader.finish()
    return SealedHeader(parse_header(raw), raw, header_hash(raw), signature, certificate)


def encode_content(content: Content) -> bytes:
    """Return the stored form of a content."""
    writer = Writer()
    write_content(writer, content)
    return writer.finish()


def decode_content(data: bytes) -> Content:
    """Read what `encode_content` returned."""
    reader = Reader(data, "checkpoint content")
    found = read_content(reader)
    reader.finish()
    return found


def write_content(writer: Writer, content: Content) -> None:
    """Append ranges, CUTs and evidence, each behind its count."""
    writer.u16(len(content.ranges))
    for item in content.ranges:
        item.write(writer)
    writer.u8(len(content.cuts))
    for signed in content.cuts:
        signed.write(writer)
    writer.u8(len(content.evidence))
    for evidence in content.evidence:
        writer.block16(evidence)


def read_content(reader: Reader) -> Content:
    """Read what `write_content` wrote."""
    counted = reader.u16()
    if counted > RANGES_MAX:
        raise LimitExceededError(f"checkpoint: {counted} ranges, limit {RANGES_MAX}")
    ranges = tuple(read_range(reader) for _ in range(counted))
    counted = reader.u8()
    if counted > VALIDATORS_MAX:
        raise LimitExceededError(f"checkpoint: {counted} cuts, limit {VALIDATORS_MAX}")
    cuts = tuple(read_cut(reader) for _ in range(counted))
    counted = reader.u8()
    if counted > EVIDENCE_MAX:
        raise LimitExceededError(f"checkpoint: {counted} pieces of evidence, limit {EVIDENCE_MAX}")
    evidence = tuple(reader.block16(EVIDENCE_MAX_BYTES) for _ in range(counted))
    return Content(ranges, cuts, evidence)


def read_checkpoint(reader: Reader) -> Checkpoint:
    """Read what `Checkpoint.write` wrote."""
    raw = reader.block16(HEADER_MAX_BYTES)
    header = parse_header(raw)
    signature = reader.take(SIGNATURE_BYTES)
    return Checkpoint(header, raw, header_hash(raw), signature, read_content(reader))


def read_final(reader: Reader) -> FinalCheckpoint:
    """Read what `FinalCheckpoint.write` wrote."""
    checkpoint, certificate = read_checkpoint(reader), read_certificate(reader)
    return FinalCheckpoint(checkpoint, certificate, reader.block32(MEMBERS_MAX_BYTES))


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Read what `Checkpoint.encode` returned."""
    reader = Reader(data, "checkpoint")
    found = read_checkpoint(reader)
    reader.finish()
    return found


def sorted_ranges(ranges: Sequence[Range]) -> bool:
    """Tell whether ranges are in the one order and name each chain once."""
    lanes = [item.lane for item in ranges]
    return lanes == sorted(dict.fromkeys(lanes))

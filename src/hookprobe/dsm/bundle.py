"""Evidence bundles: blocks with everything needed to verify them offline (DSM spec 2.9).

A bundle is a text of lines; each line is canonical JSON and ends with one newline:

    1    {"blocks": N, "chain": hex, "digest": hex, "receipts": M,
          "type": "hookprobe-bundle", "v": 1}
    2    {"document": {genesis}, "type": "genesis"}
    then for each change of the validator set up to the last receipt, ascending by epoch:
         {"certificate": {...}, "header": {...}, "type": "change", "validators": [...]}
    then for each receipt, ordered by (node_id, inc, first):
         {"certificate": {"bitmap": hex, "signature": hex, "view": v},
          "first": seq, "header": {...}, "inc": i, "last": seq, "node_id": name,
          "proof": [hex, ...], "start": leaf, "type": "receipt"}
    and behind it its blocks first..last, ascending:
         {"block": {...}, "signature": hex, "type": "block"}
         with "payload": hex and "salt": hex where the payload is disclosed

`digest` is SHA-256 over all bytes behind line 1. The first receipt of a chain begins at block 1,
whose body carries the node's certificate; later receipts may leave gaps.

What holds for each part:

    chain        H(genesis, genesis document); equals the chain in every block and header
    header hash  H(checkpoint, canonical header)
    certificate  BLS aggregate by n-f distinct members of the epoch's set over the vote message
                 "HPDSM1" 0 0 || chain || 3 || epoch u64 || view u32 || header hash
    change       certified by the set that it ends; `validators` hash to next_validators_hash and
                 decide from the epoch after it on; new vote keys are proven
    receipt      RFC 6962 range proof: block ids are leaves start.. of header.count leaves
    block        id = H(microblock, block); Ed25519 by the certified key over H(microblock-sig, id)
    payload      payload_hash = SHA-256 under its label over salt and payload

H(label, x) = SHA-256(label || 0x00 || x). Nothing in a bundle is ignored, so any changed, missing
or moved byte fails. Whether the chain is the right one is for the reader to say: pin its id.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from hookprobe.dsm.bundle_lines import (
    block_document,
    change_document,
    check_whole,
    parse_block_line,
    parse_change,
    parse_receipt,
    read_line,
    read_object,
    receipt_document,
    write_line,
)
from hookprobe.dsm.checkpoint import Range
from hookprobe.dsm.court import Court, Schemes, convene
from hookprobe.dsm.enrolment import check_enrolment, parse_enrolment
from hookprobe.dsm.genesis import Genesis, decode_genesis
from hookprobe.dsm.messages import Receipt
from hookprobe.dsm.microblock import (
    LaneKey,
    SignedBlock,
    decode_block,
    lane_row,
    verify_block,
)
from hookprobe.dsm.receipts import check_receipt, decode_receipt
from hookprobe.dsm.roll import Roll, decode_change
from hookprobe.dsm.store import StoreReader, Table, prefix_end
from hookprobe.errors import MalformedError, RemoteError, UnavailableError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId

BUNDLE_MAX_BYTES = 256 << 20
_RECEIPTS_MAX = 100_000
_CHANGES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What a bundle proves.

    Attributes:
        chain: The chain id.
        pinned: Whether the reader said which chain it must be.
        nodes: Whose blocks they are.
        blocks: How many.
        epochs: In which checkpoints they are, ascending.
        voters: The fewest validators that certified one of them.
        validators: How many validators there were then.
        disclosed: Blocks whose payload is in the bundle.
    """

    chain: bytes
    pinned: bool
    nodes: tuple[NodeId, ...]
    blocks: int
    epochs: tuple[int, ...]
    voters: int
    validators: int
    disclosed: int


def export_bundle(
    genesis: Genesis, node_id: NodeId, reader: StoreReader, block_id: bytes | None = None
) -> bytes:
    """Return a bundle of a node's proven blocks.

    Args:
        genesis: The chain's genesis document.
        node_id: The node whose store it is.
        reader: Its store.
        block_id: Only the receipts needed to prove this block; None for all blocks.

    Raises:
        UnavailableError: No block, or not the one asked for, is proven yet, from the first block of
            its incarnation on.
    """
    lines: list[bytes] = [
        write_line({"document": read_object(genesis.encode()), "type": "genesis"})
    ]
    blocks = receipts = 0
    chosen = _chosen(node_id, reader, block_id)
    lines += _change_lines(reader, max(receipt.certificate.epoch for receipt, _ in chosen))
    for receipt, signed in chosen:
        receipts += 1
        blocks += len(signed)
        lines.append(write_line(receipt_document(receipt)))
        lines += [write_line(block_document(block, reader)) for block in signed]
    rest = b"".join(lines)
    head: JsonObject = {
        "blocks": blocks,
        "chain": genesis.chain_id().hex(),
        "digest": hashlib.sha256(rest).hexdigest(),
        "receipts": receipts,
        "type": "hookprobe-bundle",
        "v": 1,
    }
    return write_line(head) + rest


def _change_lines(reader: StoreReader, last: int) -> list[bytes]:
    """Return the changes of the validator set that headers before epoch `last` made."""
    rows = reader.scan(Table.CHANGES, b"", last.to_bytes(8, "big"), _CHANGES_MAX)
    return [write_line(change_document(decode_change(value))) for _, value in rows]


def _chosen(
    node_id: NodeId, reader: StoreReader, block_id: bytes | None
) -> list[tuple[Receipt, list[SignedBlock]]]:
    rows = reader.scan(Table.RECEIPTS, b"", b"\xff" * 13, _RECEIPTS_MAX)
    held = _decoded(rows, node_id)
    # The certificate is in block 1: without its receipt, which may come last, nothing is proven.
    begun = [receipt.range.inc for receipt in held if receipt.range.first == 1]
    proven = [(item, _blocks(item, reader)) for item in held if item.range.inc in begun]
    if block_id is not None:
        hit = next((r.range for r, signed in proven if any(b.id == block_id for b in signed)), None)
        proven = [
            (receipt, signed)
            for receipt, signed in proven
            if hit is not None
            and receipt.range.inc == hit.inc
            and receipt.range.first in {1, hit.first}
        ]
    if not proven:
        raise UnavailableError(
            f"{node_id}: no such block is in a certified checkpoint yet",
            hint="wait for the next epoch, or look at hookprobe status",
        )
    return proven


def _decoded(rows: Sequence[tuple[bytes, bytes]], node_id: NodeId) -> list[Receipt]:
    receipts = [decode_receipt(value) for _, value in rows]
    return [receipt for receipt in receipts if receipt.range.node_id == node_id]


def _blocks(receipt: Receipt, reader: StoreReader) -> list[SignedBlock]:
    lane = lane_row(receipt.range.lane)
    start = lane + receipt.range.first.to_bytes(8, "big")
    stop = prefix_end(lane + receipt.range.last.to_bytes(8, "big"))
    return [
        decode_block(value)
        for _, value in reader.scan(Table.BLOCKS, start, stop, receipt.range.count)
    ]


class BundleVerifier:
    """Verifies bundles; a genesis document that held once is not checked again.

    Args:
        schemes: How to check signatures.
        trusted_chain: The chain id the reader trusts; None leaves that open, and says so.
    """

    def __init__(self, schemes: Schemes, trusted_chain: bytes | None = None) -> None:
        self._schemes = schemes
        self._trusted = trusted_chain
        self._courts: dict[bytes, Court] = {}

    def check(self, data: bytes) -> BundleReport:
        """Verify a bundle.

        Raises:
            RemoteError: It does not hold; the message names the first line and thing at fault.
        """
        place = _Place()
        try:
            reading = self._read(data, place)
        except RemoteError as error:
            raise type(error)(f"line {place.line}: {error.message}", hint=error.hint) from error
        return reading.report(pinned=self._trusted is not None)

    def _read(self, data: bytes, place: "_Place") -> "_Reading":
        if len(data) > BUNDLE_MAX_BYTES:
            raise MalformedError(f"bundle of {len(data)} bytes, limit {BUNDLE_MAX_BYTES}")
        *lines, incomplete = data.split(b"\n")
        if not lines:
            raise MalformedError("the bundle has no complete line")
        manifest = _parse_manifest(read_line(lines[0]))
        if len(lines) == 1:
            place.line += bool(incomplete)
            raise MalformedError("the genesis document is missing or not complete")
        place.line = 2
        reading = _Reading(Roll(self._court(read_line(lines[1]))))
        if manifest.chain != reading.court.chain:
            place.line = 1
            raise VerificationError("manifest: the genesis document is of another chain")
        for line in lines[2:]:
            place.line += 1
            reading.take(read_line(line))
        if incomplete:
            place.line += 1
            raise MalformedError("the last line is not complete")
        reading.finish()
        place.line = 1
        manifest.check(reading.blocks, reading.receipts, data[len(lines[0]) + 1 :])
        return reading

    def _court(self, document: JsonObject) -> Court:
        fields = Fields(document, "genesis line")
        fields.literal("type", "genesis")
        raw = canonical.encode(fields.object("document"))
        fields.finish()
        court = self._courts.get(raw)
        if court is None:
            genesis = decode_genesis(raw)
            check_whole(genesis.encode(), raw, "genesis")
            court = convene(genesis, self._schemes)
            self._courts = {raw: court}
        if self._trusted is not None and court.chain != self._trusted:
            raise VerificationError(
                f"genesis document of chain {court.chain.hex()[:16]}, not of the trusted one"
            )
        return court


@dataclass(slots=True)
class _Place:
    """The number of the line that is being judged."""

    line: int = 1


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What the first line says about the others."""

    chain: bytes
    blocks: int
    receipts: int
    digest: bytes

    def check(self, blocks: int, receipts: int, rest: bytes) -> None:
        """Compare with what was read."""
        if (self.blocks, self.receipts) != (blocks, receipts):
            raise VerificationError(
                f"manifest: the bundle has {blocks} blocks, {receipts} receipts"
            )
        if self.digest != hashlib.sha256(rest).digest():
            raise VerificationError("manifest: digest of other lines")


@dataclass(slots=True)
class _Reading:
    """A bundle as far as it has been verified."""

    roll: Roll
    receipts: int = 0
    blocks: int = 0
    disclosed: int = 0
    voters: int = 1 << 30
    validators: int = 0
    epochs: dict[int, None] = field(default_factory=dict)
    keys: dict[LaneKey, bytes] = field(default_factory=dict)
    place: tuple[NodeId, int, int] | None = None
    previous: SignedBlock | None = None
    pending: Receipt | None = None
    gathered: list[SignedBlock] = field(default_factory=list)

    @property
    def court(self) -> Court:
        return self.roll.court

    def take(self, document: JsonObject) -> None:
        """Verify the next line."""
        if self.pending is None and not self.receipts and document.get("type") == "change":
            self._take_change(document)
        elif self.pending is None:
            self._take_receipt(document)
        else:
            self._take_block(document, self.pending)

    def _take_change(self, document: JsonObject) -> None:
        if not self.roll.accept(parse_change(document)):
            raise VerificationError("set change: out of order")

    def _take_receipt(self, document: JsonObject) -> None:
        receipt = parse_receipt(document)
        covered = receipt.range
        place = (covered.node_id, covered.inc, covered.first)
        if self.place is not None and place <= self.place:
            raise VerificationError("receipt: out of order")
        if covered.lane not in self.keys and covered.first != 1:
            raise VerificationError("receipt: the first one of a chain must begin at block 1")
        self.place = (covered.node_id, covered.inc, covered.last)
        self.pending = receipt
        self.receipts += 1

    def _take_block(self, document: JsonObject, receipt: Receipt) -> None:
        signed, payload = parse_block_line(document)
        what = f"microblock {signed.block.node_id}/{signed.block.inc}/{signed.seq}"
        covered = receipt.range
        if signed.lane != covered.lane or signed.seq != covered.first + len(self.gathered):
            raise VerificationError(
                f"{what}: {covered.node_id}/{covered.inc}/{covered.first + len(self.gathered)}"
                " is wanted here"
            )
        if signed.block.chain != self.court.chain:
            raise VerificationError(f"{what}: of another chain")
        self._check_link(signed, what)
        verify_block(signed, self._key_of(signed), self.court.signatures)
        if payload is not None:
            if payload.hash() != signed.block.payload_hash:
                raise VerificationError(f"{what}: the payload is not the one it was signed with")
            self.disclosed += 1
        self.gathered.append(signed)
        self.previous = signed
        self.blocks += 1
        if len(self.gathered) == covered.count:
            self._close(receipt)

    def _check_link(self, signed: SignedBlock, what: str) -> None:
        before = self.previous
        adjacent = before is not None and (before.lane, before.seq + 1) == (signed.lane, signed.seq)
        if adjacent and before is not None and signed.block.prev != before.id:
            raise VerificationError(f"{what}: it does not follow the block before it")

    def _key_of(self, signed: SignedBlock) -> bytes:
        key = self.keys.get(signed.lane)
        if key is not None:
            return key
        body = signed.block.body or {}
        enrolment = parse_enrolment(body)
        check_whole(canonical.encode(enrolment.to_body()), canonical.encode(body), "enrolment")
        if enrolment.certificate.node_id != signed.block.node_id:
            raise VerificationError(f"enrolment of {signed.block.node_id}: of another node")
        key = check_enrolment(
            enrolment,
            self.court.chain,
            signed.block.timestamp_ms,
            self.court.ca_keys,
            self.court.signatures,
        )
        self.keys[signed.lane] = key
        return key

    def _close(self, receipt: Receipt) -> None:
        """Verify the receipt over its blocks; the head is the last of them."""
        ids = [signed.id for signed in self.gathered]
        covered = receipt.range
        whole = Range(covered.node_id, covered.inc, covered.first, covered.last, ids[-1])
        header = check_receipt(
            Receipt(receipt.header_raw, receipt.certificate, whole, receipt.start, receipt.proof),
            ids,
            self.roll,
        )
        self.epochs[header.epoch] = None
        voters = len(receipt.certificate.signers())
        if voters < self.voters:
            self.voters, self.validators = voters, self.roll.at(header.epoch).size
        self.pending = None
        self.gathered = []

    def finish(self) -> None:
        """Refuse a bundle that ends early or proves nothing."""
        if self.pending is not None:
            raise VerificationError("bundle: blocks of the last receipt are missing")
        if not self.receipts:
            raise VerificationError("bundle: it proves nothing")

    def report(self, *, pinned: bool) -> BundleReport:
        nodes = dict.fromkeys(node_id for node_id, _ in self.keys)
        return BundleReport(
            chain=self.court.chain,
            pinned=pinned,
            nodes=tuple(sorted(nodes)),
            blocks=self.blocks,
            epochs=tuple(sorted(self.epochs)),
            voters=self.voters,
            validators=self.validators,
            disclosed=self.disclosed,
        )


def _parse_manifest(document: JsonObject) -> _Manifest:
    fields = Fields(document, "manifest")
    fields.literal("type", "hookprobe-bundle")
    fields.literal("v", 1)
    manifest = _Manifest(
        fields.hex("chain", 32),
        fields.integer("blocks"),
        fields.integer("receipts"),
        fields.hex("digest", 32),
    )
    fields.finish()
    return manifest

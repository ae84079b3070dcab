"""The lines of an evidence bundle: each one object, written and read (see `dsm.bundle`)."""

from hookprobe.crypto.bls import SIGNATURE_BYTES
from hookprobe.dsm.certificate import BITMAP_BYTES_MAX, QuorumCertificate
from hookprobe.dsm.checkpoint import Range, certificate_of, parse_header
from hookprobe.dsm.messages import Receipt
from hookprobe.dsm.microblock import (
    SALT_BYTES,
    Payload,
    SignedBlock,
    decode_payload,
    parse_block,
)
from hookprobe.dsm.roll import SetChange
from hookprobe.dsm.store import StoreReader, Table
from hookprobe.dsm.validators import VALIDATORS_MAX, decode_set
from hookprobe.errors import MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id

LINE_MAX_BYTES = 1 << 20
_PAYLOAD_MAX_BYTES = 1 << 19


def change_document(change: SetChange) -> JsonObject:
    """Return the line of a set change."""
    return {
        "certificate": certificate_document(change.certificate),
        "header": read_object(change.header_raw),
        "type": "change",
        "validators": canonical.decode(change.members),
    }


def certificate_document(certificate: QuorumCertificate) -> JsonObject:
    """Return a FINALIZE certificate; epoch and digest are those of its header."""
    return {
        "bitmap": certificate.bitmap.hex(),
        "signature": certificate.signature.hex(),
        "view": certificate.view,
    }


def parse_certificate(document: JsonObject, header_raw: bytes) -> QuorumCertificate:
    """Read a FINALIZE certificate of this very header; nothing is checked yet."""
    fields = Fields(document, "certificate")
    view = fields.integer("view", low=1, high=2**32 - 1)
    bitmap = fields.octets("bitmap", limit=BITMAP_BYTES_MAX)
    found = certificate_of(header_raw, view, bitmap, fields.hex("signature", SIGNATURE_BYTES))
    fields.finish()
    return found


def receipt_document(receipt: Receipt) -> JsonObject:
    """Return the line of a receipt."""
    proof: list[Json] = [item.hex() for item in receipt.proof]
    return {
        "certificate": certificate_document(receipt.certificate),
        "first": receipt.range.first,
        "header": read_object(receipt.header_raw),
        "inc": receipt.range.inc,
        "last": receipt.range.last,
        "node_id": receipt.range.node_id,
        "proof": proof,
        "start": receipt.start,
        "type": "receipt",
    }


def block_document(signed: SignedBlock, reader: StoreReader) -> JsonObject:
    """Return the line of a block, with its payload if that is in the store."""
    document: JsonObject = {
        "block": read_object(signed.raw),
        "signature": signed.signature.hex(),
        "type": "block",
    }
    row = reader.get(Table.PAYLOADS, signed.id)
    if row is not None:
        payload = decode_payload(row)
        document |= {"payload": payload.data.hex(), "salt": payload.salt.hex()}
    return document


def read_object(raw: bytes) -> JsonObject:
    """Return the object of canonical bytes."""
    return canonical.decode_object(raw)


def write_line(document: JsonObject) -> bytes:
    """Return the bytes of a line."""
    return canonical.encode(document) + b"\n"


def read_line(line: bytes) -> JsonObject:
    """Return the object of a line."""
    return canonical.decode_object(line, limit=LINE_MAX_BYTES)


def check_whole(written: bytes, raw: bytes, what: str) -> None:
    """Refuse a document with two spellings: what was read must write what was signed."""
    if written != raw:
        raise MalformedError(f"{what}: a field is not in its one form")


def parse_change(document: JsonObject) -> SetChange:
    """Read the line of a set change."""
    fields = Fields(document, "set change")
    fields.literal("type", "change")
    raw, certificate = _parse_sealed(fields)
    array = fields.array("validators", limit=VALIDATORS_MAX)
    members = canonical.encode(array)
    fields.finish()
    check_whole(decode_set(members).encode(), members, "validators")
    return SetChange(raw, certificate, members)


def _parse_sealed(fields: Fields) -> tuple[bytes, QuorumCertificate]:
    """Take header and certificate; the certificate is about the header, whatever it says."""
    raw = canonical.encode(fields.object("header"))
    check_whole(parse_header(raw).encode(), raw, "checkpoint header")
    return raw, parse_certificate(fields.object("certificate"), raw)


def parse_receipt(document: JsonObject) -> Receipt:
    """Read the line of a receipt; its head is left empty."""
    fields = Fields(document, "receipt")
    fields.literal("type", "receipt")
    raw, certificate = _parse_sealed(fields)
    covered = Range(
        parse_node_id(fields.take("node_id")),
        fields.integer("inc", low=1, high=2**32 - 1),
        fields.integer("first", low=1),
        fields.integer("last", low=1),
        b"",  # the head is whatever the last block's id turns out to be
    )
    if covered.last < covered.first:
        raise MalformedError("receipt: last block before the first")
    proof = fields.array("proof", limit=128)
    hashes = tuple(Fields({"proof": item}, "receipt").hex("proof", 32) for item in proof)
    receipt = Receipt(raw, certificate, covered, fields.integer("start"), hashes)
    fields.finish()
    return receipt


def parse_block_line(document: JsonObject) -> tuple[SignedBlock, Payload | None]:
    """Read the line of a block."""
    fields = Fields(document, "block line")
    fields.literal("type", "block")
    signed = parse_block(canonical.encode(fields.object("block")), fields.hex("signature", 64))
    check_whole(signed.block.encode(), signed.raw, "block")
    payload = None
    if fields.has("payload"):
        data = fields.octets("payload", limit=_PAYLOAD_MAX_BYTES)
        # A shorter salt with a longer payload would have the same hash.
        payload = Payload(fields.hex("salt", SALT_BYTES), data)
    fields.finish()
    return signed, payload


def bundled_blocks(data: bytes) -> list[SignedBlock]:
    """Return the blocks of a bundle that `BundleVerifier.check` accepted, in order.

    Raises:
        MalformedError: Not a bundle.
    """
    documents = [read_line(line) for line in data.splitlines()]
    lines = [document for document in documents if document.get("type") == "block"]
    return [parse_block_line(document)[0] for document in lines]

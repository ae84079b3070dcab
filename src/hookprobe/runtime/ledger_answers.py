"""The JSON of the query API: how parts of the ledger are shown, and how they are read back.

The documents' field names are kept (`node_id`, `seq`, `merkle_root`, `included_ranges`,
`agg_signature` ...). Beside them stands what lets a client check everything by itself: `canonical`,
the very text that was hashed and signed, and the detached signatures. A reader trusts nothing but
those; `show_*` and `read_*` are inverse in them.
"""

from collections.abc import Mapping, Sequence

from hookprobe.dsm.bundle_lines import certificate_document, parse_certificate
from hookprobe.dsm.certificate import QuorumCertificate
from hookprobe.dsm.checkpoint import (
    MEMBERS_MAX_BYTES,
    RANGES_MAX,
    FinalCheckpoint,
    Range,
)
from hookprobe.dsm.messages import Receipt
from hookprobe.dsm.microblock import SALT_BYTES, Payload, SignedBlock, parse_block
from hookprobe.dsm.roll import SetChange
from hookprobe.errors import MalformedError
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id
from hookprobe.wire.instant import MILLISECOND, Instant, format_iso

CANONICAL_CHARS_MAX = 12 << 10
PAYLOAD_MAX_BYTES = 64 << 10
PATH_MAX = 64


def show_time(milliseconds: int) -> str:
    """Return a time of the ledger as RFC 3339 in UTC."""
    return format_iso(Instant(milliseconds * MILLISECOND))


# -- blocks -----------------------------------------------------------------------------------


def show_block(signed: SignedBlock, payload: Payload | None = None) -> JsonObject:
    """Return a microblock, with its payload if that may be shown."""
    block = signed.block
    shown: JsonObject = {
        "canonical": signed.raw.decode(),
        "event_type": block.event_type,
        "id": signed.id.hex(),
        "inc": block.inc,
        "node_id": block.node_id,
        "payload_hash": block.payload_hash.hex(),
        "prev": block.prev.hex(),
        "seq": block.seq,
        "signature": signed.signature.hex(),
        "timestamp": show_time(block.timestamp_ms),
        "type": "M",
    }
    if payload is not None:
        shown |= {"payload": payload.data.hex(), "salt": payload.salt.hex()}
    return shown


def read_block(document: Json) -> tuple[SignedBlock, Payload | None]:
    """Read what `show_block` showed; signature and payload are not checked here.

    Raises:
        MalformedError: No block, or a field beside the canonical text that says something else.
    """
    if not isinstance(document, dict):
        raise MalformedError("microblock: an object is wanted")
    fields = Fields(document, "microblock")
    raw = fields.text("canonical", limit=CANONICAL_CHARS_MAX).encode()
    signed = parse_block(raw, fields.hex("signature", 64))
    payload = None
    if fields.has("payload"):
        data = fields.octets("payload", limit=PAYLOAD_MAX_BYTES)
        payload = Payload(fields.hex("salt", SALT_BYTES), data)
    check_same(document, show_block(signed, payload), "microblock")
    return signed, payload


def check_same(document: Mapping[str, Json], wanted: Mapping[str, Json], what: str) -> None:
    """Refuse a document whose readable fields differ from the text that was signed.

    Raises:
        MalformedError: Names the first field that does.
    """
    for name, value in wanted.items():
        if document.get(name) != value:
            raise MalformedError(f"{what}: field {name!r} is not what was signed")


# -- checkpoints --------------------------------------------------------------------------------


def show_checkpoint(final: FinalCheckpoint, ranges: Sequence[Range]) -> JsonObject:
    """Return a final checkpoint.

    Args:
        final: The checkpoint.
        ranges: Those of its ranges that may be shown; without all of them nobody can check them.
    """
    header = final.checkpoint.header
    included: JsonObject = {}
    for item in ranges:
        included[item.node_id] = [item.first, item.last]
    exact: list[Json] = [
        {
            "first": item.first,
            "head": item.head.hex(),
            "inc": item.inc,
            "last": item.last,
            "node_id": item.node_id,
        }
        for item in ranges
    ]
    return {
        "agg_signature": final.certificate.signature.hex(),
        "canonical": final.checkpoint.raw.decode(),
        "certificate": certificate_document(final.certificate),
        "epoch": header.epoch,
        "hash": final.checkpoint.hash.hex(),
        "included_ranges": included,
        "merkle_root": header.merkle_root.hex(),
        "microblock_count": header.count,
        "ranges": exact,
        "signature": final.checkpoint.author_signature.hex(),
        "timestamp": show_time(header.timestamp_ms),
        "type": "C",
        "validator_count": len(final.certificate.signers()),
        "validator_id": header.validator_id,
    }


def read_header(fields: Fields) -> tuple[bytes, QuorumCertificate]:
    """Take header text and certificate out of a checkpoint or a proof."""
    raw = fields.text("canonical", limit=CANONICAL_CHARS_MAX).encode()
    return raw, parse_certificate(fields.object("certificate"), raw)


def show_change(change: SetChange) -> JsonObject:
    """Return a header that changes the validator set, with the members of the next one."""
    return {
        "canonical": change.header_raw.decode(),
        "certificate": certificate_document(change.certificate),
        "members": change.members.decode(),
    }


def read_change(document: Json) -> SetChange:
    """Read what `show_change` showed; `dsm.roll.Roll.accept` checks it."""
    if not isinstance(document, dict):
        raise MalformedError("set change: an object is wanted")
    fields = Fields(document, "set change")
    raw, certificate = read_header(fields)
    members = fields.text("members", limit=MEMBERS_MAX_BYTES).encode()
    fields.finish()
    return SetChange(raw, certificate, members)


def read_ranges(fields: Fields) -> tuple[Range, ...]:
    """Take the exact ranges out of a checkpoint."""
    found: list[Range] = []
    for item in fields.array("ranges", limit=RANGES_MAX):
        if not isinstance(item, dict):
            raise MalformedError("range: an object is wanted")
        one = Fields(item, "range")
        found.append(
            Range(
                parse_node_id(one.take("node_id")),
                one.integer("inc", low=1, high=2**32 - 1),
                one.integer("first", low=1),
                one.integer("last", low=1),
                one.hex("head", 32),
            )
        )
        one.finish()
    return tuple(found)


# -- proofs -------------------------------------------------------------------------------------


def show_proof(proof: Sequence[bytes]) -> list[Json]:
    """Return hashes as hex."""
    return [item.hex() for item in proof]


def read_proof(fields: Fields, name: str) -> tuple[bytes, ...]:
    """Take a list of 32-byte hashes."""
    items = fields.array(name, limit=2 * PATH_MAX)
    return tuple(Fields({name: item}, "proof").hex(name, 32) for item in items)


def show_receipt(receipt: Receipt) -> JsonObject:
    """Return a receipt: the range proof of a chain in an epoch."""
    covered = receipt.range
    return {
        "canonical": receipt.header_raw.decode(),
        "certificate": certificate_document(receipt.certificate),
        "first": covered.first,
        "head": covered.head.hex(),
        "inc": covered.inc,
        "last": covered.last,
        "node_id": covered.node_id,
        "proof": show_proof(receipt.proof),
        "start": receipt.start,
    }


def read_receipt(document: JsonObject) -> Receipt:
    """Read what `show_receipt` showed; `dsm.receipts.check_receipt` checks it."""
    fields = Fields(document, "receipt")
    raw, certificate = read_header(fields)
    covered = Range(
        parse_node_id(fields.take("node_id")),
        fields.integer("inc", low=1, high=2**32 - 1),
        fields.integer("first", low=1),
        fields.integer("last", low=1),
        fields.hex("head", 32),
    )
    receipt = Receipt(
        raw, certificate, covered, fields.integer("start"), read_proof(fields, "proof")
    )
    fields.finish()
    return receipt

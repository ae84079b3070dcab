"""The one encoding of the ledger's messages.

    frame = version u8 || kind u8 || fields, big-endian, exactly to the end; at most 1 MiB

Kinds are listed in `dsm.messages`. Decoding raises `RemoteError` only.
"""

from collections.abc import Callable
from functools import lru_cache

from hookprobe.crypto.bls import SIGNATURE_BYTES as VOTE_SIGNATURE_BYTES
from hookprobe.crypto.merkle import PROOF_HASHES_MAX
from hookprobe.dsm.certificate import (
    BITMAP_BYTES_MAX,
    QuorumCertificate,
    read_certificate,
    read_kind,
)
from hookprobe.dsm.checkpoint import (
    HEADER_MAX_BYTES,
    certificate_of,
    parse_header,
    read_checkpoint,
    read_final,
    read_header,
    read_range,
)
from hookprobe.dsm.cut import read_cut
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.linked import read_linked
from hookprobe.dsm.messages import (
    BLOCKS_MAX,
    CHANGES_MAX,
    CHECKPOINTS_MAX,
    FRAME_MAX_BYTES,
    HAVE_MAX,
    INCARNATIONS_MAX,
    JUSTIFICATION_MAX,
    PACK_MAX,
    RELICS_MAX,
    VERSION,
    BlockEntry,
    Blocks,
    CertificateMessage,
    Changes,
    Checkpoints,
    CutMessage,
    GetChanges,
    GetCheckpoints,
    GetHeads,
    GetPack,
    GetRange,
    GetReceipts,
    GetRelics,
    Have,
    HeadsReply,
    Message,
    Pack,
    PackEntry,
    Proposal,
    Receipt,
    Relics,
    Status,
    SyncMessage,
    Vote,
)
from hookprobe.dsm.microblock import (
    PAYLOAD_MAX_BYTES,
    SALT_BYTES,
    SIGNATURE_BYTES,
    LaneKey,
    decode_payload,
    encode_payload,
    read_block,
)
from hookprobe.dsm.roll import read_change
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.identifiers import pack_node_id, unpack_node_id
from hookprobe.wire.reader import Reader, Writer

COMPACT = 0  # where older receipts have the length of the header's JSON


def encode(message: Message) -> bytes:
    """Return the frame of a message.

    Raises:
        LimitExceededError: It would be larger than a frame may be.
    """
    writer = Writer().u8(VERSION)
    _write(message, writer)
    frame = writer.finish()
    if len(frame) > FRAME_MAX_BYTES:
        raise LimitExceededError(f"{type(message).__name__} of {len(frame)} bytes")
    return frame


def decode(frame: bytes) -> Message:
    """Read a frame.

    Raises:
        LimitExceededError: Too large, or a count above its limit.
        MalformedError: Anything else that `encode` does not write.
    """
    if len(frame) > FRAME_MAX_BYTES:
        raise LimitExceededError(f"frame of {len(frame)} bytes, limit {FRAME_MAX_BYTES}")
    reader = Reader(frame, "ledger message")
    version, kind = reader.u8(), reader.u8()
    if version != VERSION or kind not in _READERS:
        raise MalformedError(f"ledger message: version {version}, kind {kind}")
    message = _READERS[kind](reader)
    reader.finish()
    return message


def _write(message: Message, writer: Writer) -> None:
    match message:
        case Vote() | Proposal() | CertificateMessage() | CutMessage():
            _write_consensus(message, writer)
        case Blocks() | Have() | GetRange() | GetPack() | Pack():
            _write_data(message, writer)
        case _:
            _write_sync(message, writer)


def _write_consensus(
    message: Vote | Proposal | CertificateMessage | CutMessage, writer: Writer
) -> None:
    match message:
        case CutMessage(signed):
            signed.write(writer.u8(4))
        case Proposal():
            writer.u8(5).u64(message.epoch).u32(message.view)
            message.checkpoint.write(writer)
            writer.u32(message.base_view).u16(len(message.certificates))
            for certificate in message.certificates:
                certificate.write(writer)
            writer.put(message.signature)
        case Vote():
            writer.u8(6).u8(message.kind).u64(message.epoch).u32(message.view)
            writer.put(message.digest).u16(message.voter).put(message.signature)
        case CertificateMessage(certificate):
            certificate.write(writer.u8(7))


def _write_data(message: Blocks | Have | GetRange | GetPack | Pack, writer: Writer) -> None:
    match message:
        case Blocks(request, entries):
            writer.u8(1).u32(request).u16(len(entries))
            for entry in entries:
                entry.signed.write(writer)
                writer.block16(encode_payload(entry.payload) if entry.payload else b"")
        case Have(heads):
            writer.u8(2).u16(len(heads))
            for lane, seq in heads:
                writer.put(pack_node_id(lane[0])).u32(lane[1]).u64(seq)
        case GetRange(request, lane, first, last, head):
            _write_lane(writer.u8(3).u32(request), lane)
            writer.u64(first).u64(last).put(head)
        case GetPack(request, lane, first, last, head):
            _write_lane(writer.u8(19).u32(request), lane)
            writer.u64(first).u64(last).put(head)
        case Pack(request, lane, packed):
            _write_lane(writer.u8(20).u32(request), lane)
            writer.u16(len(packed))
            for item in packed:
                item.signed.write(writer)
                writer.block16(encode_payload(item.payload) if item.payload else b"")


def _write_lane(writer: Writer, lane: LaneKey) -> None:
    writer.put(pack_node_id(lane[0])).u32(lane[1])


def _write_sync(message: SyncMessage, writer: Writer) -> None:
    match message:
        case Status():
            writer.u8(8).u64(message.next_epoch).put(message.header_hash)
            writer.put(message.heads_hash).u64(message.seen_epochs)
        case Receipt():
            write_receipt(writer.u8(11), message)
        case Checkpoints() | Changes() | HeadsReply() | Relics():
            _write_answer(message, writer)
        case _:
            _write_request(message, writer)


def _write_answer(message: Checkpoints | Changes | HeadsReply | Relics, writer: Writer) -> None:
    match message:
        case Checkpoints(items):
            writer.u8(10).u16(len(items))
            for item in items:
                item.write(writer)
        case HeadsReply(known):
            writer.u8(13).u16(len(known))
            for head in known:
                writer.u32(head.inc).u64(head.seq).put(head.block_id)
        case Changes(changes):
            writer.u8(16).u8(len(changes))
            for change in changes:
                change.write(writer)
        case Relics(first, last, blocks):
            writer.u8(18).u64(first).u64(last).u16(len(blocks))
            for epoch, signed in blocks:
                signed.write(writer.u64(epoch))


def _write_request(
    message: GetCheckpoints | GetHeads | GetReceipts | GetChanges | GetRelics, writer: Writer
) -> None:
    match message:
        case GetCheckpoints(first, count):
            writer.u8(9).u64(first).u16(count)
        case GetHeads():
            writer.u8(12)
        case GetReceipts(inc, first):
            writer.u8(14).u32(inc).u64(first)
        case GetChanges(first):
            writer.u8(15).u64(first)
        case GetRelics(first, last):
            writer.u8(17).u64(first).u64(last)


def write_receipt(writer: Writer, receipt: Receipt) -> None:
    """Append a receipt; it is also stored in this form.

    The header's JSON follows from its fields, and kind, epoch and digest of the certificate from
    the header.
    """
    certificate = receipt.certificate
    writer.u16(COMPACT).put(_packed_header(receipt.header_raw)).u32(certificate.view)
    writer.block16(certificate.bitmap).put(certificate.signature)
    receipt.range.write(writer)
    writer.u64(receipt.start).u8(len(receipt.proof))
    for item in receipt.proof:
        writer.put(item)


def read_receipt(reader: Reader) -> Receipt:
    """Read what `write_receipt` wrote."""
    json_bytes = reader.u16()
    if json_bytes == COMPACT:
        header_raw, certificate = _read_sealed(reader)
    elif json_bytes <= HEADER_MAX_BYTES:  # as receipts were stored until the end of 2026
        header_raw, certificate = reader.take(json_bytes), read_certificate(reader)
    else:
        raise LimitExceededError(f"receipt: header of {json_bytes} bytes")
    covered, start, count = read_range(reader), reader.u64(), reader.u8()
    if count > PROOF_HASHES_MAX:
        raise LimitExceededError(f"receipt: proof of {count} hashes")
    proof = tuple(reader.take(32) for _ in range(count))
    return Receipt(header_raw, certificate, covered, start, proof)


@lru_cache(maxsize=4)  # one epoch's header goes into the receipts of all its chains
def _packed_header(raw: bytes) -> bytes:
    writer = Writer()
    parse_header(raw).write(writer)
    return writer.finish()


def _read_sealed(reader: Reader) -> tuple[bytes, QuorumCertificate]:
    raw = read_header(reader).encode()
    view, bitmap = reader.u32(), reader.block16(BITMAP_BYTES_MAX)
    return raw, certificate_of(raw, view, bitmap, reader.take(VOTE_SIGNATURE_BYTES))


def _count(reader: Reader, limit: int, what: str) -> int:
    count = reader.u16()
    if count > limit:
        raise LimitExceededError(f"ledger message: {count} {what}, limit {limit}")
    return count


def _read_blocks(reader: Reader) -> Blocks:
    request, count = reader.u32(), _count(reader, BLOCKS_MAX, "blocks")
    return Blocks(request, tuple(_read_entry(reader) for _ in range(count)))


def _read_entry(reader: Reader) -> BlockEntry:
    signed = read_block(reader)
    data = reader.block16(SALT_BYTES + PAYLOAD_MAX_BYTES)
    return BlockEntry(signed, decode_payload(data) if data else None)


def _read_lane(reader: Reader) -> LaneKey:
    return unpack_node_id(reader.take(32)), reader.u32()


def _read_have(reader: Reader) -> Have:
    count = _count(reader, HAVE_MAX, "heads")
    return Have(tuple((_read_lane(reader), reader.u64()) for _ in range(count)))


def _read_get_range(reader: Reader) -> GetRange:
    request, lane = reader.u32(), _read_lane(reader)
    return GetRange(request, lane, reader.u64(), reader.u64(), reader.take(32))


def _read_get_pack(reader: Reader) -> GetPack:
    request, lane = reader.u32(), _read_lane(reader)
    return GetPack(request, lane, reader.u64(), reader.u64(), reader.take(32))


def _read_pack(reader: Reader) -> Pack:
    request, lane = reader.u32(), _read_lane(reader)
    count = _count(reader, PACK_MAX, "packed blocks")
    return Pack(request, lane, tuple(_read_packed(reader, lane) for _ in range(count)))


def _read_packed(reader: Reader, lane: LaneKey) -> PackEntry:
    signed = read_linked(reader, lane)
    data = reader.block16(SALT_BYTES + PAYLOAD_MAX_BYTES)
    return PackEntry(signed, decode_payload(data) if data else None)


def _read_proposal(reader: Reader) -> Proposal:
    epoch, view = reader.u64(), reader.u32()
    checkpoint, base_view = read_checkpoint(reader), reader.u32()
    count = _count(reader, JUSTIFICATION_MAX, "certificates")
    certificates = tuple(read_certificate(reader) for _ in range(count))
    return Proposal(epoch, view, checkpoint, base_view, certificates, reader.take(SIGNATURE_BYTES))


def _read_vote(reader: Reader) -> Vote:
    kind, epoch, view = read_kind(reader), reader.u64(), reader.u32()
    return Vote(kind, epoch, view, reader.take(32), reader.u16(), reader.take(VOTE_SIGNATURE_BYTES))


def _read_status(reader: Reader) -> Status:
    return Status(reader.u64(), reader.take(32), reader.take(32), reader.u64())


def _read_checkpoints(reader: Reader) -> Checkpoints:
    count = _count(reader, CHECKPOINTS_MAX, "checkpoints")
    return Checkpoints(tuple(read_final(reader) for _ in range(count)))


def _read_heads(reader: Reader) -> HeadsReply:
    count = _count(reader, INCARNATIONS_MAX, "incarnations")
    return HeadsReply(
        tuple(Head(reader.u32(), reader.u64(), reader.take(32)) for _ in range(count))
    )


def _read_changes(reader: Reader) -> Changes:
    count = reader.u8()
    if count > CHANGES_MAX:
        raise LimitExceededError(f"ledger message: {count} set changes, limit {CHANGES_MAX}")
    return Changes(tuple(read_change(reader) for _ in range(count)))


def _read_relics(reader: Reader) -> Relics:
    first, last = reader.u64(), reader.u64()
    count = _count(reader, RELICS_MAX, "relics")
    return Relics(first, last, tuple((reader.u64(), read_block(reader)) for _ in range(count)))


_READERS: dict[int, Callable[[Reader], Message]] = {
    1: _read_blocks,
    2: _read_have,
    3: _read_get_range,
    4: lambda reader: CutMessage(read_cut(reader)),
    5: _read_proposal,
    6: _read_vote,
    7: lambda reader: CertificateMessage(read_certificate(reader)),
    8: _read_status,
    9: lambda reader: GetCheckpoints(reader.u64(), reader.u16()),
    10: _read_checkpoints,
    11: read_receipt,
    12: lambda _reader: GetHeads(),
    13: _read_heads,
    14: lambda reader: GetReceipts(reader.u32(), reader.u64()),
    15: lambda reader: GetChanges(reader.u64()),
    16: _read_changes,
    17: lambda reader: GetRelics(reader.u64(), reader.u64()),
    18: _read_relics,
    19: _read_get_pack,
    20: _read_pack,
}

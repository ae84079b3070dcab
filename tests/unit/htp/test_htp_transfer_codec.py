"""File messages: sizes, paths, and bytes that are not what they claim to be."""

import hashlib

import pytest

from hookprobe.errors import LimitExceededError, MalformedError, UnauthorizedError
from hookprobe.htp import transfer_codec as codec
from hookprobe.htp.channels import PRIORITIES, Channel, Priority
from hookprobe.htp.outbox import Outbox
from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
    ChunkRange,
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
    WriteRequest,
)
from hookprobe.htp.transfer_paths import check_path

KIB, MIB = 1 << 10, 1 << 20
SHA = hashlib.sha256(b"content").digest()


@pytest.mark.parametrize(
    ("size", "chunks"),
    [
        (0, 0),
        (1, 1),
        (64 * KIB, 1),
        (64 * KIB + 1, 2),
        (512 * MIB, 8192),
        (512 * MIB + 1, 8193),
        (1024 * MIB, 16_384),
    ],
)
def test_attack_35_sizes_at_the_edges(size: int, chunks: int) -> None:
    facts = FileFacts(size, SHA)
    assert facts.chunks == chunks
    assert sum(facts.chunk_size(i) for i in range(chunks)) == size
    if chunks:
        last = chunks - 1
        header = FileHeader(FileOperation.CHUNK, FileFlags.LAST, last, 7, chunks, SHA[:4])
        assert codec.decode_frame(codec.encode_frame(header))[0] == header


def test_attack_35_a_file_larger_than_one_gib_has_no_type() -> None:
    with pytest.raises(LimitExceededError):
        FileFacts((1 << 30) + 1, SHA)
    body = bytearray(
        codec.encode_write(WriteRequest(FileFacts(1, SHA), True, 0o644, b"", "a"), update=False)
    )
    body[:8] = ((1 << 30) + 1).to_bytes(8, "big")
    with pytest.raises(LimitExceededError):
        codec.decode_write(bytes(body), update=False)


def test_the_header_is_the_documented_sixteen_bytes() -> None:
    header = FileHeader(
        FileOperation.CHUNK, FileFlags.LAST | FileFlags.COMPRESSED, 2, 9, 3, SHA[:4]
    )
    assert codec.encode_frame(header, b"x").hex() == (
        "360300020000000900000003" + SHA[:4].hex() + "78"
    )  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        bytes(15),
        b"\x2f" + bytes(15),
        b"\x39" + bytes(15),
        b"\x36\x20" + bytes(14),
        b"\x36\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00\x03" + bytes(4),
        b"\x36\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00\x01" + bytes(4),
    ],
    ids=["short", "below", "above", "flag", "index", "total"],
)
def test_impossible_headers_are_refused(damage: bytes) -> None:
    with pytest.raises(MalformedError):
        codec.decode_frame(damage)


@pytest.mark.parametrize(
    "path",
    [
        "", "..", "../a.txt", "a/../../b.txt", "/etc/passwd.txt", "a//b.txt", "a/", "./a.txt",
        ".hidden.txt", "a/.part", "a\\b.txt", "a\0b.txt", "a\nb.txt", "a\x7fb.txt", "a\u202eb.txt",
        "a\u200bb.txt", "cafe\u0301.txt", "\ud800.txt", "x" * 256, "a/" * 16 + "b", "é" * 128,
        "\u2028.txt", "/".join(["x" * 250] * 5),
    ],
)  # fmt: skip
def test_attack_33_paths_that_lead_elsewhere_or_deceive(path: str) -> None:
    with pytest.raises(UnauthorizedError):
        check_path(path)


@pytest.mark.parametrize("path", ["a.txt", "a/b/c.json", "café.txt", "日本.log", "a b.txt"])
def test_plain_paths_pass(path: str) -> None:
    assert check_path(path) == path
    assert check_path("", folder=True) == ""


def write() -> bytes:
    facts = FileFacts(20_000, SHA)
    return codec.encode_write(WriteRequest(facts, True, 0o644, ANY_CONTENT, "a.txt"), update=True)


def test_another_chunk_size_than_the_file_s_is_refused() -> None:
    body = bytearray(write())
    assert codec.decode_write(bytes(body), update=True).path == "a.txt"
    for log2 in (0, 12, 14, 63, 255):
        body[8] = log2
        with pytest.raises(MalformedError):
            codec.decode_write(bytes(body), update=True)


def test_every_truncation_and_extension_is_refused() -> None:
    body = write()
    for length in range(len(body)):
        with pytest.raises(MalformedError):
            codec.decode_write(body[:length], update=True)
    with pytest.raises(MalformedError):
        codec.decode_write(body + b"\0", update=True)


@pytest.mark.parametrize(
    "ranges",
    [
        (ChunkRange(0, 10),),
        (ChunkRange(5, 4),),
        (ChunkRange(3, 4), ChunkRange(1, 1)),
        (ChunkRange(1, 3), ChunkRange(3, 4)),
        (ChunkRange(1, 3), ChunkRange(4, 5)),
    ],
)
def test_missing_chunks_out_of_order_or_outside_are_refused(ranges: tuple[ChunkRange, ...]) -> None:
    with pytest.raises(MalformedError):
        codec.decode_ranges(codec.encode_ranges(ranges), 10)


def test_the_worst_list_of_missing_chunks_fits_one_message() -> None:
    every_other = tuple(ChunkRange(i, i) for i in range(0, codec.CHUNKS_MAX, 2))
    body = codec.encode_ranges(every_other)
    assert codec.decode_ranges(body, codec.CHUNKS_MAX) == every_other
    assert len(every_other) == codec.RANGES_MAX
    assert len(body) < MIB - codec.HEADER_BYTES


def test_a_listing_out_of_order_or_with_forbidden_names_is_refused() -> None:
    def listing(*names: str) -> bytes:
        return codec.encode_listing(
            codec.Listing(tuple(codec.Entry(name, False, 1) for name in names), False)
        )

    assert len(codec.decode_listing(listing("a", "b")).entries) == 2
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(MalformedError):
            codec.decode_listing(listing(*names))
    with pytest.raises(UnauthorizedError):
        codec.decode_listing(listing("../x"))
    with pytest.raises(LimitExceededError):
        codec.decode_listing(listing(*(f"{i:04}" for i in range(codec.LIST_MAX + 1))))


def test_files_wait_for_everything_else_and_fill_a_quarter_of_the_queue() -> None:
    outbox = Outbox(4 * MIB)
    offered = 0
    while outbox.offer(Channel.FILE, bytes(8192)):
        offered += 1
    assert offered * 8192 <= MIB
    assert PRIORITIES[Channel.FILE] is max(Priority)
    for channel in (Channel.MODEL, Channel.GOSSIP, Channel.CONSENSUS):
        assert outbox.offer(channel, b"urgent")
    order = [fragment.message.channel for _ in range(4) if (fragment := outbox.take())]
    assert order == [Channel.CONSENSUS, Channel.GOSSIP, Channel.MODEL, Channel.FILE]

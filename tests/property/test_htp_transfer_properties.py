"""File messages round-trip, and no bytes bring anything but a RemoteError out of a parser."""

import contextlib
import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from hookprobe.errors import RemoteError
from hookprobe.htp import transfer_codec as codec
from hookprobe.htp.transfer_codec import (
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
    ListRequest,
    PathRequest,
    ReadRequest,
    WriteRequest,
)
from hookprobe.htp.transfer_receiver import Desk, FinishPart, Incoming, OpenPart
from hookprobe.htp.transfer_sender import Outgoing
from hookprobe.htp.transfer_writes import WritePart
from hookprobe.wire.instant import Instant

SHA = st.binary(min_size=32, max_size=32)
SIZES = st.integers(0, 1 << 30)
NAMES = st.text("abcxyz-_ 09é日", min_size=1, max_size=20)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
U64 = st.integers(0, 2**64 - 1)
FACTS = st.builds(FileFacts, SIZES, SHA)
RELAXED = settings(deadline=None, derandomize=True, max_examples=150)


@RELAXED
@given(FACTS, st.booleans(), st.integers(0, 0o7777), SHA, PATHS, st.booleans())
def test_write_requests_round_trip(
    facts: FileFacts, squeeze: bool, mode: int, if_match: bytes, path: str, update: bool
) -> None:
    request = WriteRequest(facts, squeeze, mode, if_match if update else bytes(32), path)
    assert codec.decode_write(codec.encode_write(request, update=update), update=update) == request


@RELAXED
@given(PATHS, U64, U64, SHA, st.integers(1, 256), NAMES)
def test_questions_round_trip(
    path: str, offset: int, length: int, sha: bytes, limit: int, cursor: str
) -> None:
    read = ReadRequest(path, offset, length, sha)
    assert codec.decode_read(codec.encode_read(read)) == read
    listing = ListRequest(path, cursor, limit)
    assert codec.decode_list(codec.encode_list(listing)) == listing
    asked = PathRequest(path, sha)
    assert codec.decode_path(codec.encode_path(asked), folder=False) == asked


@RELAXED
@given(
    st.sampled_from(FileOperation),
    st.integers(0, 31),
    st.integers(1, codec.CHUNKS_MAX).flatmap(
        lambda n: st.tuples(st.integers(0, n - 1), st.just(n))
    ),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=64),
)
def test_frames_round_trip(
    operation: FileOperation,
    flags: int,
    place: tuple[int, int],
    file_id: int,
    file_hash: bytes,
    body: bytes,
) -> None:
    header = FileHeader(operation, FileFlags(flags), place[0], file_id, place[1], file_hash)
    assert codec.decode_frame(codec.encode_frame(header, body)) == (header, body)


@RELAXED
@given(FACTS)
def test_every_byte_is_in_one_chunk_and_the_index_fits(facts: FileFacts) -> None:
    size = codec.CHUNK_BYTES
    assert facts.chunks <= 65_536
    assert (facts.chunks - 1) * size < facts.size <= facts.chunks * size or facts.size == 0


@RELAXED
@given(st.binary(max_size=30_000).map(lambda seed: seed * 24), st.data())
def test_any_part_already_here_completes_to_the_same_bytes(
    data: bytes, draw: st.DataObject
) -> None:
    facts = FileFacts(len(data), hashlib.sha256(data).digest())
    here = draw.draw(st.binary(min_size=facts.chunks, max_size=facts.chunks))
    receiver = Incoming(facts, 1, here)
    sender = Outgoing(facts, 1, response=False, compressible=True)
    ranges = codec.decode_ranges(codec.encode_ranges(receiver.missing()), facts.chunks)
    sender.begin(ranges)
    sent = 0
    while (index := sender.wanted) is not None:
        assert here[index] == 0
        frame = b"".join(sender.encode(data[index * codec.CHUNK_BYTES :][: codec.CHUNK_BYTES]))
        write = receiver.receive_chunk(*codec.decode_frame(frame))
        assert write is not None
        assert write.data == data[write.offset : write.offset + len(write.data)]
        sent += 1
    assert sent == here.count(0)
    assert receiver.whole


DECODERS = (
    codec.decode_frame,
    lambda body: codec.decode_write(body, update=True),
    lambda body: codec.decode_write(body, update=False),
    codec.decode_read,
    codec.decode_list,
    lambda body: codec.decode_path(body, folder=True),
    lambda body: codec.decode_ranges(body, 100),
    codec.decode_facts,
    codec.decode_error,
    codec.decode_stat,
    codec.decode_listing,
)


@RELAXED
@given(st.binary(max_size=120))
def test_44_parsers_raise_remote_errors_only(body: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(RemoteError):
            decode(body)


@RELAXED
@given(
    st.lists(
        st.builds(
            lambda op, flags, file_id, body: bytes((op, flags, 0, 0, 0, 0, 0, file_id)) + body,
            st.integers(0x30, 0x38),
            st.integers(0, 31),
            st.integers(0, 20),
            st.binary(min_size=8, max_size=80),
        ),
        max_size=40,
    )
)
def test_45_the_desk_survives_any_messages_within_its_limit(messages: list[bytes]) -> None:
    desk = Desk()
    for message in messages:
        for effect in desk.receive_frame(message, Instant(1)):
            if isinstance(effect, OpenPart):
                desk.opened(effect.file_id, b"")
            assert not isinstance(effect, WritePart | FinishPart) or desk.busy
        assert desk.busy <= 16

"""Sender, receiver and desk: chunks that lie, requests that overreach, transfers that resume."""

import hashlib
import tracemalloc
import zlib
from random import Random

import pytest

from hookprobe.errors import LimitExceededError, LocalError, MalformedError
from hookprobe.htp import transfer_codec as codec
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.transfer_codec import (
    ANY_CONTENT,
    CHUNK_BYTES,
    ChunkRange,
    FileError,
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
    PathRequest,
    ReadRequest,
    WriteRequest,
)
from hookprobe.htp.transfer_receiver import (
    IDLE_US,
    PARTIAL_MAX,
    TRANSFERS_MAX,
    Ask,
    Desk,
    FinishPart,
    Incoming,
    OpenPart,
    Reply,
    SuspendPart,
    Withdraw,
)
from hookprobe.htp.transfer_sender import SAMPLES, Outgoing
from hookprobe.htp.transfer_writes import WritePart, inflate
from hookprobe.wire.instant import Instant

NOW = Instant(1_000_000)
CHUNK = CHUNK_BYTES
TEXT = (b"the same line again and again\n" * 12_000)[: 5 * CHUNK + 100]
NOISE = b"".join(hashlib.sha256(i.to_bytes(4)).digest() for i in range(16_000))


def facts_of(data: bytes) -> FileFacts:
    return FileFacts(len(data), hashlib.sha256(data).digest())


def outgoing(data: bytes, *, compressible: bool = True) -> Outgoing:
    found = Outgoing(facts_of(data), 1, response=False, compressible=compressible)
    found.begin(Incoming(found.facts, 1).missing())
    return found


def frames(sender: Outgoing, data: bytes) -> list[bytes]:
    found = []
    while (index := sender.wanted) is not None:
        found.append(b"".join(sender.encode(data[index * CHUNK : (index + 1) * CHUNK])))
    return found


@pytest.mark.parametrize("data", [TEXT, NOISE, b"", b"x"], ids=["text", "noise", "empty", "one"])
def test_what_is_sent_is_what_arrives(data: bytes) -> None:
    sender, receiver = outgoing(data), Incoming(facts_of(data), 1)
    got = bytearray(len(data))
    for frame in frames(sender, data):
        write = receiver.receive_chunk(*codec.decode_frame(frame))
        assert write is not None
        got[write.offset : write.offset + len(write.data)] = write.data
    assert receiver.receive_complete(codec.decode_frame(sender.complete())[1])
    assert bytes(got) == data
    assert receiver.whole


def test_text_is_compressed_and_noise_is_only_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = zlib.compress

    def compress(data: bytes, level: int) -> bytes:
        tried.append(len(data))
        return real(data, level)

    monkeypatch.setattr(zlib, "compress", compress)
    sender = outgoing(TEXT)
    assert all(
        codec.decode_frame(frame)[0].flags & FileFlags.COMPRESSED for frame in frames(sender, TEXT)
    )
    assert sender.wire_bytes < len(TEXT) // 10
    tried.clear()
    sender = outgoing(NOISE)
    assert not any(
        codec.decode_frame(frame)[0].flags & FileFlags.COMPRESSED for frame in frames(sender, NOISE)
    )
    assert len(tried) == SAMPLES < sender.facts.chunks
    tried.clear()
    frames(outgoing(TEXT, compressible=False), TEXT)
    assert tried == []


def test_a_sender_keeps_its_own_rules() -> None:
    sender = outgoing(TEXT)
    with pytest.raises(LocalError):
        sender.complete()
    with pytest.raises(LocalError):
        sender.encode(TEXT[:100])
    with pytest.raises(LocalError):
        sender.begin((ChunkRange(0, sender.facts.chunks),))


BOMB = zlib.compress(bytes(50 << 20), 9)
GOOD = zlib.compress(bytes(CHUNK), 1)


@pytest.mark.parametrize(
    "data",
    [
        BOMB,
        GOOD[:-1],
        GOOD[:-4] + bytes(4),
        GOOD + b"x",
        GOOD + GOOD,
        zlib.compress(bytes(CHUNK - 1)),
        zlib.compress(bytes(CHUNK + 1)),
        b"",
        b"not zlib",
    ],
    ids=["bomb", "cut", "adler", "tail", "twice", "short", "long", "nothing", "noise"],
)
def test_attack_34_compressed_chunks_that_lie(data: bytes) -> None:
    assert inflate(GOOD, CHUNK) == bytes(CHUNK)
    with pytest.raises(MalformedError):
        inflate(data, CHUNK)


def test_attack_34_a_bomb_is_never_held() -> None:
    tracemalloc.start()
    with pytest.raises(MalformedError):
        inflate(BOMB, CHUNK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def chunk(facts: FileFacts, index: int, flags: int = 0) -> FileHeader:
    operation = FileOperation.CHUNK
    return FileHeader(operation, FileFlags(flags), index, 1, facts.chunks, facts.sha256[:4])


def test_attack_34_chunks_of_wrong_sizes_places_and_files() -> None:
    facts = facts_of(TEXT)
    receiver = Incoming(facts, 1, compressible=False)
    last = facts.chunks - 1
    other = facts_of(NOISE)
    for header, body in (
        (chunk(facts, 0), bytes(CHUNK - 1)),
        (chunk(facts, 0), bytes(CHUNK + 1)),
        (chunk(facts, 0, FileFlags.LAST), bytes(CHUNK)),
        (chunk(facts, last), bytes(100)),
        (chunk(facts, last, FileFlags.LAST), bytes(CHUNK)),
        (chunk(facts, 0)._replace(total_chunks=9), bytes(CHUNK)),
        (chunk(facts, 0)._replace(file_hash=other.sha256[:4]), bytes(CHUNK)),
        (chunk(facts, 0, FileFlags.COMPRESSED), GOOD),
    ):
        with pytest.raises(MalformedError):
            receiver.receive_chunk(header, body)
    assert receiver.held_chunks == 0
    empty = facts_of(b"")
    with pytest.raises(MalformedError):
        Incoming(empty, 1).receive_chunk(chunk(empty, 0, FileFlags.LAST), b"")


def test_a_repeated_chunk_is_written_once_and_gaps_are_noticed() -> None:
    facts = facts_of(TEXT)
    receiver = Incoming(facts, 1, bytes((0, 7, 0, 0, 1, 0)))
    assert receiver.missing() == (ChunkRange(0, 0), ChunkRange(2, 3), ChunkRange(5, 5))
    assert receiver.receive_chunk(chunk(facts, 1), bytes(CHUNK)) is None
    assert receiver.receive_chunk(chunk(facts, 2), bytes(CHUNK)) == WritePart(
        1, 2 * CHUNK, bytes(CHUNK), (2,)
    )
    assert not receiver.receive_complete(codec.encode_facts(facts))
    with pytest.raises(MalformedError):
        receiver.receive_complete(codec.encode_facts(facts_of(NOISE)))


def pieces(data: bytes, index: int, count: int, flags: int = 0) -> list[BulkFragment]:
    """Cut one chunk into `count` fragments."""
    facts = facts_of(data)
    if index == facts.chunks - 1:
        flags |= FileFlags.LAST
    head = codec.encode_frame(chunk(facts, index, flags))
    body = data[index * CHUNK : (index + 1) * CHUNK]
    step = -(-len(body) // count)
    return [
        BulkFragment(head, place, count - 1, (body[place * step : (place + 1) * step],))
        for place in range(count)
    ]


def test_fragments_are_written_to_their_places_neighbours_together() -> None:
    receiver = Incoming(facts_of(TEXT), 1)
    several = [*pieces(TEXT, 1, 8), *pieces(TEXT, 2, 8), *pieces(TEXT, 5, 1)]
    assert receiver.receive_fragments(several) == [
        WritePart(1, CHUNK, TEXT[CHUNK : 3 * CHUNK], (1, 2)),
        WritePart(1, 5 * CHUNK, TEXT[5 * CHUNK :], (5,)),
    ]
    assert receiver.receive_fragments(several) == []


def test_fragments_in_any_order_with_repetitions_make_the_file() -> None:
    receiver, got = Incoming(facts_of(TEXT), 1), bytearray(len(TEXT))
    several = [one for index in range(6) for one in pieces(TEXT, index, 7)] * 2
    Random(3).shuffle(several)
    claimed: list[int] = []
    for start in range(0, len(several), 5):
        for write in receiver.receive_fragments(several[start : start + 5]):
            got[write.offset : write.offset + len(write.data)] = write.data
            for index in write.whole:
                span = slice(index * CHUNK, (index + 1) * CHUNK)
                assert got[span] == TEXT[span], "a chunk is claimed before all of it is there"
            claimed += write.whole
    assert bytes(got) == TEXT
    assert sorted(claimed) == list(range(6))
    assert receiver.whole


def test_a_finer_cut_replaces_a_coarser_one_and_not_the_other_way_round() -> None:
    receiver = Incoming(facts_of(TEXT), 1)
    coarse, fine = pieces(TEXT, 0, 2), pieces(TEXT, 0, 8)
    receiver.receive_fragments([coarse[0], *fine[:7], coarse[1]])
    assert receiver.held_chunks == 0
    receiver.receive_fragments([fine[7]])
    assert receiver.held_chunks == 1


GOOD_PIECE = pieces(TEXT, 0, 8)[0]


@pytest.mark.parametrize(
    "bad",
    [
        GOOD_PIECE._replace(pieces=(GOOD_PIECE.pieces[0][:-1],)),
        GOOD_PIECE._replace(pieces=(GOOD_PIECE.pieces[0] + b"x",)),
        GOOD_PIECE._replace(pieces=(b"",)),
        GOOD_PIECE._replace(last=8),
        pieces(TEXT, 5, 8)[0]._replace(place=200, last=200, pieces=(b"",)),
        pieces(TEXT, 0, 8, FileFlags.COMPRESSED)[0],
        pieces(TEXT, 0, 8, FileFlags.LAST)[0],
        pieces(NOISE[: len(TEXT)], 0, 8)[0],
        GOOD_PIECE._replace(head=b"\x37" + GOOD_PIECE.head[1:]),
        GOOD_PIECE._replace(head=GOOD_PIECE.head[:15]),
    ],
    ids=["short", "long", "empty", "cut", "behind", "zip", "last", "other", "kind", "head"],
)
def test_attack_34_fragments_that_lie_write_nothing(bad: BulkFragment) -> None:
    receiver = Incoming(facts_of(TEXT), 1)
    with pytest.raises(MalformedError):
        receiver.receive_fragments([bad])
    assert receiver.missing() == (ChunkRange(0, 5),)
    (write,) = receiver.receive_fragments(pieces(TEXT, 0, 8))
    assert write.whole == (0,)


def test_pieces_of_too_many_chunks_are_refused() -> None:
    facts = FileFacts((PARTIAL_MAX + 1) * CHUNK, bytes(32))
    receiver = Incoming(facts, 1)
    last = facts.chunks - 1
    for index in range(last):
        head = codec.encode_frame(chunk(facts, index))
        receiver.receive_fragments([BulkFragment(head, 0, 1, (bytes(CHUNK // 2),))])
    head = codec.encode_frame(chunk(facts, last, FileFlags.LAST))
    with pytest.raises(LimitExceededError):
        receiver.receive_fragments([BulkFragment(head, 0, 1, (bytes(CHUNK // 2),))])


# -- the desk -------------------------------------------------------------------------------------

FACTS = facts_of(TEXT)
REQUEST = WriteRequest(FACTS, True, 0o644, ANY_CONTENT, "a.txt")


def create(file_id: int, *, flags: FileFlags = FileFlags.NOREPLACE) -> bytes:
    header = codec.plain_header(FileOperation.CREATE, flags, file_id)
    return codec.encode_frame(header, codec.encode_write(REQUEST, update=False))


def ask(file_id: int, path: str = "a.txt") -> bytes:
    header = codec.plain_header(FileOperation.STAT, FileFlags(0), file_id)
    return codec.encode_frame(header, codec.encode_path(PathRequest(path)))


def errors(effects: list) -> list[FileError]:  # type: ignore[type-arg]
    found = []
    for effect in effects:
        if isinstance(effect, Reply):
            header, body = codec.decode_frame(effect.data)
            if header.operation is FileOperation.ERROR:
                assert header.flags == FileFlags.RESPONSE
                found.append(codec.decode_error(body))
    return found


def test_a_whole_transfer_over_the_desk() -> None:
    desk = Desk()
    assert desk.receive_frame(create(1), NOW) == [OpenPart(1, REQUEST, False)]
    (reply,) = desk.opened(1, bytes(FACTS.chunks))
    assert isinstance(reply, Reply)
    header, body = codec.decode_frame(reply.data)
    assert header.flags == FileFlags.RESPONSE
    assert codec.decode_ranges(body, FACTS.chunks) == (ChunkRange(0, FACTS.chunks - 1),)
    sender = outgoing(TEXT)
    for frame in frames(sender, TEXT):
        (effect,) = desk.receive_frame(frame, NOW)
        assert isinstance(effect, WritePart)
    assert desk.receive_frame(sender.complete(), NOW) == [FinishPart(1)]
    (reply,) = desk.finished(1)
    assert isinstance(reply, Reply)
    assert codec.decode_frame(reply.data)[0].operation is FileOperation.COMPLETE
    assert desk.busy == 0


def test_no_complete_before_every_chunk_is_here() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    desk.opened(1, bytes(FACTS.chunks))
    header = codec.plain_header(FileOperation.COMPLETE, FileFlags(0), 1)
    complete = codec.encode_frame(header, codec.encode_facts(FACTS))
    *most, last = frames(outgoing(TEXT), TEXT)
    for frame in (complete, *most, complete):
        assert not any(isinstance(one, FinishPart) for one in desk.receive_frame(frame, NOW))
    assert desk.receive_frame(last, NOW)[1:] == [FinishPart(1)]


def test_a_complete_whose_chunks_never_come_is_given_up() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    desk.opened(1, bytes(FACTS.chunks))
    header = codec.plain_header(FileOperation.COMPLETE, FileFlags(0), 1)
    desk.receive_frame(codec.encode_frame(header, codec.encode_facts(FACTS)), NOW)
    assert desk.handle_timeout(Instant(NOW + IDLE_US)) == [SuspendPart(1)]


def test_fragments_at_the_desk() -> None:
    desk = Desk()
    assert desk.receive_fragments(1, pieces(TEXT, 0, 8), NOW) == []  # of no transfer
    desk.receive_frame(create(1), NOW)
    desk.opened(1, bytes(FACTS.chunks))
    header = codec.plain_header(FileOperation.COMPLETE, FileFlags(0), 1)
    desk.receive_frame(codec.encode_frame(header, codec.encode_facts(FACTS)), NOW)
    every = [one for index in range(6) for one in pieces(TEXT, index, 8)]
    assert desk.receive_fragments(1, every, NOW) == [
        WritePart(1, 0, TEXT, tuple(range(6))),
        FinishPart(1),
    ]
    assert desk.receive_fragments(1, every, NOW) == []  # repeated while it is made durable
    lie = GOOD_PIECE._replace(pieces=(b"",))
    desk.receive_frame(create(2), NOW)
    desk.opened(2, bytes(FACTS.chunks))
    effects = desk.receive_fragments(2, [lie], NOW)
    assert effects[0] == SuspendPart(2)
    assert errors(effects) == [FileError.MALFORMED]


def test_content_before_the_part_is_open_ends_the_transfer() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    effects = desk.receive_frame(frames(outgoing(TEXT), TEXT)[0], NOW)
    assert errors(effects) == [FileError.MALFORMED]
    assert desk.opened(1, bytes(FACTS.chunks)) == [SuspendPart(1)]


def test_attack_39_the_seventeenth_transfer_is_refused_and_harms_none() -> None:
    desk = Desk()
    for file_id in range(TRANSFERS_MAX):
        assert errors(desk.receive_frame(create(file_id), NOW)) == []
    effects = desk.receive_frame(create(TRANSFERS_MAX), NOW)
    assert errors(effects) == [FileError.BUSY]
    assert len(effects) == 1
    assert errors(desk.receive_frame(ask(99), NOW)) == [FileError.BUSY]
    assert desk.busy == TRANSFERS_MAX
    desk.fail(3, FileError.QUOTA)
    assert desk.receive_frame(create(TRANSFERS_MAX), NOW) == [
        OpenPart(TRANSFERS_MAX, REQUEST, False)
    ]


def test_silent_transfers_are_given_up_but_kept() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    assert desk.next_timeout() is None
    desk.opened(1, bytes(FACTS.chunks))
    assert desk.next_timeout() == NOW + IDLE_US
    assert desk.handle_timeout(Instant(NOW + IDLE_US - 1)) == []
    assert desk.handle_timeout(Instant(NOW + IDLE_US)) == [SuspendPart(1)]
    assert desk.busy == 0


def test_the_end_of_a_session_suspends_and_withdraws() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    desk.opened(1, bytes(FACTS.chunks))
    desk.receive_frame(ask(2), NOW)
    assert desk.end() == [SuspendPart(1), Withdraw(2)]
    assert desk.busy == 0


def test_an_error_of_the_asking_end_stops_its_transfer() -> None:
    desk = Desk()
    desk.receive_frame(create(1), NOW)
    desk.opened(1, bytes(FACTS.chunks))
    stop = codec.encode_error(1, FileError.CHANGED, FileFlags(0))
    assert desk.receive_frame(stop, NOW) == [SuspendPart(1)]
    assert desk.receive_frame(stop, NOW) == []


def test_requests_become_questions_for_the_host() -> None:
    desk = Desk()
    question = ReadRequest("a.txt", 0, 100, ANY_CONTENT)
    header = codec.plain_header(FileOperation.READ, FileFlags(0), 5)
    frame = codec.encode_frame(header, codec.encode_read(question))
    assert desk.receive_frame(frame, NOW) == [Ask(5, FileOperation.READ, question)]
    assert desk.awaits(5)
    desk.settle(5)
    assert not desk.awaits(5)


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (ask(1, "../x.txt"), FileError.FORBIDDEN),
        (create(1, flags=FileFlags(0)), FileError.MALFORMED),
        (create(1, flags=FileFlags.NOREPLACE | FileFlags.RESPONSE), FileError.MALFORMED),
        (create(1)[:-1], FileError.MALFORMED),
        (create(1) + b"x", FileError.MALFORMED),
    ],
    ids=["path", "replacing create", "answer", "cut", "longer"],
)
def test_broken_requests_are_told_so(frame: bytes, wanted: FileError) -> None:
    desk = Desk()
    assert errors(desk.receive_frame(frame, NOW)) == [wanted]
    assert desk.busy == 0


def test_bytes_that_name_no_transfer_get_no_answer() -> None:
    desk = Desk()
    for frame in (b"", b"\x30", bytes(16), b"\xff" * 40):
        assert desk.receive_frame(frame, NOW) == []
    assert desk.receive_frame(frames(outgoing(TEXT), TEXT)[0], NOW) == []

"""Runs of packets against the same packets one by one."""

from collections.abc import Sequence
from itertools import takewhile
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from tests.property.plain_recovery import PlainRecovery, PlainSent

from hookprobe.crypto.sealing import CipherCache
from hookprobe.htp.bulk import CHUNK_MAX_BYTES, RUN_MAX, RUN_MAX_BYTES, BulkQueue, Span
from hookprobe.htp.config import SUITE_HYBRID
from hookprobe.htp.congestion import NewReno
from hookprobe.htp.effects import BulkFragment
from hookprobe.htp.keys import SessionKeys
from hookprobe.htp.packet import (
    FLAG_ACK_ELICITING,
    FLAG_UNRELIABLE,
    Block,
    Mode,
    PacketType,
    encode_body,
    encode_header,
)
from hookprobe.htp.recovery import Flight, Recovery, Settled
from hookprobe.htp.session import Session, SessionNames
from hookprobe.htp.transfer_codec import (
    CHUNK_BYTES,
    FileFacts,
    FileFlags,
    FileHeader,
    FileOperation,
)
from hookprobe.htp.transfer_codec import encode_frame as encode_file_frame
from hookprobe.htp.transfer_receiver import Incoming
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

NOW = Instant(1_000_000)
KEYS = SessionKeys(b"1" * 32, b"2" * 32, b"3" * 4, b"4" * 4, b"5" * 32, b"6" * 32)


class Both:
    """The recovery of runs and the plain one, told the same."""

    def __init__(self) -> None:
        self.runs: Recovery[str] = Recovery(25 * MILLISECOND)
        self.plain = PlainRecovery(25 * MILLISECOND)
        self.flights = [Flight(NewReno(1 << 20), 1 << 20) for _ in range(4)]
        self.number, self.now = 0, NOW
        self.outcome: tuple[list[tuple[int, str]], list[PlainSent]] = ([], [])

    def send(self, counts: Sequence[int], which: int) -> None:
        for place, count in enumerate(counts):
            content, numbers = f"{self.number}+{place}", range(self.number, self.number + count)
            self.runs.on_run_sent(numbers, 1100, content, self.flights[which], self.now)
            for _ in numbers:
                flight = self.flights[which + 2]
                self.plain.on_sent(self.number, 1100, content, flight, self.now)
                self.number += 1

    def send_one(self, which: int | None) -> None:
        ours = None if which is None else self.flights[which]
        theirs = None if which is None else self.flights[which + 2]
        self.runs.on_sent(self.number, 700, "one", ours, self.now)
        self.plain.on_sent(self.number, 700, "one", theirs, self.now)
        self.number += 1

    def ack(self, seed: int) -> None:
        if not self.number:
            return
        random = Random(seed)
        named = sorted(random.sample(range(self.number), random.randint(1, self.number)))
        if seed % 3:
            low = random.randrange(self.number)
            named = sorted({*named[-2:], *range(low, random.randrange(low, self.number) + 1)})
        ranges = ranges_of(named)
        ours = self.runs.on_ack(ranges, (0, None), self.number, self.now)
        theirs = self.plain.on_ack(ranges, self.number, self.now)
        self.compare(ours.arrived, theirs[0])
        self.compare(ours.lost, theirs[1])

    def time_out(self) -> None:
        lost, probe = self.runs.handle_timeout(self.now)
        plain_lost, plain_probe = self.plain.handle_timeout(self.now)
        self.compare(lost, plain_lost)
        assert probe == plain_probe

    def renew(self) -> None:
        self.compare(self.runs.restart(), self.plain.restart())
        self.number = 0

    def compare(self, ours: list[Settled[str]], theirs: list[PlainSent]) -> None:
        found = [
            (sent.number + place, sent.content, sent.size)
            for sent, which in ours
            for place in range(which.bit_length())
            if which >> place & 1
        ]
        assert found == [(one.number, one.content, one.size) for one in theirs]
        for place in range(2):
            runs, plain = self.flights[place], self.flights[place + 2]
            assert runs.in_flight == plain.in_flight
            assert runs.window == plain.window
            assert runs.recovery_start == plain.recovery_start
        assert self.runs.next_timeout() == self.plain.next_timeout()
        assert (self.runs.rtt, self.runs.lost_count, self.runs.pto_count) == (
            self.plain.timing.rtt, self.plain.timing.lost_count, self.plain.timing.pto_count,
        )  # fmt: skip
        oldest = self.runs.oldest()
        waiting = next(iter(self.plain.sent.values()), None)
        assert (oldest is None) == (waiting is None)
        if oldest is not None and waiting is not None:
            assert oldest[0] == waiting.content


def ranges_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges of ascending numbers, descending."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found[::-1]


MOVES = st.one_of(
    st.tuples(st.just("run"), st.lists(st.integers(1, 16), min_size=1, max_size=6),
              st.integers(0, 1)),
    st.tuples(st.just("one"), st.sampled_from([None, 0, 1])),
    st.tuples(st.just("skip")),
    st.tuples(st.just("wait"), st.sampled_from([1, 500, 20 * MILLISECOND, SECOND])),
    st.tuples(st.just("ack"), st.integers(0, 2**32)),
    st.tuples(st.just("timeout")),
    st.tuples(st.just("renew")),
)  # fmt: skip


@given(st.lists(MOVES, max_size=40))
def test_recovery_of_runs_says_what_that_of_packets_says(moves: list[tuple[object, ...]]) -> None:
    both = Both()
    for move, *rest in moves:
        match move, rest:
            case "run", [list() as counts, int(which)]:
                both.send(counts, which)
            case "one", [which]:
                both.send_one(which if isinstance(which, int) else None)
            case "skip", _:
                both.number += 1  # an acknowledgement, which asks for no answer
            case "wait", [int(span)]:
                both.now = Instant(both.now + span)
            case "ack", [int(seed)]:
                both.ack(seed)
            case "timeout", _:
                both.time_out()
            case _:
                both.renew()


# -- sealing and opening --------------------------------------------------------------------------


def session(*, dialled: bool) -> Session:
    tokens = (b"a" * 8, b"b" * 8) if dialled else (b"b" * 8, b"a" * 8)
    names = SessionNames(NodeId("peer"), dialled, *tokens, b"", SUITE_HYBRID)
    made = Session(KEYS, names, CipherCache(4), 10, NOW)
    made.resonance = b"r" * 64
    return made


def sealed_plainly(first: int, runs: list[list[Span]], now: Instant) -> list[bytes]:
    """Seal fragments one by one, from nothing but the layout of packets."""
    cipher, packets = ChaCha20Poly1305(KEYS.dialler_key), list[bytes]()
    for chunk, place, width, last in (span for run in runs for span in run):
        for at in range(place, place + width):
            number = first + len(packets)
            tail = FLAG_ACK_ELICITING << 24 | at << 8 | last
            since = (now - NOW) // MILLISECOND
            header = encode_header(PacketType.DATA, chunk.sequence, since, b"b" * 8, number, tail)
            payload = chunk.head + chunk.pieces[at]
            plain = encode_body(b"r" * 64, payload, 16 + chunk.piece_bytes)
            nonce = KEYS.dialler_salt + number.to_bytes(8)
            packets.append(header + cipher.encrypt(nonce, plain, header))
    return packets


SIZES = st.lists(
    st.sampled_from([1, 15, 1024, 1069, 8192, 8191, 8193, CHUNK_MAX_BYTES]) | st.integers(1, 9000),
    min_size=1,
    max_size=9,
)


def drained(sizes: list[int], rooms: list[int], size: int) -> tuple[list[list[Span]], list[bytes]]:
    """Offer chunks, take all runs with room by room in turn, and return them and the chunks."""
    queue, chunks = BulkQueue(1 << 20), []
    for number, length in enumerate(sizes):
        chunks.append(bytes((number + 1,)) * (length - 1) + b"\xee")
        assert queue.offer(b"\x36" + bytes(14) + bytes((number,)), chunks[-1])
    runs, turn = [], 0
    while queue:
        turn += 1
        room = rooms[turn % len(rooms)]
        run = queue.take(room, size)
        if run:
            widths = sum(span.width for span in run)
            assert widths <= RUN_MAX
            assert widths * run[0].chunk.packet_bytes <= min(room, RUN_MAX_BYTES)
            runs.append(run)
    return runs, chunks


@given(SIZES, st.lists(st.integers(1200, 80_000), min_size=1, max_size=4),
       st.sampled_from([1200, 1188, 1472, 8952]),
       st.sampled_from([0, 254, 65_530, 2**40]))  # fmt: skip
def test_runs_are_sealed_byte_for_byte_like_single_packets(
    sizes: list[int], rooms: list[int], size: int, first: int
) -> None:
    now = Instant(NOW + 7 * MILLISECOND)
    runs, chunks = drained(sizes, [*rooms, 80_000], size)
    sender = session(dialled=True)
    sender._sealing.counter = first
    packets = [packet for run in runs for packet in sender.seal_run(run, now)]
    assert packets == sealed_plainly(first, runs, now)
    # And the pieces are the chunks.
    pieces: dict[int, bytes] = {}
    for span in (span for run in runs for span in run):
        for at in range(span.first, span.first + span.width):
            pieces[span.chunk.sequence] = (
                pieces.get(span.chunk.sequence, b"") + (span.chunk.pieces[at])
            )
    assert [pieces[number + 1] for number in range(len(chunks))] == chunks


def singles(fragments: Sequence[BulkFragment]) -> list[tuple[bytes, int, int, bytes]]:
    return [(one.head, one.place + at, one.last, piece)
            for one in fragments for at, piece in enumerate(one.pieces)]  # fmt: skip


@given(SIZES, st.booleans(), st.integers(0, 200), st.integers(0, 2000),
       st.sampled_from(["none", "flip", "swap", "repeat", "drop", "beacon"]))  # fmt: skip
def test_a_block_opens_like_its_packets_one_by_one(
    sizes: list[int], dialled: bool, spot: int, bit: int, bend: str
) -> None:
    """`dialled`: the receiving end; only the other one compares beacons."""
    runs, _ = drained(sizes, [80_000], 1200)
    sender = session(dialled=not dialled)
    packets: list[bytes] = []
    for run in runs:
        sender.resonance = b"x" * 64 if bend == "beacon" and len(packets) >= spot % 9 else b"r" * 64
        packets += sender.seal_run(run, NOW)
    size = len(packets[0])
    packets = [*takewhile(lambda packet: len(packet) == size, packets)][:56]
    spot %= len(packets)
    packet = packets[spot]
    match bend:
        case "flip":
            at = bit % size
            packets[spot] = packet[:at] + bytes((packet[at] ^ 1 << bit % 8,)) + packet[at + 1 :]
        case "swap":
            packets[spot], packets[0] = packets[0], packet
        case "repeat":
            packets.insert(spot, packet)
        case "drop":
            del packets[spot]
        case _:
            pass
    one_by_one, together = session(dialled=dialled), session(dialled=dialled)
    if not packets:
        return
    fragments, count, timestamp = together.open_burst(Block(b"".join(packets) + b"rest", size))
    wanted, stamp = one_by_one.open_run(packets)
    if count:  # all of it, or nothing: then it is for `open_run`
        assert singles(fragments) == singles(wanted)
        assert (count, timestamp) == (len(singles(wanted)), stamp)
        assert together._window.freeze() == one_by_one._window.freeze()
    else:
        assert together._window.freeze() == session(dialled=dialled)._window.freeze()
    if bend in ("none", "beacon"):
        assert count == len(singles(wanted))


def hostile(place: int, change: str) -> bytes:
    """Seal fragment `place` of 8 as packet `place`, with something that our sender never does."""
    token = b"c" * 8 if change == "token" else b"b" * 8
    tail = FLAG_ACK_ELICITING << 24 | place << 8 | 7
    tail = {
        "flags": tail | FLAG_UNRELIABLE << 24,
        "mode": tail | Mode.BURST << 16,
        "place": tail + (2 << 8),
        "cut": tail + 1,
        "impossible": tail | 9 << 8,
    }.get(change, tail)
    kind = PacketType.HEARTBEAT if change == "type" else PacketType.DATA
    number = place + 1 if change == "number" else place
    header = encode_header(kind, 5, 3, token, number, tail)
    head = {"kind": b"\x37" + bytes(15), "chunk": b"\x36" + b"q" * 15}.get(
        change, b"\x36" + bytes(15)
    )
    resonance = b"x" * 64 if change == "beacon" else b"r" * 64
    payload = head + bytes((place,)) * (0 if change == "empty" else 1024)
    plain = encode_body(resonance, payload, 1040)
    if change == "length":
        plain = plain[:67] + bytes((plain[67] - 1,)) + plain[68:]
    nonce = KEYS.dialler_salt + place.to_bytes(8)
    return header + ChaCha20Poly1305(KEYS.dialler_key).encrypt(nonce, plain, header)


CHANGES = ("none", "token", "flags", "mode", "place", "cut", "impossible", "type", "number",
           "kind", "chunk", "beacon", "empty", "length")  # fmt: skip
SAME = ("none", "place", "cut", "chunk")  # unusual for our sender, and yet to be taken


@pytest.mark.parametrize("spot", [0, 3, 7])
@pytest.mark.parametrize("change", CHANGES)
def test_attack_what_is_unusual_inside_a_block_is_left_to_the_long_way(
    change: str, spot: int
) -> None:
    packets = [hostile(place, change if place == spot else "none") for place in range(8)]
    one_by_one, together = session(dialled=False), session(dialled=False)
    wanted, _ = one_by_one.open_run(packets)
    assert len(wanted) == (8 if change in SAME and (change, spot) != ("place", 7) else spot)
    fragments, count, _ = together.open_burst(Block(b"".join(packets), len(packets[0])))
    assert count in (0, len(wanted))
    assert singles(fragments) == singles(wanted)[:count]
    assert together.received == count
    if change in SAME:
        assert count == len(wanted)


# -- files ----------------------------------------------------------------------------------------


def pieces_of(data: bytes, facts: FileFacts, index: int, count: int) -> list[BulkFragment]:
    flags = FileFlags.LAST if index == facts.chunks - 1 else FileFlags(0)
    fields = (FileOperation.CHUNK, flags, index, 1, facts.chunks, facts.sha256[:4])
    head = encode_file_frame(FileHeader(*fields))
    body = data[index * CHUNK_BYTES :][:CHUNK_BYTES]
    step = -(-len(body) // count)
    return [BulkFragment(head, place, count - 1, (body[place * step : (place + 1) * step],))
            for place in range(count)]  # fmt: skip


def neighbours(fragments: list[BulkFragment], random: Random) -> list[BulkFragment]:
    """Put some neighbours together, as they come out of a burst."""
    found: list[BulkFragment] = []
    for one in fragments:
        known = found[-1] if found else None
        follows = known is not None and known[:1] + known[2:3] == one[:1] + one[2:3]
        follows = follows and random.random() < 0.8
        if known is not None and follows and one.place == known.place + len(known.pieces):
            found[-1] = known._replace(pieces=known.pieces + one.pieces)
        else:
            found.append(one)
    return found


@given(st.integers(1, 5 * CHUNK_BYTES), st.integers(0, 2**32), st.integers(2, 9), st.integers(2, 9))
def test_neighbours_are_written_like_single_fragments(
    size: int, seed: int, coarse: int, fine: int
) -> None:
    random = Random(seed)
    data = random.randbytes(size)
    facts = FileFacts(size, bytes(32))
    fragments = [
        one
        for index in range(facts.chunks)
        for count in (coarse, fine)
        for one in pieces_of(data, facts, index, count)
        if one.pieces != (b"",)
    ]
    for _ in range(random.randrange(6)):
        at = random.randrange(len(fragments))
        fragments.insert(random.randrange(len(fragments)), fragments[at])
    alone, together = Incoming(facts, 1), Incoming(facts, 1)
    images, written = [bytearray(size), bytearray(size)], [0, 0]
    for receiver, image, found in (
        (alone, images[0], fragments),
        (together, images[1], neighbours(fragments, random)),
    ):
        for write in receiver.receive_fragments(found):
            written[image is images[1]] += len(write.data)
            image[write.offset : write.offset + len(write.data)] = write.data
    assert (alone.here, alone._left, alone._partial, images[0]) == (
        together.here, together._left, together._partial, images[1],
    )  # fmt: skip
    assert written[0] == written[1]

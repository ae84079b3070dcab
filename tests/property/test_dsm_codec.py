"""Every frame round-trips, and no bytes make the decoder raise anything but `RemoteError`."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dsm.kit import chain_of, mesh_of

from hookprobe.crypto import merkle
from hookprobe.dsm.certificate import QuorumCertificate, VoteKind
from hookprobe.dsm.checkpoint import Header, Range, certificate_of
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.frames import decode, encode
from hookprobe.dsm.linked import link
from hookprobe.dsm.messages import (
    CertificateMessage,
    Changes,
    GetChanges,
    GetCheckpoints,
    GetPack,
    GetRange,
    GetReceipts,
    GetRelics,
    Have,
    HeadsReply,
    Message,
    Pack,
    PackEntry,
    Receipt,
    Relics,
    Status,
    Vote,
)
from hookprobe.dsm.microblock import LaneKey, SignedBlock
from hookprobe.dsm.notes import parse_key, parse_note
from hookprobe.dsm.receipts import build_tree
from hookprobe.dsm.roll import SetChange
from hookprobe.dsm.tree_log import decode_proof, encode_proof, parse_place
from hookprobe.errors import RemoteError
from hookprobe.wire.identifiers import NodeId

digests = st.binary(min_size=32, max_size=32)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
counts = st.integers(0, 2**53 - 1)
numbers = st.integers(1, 2**53 - 1)
nodes = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,31}", fullmatch=True).map(NodeId)
lanes = st.tuples(nodes, u32)
kinds = st.sampled_from(VoteKind)
signatures = st.binary(min_size=96, max_size=96)
certificates = st.builds(
    QuorumCertificate, kinds, u64, u32, digests, st.binary(max_size=16), signatures
)
heads = st.builds(Head, u32, u64, digests)
ranges = st.builds(
    lambda node, inc, pair, head: Range(node, inc, min(pair), max(pair), head),
    nodes,
    st.integers(1, 2**32 - 1),
    st.tuples(numbers, numbers),
    digests,
)
sealed = st.builds(
    lambda header, *told: (header.encode(), certificate_of(header.encode(), *told)),
    st.builds(
        Header, digests, counts, digests, counts, digests, counts, digests, digests, digests,
        digests, counts, digests, digests, nodes,
    ),
    u32,
    st.binary(max_size=16),
    signatures,
)  # fmt: skip
changes = st.builds(SetChange, st.binary(max_size=4096), certificates, st.binary(max_size=99))
blocks = st.sampled_from(chain_of(mesh_of(4), 3))


def packed(request: int, lane: LaneKey, chosen: list[SignedBlock]) -> Pack:
    linked = [link(lane, block.raw, block.signature) for block in chosen]
    return Pack(request, lane, tuple(PackEntry(block) for block in linked))


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Have, st.lists(st.tuples(lanes, u64), max_size=5).map(tuple)),
    st.builds(GetRange, u32, lanes, u64, u64, digests),
    st.builds(Vote, kinds, u64, u32, digests, st.integers(0, 2**16 - 1), signatures),
    st.builds(CertificateMessage, certificates),
    st.builds(Status, u64, digests, digests, u64),
    st.builds(GetCheckpoints, u64, st.integers(0, 2**16 - 1)),
    st.builds(
        lambda header, *others: Receipt(*header, *others),
        sealed,
        ranges,
        u64,
        st.lists(digests, max_size=9).map(tuple),
    ),
    st.builds(HeadsReply, st.lists(heads, max_size=5).map(tuple)),
    st.builds(GetReceipts, u32, u64),
    st.builds(GetChanges, u64),
    st.builds(Changes, st.lists(changes, max_size=3).map(tuple)),
    st.builds(GetRelics, u64, u64),
    st.builds(Relics, u64, u64, st.lists(st.tuples(u64, blocks), max_size=3).map(tuple)),
    st.builds(GetPack, u32, lanes, u64, u64, digests),
    st.builds(packed, u32, lanes, st.lists(blocks, max_size=3)),
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(messages)
def test_messages_round_trip(message: Message) -> None:
    assert decode(encode(message)) == message


@settings(deadline=None, derandomize=True, max_examples=100)
@given(messages, st.data())
def test_damaged_frames_are_another_message_or_a_remote_error(
    message: Message, data: st.DataObject
) -> None:
    frame = encode(message)
    place = data.draw(st.integers(0, len(frame) - 1))
    damaged = frame[:place] + bytes((frame[place] ^ 1 + data.draw(st.integers(0, 254)),))
    damaged += frame[place + 1 :] if data.draw(st.booleans()) else b""
    try:
        found = decode(damaged)
    except RemoteError:
        return
    assert encode(found) == damaged


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(1, 20), st.binary(max_size=300))
def test_no_bytes_break_the_decoder(kind: int, rest: bytes) -> None:
    try:
        message = decode(b"\1" + bytes((kind,)) + rest)
    except RemoteError:
        return
    assert encode(message) == b"\1" + bytes((kind,)) + rest


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
def test_no_bytes_break_the_readers_of_the_log(data: bytes) -> None:
    title = b"c2sp.org/tlog-proof@v1\nindex 1\n\n"
    for lead in (b"", b"origin\n1\n", title, b"a\n\n\xe2\x80\x94 a "):
        whole = lead + data
        with suppress(RemoteError):
            assert parse_note(whole).encode() == whole
        with suppress(RemoteError):
            assert encode_proof(decode_proof(whole)) == whole
        with suppress(RemoteError):
            assert parse_place(whole).encode() == whole
        with suppress(RemoteError, UnicodeDecodeError):
            assert parse_key(whole.decode()).encode() == whole.decode()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_receipts_of_all_chains_are_range_proofs_of_the_epoch_tree(counts: list[int]) -> None:
    leaves = [number.to_bytes(32, "big") for number in range(sum(counts))]
    spans: list[Range] = []
    at = 0
    for place, count in enumerate(counts):
        spans.append(Range(NodeId(f"n{place:02}"), 1, 1, count, leaves[at + count - 1]))
        at += count
    tree = build_tree(spans, leaves)
    for span in spans:
        start, proof = tree.prove(span)
        assert proof == merkle.prove_range(leaves, start, start + span.count)
        merkle.check_range(
            leaves[start : start + span.count], start, len(leaves), proof, merkle.root(leaves)
        )

"""Microblocks, genesis, enrolment and evidence: forms and forgeries."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.dsm.kit import EDGE, NOW, chain_of, court_of, enrolment_of, judged, mesh_of

from hookprobe.dsm.checkpoint import parse_header
from hookprobe.dsm.enrolment import Head, check_enrolment, parse_enrolment
from hookprobe.dsm.frames import decode
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.messages import FRAME_MAX_BYTES, Blocks
from hookprobe.dsm.microblock import (
    Microblock,
    NeuroBinding,
    Payload,
    decode_payload,
    encode_payload,
    parse_block,
    sign_block,
    verify_block,
)
from hookprobe.dsm.misbehaviour import fork_evidence
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.errors import LimitExceededError, RemoteError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND
from hookprobe.wire.reader import Writer

MESH = mesh_of(4)
COURT = court_of(MESH)
KEY = MESH.keys.signer(EDGE).public_key
NOW_MS = NOW // MILLISECOND


def block() -> Microblock:
    neuro = NeuroBinding("ab" * 32, "cd" * 32, "ef" * 64)
    return replace(chain_of(MESH, 2)[1].block, neuro=neuro)


def test_the_id_covers_every_field_and_neither_itself_nor_the_signature() -> None:
    first = sign_block(block(), MESH.keys.signer(EDGE))
    assert parse_block(first.raw, first.signature) == first
    assert parse_block(first.raw, bytes(64)).id == first.id
    changes: tuple[dict[str, Any], ...] = (
        {"chain": b"x" * 32},
        {"inc": 2},
        {"seq": 3},
        {"prev": b"x" * 32},
        {"timestamp_ms": 1},
        {"event_type": "other"},
        {"payload_hash": b"x" * 32},
        {"neuro": None},
        {"body": {}},
        {"node_id": NodeId("other")},
    )
    for change in changes:
        changed = replace(block(), **change)
        assert sign_block(changed, MESH.keys.signer(EDGE)).id != first.id


def test_a_signature_by_another_key_or_over_another_block_is_refused() -> None:
    first = sign_block(block(), MESH.keys.signer(EDGE))
    verify_block(first, KEY, COURT.signatures)
    for wrong in (
        sign_block(block(), MESH.keys.signer("other")),
        replace(first, id=b"x" * 32),
        replace(first, signature=bytes(64)),
    ):
        with pytest.raises(VerificationError):
            verify_block(wrong, KEY, COURT.signatures)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"seq":2', b'"seq":2.0'),
        (b'"seq":2', b'"seq": 2'),
        (b'"seq":2', b'"seq":0'),
        (b'"seq":2', b'"seq":1'),
        (b'"inc":1', b'"inc":0'),
        (b'"inc":1', b'"inc":4294967296'),
        (b'"type":"M"', b'"type":"C"'),
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"x":1'),
        (b'"node_id":"edge"', b'"node_id":"Edge"'),
        (b'"ter_hash":"ab', b'"ter_hash":"AB'),
        (b'"event_type":"alert",', b""),
    ],
)
def test_blocks_in_another_form_are_refused(old: bytes, new: bytes) -> None:
    raw = block().encode()
    assert raw.count(old) == 1
    with pytest.raises(RemoteError):
        parse_block(raw.replace(old, new), bytes(64))


def test_blocks_bodies_and_payloads_are_limited() -> None:
    with pytest.raises(LimitExceededError):
        sign_block(replace(block(), body={"x": "y" * 9000}), MESH.keys.signer(EDGE))


def nested(levels: int) -> JsonObject:
    body: JsonObject = {"x": 1}
    for _ in range(levels - 1):
        body = {"x": body}
    return body


def test_a_body_has_six_levels_so_that_evidence_can_wrap_it() -> None:
    signed = sign_block(replace(block(), body=nested(6)), MESH.keys.signer(EDGE))
    assert canonical.encode({"block": canonical.decode_object(signed.raw)})
    with pytest.raises(LimitExceededError):
        sign_block(replace(block(), body=nested(7)), MESH.keys.signer(EDGE))
    raw = canonical.encode(canonical.decode_object(signed.raw) | {"body": nested(7)})
    with pytest.raises(LimitExceededError):
        parse_block(raw, signed.signature)
    with pytest.raises(LimitExceededError):
        parse_block(b" " * 20_000, bytes(64))
    with pytest.raises(LimitExceededError):
        decode_payload(bytes(70_000))


def test_a_payload_is_bound_by_its_salted_hash() -> None:
    payload = Payload(b"s" * 16, b"alert")
    assert decode_payload(encode_payload(payload)) == payload
    assert payload.hash() != Payload(b"t" * 16, b"alert").hash()
    assert payload.hash() != Payload(b"s" * 16, b"alert!").hash()
    with pytest.raises(RemoteError):
        decode_payload(b"short")


def test_an_enrolment_survives_its_body() -> None:
    plain = enrolment_of(MESH)
    lost = replace(plain, lost=Head(3, 9, b"h" * 32))
    for enrolment in (plain, lost):
        assert parse_enrolment(enrolment.to_body()) == enrolment


def enrolment_key(chain: bytes = MESH.chain, at_ms: int = NOW_MS, **change: Any) -> bytes:
    enrolment = replace(enrolment_of(MESH), **change)
    return check_enrolment(enrolment, chain, at_ms, COURT.ca_keys, COURT.signatures)


def test_an_enrolment_holds_for_its_chain_time_ca_and_bytes_only() -> None:
    assert enrolment_key() == KEY
    other_key = replace(enrolment_of(MESH).certificate, key=b"k" * 32)
    wrongs: tuple[dict[str, Any], ...] = (
        {"chain": b"x" * 32},
        {"at_ms": 1},
        {"at_ms": 2**50},
        {"ca_key": MESH.keys.signer("mallory").public_key},
        {"ca_signature": bytes(64)},
        {"certificate": other_key},
    )
    for wrong in wrongs:
        with pytest.raises(VerificationError):
            enrolment_key(**wrong)


@pytest.mark.parametrize("body", [{}, {"kind": "enrol"}, {"kind": "recover"}, {"kind": "x"}])
def test_other_bodies_do_not_enrol(body: dict[str, str]) -> None:
    with pytest.raises(RemoteError):
        parse_enrolment(dict(body))


def test_the_chain_id_is_the_hash_of_the_whole_genesis_document() -> None:
    genesis = MESH.genesis
    assert decode_genesis(genesis.encode()) == genesis
    assert decode_genesis(genesis.encode()).chain_id() == MESH.chain
    changes: tuple[dict[str, Any], ...] = (
        {"name": "other"},
        {"start": 1},
        {"floor_cap": 1},
        {"epoch_duration_us": 10**6 + 1},
        {"validators": genesis.validators[:-1]},
    )
    for change in changes:
        assert replace(genesis, **change).chain_id() != MESH.chain


def test_a_genesis_document_without_proofs_order_or_tolerance_is_refused() -> None:
    genesis, votes = MESH.genesis, MESH.keys.schemes.votes
    members = genesis.validators
    rogue = replace(members[0], possession_proof=bytes(96))
    doubled = replace(members[1], vote_key=members[0].vote_key)
    changes: tuple[dict[str, Any], ...] = (
        {"validators": (rogue, *members[1:])},
        {"validators": (members[0], doubled, *members[2:])},
        {"validators": members[::-1]},
        {"validators": (members[0], *members)},
        {"validators": ()},
        {"validators": members[:3]},
        {"ca_keys": ()},
        {"ca_keys": (b"b" * 32, b"a" * 32)},
    )
    for change in changes:
        with pytest.raises(VerificationError):
            replace(genesis, **change).check(votes)
    assert replace(genesis, validators=members[:3], dev=True).check(votes).quorum == 3


def test_real_keys_need_real_proofs_of_possession() -> None:
    genesis = mesh_of(real=True).genesis
    votes = mesh_of(real=True).keys.schemes.votes
    genesis.check(votes)
    first, second, *rest = genesis.validators
    stolen = replace(first, possession_proof=second.possession_proof)
    infinity = replace(first, vote_key=b"\xc0" + bytes(47), possession_proof=b"\xc0" + bytes(95))
    for wrong in (stolen, infinity):
        with pytest.raises(VerificationError, match="proof of possession"):
            replace(genesis, validators=(wrong, second, *rest)).check(votes)


def test_leaders_rotate_with_epoch_and_view() -> None:
    validators = ValidatorSet(MESH.genesis.validators)
    assert [validators.leader(0, view) for view in (1, 2, 3, 4, 5)] == [0, 1, 2, 3, 0]
    assert validators.leader(6, 1) == 2


def test_evidence_has_one_encoding_and_no_byte_of_it_can_change() -> None:
    one = chain_of(MESH, 2)
    rival = sign_block(replace(one[1].block, payload_hash=b"z" * 32), MESH.keys.signer(EDGE))
    evidence = fork_evidence(enrolment_of(MESH), one[1], rival)
    assert evidence == fork_evidence(enrolment_of(MESH), rival, one[1])
    assert judged(evidence, COURT).offender == EDGE
    for place in range(0, len(evidence), 5):
        changed = evidence[:place] + bytes((evidence[place] ^ 1,)) + evidence[place + 1 :]
        with pytest.raises(RemoteError):
            judged(changed, COURT)


def test_an_honest_pair_is_no_evidence() -> None:
    one = chain_of(MESH, 3)
    for first, second in ((one[1], one[2]), (one[1], one[1])):
        with pytest.raises(RemoteError):
            judged(fork_evidence(enrolment_of(MESH), first, second), COURT)
    stranger = chain_of(MESH, 2, node="other", salt=3)[1]
    with pytest.raises(RemoteError):
        judged(fork_evidence(enrolment_of(MESH), one[1], stranger), COURT)


def test_frames_are_limited() -> None:
    with pytest.raises(LimitExceededError):
        decode(bytes(FRAME_MAX_BYTES + 1))
    with pytest.raises(LimitExceededError):
        decode(b"\1\1" + bytes(4) + b"\xff\xff")
    with pytest.raises(RemoteError):
        decode(b"")
    with pytest.raises(RemoteError):
        decode(b"\2\1")
    with pytest.raises(RemoteError):
        decode(b"\1\0")
    assert decode(b"\1\1" + bytes(6)) == Blocks(0, ())


def test_a_header_is_an_object_of_exactly_its_fields() -> None:
    for raw in (b"{}", b"[]", b'{"type":"C","v":1}', b"\xff"):
        with pytest.raises(RemoteError):
            parse_header(raw)


def test_the_halves_of_evidence_have_one_order_and_differ() -> None:
    one = chain_of(MESH, 2)
    rival = sign_block(replace(one[1].block, payload_hash=b"z" * 32), MESH.keys.signer(EDGE))
    first, second = sorted((one[1].encode(), rival.encode()))
    about = canonical.encode(enrolment_of(MESH).to_body())

    def evidence(*halves: bytes) -> bytes:
        writer = Writer().u8(1).block16(about)
        for half in halves:
            writer.block16(half)
        return writer.finish()

    assert judged(evidence(first, second), COURT).offender == EDGE
    for wrong in (evidence(second, first), evidence(first, first), evidence(first)):
        with pytest.raises(RemoteError):
            judged(wrong, COURT)

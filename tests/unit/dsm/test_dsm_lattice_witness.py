"""ML-DSA-44 cosignatures (C2SP tlog-cosignature, type 6): known answers, forgeries, and the log."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tests.unit.dsm.kit import Net
from tests.unit.dsm.ledger_net import V0, running
from tests.unit.dsm.test_dsm_tree_log import log_of

from hookprobe.crypto import lattice
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.notes import (
    LATTICE_WITNESS_KEY,
    LOG_KEY,
    WITNESS_KEY,
    Note,
    NoteKey,
    NoteSignature,
    check_note,
    cosign,
    cosigned_subtree,
    parse_head,
    parse_key,
)
from hookprobe.dsm.store import Persist
from hookprobe.errors import LocalError, MalformedError, VerificationError

KATS = Path(__file__).parents[2] / "data/mldsa/kat_44_det_pure_subset.json"
SECRET = MLDSA44PrivateKey.from_seed_bytes(b"\x2a" * 32)
KEY = NoteKey("witness.example/pq", LATTICE_WITNESS_KEY, SECRET.public_key().public_bytes_raw())
HEAD = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
TIME = 1_700_000_123


def line_over(message: bytes, time_s: int = TIME, key: NoteKey = KEY) -> NoteSignature:
    return NoteSignature(key.name, key.id(), time_s.to_bytes(8, "big") + SECRET.sign(message))


def cosigned(text: str, time_s: int = TIME, key: NoteKey = KEY) -> NoteSignature:
    return line_over(cosigned_subtree(key.name, parse_head(text), time_s), time_s, key)


def test_known_answers_hold_and_nothing_near_them() -> None:
    cases = json.loads(KATS.read_bytes())
    assert len(cases) == 4
    for case in cases:
        parts = (bytes.fromhex(case[name]) for name in ("pk", "msg", "sig", "ctx"))
        key, message, signature, context = parts
        assert lattice.verify(key, message, signature, context)
        assert not lattice.verify(key, message, signature)
        assert not lattice.verify(key, message + b"\0", signature, context)
        for at in (0, 31, 32, 1200, 2419):
            flipped = bytearray(signature)
            flipped[at] ^= 1
            assert not lattice.verify(key, message, bytes(flipped), context)
        assert not lattice.verify(key[:-1] + bytes([key[-1] ^ 1]), message, signature, context)
        for wrong in (b"", signature[:-1], signature + b"\0"):
            assert not lattice.verify(key, message, wrong, context)
        assert not lattice.verify(key[:-1], message, signature, context)


def test_the_signed_message_is_that_of_the_specification() -> None:
    head = parse_head(HEAD)
    wanted = (
        b"subtree/v1\n\0"
        b"\x12witness.example/pq"
        + bytes.fromhex("000000006553f17b")
        + b"\x1bexample.com/behind-the-sofa"
        + bytes(8)
        + (20852163).to_bytes(8, "big")
        + head.root
    )
    assert cosigned_subtree(KEY.name, head, TIME) == wanted


def test_a_key_has_one_text_form() -> None:
    assert parse_key(KEY.encode()) == KEY
    for wrong in (
        replace(KEY, key=KEY.key[:-1]),
        replace(KEY, kind=5),
        replace(KEY, kind=WITNESS_KEY),
        replace(KEY, kind=LOG_KEY),
        replace(KEY, name="w" * 256),
        NoteKey("w", LATTICE_WITNESS_KEY, bytes(32)),
    ):
        with pytest.raises(MalformedError):
            parse_key(wrong.encode())


def test_a_cosignature_holds_for_its_witness_tree_and_time_only() -> None:
    good = cosigned(HEAD)
    assert check_note(Note(HEAD, (good,)), [KEY], Ed25519()) == {KEY: TIME}
    other = "example.com/behind-the-sofa\n20852164\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    elsewhere = HEAD.replace("sofa", "desk")
    namesake = replace(KEY, name="another.example")
    forged: list[tuple[str, NoteSignature]] = [
        (other, good),
        (elsewhere, good),
        (HEAD, replace(good, signature=(TIME + 1).to_bytes(8, "big") + good.signature[8:])),
        (HEAD, replace(good, signature=good.signature[:-1])),
        (HEAD, replace(good, signature=b"")),
        (HEAD, line_over(f"cosignature/v1\ntime {TIME}\n{HEAD}".encode())),
        (HEAD, cosigned(HEAD, 2**63)),
    ]
    for text, line in forged:
        with pytest.raises(VerificationError):
            check_note(Note(text, (line,)), [KEY], Ed25519())
    line = replace(good, name=namesake.name, key_id=namesake.id())
    with pytest.raises(VerificationError):  # its name is signed, unlike with Ed25519
        check_note(Note(HEAD, (line,)), [namesake], Ed25519())
    long_origin = HEAD.replace("example.com", "e" * 250)
    with pytest.raises(VerificationError):
        check_note(Note(long_origin, (good,)), [KEY], Ed25519())


@pytest.fixture(scope="module", name="net")
def _net() -> Net:
    net, _ = running(5)
    return net


def test_a_validator_keeps_what_holds_beside_ed25519_and_nothing_else(net: Net) -> None:
    keys = net.mesh.keys
    old = NoteKey("w.example", WITNESS_KEY, keys.signer("witness").public_key)
    log = log_of(net, old, KEY)
    note = log.checkpoint(keys.signer(V0), 2)
    lines = (cosign(note.text, old, keys.signer("witness"), 5), cosigned(note.text))
    rows = log.accept(Note(note.text, (*note.signatures, *lines)).encode())
    assert len(rows) == 2
    net.stores[V0].apply(Persist(rows))
    served = log.checkpoint(keys.signer(V0), 2)
    assert set(served.signatures[1:]) == set(lines)
    signed = check_note(served, [old, KEY], keys.schemes.signatures)
    assert signed == {old: 5, KEY: TIME}
    broken = replace(lines[1], signature=lines[1].signature[:-1] + b"\0")
    with pytest.raises(VerificationError):
        log.accept(Note(note.text, (*note.signatures, lines[0], broken)).encode())


def test_a_build_that_cannot_verify_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable:
        from_public_bytes: Callable[[bytes], object]

    def refuse(key: bytes) -> object:
        raise UnsupportedAlgorithm("ML-DSA-44")

    Unable.from_public_bytes = staticmethod(refuse)
    monkeypatch.setattr(lattice, "MLDSA44PublicKey", Unable)
    with pytest.raises(LocalError, match="cannot verify") as caught:
        check_note(Note(HEAD, (cosigned(HEAD),)), [KEY], Ed25519())
    assert "dsm.log.witnesses" in caught.value.hint

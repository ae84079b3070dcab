from dataclasses import replace

import pytest
from tests.unit.dsm.kit import certificate_of, court_of, mesh_of

from hookprobe.dsm.certificate import (
    NO_DIGEST,
    QuorumCertificate,
    VoteKind,
    decode_certificate,
    encode_bitmap,
    faults,
    quorum,
    vote_message,
)
from hookprobe.errors import MalformedError, RemoteError, VerificationError

MESH = mesh_of(4)
COURT = court_of(MESH)
DIGEST = b"d" * 32


def check(certificate: QuorumCertificate, chain: bytes = MESH.chain) -> None:
    COURT.validators.check_certificate(certificate, chain, COURT.votes)


def genuine(signers: tuple[int, ...] = (0, 1, 3)) -> QuorumCertificate:
    return certificate_of(MESH, VoteKind.FINALIZE, (7, 2), DIGEST, signers)


def test_quorums_overlap_in_an_honest_validator_for_every_size() -> None:
    for size in range(1, 400):
        assert 2 * quorum(size) - size > faults(size)
        assert quorum(size) <= size - faults(size)
    assert [quorum(size) for size in (1, 3, 4, 5, 7, 10, 100, 103)] == [*(1, 3, 3, 4, 5, 7, 67, 69)]


def test_three_of_four_signers_hold() -> None:
    check(genuine())
    check(genuine((0, 1, 2, 3)))


def test_the_vote_message_has_its_frozen_form() -> None:
    message = vote_message(b"c" * 32, VoteKind.FINALIZE, 1, 2, DIGEST)
    assert (
        message == b"HPDSM1\0\0" + b"c" * 32 + b"\3" + bytes(7) + b"\1" + bytes(3) + b"\2" + DIGEST
    )
    assert len(message) == 85


def test_two_signers_do_not_pass_for_three() -> None:
    with pytest.raises(VerificationError, match="2 signers, 3"):
        check(genuine((0, 1)))


def test_a_claimed_signer_that_did_not_sign_is_found() -> None:
    forged = replace(genuine((0, 1)), bitmap=encode_bitmap((0, 1, 3), 4))
    with pytest.raises(VerificationError, match="aggregate"):
        check(forged)


def test_a_signer_left_out_of_the_bitmap_is_found() -> None:
    with pytest.raises(VerificationError, match="aggregate"):
        check(replace(genuine((0, 1, 2, 3)), bitmap=encode_bitmap((0, 1, 2), 4)))


def test_one_signature_twice_does_not_count_twice() -> None:
    message = vote_message(MESH.chain, VoteKind.FINALIZE, 7, 2, DIGEST)
    vote = MESH.keys.vote_signer("v00").sign(message)
    doubled = MESH.keys.schemes.votes.aggregate([vote, vote, vote])
    with pytest.raises(VerificationError):
        check(replace(genuine(), signature=doubled))


@pytest.mark.parametrize("bitmap", [b"", b"\x1b", b"\x0b\0", b"\xff"])
def test_bitmaps_have_exactly_the_bits_of_the_set(bitmap: bytes) -> None:
    with pytest.raises(VerificationError, match=r"bitmap|bit \d"):
        check(replace(genuine(), bitmap=bitmap))


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 8},
        {"view": 3},
        {"digest": b"e" * 32},
        {"kind": VoteKind.NOTARIZE},
        {"signature": bytes(96)},
    ],
)
def test_a_certificate_means_nothing_elsewhere(change: dict[str, object]) -> None:
    with pytest.raises(VerificationError):
        check(replace(genuine(), **change))  # type: ignore[arg-type]


def test_a_certificate_means_nothing_on_another_chain() -> None:
    with pytest.raises(VerificationError):
        check(genuine(), b"x" * 32)


def test_only_a_nullification_has_no_digest() -> None:
    check(certificate_of(MESH, VoteKind.NULLIFY, (7, 2), NO_DIGEST, (0, 1, 2)))
    for kind, digest in ((VoteKind.NULLIFY, DIGEST), (VoteKind.FINALIZE, NO_DIGEST)):
        with pytest.raises(VerificationError, match="digest"):
            check(certificate_of(MESH, kind, (7, 2), digest, (0, 1, 2)))


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    data = genuine().encode()
    for place in range(len(data)):
        tampered = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        with pytest.raises(RemoteError):
            check(decode_certificate(tampered))


def test_truncated_certificates_are_malformed() -> None:
    data = genuine().encode()
    for size in range(len(data)):
        with pytest.raises(MalformedError):
            decode_certificate(data[:size])

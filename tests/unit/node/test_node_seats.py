"""Attestations of applicants: what each shows, and what none can pretend."""

from dataclasses import replace

import pytest
from tests.unit.neuro.paper_tpm import PaperTpm

from hookprobe.neuro.quote_documents import QuoteAnswer
from hookprobe.node.seats import NOT_ATTESTED, Seat, encode_attestation, judge_attestation
from hookprobe.wire.identifiers import NodeId

SEAT = Seat(b"c" * 32, NodeId("validator-5"), b"k" * 32, b"v" * 48)
TPM = PaperTpm()
KEY = TPM.name()[2:].hex()


def attestation(tpm: PaperTpm = TPM, seat: Seat = SEAT) -> bytes:
    return encode_attestation(tpm.attestation(), tpm.quote(seat.about()))


def test_a_quote_by_a_key_that_somebody_vouches_for() -> None:
    judged = judge_attestation(attestation(), SEAT, (KEY,))
    assert (judged.label, judged.reason, judged.tpm_key) == ("tpm-attested", "", KEY)


@pytest.mark.parametrize("vouched", [(), ("00" * 32,), (KEY.upper(),), (KEY[:-2],)])
def test_without_a_voucher_it_is_software_that_speaks(vouched: tuple[str, ...]) -> None:
    judged = judge_attestation(attestation(), SEAT, vouched)
    assert (judged.label, judged.tpm_key) == ("software-attested", KEY)
    assert "vouches" in judged.reason


@pytest.mark.parametrize(
    "other",
    [
        replace(SEAT, chain=b"d" * 32),
        replace(SEAT, node=NodeId("validator-6")),
        replace(SEAT, key=b"x" * 32),
        replace(SEAT, vote_key=b"x" * 48),
    ],
)
def test_a_quote_about_another_seat_is_none(other: Seat) -> None:
    judged = judge_attestation(attestation(seat=other), SEAT, (KEY,))
    assert judged.label == NOT_ATTESTED
    assert "something else" in judged.reason


def test_what_is_none_is_told_with_its_reason() -> None:
    good = attestation()
    answer = TPM.quote(SEAT.about())
    unrestricted = PaperTpm(signing=0x00040072)
    nobody = QuoteAnswer(answer.attest, PaperTpm(seed=9).sign(answer.attest), answer.pcrs)
    other_pcrs = QuoteAnswer(
        answer.attest, answer.signature, {0: b"\1" * 32, 1: bytes(32), 7: bytes(32)}
    )
    cases = {
        b"": "carries no attestation",
        b"quote": "",
        b"\2" + good[1:]: "unknown form",
        good[:-1]: "",
        good + b"\0": "",
        good + bytes(8000): "",
        attestation(unrestricted): "not a restricted signing key",
        attestation(PaperTpm(magic=1)): "attests something else",
        attestation(PaperTpm(pcrs={})): "nothing that was booted",
        encode_attestation(TPM.attestation(), nobody): "signed by another key",
        encode_attestation(TPM.attestation(), other_pcrs): "other PCR values",
    }
    for data, reason in cases.items():
        judged = judge_attestation(data, SEAT, (KEY,))
        assert (judged.label, judged.tpm_key) == (NOT_ATTESTED, ""), data[:10]
        assert judged.reason
        assert reason in judged.reason


def test_no_flipped_bit_makes_another_attestation_of_it() -> None:
    good = attestation()
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1
        judged = judge_attestation(bytes(changed), SEAT, (KEY,))
        # Attributes of the key stand in no quote; they are in its name, for which nobody vouches.
        assert judged.label != "tpm-attested", at
        assert judged.tpm_key != KEY, at

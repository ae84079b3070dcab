"""Attestations of applicants: what each shows, and what none can pretend."""

from dataclasses import replace

import pytest
from tests.unit.neuro.paper_tpm import PaperTpm

from hookprobe.neuro.quote_documents import QuoteAnswer
from hookprobe.node.seats import (
    NOT_ATTESTED,
    Age,
    Anchor,
    Judgement,
    Past,
    Seat,
    Terms,
    encode_attestation,
    judge_attestation,
)
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, MILLISECOND, SECOND, Duration
from hookprobe.wire.reader import Writer

SEAT = Seat(b"c" * 32, NodeId("validator-5"), b"k" * 32, b"v" * 48)
TPM = PaperTpm()
KEY = TPM.name()[2:].hex()
EPOCH_MS = 300_000
ANCHORS = {epoch: Anchor(epoch, bytes([epoch]) * 32, epoch * EPOCH_MS) for epoch in range(1, 100)}
ANCHOR = ANCHORS[7]
VOUCHING = Terms((KEY,))


def past(epoch: int = 9, later_ms: int = 0) -> Past:
    """The ledger of a judge at an epoch, and so long after its checkpoint."""
    known = {number: anchor for number, anchor in ANCHORS.items() if number <= epoch}
    return Past(known.get, epoch, epoch * EPOCH_MS + later_ms)


def attestation(tpm: PaperTpm = TPM, seat: Seat = SEAT, anchor: Anchor = ANCHOR) -> bytes:
    quote = tpm.quote(seat.about(anchor.checkpoint))
    return encode_attestation(anchor, tpm.attestation(), quote)


def judge(data: bytes, terms: Terms = VOUCHING) -> Judgement:
    return judge_attestation(data, SEAT, past(), terms)


def test_a_quote_by_a_key_that_somebody_vouches_for() -> None:
    judged = judge(attestation())
    assert (judged.label, judged.reason, judged.tpm_key) == ("tpm-attested", "", KEY)
    assert judged.age == Age(epochs=2, seconds=600)


@pytest.mark.parametrize("vouched", [(), ("00" * 32,), (KEY.upper(),), (KEY[:-2],)])
def test_without_a_voucher_it_is_software_that_speaks(vouched: tuple[str, ...]) -> None:
    judged = judge(attestation(), Terms(vouched))
    assert (judged.label, judged.tpm_key) == ("software-attested", KEY)
    assert "vouches" in judged.reason
    assert judged.age is not None


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
    judged = judge(attestation(seat=other))
    assert (judged.label, judged.tpm_key, judged.age) == (NOT_ATTESTED, "", None)
    assert "something else" in judged.reason


def test_another_applicants_attestation_cannot_be_replayed() -> None:
    theirs = attestation(seat=replace(SEAT, node=NodeId("validator-6"), key=b"x" * 32))
    thief = replace(SEAT, vote_key=b"x" * 48)
    for seat in (SEAT, thief):
        judged = judge_attestation(theirs, seat, past(), VOUCHING)
        assert (judged.label, judged.tpm_key) == (NOT_ATTESTED, "")


@pytest.mark.parametrize(
    "anchor",
    [
        replace(ANCHOR, checkpoint=b"x" * 32),  # of another ledger
        replace(ANCHOR, epoch=8),  # ours, but not of that epoch
        ANCHORS[10],  # not final here yet
        replace(ANCHOR, epoch=2**64 - 1),
    ],
)
def test_a_checkpoint_that_is_not_of_this_ledger_dates_nothing(anchor: Anchor) -> None:
    judged = judge(attestation(anchor=anchor))
    assert (judged.label, judged.tpm_key, judged.age) == (NOT_ATTESTED, "", None)
    assert f"freshness unknown: its checkpoint of epoch {anchor.epoch}" in judged.reason


def test_an_old_quote_does_not_become_young_by_a_new_checkpoint() -> None:
    quote = TPM.quote(SEAT.about(ANCHORS[3].checkpoint))
    judged = judge(encode_attestation(ANCHORS[9], TPM.attestation(), quote))
    assert judged.label == NOT_ATTESTED
    assert "about something else" in judged.reason


@pytest.mark.parametrize("late_ms", [0, 1])
def test_what_is_older_than_the_limit_is_stale(late_ms: int) -> None:
    terms = Terms((KEY,), Duration(600 * SECOND))
    judged = judge_attestation(attestation(), SEAT, past(later_ms=late_ms), terms)
    assert judged.tpm_key == KEY
    assert judged.age == Age(2, 600)
    if late_ms:
        assert judged.label == NOT_ATTESTED
        assert judged.reason == "stale: at most 2 epochs or 600 s old, the limit is 600 s"
    else:
        assert judged.label == "tpm-attested"


def test_a_day_is_the_limit_where_nobody_says_otherwise() -> None:
    day_ms = 24 * HOUR // MILLISECOND - 2 * EPOCH_MS
    labels = [
        judge_attestation(attestation(), SEAT, past(later_ms=day_ms + more), VOUCHING).label
        for more in (0, 1)
    ]
    assert labels == ["tpm-attested", NOT_ATTESTED]


def test_the_form_without_a_checkpoint_is_refused_by_name() -> None:
    quote = TPM.quote(SEAT.about(b""))
    undated = Writer().u8(1).block16(TPM.attestation()).put(quote.encode()).finish()
    judged = judge(undated)
    assert (judged.label, judged.tpm_key, judged.age) == (NOT_ATTESTED, "", None)
    assert "freshness unknown" in judged.reason
    assert "without a date" in judged.reason


def test_what_is_none_is_told_with_its_reason() -> None:
    good = attestation()
    answer = TPM.quote(SEAT.about(ANCHOR.checkpoint))
    flipped = bytearray(SEAT.about(ANCHOR.checkpoint))
    flipped[0] ^= 1
    tampered = TPM.quote(bytes(flipped))
    unrestricted = PaperTpm(signing=0x00040072)
    nobody = QuoteAnswer(answer.attest, PaperTpm(seed=9).sign(answer.attest), answer.pcrs)
    other_pcrs = QuoteAnswer(
        answer.attest, answer.signature, {0: b"\1" * 32, 1: bytes(32), 7: bytes(32)}
    )
    cases = {
        b"": "carries no attestation",
        b"quote": "",
        b"\3" + good[1:]: "unknown form",
        good[:-1]: "",
        good + b"\0": "",
        good + bytes(8000): "",
        attestation(unrestricted): "not a restricted signing key",
        attestation(PaperTpm(magic=1)): "attests something else",
        attestation(PaperTpm(pcrs={})): "nothing that was booted",
        encode_attestation(ANCHOR, TPM.attestation(), nobody): "signed by another key",
        encode_attestation(ANCHOR, TPM.attestation(), other_pcrs): "other PCR values",
        encode_attestation(ANCHOR, TPM.attestation(), tampered): "about something else",
    }
    for data, reason in cases.items():
        judged = judge(data)
        assert (judged.label, judged.tpm_key) == (NOT_ATTESTED, ""), data[:10]
        assert judged.reason
        assert reason in judged.reason


def test_no_flipped_bit_makes_another_attestation_of_it() -> None:
    good = attestation()
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1
        judged = judge(bytes(changed))
        # Attributes of the key stand in no quote; they are in its name, for which nobody vouches.
        assert judged.label != "tpm-attested", at
        assert judged.tpm_key != KEY, at

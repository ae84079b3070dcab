"""Certificates, orders, answers, trust: who may sign, how long it holds, what it counts."""

import dataclasses

import pytest
from tests.unit.neuro.neuro_mesh import (
    AUTHORITY,
    EVIL,
    GOLDEN,
    NEWER,
    NODE,
    START,
    VERIFIER_KEY,
    batch_of,
    desk,
    enrolled,
    fresh,
    history,
    minute,
    new_verifier,
)

from hookprobe.crypto.signing import Ed25519
from hookprobe.errors import (
    LimitExceededError,
    LocalError,
    MalformedError,
    RemoteError,
    UnauthorizedError,
    VerificationError,
)
from hookprobe.neuro import certificate, epochs, verifier
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro.answer import Answer, decode_answer
from hookprobe.neuro.batch import BATCH_RECORDS_MAX, decode_batch, make_batch
from hookprobe.neuro.certificate import CERTIFICATE_LIFE_US, CLOCK_TOLERANCE_US
from hookprobe.neuro.effects import DeviceSilent, SendAnswer
from hookprobe.neuro.epochs import EpochOrder
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.replay import CHUNK_RECORDS, Job, replay
from hookprobe.neuro.standing import decode_standing, encode_standing
from hookprobe.neuro.trust import FULL_BP, START_BP, TAMPERED_MAX_BP, Trust
from hookprobe.neuro.verdict import Verdict
from hookprobe.neuro.verifier import SILENT_AFTER_US
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, Instant

NOW = minute(20)
KEYS = [VERIFIER_KEY.public_key]


def certified() -> bytes:
    at = desk()
    at.receive(batch_of(history(3), 0, at.nonce), NOW)
    (answer,) = [e.answer for e in at.seen[2:] if isinstance(e, SendAnswer)]
    return answer.certificate


def test_a_resonant_device_gets_a_certificate_that_holds_for_five_minutes() -> None:
    data = certified()
    word = certificate.check(data, KEYS, Ed25519(), NOW)
    state = fresh()
    state.advance(history(3))
    assert (word.node, word.ter_index, word.status) == (NODE, 2, Verdict.RESONANT)
    assert word.w_fingerprint == state.commitments().w_fingerprint
    assert b'"attestation":"software-attested"' in data
    ends = Instant(NOW + CERTIFICATE_LIFE_US)
    assert certificate.check(data, KEYS, Ed25519(), ends) == word
    for outside in (ends + 1, NOW - CLOCK_TOLERANCE_US - 1):
        with pytest.raises(VerificationError, match="now"):
            certificate.check(data, KEYS, Ed25519(), Instant(outside))


def test_a_certificate_of_another_signer_or_kind_or_byte_is_refused() -> None:
    data = certified()
    with pytest.raises(UnauthorizedError):
        certificate.check(data, [AUTHORITY.public_key], Ed25519(), NOW)
    with pytest.raises(VerificationError):
        certificate.check(data.replace(b"edge-1", b"edge-2"), KEYS, Ed25519(), NOW)
    with pytest.raises(VerificationError):
        manifests.open_manifest(data, KEYS, Ed25519())
    with pytest.raises(RemoteError):
        certificate.check(data[:-1], KEYS, Ed25519(), NOW)


def test_a_certificate_cannot_claim_a_long_life() -> None:
    word = certificate.check(certified(), KEYS, Ed25519(), NOW)
    longer = dataclasses.replace(word, not_after=Instant(word.not_after + 1))
    with pytest.raises(VerificationError, match="too long"):
        certificate.check(certificate.issue(longer, VERIFIER_KEY), KEYS, Ed25519(), NOW)


@pytest.mark.parametrize("measured", [{1: EVIL}])
def test_a_device_that_does_not_resonate_gets_none(measured: dict[int, bytes]) -> None:
    at = desk()
    at.receive(batch_of(history(3, measured), 0, at.nonce), NOW)
    assert [e.answer.certificate for e in at.seen if isinstance(e, SendAnswer)][-1] == b""


def test_an_epoch_order_is_the_authoritys() -> None:
    order = EpochOrder(NODE, 1, START)
    data = epochs.sign_order(order, AUTHORITY)
    assert epochs.open_order(data, [AUTHORITY.public_key], Ed25519()) == order
    with pytest.raises(UnauthorizedError):
        epochs.open_order(data, KEYS, Ed25519())
    zero = epochs.sign_order(dataclasses.replace(order, epoch=0), AUTHORITY)
    with pytest.raises(MalformedError):
        epochs.open_order(zero, [AUTHORITY.public_key], Ed25519())


def test_manifests_that_make_no_sense_are_not_signed() -> None:
    good = Manifest(1, NEWER, (GOLDEN,), START, HOUR)
    for change in (
        {"replaces": ()}, {"replaces": (NEWER,)}, {"replaces": (GOLDEN, GOLDEN)},
        {"version": 0}, {"window_us": 31 * 24 * HOUR},
        {"replaces": tuple(bytes([i]) * 20 for i in range(17))},
    ):  # fmt: skip
        with pytest.raises(LocalError):
            manifests.sign_manifest(dataclasses.replace(good, **change), AUTHORITY)


def test_answers_have_one_encoding() -> None:
    for verdict in (None, *Verdict):
        answer = Answer(verdict, 2, 7, b"n" * 16, b"l" * 32, b"word")
        assert decode_answer(answer.encode()) == answer
    data = Answer(None, 2, 7, b"n" * 16).encode()
    for bad in (b"{}", data[:-1], data.replace(b'""', b'"so-so"', 1), data.replace(b"6e", b"6E")):
        with pytest.raises(RemoteError):
            decode_answer(bad)


def test_trust_rises_slowly_falls_fast_and_fades_in_silence() -> None:
    trust = Trust(START_BP, START)
    for _ in range(200):
        trust = trust.update(Verdict.RESONANT, START)
    assert trust.basis_points == FULL_BP
    assert trust.update(Verdict.DISSONANT, START).basis_points == FULL_BP // 2
    assert trust.update(Verdict.TAMPER_REPORTED, START).basis_points == TAMPERED_MAX_BP
    assert trust.update(Verdict.FORK, START).basis_points == 0
    assert trust.update(Verdict.REJECT_CRC, START).basis_points == FULL_BP - 50
    assert trust.level(Instant(START + 5 * 60_000_000)) == FULL_BP
    assert trust.level(Instant(START + 5 * 60_000_000 + 2 * HOUR)) == FULL_BP - 800
    assert trust.level(Instant(START + 1_000 * HOUR)) == 0
    assert trust.update(Verdict.RESONANT, Instant(START - 1)).at == START


def test_silence_is_reported_once() -> None:
    at = desk()
    due = Instant(START + SILENT_AFTER_US)
    assert at.verifier.next_timeout() == due
    assert at.verifier.handle_timeout(Instant(due - 1)) == []
    assert at.verifier.handle_timeout(due) == [DeviceSilent(NODE, START)]
    assert at.verifier.handle_timeout(due) == []
    assert at.verifier.next_timeout() is None
    at.receive(batch_of(history(3), 0, at.nonce), NOW)
    assert at.verifier.next_timeout() == NOW + SILENT_AFTER_US


def test_devices_of_one_verifier_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "DEVICES_MAX", 1)
    made = new_verifier()
    made.enrol(enrolled(), START)
    made.enrol(enrolled(), START)
    other = dataclasses.replace(enrolled(), node=NodeId("edge-2"))
    with pytest.raises(LocalError, match="1 devices"):
        made.enrol(other, START)
    with pytest.raises(LocalError, match="not enrolled"):
        made.greet(other.node)
    assert made.nodes() == [NODE]


def test_batches_are_bounded_on_both_ends() -> None:
    records = history(BATCH_RECORDS_MAX + 1)
    with pytest.raises(LocalError, match="256"):
        batch_of(records, 0, b"n" * 16)
    with pytest.raises(LocalError):
        batch_of(records[:1], 1, b"n" * 16)
    whole = batch_of(records[:2], 0, b"n" * 16)
    with pytest.raises(LocalError, match="state"):
        make_batch(whole.head, whole.records, fresh(), AUTHORITY)
    data = whole.encode()
    with pytest.raises(LimitExceededError):
        decode_batch(data[:65] + (BATCH_RECORDS_MAX + 1).to_bytes(2, "big") + data[67:])
    with pytest.raises(MalformedError):
        decode_batch(data[:65] + bytes(2) + data[67 + 128 :])


def test_a_standing_survives_storage() -> None:
    at = desk()
    at.run(at.verifier.announce([NODE], Manifest(1, NEWER, (GOLDEN,), START, HOUR)))
    at.receive(batch_of(history(3, {1: EVIL}), 0, at.nonce), NOW)
    held = at.verifier.standing(NODE)
    from tests.unit.neuro.neuro_mesh import ENGINE

    again = decode_standing(encode_standing(held), ENGINE)
    assert dataclasses.replace(again, state=held.state) == held
    assert again.state.commitments() == held.state.commitments()
    data = encode_standing(held)
    for bad in (data[:-1], data.replace(b'"tamper-reported"', b'"tamper-rEported"')):
        with pytest.raises(MalformedError):
            decode_standing(bad, ENGINE)


def test_records_missing_before_a_restart_are_an_error() -> None:
    with pytest.raises(VerificationError, match="missing"):
        enrolled().follow(1, tuple(history(2)[1:]))


def test_many_devices_are_replayed_like_each_alone() -> None:
    records = history(CHUNK_RECORDS + 2)
    jobs = [Job(fresh(), records), Job(fresh(1), records[:3]), Job(fresh(2), [])]
    assert replay(jobs) == len(records) + 3
    alone = fresh()
    for record in records:
        alone.apply(record)
    assert jobs[0].state.commitments() == alone.commitments()
    assert [job.state.count for job in jobs] == [len(records), 3, 0]

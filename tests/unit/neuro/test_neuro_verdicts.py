"""The table of HP-NEURO-1 section 3.1, row by row, and the attacks of section 3."""

import dataclasses

import pytest
from tests.unit.neuro.neuro_mesh import (
    AUTHORITY,
    DEVICE_KEY,
    EVIL,
    GOLDEN,
    NEWER,
    NODE,
    START,
    batch_of,
    desk,
    entropy,
    fresh,
    history,
    minute,
)

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.errors import LimitExceededError, VerificationError
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro.appraisal import AHEAD_MAX_US, appraise
from hookprobe.neuro.baseline import PENDING_MAX, Baseline
from hookprobe.neuro.batch import TerBatch, decode_batch, short_name
from hookprobe.neuro.effects import (
    Appraised,
    BatchRefused,
    ClockAstray,
    ForkFound,
    Rebased,
)
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.posf import sign
from hookprobe.neuro.ter import Ter, following
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, Instant

NOW = minute(20)


def resigned(batch: TerBatch, records: tuple[Ter, ...]) -> TerBatch:
    """What somebody with the stolen Ed25519 key, and without the weights, can make of a batch."""
    changed = dataclasses.replace(batch, records=records)
    covered = changed.encode()[:-96]
    signature = DEVICE_KEY.sign(digest(Domain.NEURO_BATCH, covered + changed.proof))
    return dataclasses.replace(changed, signature=signature)


def repaired(records: list[Ter]) -> tuple[Ter, ...]:
    """Records with their CRC chain made right again."""
    found: list[Ter] = []
    for record in records:
        previous = found[-1] if found else None
        found.append(following(previous, record.h_entropy, record.h_integrity, record.timestamp))
    return tuple(found)


def test_honest_is_resonant() -> None:
    at = desk()
    records = history(6)
    assert at.receive(batch_of(records[:3], 0, at.nonce), NOW) is Verdict.RESONANT
    assert at.receive(batch_of(records, 3, at.nonce), NOW) is Verdict.RESONANT
    assert at.verifier.standing(NODE).state.count == 6


def test_tampered_and_reported_once_stays_reported() -> None:
    at = desk()
    records = history(6, {2: EVIL})
    assert at.receive(batch_of(records[:4], 0, at.nonce), NOW) is Verdict.TAMPER_REPORTED
    bad = [effect.first_bad for effect in at.seen if isinstance(effect, Appraised)]
    assert bad == [2]
    # Golden again, and the proof holds: still broken, until an operator decides.
    assert at.receive(batch_of(records[:5], 4, at.nonce), NOW) is Verdict.TAMPER_REPORTED
    at.run(at.verifier.accept_measurement(NODE, GOLDEN))
    assert at.receive(batch_of(records, 5, at.nonce), NOW) is Verdict.RESONANT


def test_the_report_of_tampering_is_durable_before_it_is_told() -> None:
    at = desk()
    at.receive(batch_of(history(3, {1: EVIL}), 0, at.nonce), NOW)
    kinds = [type(effect).__name__ for effect in at.seen[2:]]
    assert kinds.index("AppendVerified") < kinds.index("SaveStanding") < kinds.index("SendAnswer")
    at.restart()
    at.run(at.verifier.greet(NODE))
    records = history(4, {1: EVIL})
    assert at.receive(batch_of(records, 3, at.nonce), NOW) is Verdict.TAMPER_REPORTED


def update(version: int = 1, replaces: bytes = GOLDEN, follows: bytes = NEWER) -> Manifest:
    return Manifest(version, follows, (replaces,), minute(2), HOUR)


def test_an_approved_update_is_resonant_and_rebases_once() -> None:
    at = desk()
    at.run(at.verifier.announce([NODE], update()))
    records = history(6, {3: NEWER, 4: NEWER, 5: GOLDEN})
    assert at.receive(batch_of(records[:5], 0, at.nonce), NOW) is Verdict.RESONANT
    assert [e.index for e in at.seen if isinstance(e, Rebased)] == [3]
    # Back to the old one: an update goes in one direction only.
    assert at.receive(batch_of(records, 5, at.nonce), NOW) is Verdict.TAMPER_REPORTED


def test_an_update_is_for_what_it_replaces_only() -> None:
    at = desk()
    at.run(at.verifier.announce([NODE], update(replaces=EVIL)))
    records = history(4, {3: NEWER})
    assert at.receive(batch_of(records, 0, at.nonce), NOW) is Verdict.TAMPER_REPORTED
    expired, moved = (
        Baseline(GOLDEN)
        .announce(update(replaces=EVIL))
        .meet(following(None, entropy(0), GOLDEN, Instant(minute(2) + HOUR)))
    )
    assert (expired.golden, moved) == (GOLDEN, False)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [({}, Verdict.RESONANT), ({1: EVIL}, Verdict.TAMPER_REPORTED)],
)
def test_an_appraisal_alone_says_the_same(measured: dict[int, bytes], verdict: Verdict) -> None:
    state = fresh()
    found = appraise(state, Baseline(GOLDEN), batch_of(history(3, measured), 0, b"n" * 16))
    assert (found.verdict, found.first_bad) == (verdict, min(measured, default=None))
    assert state.count == 0
    assert found.state is not None
    assert found.state.count == 3


def test_an_update_before_its_time_is_tampering() -> None:
    at = desk()
    at.run(at.verifier.announce([NODE], update()))
    records = history(2, {1: NEWER})
    assert at.receive(batch_of(records, 0, at.nonce), NOW) is Verdict.TAMPER_REPORTED


def test_after_the_window_only_the_new_measurement_counts() -> None:
    at = desk()
    at.run(at.verifier.announce([NODE], update()))
    records = history(2)
    at_the_end = Instant(minute(2) + HOUR)
    records.append(following(records[-1], entropy(2), GOLDEN, Instant(at_the_end - 1)))
    records.append(following(records[-1], entropy(3), GOLDEN, at_the_end))
    assert at.receive(batch_of(records[:3], 0, at.nonce), at_the_end) is Verdict.RESONANT
    verdict = at.receive(batch_of(records, 3, at.nonce), at_the_end)
    assert verdict is Verdict.TAMPER_REPORTED


def test_an_unapproved_update_is_tampering() -> None:
    at = desk()
    records = history(4, {3: NEWER})
    assert at.receive(batch_of(records, 0, at.nonce), NOW) is Verdict.TAMPER_REPORTED


def test_manifests_do_not_roll_back_and_are_bounded() -> None:
    held = Baseline(GOLDEN).announce(update(5))
    for version in (4, 5):
        with pytest.raises(VerificationError, match="version"):
            held.announce(update(version))
    for version in range(6, 5 + PENDING_MAX):
        held = held.announce(update(version))
    with pytest.raises(LimitExceededError):
        held.announce(update(99))


def test_a_manifest_holds_for_its_signer_and_bytes_only() -> None:
    data = manifests.sign_manifest(update(), AUTHORITY)
    assert manifests.open_manifest(data, [AUTHORITY.public_key], Ed25519()) == update()
    with pytest.raises(VerificationError):
        manifests.open_manifest(
            data.replace(NEWER.hex().encode(), EVIL.hex().encode()),
            [AUTHORITY.public_key],
            Ed25519(),
        )


def test_a_log_edited_in_transit_is_rejected_by_the_crc() -> None:
    at = desk()
    records = history(4)
    edited = [*records[:1], dataclasses.replace(records[1], h_entropy=bytes(32)), *records[2:]]
    batch = resigned(batch_of(records, 0, at.nonce), tuple(edited))
    assert at.receive(batch, NOW) is Verdict.REJECT_CRC


def test_an_edit_without_the_key_is_refused_and_costs_the_device_nothing() -> None:
    at = desk()
    records = history(2)
    data = bytearray(batch_of(records, 0, at.nonce).encode())
    data[70] ^= 1
    before = at.verifier.standing(NODE)
    (effect,) = at.run(at.verifier.receive_batch(NODE, bytes(data), NOW))
    assert isinstance(effect, BatchRefused)
    assert "reject-signature" in effect.reason
    assert at.verifier.standing(NODE) == before


def test_crc_repair_still_ends_dissonant() -> None:
    at = desk()
    records = history(4)
    edited = [*records[:1], dataclasses.replace(records[1], h_entropy=bytes(32)), *records[2:]]
    batch = resigned(batch_of(records, 0, at.nonce), repaired(edited))
    assert at.receive(batch, NOW) is Verdict.DISSONANT
    assert at.verifier.standing(NODE).state.count == 0


def test_a_measurement_rewritten_to_golden_on_the_way_is_dissonant() -> None:
    at = desk()
    records = history(4, {2: EVIL})
    whitewashed = [dataclasses.replace(record, h_integrity=GOLDEN) for record in records]
    batch = resigned(batch_of(records, 0, at.nonce), repaired(whitewashed))
    assert at.receive(batch, NOW) is Verdict.DISSONANT


def test_who_holds_golden_weights_and_reports_otherwise_is_dissonant() -> None:
    # The proof binds the batch, so only the holder of the state itself can make this one.
    at = desk()
    golden, evil = history(3), history(3, {2: EVIL})
    state = fresh()
    state.advance(golden)
    honest = batch_of(golden, 0, at.nonce)
    proof = sign(state, dataclasses.replace(honest, records=tuple(evil)).context())
    batch = resigned(dataclasses.replace(honest, proof=proof), tuple(evil))
    assert at.receive(batch, NOW) is Verdict.DISSONANT
    (found,) = [effect for effect in at.seen if isinstance(effect, Appraised)]
    assert (found.substituted, found.first_bad) == (True, 2)


@pytest.mark.parametrize("change", ["drop", "swap"])
def test_dropped_and_reordered_records_are_rejected(change: str) -> None:
    at = desk()
    records = history(4)
    batch = batch_of(records, 0, at.nonce)
    kept = {"drop": (0, 2, 3), "swap": (0, 2, 1, 3)}[change]
    batch = resigned(batch, tuple(records[i] for i in kept))
    assert at.receive(batch, NOW) is Verdict.REJECT_SEQ


def test_a_replayed_batch_is_rejected_by_its_index() -> None:
    at = desk()
    batch = batch_of(history(3), 0, at.nonce)
    assert at.receive(batch, NOW) is Verdict.RESONANT
    assert at.receive(batch, NOW) is Verdict.REJECT_SEQ
    assert at.verifier.standing(NODE).state.count == 3


def test_a_gap_is_rejected_by_its_index() -> None:
    at = desk()
    assert at.receive(batch_of(history(3), 1, at.nonce), NOW) is Verdict.REJECT_SEQ


@pytest.mark.parametrize("nonce", [b"\0" * 16, b"n" * 16])
def test_a_proof_for_another_nonce_is_rejected(nonce: bytes) -> None:
    at = desk()
    assert at.receive(batch_of(history(3), 0, nonce), NOW) is Verdict.REJECT_NONCE


def test_a_nonce_counts_once() -> None:
    at = desk()
    used = at.nonce
    records = history(4)
    assert at.receive(batch_of(records[:2], 0, used), NOW) is Verdict.RESONANT
    assert at.receive(batch_of(records, 2, used), NOW) is Verdict.REJECT_NONCE


def test_a_clone_is_a_fork_and_nothing_counts_any_more() -> None:
    at = desk()
    records = history(4)
    assert at.receive(batch_of(records[:2], 0, at.nonce), NOW) is Verdict.RESONANT
    clone = [*records[:2], following(records[1], entropy(2, b"clone"), GOLDEN, minute(2))]
    assert at.receive(batch_of(records[:3], 2, at.nonce), NOW) is Verdict.RESONANT
    assert at.receive(batch_of(clone, 2, at.nonce), NOW) is Verdict.FORK
    (found,) = [effect for effect in at.seen if isinstance(effect, ForkFound)]
    assert (found.index, found.ours) == (2, records[2])
    assert at.receive(batch_of(records, 3, at.nonce), NOW) is Verdict.FORK
    at.restart()
    at.run(at.verifier.greet(NODE))
    assert at.receive(batch_of(records, 3, at.nonce), NOW) is Verdict.FORK
    assert at.verifier.standing(NODE).trust.basis_points == 0


def test_a_stolen_key_without_the_weights_is_dissonant() -> None:
    at = desk()
    records = history(2)
    thief = fresh(epoch=9)
    thief.advance(records)
    batch = batch_of(records, 0, at.nonce, thief)
    assert at.receive(batch, NOW) is Verdict.DISSONANT


def test_another_key_is_refused() -> None:
    at = desk()
    batch = batch_of(history(2), 0, at.nonce)
    forged = dataclasses.replace(batch, signature=Ed25519Signer(b"\x44" * 32).sign(b"x"))
    assert [type(e) for e in at.verifier.receive_batch(NODE, forged.encode(), NOW)] == [
        BatchRefused
    ]


def test_a_device_nobody_enrolled_is_refused() -> None:
    at = desk()
    batch = batch_of(history(2), 0, at.nonce)
    other = dataclasses.replace(batch, head=dataclasses.replace(batch.head, device=b"x" * 16))
    (effect,) = at.verifier.receive_batch(NODE, other.encode(), NOW)
    assert effect == BatchRefused("reject-device")


def test_a_batch_in_somebody_elses_session_is_refused() -> None:
    at = desk()
    data = batch_of(history(2), 0, at.nonce).encode()
    effects = at.verifier.receive_batch(NodeId("edge-2"), data, NOW)
    assert effects == [BatchRefused("reject-device")]
    assert at.verifier.standing(NODE).trust.at == START


def test_bytes_that_are_no_batch_are_refused() -> None:
    at = desk()
    whole = batch_of(history(2), 0, at.nonce).encode()
    for data in (b"", whole[:-1], whole + b"\0", b"HPNX" + whole[4:], whole[:65] + b"\xff\xff"):
        (effect,) = at.verifier.receive_batch(NODE, data, NOW)
        assert isinstance(effect, BatchRefused)
        assert effect.reason.startswith("reject-form")


def test_a_root_that_lies_without_a_tpm_is_resonant() -> None:
    """The honest limit: whoever owns the device and its secrets can report golden for ever.

    This device was tampered with at record 1. Its root user keeps the agent's state and feeds it
    the enrolled measurement. Nothing in software can tell; every surface says
    `software-attested` for that reason.
    """
    at = desk()
    lied = history(4)  # what it reports; what runs is another matter
    assert at.receive(batch_of(lied, 0, at.nonce), NOW) is Verdict.RESONANT


def test_times_in_the_future_or_standing_still_are_rejected() -> None:
    at = desk()
    first = following(None, entropy(0), GOLDEN, Instant(NOW + AHEAD_MAX_US + 1))
    assert at.receive(batch_of([first], 0, at.nonce), NOW) is Verdict.REJECT_TIME
    allowed = dataclasses.replace(first, timestamp=Instant(NOW + AHEAD_MAX_US))
    assert at.receive(batch_of([allowed], 0, at.nonce), NOW) is Verdict.RESONANT
    still = following(allowed, entropy(1), GOLDEN, Instant(allowed.timestamp + 1))
    still = dataclasses.replace(still, timestamp=allowed.timestamp)
    later = following(allowed, entropy(1), GOLDEN, Instant(allowed.timestamp + 1))
    honest = batch_of([allowed, later], 1, at.nonce)
    assert at.receive(resigned(honest, (still,)), NOW) is Verdict.REJECT_TIME


def test_a_late_batch_is_taken_with_a_warning() -> None:
    at = desk()
    late = Instant(minute(2) + AHEAD_MAX_US + 1)
    assert at.receive(batch_of(history(3), 0, at.nonce), late) is Verdict.RESONANT
    assert [type(e) for e in at.seen].count(ClockAstray) == 1


def test_the_addressee_and_the_epoch_must_be_ours() -> None:
    at = desk()
    batch = batch_of(history(2), 0, at.nonce)
    for change in ({"verifier": short_name(NODE)}, {"epoch": 1}):
        head = dataclasses.replace(batch.head, **change)
        other = resigned(dataclasses.replace(batch, head=head), batch.records)
        assert at.receive(other, NOW) is Verdict.REJECT_EPOCH


def test_a_batch_has_one_encoding() -> None:
    batch = batch_of(history(3), 0, b"n" * 16)
    assert decode_batch(batch.encode()) == batch

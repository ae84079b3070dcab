import dataclasses
from typing import Any

import pytest

from hookprobe.errors import LocalError, MalformedError
from hookprobe.neuro import posf, ter
from hookprobe.neuro.fixedpoint import decay, learning_rate
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.instant import Instant

SEED = derive_seed(b"\x01" * 32, b"\x02" * 32, 1_765_000_000_000_000, 0)
FIRST = ter.following(None, b"\x03" * 32, b"\x04" * 20, Instant(1_765_000_000_000_000))
SECOND = ter.following(FIRST, b"\x05" * 32, b"\x04" * 20, Instant(1_765_000_060_000_000))
CONTEXT = posf.Context(
    device=b"d" * 16, epoch=0, index=0, verifier=b"v" * 16, message_hash=b"m" * 32, nonce=b"n" * 16
)


def evolved(*records: ter.Ter) -> NeuroState:
    state = NeuroState(SEED)
    for record in records:
        state.apply(record)
    return state


def flip(record: ter.Ter, bit: int) -> ter.Ter:
    data = bytearray(record.encode())
    data[bit // 8] ^= 1 << (bit % 8)
    return ter.decode(bytes(data))


# One bit of each field: entropy first and last, integrity first and last, time, sequence, chain.
FIELD_BITS = [0, 255, 256, 415, 479, 495, 511]


@pytest.mark.parametrize("bit", FIELD_BITS)
def test_one_bit_of_any_field_changes_most_weights_at_once(bit: int) -> None:
    honest, tampered = evolved(FIRST), evolved(flip(FIRST, bit))
    ours, theirs = honest.masters(), tampered.masters()
    differing = sum(ours[at : at + 8] != theirs[at : at + 8] for at in range(0, len(ours), 8))
    assert differing > len(ours) // 8 * 0.99
    assert honest.commitments().w_fingerprint != tampered.commitments().w_fingerprint


def test_a_tampered_record_never_heals() -> None:
    later = [SECOND]
    for i in range(2, 12):
        at = Instant(SECOND.timestamp + i * 60_000_000)
        later.append(ter.following(later[-1], bytes([i]) * 32, b"\x04" * 20, at))
    honest = evolved(FIRST, *later)
    tampered = evolved(flip(FIRST, 0), *later)
    assert posf.sign(honest, CONTEXT) != posf.sign(tampered, CONTEXT)


def test_a_record_after_two_silent_days_still_counts() -> None:
    late = Instant(FIRST.timestamp + 48 * 3_600_000_000)
    assert learning_rate(late - FIRST.timestamp) == 0
    record = ter.following(FIRST, b"\x06" * 32, b"\x04" * 20, late)
    other = dataclasses.replace(record, h_integrity=b"\x07" * 20)
    ours, theirs = evolved(FIRST, record).commitments(), evolved(FIRST, other).commitments()
    assert ours.w_fingerprint != theirs.w_fingerprint


def test_same_history_same_state() -> None:
    assert evolved(FIRST, SECOND).commitments() == evolved(FIRST, SECOND).commitments()


def test_order_and_omission_matter() -> None:
    assert evolved(FIRST).commitments() != evolved(FIRST, SECOND).commitments()
    with pytest.raises(LocalError, match="increase"):
        evolved(SECOND, FIRST)
    with pytest.raises(LocalError, match="increase"):
        evolved(FIRST, FIRST)


def test_snapshot_continues_like_the_original() -> None:
    state = evolved(FIRST)
    snapshot = state.copy()
    state.apply(SECOND)
    assert snapshot.commitments() == evolved(FIRST).commitments()
    snapshot.apply(SECOND)
    assert snapshot.commitments() == state.commitments()


@pytest.mark.parametrize(
    "change",
    [
        {"device": b"e" * 16},
        {"epoch": 1},
        {"index": 1},
        {"verifier": b"w" * 16},
        {"message_hash": b"M" * 32},
        {"nonce": b"n" * 15 + b"o"},
    ],
)
def test_a_proof_holds_for_its_whole_context_only(change: dict[str, Any]) -> None:
    state = evolved(FIRST)
    proof = posf.sign(state, CONTEXT)
    assert posf.verify(state, CONTEXT, proof)
    assert not posf.verify(state, dataclasses.replace(CONTEXT, **change), proof)


def test_neighbouring_nonces_never_repeat_a_proof() -> None:
    state = evolved(FIRST)
    proofs = [
        posf.sign(state, dataclasses.replace(CONTEXT, nonce=i.to_bytes(16, "big")))
        for i in range(64)
    ]
    assert len(dict.fromkeys(proofs)) == 64


def test_a_proof_of_another_state_or_a_flipped_proof_is_refused() -> None:
    proof = posf.sign(evolved(FIRST), CONTEXT)
    assert not posf.verify(evolved(FIRST, SECOND), CONTEXT, proof)
    assert not posf.verify(evolved(FIRST), CONTEXT, proof[:-1] + bytes([proof[-1] ^ 1]))
    assert not posf.verify(evolved(FIRST), CONTEXT, proof[:-1])


def test_a_context_field_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(LocalError, match="107"):
        posf.sign(evolved(FIRST), dataclasses.replace(CONTEXT, nonce=b"short"))


def test_other_secret_hardware_time_or_epoch_is_another_device() -> None:
    seeds = [
        SEED,
        derive_seed(b"\x09" * 32, b"\x02" * 32, 1_765_000_000_000_000, 0),
        derive_seed(b"\x01" * 32, b"\x09" * 32, 1_765_000_000_000_000, 0),
        derive_seed(b"\x01" * 32, b"\x02" * 32, 1_765_000_000_000_001, 0),
        derive_seed(b"\x01" * 32, b"\x02" * 32, 1_765_000_000_000_000, 1),
    ]
    assert len(dict.fromkeys(seeds)) == len(seeds)


def test_sequence_wraps_and_the_crc_chains() -> None:
    last = dataclasses.replace(FIRST, sequence=65_535)
    wrapped = ter.following(last, b"\x05" * 32, b"\x04" * 20, Instant(last.timestamp + 1))
    assert (wrapped.sequence, wrapped.chain) == (0, ter.checksum(last.encode()))


def test_record_bytes_round_trip_and_other_lengths_do_not_parse() -> None:
    assert ter.decode(SECOND.encode()) == SECOND
    for bad in (b"", SECOND.encode()[:-1], SECOND.encode() + b"\x00"):
        with pytest.raises(MalformedError):
            ter.decode(bad)


def test_record_times_increase_and_hashes_have_their_length() -> None:
    with pytest.raises(LocalError):
        ter.following(FIRST, b"\x05" * 32, b"\x04" * 20, FIRST.timestamp)
    with pytest.raises(LocalError):
        ter.following(FIRST, b"\x05" * 31, b"\x04" * 20, SECOND.timestamp)


def test_decay_falls_and_reaches_zero() -> None:
    values = [decay(hours * 3_600_000_000) for hours in range(60)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0

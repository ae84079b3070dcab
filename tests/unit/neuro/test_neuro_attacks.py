"""What an attacker learns from proofs: nothing better than guessing."""

import dataclasses
import hashlib
import itertools

import numpy as np
from tests.unit.neuro.neuro_mesh import NODE, VERIFIER, fresh, history

from hookprobe.neuro.batch import short_name
from hookprobe.neuro.posf import Context, sign

ABOUT = Context(short_name(NODE), 0, 4, short_name(VERIFIER), b"m" * 32, bytes(16))


def bits(data: bytes) -> list[int]:
    return [byte >> place & 1 for byte in data for place in range(8)]


def proofs(count: int) -> list[bytes]:
    state = fresh()
    state.advance(history(5))
    return [
        sign(state, dataclasses.replace(ABOUT, nonce=i.to_bytes(16, "big"))) for i in range(count)
    ]


def test_neighbouring_nonces_share_half_their_bits_and_never_a_proof() -> None:
    found = proofs(256)
    assert len(set(found)) == 256
    shared = [
        sum(a == b for a, b in zip(bits(one), bits(two), strict=True))
        for one, two in itertools.pairwise(found)
    ]
    # 255 pairs of 256 bits: half of them, give or take; the raw network output repeats 1 in 5.
    assert 126 < sum(shared) / len(shared) < 130
    assert max(shared) < 180


def test_extraction_from_known_proofs_does_no_better_than_guessing() -> None:
    """Fit a linear model from nonce bits to proof bits; on raw outputs it wins, here it cannot."""
    found = proofs(1_500)
    x = np.array([[*bits(i.to_bytes(16, "big"))[-16:], 1] for i in range(1_500)], dtype=float)
    # Proofs bind the transcript, so an attacker may also use a hash it can compute itself.
    known = [bits(hashlib.sha256(i.to_bytes(16, "big")).digest()) for i in range(1_500)]
    x = np.hstack([x, np.array(known, dtype=float)])
    y = np.array([bits(proof) for proof in found], dtype=float)
    model = np.linalg.lstsq(x[:1_000], y[:1_000], rcond=None)[0]
    hits = float((((x[1_000:] @ model) > 0.5) == (y[1_000:] > 0.5)).mean())
    assert 0.49 < hits < 0.51


def test_the_same_model_does_learn_the_network_without_hashed_ends() -> None:
    """The test above can fail: the raw output of the same state is learned from as many samples."""
    state = fresh()
    state.advance(history(5))
    draw = np.random.default_rng(7)
    x = draw.integers(-65_536, 65_536, size=(1_500, 64))
    y = np.array([state.output(row.tolist()) for row in x], dtype=float)
    seen = np.hstack([x.astype(float), np.full((1_500, 1), 65_536.0)])
    model = np.linalg.lstsq(seen[:1_000], y[:1_000], rcond=None)[0]
    hits = float((((seen[1_000:] @ model) > 0) == (y[1_000:] > 0)).mean())
    assert hits > 0.7

"""Whatever bytes arrive, the decoders answer or refuse; an edited batch never resonates."""

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.neuro.neuro_mesh import AUTHORITY, ENGINE, NODE, batch_of, desk, history, minute

from hookprobe.crypto.signing import Ed25519
from hookprobe.errors import RemoteError
from hookprobe.identity import fingerprint
from hookprobe.neuro import certificate, epochs, snapshot, ter
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro.answer import Answer, decode_answer
from hookprobe.neuro.batch import decode_batch
from hookprobe.neuro.effects import Appraised
from hookprobe.neuro.epochs import EpochOrder
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.measurement import Counters, Opening, check_opening, commit, decode_opening
from hookprobe.neuro.standing import decode_standing
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.instant import HOUR

KEYS = [AUTHORITY.public_key]
NOW = minute(5)
MANIFEST = manifests.sign_manifest(
    Manifest(1, b"n" * 20, (b"g" * 20,), NOW, HOUR), AUTHORITY
)  # fmt: skip
ORDER = epochs.sign_order(EpochOrder(NODE, 1, NOW), AUTHORITY)
BATCH = batch_of(history(2), 0, b"n" * 16).encode()
DECODERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (ter.decode, history(1)[0].encode()),
    (decode_batch, BATCH),
    (decode_answer, Answer(Verdict.RESONANT, 0, 3, b"n" * 16).encode()),
    (lambda data: snapshot.decode(data, ENGINE), bytes(200)),
    (lambda data: decode_standing(data, ENGINE), bytes(200)),
    (lambda data: manifests.open_manifest(data, KEYS, Ed25519()), MANIFEST),
    (lambda data: epochs.open_order(data, KEYS, Ed25519()), ORDER),
    (lambda data: certificate.check(data, KEYS, Ed25519(), NOW), MANIFEST),
    (decode_opening, Opening(bytes(16), Counters()).encode()),
    (fingerprint.decode, fingerprint.take({}, b"k").encode()),
]
decoder = st.sampled_from(DECODERS)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(chosen=decoder, data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(
    chosen: tuple[Callable[[bytes], object], bytes], data: bytes
) -> None:
    with suppress(RemoteError):  # any other exception fails the test
        chosen[0](data)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(chosen=decoder, at=st.integers(0, 1 << 16), value=st.integers(1, 255), cut=st.booleans())
def test_damaged_documents_are_read_or_refused(
    chosen: tuple[Callable[[bytes], object], bytes], at: int, value: int, cut: bool
) -> None:
    data = bytearray(chosen[1])
    data[at % len(data)] ^= value
    with suppress(RemoteError):
        chosen[0](bytes(data[: at % len(data)] if cut else data))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(at=st.integers(0, len(BATCH) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_batch_is_never_resonant(at: int, bit: int) -> None:
    desk_ = desk()
    data = bytearray(batch_of(history(2), 0, desk_.nonce).encode())
    data[at] ^= 1 << bit
    effects = desk_.verifier.receive_batch(NODE, bytes(data), NOW)
    assert not any(isinstance(effect, Appraised) for effect in effects)
    assert desk_.verifier.standing(NODE).state.count == 0


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    salt=st.binary(min_size=16, max_size=16),
    values=st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=10, max_size=10),
)
def test_openings_round_trip(salt: bytes, values: list[int | None]) -> None:
    opening = Opening(salt, Counters(*values))
    assert check_opening(commit(opening), opening.encode()) == opening

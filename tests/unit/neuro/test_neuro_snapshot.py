import hashlib

import pytest
from tests.unit.neuro.neuro_vectors import vector_seed, vector_ters

from hookprobe.errors import MalformedError
from hookprobe.neuro import snapshot
from hookprobe.neuro.backends.selection import BACKENDS, load_backend
from hookprobe.neuro.snapshot import SNAPSHOT_BYTES, Snapshot
from hookprobe.neuro.state import NeuroState

RECORDS = vector_ters(4)


def taken(count: int) -> bytes:
    state = NeuroState(vector_seed())
    state.advance(RECORDS[:count])
    return snapshot.encode(Snapshot(7, state))


def resealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 2])
def test_a_restored_state_continues_like_the_original(backend: str, count: int) -> None:
    data = taken(count)
    assert len(data) == SNAPSHOT_BYTES
    restored = snapshot.decode(data, load_backend(backend))
    assert restored.epoch == 7
    assert snapshot.encode(restored) == data
    straight = NeuroState(vector_seed())
    straight.advance(RECORDS)
    restored.state.advance(RECORDS[count:])
    assert restored.state.commitments() == straight.commitments()
    assert (restored.state.count, restored.state.previous) == (4, RECORDS[3])


@pytest.mark.parametrize("at", [0, 4, 8, 16, 40, 90, 113, 100_000, SNAPSHOT_BYTES - 1])
def test_any_flipped_byte_is_found(at: int) -> None:
    data = bytearray(taken(2))
    data[at] ^= 1
    with pytest.raises(MalformedError, match="damaged"):
        snapshot.decode(bytes(data))


@pytest.mark.parametrize("size", [0, 31, 113, SNAPSHOT_BYTES - 1])
def test_a_torn_snapshot_is_refused(size: int) -> None:
    with pytest.raises(MalformedError):
        snapshot.decode(taken(2)[:size])


def test_a_resealed_lie_about_format_or_index_is_refused() -> None:
    body = taken(2)[:-32]
    for changed in (b"HPNX" + body[4:], body[:4] + b"\x02" + body[5:]):
        with pytest.raises(MalformedError, match="format"):
            snapshot.decode(resealed(changed))
    with pytest.raises(MalformedError, match="index"):
        snapshot.decode(resealed(body[:9] + (3).to_bytes(8, "big") + body[17:]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_beyond_their_bound_are_refused(backend: str) -> None:
    body = bytearray(taken(2)[:-32])
    body[113:121] = ((8 << 32) + 1).to_bytes(8, "big")
    with pytest.raises(MalformedError, match="bound"):
        snapshot.decode(resealed(bytes(body)), load_backend(backend))


def test_parts_do_not_show_secrets() -> None:
    state = NeuroState(vector_seed())
    parts = snapshot.decode(taken(1)).state
    assert state.chain.hex() not in repr(state)
    assert parts.chain.hex() not in repr(parts)

import importlib.util

import pytest
from tests.unit.neuro.neuro_vectors import vector_seed, vector_ters

from hookprobe.errors import ConfigError, LocalError, MalformedError
from hookprobe.neuro.backends.selection import BACKENDS, load_backend
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.weights import MASTERS_BYTES

RECORDS = vector_ters(5)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="pure, numpy, numba"):
        load_backend("cuda")


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_an_absent_backend_is_an_error_that_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=f"{name} is not installed") as caught:
        load_backend(name)
    assert "hookprobe[neuro-fast]" in caught.value.hint


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_by_one_or_at_once_is_the_same(backend: str) -> None:
    at_once, singly = (NeuroState(vector_seed(), load_backend(backend)) for _ in range(2))
    at_once.advance(RECORDS)
    for record in RECORDS:
        singly.apply(record)
    assert at_once.commitments() == singly.commitments()
    assert at_once.count == singly.count == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_is_independent(backend: str) -> None:
    state = NeuroState(vector_seed(), load_backend(backend))
    state.advance(RECORDS[:2])
    twin = state.copy()
    before = state.commitments()
    twin.advance(RECORDS[2:])
    assert NeuroState.commitments(state) == before
    assert state.masters() != twin.masters()


@pytest.mark.parametrize("backend", BACKENDS)
def test_refused_records_change_nothing(backend: str) -> None:
    state = NeuroState(vector_seed(), load_backend(backend))
    state.apply(RECORDS[0])
    before = (state.chain, state.masters(), state.count)
    with pytest.raises(LocalError, match="increase"):
        state.advance([RECORDS[1], RECORDS[2], RECORDS[1]])
    assert (state.chain, state.masters(), state.count) == before
    state.advance([])
    assert state.count == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [0, 8, MASTERS_BYTES - 1, MASTERS_BYTES + 8])
def test_weights_of_another_length_are_refused(backend: str, size: int) -> None:
    with pytest.raises(MalformedError):
        load_backend(backend)(bytes(size))

"""A device whose records come faster than it can have measured costs itself, not the verifier."""

import pytest
from tests.unit.neuro.neuro_mesh import NODE, batch_of, desk, fresh, history, minute

from hookprobe.neuro import verifier as judging
from hookprobe.neuro.effects import Appraised, SendAnswer
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.instant import SECOND, Instant

NOW = minute(1000)


def test_a_flood_of_genuine_records_is_replayed_at_a_bounded_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "RECORDS_UNACKED_MAX", 101)
    at, records, state = desk(), history(150), fresh()
    state.advance(records[:100])
    assert at.receive(batch_of(records[:100], 0, at.nonce, state), NOW) is Verdict.RESONANT
    state.advance(records[100:])
    flood = batch_of(records, 100, at.nonce, state).encode()
    for _ in range(3):
        assert at.run(at.verifier.receive_batch(NODE, flood, NOW)) == []
    later = Instant(NOW + 6 * SECOND)  # and nothing is lost
    effects = at.run(at.verifier.receive_batch(NODE, flood, later))
    assert [e.verdict for e in effects if isinstance(e, Appraised)] == [Verdict.RESONANT]
    assert any(isinstance(effect, SendAnswer) for effect in effects)

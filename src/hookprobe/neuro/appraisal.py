"""Judging one batch against the verifier's own copy of the device's state (HP-NEURO-1 3.1).

Replaying what a device reports only shows that its log is consistent: a tampered device that
reports honestly would resonate for ever. So the history is judged with the golden measurements in
place of the reported ones:

    every measurement golden, proof holds           RESONANT
    some measurement not golden, proof holds with
      the records as reported (forensic branch)     TAMPER_REPORTED, from the first bad index on
    otherwise                                       DISSONANT; `substituted` says whether the
                                                    device holds the golden history instead, which
                                                    means that the records were edited on the way

What this cannot see: a device whose root user feeds the agent golden measurements is RESONANT.
"""

from dataclasses import dataclass, replace

from hookprobe.neuro import posf
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.batch import TerBatch
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import SEQUENCE_PERIOD, Ter, checksum
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.instant import SECOND, Instant

AHEAD_MAX_US = 300 * SECOND


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The outcome for one batch.

    Attributes:
        verdict: The conclusion.
        state: The state after the records; None unless they were taken.
        baseline: The baseline after the records.
        first_bad: Index of the first measurement that is not golden.
        rebased: Indices at which an approved update was made.
        substituted: The proof holds for the golden history and not for the reported one.
    """

    verdict: Verdict
    state: NeuroState | None
    baseline: Baseline
    first_bad: int | None = None
    rebased: tuple[int, ...] = ()
    substituted: bool = False


def check_records(
    records: tuple[Ter, ...], first_index: int, previous: Ter | None, now: Instant
) -> Verdict | None:
    """Check sequence, chain and time of records; None if all is well (HP-NEURO-1 3.2).

    Args:
        records: The batch's records.
        first_index: The index of the first.
        previous: The record before it; None at the start of an epoch.
        now: The verifier's time.
    """
    for index, record in enumerate(records, first_index):
        if record.sequence != index % SEQUENCE_PERIOD:
            return Verdict.REJECT_SEQ
        if record.chain != (0 if previous is None else checksum(previous.encode())):
            return Verdict.REJECT_CRC
        if previous is not None and record.timestamp <= previous.timestamp:
            return Verdict.REJECT_TIME
        if record.timestamp > now + AHEAD_MAX_US:
            return Verdict.REJECT_TIME
        previous = record
    return None


@dataclass(frozen=True, slots=True)
class Walk:
    """Records met by a baseline."""

    golden: tuple[Ter, ...]
    baseline: Baseline
    first_bad: int | None
    rebased: tuple[int, ...]


def walk(records: tuple[Ter, ...], first_index: int, baseline: Baseline) -> Walk:
    """Return the records with golden measurements substituted, and what was met on the way."""
    golden, bad, rebased = [], [], []
    for index, record in enumerate(records, first_index):
        baseline, moved = baseline.meet(record)
        if moved:
            rebased.append(index)
        if record.h_integrity != baseline.golden:
            bad.append(index)
        golden.append(replace(record, h_integrity=baseline.golden))
    return Walk(tuple(golden), baseline, bad[0] if bad else None, tuple(rebased))


def appraise(state: NeuroState, baseline: Baseline, batch: TerBatch) -> Appraisal:
    """Judge a batch whose form, signature, nonce and records were checked; `state` is not changed.

    Args:
        state: The device's state before the batch.
        baseline: Its reference values before the batch.
        batch: The batch.
    """
    met = walk(batch.records, batch.head.first_index, baseline)
    reported = _branch(state, batch.records)
    if posf.verify(reported, batch.context(), batch.proof):
        verdict = Verdict.RESONANT if met.first_bad is None else Verdict.TAMPER_REPORTED
        return Appraisal(verdict, reported, met.baseline, met.first_bad, met.rebased)
    substituted = met.first_bad is not None and posf.verify(
        _branch(state, met.golden), batch.context(), batch.proof
    )
    return Appraisal(Verdict.DISSONANT, None, baseline, met.first_bad, substituted=substituted)


def _branch(state: NeuroState, records: tuple[Ter, ...]) -> NeuroState:
    branch = state.copy()
    branch.advance(records)
    return branch

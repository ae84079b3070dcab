"""The device's rules: clocks, wrap, limits, resync, and a crash at every durable step."""

import dataclasses

import pytest
from tests.unit.neuro.neuro_mesh import (
    ENGINE,
    EVIL,
    GOLDEN,
    NODE,
    START,
    Box,
    CrashError,
    config,
    deliver,
    desk,
    entropy,
    fresh,
    greet,
    history,
    minute,
    verdict_of,
)

from hookprobe.errors import LocalError, VerificationError
from hookprobe.neuro import snapshot
from hookprobe.neuro.answer import Answer
from hookprobe.neuro.attester import CLOCK_WAIT_US, Attester, Reading
from hookprobe.neuro.batch import BATCH_RECORDS_MAX
from hookprobe.neuro.effects import (
    AppendRecord,
    BacklogFull,
    ClockAwaited,
    ClockStepped,
    MeasureHost,
    ResyncNeeded,
    SendBatch,
    VerdictHeard,
)
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.state import NeuroState, Parts
from hookprobe.neuro.ter import checksum, hash_record
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.instant import MINUTE, SECOND, Instant

READING = Reading(entropy(0), GOLDEN)
UNSET_CLOCK = dataclasses.replace(READING, clock_trusted=False)


def attester(unacked_max: int = 65_536) -> Attester:
    return Attester(config(unacked_max), Snapshot(0, fresh()))


def record_of(made: Attester, reading: Reading, now: Instant) -> AppendRecord:
    *_, last = made.measure(reading, now)
    assert isinstance(last, AppendRecord)
    made.receive_appended(last.index)
    return last


def test_a_record_is_applied_only_after_it_was_appended() -> None:
    made = attester()
    (effect,) = made.measure(READING, minute(0))
    assert isinstance(effect, AppendRecord)
    assert made.state.count == 0
    with pytest.raises(LocalError, match="never confirmed"):
        made.measure(READING, minute(1))
    with pytest.raises(LocalError):
        made.receive_appended(1)
    assert made.receive_appended(0) == []
    assert made.state.count == 1
    with pytest.raises(LocalError):
        made.receive_appended(0)


def test_measurements_are_asked_for_once_a_minute() -> None:
    made = attester()
    assert made.next_timeout() == START
    assert made.handle_timeout(START) == [MeasureHost()]
    assert made.next_timeout() == START + MINUTE
    assert made.handle_timeout(Instant(START + MINUTE - 1)) == []


def test_a_clock_that_goes_back_still_gives_later_records() -> None:
    made = attester()
    first = record_of(made, READING, minute(5)).record
    effects = made.measure(READING, minute(1))
    assert effects[0] == ClockStepped(first.timestamp, minute(1))
    assert isinstance(effects[1], AppendRecord)
    assert effects[1].record.timestamp == first.timestamp + 1


def test_without_a_clock_chip_the_first_record_waits_for_ntp() -> None:
    made = attester()
    until = Instant(START + CLOCK_WAIT_US)
    assert made.measure(UNSET_CLOCK, START) == [ClockAwaited(until)]
    assert record_of(made, READING, Instant(START + SECOND)).record.timestamp == START + SECOND


def test_without_ntp_time_goes_on_from_the_last_record() -> None:
    made = attester()
    until = Instant(START + CLOCK_WAIT_US)
    assert record_of(made, UNSET_CLOCK, until).record.timestamp == START + 1
    assert record_of(made, UNSET_CLOCK, until).record.timestamp == START + 2


def test_the_sequence_wraps_and_the_verifier_follows() -> None:
    box, at = Box(), desk()
    last = dataclasses.replace(history(1)[0], sequence=65_534)
    weights = fresh().masters()

    def near_the_end() -> NeuroState:
        return NeuroState(Parts(ENGINE(weights), b"c" * 32, 65_535, last))

    at.verifier.enrol(dataclasses.replace(at.verifier.standing(NODE), state=near_the_end()), START)
    box.kept, box.first = snapshot.encode(Snapshot(0, near_the_end())), 65_535
    box.restart()
    greet(box, at)
    for i in range(3):
        box.tick(i + 1)
        assert deliver(box, at, minute(i + 1)) == [Verdict.RESONANT]
    assert [record.sequence for record in box.log] == [65_535, 0, 1]
    assert box.log[1].chain == checksum(box.log[0].encode())
    assert at.verifier.standing(NODE).state.count == 65_538


def test_no_more_records_wait_than_may() -> None:
    made = attester(unacked_max=3)
    for i in range(3):
        record_of(made, READING, minute(i))
    assert made.measure(READING, minute(3)) == [BacklogFull(3)]
    assert made.unacked == 3


def test_a_backlog_goes_out_in_batches_that_all_resonate() -> None:
    box, at = Box(), desk()
    for i in range(BATCH_RECORDS_MAX + 3):
        box.tick(i)
    greet(box, at)
    now = minute(BATCH_RECORDS_MAX + 3)
    assert deliver(box, at, now) == [Verdict.RESONANT, Verdict.RESONANT]
    assert box.attester.unacked == 0
    assert at.verifier.standing(NODE).state.commitments() == box.attester.state.commitments()
    # The snapshot of the acknowledged state was kept and the log cut to what follows it.
    assert box.first == snapshot.decode(box.kept).state.count == BATCH_RECORDS_MAX


def test_tampering_ends_resonance_and_the_device_hears_it() -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    assert deliver(box, at, minute(0)) == [Verdict.RESONANT]
    box.tick(1, measured=EVIL)
    assert deliver(box, at, minute(1)) == [Verdict.TAMPER_REPORTED]
    assert box.seen[-1] == VerdictHeard(Verdict.TAMPER_REPORTED, 2)


def test_a_refused_batch_is_not_repeated_at_once() -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    (sent,) = box.sent
    refusal = Answer(Verdict.REJECT_NONCE, 0, 0, b"m" * 16)
    assert box.attester.receive_answer(refusal) == [VerdictHeard(Verdict.REJECT_NONCE, 0)]
    box.sent.clear()
    box.tick(1)
    assert [len(batch.records) for batch in box.sent] == [2]
    assert sent.head.nonce != box.sent[0].head.nonce


def test_a_lost_answer_is_made_good_by_the_next_greeting() -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    at.run(at.verifier.receive_batch(NODE, box.sent.pop().encode(), minute(0)))  # answer lost
    box.tick(1)
    assert box.sent == []
    greet(box, at)
    assert deliver(box, at, minute(1)) == [Verdict.RESONANT]
    assert at.verifier.standing(NODE).state.count == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(Verdict.RESONANT, 0, 3, b"n" * 16), "goes on at 3"),
        (Answer(None, 1, 0, b"n" * 16), "epoch"),
        (Answer(Verdict.FORK, 0, 2, b"n" * 16), "another device"),
    ],
)
def test_a_device_that_cannot_go_on_makes_no_more_records(answer: Answer, reason: str) -> None:
    made = attester()
    for i in range(2):
        record_of(made, READING, minute(i))
    effects = made.receive_answer(answer)
    assert isinstance(effects[-1], ResyncNeeded)
    assert reason in effects[-1].reason
    assert made.measure(READING, minute(3)) == []
    assert made.handle_timeout(minute(3)) == []
    assert made.next_timeout() is None
    assert made.receive_answer(answer) == [VerdictHeard(answer.verdict, answer.next_index)]


def test_a_verifier_that_forgot_what_it_acknowledged_needs_a_resync() -> None:
    made = attester()
    record_of(made, READING, minute(0))
    last = hash_record(made.state.previous)
    made.receive_answer(Answer(Verdict.RESONANT, 0, 1, b"n" * 16, last))
    effects = made.receive_answer(Answer(None, 0, 0, b"n" * 16))
    assert isinstance(effects[-1], ResyncNeeded)


def test_a_restored_backup_that_goes_on_is_a_fork() -> None:
    box, at = Box(), desk()
    greet(box, at)
    backup = Box(list(box.log), kept=box.kept)
    box.tick(0)
    deliver(box, at, minute(0))
    backup.tick(0, label=b"other sensors")
    backup.run(backup.attester.receive_answer(Answer(None, 0, 0, b"n" * 16)))
    assert (
        verdict_of(at.verifier.receive_batch(NODE, backup.sent[0].encode(), minute(0)))
        is Verdict.FORK
    )


def test_a_new_epoch_starts_from_record_zero_on_both_sides() -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    deliver(box, at, minute(0))
    box.run(box.attester.open_epoch(1, fresh(1), minute(1)))
    box.log, box.first = [], 0
    at.run(at.verifier.open_epoch(NODE, 1, fresh(1)))
    greet(box, at)
    box.tick(1)
    assert box.log[0].sequence == 0
    assert box.log[0].chain == 0
    assert deliver(box, at, minute(1)) == [Verdict.RESONANT]
    assert at.verifier.standing(NODE).epoch == 1


@pytest.mark.parametrize("epoch", [0, 1])
def test_epochs_only_grow_and_start_fresh(epoch: int) -> None:
    made, at = attester(), desk()
    state = fresh(epoch)
    if epoch:
        state.advance(history(1))
    with pytest.raises(LocalError):
        made.open_epoch(epoch, state, START)
    with pytest.raises(LocalError):
        at.verifier.open_epoch(NODE, epoch, state)


def test_an_edited_log_is_found_at_restart() -> None:
    box = Box()
    for i in range(3):
        box.tick(i)
    box.log[1] = dataclasses.replace(box.log[1], h_integrity=EVIL)
    with pytest.raises(VerificationError, match="record 2"):
        box.restart()


def test_an_edited_last_record_is_reported_as_what_it_says() -> None:
    box, at = Box(), desk()
    greet(box, at)
    for i in range(2):
        box.tick(i)
    box.sent.pop(0)
    box.log[1] = dataclasses.replace(box.log[1], h_integrity=EVIL)
    box.restart()  # the CRC of the last record stands nowhere yet
    greet(box, at)
    # The device went on from what its log says now, so this is a report of tampering ...
    assert deliver(box, at, minute(2)) == [Verdict.TAMPER_REPORTED]


def test_what_was_verified_before_cannot_be_edited_after() -> None:
    box, at = Box(), desk()
    greet(box, at)
    for i in range(2):
        box.tick(i)
        deliver(box, at, minute(i))
    box.log[1] = dataclasses.replace(box.log[1], h_entropy=bytes(32))
    box.restart()
    greet(box, at)
    # What it holds goes out as evidence: two records under one index, both signed by its key.
    assert deliver(box, at, minute(2)) == [Verdict.FORK]
    assert at.verifier.standing(NODE).forked
    assert any(isinstance(effect, ResyncNeeded) for effect in box.seen)


def test_a_lost_tail_is_no_fork_but_stops_the_device() -> None:
    """The verifier has more of the same records: nobody contradicts, but a gap is left."""
    box, at = Box(), desk()
    greet(box, at)
    for i in range(3):
        box.tick(i)
        deliver(box, at, minute(i))
    del box.log[2:]
    box.restart()
    greet(box, at)
    assert deliver(box, at, minute(3)) == [Verdict.REJECT_SEQ]
    assert not at.verifier.standing(NODE).forked
    assert any(isinstance(effect, ResyncNeeded) for effect in box.seen)


MINUTES = 4


def run_with_crashes(crash_at: int) -> tuple[bool, list[Verdict]]:
    """Run some minutes; the device loses power before its durable step `crash_at`."""
    box, at = Box(), desk()
    box.crash_at = crash_at
    verdicts: list[Verdict] = []
    index = 0
    crashed = False
    while index < MINUTES:
        try:
            greet(box, at)
            while index < MINUTES:
                index += 1
                box.tick(index)
                verdicts += deliver(box, at, minute(MINUTES + 1))
        except CrashError:
            crashed = True
            box.sent.clear()
            box.restart()
    box.crash_at = None
    greet(box, at)
    verdicts += deliver(box, at, minute(MINUTES + 1))
    assert at.verifier.standing(NODE).state.commitments() == box.attester.state.commitments()
    assert at.verifier.standing(NODE).state.count == box.first + len(box.log)
    return crashed, verdicts


def test_a_crash_at_any_durable_step_ends_resonant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookprobe.neuro.attester.SNAPSHOT_EVERY_RECORDS", 2)
    crashes = 0
    while True:
        crashed, verdicts = run_with_crashes(crashes)
        if not crashed:
            break
        crashes += 1
        # A batch whose answer was lost may be refused by index; nothing is ever worse than that.
        assert all(verdict is Verdict.RESONANT for verdict in verdicts), crashes
    assert crashes > 20


@pytest.mark.parametrize("crash_after", range(5))
def test_a_verifier_that_crashes_between_effects_goes_on(crash_after: int) -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    deliver(box, at, minute(0))
    box.tick(1, measured=EVIL)
    with pytest.raises(CrashError):
        at.run(at.verifier.receive_batch(NODE, box.sent.pop().encode(), minute(1)), crash_after)
    at.restart()
    taken = at.verifier.standing(NODE).state.count
    assert taken == (1 if crash_after == 0 else 2)
    greet(box, at)
    deliver(box, at, minute(1))
    box.tick(2)
    assert deliver(box, at, minute(2)) == [Verdict.TAMPER_REPORTED]
    assert at.verifier.standing(NODE).broken_at == 1


def test_sent_means_durable() -> None:
    box, at = Box(), desk()
    greet(box, at)
    box.tick(0)
    kinds = [type(effect) for effect in box.seen]
    assert kinds.index(AppendRecord) < kinds.index(SendBatch)

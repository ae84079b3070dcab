"""The device's side: one record a minute, durable before it counts, proven to the verifier.

    MeasureHost -> measure() -> AppendRecord -> receive_appended() -> evolve -> SendBatch
    answer -> receive_answer() -> acknowledged -> SaveSnapshot, TrimLog

Two states are held: the live one after every record, and the one after the last record the
verifier has acknowledged, from which proofs for a backlog are made. A snapshot is always of the
acknowledged one, so a restart replays the log from there and can still prove everything unsent.

A verifier's answer names the last record it has. If that is not ours, another device continued our
history: what we hold goes out as evidence, and we stop.

Clock rules (HP-NEURO-1 3.2): a record's time is max(now, last + 1 us). A host without a trusted
clock waits up to five minutes for one after boot, then goes on with last + 1 us.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.signing import Signer
from hookprobe.errors import LocalError, VerificationError
from hookprobe.neuro import snapshot
from hookprobe.neuro.answer import Answer
from hookprobe.neuro.batch import (
    BATCH_RECORDS_MAX,
    RECORDS_UNACKED_MAX,
    Head,
    make_batch,
    short_name,
)
from hookprobe.neuro.effects import (
    AppendRecord,
    BacklogFull,
    ClockAwaited,
    ClockStepped,
    DeviceEffect,
    MeasureHost,
    ResyncNeeded,
    SaveSnapshot,
    SendBatch,
    TrimLog,
    VerdictHeard,
)
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import SEQUENCE_PERIOD, Ter, checksum, following, hash_record
from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, Duration, Instant

SNAPSHOT_EVERY_RECORDS = 60
INTERVAL_US = MINUTE
CLOCK_WAIT_US = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of the host.

    Attributes:
        h_entropy: Commitment to the sensor counters, 32 bytes.
        h_integrity: 20 bytes.
        clock_trusted: Whether the host's clock is set: it has a clock chip, or NTP answered.
    """

    h_entropy: bytes
    h_integrity: bytes
    clock_trusted: bool = True


@dataclass(frozen=True, slots=True)
class AttesterConfig:
    """Who attests, to whom, how often; `acknowledged`: records the verifier is known to have."""

    node: NodeId
    verifier: NodeId
    signer: Signer
    started: Instant
    provisioned: Instant
    interval_us: Duration = INTERVAL_US
    unacked_max: int = RECORDS_UNACKED_MAX
    acknowledged: int = 0


def check_log(start: Snapshot, records: Sequence[Ter]) -> None:
    """Check that a device's own records continue its snapshot.

    Args:
        start: The snapshot.
        records: Its log from there on.

    Raises:
        VerificationError: They do not: the log or the snapshot was exchanged or edited.
    """
    previous = start.state.previous
    for index, record in enumerate(records, start.state.count):
        chain = 0 if previous is None else checksum(previous.encode())
        later = previous is None or record.timestamp > previous.timestamp
        if record.sequence != index % SEQUENCE_PERIOD or record.chain != chain or not later:
            raise VerificationError(
                f"TER log: record {index} does not continue the one before",
                hint="restore log and snapshot together, or ask for a new epoch",
            )
        previous = record


class Attester:
    """Makes a device's records and proves them.

    Args:
        config: Who attests.
        start: The snapshot to continue from; a fresh state for a new epoch.
        records: The log's records from the snapshot's index on.

    Raises:
        VerificationError: The log does not continue the snapshot.
    """

    def __init__(
        self, config: AttesterConfig, start: Snapshot, records: Sequence[Ter] = ()
    ) -> None:
        check_log(start, records)
        self._config = config
        self._epoch = start.epoch
        self._acked = start.state
        self._live = start.state.copy()
        self._live.advance(records)
        self._unacked = list(records)
        self._snapshot_at = start.state.count
        self._pending: Ter | None = None
        self._nonce = b""
        self._proven: NeuroState | None = None
        self._halted = False
        self._next = config.started
        if start.state.count < config.acknowledged <= self._live.count:
            self._acknowledge(config.acknowledged)

    @property
    def state(self) -> NeuroState:
        """The live state."""
        return self._live

    @property
    def acknowledged(self) -> NeuroState:
        """The state after the last record the verifier has; never changed, only replaced."""
        return self._acked

    @property
    def epoch(self) -> int:
        """The weight epoch."""
        return self._epoch

    @property
    def unacked(self) -> int:
        """Records the verifier has not acknowledged."""
        return len(self._unacked)

    def next_timeout(self) -> Instant | None:
        return None if self._halted else self._next

    def handle_timeout(self, now: Instant) -> list[DeviceEffect]:
        """Ask for a measurement when one is due."""
        if self._halted or now < self._next:
            return []
        self._next = Instant(now + self._config.interval_us)
        return [MeasureHost()]

    def measure(self, reading: Reading, now: Instant) -> list[DeviceEffect]:
        """Make the record of a measurement; it counts once it has been appended."""
        if self._halted:
            return []
        if self._pending is not None:
            raise LocalError("attester: the record before was never confirmed as appended")
        if len(self._unacked) >= self._config.unacked_max:
            return [BacklogFull(len(self._unacked))]
        give_up = Instant(self._config.started + CLOCK_WAIT_US)
        if not reading.clock_trusted and now < give_up:
            return [ClockAwaited(give_up)]
        last = self._last_us()
        at = max(now, last + 1) if reading.clock_trusted else last + 1
        effects: list[DeviceEffect] = []
        if reading.clock_trusted and now <= last:
            effects.append(ClockStepped(last, now))
        record = following(self._live.previous, reading.h_entropy, reading.h_integrity, Instant(at))
        self._pending = record
        return [*effects, AppendRecord(self._epoch, self._live.count, record)]

    def _last_us(self) -> Instant:
        previous = self._live.previous
        return self._config.provisioned if previous is None else previous.timestamp

    def receive_appended(self, index: int) -> list[DeviceEffect]:
        """Apply the record that is now durable, and send what the verifier lacks.

        Raises:
            LocalError: No such record was waiting.
        """
        if self._pending is None or index != self._live.count:
            raise LocalError(f"attester: no record {index} is waiting to be appended")
        record, self._pending = self._pending, None
        self._live.apply(record)
        self._unacked.append(record)
        return self._send()

    def _send(self) -> list[DeviceEffect]:
        if not self._nonce or not self._unacked or self._halted:
            return []
        records = tuple(self._unacked[:BATCH_RECORDS_MAX])
        if len(records) == len(self._unacked):
            state = self._live.copy()
        else:
            state = self._acked.copy()
            state.advance(records)
        head = Head(
            device=short_name(self._config.node),
            epoch=self._epoch,
            first_index=self._acked.count,
            verifier=short_name(self._config.verifier),
            nonce=self._nonce,
        )
        self._nonce, self._proven = b"", state
        return [SendBatch(make_batch(head, records, state, self._config.signer))]

    def receive_answer(self, answer: Answer) -> list[DeviceEffect]:
        """Hear the verifier: what it has, what it thinks, what to answer to."""
        heard: list[DeviceEffect] = [VerdictHeard(answer.verdict, answer.next_index)]
        if self._halted:
            return heard
        if self._contradicts(answer):
            return heard + self._testify(answer) + self._halt(answer)
        self._acknowledge(answer.next_index)
        self._nonce = answer.nonce
        heard += self._keep()
        # An answer that refuses our last batch must not make us send the same one for ever: it
        # goes out again with the next record.
        refused = answer.verdict is not None and not answer.verdict.took_records
        return heard if refused else heard + self._send()

    def _contradicts(self, answer: Answer) -> bool:
        behind = answer.next_index < self._acked.count
        ahead = answer.next_index > self._live.count
        forked = answer.verdict is Verdict.FORK
        if answer.epoch != self._epoch or behind or ahead or forked:
            return True
        return answer.last != hash_record(self._record_before(answer.next_index))

    def _record_before(self, index: int) -> Ter | None:
        """Return our own record under `index` - 1, from the acknowledged one on."""
        place = index - self._acked.count
        return self._unacked[place - 1] if place else self._acked.previous

    def _testify(self, answer: Answer) -> list[DeviceEffect]:
        """Send what we hold under indices that the verifier filled with other records.

        Both records are signed by this device's key, so the verifier has proof of a clone. If it
        has just more of the same records, the batch only repeats some and is refused.
        """
        if answer.epoch != self._epoch or answer.verdict is Verdict.FORK:
            return []
        self._nonce = answer.nonce
        return self._send()

    def _halt(self, answer: Answer) -> list[DeviceEffect]:
        self._halted = True
        if answer.epoch != self._epoch:
            return [ResyncNeeded(f"epoch {self._epoch} here, {answer.epoch} at the verifier")]
        if answer.verdict is Verdict.FORK:
            return [ResyncNeeded("the verifier saw another device with our state")]
        have, want = (self._acked.count, self._live.count), answer.next_index
        if have[0] <= want <= have[1]:
            return [ResyncNeeded(f"the verifier has another record {want - 1} than we")]
        # Records made under an index that was proven before would be a fork of ourselves.
        return [ResyncNeeded(f"the verifier goes on at {want}, we have {have[0]} to {have[1]}")]

    def _acknowledge(self, index: int) -> None:
        taken = index - self._acked.count
        if self._proven is not None and self._proven.count == index:
            self._acked = self._proven
        elif taken:
            state = self._acked.copy()
            state.advance(self._unacked[:taken])
            self._acked = state
        self._proven = None
        del self._unacked[:taken]

    def _keep(self) -> list[DeviceEffect]:
        count = self._acked.count
        if count - self._snapshot_at < SNAPSHOT_EVERY_RECORDS:
            return []
        self._snapshot_at = count
        data = snapshot.encode(Snapshot(self._epoch, self._acked))
        return [SaveSnapshot(self._epoch, count, data), TrimLog(self._epoch, count)]

    def open_epoch(self, epoch: int, state: NeuroState, now: Instant) -> list[DeviceEffect]:
        """Start again in a later epoch, by an order that `open_order` returned.

        Args:
            epoch: The order's epoch.
            state: The fresh state of that epoch's seed.
            now: The time.

        Raises:
            LocalError: Not a later epoch, or not a fresh state.
        """
        if epoch <= self._epoch or state.count:
            raise LocalError("attester: an epoch order needs a later epoch, from record 0")
        self._epoch, self._acked, self._live = epoch, state, state.copy()
        self._unacked, self._pending, self._proven = [], None, None
        self._nonce, self._halted, self._snapshot_at = b"", False, 0
        self._next = now
        return [SaveSnapshot(epoch, 0, snapshot.encode(Snapshot(epoch, state)))]

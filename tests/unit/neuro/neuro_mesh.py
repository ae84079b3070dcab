"""A device and its verifier, joined by hand, with durable storage that a crash leaves behind."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.neuro import snapshot
from hookprobe.neuro.attester import Attester, AttesterConfig, Reading
from hookprobe.neuro.backends.selection import load_backend
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.batch import Head, TerBatch, make_batch, short_name
from hookprobe.neuro.effects import (
    AppendRecord,
    AppendVerified,
    Appraised,
    Effect,
    SaveSnapshot,
    SaveStanding,
    SendAnswer,
    SendBatch,
    TrimLog,
)
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.standing import Standing, decode_standing
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import Ter, following
from hookprobe.neuro.trust import START_BP, Trust
from hookprobe.neuro.verdict import Verdict
from hookprobe.neuro.verifier import Verifier, VerifierIdentity
from hookprobe.neuro.weights import derive_seed
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, Instant

NODE = NodeId("edge-1")
VERIFIER = NodeId("verifier-1")
START = Instant(1_800_000_000_000_000)
GOLDEN = hashlib.sha256(b"golden").digest()[:20]
EVIL = hashlib.sha256(b"evil").digest()[:20]
NEWER = hashlib.sha256(b"newer").digest()[:20]
DEVICE_KEY = Ed25519Signer(b"\x11" * 32)
VERIFIER_KEY = Ed25519Signer(b"\x22" * 32)
AUTHORITY = Ed25519Signer(b"\x33" * 32)
ENGINE = load_backend("numpy")


class CrashError(BaseException):
    """The power went."""


def seed(epoch: int = 0) -> bytes:
    return derive_seed(b"\x01" * 32, b"\x02" * 32, START, epoch)


def fresh(epoch: int = 0) -> NeuroState:
    return NeuroState(seed(epoch), ENGINE)


def drawing(label: bytes) -> Callable[[int], bytes]:
    drawn = 0

    def draw(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(label + drawn.to_bytes(4, "big")).digest(size)

    return draw


def entropy(index: int, label: bytes = b"") -> bytes:
    return hashlib.sha256(b"sensors" + label + index.to_bytes(4, "big")).digest()


def minute(index: int) -> Instant:
    return Instant(START + (index + 1) * MINUTE)


def history(count: int, measured: dict[int, bytes] | None = None) -> list[Ter]:
    """`count` records, golden but where `measured` says otherwise."""
    records: list[Ter] = []
    for i in range(count):
        value = (measured or {}).get(i, GOLDEN)
        previous = records[-1] if records else None
        records.append(following(previous, entropy(i), value, minute(i)))
    return records


def batch_of(
    records: list[Ter], first: int, nonce: bytes, state: NeuroState | None = None
) -> TerBatch:
    """A batch of records[first:] by a device that holds `state`, or the honest one."""
    if state is None:
        state = fresh()
        state.advance(records)
    head = Head(short_name(NODE), 0, first, short_name(VERIFIER), nonce)
    return make_batch(head, tuple(records[first:]), state, DEVICE_KEY)


@dataclass
class Desk:
    """A verifier with its disk."""

    verifier: Verifier
    seen: list[Effect] = field(default_factory=list)
    standing: bytes = b""
    verified: list[tuple[int, tuple[Ter, ...]]] = field(default_factory=list)
    nonce: bytes = b""

    def run(self, effects: Sequence[Effect], crash_after: int | None = None) -> Sequence[Effect]:
        for done, effect in enumerate(effects):
            if done == crash_after:
                raise CrashError
            if isinstance(effect, AppendVerified):
                self.verified.append((effect.first_index, effect.records))
            elif isinstance(effect, SaveStanding):
                self.standing = effect.data
            elif isinstance(effect, SendAnswer):
                self.nonce = effect.answer.nonce
            self.seen.append(effect)
        if crash_after is not None and crash_after >= len(effects):
            raise CrashError
        return effects

    def restart(self) -> None:
        held = decode_standing(self.standing, ENGINE)
        for first, records in self.verified:
            if first + len(records) > held.state.count:
                held = held.follow(first, records)
        self.verifier = new_verifier(b"restart")
        self.verifier.resume(held, START)

    def receive(self, batch: TerBatch, now: Instant) -> Verdict:
        effects = self.run(self.verifier.receive_batch(NODE, batch.encode(), now))
        return verdict_of(effects)


def verdict_of(effects: Sequence[Effect]) -> Verdict:
    (found,) = [effect for effect in effects if isinstance(effect, Appraised)]
    return found.verdict


def new_verifier(label: bytes = b"nonce") -> Verifier:
    return Verifier(VerifierIdentity(VERIFIER, VERIFIER_KEY, Ed25519()), drawing(label))


def enrolled() -> Standing:
    return Standing(
        NODE, DEVICE_KEY.public_key, 0, fresh(), Baseline(GOLDEN), Trust(START_BP, START)
    )


def desk() -> Desk:
    """A verifier that knows the device and has greeted it."""
    made = Desk(new_verifier())
    made.run(made.verifier.enrol(enrolled(), START))
    made.run(made.verifier.greet(NODE))
    return made


def config(unacked_max: int = 65_536) -> AttesterConfig:
    return AttesterConfig(NODE, VERIFIER, DEVICE_KEY, START, START, unacked_max=unacked_max)


@dataclass
class Box:
    """A device with its disk."""

    log: list[Ter] = field(default_factory=list)
    first: int = 0
    kept: bytes = b""
    sent: list[TerBatch] = field(default_factory=list)
    seen: list[Effect] = field(default_factory=list)
    crash_at: int | None = None
    count: int = 0

    def __post_init__(self) -> None:
        self.kept = snapshot.encode(Snapshot(0, fresh()))
        self.restart()

    def restart(self) -> None:
        start = snapshot.decode(self.kept, ENGINE)
        self.attester = Attester(config(), start, self.log[start.state.count - self.first :])

    def step(self) -> None:
        """One durable step; the power may go before it."""
        if self.crash_at == self.count:
            self.crash_at = None
            raise CrashError
        self.count += 1

    def run(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self.step()
            self.seen.append(effect)
            if isinstance(effect, AppendRecord):
                assert effect.index == self.first + len(self.log)
                self.log.append(effect.record)
                self.step()
                self.run(self.attester.receive_appended(effect.index))
            elif isinstance(effect, SaveSnapshot):
                self.kept = effect.data
            elif isinstance(effect, TrimLog):
                del self.log[: effect.first_index - self.first]
                self.first = effect.first_index
            elif isinstance(effect, SendBatch):
                self.sent.append(effect.batch)

    def tick(self, index: int, measured: bytes = GOLDEN, label: bytes = b"") -> None:
        reading = Reading(entropy(index, label), measured)
        self.run(self.attester.measure(reading, minute(index)))


def greet(box: Box, at: Desk) -> None:
    """Open a session: the verifier tells the device where to go on."""
    for effect in at.run(at.verifier.greet(NODE)):
        if isinstance(effect, SendAnswer):
            box.run(box.attester.receive_answer(effect.answer))


def deliver(box: Box, at: Desk, now: Instant) -> list[Verdict]:
    """Carry batches and answers until nothing is under way."""
    verdicts = []
    while box.sent:
        batch = box.sent.pop(0)
        for effect in at.run(at.verifier.receive_batch(NODE, batch.encode(), now)):
            if isinstance(effect, Appraised):
                verdicts.append(effect.verdict)
            elif isinstance(effect, SendAnswer):
                box.run(box.attester.receive_answer(effect.answer))
    return verdicts

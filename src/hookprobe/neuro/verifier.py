"""The verifier of many devices: batches in, verdicts, answers and certificates out.

Rules of acceptance, in this order (HP-NEURO-1 3.1, 3.2): form, enrolled device, Ed25519 signature,
addressee and epoch, index (a record that contradicts one already taken is a FORK), nonce, sequence,
CRC chain, time; then the history is replayed and judged. A batch is taken whole or not at all.

Every verdict about a device's state is certified: `resonant` for the device and everybody, any
other as a warning. After a restart the device's next batch brings the certificate again.

TAMPER_REPORTED stays until an operator accepts the measurement, even if the device measures golden
again; FORK stays until a new epoch. Both are durable before anybody is told.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import LocalError, RemoteError
from hookprobe.neuro import certificate
from hookprobe.neuro.answer import Answer
from hookprobe.neuro.appraisal import AHEAD_MAX_US, Appraisal, appraise, check_records
from hookprobe.neuro.batch import (
    NONCE_BYTES,
    RECORDS_UNACKED_MAX,
    TerBatch,
    check_signature,
    decode_batch,
    short_name,
)
from hookprobe.neuro.certificate import CERTIFICATE_LIFE_US, ResonanceCertificate
from hookprobe.neuro.effects import (
    AppendVerified,
    Appraised,
    BaselineLearned,
    BatchRefused,
    Certified,
    ClockAstray,
    DeviceSilent,
    ForkFound,
    Rebased,
    SaveStanding,
    SendAnswer,
    TrustChanged,
    VerifierEffect,
)
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.standing import Standing, encode_standing
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import decode, hash_record
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, Verdict
from hookprobe.wire.bucket import Bucket
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, Instant

DEVICES_MAX = 16_384
RECORDS_PER_S = 10  # of one device, whose usual pace is one a minute
SNAPSHOT_EVERY_RECORDS = 1_440
SILENT_AFTER_US = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class VerifierIdentity:
    """Who verifies: its name, the key that signs certificates, how signatures are checked."""

    node: NodeId
    signer: Signer
    scheme: SignatureScheme


@dataclass(slots=True)
class _Session:
    standing: Standing
    saved_at: int
    heard: Instant
    budget: Bucket
    nonce: bytes = b""
    word: bytes = b""


class Verifier:
    """Judges devices.

    Args:
        identity: Who verifies.
        random_bytes: A cryptographic source, for nonces.
        attestation: Says what a device may be called now; without it every one is
            `software-attested`.
    """

    def __init__(
        self,
        identity: VerifierIdentity,
        random_bytes: Callable[[int], bytes],
        attestation: Callable[[NodeId, Instant], str] = lambda _node, _now: SOFTWARE_ATTESTED,
    ) -> None:
        self._identity = identity
        self._name = short_name(identity.node)
        self._random = random_bytes
        self._attestation = attestation
        self._sessions: OrderedDict[NodeId, _Session] = OrderedDict()
        self._names: dict[bytes, NodeId] = {}
        self._silent: dict[NodeId, Instant] = {}

    def standing(self, node: NodeId) -> Standing:
        """Return what is known about a device.

        Raises:
            LocalError: It is not enrolled here.
        """
        return self._session(node).standing

    def nodes(self) -> Sequence[NodeId]:
        """Return the enrolled devices, sorted."""
        return sorted(self._sessions)

    def enrol(self, standing: Standing, now: Instant) -> list[VerifierEffect]:
        """Take a new device, or the same one under a new secret.

        Raises:
            LocalError: More devices than one verifier takes.
        """
        if standing.node not in self._sessions and len(self._sessions) >= DEVICES_MAX:
            raise LocalError(f"NEURO verifier: {DEVICES_MAX} devices are enrolled already")
        budget = Bucket(RECORDS_PER_S, RECORDS_UNACKED_MAX, now)
        self._sessions[standing.node] = _Session(standing, standing.state.count, now, budget)
        self._sessions.move_to_end(standing.node)
        self._names[short_name(standing.node)] = standing.node
        self._silent.pop(standing.node, None)
        return [SaveStanding(standing.node, encode_standing(standing))]

    def resume(self, standing: Standing, now: Instant) -> None:
        """Take a device from storage after a restart; see `Standing.follow`."""
        self.enrol(standing, now)

    def certificates(self) -> list[bytes]:
        """Return the last certificate of every device that has one, for whoever has just come."""
        return [session.word for session in self._sessions.values() if session.word]

    def greet(self, node: NodeId) -> list[VerifierEffect]:
        """Tell a device that has just connected where to go on."""
        session = self._session(node)
        return [self._answer(session, session.standing.verdict, b"")]

    def receive_batch(self, sender: NodeId, data: bytes, now: Instant) -> list[VerifierEffect]:
        """Judge a batch that came in over an authenticated session with `sender`.

        A device may send all that it can have kept, and after that only so much a second: replay is
        what a flood of records would cost us. What comes too fast is not answered; it comes again.
        """
        try:
            batch = decode_batch(data)
        except RemoteError as error:
            return [BatchRefused(f"{Verdict.REJECT_FORM.value}: {error.message}")]
        node = self._names.get(batch.head.device)
        if node is None or node != sender:
            # A batch of somebody else is not replayed at that device's cost.
            return [BatchRefused(Verdict.REJECT_DEVICE.value)]
        session = self._session(node)
        if not session.budget.take(len(batch.records) + 1, now):
            return []
        try:
            check_signature(batch, session.standing.key, self._identity.scheme)
        except RemoteError:
            # Anybody can make these; they must not cost the device its trust.
            return [BatchRefused(f"{Verdict.REJECT_SIGNATURE.value}: {node}")]
        refused = self._refuse(session, batch, now)
        if isinstance(refused, Verdict):
            return self._conclude(session, refused, now)
        if refused is not None:
            return self._fork(session, refused, now)
        session.nonce = b""
        return self._judge(session, batch, now)

    def _refuse(
        self, session: _Session, batch: TerBatch, now: Instant
    ) -> Verdict | ForkFound | None:
        standing, head = session.standing, batch.head
        if head.epoch != standing.epoch or head.verifier != self._name:
            return Verdict.REJECT_EPOCH
        if standing.forked:
            return Verdict.FORK
        if head.first_index != standing.state.count:
            return _contradiction(standing, batch) or Verdict.REJECT_SEQ
        if head.nonce != session.nonce:
            return Verdict.REJECT_NONCE
        return check_records(batch.records, head.first_index, standing.state.previous, now)

    def _fork(self, session: _Session, found: ForkFound, now: Instant) -> list[VerifierEffect]:
        session.standing = replace(session.standing, forked=True)
        return [found, *self._conclude(session, Verdict.FORK, now, save=True)]

    def _judge(self, session: _Session, batch: TerBatch, now: Instant) -> list[VerifierEffect]:
        standing = session.standing
        found = appraise(standing.state, standing.baseline, batch)
        if found.state is None:
            return self._conclude(session, found.verdict, now, found)
        first, node = batch.head.first_index, standing.node
        broken = standing.broken_at if standing.broken_at is not None else found.first_bad
        session.standing = replace(
            standing,
            state=found.state,
            baseline=found.baseline,
            broken_at=broken,
            recent=standing.took(batch.records),
        )
        effects: list[VerifierEffect] = [AppendVerified(node, standing.epoch, first, batch.records)]
        if standing.baseline.is_open:
            effects.append(BaselineLearned(node, found.baseline.golden))
        effects += [Rebased(node, index, found.baseline.golden) for index in found.rebased]
        behind = now - batch.records[-1].timestamp
        if behind > AHEAD_MAX_US:
            effects.append(ClockAstray(node, behind))
        verdict = Verdict.RESONANT if broken is None else Verdict.TAMPER_REPORTED
        save = broken != standing.broken_at or standing.baseline.is_open
        return effects + self._conclude(session, verdict, now, found, save=save)

    def _conclude(
        self,
        session: _Session,
        verdict: Verdict,
        now: Instant,
        found: Appraisal | None = None,
        *,
        save: bool = False,
    ) -> list[VerifierEffect]:
        before = session.standing.trust
        trust = before.update(verdict, now)
        standing = replace(session.standing, trust=trust, verdict=verdict)
        session.standing = standing
        node, count = standing.node, standing.state.count
        effects: list[VerifierEffect] = []
        if save or count - session.saved_at >= SNAPSHOT_EVERY_RECORDS:
            session.saved_at = count
            effects.append(SaveStanding(node, encode_standing(standing)))
        bad = found.first_bad if found else None
        substituted = found.substituted if found else False
        effects.append(Appraised(node, verdict, count, bad, substituted))
        if trust.basis_points != before.basis_points:
            effects.append(TrustChanged(node, trust.basis_points))
        if verdict is Verdict.RESONANT:
            self._heard(session, now)
        if verdict.is_about_state:
            session.word = self._certify(standing, now)
            effects.append(Certified(node, verdict, session.word))
        word = session.word if verdict is Verdict.RESONANT else b""
        effects.append(self._answer(session, verdict, word))
        return effects

    def _heard(self, session: _Session, now: Instant) -> None:
        session.heard = now
        self._sessions.move_to_end(session.standing.node)
        self._silent.pop(session.standing.node, None)

    def _certify(self, standing: Standing, now: Instant) -> bytes:
        word = ResonanceCertificate(
            node=standing.node,
            epoch=standing.epoch,
            ter_index=max(standing.state.count - 1, 0),
            w_fingerprint=standing.state.commitments().w_fingerprint,
            status=standing.verdict or Verdict.DISSONANT,
            issued=now,
            not_after=Instant(now + CERTIFICATE_LIFE_US),
            trust=standing.trust.basis_points,
            attestation=self._attestation(standing.node, now),
        )
        return certificate.issue(word, self._identity.signer)

    def _answer(self, session: _Session, verdict: Verdict | None, word: bytes) -> SendAnswer:
        session.nonce = self._random(NONCE_BYTES)
        standing = session.standing
        last = hash_record(standing.state.previous)
        place = (standing.epoch, standing.state.count)
        answer = Answer(verdict, *place, session.nonce, last, word)
        return SendAnswer(standing.node, answer)

    def announce(self, nodes: Sequence[NodeId], manifest: Manifest) -> list[VerifierEffect]:
        """Allow an update, from a manifest that `open_manifest` returned, on devices.

        Raises:
            VerificationError: A version that does not grow.
            LimitExceededError: Too many updates are waiting on one of them.
        """
        sessions = [self._session(node) for node in nodes]
        allowed = [item.standing.baseline.announce(manifest) for item in sessions]
        effects: list[VerifierEffect] = []
        for session, baseline in zip(sessions, allowed, strict=True):
            effects.append(self._save(session, replace(session.standing, baseline=baseline)))
        return effects

    def accept_measurement(self, node: NodeId, h_integrity: bytes) -> list[VerifierEffect]:
        """Follow an operator who looked at a device and accepts what it measures."""
        session = self._session(node)
        standing = replace(
            session.standing,
            baseline=session.standing.baseline.accept(h_integrity),
            broken_at=None,
            trust=session.standing.trust.restore(),
        )
        return [self._save(session, standing), Rebased(node, standing.state.count, h_integrity)]

    def condemn(self, node: NodeId, now: Instant) -> list[VerifierEffect]:
        """Latch what a TPM saw: the device booted something that is not golden."""
        session = self._session(node)
        standing = session.standing
        if standing.broken_at is None:
            session.standing = replace(standing, broken_at=standing.state.count)
        return self._conclude(session, Verdict.TAMPER_REPORTED, now, save=True)

    def open_epoch(self, node: NodeId, epoch: int, state: NeuroState) -> list[VerifierEffect]:
        """Continue a device in a later epoch, with the state its seed gives.

        Raises:
            LocalError: Not a later epoch, or not a fresh state.
        """
        session = self._session(node)
        if epoch <= session.standing.epoch or state.count:
            raise LocalError("NEURO verifier: an epoch order needs a later epoch, from record 0")
        fresh = replace(
            session.standing,
            epoch=epoch,
            state=state,
            broken_at=None,
            forked=False,
            recent=b"",
            trust=session.standing.trust.restore(),
        )
        return [self._save(session, fresh), self._answer(session, None, b"")]

    def _save(self, session: _Session, standing: Standing) -> SaveStanding:
        session.standing = standing
        session.saved_at = standing.state.count
        return SaveStanding(standing.node, encode_standing(standing))

    def next_timeout(self) -> Instant | None:
        for node, session in self._sessions.items():
            if node not in self._silent:
                return Instant(session.heard + SILENT_AFTER_US)
        return None

    def handle_timeout(self, now: Instant) -> list[VerifierEffect]:
        """Report the devices that have fallen silent."""
        effects: list[VerifierEffect] = []
        for node, session in self._sessions.items():
            if session.heard + SILENT_AFTER_US > now:
                break
            if node not in self._silent:
                self._silent[node] = now
                effects.append(DeviceSilent(node, session.heard))
        return effects

    def _session(self, node: NodeId) -> _Session:
        session = self._sessions.get(node)
        if session is None:
            raise LocalError(f"NEURO verifier: {node} is not enrolled here")
        return session


def _contradiction(standing: Standing, batch: TerBatch) -> ForkFound | None:
    for index, record in enumerate(batch.records, batch.head.first_index):
        ours = standing.taken(index)
        if ours is not None and ours != record.encode():
            return ForkFound(standing.node, index, decode(ours), batch)
    return None

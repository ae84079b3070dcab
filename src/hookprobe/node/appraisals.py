"""What verifiers said about devices, as a validator keeps it: whose reports count.

    no certificate yet             not counted
    resonant, until it expires     counted
    expired, within the grace      counted: a verifier that is away for a while stops nobody
    expired beyond the grace       not counted
    any other status               not counted, at once

Whether a device may send reports at all is up to its trust (`trust`, `htp.trust`); whether they
count is decided here.

What is not counted is not lost: a device keeps its blocks and sends them again, and they are taken
once a verifier certifies it again. The newest word wins, by weight epoch and time of issue, so an
old certificate cannot undo a warning. Certificates come from verifiers or from the device itself;
the signature counts, not who carried it.
"""

import hmac
from dataclasses import dataclass
from enum import Enum

from hookprobe.crypto.signing import SignatureScheme
from hookprobe.dsm.store import Persist, StoreReader, Table, prefix_end
from hookprobe.errors import RemoteError, UnauthorizedError
from hookprobe.htp.channels import Channel
from hookprobe.htp.trust import ATTESTING_FROM, FULL_FROM, FULL_TRUST
from hookprobe.identity.directory import Directory
from hookprobe.neuro import certificate as certificates
from hookprobe.neuro import messages
from hookprobe.neuro.certificate import ResonanceCertificate
from hookprobe.neuro.messages import Kind
from hookprobe.neuro.trust import FULL_BP
from hookprobe.neuro.verdict import Verdict
from hookprobe.node.doubts import ASTRAY, EXPIRED, UNCERTIFIED, Doubt, doubt_of_score
from hookprobe.node.host import Effect
from hookprobe.node.observations import MessageRefused, ReportRefused, StandingChanged
from hookprobe.node.rooms import Regrade, RoomEffect
from hookprobe.wire.identifiers import NodeId, pack_node_id
from hookprobe.wire.instant import MINUTE, Duration, Instant

KEEP_EVERY_US = 10 * MINUTE
FINGERPRINTS_KNOWN_MAX = 4  # a session may be opened with a state a few certificates old
_PREFIX = b"appraisal/"
_ROWS_MAX = 1 << 15


class Count(Enum):
    """Whether a device's reports count, and why not."""

    YES = "resonant"
    UNPROVEN = "no certificate"
    STALE = "certificate expired"
    LOST = "does not resonate"


@dataclass(slots=True)
class _Entry:
    """One device: the newest word, the fingerprints certified last, what was last said of it."""

    word: ResonanceCertificate
    prints: tuple[bytes, ...]
    kept_at: Instant
    refused: Count | None = None


class Appraisals:
    """The room of a validator that listens to verifiers; also a `rooms.Gate` and `Fingerprints`.

    Args:
        directory: Who is who; only its verifiers are listened to.
        scheme: How signatures are checked.
        reader: The store as it was left.
        grace_us: How long an expired certificate still counts.
    """

    channels: tuple[Channel, ...] = (Channel.TER,)

    def __init__(
        self,
        directory: Directory,
        scheme: SignatureScheme,
        reader: StoreReader,
        grace_us: Duration,
    ) -> None:
        self._devices = {device.node: device for device in directory.devices}
        self._keys = tuple(device.signing_key for device in directory.verifiers())
        self._scheme = scheme
        self._grace_us = grace_us
        self._entries: dict[NodeId, _Entry] = {}
        self._unproven: dict[NodeId, None] = {}
        for _, data in reader.scan(Table.NODE, _PREFIX, prefix_end(_PREFIX), _ROWS_MAX):
            self._recall(data)

    def _recall(self, data: bytes) -> None:
        try:
            word = certificates.open_certificate(data, self._keys, self._scheme)
        except RemoteError:
            return  # of a verifier that the directory names no more
        prints = (word.w_fingerprint,) if word.status is Verdict.RESONANT else ()
        self._entries[word.node] = _Entry(word, prints, word.issued)

    # -- fingerprints and reports ---------------------------------------------------------------

    def of(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the fingerprints a node may present: certified ones, before those the enrolled."""
        entry, device = self._entries.get(node), self._devices.get(node)
        if device is None:
            return ()
        if entry is None or not entry.prints:
            return (device.w_fingerprint,)
        return entry.prints

    def count(self, node: NodeId, now: Instant) -> Count:
        """Return whether a device's reports count now."""
        entry = self._entries.get(node)
        if entry is None:
            return Count.UNPROVEN
        if entry.word.status is not Verdict.RESONANT:
            return Count.LOST
        return Count.YES if now <= entry.word.not_after + self._grace_us else Count.STALE

    def admit(self, peer: NodeId, now: Instant) -> tuple[bool, list[Effect]]:
        """Decide about a report; validators and verifiers are not devices and always admitted."""
        device = self._devices.get(peer)
        if device is None or device.role != "edge":
            return device is not None, []
        count = self.count(peer, now)
        entry = self._entries.get(peer)
        if count is Count.YES:
            if entry is not None:
                entry.refused = None
            return True, []
        told = peer in self._unproven if entry is None else entry.refused is count
        if told:
            return False, []
        if entry is None:
            self._unproven[peer] = None
        else:
            entry.refused = count
        return False, [ReportRefused(peer, count.value)]

    def trust(self, node: NodeId, now: Instant) -> int:
        """Return the trust that a node's sessions have, in 1/65535 (`htp.trust.TrustSource`).

        Before its first certificate, and when the last one has expired, a device may attest and no
        more; the score of the last certificate holds otherwise. Who is no device is not scored.
        """
        device = self._devices.get(node)
        if device is None or device.role != "edge":
            return FULL_TRUST
        entry = self._entries.get(node)
        if entry is None:
            return ATTESTING_FROM
        score = scaled(entry.word.trust)
        return score if self.count(node, now) is Count.YES else min(score, FULL_FROM - 1)

    def doubt(self, node: NodeId, now: Instant) -> Doubt | None:
        """Return what is held against a device; None: nothing, or it is none."""
        device, entry = self._devices.get(node), self._entries.get(node)
        if device is None or device.role != "edge":
            return None
        if entry is None:
            return UNCERTIFIED
        count = self.count(node, now)
        if count is not Count.YES:
            return EXPIRED if count is Count.STALE else ASTRAY
        return doubt_of_score("its certificate gives", entry.word.trust)

    def rows(self, now: Instant) -> list[tuple[NodeId, Count, int, str]]:
        """Return (device, count, trust in basis points, attestation) of all edges, sorted."""
        found = []
        for node, device in sorted(self._devices.items()):
            if device.role == "edge":
                entry = self._entries.get(node)
                trust = entry.word.trust if entry else 0
                label = entry.word.attestation if entry else ""
                found.append((node, self.count(node, now), trust, label))
        return found

    # -- certificates -------------------------------------------------------------------------

    def start(self, now: Instant) -> list[RoomEffect]:
        del now
        return []

    def peer_connected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        del peer, now
        return []

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        del peer, now
        return []

    def next_timeout(self) -> Instant | None:
        return None

    def handle_timeout(self, now: Instant) -> list[RoomEffect]:
        del now
        return []

    def receive(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[RoomEffect]:
        """Take a certificate, whoever carries it."""
        del channel
        try:
            kind, body = messages.decode(data)
            if kind is not Kind.CERTIFICATE:
                return []
            word = certificates.check(body, self._keys, self._scheme, now)
            device = self._devices.get(word.node)
            if device is None or device.role != "edge":
                raise UnauthorizedError("resonance certificate: about no device of this mesh")
        except RemoteError as error:
            return [MessageRefused(peer, error.code, error.message)]
        return self._take(word, body, now)

    def _take(self, word: ResonanceCertificate, data: bytes, now: Instant) -> list[RoomEffect]:
        old = self._entries.get(word.node)
        if old is not None and (word.epoch, word.issued) <= (old.word.epoch, old.word.issued):
            return []
        changed = old is None or (old.word.status, old.word.attestation) != (
            word.status,
            word.attestation,
        )
        prints = old.prints if old is not None else ()
        if word.status is Verdict.RESONANT and not _holds(prints, word.w_fingerprint):
            prints = (word.w_fingerprint, *prints)[:FINGERPRINTS_KNOWN_MAX]
        keep = changed or old is None or now - old.kept_at >= KEEP_EVERY_US
        kept_at = now if keep or old is None else old.kept_at
        refused = old.refused if old is not None and not changed else None
        self._entries[word.node] = _Entry(word, prints, kept_at, refused)
        self._unproven.pop(word.node, None)
        effects: list[RoomEffect] = [Regrade(word.node)]
        if keep:
            row = _PREFIX + pack_node_id(word.node)
            effects.append(Persist(((Table.NODE, row, data),)))
        if changed:
            effects.append(
                StandingChanged(word.node, word.status.value, word.trust, word.attestation)
            )
        return effects


def scaled(basis_points: int) -> int:
    """Return a trust of NEURO in the transport's 1/65535."""
    return basis_points * FULL_TRUST // FULL_BP


def _holds(prints: tuple[bytes, ...], fingerprint: bytes) -> bool:
    return any(hmac.compare_digest(known, fingerprint) for known in prints)

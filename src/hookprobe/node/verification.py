"""A verifier's side of NEURO: devices in, verdicts out, everything it must remember in the store.

Rows of `Table.NODE`, all secret:

    "standing/" node[32]                              -> `neuro.standing`, every 1,440 records
    "ter/" node[32] u32 epoch, u64 first index        -> verified records, 64 bytes each
    "hardware/" node[32]                              -> the hardware a device was first seen on
    "tpm/" node[32]                                   -> `neuro.quotes.Enrolled`

A restart takes the standing and walks the records behind it. What was verified is durable before
the device or anybody else hears of it.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hookprobe.crypto.signing import Signer
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.errors import HookProbeError, LocalError, RemoteError
from hookprobe.htp.channels import Channel
from hookprobe.htp.trust import ATTESTING_FROM, FULL_TRUST
from hookprobe.identity import fingerprint
from hookprobe.identity.fingerprint import Fingerprint, Match
from hookprobe.identity.grant import DeviceGrant
from hookprobe.neuro import messages
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.batch import BATCH_RECORDS_MAX, short_name
from hookprobe.neuro.effects import (
    AppendVerified,
    Certified,
    SaveStanding,
    SendAnswer,
    VerifierEffect,
)
from hookprobe.neuro.epochs import EpochOrder, sign_order
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.measurement import check_opening
from hookprobe.neuro.messages import Kind, Place
from hookprobe.neuro.quote_documents import Enrolled, decode_enrolled
from hookprobe.neuro.quotes import BootChanged, Quotes, SaveTpm, SendChallenge, Shown
from hookprobe.neuro.quotes import Effect as QuoteEffect
from hookprobe.neuro.standing import Standing, decode_standing
from hookprobe.neuro.ter import TER_BYTES, Ter, decode
from hookprobe.neuro.trust import START_BP, Trust
from hookprobe.neuro.verdict import Verdict
from hookprobe.neuro.verifier import Verifier
from hookprobe.node.appraisals import FINGERPRINTS_KNOWN_MAX, scaled
from hookprobe.node.doubts import Doubt, doubt_of_score
from hookprobe.node.observations import (
    CloneSuspected,
    CommitmentOpened,
    HardwareDiffers,
    MessageRefused,
)
from hookprobe.node.resonance import (
    FIRST_EPOCH,
    BlockProof,
    DeviceName,
    ProofFound,
    check_block,
    device_state,
)
from hookprobe.node.rooms import Outgoing, RoomEffect
from hookprobe.wire.identifiers import NodeId, pack_node_id
from hookprobe.wire.instant import Instant

RECORDS_KEPT = 1 << 16  # 45 days at one a minute
FORGET_ROWS_MAX = 4096
_STANDING, _RECORDS, _HARDWARE, _TPM = b"standing/", b"ter/", b"hardware/", b"tpm/"


@dataclass(frozen=True, slots=True)
class VerifierHost:
    """What the host and the mesh lend a verifier.

    Attributes:
        grants: The devices, by name.
        validators: Who is told about devices.
        signer: Signs epoch orders.
        reader: The store as it was left.
        engine: The arithmetic.
    """

    grants: Mapping[NodeId, DeviceGrant]
    validators: tuple[NodeId, ...]
    signer: Signer
    reader: StoreReader
    engine: EngineFactory


class Verification:
    """The room of a verifier.

    Args:
        verifier: Judges histories.
        quotes: Judges TPMs.
        host: What it stands on.
        now: The time; devices count as heard now.

    Raises:
        RemoteError: What the store holds is damaged.
    """

    channels: tuple[Channel, ...] = (Channel.TER,)

    def __init__(
        self, verifier: Verifier, quotes: Quotes, host: VerifierHost, now: Instant
    ) -> None:
        self._verifier = verifier
        self._quotes = quotes
        self._host = host
        self._connected: dict[NodeId, None] = {}
        self._asked: dict[NodeId, Place] = {}
        self._certified: dict[NodeId, tuple[bytes, ...]] = {}
        self._hardware: dict[NodeId, Fingerprint] = {}
        self._fresh: list[RoomEffect] = []
        for grant in host.grants.values():
            self._enrol(grant, now)
            seen = host.reader.get(Table.NODE, _HARDWARE + pack_node_id(grant.node))
            if seen is not None:
                self._hardware[grant.node] = fingerprint.decode(seen)
            held = host.reader.get(Table.NODE, _TPM + pack_node_id(grant.node))
            if held is not None:
                quotes.resume(grant.node, decode_enrolled(held))

    def _enrol(self, grant: DeviceGrant, now: Instant) -> None:
        data = self._host.reader.get(Table.NODE, _STANDING + pack_node_id(grant.node))
        if data is not None:
            held = decode_standing(data, self._host.engine)
            if held.key == grant.signing_key:
                for first, records in self._rows(grant.node, held.epoch, held.state.count):
                    held = held.follow(first, records)
                self._verifier.resume(held, now)
                return
        state = device_state(grant, FIRST_EPOCH, self._host.engine)
        trust = Trust(START_BP, now)
        standing = Standing(grant.node, grant.signing_key, FIRST_EPOCH, state, Baseline(b""), trust)
        self._fresh += self._carry(self._verifier.enrol(standing, now))

    def _rows(self, node: NodeId, epoch: int, count: int) -> list[tuple[int, tuple[Ter, ...]]]:
        """Return the rows of verified records that reach beyond `count`, in order."""
        start = _record_row(node, epoch, max(0, count - BATCH_RECORDS_MAX))
        stop = _record_row(node, epoch + 1, 0)
        found = []
        for key, value in self._host.reader.scan(Table.NODE, start, stop, RECORDS_KEPT):
            first = int.from_bytes(key[-8:], "big")
            if first + len(value) // TER_BYTES > count:
                found.append((first, tuple(decode(item) for item in _cut(value))))
        return found

    # -- sessions and messages ------------------------------------------------------------------

    def start(self, now: Instant) -> list[RoomEffect]:
        """Keep the standings of devices that are new."""
        del now
        fresh, self._fresh = self._fresh, []
        return fresh

    def peer_connected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        """Greet a device; tell a validator all that is known."""
        self._connected[peer] = None
        if peer in self._host.grants:
            standing = self._verifier.standing(peer)
            if peer not in self._certified:
                self._remember(peer)
            said: list[RoomEffect] = []
            if standing.epoch != FIRST_EPOCH and not standing.state.count:
                said.append(self._order(peer, now))  # it may not have heard of its epoch yet
            return said + self._carry(self._verifier.greet(peer))
        if peer in self._host.validators:
            return [_say(peer, Kind.CERTIFICATE, word) for word in self._verifier.certificates()]
        return []

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        del now
        self._connected.pop(peer, None)
        self._quotes.forget(peer)
        return []

    def next_timeout(self) -> Instant | None:
        due = (self._verifier.next_timeout(), self._quotes.next_timeout())
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: Instant) -> list[RoomEffect]:
        effects = self._carry(self._verifier.handle_timeout(now))
        return effects + self._quoted(self._quotes.handle_timeout(now), now)

    def _shown(self, node: NodeId) -> Shown:
        """Return what a device may show: the fingerprints of its last certified states."""
        standing = self._verifier.standing(node)
        now = standing.state.commitments().w_fingerprint
        return Shown((now, *self._certified.get(node, ())), standing.key)

    def receive(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[RoomEffect]:
        """Hear a device; what others say here is not for us."""
        del channel
        if peer not in self._host.grants:
            return []
        try:
            kind, body = messages.decode(data)
            match kind:
                case Kind.BATCH:
                    return self._carry(self._verifier.receive_batch(peer, body, now))
                case Kind.OPENING:
                    return self._receive_opening(peer, body)
                case Kind.HARDWARE:
                    return self._receive_hardware(peer, body)
                case Kind.TPM:
                    return self._quoted(self._quotes.receive_claim(peer, body, now), now)
                case Kind.QUOTE:
                    shown = self._shown(peer)
                    return self._quoted(self._quotes.receive_quote(peer, body, shown, now), now)
                case _:
                    return []
        except RemoteError as error:
            return [MessageRefused(peer, error.code, error.message)]

    def _receive_opening(self, peer: NodeId, body: bytes) -> list[RoomEffect]:
        """Check what opens a commitment that we asked for.

        Raises:
            RemoteError: It opens another one, or we did not ask.
        """
        place, opening = messages.decode_place(body)
        if self._asked.pop(peer, None) != place:
            return []
        if not opening:
            return [CommitmentOpened(peer, place.index, None)]
        record = self.record(peer, place.index)
        found = check_opening(record.h_entropy, opening)
        return [CommitmentOpened(peer, place.index, found.counters)]

    def _receive_hardware(self, peer: NodeId, body: bytes) -> list[RoomEffect]:
        seen = fingerprint.decode(body)
        tenant = self._host.grants[peer].tenant
        others = {
            node: known
            for node, known in self._hardware.items()
            if self._host.grants[node].tenant == tenant
        }
        enrolled = self._hardware.get(peer)
        clones = fingerprint.find_clones(others, peer, seen)
        effects: list[RoomEffect] = [CloneSuspected(peer, clones)] if clones else []
        if enrolled is None:
            self._hardware[peer] = seen
            row = _HARDWARE + pack_node_id(peer)
            return [Persist(((Table.NODE, row, body),)), *effects]
        match = fingerprint.judge(enrolled, seen)
        if match is not Match.SAME:
            effects.append(HardwareDiffers(peer, fingerprint.score(enrolled, seen), match))
        return effects

    def _quoted(self, effects: list[QuoteEffect], now: Instant) -> list[RoomEffect]:
        carried: list[RoomEffect] = []
        for effect in effects:
            match effect:
                case SendChallenge(node, challenge):
                    carried.append(_say(node, Kind.CHALLENGE, challenge.encode()))
                case SaveTpm(node, data):
                    row = _TPM + pack_node_id(node)
                    carried.append(Persist(((Table.NODE, row, data),)))
                case BootChanged(node):
                    carried.append(effect)
                    carried += self._carry(self._verifier.condemn(node, now))
                case _:
                    carried.append(effect)
        return carried

    # -- orders of the operator -----------------------------------------------------------------

    def standings(self) -> list[Standing]:
        """Return what is known about every device, sorted by name."""
        return [self._verifier.standing(node) for node in self._verifier.nodes()]

    def trust(self, node: NodeId, now: Instant) -> int:
        """Return the trust that a node's sessions with us have, in 1/65535.

        It never falls below what attesting needs: a device that has to attest again does so here,
        and a clone must be let in to convict itself.
        """
        if node not in self._host.grants:
            return FULL_TRUST
        level = self._verifier.standing(node).trust.level(now)
        return max(ATTESTING_FROM, scaled(level))

    def doubt(self, node: NodeId, now: Instant) -> Doubt | None:
        """Return what is held against a device; None: nothing, or it is none."""
        if node not in self._host.grants:
            return None
        return doubt_of_score("this verifier gives", self._verifier.standing(node).trust.level(now))

    def is_connected(self, node: NodeId) -> bool:
        return node in self._connected

    def tpm(self, node: NodeId, now: Instant) -> tuple[str, Enrolled | None]:
        """Return what a device may be called now, and what is known of its TPM."""
        return self._quotes.attestation(node, now), self._quotes.enrolled(node)

    def vouch(self, node: NodeId, now: Instant) -> list[RoomEffect]:
        """Confirm that a device's endorsement key is that of a real TPM.

        Raises:
            LocalError: It has shown none.
        """
        return self._quoted(self._quotes.vouch(node), now)

    def accept(self, node: NodeId, h_integrity: bytes | None, now: Instant) -> list[RoomEffect]:
        """Make a measurement golden, and what the device boots.

        Args:
            node: The device.
            h_integrity: The measurement; None: the one the device reported last.
            now: The time.

        Raises:
            LocalError: Not enrolled here, or it has reported none.
        """
        standing = self._verifier.standing(node)
        if h_integrity is None:
            if standing.state.previous is None:
                raise LocalError(f"{node} has reported no measurement yet")
            h_integrity = standing.state.previous.h_integrity
        accepted = self._carry(self._verifier.accept_measurement(node, h_integrity))
        return accepted + self._quoted(self._quotes.accept(node), now)

    def announce(self, nodes: tuple[NodeId, ...], manifest: Manifest) -> list[RoomEffect]:
        """Allow an update on devices; see `Verifier.announce`."""
        return self._carry(self._verifier.announce(nodes, manifest))

    def order_epoch(self, node: NodeId, now: Instant) -> list[RoomEffect]:
        """Begin a new weight epoch with a device that cannot go on from here.

        Raises:
            LocalError: Not enrolled here.
        """
        epoch = self._verifier.standing(node).epoch + 1
        state = device_state(self._host.grants[node], epoch, self._host.engine)
        saved, *rest = self._carry(self._verifier.open_epoch(node, epoch, state))
        # The device must hear the order before the answer that belongs to the new epoch.
        return [saved, self._order(node, now), *rest]

    def _order(self, node: NodeId, now: Instant) -> Outgoing:
        order = EpochOrder(node, self._verifier.standing(node).epoch, now)
        return _say(node, Kind.ORDER, sign_order(order, self._host.signer))

    def demand_opening(self, node: NodeId, index: int) -> list[RoomEffect]:
        """Ask a device to open the entropy commitment of a record.

        Raises:
            LocalError: Not enrolled here, not connected, or no such record is kept.
        """
        self.record(node, index)
        if node not in self._connected:
            raise LocalError(f"{node} is not connected", hint="try again when it is")
        place = Place(self._verifier.standing(node).epoch, index)
        self._asked[node] = place
        return [_say(node, Kind.OPEN, place.encode())]

    def record(self, node: NodeId, index: int) -> Ter:
        """Return a verified record of the device's weight epoch.

        Raises:
            LocalError: Not enrolled here, or not kept.
        """
        epoch = self._verifier.standing(node).epoch
        start = _record_row(node, epoch, max(0, index - BATCH_RECORDS_MAX + 1))
        stop = _record_row(node, epoch, index + 1)
        rows = self._host.reader.scan(Table.NODE, start, stop, BATCH_RECORDS_MAX)
        for key, value in reversed(rows):
            offset = (index - int.from_bytes(key[-8:], "big")) * TER_BYTES
            if offset < len(value):
                return decode(value[offset : offset + TER_BYTES])
        raise LocalError(f"{node}: no verified record {index} is kept")

    def proof_check(self, node: NodeId) -> Callable[[BlockProof], ProofFound]:
        """Return what checks the proofs in a device's blocks; it needs no further look at us.

        Raises:
            LocalError: Not enrolled here, or the first records of its weight epoch are forgotten.
        """
        epoch = self._verifier.standing(node).epoch
        rows = self._rows(node, epoch, 0)
        if rows and rows[0][0]:
            raise LocalError(f"{node}: the records before {rows[0][0]} are not kept any more")
        records = list(itertools.chain.from_iterable(records for _, records in rows))
        state = device_state(self._host.grants[node], epoch, self._host.engine)
        name = DeviceName(short_name(node), epoch)
        return functools.partial(check_block, name, state, records)

    def nodes(self) -> tuple[NodeId, ...]:
        """Return the enrolled devices, sorted."""
        return tuple(self._verifier.nodes())

    # -- effects --------------------------------------------------------------------------------

    def _carry(self, effects: list[VerifierEffect]) -> list[RoomEffect]:
        carried: list[RoomEffect] = []
        for effect in effects:
            match effect:
                case AppendVerified(node, epoch, first, records):
                    data = b"".join(record.encode() for record in records)
                    row = _record_row(node, epoch, first)
                    carried.append(Persist(((Table.NODE, row, data),)))
                case SaveStanding(node, data):
                    row = _STANDING + pack_node_id(node)
                    carried.append(Persist(((Table.NODE, row, data), *self._forget(node))))
                case SendAnswer(node, answer):
                    carried.append(_say(node, Kind.ANSWER, answer.encode()))
                case Certified(node, status, data):
                    if status is Verdict.RESONANT:
                        self._remember(node)  # what a device shows is what was certified so
                    carried += [
                        _say(peer, Kind.CERTIFICATE, data)
                        for peer in self._host.validators
                        if peer in self._connected
                    ]
                case _:
                    carried.append(effect)
        return carried

    def _remember(self, node: NodeId) -> None:
        shown = self._verifier.standing(node).state.commitments().w_fingerprint
        known = tuple(item for item in self._certified.get(node, ()) if item != shown)
        self._certified[node] = (shown, *known)[:FINGERPRINTS_KNOWN_MAX]

    def _forget(self, node: NodeId) -> list[Write]:
        """Return the deletions of records that are older than is kept."""
        try:
            standing = self._verifier.standing(node)
        except HookProbeError:
            return []
        oldest = standing.state.count - RECORDS_KEPT
        if oldest <= 0:
            return []
        start, stop = (
            _record_row(node, standing.epoch, 0),
            _record_row(node, standing.epoch, oldest),
        )
        rows = self._host.reader.scan(Table.NODE, start, stop, FORGET_ROWS_MAX)
        return [(Table.NODE, key, None) for key, _ in rows]


def _record_row(node: NodeId, epoch: int, index: int) -> bytes:
    return _RECORDS + pack_node_id(node) + epoch.to_bytes(4, "big") + index.to_bytes(8, "big")


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + TER_BYTES] for at in range(0, len(data), TER_BYTES)]


def _say(peer: NodeId, kind: Kind, body: bytes) -> Outgoing:
    return Outgoing(peer, Channel.TER, messages.encode(kind, body))

"""An edge's side of NEURO: its records, its verifier, its word to the validators.

    host measures -> record, durable -> live state under blocks -> batch to the verifier
    answer with a certificate -> that state in sessions -> certificate to the validators

Without a verifier in the directory a device keeps its enrolled state and makes no records.
The last certificate is kept: after a restart sessions show the state that peers know of us.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from hookprobe.crypto.signing import SignatureScheme
from hookprobe.dsm.store import Persist, StoreReader, Table
from hookprobe.errors import RemoteError, VerificationError
from hookprobe.htp.channels import Channel
from hookprobe.htp.trust import Level, level_of
from hookprobe.neuro import certificate as certificates
from hookprobe.neuro import messages
from hookprobe.neuro.answer import Answer, decode_answer
from hookprobe.neuro.attester import Attester, Reading
from hookprobe.neuro.certificate import ResonanceCertificate
from hookprobe.neuro.effects import AskTpm, DeviceEffect, FindOpening, SendBatch
from hookprobe.neuro.epochs import open_order
from hookprobe.neuro.messages import Kind, Place
from hookprobe.neuro.quote_documents import QuoteAnswer, decode_challenge
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, Verdict
from hookprobe.node.appraisals import scaled
from hookprobe.node.observations import MessageRefused
from hookprobe.node.resonance import DeviceResonance
from hookprobe.node.rooms import Outgoing, Redial, RoomEffect
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

_CERTIFICATE_ROW = b"neuro/certificate"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Whom a device deals with.

    Attributes:
        node: Its own name.
        verifier: Its verifier.
        keys: The Ed25519 keys of the mesh's verifiers.
        validators: Who counts its reports.
        scheme: How signatures are checked.
        begin_epoch: Returns the state that a weight epoch begins with.
        hardware: Keyed hashes of the hardware's components, encoded; empty: not collected.
        tpm: What the device says its TPM is, encoded; empty: it has none.
    """

    node: NodeId
    verifier: NodeId
    keys: tuple[bytes, ...]
    validators: tuple[NodeId, ...]
    scheme: SignatureScheme
    begin_epoch: Callable[[int], NeuroState]
    hardware: bytes = b""
    tpm: bytes = b""


def kept_certificate(
    reader: StoreReader, keys: tuple[bytes, ...], scheme: SignatureScheme
) -> tuple[ResonanceCertificate, bytes] | None:
    """Return the certificate kept before a restart; None if there is none of these verifiers."""
    data = reader.get(Table.NODE, _CERTIFICATE_ROW)
    if data is None:
        return None
    try:
        return certificates.open_certificate(data, keys, scheme), data
    except RemoteError:
        return None  # of a verifier that the directory names no more: the next answer brings one


class Attestation:
    """The room of a device that attests.

    Args:
        attester: Makes and proves the records.
        resonance: Told which states to show.
        around: Whom it deals with.
        kept: What `kept_certificate` returned.
    """

    channels: tuple[Channel, ...] = (Channel.TER,)

    def __init__(
        self,
        attester: Attester,
        resonance: DeviceResonance,
        around: Surroundings,
        kept: tuple[ResonanceCertificate, bytes] | None,
    ) -> None:
        self._attester = attester
        self._resonance = resonance
        self._around = around
        self._word = b""
        self._certified: ResonanceCertificate | None = None
        self._level = Level.FULL  # nobody has said otherwise
        self._connected: dict[NodeId, None] = {}
        resonance.show(attester.acknowledged, attester.epoch)
        if kept is not None and self._is_ours(kept[0]):
            self._certified, self._word = kept
        self._follow()

    def label(self, now: Instant) -> str:
        """Return what stands behind our measurements, in the verifier's last word that holds."""
        word = self._certified
        return SOFTWARE_ATTESTED if word is None or now > word.not_after else word.attestation

    def start(self, now: Instant) -> list[RoomEffect]:
        del now
        return []

    def peer_connected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        """Tell the verifier what we run on, and validators the last word about us."""
        del now
        self._connected[peer] = None
        if peer == self._around.verifier:
            claims = ((Kind.HARDWARE, self._around.hardware), (Kind.TPM, self._around.tpm))
            return [self._say(peer, kind, body) for kind, body in claims if body]
        if peer in self._around.validators and self._word:
            return [self._say(peer, Kind.CERTIFICATE, self._word)]
        return []

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        del now
        self._connected.pop(peer, None)
        return []

    def next_timeout(self) -> Instant | None:
        return self._attester.next_timeout()

    def handle_timeout(self, now: Instant) -> list[RoomEffect]:
        return self._carry(self._attester.handle_timeout(now))

    def receive(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[RoomEffect]:
        """Hear the verifier; what others say here is not for us."""
        del channel
        if peer != self._around.verifier:
            return []
        try:
            kind, body = messages.decode(data)
            match kind:
                case Kind.ANSWER:
                    return self._receive_answer(decode_answer(body), now)
                case Kind.ORDER:
                    return self._receive_order(body, now)
                case Kind.OPEN:
                    place, _ = messages.decode_place(body)
                    return [FindOpening(place)]
                case Kind.CHALLENGE if self._around.tpm:
                    return [AskTpm(decode_challenge(body), self._resonance.w_fingerprint())]
                case _:
                    return []
        except RemoteError as error:
            return [MessageRefused(peer, error.code, error.message)]

    def _receive_answer(self, answer: Answer, now: Instant) -> list[RoomEffect]:
        effects = self._carry(self._attester.receive_answer(answer))
        verdict = answer.verdict
        if verdict is not None and verdict.is_about_state and verdict is not Verdict.RESONANT:
            self._level = Level.CLOSED
        if answer.certificate:
            effects += self._receive_certificate(answer.certificate, now)
        return effects

    def _receive_certificate(self, data: bytes, now: Instant) -> list[RoomEffect]:
        """Show validators the certified state.

        Raises:
            RemoteError: Not a verifier's word, or about something else than our state.
        """
        around = self._around
        found = certificates.check(data, around.keys, around.scheme, now)
        if not self._is_ours(found):
            raise VerificationError("resonance certificate: not about the state we hold")
        self._certified, self._word = found, data
        self._resonance.show(self._attester.acknowledged, self._attester.epoch)
        effects: list[RoomEffect] = [Persist(((Table.NODE, _CERTIFICATE_ROW, data),))]
        level = level_of(scaled(found.trust))
        if level > self._level:
            effects.append(Redial())
        self._level = level
        effects += [
            self._say(peer, Kind.CERTIFICATE, data)
            for peer in around.validators
            if peer in self._connected
        ]
        return effects

    def _is_ours(self, found: ResonanceCertificate) -> bool:
        held = self._attester.acknowledged
        return (
            found.node == self._around.node
            and found.epoch == self._attester.epoch
            and hmac.compare_digest(found.w_fingerprint, held.commitments().w_fingerprint)
        )

    def _receive_order(self, data: bytes, now: Instant) -> list[RoomEffect]:
        """Begin a weight epoch that a verifier ordered; one already begun is no news.

        Raises:
            RemoteError: Not an order of a verifier for this device.
        """
        order = open_order(data, self._around.keys, self._around.scheme)
        if order.node != self._around.node:
            raise VerificationError("epoch order: for another device")
        if order.epoch <= self._attester.epoch:
            return []
        state = self._around.begin_epoch(order.epoch)
        effects = self._carry(self._attester.open_epoch(order.epoch, state, now))
        self._certified, self._word = None, b""
        self._resonance.show(self._attester.acknowledged, self._attester.epoch)
        return effects

    def receive_reading(self, reading: Reading, now: Instant) -> list[RoomEffect]:
        """Make a record of what the host measured."""
        return self._carry(self._attester.measure(reading, now))

    def receive_appended(self, index: int) -> list[RoomEffect]:
        """Go on from a record that is durable."""
        return self._carry(self._attester.receive_appended(index))

    def receive_opening(self, place: Place, opening: bytes) -> list[RoomEffect]:
        """Send the verifier what it asked to see; empty if it is not kept any more."""
        return [self._say(self._around.verifier, Kind.OPENING, place.encode() + opening)]

    def receive_quote(self, quote: QuoteAnswer) -> list[RoomEffect]:
        """Send the verifier what the TPM signed."""
        return [self._say(self._around.verifier, Kind.QUOTE, quote.encode())]

    def _say(self, peer: NodeId, kind: Kind, body: bytes) -> Outgoing:
        return Outgoing(peer, Channel.TER, messages.encode(kind, body))

    def _follow(self) -> None:
        self._resonance.live(self._attester.state, self._attester.epoch)

    def _carry(self, effects: list[DeviceEffect]) -> list[RoomEffect]:
        self._follow()
        carried: list[RoomEffect] = []
        for effect in effects:
            if isinstance(effect, SendBatch):
                batch = effect.batch.encode()
                carried.append(self._say(self._around.verifier, Kind.BATCH, batch))
            else:
                carried.append(effect)
        return carried

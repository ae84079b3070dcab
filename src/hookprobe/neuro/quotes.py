"""What a TPM adds: a verifier asks for quotes and knows what a device booted.

    device    TPM claim: its endorsement key, its attestation key, the maker's certificate
    verifier  CHALLENGE: a secret sealed for exactly these two keys, and a nonce
    device    QUOTE over H(quote, nonce || secret || w_fingerprint || Ed25519 key), and PCR values

The quote proves at once that the attestation key lives in that TPM (the secret came out), that the
device boots what it booted before (PCRs), and that TPM, weights and operating key belong together.

`tpm-attested` is said only of a TPM that somebody vouches for: a maker whose certificate is among
the verifier's roots, or an operator who has confirmed the key. Any program can pretend to be a TPM.
The first PCR values become golden; others are reported as tampering until an operator accepts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from hookprobe.crypto import tpm
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.tpm import TpmKey
from hookprobe.errors import LocalError, RemoteError, VerificationError
from hookprobe.neuro.quote_documents import (
    NONCE_BYTES,
    Challenge,
    Claim,
    Enrolled,
    QuoteAnswer,
    decode_claim,
    decode_quote,
)
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, TPM_ATTESTED
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND, Instant

ASK_EVERY_US = 5 * MINUTE
ASK_AGAIN_US = 10 * SECOND
ATTESTED_US = 12 * MINUTE  # two quotes may be missed


def qualify(challenge: Challenge, secret: bytes, w_fingerprint: bytes, key: bytes) -> bytes:
    """Return the 32 bytes a quote must be about.

    Args:
        challenge: What was asked.
        secret: What the TPM took out of its credential.
        w_fingerprint: The state the device shows.
        key: Its Ed25519 operating key.
    """
    return digest(Domain.NEURO_QUOTE, challenge.nonce + secret + w_fingerprint + key)


@dataclass(frozen=True, slots=True)
class SendChallenge:
    """Ask a device's TPM."""

    node: NodeId
    challenge: Challenge


@dataclass(frozen=True, slots=True)
class SaveTpm:
    """Replace what is kept about a device's TPM."""

    node: NodeId
    data: bytes


@dataclass(frozen=True, slots=True)
class TpmQuoted:
    """A quote held.

    Attributes:
        node: The device.
        attestation: What it may be called now: `tpm-attested` only if the TPM is vouched for.
        resets: How often the TPM was reset.
    """

    node: NodeId
    attestation: str
    resets: int


@dataclass(frozen=True, slots=True)
class TpmRefused:
    """A claim or a quote did not hold; the device stays what it was."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class BootChanged:
    """A device booted something else: these PCRs are not the golden ones."""

    node: NodeId
    pcrs: tuple[int, ...]


Observation: TypeAlias = TpmQuoted | TpmRefused | BootChanged
Effect: TypeAlias = SendChallenge | SaveTpm | Observation


@dataclass(frozen=True, slots=True)
class Shown:
    """What a device may tie a quote to: its last certified fingerprints, and its Ed25519 key.

    Questions and certificates cross on the way, so the newest fingerprint is not the only one.
    """

    fingerprints: tuple[bytes, ...]
    key: bytes


@dataclass(slots=True)
class _Talk:
    """What is under way with one device's TPM since it claimed it."""

    attestation: TpmKey
    asked: Challenge | None = None
    secret: bytes = b""
    ask_at: Instant | None = None
    attested_until: Instant | None = None


class Quotes:
    """Knows the TPMs of devices.

    Args:
        roots: Certificates of makers (DER) that may vouch for endorsement keys.
        random_bytes: A cryptographic source.
    """

    def __init__(self, roots: Sequence[bytes], random_bytes: Callable[[int], bytes]) -> None:
        self._roots = tuple(roots)
        self._random = random_bytes
        self._enrolled: dict[NodeId, Enrolled] = {}
        self._talks: dict[NodeId, _Talk] = {}

    def resume(self, node: NodeId, enrolled: Enrolled) -> None:
        """Take what is known from storage after a restart."""
        self._enrolled[node] = enrolled

    def enrolled(self, node: NodeId) -> Enrolled | None:
        """Return what is known about a device's TPM; None if it never claimed one."""
        return self._enrolled.get(node)

    def attestation(self, node: NodeId, now: Instant) -> str:
        """Return what a device may be called now."""
        talk, known = self._talks.get(node), self._enrolled.get(node)
        if talk is None or known is None or not known.vouched or talk.attested_until is None:
            return SOFTWARE_ATTESTED
        return TPM_ATTESTED if now <= talk.attested_until else SOFTWARE_ATTESTED

    def receive_claim(self, node: NodeId, data: bytes, now: Instant) -> list[Effect]:
        """Take a device's word for its TPM, and ask that TPM."""
        try:
            claim = decode_claim(data)
            endorsement = tpm.parse_endorsement_key(claim.endorsement)
            attestation = tpm.parse_attestation_key(claim.attestation)
            known = self._enrolled.get(node)
            if known is not None and known.endorsement != claim.endorsement:
                raise VerificationError("another TPM than the one enrolled")
            vouched = self._vouched(claim, endorsement, now)
        except RemoteError as error:
            return [TpmRefused(node, error.message)]
        effects: list[Effect] = []
        if known is None or (vouched and not known.vouched):
            fresh = known or Enrolled(claim.endorsement)
            effects.append(self._save(node, replace(fresh, vouched=vouched or fresh.vouched)))
        self._talks[node] = _Talk(attestation)
        return effects + self._ask(node, now)

    def _vouched(self, claim: Claim, endorsement: TpmKey, now: Instant) -> bool:
        if not claim.certificate or not self._roots:
            return False
        tpm.check_maker(claim.certificate, endorsement, self._roots, now)
        return True

    def _save(self, node: NodeId, enrolled: Enrolled) -> SaveTpm:
        self._enrolled[node] = enrolled
        return SaveTpm(node, enrolled.encode())

    def _ask(self, node: NodeId, now: Instant) -> list[Effect]:
        talk, known = self._talks[node], self._enrolled[node]
        secret = self._random(tpm.SECRET_BYTES)
        endorsement = tpm.parse_endorsement_key(known.endorsement)
        credential = tpm.seal_credential(endorsement, talk.attestation.name, secret, self._random)
        talk.asked = Challenge(credential, self._random(NONCE_BYTES))
        talk.secret = secret
        talk.ask_at = Instant(now + ASK_EVERY_US)
        return [SendChallenge(node, talk.asked)]

    def receive_quote(self, node: NodeId, data: bytes, shown: Shown, now: Instant) -> list[Effect]:
        """Check a quote that we asked for.

        Args:
            node: Whose it is.
            data: The quote.
            shown: What the device may have tied it to.
            now: The time.
        """
        talk = self._talks.get(node)
        if talk is None or talk.asked is None:
            return [TpmRefused(node, "a quote that nobody asked for")]
        asked, talk.asked = talk.asked, None
        try:
            answer = decode_quote(data)
            found = _check(talk, asked, answer, shown)
            known = self._enrolled[node]
            if found.resets < known.resets:
                raise VerificationError("the TPM's reset count went back: it is another, or a copy")
        except RemoteError as error:
            talk.ask_at = Instant(now + ASK_AGAIN_US)
            return [TpmRefused(node, error.message)]
        return self._conclude(node, found, now)

    def _conclude(self, node: NodeId, found: tpm.Quote, now: Instant) -> list[Effect]:
        talk, known = self._talks[node], self._enrolled[node]
        effects: list[Effect] = []
        if known.pcrs is None or found.resets != known.resets:
            golden = found.pcrs if known.pcrs is None else known.pcrs
            known = replace(known, pcrs=golden, resets=found.resets)
            effects.append(self._save(node, known))
        assert known.pcrs is not None, "golden PCRs were just kept"
        changed = tuple(
            number
            for number in sorted({**found.pcrs, **known.pcrs})
            if found.pcrs.get(number) != known.pcrs.get(number)
        )
        if changed:
            talk.attested_until = None
            return [*effects, BootChanged(node, changed)]
        talk.attested_until = Instant(now + ATTESTED_US)
        return [*effects, TpmQuoted(node, self.attestation(node, now), found.resets)]

    def vouch(self, node: NodeId) -> list[Effect]:
        """Follow an operator who knows that a device's endorsement key is a real TPM's.

        Raises:
            LocalError: The device never claimed a TPM.
        """
        known = self._enrolled.get(node)
        if known is None:
            raise LocalError(f"{node} has shown no TPM")
        return [self._save(node, replace(known, vouched=True))]

    def accept(self, node: NodeId) -> list[Effect]:
        """Follow an operator who accepts what a device boots: the next quote becomes golden."""
        known = self._enrolled.get(node)
        if known is None or known.pcrs is None:
            return []
        talk = self._talks.get(node)
        if talk is not None and talk.ask_at is not None:
            talk.ask_at = Instant(0)
        return [self._save(node, replace(known, pcrs=None))]

    def next_timeout(self) -> Instant | None:
        due = [talk.ask_at for talk in self._talks.values() if talk.ask_at is not None]
        return min(due, default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Ask again whose time has come."""
        due = [
            node
            for node, talk in self._talks.items()
            if talk.ask_at is not None and talk.ask_at <= now
        ]
        effects: list[Effect] = []
        for node in due:
            effects += self._ask(node, now)
        return effects

    def forget(self, node: NodeId) -> None:
        """A device has gone: do not ask it until it comes back; its label runs out by itself."""
        talk = self._talks.get(node)
        if talk is not None:
            talk.asked, talk.ask_at = None, None


def _check(talk: _Talk, asked: Challenge, answer: QuoteAnswer, shown: Shown) -> tpm.Quote:
    """Check a quote against each state the device may have shown.

    Raises:
        RemoteError: It holds for none.
    """
    refused = VerificationError("TPM quote: the device has no state yet")
    for fingerprint in shown.fingerprints:
        about = qualify(asked, talk.secret, fingerprint, shown.key)
        signed = (answer.attest, answer.signature)
        try:
            return tpm.check_quote(talk.attestation, *signed, about, answer.pcrs)
        except VerificationError as error:
            refused = error
    raise refused

"""Resonance certificates: a verifier's short-lived word that a device held its history.

    {"attestation": "software-attested", "epoch": n, "issued": us, "node": id, "not_after": us,
     "status": verdict, "ter_index": n, "trust": bp, "type": "R", "v": 1, "w_fingerprint": hex}

PoSF is symmetric: who can check it can forge it, so validators cannot check it themselves. They
check this document instead, signed by a verifier they know, for at most five minutes. A status
other than `resonant` is the verifier's warning: whoever holds it stops counting the device at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.neuro import envelope
from hookprobe.neuro.trust import FULL_BP
from hookprobe.neuro.verdict import ATTESTATIONS, BY_NAME, SOFTWARE_ATTESTED, Verdict
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id
from hookprobe.wire.instant import MINUTE, Instant

CERTIFICATE_LIFE_US = 5 * MINUTE
CLOCK_TOLERANCE_US = 1 * MINUTE
_FINGERPRINT_BYTES = 64


@dataclass(frozen=True, slots=True)
class ResonanceCertificate:
    """What a verifier says about a device.

    Attributes:
        node: The device.
        epoch: Its weight epoch.
        ter_index: Index of the last record judged; 0 also while there is none.
        w_fingerprint: The public fingerprint of the state they lead to.
        status: The verdict.
        issued: When it was said.
        not_after: When it stops counting.
        trust: The device's trust in basis points.
        attestation: What stands behind the measurements: `software-attested` or `tpm-attested`.
    """

    node: NodeId
    epoch: int
    ter_index: int
    w_fingerprint: bytes
    status: Verdict
    issued: Instant
    not_after: Instant
    trust: int = 0
    attestation: str = SOFTWARE_ATTESTED

    def to_json(self) -> JsonObject:
        return {
            "attestation": self.attestation,
            "epoch": self.epoch,
            "issued": self.issued,
            "node": self.node,
            "not_after": self.not_after,
            "status": self.status.value,
            "ter_index": self.ter_index,
            "trust": self.trust,
            "type": "R",
            "v": 1,
            "w_fingerprint": self.w_fingerprint.hex(),
        }


def issue(certificate: ResonanceCertificate, signer: Signer) -> bytes:
    """Return the signed certificate."""
    return envelope.seal(certificate.to_json(), Domain.NEURO_CERTIFICATE, signer)


def check(
    data: bytes, keys: Sequence[bytes], scheme: SignatureScheme, now: Instant
) -> ResonanceCertificate:
    """Return a certificate that a known verifier signed and that is valid now.

    The caller compares node and fingerprint with what stands before it, and `status` with what it
    accepts.

    Raises:
        MalformedError: Not a certificate.
        UnauthorizedError: Signed by somebody else.
        VerificationError: The signature does not hold, or it is not valid now.
    """
    certificate = open_certificate(data, keys, scheme)
    if certificate.not_after - certificate.issued > CERTIFICATE_LIFE_US:
        raise VerificationError("resonance certificate: it claims to live too long")
    if not certificate.issued - CLOCK_TOLERANCE_US <= now <= certificate.not_after:
        raise VerificationError("resonance certificate: not valid now")
    return certificate


def open_certificate(
    data: bytes, keys: Sequence[bytes], scheme: SignatureScheme
) -> ResonanceCertificate:
    """Return a certificate that a known verifier signed, whether it is valid now or not.

    Raises:
        MalformedError: Not a certificate.
        UnauthorizedError: Signed by somebody else.
        VerificationError: The signature does not hold.
    """
    return _read(envelope.open_sealed(data, Domain.NEURO_CERTIFICATE, keys, scheme))


def _read(document: JsonObject) -> ResonanceCertificate:
    fields = Fields(document, "resonance certificate")
    fields.literal("type", "R")
    fields.literal("v", 1)
    attestation = fields.text("attestation")
    if attestation not in ATTESTATIONS:
        raise MalformedError("resonance certificate: unknown attestation")
    status = BY_NAME.get(fields.text("status"))
    if status is None:
        raise MalformedError("resonance certificate: unknown status")
    certificate = ResonanceCertificate(
        node=parse_node_id(fields.take("node")),
        epoch=fields.integer("epoch"),
        ter_index=fields.integer("ter_index"),
        w_fingerprint=fields.hex("w_fingerprint", _FINGERPRINT_BYTES),
        status=status,
        issued=Instant(fields.integer("issued")),
        not_after=Instant(fields.integer("not_after")),
        trust=fields.integer("trust", high=FULL_BP),
        attestation=attestation,
    )
    fields.finish()
    return certificate

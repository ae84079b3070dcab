"""TPM documents on the wire and in the store: claim, challenge, quote, and what a verifier keeps.

    Claim        block16 endorsement key, block16 attestation key (TPMT_PUBLIC), block16 certificate
    Challenge    nonce[16], block16 TPMS_ID_OBJECT, block16 encrypted seed
    QuoteAnswer  block16 TPMS_ATTEST, block16 TPMT_SIGNATURE, u8 n, n x (u8 PCR, value[32])

What they mean and how they are judged stands in `quotes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hookprobe.crypto import tpm
from hookprobe.crypto.tpm import PCR_BYTES, PCRS, Credential
from hookprobe.errors import MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.reader import Reader, Writer

NONCE_BYTES = 16
CERTIFICATE_MAX_BYTES = 4096
_STORED_MAX_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device says its TPM is: two TPMT_PUBLIC and a DER certificate, which may be empty."""

    endorsement: bytes
    attestation: bytes
    certificate: bytes

    def encode(self) -> bytes:
        writer = Writer().block16(self.endorsement).block16(self.attestation)
        return writer.block16(self.certificate).finish()


def decode_claim(data: bytes) -> Claim:
    """Read a claim.

    Raises:
        MalformedError: Not one.
    """
    reader = Reader(data, "TPM claim")
    limit = tpm.PUBLIC_MAX_BYTES
    claim = Claim(
        reader.block16(limit), reader.block16(limit), reader.block16(CERTIFICATE_MAX_BYTES)
    )
    reader.finish()
    return claim


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a verifier asks of a TPM; the credential's secret opens in that TPM only."""

    credential: Credential
    nonce: bytes

    def encode(self) -> bytes:
        writer = Writer().put(self.nonce).block16(self.credential.blob)
        return writer.block16(self.credential.seed).finish()


def decode_challenge(data: bytes) -> Challenge:
    """Read a challenge.

    Raises:
        MalformedError: Not one.
    """
    reader = Reader(data, "TPM challenge")
    nonce = reader.take(NONCE_BYTES)
    credential = Credential(reader.block16(256), reader.block16(512))
    reader.finish()
    return Challenge(credential, nonce)


@dataclass(frozen=True, slots=True)
class QuoteAnswer:
    """A quote on its way: TPMS_ATTEST, TPMT_SIGNATURE and the PCR values by number."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]

    def encode(self) -> bytes:
        writer = Writer().block16(self.attest).block16(self.signature).u8(len(self.pcrs))
        for number, value in sorted(self.pcrs.items()):
            writer.u8(number).put(value)
        return writer.finish()


def decode_quote(data: bytes) -> QuoteAnswer:
    """Read a quote.

    Raises:
        MalformedError: Not one.
    """
    reader = Reader(data, "TPM quote")
    attest, signature = reader.block16(tpm.ATTEST_MAX_BYTES), reader.block16(256)
    numbers: list[int] = []
    pcrs: dict[int, bytes] = {}
    for _ in range(reader.u8()):
        numbers.append(reader.u8())
        pcrs[numbers[-1]] = reader.take(PCR_BYTES)
    reader.finish()
    if numbers != sorted(pcrs) or any(number >= PCRS for number in numbers):
        raise MalformedError("TPM quote: PCRs must be sorted, named once and below 24")
    return QuoteAnswer(attest, signature, pcrs)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device's TPM as a verifier knows it.

    Attributes:
        endorsement: Its endorsement key; another one is another TPM.
        vouched: A maker's certificate or an operator says that this is a TPM.
        pcrs: The golden PCR values; None until the first quote, or after an operator accepted.
        resets: The highest reset count seen: it never goes back.
    """

    endorsement: bytes
    vouched: bool = False
    pcrs: Mapping[int, bytes] | None = None
    resets: int = 0

    def encode(self) -> bytes:
        """Return the stored form."""
        pcrs: JsonObject | None = None
        if self.pcrs is not None:
            pcrs = {f"{number:02}": value.hex() for number, value in sorted(self.pcrs.items())}
        return canonical.encode(
            {
                "endorsement": self.endorsement.hex(),
                "pcrs": pcrs,
                "resets": self.resets,
                "vouched": self.vouched,
            }
        )


def decode_enrolled(data: bytes) -> Enrolled:
    """Read what `Enrolled.encode` returned.

    Raises:
        MalformedError: Not one.
    """
    fields = Fields(canonical.decode_object(data, limit=_STORED_MAX_BYTES), "stored TPM")
    digits = fields.text("endorsement", limit=2 * tpm.PUBLIC_MAX_BYTES)
    endorsement = Fields({"endorsement": digits}, "stored TPM").hex("endorsement", len(digits) // 2)
    value = fields.take("pcrs")
    pcrs: dict[int, bytes] | None = None
    if value is not None:
        listed = Fields({"pcrs": value}, "stored TPM").object("pcrs")
        held = Fields(listed, "stored PCRs")
        pcrs = {int(name): held.hex(name, PCR_BYTES) for name in sorted(listed)}
    found = Enrolled(endorsement, fields.flag("vouched"), pcrs, fields.integer("resets"))
    fields.finish()
    return found

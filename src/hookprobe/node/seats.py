"""What the attestation of an applicant for a validator's seat shows (DSM spec 2.7).

    attestation  u8 1 || block16 TPMT_PUBLIC of the attestation key || quote as in `quote_documents`
    about        H(dsm/seat-quote, chain || canonical {key, node_id, vote_key})

The quote ties the applicant's two keys to one TPM and to what it booted. It is no answer to a
question, so it proves no moment; the keys that it names are what counts. Nor can a quote alone show
that its key lives in a TPM: any program can sign one. So somebody must vouch for the key:

    tpm-attested       the quote holds, and this validator's operator vouches for its key
    software-attested  the quote holds, and nobody vouches for its key
    not attested       there is none, or it does not hold; the reason is told

The ledger keeps attestations and never judges them: operators of validators believe different
makers and keys, and what counts must be the same for all.
"""

from collections.abc import Container
from dataclasses import dataclass

from hookprobe.crypto import tpm
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.governance import ATTESTATION_MAX_BYTES
from hookprobe.dsm.validators import ValidatorEntry
from hookprobe.errors import RemoteError
from hookprobe.neuro.quote_documents import QuoteAnswer, decode_quote
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, TPM_ATTESTED
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.reader import Reader, Writer

VERSION = 1
NOT_ATTESTED = "not attested"
_PREFIX_BYTES = 2  # of a TPM name: the number of SHA-256


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose seat on which chain a quote is about."""

    chain: bytes
    node: NodeId
    key: bytes
    vote_key: bytes

    def about(self) -> bytes:
        """Return the 32 bytes that the quote must be about."""
        document = canonical.encode(
            {"key": self.key.hex(), "node_id": self.node, "vote_key": self.vote_key.hex()}
        )
        return digest(Domain.SEAT_QUOTE, self.chain + document)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an attestation shows.

    Attributes:
        label: tpm-attested, software-attested or not attested.
        reason: Why it is no more than that; empty where it is.
        tpm_key: Hex of the attestation key's name, 64 digits; empty where none holds.
    """

    label: str
    reason: str
    tpm_key: str = ""


def seat_of(chain: bytes, entry: ValidatorEntry) -> Seat:
    """Return the seat that an application asks for."""
    return Seat(chain, entry.validator_id, entry.key, entry.vote_key)


def encode_attestation(public: bytes, answer: QuoteAnswer) -> bytes:
    """Return an attestation of an attestation key's TPMT_PUBLIC and its quote."""
    return Writer().u8(VERSION).block16(public).put(answer.encode()).finish()


def judge_attestation(attestation: bytes, seat: Seat, vouched: Container[str]) -> Judgement:
    """Judge what came with an application.

    Args:
        attestation: The bytes; empty where there are none.
        seat: What it must be about.
        vouched: Names of attestation keys, as `Judgement.tpm_key`, that the operator vouches for.
    """
    if not attestation:
        return Judgement(NOT_ATTESTED, "the application carries no attestation")
    try:
        name = _check(attestation, seat)
    except RemoteError as error:
        return Judgement(NOT_ATTESTED, error.message)
    if name not in vouched:
        return Judgement(SOFTWARE_ATTESTED, "nobody vouches for this TPM's key", name)
    return Judgement(TPM_ATTESTED, "", name)


def _check(attestation: bytes, seat: Seat) -> str:
    reader = Reader(attestation[: ATTESTATION_MAX_BYTES + 1], "attestation")
    if reader.u8() != VERSION:
        raise RemoteError("attestation: of an unknown form")
    key = tpm.parse_attestation_key(reader.block16(tpm.PUBLIC_MAX_BYTES))
    answer = decode_quote(reader.rest())
    if not answer.pcrs:
        raise RemoteError("attestation: a quote over nothing that was booted")
    tpm.check_quote(key, answer.attest, answer.signature, seat.about(), answer.pcrs)
    return key.name[_PREFIX_BYTES:].hex()

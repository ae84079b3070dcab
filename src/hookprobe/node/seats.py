"""What the attestation of an applicant for a validator's seat shows (DSM spec 2.7).

    attestation  u8 2 || u64 epoch || checkpoint[32] || block16 TPMT_PUBLIC of the attestation key
                 || quote as in `quote_documents`
    about        H(dsm/seat-quote, chain || checkpoint || canonical {key, node_id, vote_key})

The quote ties the applicant's two keys to one TPM, to what it booted, and to a final checkpoint of
the ledger. Nobody knows the hash of a checkpoint before it is agreed, so the quote is younger than
that; how old it may be by then is up to the operator who judges it. A quote alone cannot show that
its key lives in a TPM: any program can sign one. So somebody must vouch for the key:

    tpm-attested       the quote holds and is fresh, and this operator vouches for its key
    software-attested  the quote holds and is fresh, and nobody vouches for its key
    not attested       there is none, it does not hold, or it is stale; the reason is told

The ledger keeps attestations and never judges them: operators of validators believe different
makers and keys, and what counts must be the same for all.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass

from hookprobe.crypto import tpm
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.governance import ATTESTATION_MAX_BYTES
from hookprobe.dsm.history import History
from hookprobe.dsm.validators import ValidatorEntry
from hookprobe.errors import RemoteError, VerificationError
from hookprobe.neuro.quote_documents import QuoteAnswer, decode_quote
from hookprobe.neuro.verdict import SOFTWARE_ATTESTED, TPM_ATTESTED
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, MILLISECOND, SECOND, Duration, Instant
from hookprobe.wire.reader import Reader, Writer

VERSION = 2
UNDATED_VERSION = 1  # bound to no checkpoint: it may be of any time
AGE_MAX_US = Duration(24 * HOUR)
NOT_ATTESTED = "not attested"
_PREFIX_BYTES = 2  # of a TPM name: the number of SHA-256


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose seat on which chain a quote is about."""

    chain: bytes
    node: NodeId
    key: bytes
    vote_key: bytes

    def about(self, checkpoint: bytes) -> bytes:
        """Return the 32 bytes that a quote bound to this checkpoint must be about."""
        document = canonical.encode(
            {"key": self.key.hex(), "node_id": self.node, "vote_key": self.vote_key.hex()}
        )
        return digest(Domain.SEAT_QUOTE, self.chain + checkpoint + document)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A final checkpoint that a quote is bound to.

    Attributes:
        epoch: Its epoch.
        checkpoint: Its hash, 32 bytes.
        time_ms: Its time stamp.
    """

    epoch: int
    checkpoint: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class Past:
    """What a judge knows of its ledger.

    Attributes:
        anchor: Returns the final checkpoint of an epoch; None if there is none.
        epoch: That of the last final checkpoint; -1 before the first.
        time_ms: Now: the host's clock, or chain time where that is ahead.
    """

    anchor: Callable[[int], Anchor | None]
    epoch: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator asks of attestations.

    Attributes:
        vouched: Names of attestation keys, as `Judgement.tpm_key`, that the operator vouches for.
        age_max_us: How old the checkpoint may be that a quote is bound to.
    """

    vouched: Container[str] = ()
    age_max_us: Duration = AGE_MAX_US


@dataclass(frozen=True, slots=True)
class Age:
    """How long ago the checkpoint became final: the quote is no older than that."""

    epochs: int
    seconds: int

    def __str__(self) -> str:
        return f"at most {self.epochs} epochs or {self.seconds} s old"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an attestation shows.

    Attributes:
        label: tpm-attested, software-attested or not attested.
        reason: Why it is no more than that; empty where it is.
        tpm_key: Hex of the attestation key's name, 64 digits; empty where no quote holds.
        age: How old it may be; None where no quote holds.
    """

    label: str
    reason: str
    tpm_key: str = ""
    age: Age | None = None


def past_of(history: History, now: Instant) -> Past:
    """Return what a judge knows who has this history.

    An outage of the mesh stops chain time and makes nothing young, so the host's clock counts too.
    """

    def anchor(epoch: int) -> Anchor | None:
        sealed = history.sealed(epoch)
        return Anchor(epoch, sealed.hash, sealed.header.timestamp_ms) if sealed else None

    return Past(anchor, history.next_epoch - 1, max(history.time_ms, now // MILLISECOND))


def seat_of(chain: bytes, entry: ValidatorEntry) -> Seat:
    """Return the seat that an application asks for."""
    return Seat(chain, entry.validator_id, entry.key, entry.vote_key)


def encode_attestation(anchor: Anchor, public: bytes, answer: QuoteAnswer) -> bytes:
    """Return an attestation: of an attestation key's TPMT_PUBLIC, a quote about this anchor."""
    writer = Writer().u8(VERSION).u64(anchor.epoch).put(anchor.checkpoint)
    return writer.block16(public).put(answer.encode()).finish()


def judge_attestation(attestation: bytes, seat: Seat, past: Past, terms: Terms) -> Judgement:
    """Judge what came with an application.

    Args:
        attestation: The bytes; empty where there are none.
        seat: What it must be about.
        past: The judge's own ledger.
        terms: What the operator asks.
    """
    if not attestation:
        return Judgement(NOT_ATTESTED, "the application carries no attestation")
    try:
        anchor, name = _check(attestation, seat, past)
    except RemoteError as error:
        return Judgement(NOT_ATTESTED, error.message)
    passed_ms = past.time_ms - anchor.time_ms
    age = Age(past.epoch - anchor.epoch, passed_ms * MILLISECOND // SECOND)
    if passed_ms * MILLISECOND > terms.age_max_us:
        limit = terms.age_max_us // SECOND
        return Judgement(NOT_ATTESTED, f"stale: {age}, the limit is {limit} s", name, age)
    if name not in terms.vouched:
        return Judgement(SOFTWARE_ATTESTED, "nobody vouches for this TPM's key", name, age)
    return Judgement(TPM_ATTESTED, "", name, age)


def _check(attestation: bytes, seat: Seat, past: Past) -> tuple[Anchor, str]:
    reader = Reader(attestation[: ATTESTATION_MAX_BYTES + 1], "attestation")
    version = reader.u8()
    if version == UNDATED_VERSION:
        raise VerificationError("attestation: freshness unknown: it is of the form without a date")
    if version != VERSION:
        raise RemoteError("attestation: of an unknown form")
    epoch, checkpoint = reader.u64(), reader.take(32)
    anchor = past.anchor(epoch)
    if anchor is None or anchor.checkpoint != checkpoint:
        raise VerificationError(
            f"attestation: freshness unknown: its checkpoint of epoch {epoch} is not of this ledger"
        )
    key = tpm.parse_attestation_key(reader.block16(tpm.PUBLIC_MAX_BYTES))
    answer = decode_quote(reader.rest())
    if not answer.pcrs:
        raise RemoteError("attestation: a quote over nothing that was booted")
    about = seat.about(anchor.checkpoint)
    tpm.check_quote(key, answer.attest, answer.signature, about, answer.pcrs)
    return anchor, key.name[_PREFIX_BYTES:].hex()

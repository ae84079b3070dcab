"""Evidence: two statements by one key that no honest node makes together (DSM spec 2.6).

| kind | the pair |
|---|---|
| FORK | two microblocks of one node with the same incarnation and number and different ids |
| CUTS | two CUTs of one validator for one epoch |
| PROPOSALS | two proposals of one leader for one epoch and view |
| VOTES | two NOTARIZE or two FINALIZE of one (epoch, view), or FINALIZE with NULLIFY |

Evidence is self-verifying: with the genesis document and the validator sets it needs nothing else
(a FORK carries the node's enrolment; of two first blocks each carries its own). What a validator
signed is judged by the set of its epoch, and too old after `EVIDENCE_AGE_US` of epochs. The two
halves are ordered by their bytes, so one pair has one encoding.
What follows from evidence is left to the checkpoint.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

from hookprobe.crypto.bls import SIGNATURE_BYTES as VOTE_SIGNATURE_BYTES
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.certificate import VoteKind, read_kind, vote_message
from hookprobe.dsm.checkpoint import EVIDENCE_MAX_BYTES
from hookprobe.dsm.court import Court
from hookprobe.dsm.cut import read_cut
from hookprobe.dsm.enrolment import Enrolment, check_enrolment, parse_enrolment
from hookprobe.dsm.microblock import (
    BODY_MAX_BYTES,
    SIGNATURE_BYTES,
    LaneKey,
    SignedBlock,
    decode_block,
    verify_block,
)
from hookprobe.dsm.roll import Roll
from hookprobe.dsm.validators import ValidatorEntry, ValidatorSet
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.instant import DAY
from hookprobe.wire.reader import Reader, Writer

EVIDENCE_AGE_US = 30 * DAY
HALF_MAX_BYTES = 16 << 10


@unique
class Fault(IntEnum):
    """What was done."""

    FORK = 1
    CUTS = 2
    PROPOSALS = 3
    VOTES = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verified misbehaviour by a node and its Ed25519 keys, of which there is mostly one.

    For a FORK also the chain and the number where it splits.
    """

    fault: Fault
    offender: str
    keys: tuple[bytes, ...]
    lane: LaneKey | None = None
    seq: int = 0


def proposal_statement(chain: bytes, epoch: int, view: int, header_hash: bytes) -> bytes:
    """Return what a leader signs: H(proposal, chain || epoch u64 || view u32 || header hash)."""
    place = epoch.to_bytes(8, "big") + view.to_bytes(4, "big")
    return digest(Domain.PROPOSAL, chain + place + header_hash)


def _pair(fault: Fault, about: bytes, one: bytes, other: bytes) -> bytes:
    first, second = sorted((one, other))
    writer = Writer().u8(fault).block16(about).block16(first).block16(second)
    return writer.finish()


def fork_evidence(enrolment: Enrolment, one: SignedBlock, other: SignedBlock) -> bytes:
    """Return evidence that a node signed two blocks with one number."""
    about = b"" if one.seq == 1 else canonical.encode(enrolment.to_body())
    return _pair(Fault.FORK, about, one.encode(), other.encode())


def cut_evidence(one: bytes, other: bytes) -> bytes:
    """Return evidence from two encoded signed CUTs."""
    return _pair(Fault.CUTS, b"", one, other)


def proposal_evidence(epoch: int, view: int, one: bytes, other: bytes) -> bytes:
    """Return evidence from two halves `header hash[32] || signature[64]` of one leader."""
    about = Writer().u64(epoch).u32(view).finish()
    return _pair(Fault.PROPOSALS, about, one, other)


def vote_evidence(place: int, slot: tuple[int, int], one: bytes, other: bytes) -> bytes:
    """Return evidence from two halves `kind u8 || digest[32] || signature[96]`.

    Args:
        place: The validator's number.
        slot: (epoch, view).
        one: A half.
        other: The half that contradicts it.
    """
    about = Writer().u16(place).u64(slot[0]).u32(slot[1]).finish()
    return _pair(Fault.VOTES, about, one, other)


def judge(evidence: bytes, roll: Roll, epochs: range) -> Verdict:
    """Decide whether bytes prove misbehaviour.

    Args:
        evidence: The pair.
        roll: The validator sets.
        epochs: The epochs of which a validator's statements still count, the open one the last.

    Raises:
        RemoteError: They do not: malformed, too old, or a signature or rule does not hold.
    """
    if len(evidence) > EVIDENCE_MAX_BYTES:
        raise MalformedError(f"evidence of {len(evidence)} bytes")
    reader = Reader(evidence, "evidence")
    kind = reader.u8()
    if not 1 <= kind <= 4:
        raise MalformedError(f"evidence: unknown kind {kind}")
    about = reader.block16(BODY_MAX_BYTES)
    halves = reader.block16(HALF_MAX_BYTES), reader.block16(HALF_MAX_BYTES)
    reader.finish()
    if halves[0] >= halves[1]:
        raise MalformedError("evidence: halves are equal or out of order")
    match Fault(kind):
        case Fault.FORK:
            return _judge_fork(about, halves, roll.court)
        case Fault.CUTS:
            return _judge_cuts(about, halves, roll, epochs)
        case Fault.PROPOSALS:
            return _judge_proposals(about, halves, roll, epochs)
        case Fault.VOTES:
            return _judge_votes(about, halves, roll, epochs)


def _set_of(epoch: int, roll: Roll, epochs: range) -> ValidatorSet:
    if epoch not in epochs:
        raise VerificationError(f"evidence: epoch {epoch} is too old, or yet to come")
    return roll.at(epoch)


def _judge_fork(about: bytes, halves: tuple[bytes, bytes], court: Court) -> Verdict:
    one, other = decode_block(halves[0]), decode_block(halves[1])
    if one.lane != other.lane or one.seq != other.seq or one.id == other.id:
        raise VerificationError("evidence: the blocks do not contradict each other")
    keys = []
    for signed in (one, other):
        body = signed.block.body if signed.seq == 1 else _about_body(about)
        enrolment = parse_enrolment(body or {})
        certificate = enrolment.certificate
        # The certificate must only be genuine: a fork is one whenever it is signed.
        at_ms = certificate.not_before_ms
        key = check_enrolment(enrolment, court.chain, at_ms, court.ca_keys, court.signatures)
        if signed.block.chain != court.chain or signed.block.node_id != certificate.node_id:
            raise VerificationError("evidence: block of another chain or node")
        verify_block(signed, key, court.signatures)
        keys.append(key)
    if one.seq == 1 and about:
        raise MalformedError("evidence: first blocks carry their own enrolment")
    return Verdict(Fault.FORK, one.block.node_id, tuple(dict.fromkeys(keys)), one.lane, one.seq)


def _about_body(about: bytes) -> JsonObject:
    return canonical.decode_object(about, limit=BODY_MAX_BYTES)


def _judge_cuts(about: bytes, halves: tuple[bytes, bytes], roll: Roll, epochs: range) -> Verdict:
    cuts, court = [], roll.court
    for half in halves:
        reader = Reader(half, "evidence")
        cuts.append(read_cut(reader))
        reader.finish()
    one, other = cuts
    if about or one.cut.chain != court.chain or other.cut.chain != court.chain:
        raise VerificationError("evidence: cuts of another chain")
    same = one.cut.validator_id == other.cut.validator_id and one.cut.epoch == other.cut.epoch
    if not same or one.id == other.id:
        raise VerificationError("evidence: the cuts do not contradict each other")
    entry = _set_of(one.cut.epoch, roll, epochs).entry(one.cut.validator_id)
    if entry is None:
        raise VerificationError("evidence: cut of no validator")
    for signed in cuts:
        _require(court, entry, signed.id, signed.signature)
    return Verdict(Fault.CUTS, one.cut.validator_id, (entry.key,))


def _judge_proposals(
    about: bytes, halves: tuple[bytes, bytes], roll: Roll, epochs: range
) -> Verdict:
    reader = Reader(about, "evidence")
    epoch, view = reader.u64(), reader.u32()
    reader.finish()
    if view < 1 or halves[0][:32] == halves[1][:32]:
        raise VerificationError("evidence: the proposals do not contradict each other")
    court, validators = roll.court, _set_of(epoch, roll, epochs)
    leader = validators.members[validators.leader(epoch, view)]
    for half in halves:
        if len(half) != 32 + SIGNATURE_BYTES:
            raise MalformedError("evidence: half of a proposal pair has the wrong size")
        _require(court, leader, proposal_statement(court.chain, epoch, view, half[:32]), half[32:])
    return Verdict(Fault.PROPOSALS, leader.validator_id, (leader.key,))


def _judge_votes(about: bytes, halves: tuple[bytes, bytes], roll: Roll, epochs: range) -> Verdict:
    reader = Reader(about, "evidence")
    place, epoch, view = reader.u16(), reader.u64(), reader.u32()
    reader.finish()
    court, validators = roll.court, _set_of(epoch, roll, epochs)
    if place >= validators.size:
        raise VerificationError(f"evidence: no validator {place}")
    entry = validators.members[place]
    kinds = []
    for half in halves:
        kind, digest_, signature = _read_vote(half)
        message = vote_message(court.chain, kind, epoch, view, digest_)
        if not court.votes.verify(entry.vote_key, message, signature):
            raise VerificationError("evidence: vote signature does not hold")
        kinds.append((kind, digest_))
    if not contradict(kinds[0], kinds[1]):
        raise VerificationError("evidence: the votes do not contradict each other")
    return Verdict(Fault.VOTES, entry.validator_id, (entry.key,))


def contradict(one: tuple[VoteKind, bytes], other: tuple[VoteKind, bytes]) -> bool:
    """Tell whether no honest validator casts both votes in one view."""
    kinds = {one[0], other[0]}
    if kinds == {VoteKind.FINALIZE, VoteKind.NULLIFY}:
        return True
    return len(kinds) == 1 and one[0] is not VoteKind.NULLIFY and one[1] != other[1]


def _read_vote(half: bytes) -> tuple[VoteKind, bytes, bytes]:
    reader = Reader(half, "evidence")
    found = read_kind(reader), reader.take(32), reader.take(VOTE_SIGNATURE_BYTES)
    reader.finish()
    return found


def _require(court: Court, entry: ValidatorEntry, statement: bytes, signature: bytes) -> None:
    if not court.signatures.verify(entry.key, statement, signature):
        raise VerificationError(f"evidence: signature of {entry.validator_id} does not hold")

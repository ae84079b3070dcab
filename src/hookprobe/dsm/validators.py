"""The validator set: who may vote, in which order, with which keys (DSM spec 2.7).

Every BLS key enters with a proof of possession, else one rogue key x*G - sum(others) signs for
everybody. Members are sorted by id and no id or key appears twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.bls import VoteScheme
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.certificate import (
    QuorumCertificate,
    check_certificate,
    faults,
    quorum,
)
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id

VALIDATORS_MAX = 128


@dataclass(frozen=True, slots=True)
class ValidatorEntry:
    """One validator.

    Args:
        validator_id: Its node id.
        key: Ed25519, 32 bytes: CUTs and proposals.
        vote_key: BLS, 48 bytes: votes.
        possession_proof: 96 bytes over `vote_key`.
    """

    validator_id: NodeId
    key: bytes
    vote_key: bytes
    possession_proof: bytes

    def to_json(self) -> JsonObject:
        return {
            "id": self.validator_id,
            "key": self.key.hex(),
            "possession": self.possession_proof.hex(),
            "vote_key": self.vote_key.hex(),
        }


def parse_entry(value: Json) -> ValidatorEntry:
    """Read one entry of the set's canonical form."""
    if not isinstance(value, dict):
        raise MalformedError("validator: an object is wanted")
    fields = Fields(value, "validator")
    entry = ValidatorEntry(
        parse_node_id(fields.text("id")),
        fields.hex("key", 32),
        fields.hex("vote_key", 48),
        fields.hex("possession", 96),
    )
    fields.finish()
    return entry


class ValidatorSet:
    """A set in its one order.

    Raises:
        VerificationError: Empty, too large, not sorted, or an id or key named twice.
    """

    def __init__(self, members: Sequence[ValidatorEntry]) -> None:
        ids = [member.validator_id for member in members]
        if not 1 <= len(ids) <= VALIDATORS_MAX:
            raise VerificationError(f"validator set of {len(ids)} members")
        if ids != sorted(dict.fromkeys(ids)):
            raise VerificationError("validator set: ids must be sorted and distinct")
        for keys in ([m.key for m in members], [m.vote_key for m in members]):
            if len(dict.fromkeys(keys)) != len(ids):
                raise VerificationError("validator set: one key stands for two validators")
        self.members = tuple(members)
        self.vote_keys = tuple(member.vote_key for member in members)
        self.ids = tuple(ids)
        self._places = {validator_id: place for place, validator_id in enumerate(ids)}
        self.hash = digest(Domain.VALIDATORS, self.encode())

    def encode(self) -> bytes:
        """Return the canonical array whose hash names the set."""
        document: list[Json] = [member.to_json() for member in self.members]
        return canonical.encode(document)

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def faults(self) -> int:
        return faults(len(self.members))

    @property
    def quorum(self) -> int:
        return quorum(len(self.members))

    def place(self, validator_id: str) -> int | None:
        """Return the number of a validator, None when it is not in the set."""
        return self._places.get(NodeId(validator_id))

    def entry(self, validator_id: str) -> ValidatorEntry | None:
        """Return the entry of a validator, None when it is not in the set."""
        place = self.place(validator_id)
        return self.members[place] if place is not None else None

    def leader(self, epoch: int, view: int) -> int:
        """Return the number of the leader: (e + v - 1) mod n (DSM spec 2.5)."""
        return (epoch + view - 1) % len(self.members)

    def check_certificate(
        self, certificate: QuorumCertificate, chain: bytes, scheme: VoteScheme
    ) -> None:
        """Check a certificate against this set's keys and quorum."""
        check_certificate(certificate, chain, self.vote_keys, self.quorum, scheme)

    def check_keys(self, scheme: VoteScheme, known: "ValidatorSet | None" = None) -> None:
        """Check every BLS key and its proof of possession, but those of a set that is known.

        Raises:
            VerificationError: A key that is not valid or not proven.
        """
        proven = known.members if known is not None else ()
        for member in self.members:
            if member in proven:
                continue
            if not scheme.check_key(member.vote_key, member.possession_proof):
                raise VerificationError(
                    f"validator {member.validator_id}: BLS key without proof of possession"
                )


def decode_set(data: bytes) -> ValidatorSet:
    """Read what `ValidatorSet.encode` returned.

    Raises:
        MalformedError: Not the canonical form of a set.
        VerificationError: Not sorted and distinct.
    """
    document = canonical.decode(data)
    if not isinstance(document, list) or len(document) > VALIDATORS_MAX:
        raise MalformedError(f"validator set: an array of at most {VALIDATORS_MAX} is wanted")
    return ValidatorSet([parse_entry(item) for item in document])

"""Which validator set decides which epoch, and what proves it: the light client (DSM spec 2.7).

A header names the hash of its own set and that of the next one. Who knows the set of one epoch can
follow every change: a `SetChange` is a certified header whose two hashes differ, with the members
of the next set, which hash to the second. While the hash stays the same epochs may be skipped, so
from the genesis document to today takes one certificate for each change and one for the header
that is wanted.

A set counts for its own epochs only. Old keys, lost long after their set was replaced, therefore
cannot speak for later epochs to anybody who knows of the change; who does not needs a pinned
checkpoint or witnesses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hookprobe.dsm.certificate import QuorumCertificate, VoteKind, read_certificate
from hookprobe.dsm.checkpoint import (
    HEADER_MAX_BYTES,
    MEMBERS_MAX_BYTES,
    Header,
    header_hash,
    parse_header,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.validators import ValidatorSet, decode_set
from hookprobe.errors import VerificationError
from hookprobe.wire.reader import Reader, Writer


@dataclass(frozen=True, slots=True)
class SetChange:
    """A header that ends the time of one validator set, its certificate, the next set's members.

    Args:
        header_raw: Canonical header.
        certificate: FINALIZE by the set that ends.
        members: Canonical array of the next set; its hash is in the header.
    """

    header_raw: bytes
    certificate: QuorumCertificate
    members: bytes

    def write(self, writer: Writer) -> None:
        writer.block16(self.header_raw)
        self.certificate.write(writer)
        writer.block32(self.members)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()


def read_change(reader: Reader) -> SetChange:
    """Read what `SetChange.write` wrote."""
    return SetChange(
        reader.block16(HEADER_MAX_BYTES),
        read_certificate(reader),
        reader.block32(MEMBERS_MAX_BYTES),
    )


def decode_change(data: bytes) -> SetChange:
    """Read what `SetChange.encode` returned."""
    reader = Reader(data, "set change")
    found = read_change(reader)
    reader.finish()
    return found


class Roll:
    """The sets known so far, each from an epoch on.

    Args:
        court: The court of the genesis document.
    """

    def __init__(self, court: Court) -> None:
        self.court = court
        self._terms: list[tuple[int, ValidatorSet]] = [(0, court.validators)]

    def __iter__(self) -> Iterator[tuple[int, ValidatorSet]]:
        return iter(self._terms)

    @property
    def latest(self) -> ValidatorSet:
        """The set that came last; it stands until a change says otherwise."""
        return self._terms[-1][1]

    @property
    def since(self) -> int:
        """The first epoch of the latest set."""
        return self._terms[-1][0]

    def at(self, epoch: int) -> ValidatorSet:
        """Return the set of an epoch, as far as changes are known."""
        return next(members for since, members in reversed(self._terms) if since <= epoch)

    def knows(self, node: str) -> bool:
        """Tell whether a node is, or ever was, a validator."""
        return any(members.place(node) is not None for _, members in self._terms)

    def court_at(self, epoch: int) -> Court:
        """Return the court of an epoch."""
        return replace(self.court, validators=self.at(epoch))

    def append(self, epoch: int, members: ValidatorSet) -> None:
        """Note that a set decides from an epoch on; the caller has proof of it."""
        self._terms.append((epoch, members))

    def restore(self, change: SetChange) -> None:
        """Take over a change that was checked before it was stored."""
        self.append(parse_header(change.header_raw).epoch + 1, decode_set(change.members))

    def accept(self, change: SetChange) -> bool:
        """Follow a change of the latest set; returns False for one that is known already.

        Raises:
            VerificationError: It is not certified by the latest set, or its members are not those
                that the header names, or a new key among them is not proven.
        """
        header = parse_header(change.header_raw)
        if header.epoch < self.since:
            return False
        self.check(change.header_raw, change.certificate)
        members = decode_set(change.members)
        if header.next_validators_hash == header.validators_hash:
            raise VerificationError(f"checkpoint {header.epoch} changes no validator")
        check_successor(header, members, self.latest, self.court)
        self.append(header.epoch + 1, members)
        return True

    def check(self, header_raw: bytes, certificate: QuorumCertificate) -> Header:
        """Check that the set of its epoch made a header final, and return it.

        Raises:
            VerificationError: Another chain, another set than is known for that epoch, or no
                FINALIZE certificate of this very header.
        """
        header = parse_header(header_raw)
        what = f"checkpoint {header.epoch}"
        if header.chain != self.court.chain:
            raise VerificationError(f"{what}: another chain")
        validators = self.at(header.epoch)
        if header.validators_hash != validators.hash:
            raise VerificationError(f"{what}: another validator set than is known for its epoch")
        if certificate.kind is not VoteKind.FINALIZE or certificate.epoch != header.epoch:
            raise VerificationError(f"{what}: not a FINALIZE certificate of its epoch")
        if certificate.digest != header_hash(header_raw):
            raise VerificationError(f"{what}: certificate of another header")
        validators.check_certificate(certificate, self.court.chain, self.court.votes)
        return header


def check_successor(
    header: Header, members: ValidatorSet, before: ValidatorSet, court: Court
) -> None:
    """Check that these are the members that a header names as the next set.

    Raises:
        VerificationError: They are not, or a vote key new among them is not proven.
    """
    if members.hash != header.next_validators_hash:
        raise VerificationError(f"checkpoint {header.epoch}: not the members of the next set")
    members.check_keys(court.votes, known=before)

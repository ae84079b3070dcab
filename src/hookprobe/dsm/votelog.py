"""What a validator must remember of an open epoch, so that a restart never contradicts it (R8).

Votes, the leader's own proposals, certificates and candidates are rows of the epoch. They are
written before the message that depends on them is sent, read when the machine starts, and deleted
when the epoch is final. One more row tells the last epoch in which the key signed anything.
"""

from dataclasses import dataclass

from hookprobe.dsm.certificate import QuorumCertificate, VoteKind, decode_certificate
from hookprobe.dsm.checkpoint import Checkpoint, decode_checkpoint
from hookprobe.dsm.messages import Vote
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end

ROWS_MAX = 100_000
VOTED_KEY = b"voted"
ABSTAIN_KEY = b"abstain"


@dataclass(slots=True)
class Memory:
    """What a restarted machine must know (R8); `pledges` are its own proposals by view."""

    votes: dict[tuple[int, VoteKind], Vote]
    pledges: dict[int, bytes]
    certificates: list[QuorumCertificate]
    candidates: list[Checkpoint]


def slot_row(epoch: int, view: int, kind: VoteKind) -> bytes:
    """Return the store key of a vote or certificate: epoch[8] view[4] kind[1]."""
    return epoch.to_bytes(8, "big") + view.to_bytes(4, "big") + bytes((kind,))


def pledge_row(epoch: int, view: int) -> bytes:
    """Return the store key of what we proposed as leader: kind 0 among the votes."""
    return epoch.to_bytes(8, "big") + view.to_bytes(4, "big") + b"\0"


def voted_row(epoch: int) -> Write:
    """Return the row that tells the last epoch in which this key signed anything."""
    return (Table.META, VOTED_KEY, epoch.to_bytes(8, "big"))


def abstain_row(epoch: int) -> Write:
    """Return the row of a ledger put back from a copy: nothing is signed before this epoch."""
    return (Table.META, ABSTAIN_KEY, epoch.to_bytes(8, "big"))


def load_memory(reader: StoreReader, epoch: int, place: int) -> Memory:
    """Read what an earlier life of this validator stored of an epoch."""
    prefix = epoch.to_bytes(8, "big")
    memory = Memory({}, {}, [], [])
    for key, value in reader.scan(Table.VOTES, prefix, prefix_end(prefix), ROWS_MAX):
        view, kind = int.from_bytes(key[8:12], "big"), key[12]
        if kind == 0:
            memory.pledges[view] = value
            continue
        vote = Vote(VoteKind(kind), epoch, view, value[:32], place, value[32:])
        memory.votes[(view, vote.kind)] = vote
    for _, value in reader.scan(Table.CERTIFICATES, prefix, prefix_end(prefix), ROWS_MAX):
        memory.certificates.append(decode_certificate(value))
    for _, value in reader.scan(Table.PROPOSALS, prefix, prefix_end(prefix), ROWS_MAX):
        memory.candidates.append(decode_checkpoint(value))
    return memory


def forget_rows(reader: StoreReader, epoch: int) -> tuple[Write, ...]:
    """Return deletions of what an epoch that is final no longer needs."""
    prefix = epoch.to_bytes(8, "big")
    own_cut: Write = (Table.CUTS, prefix, None)
    rows = [
        (table, key)
        for table in (Table.VOTES, Table.CERTIFICATES, Table.PROPOSALS)
        for key, _ in reader.scan(table, prefix, prefix_end(prefix), ROWS_MAX)
    ]
    return (own_cut, *((table, key, None) for table, key in rows))

"""CUTs and the floor rule: what an epoch has to contain (DSM spec 2.3).

A CUT is one validator's signed statement, once per epoch, of the contiguous verified head of
every chain that advanced since the last checkpoint, with new evidence inline:

    {chain, epoch, evidence: [hex], heads: [[node, inc, seq]], prev, timestamp, type: "K", v: 1,
     validator_id}                signature = Ed25519 over H(cut, canonical JSON)

With Q the CUTs that a proposal lists (n-f to n of them, distinct validators), and for one chain
the sequence numbers that Q reports, absent = prev_to:

    floor = min((f+1)-th largest report, prev_to + cap)

Because at most f of Q lie, min(honest reports) <= floor <= max(honest reports):
what every honest validator holds is in, whoever leads; some honest validator holds up to the
floor, so an honest leader can always satisfy it; f liars cannot inflate it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.microblock import INC_MAX, SIGNATURE_BYTES, LaneKey
from hookprobe.errors import MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import INTEGER_MAX, NodeId, parse_node_id
from hookprobe.wire.reader import Reader, Writer

CUT_HEADS_MAX = 4096
CUT_EVIDENCE_MAX = 64
CUT_MAX_BYTES = 512 << 10

Heads = tuple[tuple[LaneKey, int], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """The fields of a CUT; `heads` and `evidence` are sorted."""

    chain: bytes
    epoch: int
    prev: bytes
    timestamp_ms: int
    validator_id: NodeId
    heads: Heads
    evidence: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the canonical JSON that is hashed."""
        heads: list[Json] = [[lane[0], lane[1], seq] for lane, seq in self.heads]
        evidence: list[Json] = [item.hex() for item in self.evidence]
        return canonical.encode(
            {
                "chain": self.chain.hex(),
                "epoch": self.epoch,
                "evidence": evidence,
                "heads": heads,
                "prev": self.prev.hex(),
                "timestamp": self.timestamp_ms,
                "type": "K",
                "v": 1,
                "validator_id": self.validator_id,
            }
        )


@dataclass(frozen=True, slots=True)
class SignedCut:
    """A CUT as it travels; its signature is still to be checked. `id` is what is signed."""

    cut: Cut
    raw: bytes
    signature: bytes
    id: bytes

    def write(self, writer: Writer) -> None:
        writer.block32(self.raw).put(self.signature)


def sign_cut(cut: Cut, signer: Signer) -> SignedCut:
    """Sign a CUT."""
    raw = cut.encode()
    cut_id = digest(Domain.CUT, raw)
    return SignedCut(cut, raw, signer.sign(cut_id), cut_id)


def parse_cut(raw: bytes, signature: bytes) -> SignedCut:
    """Read a CUT.

    Raises:
        MalformedError: Not the canonical form, or heads or evidence not sorted and distinct.
        LimitExceededError: Too large.
    """
    fields = Fields(canonical.decode_object(raw, limit=CUT_MAX_BYTES), "cut")
    fields.literal("type", "K")
    fields.literal("v", 1)
    heads = tuple(_parse_head(item) for item in fields.array("heads", limit=CUT_HEADS_MAX))
    evidence = tuple(_parse_hex(item) for item in fields.array("evidence", limit=CUT_EVIDENCE_MAX))
    lanes = [lane for lane, _ in heads]
    if lanes != sorted(dict.fromkeys(lanes)) or list(evidence) != sorted(dict.fromkeys(evidence)):
        raise MalformedError("cut: heads and evidence must be sorted and distinct")
    cut = Cut(
        fields.hex("chain", 32),
        fields.integer("epoch"),
        fields.hex("prev", 32),
        fields.integer("timestamp"),
        parse_node_id(fields.text("validator_id")),
        heads,
        evidence,
    )
    fields.finish()
    return SignedCut(cut, raw, signature, digest(Domain.CUT, raw))


def read_cut(reader: Reader) -> SignedCut:
    """Read what `SignedCut.write` wrote."""
    return parse_cut(reader.block32(CUT_MAX_BYTES), reader.take(SIGNATURE_BYTES))


def _parse_head(item: Json) -> tuple[LaneKey, int]:
    if isinstance(item, list) and len(item) == 3:
        node, inc, seq = item
        if type(inc) is int and type(seq) is int and _in_range(inc, seq):
            return (parse_node_id(node), inc), seq
    raise MalformedError("cut: a head is [node, inc, seq]")


def _in_range(inc: int, seq: int) -> bool:
    return 1 <= inc <= INC_MAX and 1 <= seq <= INTEGER_MAX


def _parse_hex(item: Json) -> bytes:
    if isinstance(item, str) and item == item.lower():
        try:
            return bytes.fromhex(item)
        except ValueError:
            pass
    raise MalformedError("cut: evidence is lower-case hex digits")


def floor_of(reports: Iterable[int], prev_to: int, faults: int, cap: int) -> int:
    """Return the floor of one chain.

    Args:
        reports: One head per CUT of Q; `prev_to` for a CUT that does not name the chain.
        prev_to: The last sequence number of the previous checkpoint.
        faults: f of the validator set.
        cap: The most blocks of one chain that an epoch has to take.
    """
    ordered = sorted((max(report, prev_to) for report in reports), reverse=True)
    return min(ordered[faults], prev_to + cap)


def floors(
    cuts: Sequence[Cut], previous: Mapping[LaneKey, int], faults: int, cap: int
) -> dict[LaneKey, int]:
    """Return the floor of every chain of which the next epoch must take blocks, sorted.

    Args:
        cuts: Q.
        previous: The last sequence number in any checkpoint, per chain; absent = 0.
        faults: f of the validator set.
        cap: The floor cap of the genesis document.
    """
    reports: dict[LaneKey, list[int]] = {}
    for cut in cuts:
        for lane, seq in cut.heads:
            reports.setdefault(lane, []).append(seq)
    found: dict[LaneKey, int] = {}
    for lane in sorted(reports):
        prev_to = previous.get(lane, 0)
        absent = [prev_to] * (len(cuts) - len(reports[lane]))
        floor = floor_of(reports[lane] + absent, prev_to, faults, cap)
        if floor > prev_to:
            found[lane] = floor
    return found


def median_timestamp(cuts: Sequence[Cut], previous_ms: int) -> int:
    """Return the lower median of Q's time stamps, later than the previous checkpoint's.

    With at most f liars among n-f or more CUTs the median lies between honest clocks.
    """
    stamps = sorted(cut.timestamp_ms for cut in cuts)
    return max(stamps[(len(stamps) - 1) // 2], previous_ms + 1)

"""Making and judging the content of a checkpoint (DSM spec 2.3).

A validator accepts C only if Q is valid, distinct and of this epoch; every floor is met; exactly
the evidence of Q that is valid and new is in; every block from..to is held, chained from the
previous head to the stated head and verified; and the header is, byte for byte, what follows.

Evidence of a fork in C settles the matter for that node: of its other chains nothing enters, of
the forked one nothing at or beyond the fork, and after this checkpoint nothing at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.signing import Signer
from hookprobe.dsm.checkpoint import (
    EVIDENCE_MAX,
    Checkpoint,
    Content,
    Range,
    evidence_id,
    header_hash,
    sorted_ranges,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.cut import SignedCut, floors
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.microblock import LaneKey
from hookprobe.dsm.misbehaviour import Fault, Verdict, judge
from hookprobe.dsm.steps import Opinion
from hookprobe.errors import RemoteError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

VERDICTS_CACHED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Want:
    """Blocks that a proposal needs and we do not hold."""

    lane: LaneKey
    first: int
    last: int
    head: bytes


class ContentJudge:
    """The `Judge` of one validator.

    Args:
        history: The agreed past, and with it the validators of the open epoch.
        book: The blocks held.
        author: Our id and key.
        floor_cap: From the genesis document.
    """

    def __init__(
        self,
        history: History,
        book: LaneBook,
        author: tuple[NodeId, Signer],
        floor_cap: int,
    ) -> None:
        self.cuts: dict[int, SignedCut] = {}
        self.ready_at: Instant | None = None  # when the grace for late CUTs ends
        self.grace_over = False
        self.wants: list[Want] = []
        self._history = history
        self._book = book
        self.author = author
        self._floor_cap = floor_cap
        self._genuine: dict[bytes, bool] = {}
        self._opinions: dict[bytes, Opinion] = {}
        self._verdicts: dict[bytes, Verdict | None] = {}

    def new_epoch(self) -> None:
        """Forget what belonged to the epoch before."""
        self.cuts = {}
        self.ready_at = None
        self.grace_over = False
        self.wants = []
        self._genuine = {}
        self._opinions = {}
        # What was too early for a verdict may hold now, and what was young grows old.
        self._verdicts = {}

    @property
    def _court(self) -> Court:
        return self._history.court

    # -- parts ------------------------------------------------------------------------------

    def verify_cut(self, signed: SignedCut) -> int:
        """Check a CUT for the current epoch and return its validator's number.

        Raises:
            VerificationError: Another epoch, history or chain, no validator, or not signed.
        """
        cut = signed.cut
        if cut.chain != self._court.chain or cut.epoch != self._history.next_epoch:
            raise VerificationError(f"cut of epoch {cut.epoch}: another chain or epoch")
        if cut.prev != self._history.last_hash:
            raise VerificationError(f"cut of epoch {cut.epoch}: another history")
        place = self._court.validators.place(cut.validator_id)
        if place is None:
            raise VerificationError(f"cut of {cut.validator_id}: not a validator")
        if signed.id not in self._genuine:
            key = self._court.validators.members[place].key
            if not self._court.signatures.verify(key, signed.id, signed.signature):
                raise VerificationError(f"cut of {cut.validator_id}: signature does not hold")
            self._genuine[signed.id] = True
        return place

    def verdict(self, evidence: bytes) -> Verdict | None:
        """Judge evidence, remembering the answer."""
        key = evidence_id(evidence)
        if key not in self._verdicts:
            if len(self._verdicts) >= VERDICTS_CACHED_MAX:
                self._verdicts.clear()
            try:
                self._verdicts[key] = judge(
                    evidence, self._history.roll, self._history.epochs_judged
                )
            except RemoteError:
                self._verdicts[key] = None
        return self._verdicts[key]

    def evidence_of(self, cuts: Sequence[SignedCut]) -> dict[bytes, Verdict]:
        """Return the evidence that a checkpoint over these CUTs must carry, sorted by id.

        One piece per offender: the valid one with the smallest id, of offenders not settled yet.
        """
        chosen: dict[str, tuple[bytes, bytes, Verdict]] = {}
        for signed in cuts:
            for evidence in signed.cut.evidence:
                found = self.verdict(evidence)
                if found is None or found.offender in self._history.settled:
                    continue
                entry = (evidence_id(evidence), evidence, found)
                held = chosen.get(found.offender)
                if held is None or entry[0] < held[0]:
                    chosen[found.offender] = entry
        ordered = sorted(chosen.values(), key=lambda entry: entry[0])[:EVIDENCE_MAX]
        return {evidence: found for _, evidence, found in ordered}

    def _required(self, cuts: Sequence[SignedCut]) -> dict[LaneKey, int]:
        named = {lane: True for signed in cuts for lane, _ in signed.cut.heads}
        lanes = self._book.lanes
        previous = {lane: lanes[lane].final_seq for lane in named if lane in lanes}
        found = floors(
            [signed.cut for signed in cuts],
            previous,
            self._court.validators.faults,
            self._floor_cap,
        )
        revoked = self._book.revoked
        return {lane: floor for lane, floor in found.items() if lane[0] not in revoked}

    # -- proposing --------------------------------------------------------------------------

    def draft(self, now: Instant) -> Checkpoint | None:
        """Return a fresh checkpoint over the CUTs held, or None while something is missing."""
        validators = self._court.validators
        if len(self.cuts) < validators.quorum or not self._history.complete:
            return None
        waiting = self.ready_at is not None and now < self.ready_at
        if waiting and not self.grace_over and len(self.cuts) < validators.size:
            return None
        cuts = tuple(self.cuts[place] for place in sorted(self.cuts))
        evidence = self.evidence_of(cuts)
        guilty = _forkers(evidence)
        ranges: list[Range] = []
        for lane, floor in self._required(cuts).items():
            if lane[0] not in guilty:
                covered = self._cover(lane, floor)
                if covered is None:
                    return None
                ranges.append(covered)
        return self._sign(Content(tuple(ranges), cuts, tuple(evidence)))

    def _cover(self, key: LaneKey, floor: int) -> Range | None:
        lane = self._book.lanes.get(key)
        head = lane.tip_at(floor) if lane is not None else None
        if lane is None or head is None or lane.path(floor, head) is None:
            first = lane.head_seq + 1 if lane is not None else 1
            self.wants.append(Want(key, first, floor, bytes(32)))
            return None
        return Range(key[0], key[1], lane.final_seq + 1, floor, head)

    def _sign(self, content: Content) -> Checkpoint | None:
        validator_id, signer = self.author
        ids = self._block_ids(content.ranges)
        if ids is None:
            return None
        header = self._history.header(content, ids, validator_id)
        raw = header.encode()
        hashed = header_hash(raw)
        checkpoint = Checkpoint(header, raw, hashed, signer.sign(hashed), content)
        self._opinions[hashed] = Opinion.ACCEPT
        return checkpoint

    def _block_ids(self, ranges: Sequence[Range]) -> list[bytes] | None:
        ids: list[bytes] = []
        complete = True
        for covered in ranges:
            lane = self._book.lanes.get(covered.lane)
            path = lane.path(covered.last, covered.head) if lane is not None else None
            if path is None:
                self.wants.append(Want(covered.lane, covered.first, covered.last, covered.head))
                complete = False
                continue
            ids += [signed.id for signed in path]
        return ids if complete else None

    # -- judging ----------------------------------------------------------------------------

    def examine(self, checkpoint: Checkpoint) -> Opinion:
        """Judge a proposed checkpoint."""
        held = self._opinions.get(checkpoint.hash)
        if held is not None:
            return held
        if not self._history.complete:
            return Opinion.WAIT
        try:
            self._check_rules(checkpoint)
            ids = self._block_ids(checkpoint.content.ranges)
            if ids is None:
                return Opinion.WAIT
            author = checkpoint.header.validator_id
            if self._history.header(checkpoint.content, ids, author).encode() != checkpoint.raw:
                raise VerificationError("checkpoint: the header is not what follows from it")
            opinion = Opinion.ACCEPT
        except RemoteError:
            opinion = Opinion.REFUSE
        self._opinions[checkpoint.hash] = opinion
        return opinion

    def _check_rules(self, checkpoint: Checkpoint) -> None:
        """Check all that does not depend on the blocks that we hold."""
        header, content = checkpoint.header, checkpoint.content
        place = self._court.validators.place(header.validator_id)
        if place is None:
            raise VerificationError("checkpoint: the author is not a validator")
        key = self._court.validators.members[place].key
        if not self._court.signatures.verify(key, checkpoint.hash, checkpoint.author_signature):
            raise VerificationError("checkpoint: the author did not sign it")
        places = [self.verify_cut(signed) for signed in content.cuts]
        if places != sorted(dict.fromkeys(places)) or len(places) < self._court.validators.quorum:
            raise VerificationError("checkpoint: Q is not a sorted quorum of distinct validators")
        evidence = self.evidence_of(content.cuts)
        if content.evidence != tuple(evidence):
            raise VerificationError("checkpoint: not exactly the evidence of Q")
        self._check_ranges(content, evidence)
        if header.epoch != self._history.next_epoch or header.prev != self._history.last_hash:
            raise VerificationError("checkpoint: another epoch or history")

    def _check_ranges(self, content: Content, evidence: dict[bytes, Verdict]) -> None:
        if not sorted_ranges(content.ranges):
            raise VerificationError("checkpoint: ranges are not sorted and distinct")
        guilty = _forkers(evidence)
        covered = {item.lane: item.last for item in content.ranges}
        for item in content.ranges:
            self._check_range(item, guilty.get(item.node_id))
        for lane, floor in self._required(content.cuts).items():
            if lane[0] not in guilty and covered.get(lane, 0) < floor:
                raise VerificationError(f"checkpoint: {lane[0]}/{lane[1]} ends below its floor")

    def _check_range(self, covered: Range, fork: Verdict | None) -> None:
        what = f"checkpoint: range of {covered.node_id}/{covered.inc}"
        lane = self._book.lanes.get(covered.lane)
        previous = lane.final_seq if lane is not None else 0
        if covered.first != previous + 1 or covered.last > previous + self._floor_cap:
            raise VerificationError(f"{what} does not continue the previous checkpoint")
        if covered.node_id in self._book.revoked:
            raise VerificationError(f"{what}: the node is in quarantine")
        if fork is not None and (fork.lane != covered.lane or covered.last >= fork.seq):
            raise VerificationError(f"{what} reaches the fork")


def _forkers(evidence: dict[bytes, Verdict]) -> dict[str, Verdict]:
    return {item.offender: item for item in evidence.values() if item.fault is Fault.FORK}

"""What follows when a checkpoint is final: heads advance, offenders settle, the registry reads on.

Blocks of a final epoch may be missing here; final is final, and they are fetched. The registry
reads epochs in order and only whole, so it waits for them; what governance the blocks at hand hold
is kept until then.

Chain time, the time stamp of the last final checkpoint, also turns the partitions of the store: a
new day opens one and lets those go that are older than what is kept (DSM spec 2.9). Nothing that is
hashed above a pruned epoch changes: headers, certificates and set changes stay for ever.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hookprobe.dsm.backlog import Backlog
from hookprobe.dsm.checkpoint import Content, FinalCheckpoint, Range, evidence_id
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.content import ContentJudge
from hookprobe.dsm.dead_keys import KeyUse
from hookprobe.dsm.effects import (
    Effect,
    NodeQuarantined,
    NodeRevoked,
    PartitionsDropped,
    SlashDue,
    ValidatorApplied,
    ValidatorSetChanged,
)
from hookprobe.dsm.gossip import Gossip
from hookprobe.dsm.governance import Act, act_of, is_governance
from hookprobe.dsm.history import History
from hookprobe.dsm.lanes import LaneBook
from hookprobe.dsm.messages import BLOCKS_MAX
from hookprobe.dsm.microblock import LaneKey, SignedBlock, lane_row
from hookprobe.dsm.misbehaviour import Fault, Verdict, judge
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.dsm.votelog import forget_rows
from hookprobe.errors import RemoteError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND


@dataclass(slots=True)
class Unread:
    """A final epoch that the registry has not read."""

    ranges: tuple[Range, ...]
    offenders: tuple[str, ...]
    convicted: tuple[KeyUse, ...]
    timestamp_ms: int
    acts: dict[LaneKey, list[Act]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.acts) == len(self.ranges)

    def in_order(self) -> list[Act]:
        return [act for item in self.ranges for act in self.acts[item.lane]]


class Finality:
    """Carries final checkpoints into everything that depends on them.

    Args:
        history: The agreed past.
        book: The blocks held.
        exchange: Pending evidence, and what is missing.
        judge: Judges evidence.
        reader: The store as it was left.
        config: What is kept for how long.
    """

    def __init__(
        self,
        history: History,
        book: LaneBook,
        exchange: tuple[Gossip, Backlog],
        judge: ContentJudge,
        reader: StoreReader,
        config: LedgerConfig,
    ) -> None:
        self._history = history
        self._book = book
        self._gossip, self._backlog = exchange
        self._judge = judge
        self._reader = reader
        self._config = config
        self._partition = self._partition_of(history.time_ms)
        self._unread: dict[int, Unread] = {}
        for epoch in range(history.registry.next_epoch, history.next_epoch):
            self._reload(epoch)

    def start(self) -> list[Effect]:
        """Open the partition of chain time before anything is written; read what a crash left."""
        writes, effects = self._read()
        self._revoke()
        return [Persist(tuple(writes), opens=self._partition), *effects]

    def _revoke(self) -> None:
        """Let the book know whose blocks count no more."""
        self._book.revoked = self._history.revoked()
        self._book.dead_keys = self._history.registry.dead_keys

    def _partition_of(self, timestamp_ms: int) -> int:
        return timestamp_ms * MILLISECOND // self._config.partition_us

    def _reload(self, epoch: int) -> None:
        """Find again what a restart interrupted: the governance of an epoch not read yet."""
        final = self._history.checkpoint(epoch)
        assert final is not None, "an epoch that was not read is never pruned"
        content = final.checkpoint.content
        unread = self._note(final, self._verdicts(epoch, content))
        missing = [item for gaps in self._backlog.missing.values() for item in gaps]
        for covered in content.ranges:
            if (epoch, covered) not in missing:
                unread.acts[covered.lane] = self._acts(covered, self._stored(covered))

    def _stored(self, covered: Range) -> list[SignedBlock]:
        found: list[SignedBlock] = []
        last, head = covered.last, covered.head
        while last >= covered.first:
            first = max(covered.first, last - BLOCKS_MAX + 1)
            part = self._book.branch(covered.lane, first, last, head)
            found = part + found
            last, head = first - 1, part[0].block.prev
        return found

    def _verdicts(self, epoch: int, content: Content) -> dict[bytes, Verdict]:
        """Judge the evidence of a final checkpoint; its age was judged when it was voted on."""
        found: dict[bytes, Verdict] = {}
        for evidence in content.evidence:
            with suppress(RemoteError):
                found[evidence] = judge(evidence, self._history.roll, range(epoch + 1))
        return found

    def _note(self, final: FinalCheckpoint, verdicts: Mapping[bytes, Verdict]) -> Unread:
        header, content = final.checkpoint.header, final.checkpoint.content
        epoch, timestamp_ms = header.epoch, header.timestamp_ms
        offenders = tuple(verdict.offender for verdict in verdicts.values())
        convicted = tuple(
            KeyUse(NodeId(item.offender), key, convicted=True)
            for item in verdicts.values()
            for key in item.keys
        )
        self._unread[epoch] = Unread(content.ranges, offenders, convicted, timestamp_ms)
        return self._unread[epoch]

    def _acts(self, covered: Range, blocks: Sequence[SignedBlock]) -> list[Act]:
        enrolment = self._book.lanes[covered.lane].enrolment
        if enrolment is None:
            return []
        found = [act_of(signed, enrolment) for signed in blocks if signed.block.body is not None]
        return [act for act in found if act is not None]

    # -- a checkpoint becomes final -----------------------------------------------------------

    def apply(self, final: FinalCheckpoint) -> tuple[list[Effect], list[bytes] | None]:
        """Make a checkpoint, certified and next in line, part of the past.

        Returns:
            The durable batch, then what was observed; the ids of its blocks, None if some are
            missing.
        """
        content, header = final.checkpoint.content, final.checkpoint.header
        verdicts = self._verdicts(header.epoch, content)
        writes: list[Write] = list(forget_rows(self._reader, header.epoch))
        unread = self._note(final, verdicts)
        block_ids: list[bytes] = []
        for covered in content.ranges:
            path, rows = self._book.finalize(covered)
            writes += rows
            writes.append(_coverage(covered, header.epoch))
            if path is None:
                writes.append(self._backlog.remember(header.epoch, covered))
            else:
                unread.acts[covered.lane] = self._acts(covered, path)
                writes += _relics(header.epoch, path)
                block_ids += [signed.id for signed in path]
        writes += self._history.advance(final, list(verdicts.values()))
        whole = unread.whole
        read, effects = self._read()
        self._revoke()
        writes += self._gossip.drop_settled(self._history.settled, self._judge)
        batch, pruned = self._batch([*writes, *read], header.timestamp_ms)
        effects = [batch, *pruned, *_convictions(verdicts, header.epoch), *effects]
        return effects, block_ids if whole else None

    def _batch(self, writes: list[Write], timestamp_ms: int) -> tuple[Persist, list[Effect]]:
        partition = self._partition_of(timestamp_ms)
        if partition <= self._partition:
            return Persist(tuple(writes)), []
        self._partition = partition
        keep = {
            Table.BLOCKS: self._config.keep_blocks,
            Table.PAYLOADS: self._config.keep_blocks,
            Table.CONTENTS: self._config.keep_contents,
            Table.COVERAGE: self._config.keep_contents,
        }
        # Nothing goes while the registry still has to read what might be in it.
        drops = tuple(
            (table, partition - kept)
            for table, kept in keep.items()
            if kept and partition > kept and self._history.complete
        )
        dropped: list[Effect] = [PartitionsDropped(partition)] if drops else []
        return Persist(tuple(writes), partition, drops), dropped

    # -- the registry -------------------------------------------------------------------------

    def filled(self, epoch: int, covered: Range, blocks: Sequence[SignedBlock]) -> list[Effect]:
        """Take the late blocks of a final range."""
        unread = self._unread.get(epoch)
        if unread is None:
            return []
        unread.acts[covered.lane] = self._acts(covered, blocks)
        return self._read_on(_relics(epoch, blocks))

    def _read_on(self, writes: list[Write]) -> list[Effect]:
        read, effects = self._read()
        self._revoke()
        writes = [*writes, *read]
        return [Persist(tuple(writes)), *effects] if writes else effects

    # -- epochs whose blocks are pruned -------------------------------------------------------

    def stale(self) -> range | None:
        """Return the epochs from the first unread one on that others may have pruned."""
        first, kept = self._history.registry.next_epoch, self._config.keep_blocks
        if not kept:
            return None
        oldest = self._partition - kept
        epochs = [
            epoch
            for epoch, unread in self._unread.items()
            if self._partition_of(unread.timestamp_ms) <= oldest
        ]
        unread = self._unread.get(first)
        if not epochs or unread is None or unread.whole:
            return None
        return range(first, max(epochs) + 1)

    def read_relics(self, last: int, blocks: Sequence[tuple[int, SignedBlock]]) -> list[Effect]:
        """Read epochs up to `last` from what f+1 validators kept of them.

        Raises:
            VerificationError: A block does not verify, or is not in a range of its epoch.
        """
        stale = self.stale()
        epochs = range(stale.start, min(last + 1, stale.stop)) if stale is not None else range(0)
        writes: list[Write] = []
        for epoch in epochs:
            unread = self._unread[epoch]
            mine = [signed for number, signed in blocks if number == epoch]
            for covered in unread.ranges:
                if covered.lane not in unread.acts:
                    part = [item for item in mine if item.lane == covered.lane]
                    writes += self._book.know(part, covered)
                    unread.acts[covered.lane] = self._acts(covered, part)
                    writes += self._backlog.forget(epoch, covered)
                    writes += _relics(epoch, part)
        return self._read_on(writes)

    def _read(self) -> tuple[list[Write], list[Effect]]:
        """Let the registry read all epochs that are whole, in order."""
        writes: list[Write] = []
        effects: list[Effect] = []
        registry = self._history.registry
        while True:
            epoch = registry.next_epoch
            unread = self._unread.get(epoch)
            if unread is None or not unread.whole:
                return writes, effects
            del self._unread[epoch]
            applied, revoked = list(registry.applications), list(registry.revoked)
            uses = [*self._first_uses(unread.ranges), *unread.convicted]
            writes += self._history.read_registry(unread.in_order(), unread.offenders, uses)
            effects += [
                ValidatorApplied(item.entry.validator_id, key, epoch)
                for key, item in registry.applications.items()
                if key not in applied
            ]
            effects += [
                NodeRevoked(node, epoch) for node in registry.revoked if node not in revoked
            ]
            effects += _set_change(registry.current, registry.following, epoch + 2)

    def _first_uses(self, ranges: Sequence[Range]) -> list[KeyUse]:
        """Return the keys of the chains that begin in an epoch, all of whose blocks were seen."""
        found = []
        for covered in ranges:
            enrolment = self._book.lanes[covered.lane].enrolment
            if covered.first == 1 and enrolment is not None:
                found.append(KeyUse(covered.node_id, enrolment.certificate.key))
        return found


def _set_change(before: ValidatorSet, after: ValidatorSet, epoch: int) -> list[Effect]:
    if before.hash == after.hash:
        return []
    added = tuple(node for node in after.ids if before.place(node) is None)
    removed = tuple(node for node in before.ids if after.place(node) is None)
    rotated = tuple(
        node for node in after.ids if node not in added and before.entry(node) != after.entry(node)
    )
    return [ValidatorSetChanged(epoch, added, removed, rotated)]


def _convictions(verdicts: Mapping[bytes, Verdict], epoch: int) -> list[Effect]:
    effects: list[Effect] = []
    for evidence, found in verdicts.items():
        offender = NodeId(found.offender)
        effects.append(NodeQuarantined(offender, epoch))
        if found.fault is not Fault.FORK:
            effects.append(SlashDue(offender, found.fault.name, epoch, evidence_id(evidence)))
    return effects


def _relics(epoch: int, blocks: Sequence[SignedBlock]) -> list[Write]:
    """Return the rows of what is kept of these blocks for ever."""
    return [
        (
            Table.RELICS,
            epoch.to_bytes(8, "big") + lane_row(signed.lane) + signed.seq.to_bytes(8, "big"),
            signed.encode(),
        )
        for signed in blocks
        if signed.seq == 1 or is_governance(signed)
    ]


def _coverage(covered: Range, epoch: int) -> Write:
    key = lane_row(covered.lane) + covered.last.to_bytes(8, "big")
    return (Table.COVERAGE, key, epoch.to_bytes(8, "big"))

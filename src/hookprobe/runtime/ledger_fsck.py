"""Checks a whole ledger against its genesis document: `hookprobe dsm fsck` (DSM spec 2.4, 2.7).

    header       continues the one before: epoch, `prev`, history root and size
    certificate  FINALIZE by a quorum of the set of its epoch; author's signature
    set          each change is certified by the set that it ends
    content      ranges, CUTs and evidence hash to the header's roots; every CUT is signed
    blocks       those of each range are here, lead to its head, and their tree is the header's
    state        what the node goes on from follows from the headers
    the rest     see `fsck_blocks`

Contents and blocks may be absent where their time is over: then all before them are absent too.
Reads only, a bounded number of rows at a time; the node may run.
"""

from dataclasses import dataclass

from hookprobe.crypto.merkle import CompactRange
from hookprobe.dsm.backlog import MISSING_PREFIX
from hookprobe.dsm.checkpoint import (
    NO_CHECKPOINT,
    Content,
    SealedHeader,
    decode_content,
    decode_sealed,
)
from hookprobe.dsm.court import Court
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.history import STATE_KEY
from hookprobe.dsm.microblock import lane_row
from hookprobe.dsm.roll import Roll, decode_change
from hookprobe.dsm.store import StoreReader, Table, prefix_end
from hookprobe.errors import RemoteError, UnavailableError
from hookprobe.runtime.fsck_blocks import Audit, BlockAuditor, rows_of
from hookprobe.runtime.ledger_query import LedgerQuery
from hookprobe.wire.instant import DAY, MILLISECOND
from hookprobe.wire.reader import Reader, Writer


@dataclass(frozen=True, slots=True)
class Retention:
    """Days of chain time that are kept; 0: for ever. `partition_us` is how long a day is."""

    blocks: int = 30
    contents: int = 365
    partition_us: int = DAY


def check_ledger(
    genesis: Genesis, court: Court, store: StoreReader, retention: Retention = Retention()
) -> Audit:
    """Check everything in a ledger and return what is wrong.

    Args:
        genesis: The chain's genesis document; whose chain it is, is for the caller to know.
        court: Its court.
        store: The ledger.
        retention: What may be gone.
    """
    audit = Audit()
    blocks = BlockAuditor(court, store, audit)
    blocks.check()
    history = _HistoryAuditor(genesis, court, store, audit)
    history.check(retention)
    blocks.check_receipts(history.roll)
    return audit


class _HistoryAuditor:
    """Walks the headers from the first to the last."""

    def __init__(self, genesis: Genesis, court: Court, store: StoreReader, audit: Audit) -> None:
        self.roll = Roll(court)
        self._court = court
        self._store = store
        self._audit = audit
        self._query = LedgerQuery(genesis, court, store)
        self._tree = CompactRange()
        self._last, self._last_ms = NO_CHECKPOINT, 0
        self._contents_seen = self._blocks_seen = False
        rows = store.scan(Table.META, MISSING_PREFIX, prefix_end(MISSING_PREFIX), 1_000_000)
        self._wanted = {int.from_bytes(value[:8], "big") for _, value in rows}

    def check(self, retention: Retention) -> None:
        """Check all headers, and the state that a node starts from."""
        for expected, (key, value) in enumerate(rows_of(self._store, Table.CHECKPOINTS)):
            epoch = int.from_bytes(key, "big")
            where = f"checkpoint {epoch}"
            if epoch != expected:
                self._audit.add(f"checkpoint {expected}", "is not here")
                return
            try:
                sealed = decode_sealed(value)
            except RemoteError as error:
                self._audit.add(where, error.message)
                return
            self._check_header(where, epoch, sealed)
            self._check_parts(where, sealed, retention)
        self._follow_changes_alone()
        self._check_state()

    def _check_header(self, where: str, epoch: int, sealed: SealedHeader) -> None:
        self._audit.count("checkpoints")
        header = sealed.header
        if (header.epoch, header.prev) != (epoch, self._last):
            self._audit.add(where, "does not continue the one before")
        if (header.history_size, header.history_root) != (self._tree.size, self._tree.root()):
            self._audit.add(where, "names another history")
        try:
            self.roll.check(sealed.raw, sealed.certificate)
        except RemoteError as error:
            self._audit.add(where, error.message)
        self._check_author(where, sealed)
        if header.next_validators_hash != header.validators_hash:
            self._follow(where, epoch.to_bytes(8, "big"))
        self._tree.append(sealed.hash)
        self._last, self._last_ms = sealed.hash, header.timestamp_ms

    def _check_author(self, where: str, sealed: SealedHeader) -> None:
        validators = self.roll.at(sealed.header.epoch)
        place = validators.place(sealed.header.validator_id)
        key = validators.members[place].key if place is not None else bytes(32)
        signed = self._court.signatures.verify(key, sealed.hash, sealed.author_signature)
        if place is None or not signed:
            self._audit.add(where, "is not signed by its author")

    def _follow(self, where: str, key: bytes) -> None:
        row = self._store.get(Table.CHANGES, key)
        try:
            if row is None or not self.roll.accept(decode_change(row)):
                self._audit.add(where, "the members of the next validator set are not here")
        except RemoteError as error:
            self._audit.add(where, f"change of the validator set: {error.message}")

    def _follow_changes_alone(self) -> None:
        """An edge holds changes without headers."""
        for key, value in rows_of(self._store, Table.CHANGES):
            if int.from_bytes(key, "big") >= self._tree.size:
                try:
                    self.roll.accept(decode_change(value))
                except RemoteError as error:
                    self._audit.add(f"change {int.from_bytes(key, 'big')}", error.message)

    # -- content and blocks -------------------------------------------------------------------

    def _check_parts(self, where: str, sealed: SealedHeader, retention: Retention) -> None:
        epoch = sealed.header.epoch
        row = self._store.get(Table.CONTENTS, epoch.to_bytes(8, "big"))
        if row is None:
            if self._contents_seen or not self._over(sealed, retention.contents, retention):
                self._audit.add(where, "its content is not here")
            return
        self._contents_seen = True
        try:
            content = decode_content(row)
            sealed.joined(content, b"").checkpoint.check_content()
        except RemoteError as error:
            self._audit.add(where, error.message)
            return
        self._check_cuts(where, content)
        if epoch not in self._wanted:
            self._check_blocks(where, sealed, content, retention)

    def _over(self, sealed: SealedHeader, days: int, retention: Retention) -> bool:
        """Whether all of an epoch may be gone: it is older than the oldest day that is kept."""
        unit = retention.partition_us
        partition = sealed.header.timestamp_ms * MILLISECOND // unit
        return bool(days) and partition < self._time_us() // unit - days + 1

    def _time_us(self) -> int:
        state = self._store.get(Table.META, STATE_KEY)
        if state is None:
            return 0
        reader = Reader(state, "stored history")
        reader.take(8 + 32)
        return reader.u64() * MILLISECOND

    def _check_cuts(self, where: str, content: Content) -> None:
        for signed in content.cuts:
            validators = self.roll.at(signed.cut.epoch)
            place = validators.place(signed.cut.validator_id)
            key = validators.members[place].key if place is not None else bytes(32)
            if place is None or not self._court.signatures.verify(key, signed.id, signed.signature):
                self._audit.add(where, f"CUT of {signed.cut.validator_id} is not signed by it")

    def _check_blocks(
        self, where: str, sealed: SealedHeader, content: Content, retention: Retention
    ) -> None:
        if not content.ranges:
            return
        try:
            self._query.receipt(sealed.header.epoch, *content.ranges[0].lane)
        except UnavailableError:
            if self._blocks_seen or not self._over(sealed, retention.blocks, retention):
                self._audit.add(where, "blocks of it are not here, or are others")
            return
        except RemoteError as error:
            self._audit.add(where, error.message)
            return
        self._blocks_seen = True
        for item in content.ranges:
            head = lane_row(item.lane) + item.last.to_bytes(8, "big") + item.head
            if self._store.get(Table.BLOCKS, head) is None:
                self._audit.add(where, f"the head of {item.node_id}/{item.inc} is not here")

    def _check_state(self) -> None:
        stored = self._store.get(Table.META, STATE_KEY)
        state = Writer().u64(self._tree.size).put(self._last).u64(self._last_ms)
        wanted = state.put(self._tree.encode()).finish() if self._tree.size else None
        if stored != wanted:
            self._audit.add("state", "the node would go on from another history than its headers")

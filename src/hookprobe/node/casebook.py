"""Which incidents are already blocks of this node's chain: the memory that prevents telling twice.

An event and its mark go into one durable batch. Events may wait in the ledger until it knows its
own head, so marks are matched with blocks when the ledger says `BlockAppended`, in order.

Rows of `Table.NODE`: "incident/" window_start u64 key[32] -> count u64, final u8. The oldest are
forgotten beyond a limit; their windows are long past.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.detection.incident import Incident
from hookprobe.dsm.effects import BlockAppended
from hookprobe.dsm.microblock import SignedBlock
from hookprobe.dsm.store import Persist, StoreReader, Table, Write
from hookprobe.node.host import Effect
from hookprobe.node.observations import IncidentRecorded
from hookprobe.wire.reader import Reader, Writer

EVENT_TYPE = "ids_alert"
MARKS_MAX = 20_000
_PREFIX = b"incident/"


@dataclass(frozen=True, slots=True)
class Case:
    """What is told about an incident: as it opened, or as it ended."""

    incident: Incident
    final: bool


class Casebook:
    """Remembers what was told.

    Args:
        reader: The store as it was left.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._told: OrderedDict[bytes, tuple[int, bool]] = OrderedDict()
        self._waiting: deque[Case | None] = deque()
        rows = reader.scan(Table.NODE, _PREFIX, _PREFIX + b"\xff" * 41, 2 * MARKS_MAX)
        for key, value in rows:
            fields = Reader(value, "stored incident mark")
            self._told[key] = (fields.u64(), bool(fields.u8()))

    def keys(self) -> list[str]:
        """Return the keys of all incidents told, for the detection room."""
        return [key[len(_PREFIX) + 8 :].hex() for key in self._told]

    @property
    def waiting(self) -> int:
        """Events handed to the ledger that are not blocks yet."""
        return len(self._waiting)

    def is_news(self, case: Case) -> bool:
        """Whether telling this says more than what was told."""
        told = self._told.get(_row(case.incident))
        if told is None:
            return True
        count, final = told
        return case.final and (not final or case.incident.count > count)

    def expect(self, case: Case) -> None:
        """Note that an event for this case was handed to the ledger."""
        self._told[_row(case.incident)] = (case.incident.count, case.final)
        self._waiting.append(case)

    def expect_foreign(self) -> None:
        """Note that an event of another program, no incident of ours, was handed to the ledger."""
        self._waiting.append(None)

    def mark(self, effects: Sequence[Effect]) -> tuple[list[Effect], list[IncidentRecorded]]:
        """Put the marks of the blocks just written into their batch.

        Returns:
            The effects with marks added, and what was recorded.
        """
        marked = list(effects)
        recorded: list[IncidentRecorded] = []
        batch_at = -1
        for at, effect in enumerate(effects):
            if isinstance(effect, Persist):
                batch_at = at
            elif isinstance(effect, BlockAppended) and effect.signed.block.event_type == EVENT_TYPE:
                case = self._waiting.popleft()
                if case is None:
                    continue
                batch = marked[batch_at]
                assert isinstance(batch, Persist), "a block is announced behind its batch"
                marked[batch_at] = Persist((*batch.writes, self._write(case), *self._forget()))
                recorded.append(_recorded(case, effect.signed))
        return marked, recorded

    def _write(self, case: Case) -> Write:
        value = Writer().u64(case.incident.count).u8(int(case.final)).finish()
        return (Table.NODE, _row(case.incident), value)

    def _forget(self) -> list[Write]:
        forgotten: list[Write] = []
        while len(self._told) > MARKS_MAX:
            row, _ = self._told.popitem(last=False)
            forgotten.append((Table.NODE, row, None))
        return forgotten


def _row(incident: Incident) -> bytes:
    return _PREFIX + incident.window_start.to_bytes(8, "big") + bytes.fromhex(incident.key)


def _recorded(case: Case, signed: SignedBlock) -> IncidentRecorded:
    incident = case.incident
    return IncidentRecorded(
        key=incident.key,
        title=incident.title,
        severity=incident.severity.label,
        techniques=incident.techniques,
        count=incident.count,
        block_id=signed.id,
        seq=signed.seq,
        final=case.final,
    )

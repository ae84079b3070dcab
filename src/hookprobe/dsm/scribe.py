"""Writing one's own chain without ever using a number twice, whatever was lost (DSM spec 2.2).

At start a node does not know whether its record of its chain is the latest: a disk may have been
restored. It asks f+1 validators for its own head. If one of theirs is higher or other than its own
record, or there is no record, it begins a new incarnation that names the last head known. Without
answers within the recovery wait it does the same: that is always safe. Events that come before are
held, up to a limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hookprobe.dsm.chain import Author, Chain, Event
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.enrolment import Head
from hookprobe.dsm.store import StoreReader
from hookprobe.errors import UnavailableError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

HELD_EVENTS_MAX = 4096


@dataclass(frozen=True, slots=True)
class ChainHost:
    """What the host lends: the store as it was left, and a source of salts."""

    reader: StoreReader
    random_bytes: Callable[[int], bytes]


class Scribe:
    """Writes the chain of one node.

    Args:
        author: Who writes.
        host: Store and randomness.
        patience_us: How long to wait for answers about the own head.
    """

    def __init__(self, author: Author, host: ChainHost, patience_us: int) -> None:
        self.chain = Chain(author, host.reader, host.random_bytes)
        self.writing = False
        self.begin_at: Instant | None = None
        self._patience_us = patience_us
        self._answers: dict[NodeId, tuple[Head, ...]] = {}
        self._held: list[Event] = []

    @property
    def waiting(self) -> bool:
        """Whether the own head is wanted and not known yet."""
        return self.begin_at is not None and not self.writing

    def start(self, now: Instant) -> None:
        """Want to write: answers are awaited from now on."""
        if not self.writing and self.begin_at is None:
            self.begin_at = Instant(now + self._patience_us)

    def append(self, events: Sequence[Event], now: Instant) -> list[Effect]:
        """Write events down, or hold them while the own head is not known.

        Raises:
            UnavailableError: Too many events are waiting.
            LimitExceededError: An event is too large.
        """
        if self.writing:
            return self.chain.append(events, now)
        if len(self._held) + len(events) > HELD_EVENTS_MAX:
            raise UnavailableError("ledger: the last head of this node is not known yet")
        self._held += events
        self.start(now)
        return []

    def receive_heads(
        self, peer: NodeId, heads: tuple[Head, ...], faults: int, now: Instant
    ) -> list[Effect]:
        """Take what a validator knows of this node; begins when f+1 have answered."""
        if not self.waiting:
            return []
        self._answers[peer] = heads
        return self.begin(faults, now) if len(self._answers) > faults else []

    def begin(self, faults: int, now: Instant) -> list[Effect]:
        """Continue our chain if f+1 validators know no more of it than we do; else start anew."""
        own = self.chain.open_head
        known = [head for heads in self._answers.values() for head in heads]
        enough = len(self._answers) > faults
        self.writing = True
        self.begin_at = None
        effects: list[Effect] = []
        if own is None or not enough or any(self._surprises(head) for head in known):
            effects += self.chain.begin(known, now)
        events, self._held = self._held, []
        if events:
            effects += self.chain.append(events, now)
        return effects

    def _surprises(self, head: Head) -> bool:
        """Tell whether a reported head is beyond or beside our own record."""
        own = self.chain.heads.get(head.inc)
        if own is None or head.seq > own.seq:
            return True
        return head.seq == own.seq and head.block_id != own.block_id

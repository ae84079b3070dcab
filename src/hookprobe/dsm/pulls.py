"""Fetching ranges of blocks: one outstanding request per range, other sources on silence.

An ascending pull asks for what follows the held head; its blocks are delivered as they come. A
pull with a named head starts at that head and goes down, so that every answer is chained to a
known hash before it is kept; its blocks are delivered when the range is complete.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.effects import Send
from hookprobe.dsm.messages import BlockEntry, GetPack, GetRange, PackEntry
from hookprobe.dsm.microblock import NO_PARENT, LaneKey
from hookprobe.errors import VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

REQUEST_MAX = 2**32 - 1
CLOSED_MAX = 256
NEVER_ASKED = Instant(0)


Entry = TypeVar("Entry", BlockEntry, PackEntry)


Sent = TypeVar("Sent", covariant=True)


class Answer(Protocol[Sent]):
    """What answers a request: `Blocks` or `Pack`."""

    @property
    def request(self) -> int: ...

    @property
    def entries(self) -> tuple[Sent, ...]: ...


@dataclass(slots=True)
class Pull(Generic[Entry]):
    """One range on its way."""

    lane: LaneKey
    first: int
    last: int
    head: bytes
    sources: list[NodeId]
    request: int = 0
    deadline: Instant = NEVER_ASKED
    got: list[Entry] = field(default_factory=list)
    urgent: bool = False
    overtaken: tuple[int, NodeId] | None = None  # asked before, and may still answer first

    @property
    def named(self) -> bool:
        """Whether the range is bound to a head."""
        return self.head != NO_PARENT or bool(self.got)

    def widen(self, other: Self) -> None:
        """Take over what another pull of the same head knows: sources, and a later end."""
        self.sources += [node for node in other.sources if node not in self.sources]
        if not self.named:
            self.last = max(self.last, other.last)

    def message(self) -> GetRange | GetPack:
        return GetRange(self.request, self.lane, self.first, self.last, self.head)


class PackPull(Pull[PackEntry]):
    """A final range on its way: asked for and taken as bytes."""

    def message(self) -> GetRange | GetPack:
        return GetPack(self.request, self.lane, self.first, self.last, self.head)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Entry]):
    """Blocks that arrived, ascending.

    Args:
        entries: The blocks.
        bound: Whether they are chained to the head asked for.
        rest: Who was not asked yet, for when they prove false.
    """

    entries: tuple[Entry, ...]
    bound: bool
    rest: tuple[NodeId, ...]


class Puller(Generic[Entry]):
    """All outstanding range requests of one validator."""

    def __init__(self, config: LedgerConfig) -> None:
        self._config = config
        self._pulls: dict[tuple[LaneKey, bytes], Pull[Entry]] = {}
        self._by_request: dict[int, tuple[LaneKey, bytes]] = {}
        self._counter = 0
        self._asked: Counter[NodeId] = Counter()
        self._closed: deque[tuple[int, NodeId]] = deque(maxlen=CLOSED_MAX)

    def __len__(self) -> int:
        return len(self._pulls)

    def asked_of(self, node: NodeId) -> int:
        """Return how many requests a peer has yet to answer."""
        return self._asked[node]

    def want(self, pull: Pull[Entry], now: Instant, *, urgent: bool = False) -> list[Send]:
        """Begin to fetch a range, unless that is under way or too much is.

        What is urgent has as many requests again for itself, and does not wait for a peer that was
        asked when it was not.

        `pull.sources` are tried in order, each once. What is under way already gets them as further
        sources: who announces blocks and stays silent must not keep us from asking others.
        """
        key = (pull.lane, pull.head)
        if key in self._pulls:
            self._pulls[key].widen(pull)
            return self._overtake(key, now) if urgent else []
        full = len(self._pulls) >= self._config.requests_max * (2 if urgent else 1)
        if full or not pull.sources or pull.first > pull.last:
            return []
        pull.urgent = urgent
        self._pulls[key] = pull
        return self._ask(key, now)

    def _overtake(self, key: tuple[LaneKey, bytes], now: Instant) -> list[Send]:
        """Ask the next source at once, the present one after all others; once for each pull."""
        pull = self._pulls[key]
        if pull.urgent or len(pull.sources) < 2:
            return []
        pull.urgent = True
        pull.overtaken = (pull.request, pull.sources[0])
        pull.sources.append(pull.sources.pop(0))
        return self._ask(key, now)

    def _recall(self, pull: Pull[Entry], peer: NodeId) -> None:
        """Go on with the peer that was overtaken: it has answered first after all."""
        assert pull.overtaken is not None
        self._close_one(pull.request, pull.sources[0])
        pull.request, pull.overtaken = pull.overtaken[0], None
        pull.sources.remove(peer)
        pull.sources.insert(0, peer)

    def _ask(self, key: tuple[LaneKey, bytes], now: Instant) -> list[Send]:
        pull = self._pulls[key]
        self._counter = self._counter % REQUEST_MAX + 1
        pull.request = self._counter
        pull.deadline = Instant(now + self._config.request_timeout_us)
        self._by_request[pull.request] = key
        self._asked[pull.sources[0]] += 1
        return [Send(pull.sources[0], pull.message())]

    def _close(self, pull: Pull[Entry]) -> None:
        self._close_one(pull.request, pull.sources[0])
        self._close_overtaken(pull)

    def _close_overtaken(self, pull: Pull[Entry]) -> None:
        if pull.overtaken is not None:
            self._close_one(*pull.overtaken)
            pull.overtaken = None

    def _close_one(self, request: int, source: NodeId) -> None:
        del self._by_request[request]
        self._asked[source] -= 1
        if not self._asked[source]:
            del self._asked[source]
        self._closed.append((request, source))

    def _next_source(self, key: tuple[LaneKey, bytes], now: Instant) -> list[Send]:
        pull = self._pulls[key]
        self._close(pull)
        del pull.sources[0]
        if pull.sources:
            return self._ask(key, now)
        del self._pulls[key]
        return []

    def receive_blocks(
        self, peer: NodeId, message: Answer[Entry], now: Instant
    ) -> tuple[Delivery[Entry] | None, list[Send]]:
        """Take an answer.

        Returns:
            What can be delivered, and further requests.

        Raises:
            VerificationError: Nobody asked this peer for it, or it is not what was asked for; in
                the second case the time-out is now, and so the next source is asked.
        """
        if (message.request, peer) in self._closed:
            return None, []  # late or repeated: of no use, but it was asked for
        key = self._by_request.get(message.request)
        if key is None or peer != self._asked_in(message.request, self._pulls[key]):
            raise VerificationError("blocks that were not asked for")
        pull = self._pulls[key]
        overtaken = message.request != pull.request
        try:
            _check_answer(pull, message.entries)
        except VerificationError:
            if overtaken:
                self._close_overtaken(pull)
            else:
                pull.deadline = now
            raise
        if overtaken and message.entries:
            self._recall(pull, peer)
        elif overtaken:
            self._close_overtaken(pull)
            return None, []
        if not message.entries:
            return None, self._next_source(key, now)
        if pull.named:
            return self._take_named(key, message.entries, now)
        pull.first = message.entries[-1].signed.seq + 1
        rest = tuple(pull.sources[1:])
        return Delivery(message.entries, bound=False, rest=rest), self._continue(key, now)

    def _asked_in(self, request: int, pull: Pull[Entry]) -> NodeId:
        """Return whom a request of a pull was sent to."""
        if pull.overtaken is not None and pull.overtaken[0] == request:
            return pull.overtaken[1]
        return pull.sources[0]

    def _take_named(
        self, key: tuple[LaneKey, bytes], entries: tuple[Entry, ...], now: Instant
    ) -> tuple[Delivery[Entry] | None, list[Send]]:
        pull = self._pulls[key]
        pull.got[:0] = entries
        pull.last = entries[0].signed.seq - 1
        pull.head = entries[0].signed.prev
        sends = self._continue(key, now)
        done = pull.last < pull.first
        if not done:
            return None, sends
        return Delivery(tuple(pull.got), bound=True, rest=tuple(pull.sources[1:])), sends

    def _continue(self, key: tuple[LaneKey, bytes], now: Instant) -> list[Send]:
        pull = self._pulls[key]
        self._close(pull)
        if pull.first <= pull.last:
            return self._ask(key, now)
        del self._pulls[key]
        return []

    def next_timeout(self) -> Instant | None:
        """Return when the first request is overdue."""
        if not self._pulls:
            return None
        return min((pull.deadline for pull in self._pulls.values()), default=None)

    def handle_timeout(self, now: Instant) -> tuple[list[NodeId], list[Send]]:
        """Return the peers that did not answer, and the requests to other sources."""
        late: list[NodeId] = []
        sends: list[Send] = []
        for key in [key for key, pull in self._pulls.items() if pull.deadline <= now]:
            late.append(self._pulls[key].sources[0])
            sends += self._next_source(key, now)
        return late, sends

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[Send]:
        """Ask others for what was asked of a peer that is gone."""
        sends: list[Send] = []
        for key in [key for key, pull in self._pulls.items() if pull.sources[0] == peer]:
            sends += self._next_source(key, now)
        return sends


def _check_answer(pull: Pull[Entry], entries: Sequence[Entry]) -> None:
    """Check lane, numbers and links of an answer; none at all is one, too."""
    if not entries:
        return
    blocks = [entry.signed for entry in entries]
    if any(signed.lane != pull.lane for signed in blocks):
        raise VerificationError("answer with blocks of another chain")
    numbers = [signed.seq for signed in blocks]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise VerificationError("answer with a gap")
    if pull.named:
        if blocks[-1].id != pull.head or numbers[0] < pull.first:
            raise VerificationError("answer of another branch or range")
        links = pairwise(blocks)
        if any(child.prev != parent.id for parent, child in links):
            raise VerificationError("answer with a broken chain")
    elif numbers[0] != pull.first or numbers[-1] > pull.last:
        raise VerificationError("answer of another range")

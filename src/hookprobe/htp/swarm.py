"""SWARM mode (HTP spec 3.7): one set of messages over several sessions at once.

    off len field
     0   8  set            random; names the set
     8   4  index          of this message, from 0
    12   4  count          messages of the set
    16  ..  the message

Each session carries what its own congestion control lets it carry: whoever has nothing left on its
way gets the next messages, so a slow path delays its own share only. What a session had not
acknowledged when it ended goes to the others, so a message may arrive twice; the collecting end
takes each once, whichever session brought it.
"""

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from hookprobe.errors import LimitExceededError, LocalError, MalformedError
from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import Effect, SendRefused
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.packet import Mode
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

SET_BYTES = 8
MESSAGES_MAX = 1 << 16
LOW_BYTES = 32 << 10  # a session with less than this on its way gets more
SETS_MAX = 16
COLLECTED_MAX_BYTES = 64 << 20
_HEAD = struct.Struct(">8sII")

Share: TypeAlias = "tuple[int, bytes]"


class Sessions(Protocol):
    """What a swarm needs of an endpoint."""

    def sessions(self, now: Instant) -> list[SessionMeter]: ...

    def send(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant, mode: Mode = Mode.NORMAL
    ) -> list[Effect]: ...


class SwarmSender:
    """Sends one set.

    Args:
        name: Eight random bytes.
        channel: The channel of every session it goes by.
        messages: What to send.
        peers: Over whose sessions, as far as they live.

    Raises:
        LocalError: Nothing to send or too much, or nobody to send by.
    """

    def __init__(
        self, name: bytes, channel: Channel, messages: Sequence[bytes], peers: Sequence[NodeId]
    ) -> None:
        if not 0 < len(messages) <= MESSAGES_MAX or not peers or len(name) != SET_BYTES:
            raise LocalError("swarm: wants 1 to 65536 messages, peers, and a name of 8 bytes")
        count = len(messages)
        self._channel = channel
        self._waiting: deque[Share] = deque(
            (index, _HEAD.pack(name, index, count) + data) for index, data in enumerate(messages)
        )
        self._given: dict[NodeId, list[Share]] = {peer: [] for peer in peers}

    @property
    def is_done(self) -> bool:
        """Whether every message was acknowledged by whoever carried it."""
        return not self._waiting and not any(self._given.values())

    def drive(self, sessions: Sessions, now: Instant) -> list[Effect]:
        """Hand out what there is room for; to be called often until `is_done`."""
        meters: Mapping[NodeId, SessionMeter] = {one.peer: one for one in sessions.sessions(now)}
        effects: list[Effect] = []
        for peer, given in self._given.items():
            meter = meters.get(peer)
            if meter is None:
                self._waiting.extendleft(reversed(given))
                given.clear()
            elif not meter.held_bytes:
                given.clear()  # all of it was acknowledged
            if meter is not None:
                effects += self._give(sessions, meter, given, now)
        return effects

    def _give(
        self, sessions: Sessions, meter: SessionMeter, given: list[Share], now: Instant
    ) -> list[Effect]:
        effects: list[Effect] = []
        held = meter.held_bytes
        while self._waiting and held < LOW_BYTES:
            share = self._waiting[0]
            sent = sessions.send(meter.peer, self._channel, share[1], now, Mode.SWARM)
            if any(isinstance(one, SendRefused) for one in sent):
                break
            given.append(self._waiting.popleft())
            held += len(share[1])
            effects += sent
        return effects


class SwarmCollector:
    """Puts sets together; bounded, because whoever sends may never finish.

    Args:
        deliver: Takes a set, its messages in order, when it is complete.
    """

    def __init__(self, deliver: Callable[[bytes, list[bytes]], None]) -> None:
        self._deliver = deliver
        self._sets: dict[bytes, tuple[int, dict[int, bytes]]] = {}
        self._done: dict[bytes, None] = {}
        self._held = 0

    def receive(self, data: bytes) -> None:
        """Take one message of a set; one that is here already changes nothing.

        Raises:
            MalformedError: Not a message of a set, or another count than the set's.
            LimitExceededError: More is unfinished than may be held.
        """
        if len(data) < _HEAD.size:
            raise MalformedError("swarm: shorter than its header")
        name, index, count = _HEAD.unpack_from(data)
        if not index < count <= MESSAGES_MAX:
            raise MalformedError("swarm: an index beyond the set")
        if name in self._done:
            return
        known = self._sets.get(name)
        if known is None:
            if len(self._sets) >= SETS_MAX:
                raise LimitExceededError("swarm: too many unfinished sets")
            known = self._sets[name] = (count, {})
        if known[0] != count:
            raise MalformedError("swarm: two counts for one set")
        self._put(name, index, data[_HEAD.size :])

    def _put(self, name: bytes, index: int, message: bytes) -> None:
        count, found = self._sets[name]
        if index in found:
            return
        if self._held + len(message) > COLLECTED_MAX_BYTES:
            raise LimitExceededError("swarm: too many bytes of unfinished sets")
        found[index] = message
        self._held += len(message)
        if len(found) == count:
            self.discard(name)
            self._done[name] = None
            if len(self._done) > SETS_MAX:
                del self._done[next(iter(self._done))]
            self._deliver(name, [found[place] for place in range(count)])

    def discard(self, name: bytes) -> None:
        """Give up a set."""
        _, found = self._sets.pop(name, (0, {}))
        self._held -= sum(map(len, found.values()))

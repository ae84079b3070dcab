"""What trust permits (HTP spec 3.7): a score from 0 to 1, in 1/65535, beside every session.

    below 0.3     CLOSE with REATTEST; a new ATTEST is refused until the score is better
    below 0.6     heartbeats and the channels of attestation
    from 0.6 on   everything

The answering end asks its node for the score, tells it in ACCEPT and in every ACK, and takes no
message that it does not permit; the dialling end obeys by not sending any. Nothing that a dialling
end says about itself enters the score, and no score opens a packet, passes a signature or stands in
for a fingerprint: those checks come first and know nothing of it. What the answering end sends is
not restricted, for it is not the one in doubt.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeVar

from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import (
    DatagramReceived,
    Effect,
    LevelChanged,
    MessageReceived,
    MessageWithheld,
    TrustReported,
)
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

FULL_TRUST = 0xFFFF
ATTESTING_FROM = FULL_TRUST * 3 // 10 + 1
FULL_FROM = FULL_TRUST * 6 // 10
ATTESTATION = frozenset({Channel.TER})


class Level(IntEnum):
    """What a dialling end may do."""

    CLOSED = 0
    ATTESTING = 1
    FULL = 2


def level_of(trust: int) -> Level:
    """Return the level of a score in 1/65535."""
    if trust >= FULL_FROM:
        return Level.FULL
    return Level.ATTESTING if trust >= ATTESTING_FROM else Level.CLOSED


def permits(level: Level, channel: Channel) -> bool:
    """Whether a dialling end of this level may send on a channel."""
    return level is Level.FULL or (level is Level.ATTESTING and channel in ATTESTATION)


class TrustSource(Protocol):
    """What a node knows about those who dial it."""

    def trust(self, node: NodeId, now: Instant) -> int:
        """Return the trust in a node, 0 to 65535."""
        ...


class FullTrust:
    """The source of nodes to whom nobody reports about others."""

    def trust(self, node: NodeId, now: Instant) -> int:
        del node, now
        return FULL_TRUST


_Received = TypeVar("_Received", MessageReceived, DatagramReceived)


@dataclass(slots=True)
class Standing:
    """The score of one session.

    Attributes:
        peer: The other end.
        source: Where the score comes from; None: we dialled, and are told.
        trust: The score; -1 before there is one.
        level: What it permits.
    """

    peer: NodeId
    source: TrustSource | None
    trust: int = -1
    level: Level = Level.CLOSED

    def look(self, now: Instant) -> list[Effect]:
        """Ask the source; a dialling end has none."""
        return [] if self.source is None else self._take(self.source.trust(self.peer, now))

    def hear(self, trust: int) -> list[Effect]:
        """Take what the answering end says."""
        if self.source is not None or trust == self.trust:
            return []
        return [TrustReported(self.peer, trust), *self._take(trust)]

    def _take(self, trust: int) -> list[Effect]:
        self.trust = trust
        level = level_of(trust)
        if level is self.level:
            return []
        self.level = level
        return [LevelChanged(self.peer, level.value)]

    def may_send(self, channel: Channel) -> bool:
        """Whether we may send: the answering end always."""
        return self.source is not None or permits(self.level, channel)

    def deliver(
        self,
        found: Iterable[tuple[Channel, bytes]],
        received: Callable[[NodeId, Channel, bytes], _Received],
    ) -> list[Effect]:
        """Return what came, as far as the peer may have sent it."""
        return [
            received(self.peer, channel, data)
            if self.may_receive(channel)
            else MessageWithheld(self.peer, channel)
            for channel, data in found
        ]

    def may_receive(self, channel: Channel) -> bool:
        """Whether the peer may have sent: the answering end always."""
        return self.source is None or permits(self.level, channel)

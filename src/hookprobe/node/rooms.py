"""The rooms of a node, as its links see them: machines that speak over channels of sessions.

A room says what it wants as effects. `Outgoing`, `HangUp`, `Regrade` and `Redial` are for the
links, which turn them into datagrams; everything else goes on to the host in its order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from hookprobe.dsm import effects as ledger_effects
from hookprobe.dsm.effects import Disconnect, Send
from hookprobe.dsm.frames import encode
from hookprobe.dsm.messages import ChannelClass, channel_class
from hookprobe.htp.channels import Channel
from hookprobe.node.host import Effect
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Send a message to a peer."""

    peer: NodeId
    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """End a peer's session; a dialled one is not dialled again before `until`."""

    peer: NodeId
    until: Instant


@dataclass(frozen=True, slots=True)
class Regrade:
    """What is known of a node changed: look at the trust in it anew."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class Redial:
    """Dial whom we dial and do not reach, now: what kept them from us is over."""


RoomEffect: TypeAlias = Effect | Outgoing | HangUp | Regrade | Redial


class Room(Protocol):
    """What every room can do."""

    channels: tuple[Channel, ...]

    def start(self, now: Instant) -> list[RoomEffect]: ...

    def peer_connected(self, peer: NodeId, now: Instant) -> list[RoomEffect]: ...

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[RoomEffect]: ...

    def receive(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[RoomEffect]: ...

    def next_timeout(self) -> Instant | None: ...

    def handle_timeout(self, now: Instant) -> list[RoomEffect]: ...


class Ledger(Protocol):
    """What edge and validator ledgers have in common."""

    def start(self, now: Instant) -> list[ledger_effects.Effect]: ...

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[ledger_effects.Effect]: ...

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[ledger_effects.Effect]: ...

    def receive_frame(
        self, node_id: NodeId, frame: bytes, now: Instant
    ) -> list[ledger_effects.Effect]: ...

    def next_timeout(self) -> Instant | None: ...

    def handle_timeout(self, now: Instant) -> list[ledger_effects.Effect]: ...


class Gate(Protocol):
    """Decides whose reports count."""

    def admit(self, peer: NodeId, now: Instant) -> tuple[bool, list[Effect]]:
        """Return whether a peer's reports are taken now, and what there is to say about it."""


_CHANNELS = {
    ChannelClass.CONSENSUS: Channel.CONSENSUS,
    ChannelClass.SYNC: Channel.GOSSIP,
    ChannelClass.DATA: Channel.MICROBLOCK,
}


class LedgerRoom:
    """A ledger as a room: its frames ride in three channels.

    Args:
        ledger: The ledger.
        gate: Asked before reports are taken from a peer; None takes all.
    """

    channels: tuple[Channel, ...] = tuple(_CHANNELS.values())

    def __init__(self, ledger: Ledger, gate: Gate | None = None) -> None:
        self._ledger = ledger
        self._gate = gate

    def start(self, now: Instant) -> list[RoomEffect]:
        return carried(self._ledger.start(now))

    def peer_connected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        return carried(self._ledger.peer_connected(peer, now))

    def peer_disconnected(self, peer: NodeId, now: Instant) -> list[RoomEffect]:
        return carried(self._ledger.peer_disconnected(peer, now))

    def receive(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[RoomEffect]:
        """Take a frame; reports (new blocks) only from whom the gate admits.

        A report that is not taken is not lost: its edge keeps it and sends it again.
        """
        said: list[RoomEffect] = []
        if channel is Channel.MICROBLOCK and self._gate is not None:
            admitted, seen = self._gate.admit(peer, now)
            said += seen
            if not admitted:
                return said
        return said + carried(self._ledger.receive_frame(peer, data, now))

    def next_timeout(self) -> Instant | None:
        return self._ledger.next_timeout()

    def handle_timeout(self, now: Instant) -> list[RoomEffect]:
        return carried(self._ledger.handle_timeout(now))


def carried(effects: Sequence[ledger_effects.Effect]) -> list[RoomEffect]:
    """Return a ledger's effects as those of a room."""
    found: list[RoomEffect] = []
    for effect in effects:
        match effect:
            case Send(peer, message):
                found.append(Outgoing(peer, _CHANNELS[channel_class(message)], encode(message)))
            case Disconnect(peer, until):
                found.append(HangUp(peer, until))
            case _:
                found.append(effect)
    return found

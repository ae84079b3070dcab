"""The rooms of a node over the transport: their messages ride in channels of HTP sessions.

A room says `Outgoing(peer, channel, data)` and is told which peers are connected; the endpoint
seals, delivers and says which sessions live. Neither knows the other. When a session dies, messages
under way are lost, and each room's own repair begins at the next connection.
A peer without full trust (`htp.trust`) is in reach of the rooms of attestation only.
"""

from collections.abc import Mapping, Sequence

from hookprobe.htp.channels import ALERTS, Channel
from hookprobe.htp.effects import (
    Address,
    LevelChanged,
    MessageReceived,
    SendRefused,
    SessionDown,
    SessionUp,
    Transmit,
    TransmitRun,
)
from hookprobe.htp.effects import Effect as TransportEffect
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.messages import Vitals
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.packet import Mode
from hookprobe.htp.path import Received
from hookprobe.htp.seams import PinnedPeer, RegisteredPeer
from hookprobe.htp.traffic import Chunks
from hookprobe.htp.trust import ATTESTATION, Level
from hookprobe.identity.device import DeviceStatus
from hookprobe.identity.directory import Directory
from hookprobe.node.host import Effect
from hookprobe.node.observations import MessageSent
from hookprobe.node.resonance import Fingerprints
from hookprobe.node.rooms import HangUp, Outgoing, Redial, Regrade, Room, RoomEffect
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class DirectoryRegistry:
    """The signed directory, as the transport asks for it.

    Args:
        directory: Who is who.
        fingerprints: Which weight fingerprints a peer may present; None: any, they are judged by
            what the peer proves afterwards.
    """

    def __init__(self, directory: Directory, fingerprints: Fingerprints | None) -> None:
        self._devices = {device.node: device for device in directory.devices}
        self._fingerprints = fingerprints

    def find(self, node: NodeId) -> RegisteredPeer | None:
        device = self._devices.get(node)
        if device is None:
            return None
        active = device.status is DeviceStatus.ACTIVE
        known = self._fingerprints.of(node) if self._fingerprints is not None else None
        return RegisteredPeer(device.signing_key, active, known)


class MeshLinks:
    """Joins rooms and one endpoint.

    Args:
        endpoint: The transport.
        rooms: What speaks over it; no two share a channel.
        dials: The peers to keep connected to.
    """

    def __init__(
        self, endpoint: Endpoint, rooms: Sequence[Room], dials: Sequence[PinnedPeer]
    ) -> None:
        self._endpoint = endpoint
        self._rooms = tuple(rooms)
        self._by_channel: Mapping[Channel, Room] = {
            channel: room for room in rooms for channel in room.channels
        }
        self._dials = {peer.node: peer for peer in dials}
        self._dial_again: dict[NodeId, Instant] = {}
        self._levels: dict[NodeId, Level] = {}

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._endpoint.peers

    def start(self, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for room in self._rooms:
            effects += self.carry(room.start(now), now)
        for peer in self._dials.values():
            effects += self._absorb(self._endpoint.connect(peer, now), now)
        return effects

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        return self._absorb(self._endpoint.receive_datagram(data, address, now), now)

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        return self._absorb(self._endpoint.receive_batch(received, now), now)

    def next_timeout(self) -> Instant | None:
        due = [self._endpoint.next_timeout(), *(room.next_timeout() for room in self._rooms)]
        due += self._dial_again.values()
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Run whichever machine is due; dial again those sent away for a while."""
        effects: list[Effect] = []
        for node in [node for node, at in self._dial_again.items() if _is_due(at, now)]:
            del self._dial_again[node]
            effects += self._absorb(self._endpoint.connect(self._dials[node], now), now)
        for room in self._rooms:
            if _is_due(room.next_timeout(), now):
                effects += self.carry(room.handle_timeout(now), now)
        if _is_due(self._endpoint.next_timeout(), now):
            effects += self._absorb(self._endpoint.handle_timeout(now), now)
        return effects

    def carry(self, effects: Sequence[RoomEffect], now: Instant) -> list[Effect]:
        """Turn a room's effects into a node's: messages become datagrams, in order."""
        carried: list[Effect] = []
        for effect in effects:
            match effect:
                case Outgoing(peer, channel, data):
                    carried.append(MessageSent(peer, channel, data))
                    mode = Mode.BURST if channel in ALERTS else Mode.NORMAL
                    sent = self._endpoint.send(peer, channel, data, now, mode)
                    carried += self._absorb(sent, now)
                case HangUp(peer, until):
                    carried += self._absorb(self._endpoint.close(peer, now), now)
                    if peer in self._dials:
                        self._dial_again[peer] = until
                case Regrade(peer):
                    carried += self._absorb(self._endpoint.regrade(peer, now), now)
                case Redial():
                    for pinned in self._dials.values():
                        carried += self._redial(pinned, now)
                case _:
                    carried.append(effect)
        return carried

    def _redial(self, peer: PinnedPeer, now: Instant) -> list[Effect]:
        if peer.node in self._endpoint.peers or peer.node in self._dial_again:
            return []
        effects = self._absorb(self._endpoint.close(peer.node, now), now)
        return effects + self._absorb(self._endpoint.connect(peer, now), now)

    def send_file(self, peer: NodeId, data: bytes, now: Instant) -> list[Effect]:
        """Send a message of the host's file transfers; `SendRefused` if there is no room."""
        effects = self._endpoint.send(peer, Channel.FILE, data, now)
        if any(isinstance(effect, SendRefused) for effect in effects):
            return list(effects)
        return [MessageSent(peer, Channel.FILE, data), *self._absorb(effects, now)]

    def sessions(self, now: Instant) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""
        return self._endpoint.sessions(now)

    def report(self, vitals: Vitals) -> None:
        """Set what our next heartbeats say about this node."""
        self._endpoint.report(vitals)

    def chunk_room(self, peer: NodeId) -> int:
        """Return how many bytes of chunks are taken now; -1 without a session."""
        return self._endpoint.chunk_room(peer)

    def send_chunks(self, peer: NodeId, chunks: Chunks, now: Instant) -> list[Effect]:
        """Send chunks, head (16) and data, for which there is room."""
        sent: list[Effect] = [MessageSent(peer, Channel.FILE, head + data) for head, data in chunks]
        return sent + self._absorb(self._endpoint.send_chunks(peer, chunks, now), now)

    def _absorb(self, effects: Sequence[TransportEffect], now: Instant) -> list[Effect]:
        found: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Transmit | TransmitRun):  # nearly all of them
                found.append(effect)
                continue
            match effect:
                case MessageReceived(peer, channel, data):
                    room = self._by_channel.get(channel)
                    if room is not None:
                        found += self.carry(room.receive(peer, channel, data, now), now)
                    elif channel is Channel.FILE:
                        found.append(effect)  # files live on the host's disk: its business
                case SessionUp(peer):
                    found.append(effect)
                    self._levels[peer] = Level.CLOSED
                case LevelChanged(peer, level):
                    found.append(effect)
                    found += self._admit(peer, Level(level), now)
                case SessionDown(peer):
                    found.append(effect)
                    found += self._admit(peer, Level.CLOSED, now)
                case _:
                    found.append(effect)
        return found

    def _admit(self, peer: NodeId, level: Level, now: Instant) -> list[Effect]:
        """Tell the rooms that a peer came into reach, or left it, as far as trust goes."""
        before = self._levels.get(peer, Level.CLOSED)
        self._levels[peer] = level
        if level is Level.CLOSED:
            self._levels.pop(peer)
        effects: list[Effect] = []
        for room in self._rooms:
            least = Level.ATTESTING if ATTESTATION.issuperset(room.channels) else Level.FULL
            if before < least <= level:
                effects += self.carry(room.peer_connected(peer, now), now)
            elif level < least <= before:
                effects += self.carry(room.peer_disconnected(peer, now), now)
        return effects


def _is_due(at: Instant | None, now: Instant) -> bool:
    return at is not None and at <= now

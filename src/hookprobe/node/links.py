"""The ledger over the transport: frames of the ledger ride in channels of HTP sessions.

The ledger says `Send(peer, message)` and is told which peers are connected; the endpoint seals,
delivers and says which sessions live. Neither knows the other. When a session dies, messages under
way are lost and the ledger's own anti-entropy repairs that at the next connection.
"""

from collections.abc import Sequence
from typing import Protocol

from hookprobe.dsm import effects as ledger_effects
from hookprobe.dsm.effects import Disconnect, Send
from hookprobe.dsm.messages import ChannelClass, channel_class, encode
from hookprobe.htp.channels import Channel
from hookprobe.htp.effects import (
    Address,
    MessageReceived,
    SendRefused,
    SessionDown,
    SessionUp,
)
from hookprobe.htp.effects import Effect as TransportEffect
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import PinnedPeer, RegisteredPeer
from hookprobe.identity.device import DeviceStatus
from hookprobe.identity.directory import Directory
from hookprobe.node.host import Effect
from hookprobe.node.observations import MessageSent
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

_CHANNELS = {
    ChannelClass.CONSENSUS: Channel.CONSENSUS,
    ChannelClass.SYNC: Channel.GOSSIP,
    ChannelClass.DATA: Channel.MICROBLOCK,
}
_LEDGER_CHANNELS = tuple(_CHANNELS.values())


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


class DirectoryRegistry:
    """The signed directory, as the transport asks for it."""

    def __init__(self, directory: Directory) -> None:
        self._devices = {device.node: device for device in directory.devices}

    def find(self, node: NodeId) -> RegisteredPeer | None:
        device = self._devices.get(node)
        if device is None:
            return None
        active = device.status is DeviceStatus.ACTIVE
        return RegisteredPeer(device.signing_key, active, device.w_fingerprint)


class MeshLinks:
    """Joins one ledger and one endpoint.

    Args:
        endpoint: The transport.
        ledger: The ledger.
        dials: The peers to keep connected to.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger, dials: Sequence[PinnedPeer]) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._dials = {peer.node: peer for peer in dials}
        self._dial_again: dict[NodeId, Instant] = {}

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._endpoint.peers

    def start(self, now: Instant) -> list[Effect]:
        effects = self.carry(self._ledger.start(now), now)
        for peer in self._dials.values():
            effects += self._absorb(self._endpoint.connect(peer, now), now)
        return effects

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        return self._absorb(self._endpoint.receive_datagram(data, address, now), now)

    def next_timeout(self) -> Instant | None:
        due = [self._endpoint.next_timeout(), self._ledger.next_timeout()]
        due += self._dial_again.values()
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Run whichever of the two machines is due; dial again those sent away for a while."""
        effects: list[Effect] = []
        for node in [node for node, at in self._dial_again.items() if _is_due(at, now)]:
            del self._dial_again[node]
            effects += self._absorb(self._endpoint.connect(self._dials[node], now), now)
        if _is_due(self._ledger.next_timeout(), now):
            effects += self.carry(self._ledger.handle_timeout(now), now)
        if _is_due(self._endpoint.next_timeout(), now):
            effects += self._absorb(self._endpoint.handle_timeout(now), now)
        return effects

    def carry(self, effects: Sequence[ledger_effects.Effect], now: Instant) -> list[Effect]:
        """Turn a ledger's effects into a node's: messages become datagrams, in order."""
        carried: list[Effect] = []
        for effect in effects:
            match effect:
                case Send(peer, message):
                    frame = encode(message)
                    channel = _CHANNELS[channel_class(message)]
                    carried.append(MessageSent(peer, channel, frame))
                    carried += self._absorb(self._endpoint.send(peer, channel, frame, now), now)
                case Disconnect(peer, until):
                    carried += self._absorb(self._endpoint.close(peer, now), now)
                    if peer in self._dials:
                        self._dial_again[peer] = until
                case _:
                    carried.append(effect)
        return carried

    def send_file(self, peer: NodeId, data: bytes, now: Instant) -> list[Effect]:
        """Send a message of the host's file transfers; `SendRefused` if there is no room."""
        effects = self._endpoint.send(peer, Channel.FILE, data, now)
        if any(isinstance(effect, SendRefused) for effect in effects):
            return list(effects)
        return [MessageSent(peer, Channel.FILE, data), *self._absorb(effects, now)]

    def _absorb(self, effects: Sequence[TransportEffect], now: Instant) -> list[Effect]:
        found: list[Effect] = []
        for effect in effects:
            match effect:
                case MessageReceived(peer, channel, data):
                    if channel in _LEDGER_CHANNELS:
                        found += self.carry(self._ledger.receive_frame(peer, data, now), now)
                    elif channel is Channel.FILE:
                        found.append(effect)  # files live on the host's disk: its business
                case SessionUp(peer):
                    found.append(effect)
                    found += self.carry(self._ledger.peer_connected(peer, now), now)
                case SessionDown(peer):
                    found.append(effect)
                    found += self.carry(self._ledger.peer_disconnected(peer, now), now)
                case _:
                    found.append(effect)
        return found


def _is_due(at: Instant | None, now: Instant) -> bool:
    return at is not None and at <= now

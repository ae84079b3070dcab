"""The seam between a pure node and whatever runs it: a process, the simulator, a test.

A host feeds inputs with the current time, executes the returned effects in order, and calls
`handle_timeout` when `next_timeout` has come. That is all it must know.

* `Persist`: write durably before anything behind it in the list.
* `Transmit`: send one datagram; it may be lost. `TransmitRun`: send several of one size.
* `HostRequest`: measure the host, or write the device's own records; the answer comes back by the
  method that the request names.
* `Observation`: tell whoever listens; nothing depends on it.
"""

from typing import Protocol, TypeAlias

from hookprobe.dsm.store import Persist
from hookprobe.htp.effects import Address, Transmit, TransmitRun
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.path import Received
from hookprobe.htp.traffic import Chunks
from hookprobe.neuro.effects import HostRequest
from hookprobe.node.doubts import Doubt
from hookprobe.node.observations import Observation
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

Effect: TypeAlias = Persist | Transmit | TransmitRun | HostRequest | Observation


class Node(Protocol):
    """What every kind of node can do."""

    def start(self, now: Instant) -> list[Effect]:
        """Begin; called once, before anything else."""

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        """Take one datagram from the network."""

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        """Take what one read of the network brought; peers are answered once for all of it."""

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` is wanted; None for never."""

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Do what has become due."""


class FileNode(Node, Protocol):
    """A node whose host also carries files, and may look at its sessions."""

    def sessions(self, now: Instant) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""

    def doubt(self, peer: NodeId, now: Instant) -> Doubt | None:
        """Return what this node holds against a peer that dialled it; None if nothing."""

    def send_file(self, peer: NodeId, data: bytes, now: Instant) -> list[Effect]:
        """Send a message of the host's file transfers; `SendRefused` if there is no room."""

    def chunk_room(self, peer: NodeId) -> int:
        """Return how many bytes of chunks are taken now; -1 without a session."""

    def send_chunks(self, peer: NodeId, chunks: Chunks, now: Instant) -> list[Effect]:
        """Send chunks, head (16) and data, for which there is room."""

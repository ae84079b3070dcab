"""`HookProbeTransport`: a node's sessions for a program that has messages of its own.

    validator = HookProbeTransport(node_id="mssp-cloud-001", listen_port=4478, is_validator=True)
    while True:
        received = validator.receive_data(timeout=30.0)

One endpoint on one socket, without ledger, detection or NEURO: who may speak is what the mesh's
directory says, and what is presented in handshakes is the node's enrolled state. The asyncio form
does the work; the blocking one runs it on a thread of its own.

Whoever does not read is not read for: at `WAITING_MAX` messages the socket is left alone until some
are taken, and peers slow down or, after half a minute, lose their sessions.
"""

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from hookprobe.config.load import load
from hookprobe.config.schema import FILE_EXTENSIONS
from hookprobe.dsm.store import MemoryStore
from hookprobe.errors import HostError, LocalError, UnavailableError
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import PORT, HtpConfig
from hookprobe.htp.effects import (
    Address,
    DatagramReceived,
    Effect,
    MessageReceived,
    RefusedReason,
    SendRefused,
    SessionDown,
    SessionUp,
    Transmit,
    TransmitRun,
)
from hookprobe.htp.meters import SessionMeter
from hookprobe.htp.swarm import SET_BYTES, SwarmSender
from hookprobe.node.build import Documents, Parts, build_endpoint
from hookprobe.runtime import folders
from hookprobe.runtime.alarm import Alarm
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.file_conversation import Conversation
from hookprobe.runtime.file_pump import Room
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_store import StoreLimits
from hookprobe.runtime.folders import NodeFolder
from hookprobe.runtime.keystore import KEY_FILE
from hookprobe.runtime.udp import Received as Datagrams
from hookprobe.runtime.udp import UdpSocket
from hookprobe.wire.identifiers import NodeId, parse_node_id

WAITING_MAX = 1024
SEND_WAIT_S = 30.0
SWARM_WAIT_S = 300.0
_RETRY_S = 0.005
_CLOSE_WAIT_S = 5.0
_QUOTA_BYTES = 4 << 30

_Result = TypeVar("_Result")


class Received(NamedTuple):
    """A message: who sent it, on which channel, its bytes."""

    peer: NodeId
    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """What may be set of a transport.

    Attributes:
        host: The address to listen on; nodes answer on every one unless told otherwise.
        files: Folder for files of peers, a folder each; None: none are served.
        config: Timeouts and limits; whether we answer is said elsewhere.
    """

    host: str = "0.0.0.0"  # noqa: S104
    files: Path | None = None
    config: HtpConfig = field(default_factory=HtpConfig)


class AsyncHookProbeTransport:
    """The transport of one node, in the running event loop.

    Args:
        node_id: Our name; it must be that of the folder's key file.
        listen_port: UDP port; 0: any free one.
        is_validator: Whether we answer; else we dial the validators of the directory.
        folder: The node's folder, as `hookprobe init` made it; if not given,
            HOOKPROBE_IDENTITY_PATH or the present folder, or the folder NODE_ID in it.
        settings: What else may be set.

    Raises:
        HostError: No node's folder there, or the port is taken.
        LocalError: The folder is of another node, or of one that may not answer.
        RemoteError: A document of the folder does not hold.
    """

    def __init__(
        self,
        node_id: str,
        listen_port: int = PORT,
        is_validator: bool = False,
        *,
        folder: str | Path | None = None,
        settings: TransportSettings | None = None,
    ) -> None:
        settings = settings or TransportSettings()
        node = parse_node_id(node_id)
        held = _read_folder(node, folder)
        self.node_id = node
        self._clock = Clock()
        documents = Documents(held.secrets, held.enrolment, held.genesis, held.directory)
        parts = Parts(MemoryStore(), secrets.token_bytes, self._clock.now())
        config = replace(settings.config, answering=is_validator)
        self._endpoint, self._dials = build_endpoint(documents, config, parts)
        self._socket = UdpSocket(Address(settings.host, listen_port))
        address = self._socket.address
        self.local_address = (address.host, address.port)
        limits = StoreLimits(_QUOTA_BYTES, extensions=FILE_EXTENSIONS)
        self._files = FileService(_Carrier(self), settings.files, limits, self._clock)
        self._waiting: asyncio.Queue[Received] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._alarm = Alarm(self._clock, self._wake)
        self._tidying: asyncio.Task[None] | None = None
        self._reading = False

    async def __aenter__(self) -> "AsyncHookProbeTransport":
        """Listen, and dial whom we dial."""
        self._read()
        for peer in self._dials:
            self.execute(self._endpoint.connect(peer, self._clock.now()))
        self._tidying = asyncio.get_running_loop().create_task(self._files.run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all sessions, in a word to each peer, and the socket."""
        if self._tidying is None:
            return
        self._tidying.cancel()
        self._tidying = None
        for peer in self._endpoint.peers:
            self.execute(self._endpoint.close(peer, self._clock.now()))
        self._alarm.cancel()
        await self._files.end()
        self._socket.close(asyncio.get_running_loop())

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._endpoint.peers

    def sessions(self) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""
        return self._endpoint.sessions(self._clock.now())

    # -- messages -------------------------------------------------------------------------------

    async def send_data(
        self,
        data: bytes,
        peer: str | None = None,
        *,
        channel: Channel = Channel.TER,
        timeout: float = SEND_WAIT_S,  # noqa: ASYNC109 (the blocking form has the same argument)
    ) -> NodeId:
        """Send a message, in order with others of its channel; return to whom.

        It returns when the message is taken for sending, not when it has arrived.

        Args:
            data: 1 MiB at most.
            peer: Whom to; may be left out where there is one session only, and by an edge, which
                then takes the first of its validators in reach.
            channel: On which channel.
            timeout: Seconds to wait for a session and for room.

        Raises:
            UnavailableError: Neither came in time.
            LocalError: The message is too large, or it is not clear to whom it goes.
        """
        if channel is Channel.FILE:
            raise LocalError("send_data: files go by HTPFileTransfer")
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            target = self._target(peer)
            reason = self._offer(target, channel, data) if target is not None else None
            if target is not None and reason is None:
                return target
            left = until - loop.time()
            if left <= 0:
                why = "no session" if target is None else "no room for sending"
                raise UnavailableError(f"send_data: {why} with {peer or 'any peer'}")
            self._changed.clear()
            wait = min(left, _RETRY_S if reason is RefusedReason.QUEUE_FULL else left)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    async def send_swarm(
        self,
        messages: Sequence[bytes],
        peers: Sequence[str] = (),
        *,
        channel: Channel = Channel.TER,
        timeout: float = SWARM_WAIT_S,  # noqa: ASYNC109 (as above)
    ) -> None:
        """Send a set of messages over several sessions at once, until all of it has arrived.

        Whoever collects them hands what it receives on that channel to a `SwarmCollector`.

        Args:
            messages: 65,536 at most.
            peers: By whom; all that are connected if not given.
            channel: On which channel.
            timeout: Seconds for all of it.

        Raises:
            UnavailableError: It took longer.
            LocalError: Nothing to send, or nobody to send by.
        """
        names = [NodeId(peer) for peer in peers] or [*self.peers]
        sender = SwarmSender(secrets.token_bytes(SET_BYTES), channel, messages, names)
        until = asyncio.get_running_loop().time() + timeout
        while not sender.is_done:
            self.execute(sender.drive(self._endpoint, self._clock.now()))
            if asyncio.get_running_loop().time() >= until:
                raise UnavailableError("send_swarm: not all of the set arrived in time")
            await asyncio.sleep(_RETRY_S)

    def _target(self, peer: str | None) -> NodeId | None:
        peers = self._endpoint.peers
        if peer is not None:
            return NodeId(peer) if peer in peers else None
        if len(peers) > 1 and not self._dials:
            raise LocalError("send_data: several peers are connected", hint="say which: peer=")
        return next((one.node for one in self._dials if one.node in peers), *peers[:1] or (None,))

    def _offer(self, peer: NodeId, channel: Channel, data: bytes) -> RefusedReason | None:
        effects = self._endpoint.send(peer, channel, data, self._clock.now())
        self.execute(effects)
        refused = (one.reason for one in effects if isinstance(one, SendRefused))
        return next(refused, None)

    async def receive_data(self, timeout: float | None = None) -> Received | None:  # noqa: ASYNC109
        """Return the next message, of whichever peer and channel; None if none came in time."""
        try:
            received = await asyncio.wait_for(self._waiting.get(), timeout)
        except TimeoutError:
            return None
        if not self._reading and self._waiting.qsize() <= WAITING_MAX // 2:
            self._read()
        return received

    def session(self, peer: str) -> Conversation:
        """Return what `HTPFileTransfer` works on.

        Raises:
            UnavailableError: There is no session with that peer.
        """
        return self._files.session(NodeId(peer))

    # -- the endpoint's host ----------------------------------------------------------------------

    def _read(self) -> None:
        self._reading = True
        self._socket.attach(asyncio.get_running_loop(), self._receive)

    def _receive(self, datagrams: Datagrams) -> None:
        self.execute(self._endpoint.receive_batch(datagrams, self._clock.now()))
        if self._reading and self._waiting.qsize() >= WAITING_MAX:
            self._reading = False
            self._socket.detach(asyncio.get_running_loop())

    def _wake(self) -> None:
        self.execute(self._endpoint.handle_timeout(self._clock.now()))

    def execute(self, effects: Sequence[Effect]) -> None:
        """Carry out what the endpoint asks for, and set its timer."""
        self._socket.send_batch([one for one in effects if isinstance(one, Transmit | TransmitRun)])
        for effect in effects:
            match effect:
                case MessageReceived(peer, channel, data) if channel is not Channel.FILE:
                    self._waiting.put_nowait(Received(peer, channel, data))
                case DatagramReceived(peer, channel, data):
                    self._waiting.put_nowait(Received(peer, channel, data))
                case SessionUp() | SessionDown():
                    self._files.report(effect)
                    self._changed.set()
                case Transmit() | TransmitRun():
                    pass
                case _:
                    self._files.report(effect)
        self._alarm.set(self._endpoint.next_timeout())

    def carry(self, peer: NodeId, data: bytes) -> Room:
        """Send a message of file operations."""
        reason = self._offer(peer, Channel.FILE, data)
        full = Room.FULL if reason is RefusedReason.QUEUE_FULL else Room.GONE
        return Room.SENT if reason is None else full

    def chunk_room(self, peer: NodeId) -> int:
        """Return how many bytes of chunks are taken now; -1 without a session."""
        return self._endpoint.chunk_room(peer)

    def carry_chunks(self, peer: NodeId, chunks: list[tuple[bytes, bytes]]) -> None:
        """Send chunks, head (16) and data, for which there is room."""
        self.execute(self._endpoint.send_chunks(peer, chunks, self._clock.now()))


class HookProbeTransport:
    """The same for programs without an event loop; may be used from several threads.

    Args and errors are those of `AsyncHookProbeTransport`.
    """

    def __init__(
        self,
        node_id: str,
        listen_port: int = PORT,
        is_validator: bool = False,
        *,
        folder: str | Path | None = None,
        settings: TransportSettings | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def begin() -> AsyncHookProbeTransport:
            made = AsyncHookProbeTransport(
                node_id, listen_port, is_validator, folder=folder, settings=settings
            )
            return await made.__aenter__()

        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            self._inner = self._run(begin())
            stack.pop_all()
        self.node_id = self._inner.node_id
        self.local_address = self._inner.local_address

    def _run(self, work: Coroutine[object, object, _Result]) -> _Result:
        if self._loop.is_closed():
            work.close()
            raise UnavailableError("the transport is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise UnavailableError("the transport was closed") from None
        finally:
            future.cancel()  # an interrupted receive must not take a message that nobody gets

    def __enter__(self) -> "HookProbeTransport":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return self._inner.peers

    def sessions(self) -> list[SessionMeter]:
        """Return what each session has done, sorted by peer."""

        async def ask() -> list[SessionMeter]:
            return self._inner.sessions()

        return self._run(ask())

    def send_data(
        self,
        data: bytes,
        peer: str | None = None,
        *,
        channel: Channel = Channel.TER,
        timeout: float = SEND_WAIT_S,
    ) -> NodeId:
        """Send a message; see `AsyncHookProbeTransport.send_data`."""
        return self._run(self._inner.send_data(data, peer, channel=channel, timeout=timeout))

    def send_swarm(
        self,
        messages: Sequence[bytes],
        peers: Sequence[str] = (),
        *,
        channel: Channel = Channel.TER,
        timeout: float = SWARM_WAIT_S,
    ) -> None:
        """Send a set of messages; see `AsyncHookProbeTransport.send_swarm`."""
        sending = self._inner.send_swarm(messages, peers, channel=channel, timeout=timeout)
        self._run(sending)

    def receive_data(self, timeout: float | None = None) -> Received | None:
        """Return the next message; None if none came within `timeout` seconds."""
        return self._run(self._inner.receive_data(timeout))

    def close(self) -> None:
        """End all sessions and the thread."""
        if not self._loop.is_closed():
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def _stop(self) -> None:
        async def cancel_all() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(cancel_all(), self._loop).result(_CLOSE_WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_WAIT_S)
        self._loop.close()


class _Carrier:
    """The transport, as the file service wants it."""

    def __init__(self, transport: AsyncHookProbeTransport) -> None:
        self._transport = transport

    def message(self, peer: NodeId, data: bytes) -> Room:
        return self._transport.carry(peer, data)

    def room(self, peer: NodeId) -> int:
        return self._transport.chunk_room(peer)

    def chunks(self, peer: NodeId, chunks: list[tuple[bytes, bytes]]) -> None:
        self._transport.carry_chunks(peer, chunks)


def _read_folder(node: NodeId, folder: str | Path | None) -> NodeFolder:
    if folder is None:
        named = load(None, os.environ, {}).text("identity.path")
        places = [Path(named), Path(named) / node]
        found = next((place for place in places if (place / KEY_FILE).exists()), None)
        if found is None:
            raise HostError(
                f"{node}: no {KEY_FILE} in {places[0].absolute()} or its folder {node}",
                hint="say where: folder=, or HOOKPROBE_IDENTITY_PATH; `hookprobe init` makes one",
            )
        folder = found
    held = folders.read_node(Path(folder))
    if held.secrets.node != node:
        raise LocalError(f"{folder} is the folder of {held.secrets.node}, not of {node}")
    return held

"""The live links of an endpoint: a bounded number awake, and the quiet ones beyond it at rest.

Which one rests is a matter of memory only. Links are put to rest between two calls of the endpoint,
never while somebody may hold one; asking for one wakes it.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping
from itertools import chain
from typing import TypeAlias, TypeVar, overload

from hookprobe.crypto.sealing import CipherCache
from hookprobe.htp.effects import Address, Effect
from hookprobe.htp.messages import BEAT_BYTES
from hookprobe.htp.packet import SEALED_OVERHEAD_BYTES, TOKEN_START, TOKEN_STOP
from hookprobe.htp.path import Burst, Received, parts_of
from hookprobe.htp.seams import LinkTools
from hookprobe.htp.session_table import SessionTable
from hookprobe.htp.shortcuts import Frozen, QuickLink
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

T = TypeVar("T")
Touched: TypeAlias = dict[NodeId, QuickLink]
ReceiveOne: TypeAlias = Callable[[bytes, Address, Instant, Touched], list[Effect]]

TRIES_MAX = 4  # links looked at for each one that has woken, and at every turn


class Links(Mapping[NodeId, QuickLink]):
    """Links by peer.

    Args:
        table: Where their sessions are found.
        tools: Configuration and collaborators of links.
        ciphers: The endpoint's cipher objects.
    """

    __slots__ = ("_awake", "_awake_max", "_ciphers", "_resting", "_table", "_tools", "_woken")

    def __init__(self, table: SessionTable, tools: LinkTools, ciphers: CipherCache) -> None:
        self._table = table
        self._tools = tools
        self._awake_max = tools.config.awake_max
        self._ciphers = ciphers
        self._awake: OrderedDict[NodeId, QuickLink] = OrderedDict()
        self._resting: dict[NodeId, Frozen] = {}
        self._woken = 0
        table.wake = self._wake

    def __len__(self) -> int:
        return len(self._awake) + len(self._resting)

    def __iter__(self) -> Iterator[NodeId]:
        return chain(self._awake, self._resting)

    def __contains__(self, peer: object) -> bool:
        return peer in self._awake or peer in self._resting

    def __getitem__(self, peer: NodeId) -> QuickLink:
        link = self._awake.get(peer)
        return self._wake(peer) if link is None else link

    @overload
    def get(self, peer: NodeId, /) -> QuickLink | None: ...

    @overload
    def get(self, peer: NodeId, /, default: QuickLink | T) -> QuickLink | T: ...

    def get(self, peer: NodeId, /, default: object = None) -> object:
        link = self._awake.get(peer)
        if link is None:
            return self._wake(peer) if peer in self._resting else default
        return link

    @property
    def awake(self) -> Mapping[NodeId, QuickLink]:
        """The links that do not rest; those that we dialled are among them."""
        return self._awake

    def add(self, link: QuickLink) -> None:
        """Take in a link, in place of any other of that peer."""
        self._woken += 1
        self._awake[link.peer] = link

    def remove(self, link: QuickLink) -> None:
        """Forget a link."""
        del self._awake[link.peer]

    def receive(
        self, received: Received, now: Instant, touched: Touched, receive_one: ReceiveOne
    ) -> list[Effect]:
        """Take what one read of the socket brought: the usual in few steps, the rest one by one.

        Args:
            received: Bursts and datagrams, in the order of arrival.
            now: The time.
            touched: Takes in the links that got something, the one that got the latest at the end.
            receive_one: Takes a datagram that is not usual.
        """
        effects: list[Effect] = []
        for part in parts_of(received):
            if isinstance(part, Burst):
                datagrams = part.datagrams(self._receive_burst(part, now, touched))
            else:
                datagrams = part
            index = 0
            while index < len(datagrams):
                datagram = datagrams[index]
                index += 1
                answer = self.receive_beat(datagram, now, touched)
                if answer is None:
                    answer = receive_one(*datagram, now, touched)
                    if touched and index < len(datagrams):  # more like it is likely to follow
                        latest = next(reversed(touched.values()))
                        index += latest.receive_bulk(datagrams, index, now)
                effects += answer
        return effects

    def receive_beat(
        self, datagram: tuple[bytes, Address], now: Instant, touched: Container[NodeId]
    ) -> list[Effect] | None:
        """Answer a usual heartbeat; None: it is not one, or its peer is `touched` already."""
        if len(datagram[0]) != BEAT_BYTES:
            return None
        session = self._table.find(datagram[0][TOKEN_START:TOKEN_STOP])
        if session is None or now - session.created >= self._tools.config.reject_after_us:
            return None
        link = self._awake.get(session.names.peer)
        if link is None or link.session is not session or link.peer in touched:
            return None
        return link.receive_beat(*datagram, now)

    def _receive_burst(self, burst: Burst, now: Instant, touched: Touched) -> int:
        if burst.size <= SEALED_OVERHEAD_BYTES or len(burst.data) < burst.size:
            return 0
        session = self._table.find(burst.data[TOKEN_START:TOKEN_STOP])
        if session is None or now - session.created >= self._tools.config.reject_after_us:
            return 0
        link = self._awake.get(session.names.peer)
        if link is None or link.session is not session:
            return 0
        count = link.receive_burst(burst, now)
        if count:
            touched.pop(link.peer, None)
            touched[link.peer] = link  # the last one is the latest
        return count

    def _wake(self, peer: NodeId) -> QuickLink:
        link = QuickLink.thaw(self._resting.pop(peer), self._tools, self._ciphers)
        self._woken += 1
        self._awake[peer] = link
        self._table.rouse(link.session)
        return link

    def settle(self) -> None:
        """Put links to rest, the one awake longest first, until few enough are awake.

        More links may be unable to rest than may be awake, for half a minute after their keys were
        renewed for instance; to look at all of them again at every turn would cost more than they.
        """
        tries, self._woken = (self._woken + 1) * TRIES_MAX, 0
        while tries > 0 and len(self._awake) > self._awake_max:
            tries -= 1
            peer, link = self._awake.popitem(last=False)
            frozen = link.freeze()
            if frozen is None:
                self._awake[peer] = link
            else:
                self._resting[peer] = frozen
                self._table.rest(link.session)

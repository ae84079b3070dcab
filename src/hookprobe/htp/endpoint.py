"""All sessions of one socket: routing, dialling, answering, timers (HTP spec 3.3 and 3.4).

One endpoint dials pinned peers and answers those who dial it, over the same socket. It is a machine
of values: datagrams and commands in, effects out; it never raises for what the network sent.

Routing: handshake types go to the dialler with that token or to the responder; session types to the
session whose `local_token` they carry. A packet for an unknown session may earn a stateless reset.
"""

from collections.abc import Callable

from hookprobe.crypto.sealing import CipherCache
from hookprobe.errors import LimitExceededError, LocalError, MalformedError, RemoteError
from hookprobe.htp.agenda import Agenda, SteadyClock
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import (
    Address,
    BareRejectSeen,
    ConnectRejected,
    DownReason,
    Dropped,
    DropReason,
    Effect,
    RefusedReason,
    SendRefused,
    SessionDown,
    SessionRenewed,
    SessionUp,
    Transmit,
)
from hookprobe.htp.ghost import make_link, make_session
from hookprobe.htp.handshake import (
    CAPABILITY_CONTINUE,
    Accepted,
    Dial,
    DialState,
    Phase,
    PhaseEvent,
    Rejected,
)
from hookprobe.htp.keepalive import obey
from hookprobe.htp.keys import Entropy
from hookprobe.htp.links import Links
from hookprobe.htp.messages import (
    BARE_REJECT_BYTES,
    CloseCode,
    Vitals,
    check_vitals,
    decode_bare_reject,
    decode_challenge,
)
from hookprobe.htp.meters import SessionMeter, measure
from hookprobe.htp.packet import Header, Mode, PacketType, decode_header
from hookprobe.htp.path import Arrival, Received
from hookprobe.htp.reset import StatelessReset, is_reset
from hookprobe.htp.responder import Responder, has_precedence, outlasts
from hookprobe.htp.seams import LinkTools, LocalIdentity, PinnedPeer, Seams
from hookprobe.htp.session import Opened, ReplayError, Session, SessionNames
from hookprobe.htp.session_table import SessionTable
from hookprobe.htp.shortcuts import QuickLink
from hookprobe.htp.switchboard import DIAL, Switchboard
from hookprobe.htp.traffic import Chunks, Traffic
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

_DROPS = {ReplayError: DropReason.REPLAY, MalformedError: DropReason.MALFORMED}
_LINK = "link"
_PENDING_KEY = ("pending", "")


class Endpoint:
    """The transport of one node on one socket.

    Args:
        config: Timeouts and limits.
        identity: Who we are.
        seams: Registry, resonance, signatures, KEM.
        random_bytes: Returns as many random bytes as asked for.
        now: The time.
    """

    __slots__ = (
        "_agenda",
        "_ciphers",
        "_clock",
        "_config",
        "_dials",
        "_entropy",
        "_identity",
        "_links",
        "_reset",
        "_responder",
        "_table",
        "_tools",
        "_vitals",
    )

    def __init__(
        self,
        config: HtpConfig,
        identity: LocalIdentity,
        seams: Seams,
        random_bytes: Callable[[int], bytes],
        now: Instant,
    ) -> None:
        self._config = config
        self._identity = identity
        self._entropy = Entropy(random_bytes)
        self._tools = LinkTools(config, seams, self._entropy)
        self._ciphers = CipherCache(config.ciphers_max)
        self._table = SessionTable(config)
        self._links = Links(self._table, self._tools, self._ciphers)
        self._agenda: Agenda[tuple[str, str]] = Agenda()
        self._dials = Switchboard(self._agenda)
        room = self._table.has_room
        self._responder = Responder(identity, self._tools, self._ciphers, self._links, room, now)
        self._reset = StatelessReset(identity.reset_key, config, self._entropy)
        self._vitals = Vitals()
        self._clock = SteadyClock(now)

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The peers with a live session, sorted."""
        return tuple(sorted(self._links))

    def sessions(self, now: Instant) -> list[SessionMeter]:
        """Return what each session has done that does not rest, sorted by peer."""
        awake = sorted(self._links.awake.items())
        return [measure(link, self._clock.read(now)) for _, link in awake]

    # -- commands -----------------------------------------------------------------------------

    def connect(self, peer: PinnedPeer, now: Instant) -> list[Effect]:
        """Keep a pinned peer connected from now on, with retries for ever.

        Raises:
            LocalError: The peer is ourselves or is dialled already.
        """
        if peer.node == self._identity.node or self._dials.find(peer.node) is not None:
            raise LocalError(f"connect: {peer.node} is this node or is dialled already")
        now = self._clock.read(now)
        dial = Dial(peer, self._identity, self._tools.seams, self._config, self._entropy)
        self._dials.add(dial)
        if peer.node in self._links:
            return []
        return self._dials.drive(dial, dial.start, now)

    def close(self, peer: NodeId, now: Instant) -> list[Effect]:
        """End the session with a peer and stop dialling it."""
        now = self._clock.read(now)
        self._dials.remove(peer)
        link = self._links.get(peer)
        if link is None:
            return []
        return link.close(CloseCode.NORMAL, now) + self._end(link, DownReason.CLOSED_HERE, now)

    def send(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant, mode: Mode = Mode.NORMAL
    ) -> list[Effect]:
        """Queue a message and send what can be sent at once; BURST does not wait for pacing.

        Raises:
            LocalError: The message is larger than 1 MiB.
        """
        return self._offer(peer, channel, lambda one: one.offer(channel, data, mode), now)

    def send_datagram(
        self, peer: NodeId, channel: Channel, data: bytes, now: Instant
    ) -> list[Effect]:
        """Send a message once: it may be lost, and arrives without waiting for others.

        Raises:
            LocalError: It does not fit a datagram.
        """
        return self._offer(peer, channel, lambda one: one.offer_datagram(channel, data), now)

    def chunk_room(self, peer: NodeId) -> int:
        """Return how many bytes of chunks are taken now; -1 without a session."""
        link = self._links.get(peer)
        return -1 if link is None else link.traffic.bulk.room

    def send_chunks(self, peer: NodeId, chunks: Chunks, now: Instant) -> list[Effect]:
        """Send bulk data, 16 bytes and at most 64 KiB each; fragments arrive in any order."""
        return self._offer(peer, Channel.FILE, lambda one: one.offer_chunks(chunks), now)

    def _offer(
        self, peer: NodeId, channel: Channel, offer: Callable[[Traffic], bool], now: Instant
    ) -> list[Effect]:
        now = self._clock.read(now)
        link = self._links.get(peer)
        if link is None:
            return [SendRefused(peer, channel, RefusedReason.NO_SESSION)]
        if not link.standing.may_send(channel):
            return [SendRefused(peer, channel, RefusedReason.TRUST)]
        if not offer(link.traffic):
            return [SendRefused(peer, channel, RefusedReason.QUEUE_FULL)]
        return self._settle(link, now)

    def report(self, vitals: Vitals) -> None:
        """Set what our next heartbeats say.

        Raises:
            LocalError: A value does not fit its field.
        """
        check_vitals(vitals)
        self._vitals = vitals
        for link in self._links.awake.values():
            if link.session.names.dialled:
                link.vitals = vitals

    def regrade(self, peer: NodeId, now: Instant) -> list[Effect]:
        """Look anew at the trust in a peer who dialled us, where something about it changed."""
        link, now = self._links.get(peer), self._clock.read(now)
        return [] if link is None else link.regrade(now) + self._settle(link, now)

    # -- the four verbs -----------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        """Take one datagram; whatever it holds, no exception comes out."""
        return self.receive_batch(((data, address),), now)

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        """Take what one read of the socket brought; peers are answered once for the batch."""
        now = self._clock.read(now)
        touched: dict[NodeId, QuickLink] = {}
        effects = self._links.receive(received, now, touched, self._receive_one)
        for link in touched.values():
            effects += link.take_fragments()
            effects += self._settle(link, now)
        self._links.settle()
        return effects

    def _receive_one(
        self, data: bytes, address: Address, now: Instant, touched: dict[NodeId, QuickLink]
    ) -> list[Effect]:
        try:
            header = decode_header(data)
            if header.kind >= PacketType.DATA:
                return self._receive_session(
                    header, data, Arrival(address, len(data), now), touched
                )
            return self._receive_handshake(header, data, address, now)
        except MalformedError:
            return [Dropped(DropReason.MALFORMED)]
        except RemoteError:
            return [Dropped(DropReason.HANDSHAKE)]

    def next_timeout(self) -> Instant | None:
        """Return when `handle_timeout` has to be called."""
        due = self._agenda.next()
        return None if due is None else self._clock.host_time(due)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Do everything that is due."""
        now = self._clock.read(now)
        effects: list[Effect] = []
        for kind, name in self._agenda.pop_due(now):
            if kind == _LINK:
                effects += self._wake_link(NodeId(name), now)
            elif kind == DIAL:
                effects += self._wake_dial(NodeId(name), now)
            else:
                self._expire_pending(now)
        self._links.settle()
        return effects

    def _wake_link(self, node: NodeId, now: Instant) -> list[Effect]:
        if (link := self._links.get(node)) is None:
            return []
        effects = link.handle_timeout(now)
        if link.retired is not None and now >= link.retired_until:
            self._table.drop(link.retired)
            link.retired = None
        return effects + self._settle(link, now)

    def _wake_dial(self, node: NodeId, now: Instant) -> list[Effect]:
        if (dial := self._dials.find(node)) is None:
            return []
        link = self._links.get(node)
        due = dial.next_at is not None and now >= dial.next_at
        if due and dial.state is DialState.IDLE and link is not None:
            dial.next_at = None  # the link stands, whoever dialled it; `_end` starts the dial again
            return self._start_renewal(dial, link, now) if link.renewal_due else []
        return self._dials.drive(dial, dial.handle_timeout, now)

    def _expire_pending(self, now: Instant) -> None:
        if (due := self._table.expire(now)) is not None:
            self._agenda.set(_PENDING_KEY, due)

    # -- handshakes ---------------------------------------------------------------------------

    def _receive_handshake(
        self, header: Header, data: bytes, address: Address, now: Instant
    ) -> list[Effect]:
        kind = header.kind
        if kind in (PacketType.HELLO, PacketType.ATTEST):
            if not self._config.answering:
                return [Dropped(DropReason.NOT_ANSWERING)]
            if kind is PacketType.HELLO:
                return self._responder.receive_hello(header, data, address, now)
            effects, pending = self._responder.receive_attest(header, data, address, now)
            if pending is not None:
                self._table.hold(pending)
                self._expire_pending(now)
            return effects
        dial = self._dials.by_token(header.flow_token)
        if dial is None or dial.peer.address != address:
            return [Dropped(DropReason.UNKNOWN_TOKEN)]
        if kind is PacketType.CHALLENGE:
            challenge = decode_challenge(header, data)
            return self._dials.drive(dial, lambda at: dial.receive_challenge(challenge, at), now)
        if len(data) == BARE_REJECT_BYTES:
            return [BareRejectSeen(dial.peer.node, decode_bare_reject(header, data)[0])]
        return self._receive_reply(dial, header, data, now)

    def _receive_reply(self, dial: Dial, header: Header, data: bytes, now: Instant) -> list[Effect]:
        token = dial.edge_token
        reply = dial.receive_reply(header, data, now)
        if reply is None:
            return []
        self._dials.follow(dial, token)
        if isinstance(reply, Rejected):
            retry_at = self._clock.host_time(reply.retry_at)
            return [ConnectRejected(dial.peer.node, reply.code, retry_at)]
        return self._establish(dial, reply, now)

    def _establish(self, dial: Dial, accepted: Accepted, now: Instant) -> list[Effect]:
        """Take the session that our dialling won."""
        body = accepted.body
        tokens = (accepted.edge_token, body.validator_token, body.reset_token)
        names = SessionNames(dial.peer.node, True, *tokens, accepted.suite)
        session = make_session(accepted.keys, names, self._ciphers, self._config, now)
        session.resonance = accepted.beacon
        self._tools.note_keys(accepted.keys, accepted.edge_token, body.validator_token)
        self._table.register(session)
        link = self._links.get(names.peer)
        effects: list[Effect] = []
        if accepted.continues and link is not None:
            effects += self._renew(link, session, None, now)
        elif link is not None and outlasts(link, self._identity.node, self._config.silence_us, now):
            return self._refuse(session, dial.peer.address, now)
        else:
            if link is not None:
                effects += self._end(link, DownReason.REPLACED, now, redial=False)
            link = self._open_link(session, dial.peer.address, None, now)
            effects.append(SessionUp(names.peer, link.address, True, names.suite))
        effects += link.standing.hear(body.trust)
        link.heartbeat_s = obey(body.heartbeat_s, link.heartbeat_s)
        link.datagram_max_bytes = min(link.datagram_max_bytes, body.max_udp)
        link.seed_rtt(accepted.round_trip_us, now)
        # The heartbeat that is due at once confirms the session to the answering end.
        return effects + link.handle_timeout(now) + self._settle(link, now)

    def _confirm(self, session: Session, now: Instant) -> list[Effect]:
        """Take a session that a peer's dialling won, at its first packet that opened."""
        peer = session.names.peer
        pending = self._table.pending.pop(peer)
        link = self._links.get(peer)
        if pending.continues is not None:
            if link is None or pending.continues != link.stream_id:
                return self._refuse(session, pending.address, now)
            session.move(PhaseEvent.OPENED)
            return self._renew(link, session, pending.fingerprint, now)
        if link is not None and has_precedence(
            link, self._identity.node, self._config.silence_us, now
        ):
            return self._refuse(session, pending.address, now)
        effects = [] if link is None else self._end(link, DownReason.REPLACED, now)
        session.move(PhaseEvent.OPENED)
        link = self._open_link(session, pending.address, pending.fingerprint, now)
        up = SessionUp(peer, link.address, False, session.names.suite)
        return [*effects, up, *link.regrade(now)]

    def _refuse(self, session: Session, address: Address, now: Instant) -> list[Effect]:
        """Close a session that lost against another one of the same peer."""
        link = QuickLink(session, address, None, self._tools, now)
        effects = link.close(CloseCode.REPLACED, now)
        self._table.drop(session)
        return effects

    # -- sessions -----------------------------------------------------------------------------

    def _open_link(
        self, session: Session, address: Address, fingerprint: bytes | None, now: Instant
    ) -> QuickLink:
        link = make_link(session, address, fingerprint, self._tools, now)
        if session.names.dialled:
            link.vitals = self._vitals
        self._links.add(link)
        return link

    def _renew(
        self, link: QuickLink, session: Session, fingerprint: bytes | None, now: Instant
    ) -> list[Effect]:
        gone = link.renew(session, fingerprint, now)
        if gone is not None:
            self._table.drop(gone)
        return [SessionRenewed(link.peer)]

    def _receive_session(
        self, header: Header, data: bytes, arrival: Arrival, touched: dict[NodeId, QuickLink]
    ) -> list[Effect]:
        session = self._table.find(header.flow_token)
        if session is None:
            return self._receive_unknown(header, data, arrival, touched)
        now = arrival.now
        if now - session.created >= self._config.reject_after_us:
            return [Dropped(DropReason.EXPIRED)]
        try:
            opened = session.open(header, data)
        except LimitExceededError:
            return self._wear_out(session, now)
        except RemoteError as error:
            return [Dropped(_DROPS.get(type(error), DropReason.SEAL))]
        effects = self._confirm(session, now) if session.phase is Phase.UNCONFIRMED else []
        if session.phase is Phase.CLOSED:
            return effects
        return effects + self._hand_over(session, opened, arrival, touched)

    def _hand_over(
        self, session: Session, opened: Opened, arrival: Arrival, touched: dict[NodeId, QuickLink]
    ) -> list[Effect]:
        link = self._links[session.names.peer]
        touched.pop(link.peer, None)
        touched[link.peer] = link  # the last one is the latest: more of it is likely to follow
        if link.ended is not None:
            return [Dropped(DropReason.EXPIRED)]
        try:
            return link.receive(session, opened, arrival)
        except RemoteError:
            link.ended = DownReason.PROTOCOL
            return link.close(CloseCode.PROTOCOL, arrival.now)

    def _wear_out(self, session: Session, now: Instant) -> list[Effect]:
        link = self._links.get(session.names.peer)
        if link is None or link.session is not session:
            self._table.drop(session)
            return [Dropped(DropReason.SEAL)]
        return [Dropped(DropReason.SEAL), *self._end(link, DownReason.EXPIRED, now)]

    def _receive_unknown(
        self, header: Header, data: bytes, arrival: Arrival, touched: dict[NodeId, QuickLink]
    ) -> list[Effect]:
        """A packet of no session: the peer's stateless reset, or a reason to send one."""
        session = self._table.find_reset(header.flow_token)
        if header.kind is PacketType.CLOSE and session is not None:
            link = self._links.get(session.names.peer)
            right = is_reset(data, session.names.reset_token)
            if not right or link is None or link.session is not session:
                return [Dropped(DropReason.RESET)]
            link.ended = DownReason.RESET
            touched[link.peer] = link
            return []
        dropped = Dropped(DropReason.UNKNOWN_TOKEN)
        if not self._config.answering:
            return [dropped]
        reset = self._reset.answer(header, len(data), arrival.address, arrival.now)
        return [dropped] if reset is None else [dropped, Transmit(arrival.address, reset)]

    def _settle(self, link: QuickLink, now: Instant) -> list[Effect]:
        """After a link acted: end it, renew its keys, or send and set its timer."""
        effects = link.flush(now) if link.ended is None else []
        if link.ended is not None:
            return effects + self._end(link, link.ended, now)
        dial = self._dials.find(link.peer)
        if link.renewal_due and dial is not None and dial.state is DialState.ESTABLISHED:
            effects += self._start_renewal(dial, link, now)
        self._agenda.set((_LINK, link.peer), link.next_timeout())
        return effects

    def _start_renewal(self, dial: Dial, link: QuickLink, now: Instant) -> list[Effect]:
        if not link.session.names.dialled:
            return []
        wanted = link.stream_id << 16 | CAPABILITY_CONTINUE
        return self._dials.drive(dial, lambda at: dial.start(at, continuing=wanted), now)

    def _end(
        self, link: QuickLink, reason: DownReason, now: Instant, *, redial: bool = True
    ) -> list[Effect]:
        self._links.remove(link)
        self._agenda.discard((_LINK, link.peer))
        self._table.drop(link.session)
        if link.retired is not None:
            self._table.drop(link.retired)
        if redial:
            self._dials.lose(link.peer, now)
        return [SessionDown(link.peer, reason)]

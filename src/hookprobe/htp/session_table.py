"""The sessions of an endpoint by token, and the handshakes that wait for their first packet.

What was begun is finished first: while as many wait as may, newcomers are turned away before
anything is computed for them, and try again. Were the oldest to make room at once, a storm of more
handshakes than fit would end sessions whose first packet is on its way, and feed itself with those
that dial again.
"""

from collections import OrderedDict
from collections.abc import Callable

from hookprobe.htp.config import HtpConfig
from hookprobe.htp.handshake import PhaseEvent
from hookprobe.htp.responder import Pending
from hookprobe.htp.session import Session
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class SessionTable:
    """Finds sessions for arriving packets.

    Args:
        config: How many unconfirmed sessions are held, and for how long none of them makes room.

    Attributes:
        sessions: By the token that peers send to, unconfirmed ones included.
        pending: The unconfirmed ones by peer, oldest first.
        wake: Wakes the link of a peer, and its session with it.
    """

    __slots__ = ("_config", "_resets", "_resting", "pending", "sessions", "wake")

    def __init__(self, config: HtpConfig) -> None:
        self._config = config
        self.sessions: dict[bytes, Session] = {}
        self.pending: OrderedDict[NodeId, Pending] = OrderedDict()
        self._resets: dict[bytes, Session] = {}
        self._resting: dict[bytes, NodeId] = {}
        self.wake: Callable[[NodeId], object] | None = None

    def find(self, token: bytes) -> Session | None:
        """Return the session whose packets carry this token; one that rests is woken."""
        session = self.sessions.get(token)
        if session is None and self.wake is not None and token in self._resting:
            self.wake(self._resting[token])
            return self.sessions[token]
        return session

    def rest(self, session: Session) -> None:
        """Hold only the name of the peer of a session that rests with its link."""
        names = session.names
        del self.sessions[names.local_token]
        session.forget()
        self._resting[names.local_token] = names.peer

    def rouse(self, session: Session) -> None:
        """Take in a session that was woken."""
        token = session.names.local_token
        del self._resting[token]
        self.sessions[token] = session

    def find_reset(self, token: bytes) -> Session | None:
        """Return the session that we dialled and that sends to this token."""
        return self._resets.get(token)

    def register(self, session: Session) -> None:
        """Take in a session that we dialled."""
        self.sessions[session.names.local_token] = session
        self._resets[session.names.remote_token] = session

    def has_room(self, now: Instant) -> bool:
        """Tell whether one more session may wait, if need be in place of one that waited long."""
        if len(self.pending) < self._config.unconfirmed_max:
            return True
        oldest = next(iter(self.pending.values())).session
        return now - oldest.created >= self._config.unconfirmed_us

    def hold(self, pending: Pending) -> None:
        """Take in a session that has to be confirmed, in place of any other of its peer."""
        names = pending.session.names
        if (earlier := self.pending.get(names.peer)) is not None:
            self.drop(earlier.session)
        elif len(self.pending) >= self._config.unconfirmed_max:
            self.drop(next(iter(self.pending.values())).session)
        self.pending[names.peer] = pending
        self.sessions[names.local_token] = pending.session

    def drop(self, session: Session) -> None:
        """End a session and forget its tokens and keys."""
        session.move(PhaseEvent.ENDED)
        self.sessions.pop(session.names.local_token, None)
        waiting = self.pending.get(session.names.peer)
        if waiting is not None and waiting.session is session:
            del self.pending[session.names.peer]
        if session.names.dialled:
            self._resets.pop(session.names.remote_token, None)

    def expire(self, now: Instant) -> Instant | None:
        """Drop what was not confirmed in time; return when the next one is due."""
        while self.pending:
            oldest = next(iter(self.pending.values()))
            if oldest.until > now:
                return oldest.until
            self.drop(oldest.session)
        return None

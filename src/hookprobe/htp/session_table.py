"""The sessions of an endpoint by token, and the handshakes that wait for their first packet."""

from collections import OrderedDict
from collections.abc import Callable

from hookprobe.htp.handshake import PhaseEvent
from hookprobe.htp.responder import Pending
from hookprobe.htp.session import Session
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class SessionTable:
    """Finds sessions for arriving packets.

    Args:
        pending_max: Unconfirmed sessions held; the oldest makes room.

    Attributes:
        sessions: By the token that peers send to, unconfirmed ones included.
        pending: The unconfirmed ones, oldest first.
        wake: Wakes the link of a peer, and its session with it.
    """

    __slots__ = ("_pending_max", "_resets", "_resting", "pending", "sessions", "wake")

    def __init__(self, pending_max: int) -> None:
        self._pending_max = pending_max
        self.sessions: dict[bytes, Session] = {}
        self.pending: OrderedDict[bytes, Pending] = OrderedDict()
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

    def hold(self, pending: Pending) -> None:
        """Take in a session that has to be confirmed."""
        if len(self.pending) >= self._pending_max:
            self.drop(self.pending[next(iter(self.pending))].session)
        token = pending.session.names.local_token
        self.pending[token] = pending
        self.sessions[token] = pending.session

    def drop(self, session: Session) -> None:
        """End a session and forget its tokens and keys."""
        session.move(PhaseEvent.ENDED)
        self.sessions.pop(session.names.local_token, None)
        self.pending.pop(session.names.local_token, None)
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

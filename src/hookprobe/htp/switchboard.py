"""The diallers of an endpoint, by peer and by the token that answers will carry."""

from collections.abc import Callable

from hookprobe.htp.agenda import Agenda
from hookprobe.htp.effects import Effect, Transmit
from hookprobe.htp.handshake import Dial
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

DIAL = "dial"


class Switchboard:
    """Keeps tokens and timers of diallers in step with what they do.

    Args:
        agenda: The endpoint's timers.
    """

    __slots__ = ("_agenda", "_by_peer", "_by_token")

    def __init__(self, agenda: Agenda[tuple[str, str]]) -> None:
        self._agenda = agenda
        self._by_peer: dict[NodeId, Dial] = {}
        self._by_token: dict[bytes, Dial] = {}

    def add(self, dial: Dial) -> None:
        """Take a dialler in."""
        self._by_peer[dial.peer.node] = dial

    def find(self, node: NodeId) -> Dial | None:
        return self._by_peer.get(node)

    def by_token(self, token: bytes) -> Dial | None:
        return self._by_token.get(token)

    def remove(self, node: NodeId) -> None:
        """Forget the dialler of a peer, if there is one."""
        dial = self._by_peer.pop(node, None)
        if dial is not None:
            self._by_token.pop(dial.edge_token, None)
            self._agenda.discard((DIAL, node))

    def drive(
        self, dial: Dial, step: Callable[[Instant], list[Transmit]], now: Instant
    ) -> list[Effect]:
        """Let a dialler act, then follow its token and its timer."""
        before = dial.edge_token
        effects = step(now)
        self.follow(dial, before)
        return [*effects]

    def follow(self, dial: Dial, before: bytes) -> None:
        """Note the token a dialler uses now instead of `before`, and its next deadline."""
        self._by_token.pop(before, None)
        if dial.edge_token:
            self._by_token[dial.edge_token] = dial
        if dial.next_at is not None:
            self._agenda.set((DIAL, dial.peer.node), dial.next_at)

    def lose(self, node: NodeId, now: Instant) -> None:
        """Tell the dialler of a peer that its session is gone."""
        dial = self._by_peer.get(node)
        if dial is not None:
            before = dial.edge_token
            dial.lose(now)
            self.follow(dial, before)

"""What a validator thinks of its links: flood control and scores (DSM spec 2.10).

| offence | score |
|---|---|
| invalid signature, proof or chain link | -10 |
| malformed message | -10 |
| a limit passed | -2 |
| bulk that nobody asked for | -1 |
| request not answered | -2 |

Below -50 the link is closed for ten minutes; silence alone never goes below, for a peer behind a
partition is no offender. Scores recover by one a minute. Each link has token
buckets for messages, bytes, signature checks and what it is given in answers; what exceeds them is
dropped unread. Consensus
messages have buckets of their own, so that bulk cannot crowd out votes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, unique

from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.errors import LimitExceededError, RemoteError
from hookprobe.wire.bucket import Bucket
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, Instant

SCORE_MIN = -50
PENALTY_INVALID = 10
PENALTY_LIMIT = 2
PENALTY_UNREQUESTED = 1
PENALTY_SILENT = 2
BANNED_MAX = 4096


@unique
class Budget(Enum):
    """What a token bucket counts."""

    CONSENSUS = "consensus"
    MESSAGES = "messages"
    BYTES = "bytes"
    CHECKS = "checks"
    ANSWERS = "answers"


@dataclass(slots=True)
class Peer:
    """One connected peer."""

    node_id: NodeId
    place: int | None  # its number in the validator set; None for an edge
    buckets: dict[Budget, Bucket]
    score_at: Instant
    answered_at: Instant  # when it last got a finalisation for a late message
    score: int = 0


class PeerBook:
    """All connected peers, and those that are refused for a while."""

    def __init__(self, config: LedgerConfig) -> None:
        self.peers: dict[NodeId, Peer] = {}
        self._config = config
        self._banned: dict[NodeId, Instant] = {}
        self._offences: list[tuple[NodeId, RemoteError]] = []

    def admit(self, node_id: NodeId, place: int | None, now: Instant) -> Peer | None:
        """Take a new link; None when the peer is banned or too many edges are connected."""
        if self._banned.get(node_id, now) > now:
            return None
        self._banned.pop(node_id, None)
        edges = sum(peer.place is None for peer in self.peers.values())
        if place is None and edges >= self._config.edges_max and node_id not in self.peers:
            return None
        config = self._config
        rates = {
            Budget.CONSENSUS: config.messages_per_s,
            Budget.MESSAGES: config.messages_per_s,
            Budget.BYTES: config.bytes_per_s,
            Budget.CHECKS: config.checks_per_s,
            Budget.ANSWERS: config.answers_per_s,
        }
        buckets = {budget: Bucket(rate, rate, now) for budget, rate in rates.items()}
        peer = Peer(node_id, place, buckets, now, Instant(0))
        self.peers[node_id] = peer
        return peer

    def reseat(self, validators: ValidatorSet) -> None:
        """Give every connected peer its number in another validator set."""
        for peer in self.peers.values():
            peer.place = validators.place(peer.node_id)

    def remove(self, node_id: NodeId) -> None:
        self.peers.pop(node_id, None)

    def validators(self) -> list[NodeId]:
        """Return the connected validators, sorted."""
        return sorted(node for node, peer in self.peers.items() if peer.place is not None)

    def ranked(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Return those who are connected, the best scores first, else in the order given."""
        return sorted((node for node in nodes if node in self.peers), key=self._demerits)

    def _demerits(self, node: NodeId) -> int:
        return -self.peers[node].score

    def accuse(self, node_id: NodeId, error: RemoteError) -> None:
        """Note an offence that shows while its message is carried out; the ledger scores it."""
        self._offences.append((node_id, error))

    def take_offences(self) -> list[tuple[NodeId, RemoteError]]:
        """Return what was noted, and forget it."""
        offences, self._offences = self._offences, []
        return offences

    def silent(self, peer: Peer, now: Instant) -> None:
        """Lower the score of a peer that did not answer, but never so far as to ban it."""
        self._recover(peer, now)
        peer.score = max(SCORE_MIN, peer.score - PENALTY_SILENT)

    def _recover(self, peer: Peer, now: Instant) -> None:
        minutes = (now - peer.score_at) // MINUTE
        peer.score = min(0, peer.score + minutes)
        peer.score_at = Instant(peer.score_at + minutes * MINUTE)

    def penalise(self, peer: Peer, points: int, now: Instant) -> Instant | None:
        """Lower a score; returns until when the peer is banned, if it now is."""
        self._recover(peer, now)
        peer.score -= points
        if peer.score >= SCORE_MIN:
            return None
        until = Instant(now + self._config.disconnect_us)
        if len(self._banned) >= BANNED_MAX:
            del self._banned[next(iter(self._banned))]
        self._banned[peer.node_id] = until
        self.remove(peer.node_id)
        return until


def points_of(error: RemoteError) -> int:
    """Return what an offence costs."""
    if isinstance(error, LimitExceededError):
        return PENALTY_LIMIT
    if "not asked for" in error.message:
        return PENALTY_UNREQUESTED
    return PENALTY_INVALID

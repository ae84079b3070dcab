"""Validators and edges that do not keep the rules. Each holds its own keys only.

| actor | what it does |
|---|---|
| Silent | never says anything |
| Twins | two honest machines under one key, each talking to its part of the mesh: |
|  | equivocates, double votes, forks, forgets |
| Voter | votes for everything it hears of, and against it |
| Withholder | sends only some messages to only some peers and serves no ranges |
| Liar | reports heads that it does not hold, or none |
| Usurper | as leader proposes anew whatever was notarised before; also a Voter |
| Forger | sends votes, certificates and blocks that nobody signed, and packs with false ones |
"""

from collections.abc import Callable
from dataclasses import replace

from hookprobe.dsm.certificate import (
    NO_DIGEST,
    QuorumCertificate,
    VoteKind,
    encode_bitmap,
    vote_message,
)
from hookprobe.dsm.consensus import Simplex
from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.messages import (
    Blocks,
    CertificateMessage,
    GetRange,
    Message,
    Pack,
    Proposal,
    Vote,
)
from hookprobe.dsm.microblock import LaneKey
from hookprobe.dsm.store import Persist
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.dsm.voting import Voting
from hookprobe.sim.dice import Dice
from hookprobe.sim.disk import Disk
from hookprobe.sim.world import Machine
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant, earliest


class Silent:
    """Never says anything."""

    def start(self, now: Instant) -> list[Effect]:
        del now
        return []

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        del node_id, now
        return []

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        del node_id, now
        return []

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        del node_id, message, now
        return []

    def next_timeout(self) -> Instant | None:
        return None

    def handle_timeout(self, now: Instant) -> list[Effect]:
        del now
        return []


class Wrapped:
    """An honest machine whose effects pass through `bend`."""

    def __init__(self, inner: Machine) -> None:
        self.inner = inner

    def bend(self, effects: list[Effect], now: Instant) -> list[Effect]:
        del now
        return effects

    def start(self, now: Instant) -> list[Effect]:
        return self.bend(self.inner.start(now), now)

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        return self.bend(self.inner.peer_connected(node_id, now), now)

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        return self.bend(self.inner.peer_disconnected(node_id, now), now)

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        return self.bend(self.inner.receive_message(node_id, message, now), now)

    def next_timeout(self) -> Instant | None:
        return self.inner.next_timeout()

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return self.bend(self.inner.handle_timeout(now), now)


class Withholder(Wrapped):
    """Sends only some messages to only some peers."""

    def __init__(self, inner: Machine, dice: Dice) -> None:
        super().__init__(inner)
        self._dice = dice
        self._victims: dict[NodeId, bool] = {}

    def bend(self, effects: list[Effect], now: Instant) -> list[Effect]:
        del now
        kept: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send):
                victim = self._victims.setdefault(effect.peer, self._dice.chance(50))
                serves = isinstance(effect.message, Blocks | Pack)
                if serves or (victim and self._dice.chance(80)):
                    continue
            kept.append(effect)
        return kept


class Twins:
    """Two machines under one key.

    Args:
        build: Makes one machine over a disk.
        dice: Who hears whom.
    """

    def __init__(self, build: Callable[[Disk], Machine], dice: Dice) -> None:
        self._disks = (Disk(), Disk())
        self._pair = (build(self._disks[0]), build(self._disks[1]))
        self._dice = dice
        self._audience: dict[NodeId, int] = {}

    def _hears(self, which: int, peer: NodeId) -> bool:
        # 0 and 1: one twin only; 2: both.
        side = self._audience.setdefault(peer, self._dice.below(3))
        return side in (which, 2)

    def _bend(self, which: int, effects: list[Effect]) -> list[Effect]:
        sent: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Persist):
                self._disks[which].apply(effect)
            elif isinstance(effect, Send) and self._hears(which, effect.peer):
                sent.append(effect)
        return sent

    def start(self, now: Instant) -> list[Effect]:
        first = self._bend(0, self._pair[0].start(now))
        return first + self._bend(1, self._pair[1].start(now))

    def peer_connected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for which, machine in enumerate(self._pair):
            if self._hears(which, node_id):
                effects += self._bend(which, machine.peer_connected(node_id, now))
        return effects

    def peer_disconnected(self, node_id: NodeId, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for which, machine in enumerate(self._pair):
            effects += self._bend(which, machine.peer_disconnected(node_id, now))
        return effects

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for which, machine in enumerate(self._pair):
            if self._hears(which, node_id):
                effects += self._bend(which, machine.receive_message(node_id, message, now))
        return effects

    def next_timeout(self) -> Instant | None:
        return earliest(*(machine.next_timeout() for machine in self._pair))

    def handle_timeout(self, now: Instant) -> list[Effect]:
        effects: list[Effect] = []
        for which, machine in enumerate(self._pair):
            effects += self._bend(which, machine.handle_timeout(now))
        return effects

    def each(
        self, command: Callable[[Machine, Instant], list[Effect]], now: Instant
    ) -> list[Effect]:
        """Run a command on both."""
        effects: list[Effect] = []
        for which, machine in enumerate(self._pair):
            effects += self._bend(which, command(machine, now))
        return effects


class Voter(Wrapped):
    """Votes for everything it hears of, and against it, on top of an honest machine."""

    def __init__(self, inner: ValidatorLedger, dice: Dice) -> None:
        super().__init__(inner)
        self._ledger = inner
        self._dice = dice
        self._cast: dict[tuple[int, int, bytes], bool] = {}

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        effects = super().receive_message(node_id, message, now)
        match message:
            case Proposal():
                return effects + self._vote(message.epoch, message.view, message.checkpoint.hash)
            case Vote():
                return effects + self._vote(message.epoch, message.view, message.digest)
            case CertificateMessage(certificate):
                return effects + self._vote(certificate.epoch, certificate.view, certificate.digest)
            case _:
                return effects

    def bend(self, effects: list[Effect], now: Instant) -> list[Effect]:
        bent = list(effects)
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Proposal):
                proposal = effect.message
                bent += self._vote(proposal.epoch, proposal.view, proposal.checkpoint.hash)
        return super().bend(bent, now)

    def _vote(self, epoch: int, view: int, digest: bytes) -> list[Effect]:
        if not self._ledger.voting.seated:
            return []
        if digest == NO_DIGEST or (epoch, view, digest) in self._cast:
            return []
        self._cast[(epoch, view, digest)] = True
        ballots = [
            (VoteKind.NOTARIZE, digest),
            (VoteKind.FINALIZE, digest),
            (VoteKind.NULLIFY, NO_DIGEST),
        ]
        effects: list[Effect] = []
        for peer in self._ledger.peers.validators():
            for kind, value in ballots:
                if self._dice.chance(70):
                    effects.append(Send(peer, self._signed(kind, epoch, view, value)))
        return effects

    def _signed(self, kind: VoteKind, epoch: int, view: int, digest: bytes) -> Vote:
        message = vote_message(self._ledger.court.chain, kind, epoch, view, digest)
        seat = self._ledger.voting.seat
        return Vote(kind, epoch, view, digest, seat.place, seat.vote_signer.sign(message))


class LyingVoting(Voting):
    """Reports heads beyond what it holds for some chains and hides others."""

    def _heads(self) -> list[tuple[LaneKey, int]]:
        lies: list[tuple[LaneKey, int]] = []
        for place, (lane, seq) in enumerate(super()._heads()):
            turn = (self.epoch + place) % 3
            if turn == 0:
                lies.append((lane, seq + 1_000))
            elif turn == 1:
                lies.append((lane, seq))
        return sorted([*lies, ((NodeId("ghost"), 1), 7)])


class Liar(ValidatorLedger):
    """A validator that lies in its CUTs."""

    voting_type = LyingVoting


class UsurpingSimplex(Simplex):
    """Proposes anew, whatever was notarised before, and justifies nothing."""

    def _base_view(self) -> int | None:
        return 0

    def _justification(self, base: int) -> tuple[QuorumCertificate, ...]:
        del base
        return ()


class UsurpingVoting(Voting):
    """Runs the usurping machine."""

    simplex_type = UsurpingSimplex


class Usurper(ValidatorLedger):
    """A validator that proposes anew whatever was notarised before."""

    voting_type = UsurpingVoting


class Forger(Wrapped):
    """Adds votes, certificates and blocks that nobody signed."""

    def __init__(self, inner: ValidatorLedger, dice: Dice) -> None:
        super().__init__(inner)
        self._ledger = inner
        self._dice = dice
        self._answered: dict[tuple[int, int, int], bool] = {}

    def _first(self, vote: Vote) -> bool:
        """Forge once per slot, so that two forgers do not feed each other for ever."""
        slot = (vote.epoch, vote.view, vote.kind)
        return not self._answered.get(slot) and self._answered.setdefault(slot, True)

    def receive_message(self, node_id: NodeId, message: Message, now: Instant) -> list[Effect]:
        effects = super().receive_message(node_id, message, now)
        if isinstance(message, Vote) and self._ledger.voting.seated and self._first(message):
            place = self._ledger.voting.seat.place
            forged = replace(message, voter=place, signature=self._dice.bytes(96))
            effects += self._to_all(forged)
            if self._dice.chance(20):
                effects += self._to_all(CertificateMessage(self._certificate(message)))
        if isinstance(message, GetRange):
            effects = [item for item in effects if not isinstance(item, Send)]
        return effects

    def bend(self, effects: list[Effect], now: Instant) -> list[Effect]:
        del now
        return [self._tamper(effect) for effect in effects]

    def _tamper(self, effect: Effect) -> Effect:
        if isinstance(effect, Send) and isinstance(effect.message, Blocks):
            entries = tuple(
                replace(entry, signed=replace(entry.signed, signature=self._dice.bytes(64)))
                for entry in effect.message.entries
            )
            return Send(effect.peer, Blocks(effect.message.request, entries))
        if isinstance(effect, Send) and isinstance(effect.message, Pack):
            return Send(effect.peer, self._spoilt(effect.message))
        return effect

    def _spoilt(self, pack: Pack) -> Pack:
        """Give blocks that nobody checks at once signatures that nobody made."""
        last = len(pack.entries) - (1 if self._dice.chance(70) else 0)
        spoilt = [
            replace(entry, signed=replace(entry.signed, signature=self._dice.bytes(64)))
            for entry in pack.entries[:last]
        ]
        return replace(pack, entries=(*spoilt, *pack.entries[last:]))

    def _certificate(self, vote: Vote) -> QuorumCertificate:
        size = self._ledger.court.validators.size
        bitmap = encode_bitmap(range(size), size)
        return QuorumCertificate(
            vote.kind, vote.epoch, vote.view, vote.digest, bitmap, vote.signature
        )

    def _to_all(self, message: Message) -> list[Effect]:
        return [Send(peer, message) for peer in self._ledger.peers.validators()]

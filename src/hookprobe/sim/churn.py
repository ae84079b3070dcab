"""Changing the validator set while everything else goes wrong: applications, votes, rotations.

Candidates are honest nodes outside the set. Honest validators approve whom they see applying; some
runs also remove a member, let one resign, rotate a key, or have the authority revoke a node. What
is planned here is all that may happen to the set besides what evidence brings about.
"""

from dataclasses import dataclass, field

from hookprobe.dsm.effects import Effect, Observation, ValidatorApplied
from hookprobe.dsm.governance import Apply, Approve, Governance, Remove, revoke
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.errors import UnavailableError
from hookprobe.sim.dice import Dice
from hookprobe.sim.mesh import Mesh
from hookprobe.sim.world import Host, Machine, World
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Instant

CANDIDATES_MAX = 2


@dataclass(slots=True)
class Churn:
    """The operators of one run.

    Args:
        mesh: Keys and names.
        world: Where the hosts are.
        dice: Who does what when.
        calm_at: When the network has calmed down.
    """

    mesh: Mesh
    world: World
    dice: Dice
    calm_at: int
    candidates: tuple[NodeId, ...] = ()
    _approved: dict[tuple[NodeId, bytes], bool] = field(default_factory=dict)

    def draw(self) -> None:
        """Decide who may join; the scenario makes the hosts."""
        count = self.dice.between(1, CANDIDATES_MAX)
        self.candidates = tuple(NodeId(f"w{place:02}") for place in range(count))

    def plan(self, start: int) -> None:
        """Decide what happens to the set."""
        dice, names = self.dice, self.mesh.names
        for name in self.candidates:
            self._later(start, name, self._application(name))
        if dice.chance(50):
            target = dice.pick(names)
            for name in names:
                if name != target:
                    self._later(start, name, Remove(target))
        if dice.chance(40):
            name = dice.pick(names)
            self._later(start, name, self._application(name, "'"))
        if dice.chance(30):
            name = dice.pick((*names, *self.candidates))
            self._later(self.calm_at, name, Remove(name))
            if dice.chance(50):  # and comes back with the same keys, which must not work
                again = self._application(name)
                self.world.at(self.calm_at + 5_000 * MILLISECOND, lambda: self._act(name, again))
        if dice.chance(30):
            revoked = revoke(self.mesh.chain, NodeId("e01"), self.mesh.authority)
            self._later(start, dice.pick(names), revoked)

    def _later(self, start: int, name: NodeId, what: Governance) -> None:
        span = max(1, self.calm_at - start + 2_000 * MILLISECOND)
        self.world.at(start + self.dice.below(span), lambda: self._act(name, what))

    def _application(self, name: NodeId, suffix: str = "") -> Apply:
        voter = self.mesh.keys.vote_signer(name + suffix)
        return Apply(voter.public_key, voter.prove_possession())

    def _act(self, name: NodeId, what: Governance) -> None:
        host = self.world.hosts[name]
        if not host.honest:
            return
        if host.machine is None:  # an operator tries again when the node is back
            self.world.at(self.world.now + 500 * MILLISECOND, lambda: self._act(name, what))
            return

        def command(machine: Machine, now: Instant) -> list[Effect]:
            assert isinstance(machine, ValidatorLedger)
            try:
                return machine.act(what, now)
            except UnavailableError:
                return []

        self.world.act(host, command)

    def watch(self, host: Host, seen: Observation) -> None:
        """Let an honest validator's operator approve whom he sees applying."""
        if not isinstance(seen, ValidatorApplied):
            return
        key = (host.name, seen.application)
        if key in self._approved or host.name not in self.mesh.names:
            return
        self._approved[key] = True
        when = self.world.now + self.dice.below(1_000) * MILLISECOND
        self.world.at(when, lambda: self._act(host.name, Approve(seen.application)))

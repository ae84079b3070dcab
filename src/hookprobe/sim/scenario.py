"""One seed, one run: a mesh, its faults, its attackers, and whether everything held.

The seed decides the number of validators, who is Byzantine and how, delays, loss, partitions,
crashes between effects, clock skew and what the edges write. Until the network calms down only
safety is judged; afterwards every honest validator must make the wanted epochs final in time (I10).
"""

from collections.abc import Callable
from dataclasses import dataclass

from hookprobe.dsm.chain import Event
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.scribe import ChainHost
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.sim.byzantine import (
    Forger,
    Liar,
    Silent,
    Twins,
    Usurper,
    Voter,
    Withholder,
)
from hookprobe.sim.churn import Churn
from hookprobe.sim.dice import Dice
from hookprobe.sim.disk import Disk
from hookprobe.sim.invariants import Invariants
from hookprobe.sim.mesh import EPOCH_US, START, Keys, Mesh
from hookprobe.sim.misinformer import Misinformer
from hookprobe.sim.network import Network, Partition, Weather
from hookprobe.sim.world import Host, Machine, World
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Instant

CHURN_SALT = 0x9E3779B97F4A7C15
LIVENESS_US = 60 * SECOND
ROLES = ("silent", "twins", "voter", "withholder", "liar", "usurper", "forger")

CONFIG = LedgerConfig(
    view_timeout_us=400 * MILLISECOND,
    view_timeout_max_us=8 * SECOND,
    silent_leader_timeout_us=200 * MILLISECOND,
    silent_epochs=3,
    rebroadcast_us=600 * MILLISECOND,
    cut_grace_us=30 * MILLISECOND,
    epoch_gap_us=100 * MILLISECOND,
    quorum_alarm_us=5 * SECOND,
    have_us=100 * MILLISECOND,
    status_us=SECOND,
    request_timeout_us=250 * MILLISECOND,
    push_delay_us=20 * MILLISECOND,
    push_retry_us=300 * MILLISECOND,
    disconnect_us=2 * SECOND,
    recovery_wait_us=500 * MILLISECOND,
    # Chain time turns a page every second, so that runs of a dozen epochs prune.
    partition_us=SECOND,
    keep_blocks=9,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run may look like.

    Args:
        name: For the command line.
        sizes: Numbers of validators to choose from.
        epochs: How many epochs must become final.
        real: Ed25519 and BLS instead of simulated signatures.
        byzantine_extra: Byzantine validators beyond f; more than 0 must be able to break safety.
        roles: Kinds of Byzantine validators to choose from.
        config: Timers of all honest nodes.
        stormy: Whether there are network faults and crashes.
        fork_percent: How many of the edges are twins that fork their chain.
        churn_percent: In how many runs the validator set changes.
        churn_epochs: How many epochs such a run must make final.
        calm_delay_max_us: Largest delay after the network has calmed down.
    """

    name: str
    sizes: tuple[int, ...] = (4, 4, 4, 4, 4, 4, 4, 4, 7, 10)
    epochs: int = 3
    real: bool = False
    byzantine_extra: int = 0
    roles: tuple[str, ...] = ROLES
    config: LedgerConfig = CONFIG
    stormy: bool = True
    fork_percent: int = 20
    churn_percent: int = 0
    churn_epochs: int = 14
    calm_delay_max_us: int = 20_000


FAST = Profile("fast", churn_percent=3)
CHURN = Profile("churn", sizes=(4, 4, 4, 5, 7), churn_percent=100)
# Most epochs come after the storm, so that promptness is judged often.
CALM = Profile("calm", epochs=9, roles=(*ROLES, "misinformer", "misinformer"))
REAL = Profile("real", sizes=(4, 4, 4, 4, 4, 4, 7, 10), real=True, churn_percent=10)
PROFILES = {profile.name: profile for profile in (FAST, CALM, CHURN, REAL)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed."""

    seed: int
    trace_digest: str
    steps: int
    virtual_us: int
    epochs: int
    violations: tuple[str, ...]
    counts: tuple[tuple[str, int], ...]


class Scenario:
    """Sets up one run and judges it.

    Args:
        seed: Decides everything.
        profile: What it may look like.
        ledger_type: The validator to test; mutants are subclasses.
    """

    def __init__(
        self,
        seed: int,
        profile: Profile,
        ledger_type: type[ValidatorLedger] = ValidatorLedger,
    ) -> None:
        self.seed = seed
        self.profile = profile
        self._ledger_type = ledger_type
        self._dice = Dice(seed)
        dice = self._dice
        size = dice.pick(profile.sizes)
        self._mesh = Mesh(size, Keys(seed, real=profile.real))
        calm = START + EPOCH_US + (dice.between(1, 5) * SECOND if profile.stormy else 0)
        self._weather = self._draw_weather(calm)
        partitions = self._draw_partitions(calm)
        network = Network(Dice(dice.word()), self._weather, partitions)
        recode = 1 if profile.real else 37
        self.world = World(network, Dice(dice.word()), START, self._watch, recode)
        churns = Dice(seed ^ CHURN_SALT)
        self.churn = Churn(self._mesh, self.world, Dice(churns.word()), calm)
        if churns.chance(profile.churn_percent):
            self.churn.draw()
        self._amnesiac: tuple[NodeId, ...] = ()
        self._validators = self._make_validators()
        self._edges = self._make_edges()
        if self.churn.candidates:
            self.churn.plan(START + EPOCH_US // 2)
        # A view takes three delays; half of a timer is left for what has to be fetched.
        prompt = 6 * profile.calm_delay_max_us <= profile.config.view_timeout_us
        self.invariants = Invariants(
            self._validators, self._trusted(), self._mesh.genesis, calm if prompt else None
        )

    def _trusted(self) -> dict[str, bool]:
        return {
            host.name: True
            for host in self.world.hosts.values()
            if host.honest and host.name not in self._amnesiac
        }

    def _watch(self, host: Host, seen: Effect) -> None:
        self.invariants.note_time(host, seen, self.world.now)  # type: ignore[arg-type]
        self.invariants.watch(host, seen)  # type: ignore[arg-type]  # only observations come here
        self.churn.watch(host, seen)  # type: ignore[arg-type]

    def _draw_weather(self, calm: int) -> Weather:
        dice = self._dice
        if not self.profile.stormy:
            return Weather(calm, 20_000, 0, 0, self.profile.calm_delay_max_us)
        delay = dice.pick((5_000, 30_000, 30_000, 200_000, 600_000))
        loss, duplicates = dice.pick((0, 0, 5, 20)), dice.pick((0, 0, 10))
        return Weather(calm, delay, loss, duplicates, self.profile.calm_delay_max_us)

    def _draw_partitions(self, calm: int) -> tuple[Partition, ...]:
        if not self.profile.stormy:
            return ()
        partitions = []
        for _ in range(self._dice.below(3)):
            start = START + self._dice.below(calm - START)
            side = self._dice.sample(self._mesh.names, self._dice.between(1, 2))
            end = min(calm, start + self._dice.between(1, 20) * 100 * MILLISECOND)
            partitions.append(Partition(start, end, tuple(side)))
        return tuple(partitions)

    # -- hosts ------------------------------------------------------------------------------

    def _make_validators(self) -> list[Host]:
        dice, names = self._dice, self._mesh.names
        faults = (len(names) - 1) // 3
        count = faults if dice.chance(70) else dice.below(faults + 1)
        if self.profile.byzantine_extra:
            count = faults + self.profile.byzantine_extra
        traitors = dice.sample(names, count)
        # A validator whose disk falls back in time is one of the f: peers make it abstain, if
        # they saw it vote, and whether they are honest is not known.
        loyal = [name for name in names if name not in traitors]
        if count < faults and self.profile.stormy and dice.chance(25):
            self._amnesiac = (dice.pick(loyal),)
        hosts, everybody = [], (*names, *self.churn.candidates)
        for name in everybody:
            friends = tuple(other for other in everybody if other != name)
            traitor = name in traitors
            build = self._traitor(name) if traitor else self._honest_build(name)
            host = Host(name, build, not traitor, friends)
            if host.honest and self.profile.stormy:
                host.skew_us = dice.between(-100, 100) * MILLISECOND
                self._plan_crashes(host)
                self._plan_clock_step(host)
                if name in self._amnesiac:
                    self._plan_rollback(host, empty=dice.chance(50))
            self.world.add(host)
            hosts.append(host)
        return hosts

    def _honest_build(self, name: NodeId) -> Callable[[Disk], Machine]:
        return lambda disk: self._ledger(self._ledger_type, name, disk)

    def _ledger(
        self, ledger_type: type[ValidatorLedger], name: NodeId, disk: Disk
    ) -> ValidatorLedger:
        mesh, salt = self._mesh, Dice(self.seed * 131 + int.from_bytes(name.encode(), "big"))
        host = ChainHost(disk, salt.bytes)
        return ledger_type(
            mesh.genesis, mesh.validator_keys(name), mesh.keys.schemes, host, self.profile.config
        )

    def _traitor(self, name: NodeId) -> Callable[[Disk], Machine]:
        role = self._dice.pick(self.profile.roles)
        dice = Dice(self._dice.word())

        def build(disk: Disk) -> Machine:
            def honest(own: Disk) -> ValidatorLedger:
                return self._ledger(ValidatorLedger, name, own)

            match role:
                case "twins":
                    return Twins(honest, dice)
                case "voter":
                    return Voter(honest(disk), dice)
                case "withholder":
                    return Withholder(honest(disk), dice)
                case "liar":
                    return self._ledger(Liar, name, disk)
                case "usurper":
                    return Voter(self._ledger(Usurper, name, disk), dice)
                case "forger":
                    return Forger(honest(disk), dice)
                case "misinformer":
                    return Misinformer(honest(disk), dice)
                case _:
                    return Silent()

        return build

    def _plan_crashes(self, host: Host) -> None:
        dice = self._dice
        for _ in range(dice.pick((0, 0, 1, 2))):
            when = START + EPOCH_US // 2 + dice.below(self._weather.calm_at - START)

            def arm() -> None:
                host.crash_in = dice.between(1, 60)
                host.down_us = dice.between(50, 1_500) * MILLISECOND

            self.world.at(when, arm)

    def _plan_rollback(self, host: Host, *, empty: bool) -> None:
        """Lose a disk, or restore an old copy of it."""
        span = self._weather.calm_at - START
        first, second = sorted((self._dice.below(span), self._dice.below(span)))
        copies: list[Disk] = []
        if not empty:
            self.world.at(START + first, lambda: copies.append(host.disk.copy()))

        def lose() -> None:
            # Nobody puts a new disk in within the second that numbers an incarnation.
            host.down_us = max(host.down_us, 1_100 * MILLISECOND)
            self.world.crash(host)
            host.disk = copies[0] if copies else Disk()

        self.world.at(START + second + 1, lose)

    def _plan_clock_step(self, host: Host) -> None:
        """Set a clock wrong for a while; when the network calms down time is set right again."""
        if not self._dice.chance(15):
            return
        right, wrong = host.skew_us, self._dice.between(-3_000, 3_000) * MILLISECOND
        when = START + self._dice.below(self._weather.calm_at - START)
        self.world.at(when, lambda: self.world.set_clock(host, wrong))
        self.world.at(self._weather.calm_at, lambda: self.world.set_clock(host, right))

    def _make_edges(self) -> list[Host]:
        dice = self._dice
        hosts = []
        for place in range(dice.between(1, 2)):
            forks = dice.chance(self.profile.fork_percent)
            name = NodeId(f"e{place:02}")
            friends = tuple(dice.sample(self._mesh.names, 3))
            build = self._edge_build(name, twins=forks)
            host = Host(name, build, not forks, friends)
            if not forks and self.profile.stormy:
                self._plan_crashes(host)
                if dice.chance(10):
                    self._plan_rollback(host, empty=True)
            self.world.add(host)
            hosts.append(host)
            self._plan_events(host)
        return hosts

    def _edge_build(self, name: NodeId, *, twins: bool) -> Callable[[Disk], Machine]:
        mesh, salt = self._mesh, Dice(self._dice.word())
        keys = mesh.edge_keys(name)

        def build(disk: Disk) -> Machine:
            host = ChainHost(disk, salt.bytes)
            return EdgeLedger(mesh.genesis, keys, mesh.keys.schemes, host, self.profile.config)

        if twins:
            audience = Dice(self._dice.word())
            return lambda _disk: Twins(build, audience)
        return build

    def _plan_events(self, host: Host) -> None:
        """Let an edge write events now and then until after the network calmed down."""
        span = self._weather.calm_at - START + 2 * SECOND
        for number in range(self._dice.between(3, 8)):
            when = START + self._dice.below(span)
            event = Event("ids_alert", f"event {number} of {host.name}".encode())
            self.world.at(when, lambda event=event: self._write(host, event))  # type: ignore[misc]

    def _write(self, host: Host, event: Event) -> None:
        def append(machine: Machine, now: Instant) -> list[Effect]:
            if isinstance(machine, Twins):
                return machine.each(append, now)
            if isinstance(machine, EdgeLedger):
                return machine.append([event], now)
            return []

        self.world.act(host, append)

    # -- the run ----------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end of the wanted epochs, or to the bound of patience."""
        for host in list(self.world.hosts.values()):
            self.world.boot(host)
        end = self._weather.calm_at + LIVENESS_US
        finished = self.world.run_until(end, self._finished)
        if finished and not self.invariants.violations:
            self.invariants.conclude(self._edges, self._mesh.keys.schemes)
        violations = list(self.invariants.violations)
        if not finished and not violations and self._live():
            reached = {host.name: self._reached(host) for host in self._validators if host.honest}
            violations.append(f"I10: not all final in time: {reached}")
        return Outcome(
            self.seed,
            self.world.trace_digest(),
            self.world.steps,
            self.world.now - START,
            min(self._reached(host) for host in self._validators if host.honest),
            tuple(violations),
            tuple(sorted(self.invariants.counts.items())),
        )

    def _finished(self) -> bool:
        if self.invariants.violations:
            return True
        if self.world.now < self._weather.calm_at:
            return False
        wanted = self.profile.churn_epochs if self.churn.candidates else self.profile.epochs
        return all(self._reached(host) >= wanted for host in self._validators if host.honest)

    def _live(self) -> bool:
        """Whether the set that stopped last has no more traitors than it tolerates."""
        ledgers = [host.machine for host in self._validators if host.honest]
        latest = max(
            (ledger for ledger in ledgers if isinstance(ledger, ValidatorLedger)),
            key=lambda ledger: ledger.history.next_epoch,
            default=None,
        )
        if latest is None:
            return True
        return self.invariants.tolerates(latest.history.roll.at(latest.history.next_epoch))

    def _reached(self, host: Host) -> int:
        machine = host.machine
        return machine.history.next_epoch if isinstance(machine, ValidatorLedger) else 0


def run(
    seed: int,
    profile: Profile = FAST,
    ledger_type: type[ValidatorLedger] = ValidatorLedger,
) -> Outcome:
    """Run one seed."""
    return Scenario(seed, profile, ledger_type).run()

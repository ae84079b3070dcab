"""What must hold at every step of every run (DSM spec 2.11).

I1 agreement per epoch; I2 no NULLIFICATION and FINALIZATION in one view; I3 at most one notarised
digest per view, and none but the final one at or above the final view; I4 FINALIZATION implies
NOTARIZATION; I5 epochs contiguous, certificates with a quorum; I6 no honest key in evidence;
I7 every included block is held by f+1 honest validators, ranges without gap or repetition;
I8 what all honest CUTs of an epoch report is included; I9 once the network is calm, an epoch whose
first leader is honest is final in view 1 or 2; I14 queues and tables keep their bounds. Changes of
the set are judged by `succession` (S1 to S6). At the end I13: what edges export verifies, and every
honest validator's headers, kept for ever, still give its history root. I10, liveness, is judged by
the scenario.

The checker reads observations and, when an epoch becomes final, state and disks of honest hosts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hookprobe.crypto.merkle import CompactRange
from hookprobe.dsm.bundle import BundleVerifier, export_bundle
from hookprobe.dsm.checkpoint import FinalCheckpoint, Range
from hookprobe.dsm.content import VERDICTS_CACHED_MAX
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.edge import EdgeLedger
from hookprobe.dsm.effects import (
    CertificateFormed,
    CheckpointFinalized,
    EpochOpened,
    ForkDetected,
    MisbehaviourDetected,
    NodeQuarantined,
    Observation,
)
from hookprobe.dsm.genesis import FAULT_TOLERANT_MIN, Genesis
from hookprobe.dsm.gossip import EARLY_PAYLOADS_MAX, EVIDENCE_PENDING_MAX
from hookprobe.dsm.messages import HAVE_MAX
from hookprobe.dsm.microblock import NO_PARENT, LaneKey, decode_block, lane_row, verify_block
from hookprobe.dsm.misbehaviour import Verdict, judge
from hookprobe.dsm.roll import Roll
from hookprobe.dsm.store import Table
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.dsm.validators import ValidatorSet
from hookprobe.dsm.voting import EARLY_MAX
from hookprobe.errors import RemoteError
from hookprobe.sim.succession import Said, Succession
from hookprobe.sim.world import Host
from hookprobe.wire.instant import SECOND

SETTLING_US = 2 * SECOND  # the last late messages are in and clocks are right again
REJOINING_US = SECOND  # a validator that comes back has links and what it missed
ROWS_MAX = 100_000


@dataclass(slots=True)
class Ledger:
    """What the checker knows of the one agreed history."""

    finals: dict[int, bytes] = field(default_factory=dict)
    ends: dict[LaneKey, int] = field(default_factory=dict)
    heads: dict[LaneKey, bytes] = field(default_factory=dict)
    notarized: dict[tuple[int, int], bytes] = field(default_factory=dict)
    nullified: dict[tuple[int, int], bool] = field(default_factory=dict)
    finalized: dict[int, tuple[int, bytes]] = field(default_factory=dict)


class Invariants:
    """Checks I1 to I9, I13, I14 and the succession of validators.

    Args:
        validators: All validator hosts, honest and not, and candidates.
        honest_nodes: Names of all honest hosts, edges too.
        genesis: The mesh.
        calm_at: From when on honest leaders must succeed at once; None where timers are shorter
            than the network allows.
    """

    def __init__(
        self,
        validators: list[Host],
        honest_nodes: Mapping[str, bool],
        genesis: Genesis,
        calm_at: int | None,
    ) -> None:
        self.violations: list[str] = []
        self.counts: dict[str, int] = {}
        self._checked = 0
        self._validators = validators
        self._honest = [host for host in validators if host.honest]
        self._honest_nodes = honest_nodes
        self._genesis = genesis
        self._calm_at = calm_at
        self._ledger = Ledger()
        self._cuts: dict[int, dict[str, dict[LaneKey, int]]] = {}
        self._opened_at: dict[int, int] = {}
        self._succession = Succession(self._fail, 1 if genesis.dev else FAULT_TOLERANT_MIN)

    def watch(self, host: Host, seen: Observation) -> None:
        """Take an observation of an honest host."""
        name = type(seen).__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        match seen:
            case CertificateFormed():
                self._certificate(host, seen)
            case CheckpointFinalized():
                self._final(host, seen)
            case EpochOpened(epoch):
                self._opened(host, epoch)
            case MisbehaviourDetected(offender) | NodeQuarantined(offender):
                self._accused(offender)
            case ForkDetected(lane):
                self._accused(lane[0])
            case _:
                pass

    def _fail(self, text: str) -> None:
        self.violations.append(text)

    def _accused(self, offender: str) -> None:
        if offender in self._honest_nodes:
            self._fail(f"I6: honest {offender} is accused")

    def _certificate(self, host: Host, seen: CertificateFormed) -> None:
        ledger, slot = self._ledger, (seen.epoch, seen.view)
        if seen.voters < _roll(host).at(seen.epoch).quorum:
            self._fail(f"I5: {host.name} took a certificate of {seen.voters} voters")
        if seen.kind == "NOTARIZE":
            held = ledger.notarized.setdefault(slot, seen.header_hash)
            if held != seen.header_hash:
                self._fail(f"I3: two digests notarised in {slot}")
            final = ledger.finalized.get(seen.epoch)
            if final is not None and seen.view >= final[0] and seen.header_hash != final[1]:
                self._fail(f"I3: {slot} notarises another digest than the final one")
        elif seen.kind == "NULLIFY":
            ledger.nullified[slot] = True
            final = ledger.finalized.get(seen.epoch)
            if final is not None and final[0] == seen.view:
                self._fail(f"I2: {slot} is nullified and final")
        else:
            self._finalization(slot, seen.header_hash)

    def _finalization(self, slot: tuple[int, int], header_hash: bytes) -> None:
        ledger = self._ledger
        if slot in ledger.nullified:
            self._fail(f"I2: {slot} is nullified and final")
        if ledger.notarized.get(slot) != header_hash:
            self._fail(f"I4: {slot} is final without a NOTARIZATION")
        held = ledger.finalized.setdefault(slot[0], (slot[1], header_hash))
        if held[1] != header_hash:
            self._fail(f"I1: two digests final in epoch {slot[0]}")
        for (epoch, view), digest in ledger.notarized.items():
            if epoch == slot[0] and view >= slot[1] and digest != header_hash:
                self._fail(f"I3: view {view} of epoch {epoch} notarised another digest")

    def _opened(self, host: Host, epoch: int) -> None:
        machine = host.machine
        if isinstance(machine, ValidatorLedger):
            own = machine.judge.cuts.get(machine.voting.seat.place)
            if own is not None:
                self._cuts.setdefault(epoch, {}).setdefault(host.name, dict(own.cut.heads))

    def _final(self, host: Host, seen: CheckpointFinalized) -> None:
        ledger, epoch = self._ledger, seen.epoch
        if seen.voters < _roll(host).at(epoch).quorum:
            self._fail(f"I5: checkpoint {epoch} with {seen.voters} voters")
        held = ledger.finals.setdefault(epoch, seen.header_hash)
        if held != seen.header_hash:
            self._fail(f"I1: {host.name} finalises another checkpoint {epoch}")
        machine = host.machine
        if not isinstance(machine, ValidatorLedger):
            return
        # A crash may hide an observation, never the checkpoint: read what is not checked yet.
        while self._checked <= epoch:
            final = machine.history.checkpoint(self._checked)
            if final is None:
                self._fail(f"I5: {host.name} skips checkpoint {self._checked}")
                return
            self._link(final)
            self._content(final, machine.history.roll)
            self._checked += 1
        self._bounds(host.name, machine)

    def _link(self, final: FinalCheckpoint) -> None:
        header = final.checkpoint.header
        if header.epoch and header.prev != self._ledger.finals.get(header.epoch - 1):
            self._fail(f"I5: checkpoint {header.epoch} does not follow its predecessor")
        held = self._ledger.finals.setdefault(header.epoch, final.checkpoint.hash)
        if held != final.checkpoint.hash:
            self._fail(f"I1: two checkpoints {header.epoch}")

    def _content(self, final: FinalCheckpoint, roll: Roll) -> None:
        ledger, epoch = self._ledger, final.checkpoint.header.epoch
        before = dict(ledger.ends)
        members = roll.at(epoch)
        sitting = [host for host in self._honest if members.place(host.name) is not None]
        said: list[Said] = []
        for covered in final.checkpoint.content.ranges:
            if covered.first != ledger.ends.get(covered.lane, 0) + 1:
                self._fail(f"I7: gap or repetition of {covered.lane} in epoch {epoch}")
            ledger.ends[covered.lane] = covered.last
            key = lane_row(covered.lane) + covered.last.to_bytes(8, "big") + covered.head
            holders = [h for h in sitting if h.disk.get(Table.BLOCKS, key) is not None]
            if len(holders) <= members.faults:
                self._fail(f"I7: {covered.lane} of epoch {epoch}: {len(holders)} holders")
            elif not self._chained(holders, covered, said):
                self._fail(f"I7: {covered.lane} of epoch {epoch} is not one chain")
            ledger.heads[covered.lane] = covered.head
        self._inclusion(epoch, before)
        self._promptness(final, roll)
        self._succession.check(epoch, members, roll.at(epoch + 1))
        self._succession.learn(said, _verdicts(final, roll), roll.at(epoch + 1))

    def _chained(self, holders: list[Host], covered: Range, said: list[Said]) -> bool:
        """Follow the links of a range back to the head of the previous one."""
        wanted = covered.head
        bodies: list[Said] = []
        for seq in range(covered.last, covered.first - 1, -1):
            key = lane_row(covered.lane) + seq.to_bytes(8, "big") + wanted
            rows = [host.disk.get(Table.BLOCKS, key) for host in holders]
            found = next((row for row in rows if row is not None), None)
            if found is None:
                return False
            block = decode_block(found).block
            if block.body is not None:
                bodies.append(Said(block.node_id, wanted, block.body))
            wanted = block.prev
        said += reversed(bodies)
        return wanted == self._ledger.heads.get(covered.lane, NO_PARENT)

    def _inclusion(self, epoch: int, before: dict[LaneKey, int]) -> None:
        cuts = self._cuts.get(epoch, {})
        if not cuts:
            return
        for lane in min(cuts.values(), key=len):
            if lane[0] not in self._honest_nodes:
                continue
            held = min(heads.get(lane, before.get(lane, 0)) for heads in cuts.values())
            if self._ledger.ends.get(lane, 0) < held:
                self._fail(f"I8: {lane} up to {held} is missing in epoch {epoch}")

    def _promptness(self, final: FinalCheckpoint, roll: Roll) -> None:
        """I9: an honest first leader, all honest up, the network calm: no view is wasted."""
        epoch, validators = final.checkpoint.header.epoch, roll.at(final.checkpoint.header.epoch)
        leader = validators.ids[validators.leader(epoch, 1)]
        if self._calm_at is None or leader not in self._honest_nodes:
            return
        if not self.tolerates(validators) or not self._undisturbed(epoch, validators):
            return
        if final.certificate.view > 2:
            self._fail(f"I9: honest {leader} led epoch {epoch} to view {final.certificate.view}")

    def tolerates(self, validators: ValidatorSet) -> bool:
        """Tell whether a set is live: operators may remove honest members until f is too small.

        Seven tolerate two; without one honest member the six that are left tolerate only one, and
        agree no faster than the traitors let them. Safety is judged all the same.
        """
        traitors = [name for name in validators.ids if name not in self._honest_nodes]
        return len(traitors) <= validators.faults

    def _undisturbed(self, epoch: int, validators: ValidatorSet) -> bool:
        """Tell whether an epoch was opened in calm times with every honest member there.

        A crash is due after so many effects, so that the last ones fall into calm times.
        """
        assert self._calm_at is not None
        opened_at = self._opened_at.get(epoch, 0)
        members = [host for host in self._honest if validators.place(host.name) is not None]
        there = all(
            host.machine is not None and host.booted_at + REJOINING_US <= opened_at
            for host in members
        )
        return there and opened_at >= self._calm_at + SETTLING_US

    def note_time(self, host: Host, seen: Observation, now: int) -> None:
        """Note when the first honest validator opened an epoch."""
        if isinstance(seen, EpochOpened) and host.honest:
            self._opened_at.setdefault(seen.epoch, now)

    def _bounds(self, name: str, machine: ValidatorLedger) -> None:
        """I14."""
        config, gossip = machine._config, machine.gossip  # noqa: SLF001 (the judge may look)
        early = machine.voting._early.values()  # noqa: SLF001
        lanes = machine.book.lanes.values()
        measured = {
            "pulls": (len(gossip.puller), 2 * config.requests_max),
            "announcements": (len(gossip.announcements), HAVE_MAX),
            "packs": (len(machine.backlog.puller), config.requests_max),
            "evidence": (len(gossip.evidence), EVIDENCE_PENDING_MAX),
            "early payloads": (len(gossip._early_payloads), EARLY_PAYLOADS_MAX),  # noqa: SLF001
            "early messages": (max(map(len, early), default=0), EARLY_MAX),
            "verdicts": (len(machine.judge._verdicts), VERDICTS_CACHED_MAX),  # noqa: SLF001
            "wants": (len(machine.judge.wants), config.requests_max),
            "waiting": (max((len(lane.waiting) for lane in lanes), default=0), 256),
            "branches": (max((len(lane.known) for lane in lanes), default=0), 60_000),
        }
        for what, (count, limit) in measured.items():
            if count > limit:
                self._fail(f"I14: {name} holds {count} {what}, limit {limit}")

    def conclude(self, edges: list[Host], schemes: Schemes) -> None:
        """Judge what is left at the end (I13)."""
        verifier = BundleVerifier(schemes, self._genesis.chain_id())
        for host in edges:
            machine = host.machine
            if host.honest and isinstance(machine, EdgeLedger):
                proven = any(head.receipted for head in machine.chain.heads.values())
                if proven:
                    self._exports(host, verifier)
        for host in self._honest:
            if isinstance(host.machine, ValidatorLedger):
                self._headers(host, host.machine)
                self._signatures(host, host.machine)

    def _signatures(self, host: Host, machine: ValidatorLedger) -> None:
        """No false signature may be left in a store, unless it is still to be checked."""
        if machine.backlog.trusted or machine.backlog.missing:
            return
        for key, value in host.disk.scan(Table.BLOCKS, b"", b"\xff" * 80, ROWS_MAX):
            signed = decode_block(value)
            lane = machine.book.lanes.get(signed.lane)
            if lane is None or lane.enrolment is None or signed.seq > lane.final_seq:
                continue
            try:
                verify_block(signed, lane.enrolment.certificate.key, machine.book.signatures)
            except RemoteError:
                self._fail(f"I13: {host.name} keeps a false signature at {key.hex()}")

    def _exports(self, host: Host, verifier: BundleVerifier) -> None:
        try:
            verifier.check(export_bundle(self._genesis, host.name, host.disk))
        except RemoteError as error:
            self._fail(f"I13: what {host.name} exports does not verify: {error.message}")

    def _headers(self, host: Host, machine: ValidatorLedger) -> None:
        tree = CompactRange()
        for epoch in range(machine.history.next_epoch):
            sealed = machine.history.sealed(epoch)
            if sealed is None or sealed.header.history_root != tree.root():
                self._fail(f"I13: {host.name} lost header {epoch}")
                return
            tree.append(sealed.hash)


def _roll(host: Host) -> Roll:
    assert isinstance(host.machine, ValidatorLedger)
    return host.machine.history.roll


def _verdicts(final: FinalCheckpoint, roll: Roll) -> dict[bytes, Verdict]:
    epochs = range(final.checkpoint.header.epoch + 1)
    return {item: judge(item, roll, epochs) for item in final.checkpoint.content.evidence}

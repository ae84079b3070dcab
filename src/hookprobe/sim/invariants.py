"""What must hold at every step of every run (DSM spec 2.11).

I1 agreement per epoch; I2 no NULLIFICATION and FINALIZATION in one view; I3 at most one notarised
digest per view, and none but the final one at or above the final view; I4 FINALIZATION implies
NOTARIZATION; I5 epochs contiguous, certificates with a quorum; I6 no honest key in evidence;
I7 every included block is held by f+1 honest validators, ranges without gap or repetition;
I8 what all honest CUTs of an epoch report is included. I10, liveness, is judged by the scenario.

The checker reads observations and, when an epoch becomes final, state and disks of honest hosts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hookprobe.dsm.certificate import faults, quorum
from hookprobe.dsm.checkpoint import FinalCheckpoint, Range
from hookprobe.dsm.effects import (
    CertificateFormed,
    CheckpointFinalized,
    EpochOpened,
    ForkDetected,
    MisbehaviourDetected,
    NodeQuarantined,
    Observation,
)
from hookprobe.dsm.microblock import NO_PARENT, LaneKey, decode_block, lane_row
from hookprobe.dsm.store import Table
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.sim.world import Host


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
    """Checks I1 to I8.

    Args:
        validators: All validator hosts, honest and not.
        honest_nodes: Names of all honest hosts, edges too.
    """

    def __init__(self, validators: list[Host], honest_nodes: Mapping[str, bool]) -> None:
        self.violations: list[str] = []
        self.counts: dict[str, int] = {}
        self._checked = 0
        self._validators = validators
        self._honest = [host for host in validators if host.honest]
        self._honest_nodes = honest_nodes
        self._quorum = quorum(len(validators))
        self._faults = faults(len(validators))
        self._ledger = Ledger()
        self._cuts: dict[int, dict[str, dict[LaneKey, int]]] = {}

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
        if seen.voters < self._quorum:
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
            place = machine.court.validators.place(host.name)
            own = machine.judge.cuts.get(place if place is not None else -1)
            if own is not None:
                self._cuts.setdefault(epoch, {}).setdefault(host.name, dict(own.cut.heads))

    def _final(self, host: Host, seen: CheckpointFinalized) -> None:
        ledger, epoch = self._ledger, seen.epoch
        if seen.voters < self._quorum:
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
            self._content(final)
            self._checked += 1

    def _link(self, final: FinalCheckpoint) -> None:
        header = final.checkpoint.header
        if header.epoch and header.prev != self._ledger.finals.get(header.epoch - 1):
            self._fail(f"I5: checkpoint {header.epoch} does not follow its predecessor")
        held = self._ledger.finals.setdefault(header.epoch, final.checkpoint.hash)
        if held != final.checkpoint.hash:
            self._fail(f"I1: two checkpoints {header.epoch}")

    def _content(self, final: FinalCheckpoint) -> None:
        ledger, epoch = self._ledger, final.checkpoint.header.epoch
        before = dict(ledger.ends)
        for covered in final.checkpoint.content.ranges:
            if covered.first != ledger.ends.get(covered.lane, 0) + 1:
                self._fail(f"I7: gap or repetition of {covered.lane} in epoch {epoch}")
            ledger.ends[covered.lane] = covered.last
            key = lane_row(covered.lane) + covered.last.to_bytes(8, "big") + covered.head
            holders = [h for h in self._honest if h.disk.get(Table.BLOCKS, key) is not None]
            if len(holders) <= self._faults:
                self._fail(f"I7: {covered.lane} of epoch {epoch}: {len(holders)} holders")
            elif not self._chained(holders, covered):
                self._fail(f"I7: {covered.lane} of epoch {epoch} is not one chain")
            ledger.heads[covered.lane] = covered.head
        self._inclusion(epoch, before)

    def _chained(self, holders: list[Host], covered: Range) -> bool:
        """Follow the links of a range back to the head of the previous one."""
        wanted = covered.head
        for seq in range(covered.last, covered.first - 1, -1):
            key = lane_row(covered.lane) + seq.to_bytes(8, "big") + wanted
            rows = [host.disk.get(Table.BLOCKS, key) for host in holders]
            found = next((row for row in rows if row is not None), None)
            if found is None:
                return False
            wanted = decode_block(found).block.prev
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

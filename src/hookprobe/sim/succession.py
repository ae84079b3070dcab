"""Whether every change of the validator set was lawful, judged without the registry's code.

From the blocks and evidence of final checkpoints alone, for the header of epoch e (which names the
set of e+1) against what was final up to epoch e-1:

S1 at most max(1, f) members differ; S2 never fewer than four; S3 who joins has applied with that
very key and q members approved; S4 who leaves was convicted, left himself or q members voted so;
S5 a key that left never returns; S6 who changes his vote key applied for it; S7 who is convicted
goes as soon as S1 and S2 let him.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hookprobe.dsm.misbehaviour import Verdict
from hookprobe.dsm.validators import ValidatorEntry, ValidatorSet
from hookprobe.wire.canonical import JsonObject


@dataclass(frozen=True, slots=True)
class Said:
    """A governance body in a final block."""

    node: str
    block_id: bytes
    body: JsonObject


@dataclass(slots=True)
class Succession:
    """Follows the sets of one run.

    Args:
        fail: Takes what is wrong.
        least: The fewest members allowed.
    """

    fail: Callable[[str], None]
    least: int
    applied: dict[bytes, tuple[str, object]] = field(default_factory=dict)
    approvals: dict[bytes, set[str]] = field(default_factory=dict)
    removals: dict[str, set[str]] = field(default_factory=dict)
    convicted: set[str] = field(default_factory=set)
    decided: set[object] = field(default_factory=set)
    left: set[bytes] = field(default_factory=set)

    def check(self, epoch: int, before: ValidatorSet, after: ValidatorSet) -> None:
        """Judge the change that the header of an epoch makes."""
        differ = _differing(before, after)
        room = len(differ) < max(1, before.faults) and after.size > self.least
        if room and self.convicted & set(after.ids):
            self.fail(f"S7: epoch {epoch} keeps {self.convicted & set(after.ids)}")
        if before.hash == after.hash:
            return
        if len(differ) > max(1, before.faults):
            self.fail(f"S1: epoch {epoch} changes {len(differ)} of {before.size}")
        if after.size < min(self.least, before.size):
            self.fail(f"S2: epoch {epoch} leaves {after.size} members")
        for name in sorted(differ):
            self._judge(epoch, before.entry(name), after.entry(name))
        keys = {key for entry in after.members for key in (entry.key, entry.vote_key)}
        if keys & self.left:
            self.fail(f"S5: epoch {epoch} brings back a key that left")
        gone = {key for entry in before.members for key in (entry.key, entry.vote_key)} - keys
        self.left |= gone

    def _judge(self, epoch: int, old: ValidatorEntry | None, new: ValidatorEntry | None) -> None:
        if new is None:
            assert old is not None
            if old.validator_id not in self.convicted | self.decided:
                self.fail(f"S4: {old.validator_id} is removed in epoch {epoch} for nothing")
            return
        applications = [
            block_id
            for block_id, (node, key) in self.applied.items()
            if node == new.validator_id and key == new.vote_key.hex()
        ]
        if not applications:
            self.fail(f"{'S6' if old else 'S3'}: {new.validator_id} did not apply in {epoch}")
        elif old is None and not self.decided & set(applications):
            self.fail(f"S3: {new.validator_id} joins in epoch {epoch} unapproved")

    def learn(
        self, said: Sequence[Said], verdicts: Mapping[bytes, Verdict], members: ValidatorSet
    ) -> None:
        """Take what an epoch made final; `members` is the set that may vote on it."""
        self._note(said, verdicts)
        for about, voters in (*self.approvals.items(), *self.removals.items()):
            if len(voters & set(members.ids)) >= members.quorum or about in voters:
                self.decided.add(about)

    def _note(self, said: Sequence[Said], verdicts: Mapping[bytes, Verdict]) -> None:
        self.convicted |= {verdict.offender for verdict in verdicts.values()}
        for item in said:
            match item.body.get("kind"):
                case "apply":
                    self.applied[item.block_id] = (item.node, item.body.get("vote_key"))
                case "approve":
                    block_id = bytes.fromhex(str(item.body.get("application")))
                    self.approvals.setdefault(block_id, set()).add(item.node)
                case "remove":
                    target = str(item.body.get("validator"))
                    self.removals.setdefault(target, set()).add(item.node)
                case _:
                    pass


def _differing(before: ValidatorSet, after: ValidatorSet) -> list[str]:
    names = dict.fromkeys([*before.ids, *after.ids])
    return [name for name in names if before.entry(name) != after.entry(name)]

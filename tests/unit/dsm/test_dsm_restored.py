"""A validator whose ledger was put back from a copy, in a mesh that has forgotten what it saw."""

import copy
from dataclasses import dataclass, field

import pytest
from tests.unit.dsm.kit import NOW, Net, mesh_of
from tests.unit.dsm.ledger_net import V0, V1, V2, V3, validator

from hookprobe.dsm.effects import Effect, Send, VotingSuspended
from hookprobe.dsm.messages import CutMessage, Proposal, Vote
from hookprobe.dsm.store import MemoryStore, Persist
from hookprobe.dsm.votelog import abstain_row
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

EVERYBODY = (V0, V1, V2, V3)


@dataclass(slots=True)
class Overheard(Net):
    """Keeps what V1 signed, by what it may sign only once."""

    signed: dict[tuple[str, int, int], set[bytes]] = field(default_factory=dict)

    def execute(self, name: NodeId, effects: list[Effect]) -> None:
        for effect in effects:
            if name == V1 and isinstance(effect, Send):
                self._note(effect)
        Net.execute(self, name, effects)

    def _note(self, effect: Send) -> None:
        match effect.message:
            case CutMessage(signed):
                self.add("cut", signed.cut.epoch, 0, signed.id)
            case Vote() as vote if vote.voter == 1:
                self.add(vote.kind.name, vote.epoch, vote.view, vote.digest)
            case Proposal() as told:
                self.add("proposal", told.epoch, told.view, told.checkpoint.hash)
            case _:
                pass

    def add(self, kind: str, epoch: int, view: int, what: bytes) -> None:
        self.signed.setdefault((kind, epoch, view), set()).add(what)

    def contradictions(self) -> list[tuple[str, int, int]]:
        return [place for place, said in self.signed.items() if len(said) > 1]


def restored(until: int | None) -> tuple[Overheard, int]:
    """Run, copy the ledger of V1, run on, lose all power, start with the copy; return the epoch."""
    net = Overheard(mesh_of())
    net.add_validators()
    net.run(NOW + 4 * SECOND)
    backup: MemoryStore = copy.deepcopy(net.stores[V1])
    net.run(net.now + 6 * SECOND)
    reached = validator(net, V0).history.next_epoch
    for name in EVERYBODY:
        net.kill(name)
    if until is not None:
        backup.apply(Persist((abstain_row(until),)))
    net.stores[V1] = backup
    # V1 hears the others before it hears of what they made without it.
    for name in EVERYBODY:
        net.boot_validator(name)
    net.run(net.now + 12 * SECOND)
    return net, reached


@pytest.mark.parametrize("ahead", [2, 5])
def test_a_restored_validator_signs_nothing_that_it_may_have_signed(ahead: int) -> None:
    _, reached = restored(None)
    net, _ = restored(reached + ahead)
    assert net.contradictions() == []
    told = [item for item in net.of(VotingSuspended, V1) if isinstance(item, VotingSuspended)]
    assert reached + ahead in [item.until for item in told]
    assert validator(net, V1).history.last_hash == validator(net, V0).history.last_hash
    again = [epoch for _, epoch, _ in net.signed if epoch >= reached + ahead]
    assert again, "it votes again when its time has come"
    between = [epoch for _, epoch, _ in net.signed if reached < epoch < reached + ahead]
    assert between == []


def test_without_the_row_it_contradicts_itself() -> None:
    """The danger is real: this is what the row is for."""
    net, _ = restored(None)
    assert net.contradictions()


def test_the_row_is_read_at_every_start() -> None:
    net = Overheard(mesh_of())
    net.stores[V1] = MemoryStore()
    net.stores[V1].apply(Persist((abstain_row(1_000),)))
    net.add_validators()
    net.run(Instant(NOW + 8 * SECOND))
    net.kill(V1)
    net.boot_validator(V1)
    net.run(net.now + 8 * SECOND)
    assert net.signed == {}
    assert validator(net, V1).history.next_epoch > 3

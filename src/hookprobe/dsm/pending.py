"""What waits for agreement: blocks without a checkpoint, and the state of the open epoch.

The documents call it pending validations. All of it is a view of what the machines hold anyway:
nothing is decided from it, and losing it loses nothing.
"""

from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.wire.canonical import Json, JsonObject

CHAINS_SHOWN_MAX = 256


def pending_of(ledger: ValidatorLedger) -> JsonObject:
    """Return what waits at one validator.

    Returns:
        epoch: the epoch to be decided next; opened_at: since when, microseconds, or null;
        view: of the open epoch, 0 before; cuts: whose CUTs are here; voters: how many voted;
        incomplete: how many final epochs have blocks that are not here yet: until they are,
        the validator neither proposes nor votes;
        blocks, chains: how many blocks wait, of how many chains; first of them by chain.
    """
    voting, validators = ledger.voting, ledger.court.validators
    waiting: list[Json] = []
    chains, blocks = ledger.book.advanced(), 0
    for number, (key, head) in enumerate(chains):
        first = ledger.book.lanes[key].final_seq + 1
        blocks += head - first + 1
        if number < CHAINS_SHOWN_MAX:
            waiting.append({"from": first, "inc": key[1], "node_id": key[0], "to": head})
    cuts: list[Json] = [validators.ids[place] for place in sorted(ledger.judge.cuts)]
    return {
        "epoch": voting.epoch,
        "opened_at": voting.opened_at,
        "view": voting.simplex.view,
        "cuts": cuts,
        "voters": voting.simplex.heard,
        "incomplete": ledger.history.next_epoch - ledger.history.registry.next_epoch,
        "blocks": blocks,
        "chains": len(chains),
        "waiting": waiting,
    }

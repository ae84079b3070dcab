"""A validator that votes as it should and lies in all else: what it holds, has and has seen.

It announces blocks that nobody wrote, answers requests with nothing, with a part or with stale
things, and says of others' keys and of histories what it never saw. None of that may cost an honest
validator a view, its place in the agreement, or its own chain.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.messages import (
    Blocks,
    Changes,
    Checkpoints,
    Have,
    HeadsReply,
    Message,
    Pack,
    Receipt,
    Relics,
    Status,
)
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.sim.byzantine import Wrapped
from hookprobe.sim.dice import Dice
from hookprobe.wire.instant import Instant

Item = TypeVar("Item")


class Misinformer(Wrapped):
    """An honest machine whose answers and announcements are bent.

    Args:
        inner: The honest machine.
        dice: Which lie is told when.
    """

    def __init__(self, inner: ValidatorLedger, dice: Dice) -> None:
        super().__init__(inner)
        self._dice = dice

    def bend(self, effects: list[Effect], now: Instant) -> list[Effect]:
        del now
        told: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send):
                message = self._lie(effect.message)
                if message is not None:
                    told.append(Send(effect.peer, message))
            else:
                told.append(effect)
        return told

    def _lie(self, message: Message) -> Message | None:
        """Return what is said instead; None for nothing."""
        dice = self._dice
        match message:
            case Have(heads):
                return Have(tuple((lane, seq + self._excess()) for lane, seq in heads))
            case Blocks(request, blocks):
                return Blocks(request, self._part(blocks)) if dice.chance(70) else None
            case Pack(request, lane, packed):
                return Pack(request, lane, self._part(packed)) if dice.chance(70) else None
            case Checkpoints(items):
                return Checkpoints(self._part(items))
            case Changes(items):
                return Changes(self._part(items))
            case Relics():
                return replace(message, blocks=self._part(message.blocks))
            case HeadsReply(heads):
                return HeadsReply(
                    tuple(replace(head, seq=head.seq + self._excess()) for head in heads)
                )
            case Status():
                return replace(
                    message,
                    next_epoch=message.next_epoch + self._excess(),
                    heads_hash=dice.bytes(32),
                    seen_epochs=message.seen_epochs + self._excess(),
                )
            case Receipt():
                return replace(message, start=message.start + self._excess())
            case _:
                return message

    def _excess(self) -> int:
        return self._dice.pick((0, 0, 1, 2, 40))

    def _part(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Return all of them, none, a few, or all in the wrong order."""
        dice = self._dice
        cut = dice.below(len(items) + 1)
        parts = (items, (), items[:cut], items[cut:], items[::-1])
        return tuple(dice.pick(parts))

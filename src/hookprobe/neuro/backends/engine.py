"""What a backend is: the weights of one device and the arithmetic over them.

A backend never hashes and never sees a record. It gets the examples that the records led to,
packed, and changes its weights; every backend reaches the same weights (HP-NEURO-1 7.3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Examples:
    """The lessons of n consecutive records.

    Attributes:
        draws: n x 192 bytes, `network.draw` of each chain value.
        selections: n x 32 bytes, `network.selection` of each measurement.
        penalties: n values k in Q16.16.
        rates: n values eta in units of 2^-32.
    """

    draws: bytes
    selections: bytes
    penalties: Sequence[int]
    rates: Sequence[int]


class Engine(Protocol):
    """The weights of one device."""

    def run(self, examples: Examples) -> None:
        """Make one gradient step for each example, in order."""

    def output(self, x: Sequence[int]) -> list[int]:
        """Return the 32 raw outputs of L_X_SIG_07 for 64 inputs, in Q16.16."""

    def masters(self) -> bytes:
        """Return all weights as big-endian int64, in the order of `weights.encode_weights`."""

    def copy(self) -> "Engine":
        """Return an independent copy."""


# Makes an engine from the bytes that `masters` returned; MalformedError for any other bytes.
EngineFactory = Callable[[bytes], Engine]

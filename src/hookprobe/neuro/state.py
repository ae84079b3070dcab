"""A device's NEURO state: the secret chain, the weights, and what is published of them.

    c             = SHA-256(TAG"C" || c || TER)                     secret, one step per record
    w_root        = SHA-512(TAG"W" || weights)                      secret
    w_fingerprint = SHA-512(TAG"FP" || w_root || c)                 public, 64 bytes
    K             = HMAC-SHA256(c, TAG"K" || w_root)                secret

`advance` is the whole evolution: whoever holds the seed and the exact records reaches the same
state, nobody else does. Append a record durably before applying it.
"""

import functools
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hookprobe.errors import LocalError
from hookprobe.neuro import network
from hookprobe.neuro.backends.engine import Engine, EngineFactory, Examples
from hookprobe.neuro.backends.pure_engine import PureEngine
from hookprobe.neuro.fixedpoint import learning_rate
from hookprobe.neuro.ter import Ter
from hookprobe.neuro.weights import (
    TAG,
    encode_weights,
    initial_chain,
    initial_weights,
    weight_root,
)

# Measurements change rarely: most records of a device ask for the same selection.
_selection = functools.lru_cache(maxsize=4096)(network.selection)


@dataclass(frozen=True, slots=True)
class Commitments:
    """What one state publishes (`w_fingerprint`) and keeps (`key`)."""

    w_fingerprint: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """What a state consists of; `engine` and `chain` are secret.

    Attributes:
        engine: The weights.
        chain: c, 32 bytes.
        count: Records applied.
        previous: The last one; None exactly while `count` is 0.
    """

    engine: Engine
    chain: bytes
    count: int
    previous: Ter | None

    def __repr__(self) -> str:
        return f"Parts(count={self.count})"


class NeuroState:
    """Weights and chain after `count` records.

    Args:
        start: A 32-byte seed from `weights.derive_seed`, or the parts of an earlier state.
        engine: The backend for a seed; see `backends.selection`.
    """

    __slots__ = ("_chain", "_commitments", "_count", "_engine", "_previous")

    def __init__(self, start: bytes | Parts, engine: EngineFactory = PureEngine) -> None:
        if isinstance(start, bytes):
            weights = engine(encode_weights(initial_weights(start)))
            start = Parts(weights, initial_chain(start), 0, None)
        self._engine = start.engine
        self._chain = start.chain
        self._count = start.count
        self._previous = start.previous
        self._commitments: Commitments | None = None

    @property
    def chain(self) -> bytes:
        """c: 32 secret bytes."""
        return self._chain

    @property
    def count(self) -> int:
        """Records applied so far; the last one has index count - 1."""
        return self._count

    @property
    def previous(self) -> Ter | None:
        """The last record applied."""
        return self._previous

    def masters(self) -> bytes:
        """Return all weights as big-endian int64; secret."""
        return self._engine.masters()

    def output(self, x: Sequence[int]) -> list[int]:
        """Return the raw output of L_X_SIG_07 for 64 inputs; secret."""
        return self._engine.output(x)

    def copy(self) -> "NeuroState":
        """Return an independent copy."""
        return NeuroState(Parts(self._engine.copy(), self._chain, self._count, self._previous))

    def apply(self, ter: Ter) -> None:
        """Evolve by one record.

        Raises:
            LocalError: The record's time does not increase.
        """
        self.advance([ter])

    def advance(self, ters: Iterable[Ter]) -> None:
        """Evolve by records in order; nothing changes if one of them is refused.

        Raises:
            LocalError: A record's time does not increase.
        """
        chain, previous, count = self._chain, self._previous, 0
        draws, selections, penalties, rates = [], [], [], []
        for ter in ters:
            rates.append(learning_rate(_span(previous, ter)))
            chain = hashlib.sha256(TAG + b"C" + chain + ter.encode()).digest()
            draws.append(network.draw(chain))
            selections.append(_selection(ter.h_integrity))
            penalties.append(network.penalty(ter.h_integrity))
            previous, count = ter, count + 1
        if not count:
            return
        self._engine.run(Examples(b"".join(draws), b"".join(selections), penalties, rates))
        self._chain, self._previous = chain, previous
        self._count += count
        self._commitments = None

    def commitments(self) -> Commitments:
        """Return fingerprint and key of this state (HP-NEURO-1 7.4); hashed once per record."""
        if self._commitments is None:
            root = weight_root(self._engine.masters())
            self._commitments = Commitments(
                w_fingerprint=hashlib.sha512(TAG + b"FP" + root + self._chain).digest(),
                key=hmac.digest(self._chain, TAG + b"K" + root, "sha256"),
            )
        return self._commitments


def _span(previous: Ter | None, ter: Ter) -> int:
    if previous is None:
        return 0
    if ter.timestamp <= previous.timestamp:
        raise LocalError("NEURO: record times must increase")
    return ter.timestamp - previous.timestamp

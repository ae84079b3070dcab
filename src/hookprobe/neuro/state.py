"""A device's NEURO state: the secret chain, the weights, and what is published of them.

    c             = SHA-256(TAG"C" || c || TER)                     secret, one step per record
    w_root        = SHA-512(TAG"W" || weights)                      secret
    w_fingerprint = SHA-512(TAG"FP" || w_root || c)                 public, 64 bytes
    K             = HMAC-SHA256(c, TAG"K" || w_root)                secret

`apply` is the whole evolution: whoever holds the seed and the exact records reaches the same
state, nobody else does. Append the record durably before applying it.
"""

import copy
import hashlib
import hmac
from dataclasses import dataclass

from hookprobe.errors import LocalError
from hookprobe.neuro import network
from hookprobe.neuro.fixedpoint import learning_rate
from hookprobe.neuro.ter import Ter
from hookprobe.neuro.weights import (
    TAG,
    Weights,
    initial_chain,
    initial_weights,
    weight_root,
)


@dataclass(frozen=True, slots=True)
class Commitments:
    """What one state publishes (`w_fingerprint`) and keeps (`key`)."""

    w_fingerprint: bytes
    key: bytes


class NeuroState:
    """Weights and chain after `count` records.

    Args:
        seed: 32 bytes from `weights.derive_seed`.
    """

    __slots__ = ("_chain", "_commitments", "_count", "_layers", "_previous_us")

    def __init__(self, seed: bytes) -> None:
        self._chain = initial_chain(seed)
        self._layers = initial_weights(seed)
        self._count = 0
        self._previous_us: int | None = None
        self._commitments: Commitments | None = None

    @property
    def chain(self) -> bytes:
        """c: 32 secret bytes."""
        return self._chain

    @property
    def layers(self) -> Weights:
        return self._layers

    @property
    def count(self) -> int:
        """Records applied so far; the last one has index count - 1."""
        return self._count

    def copy(self) -> "NeuroState":
        """Return an independent copy (a snapshot)."""
        return copy.deepcopy(self)

    def apply(self, ter: Ter) -> network.Activations:
        """Evolve by one record; return what the network computed on the way.

        Raises:
            LocalError: The record's time does not increase.
        """
        dt_us = 0 if self._previous_us is None else ter.timestamp - self._previous_us
        if dt_us < 0 or (dt_us == 0 and self._previous_us is not None):
            raise LocalError("NEURO: record times must increase")
        self._chain = hashlib.sha256(TAG + b"C" + self._chain + ter.encode()).digest()
        example = network.drive(self._chain, ter.h_integrity)
        seen = network.step(self._layers, example, learning_rate(dt_us))
        self._previous_us = ter.timestamp
        self._count += 1
        self._commitments = None
        return seen

    def commitments(self) -> Commitments:
        """Return fingerprint and key of this state (HP-NEURO-1 7.4); hashed once per record."""
        if self._commitments is None:
            root = weight_root(self._layers)
            self._commitments = Commitments(
                w_fingerprint=hashlib.sha512(TAG + b"FP" + root + self._chain).digest(),
                key=hmac.digest(self._chain, TAG + b"K" + root, "sha256"),
            )
        return self._commitments

"""A NEURO state as bytes, to be kept and continued from (HP-NEURO-1 7.4).

    off     len field
      0       4  "HPNS"
      4       1  version 1
      5       4  weight epoch
      9       8  records applied
     17      64  the last of them; zero bytes when there is none
     81      32  c
    113 149,248  weights, big-endian int64
          32     SHA-256 of everything before

The hash finds torn and damaged files, not forgers: a snapshot is as secret as the seed and belongs
where the keys are. It never travels; a verifier rebuilds the state from records.
"""

import hashlib
from dataclasses import dataclass

from hookprobe.errors import MalformedError
from hookprobe.neuro import ter
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.backends.pure_engine import PureEngine
from hookprobe.neuro.state import NeuroState, Parts
from hookprobe.neuro.ter import SEQUENCE_PERIOD, TER_BYTES
from hookprobe.neuro.weights import MASTERS_BYTES
from hookprobe.wire.reader import Reader, Writer

SNAPSHOT_BYTES = 113 + MASTERS_BYTES + 32

_MAGIC = b"HPNS"
_VERSION = 1
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state and the epoch it belongs to."""

    epoch: int
    state: NeuroState


def encode(snapshot: Snapshot) -> bytes:
    """Return the bytes of a snapshot; secret."""
    state = snapshot.state
    last = bytes(TER_BYTES) if state.previous is None else state.previous.encode()
    body = (
        Writer()
        .put(_MAGIC)
        .u8(_VERSION)
        .u32(snapshot.epoch)
        .u64(state.count)
        .put(last)
        .put(state.chain)
        .put(state.masters())
        .finish()
    )
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, engine: EngineFactory = PureEngine) -> Snapshot:
    """Read what `encode` returned.

    Args:
        data: The bytes.
        engine: The backend that continues.

    Raises:
        MalformedError: Not a whole snapshot, or its parts contradict each other.
    """
    body, stated = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if len(data) != SNAPSHOT_BYTES or hashlib.sha256(body).digest() != stated:
        raise MalformedError("NEURO snapshot: torn or damaged", hint="take the one before it")
    reader = Reader(body, "NEURO snapshot")
    if reader.take(len(_MAGIC)) != _MAGIC or reader.u8() != _VERSION:
        raise MalformedError("NEURO snapshot: another format or version")
    epoch, count = reader.u32(), reader.u64()
    last = ter.decode(reader.take(TER_BYTES)) if count else None
    if last is None:
        reader.take(TER_BYTES)
    elif last.sequence != (count - 1) % SEQUENCE_PERIOD:
        raise MalformedError("NEURO snapshot: its last record has another index")
    chain = reader.take(32)
    state = NeuroState(Parts(engine(reader.rest()), chain, count, last))
    return Snapshot(epoch, state)

"""Catching up many devices at once: what a verifier does after a mass reconnection or a restart.

Every device has its own weights, so there is nothing to share between them but the loop: batching
devices into one matrix product would save nothing. What counts is that the records of one device
are hashed first and then run in one call of the backend.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import Ter

# So many records are hashed ahead of the arithmetic: 256 KiB, which stays in the cache.
CHUNK_RECORDS = 1_024


@dataclass(frozen=True, slots=True)
class Job:
    """A state and the records it has to catch up with."""

    state: NeuroState
    records: Sequence[Ter]


def replay(jobs: Iterable[Job]) -> int:
    """Advance every state; return how many records were applied.

    Raises:
        LocalError: A record's time does not increase; earlier jobs are done, this one is not
            beyond the chunk before the record.
    """
    applied = 0
    for job in jobs:
        for start in range(0, len(job.records), CHUNK_RECORDS):
            job.state.advance(job.records[start : start + CHUNK_RECORDS])
        applied += len(job.records)
    return applied

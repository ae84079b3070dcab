"""The settings of NEURO."""

from dataclasses import dataclass

from hookprobe.wire.instant import MINUTE, Duration

GRACE_US = Duration(10 * MINUTE)


@dataclass(frozen=True, slots=True)
class NeuroConfig:
    """How often devices make records, and how patient those are who count on certificates.

    Attributes:
        interval_us: From one record to the next; the design is one a minute.
        grace_us: How long an expired certificate still counts, so that a verifier that is away
            for a while does not stop reports.
        backend: The arithmetic; all give the same bits.
    """

    interval_us: Duration = MINUTE
    grace_us: Duration = GRACE_US
    backend: str = "pure"

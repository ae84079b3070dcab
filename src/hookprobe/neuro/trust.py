"""Trust over time, in basis points from 0 to 10,000 (integers: it is signed and compared).

    RESONANT          t + (10,000 - t) / 20, rounded up: some 14 good batches halve the distance
    TAMPER_REPORTED   at most 1,000
    DISSONANT         t / 2
    FORK              0
    REJECT_*          t - 50: transport faults happen, but not for ever
    operator's order  at least that of a new device: somebody has looked
    silence           beyond 5 minutes, 400 for each hour

A device begins with what full service over the transport needs, given that it resonates: its
enrolment was an attestation by the authority.

The steps are a policy of this product, not a measurement; they order devices, they prove nothing.
"""

from dataclasses import dataclass, replace

from hookprobe.neuro.verdict import Verdict
from hookprobe.wire.instant import HOUR, MINUTE, Instant

FULL_BP = 10_000
START_BP = 6_000
TAMPERED_MAX_BP = 1_000
REJECT_LOSS_BP = 50
SILENCE_GRACE_US = 5 * MINUTE
SILENCE_LOSS_BP_PER_HOUR = 400
_GAIN_DIVISOR = 20


@dataclass(frozen=True, slots=True)
class Trust:
    """A device's trust as of its last verdict."""

    basis_points: int
    at: Instant

    def level(self, now: Instant) -> int:
        """Return the trust now: what is left after silence."""
        silent_us = max(0, now - self.at - SILENCE_GRACE_US)
        return max(0, self.basis_points - silent_us * SILENCE_LOSS_BP_PER_HOUR // HOUR)

    def update(self, verdict: Verdict, now: Instant) -> "Trust":
        """Return the trust after a verdict."""
        now = Instant(max(now, self.at))
        return replace(self, basis_points=_after(self.level(now), verdict), at=now)

    def restore(self) -> "Trust":
        """Return the trust after an operator has looked: that of a new device at least."""
        return replace(self, basis_points=max(self.basis_points, START_BP))


def _after(level: int, verdict: Verdict) -> int:
    match verdict:
        case Verdict.RESONANT:
            return level + -(-(FULL_BP - level) // _GAIN_DIVISOR)
        case Verdict.TAMPER_REPORTED:
            return min(level, TAMPERED_MAX_BP)
        case Verdict.DISSONANT:
            return level // 2
        case Verdict.FORK:
            return 0
        case _:
            return max(0, level - REJECT_LOSS_BP)

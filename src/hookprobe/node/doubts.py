"""Why a device is not trusted enough, in words for the operator of the node that refuses it."""

from typing import NamedTuple

from hookprobe.htp.trust import FULL_FROM, FULL_TRUST
from hookprobe.neuro.trust import FULL_BP


class Doubt(NamedTuple):
    """What is held against a device, and what to do about it."""

    reason: str
    hint: str


UNCERTIFIED = Doubt(
    "no verifier has certified it",
    "is it connected to its verifier? `hookprobe verifier devices` there",
)
EXPIRED = Doubt(
    "its certificate has expired",
    "is its verifier running and connected to this node? `hookprobe status` there",
)
ASTRAY = Doubt(
    "its verifier found that it does not resonate",
    "`hookprobe verifier devices` at the verifier shows what was found",
)


def doubt_of_score(who: str, basis_points: int) -> Doubt | None:
    """Return what is to be said of a score; None: it is enough for everything.

    Args:
        who: Where the score comes from, with a verb that it ends.
        basis_points: 0 to 10,000.
    """
    wanted = FULL_FROM * FULL_BP // FULL_TRUST
    if basis_points >= wanted:
        return None
    return Doubt(
        f"{who} it a trust of {basis_points // 100} %, {wanted // 100} % are wanted",
        "good reports raise it, deviations and silence lower it; "
        "`hookprobe verifier devices` at its verifier shows it",
    )

"""How long a peer may be silent (HTP spec 3.7): jittered heartbeats, and what its NAT forgets.

A NAT forgets a mapping that carried nothing outwards for some time, 30 s on many and minutes on
others; from then on nothing reaches the peer until it speaks again. The answering end sees what a
silence did: a packet from the same port after it, and the mapping lives that long; one from another
port, or one that came while packets of ours went unanswered, and it was forgotten.

Between the longest silence survived and the shortest that was not, it searches by halving, and asks
for the result in every ACK, from 15 to 120 s. A peer on mains is asked for the usual gap unless its
NAT is quicker; one on battery is asked for up to 60 s, and for up to 120 s at half charge: radio is
what costs it most. What was forgotten once is believed for an hour, because networks change.
"""

from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import DownReason
from hookprobe.htp.keys import Entropy
from hookprobe.wire.instant import HOUR, SECOND, Duration, Instant

ASKED_S = range(15, 121)
LEAST_US = 5 * SECOND  # shorter silences tell nothing
ON_MAINS = 255
HALF_CHARGE = 50
EASY_S = 60
CLOSE_ENOUGH_S = 4
BELIEVED_US = HOUR
PROBES_UNANSWERED_MAX = 3
SILENCES_LOST = 3  # a session outlives as many heartbeats


def next_beat(longest_s: int, entropy: Entropy, now: Instant) -> Instant:
    """Return when to speak next: U(20, 30) s where 30 is asked for.

    Never later, or a NAT forgets the mapping; and never to a beat, which would tell who it is.
    """
    longest = longest_s * SECOND
    return Instant(now + longest * 2 // 3 + entropy.jitter(longest // 3, now))


def idle_limit(idle_us: int, asked_s: int) -> int:
    """Return the silence after which a peer is forgotten."""
    return max(idle_us, SILENCES_LOST * asked_s * SECOND)


def lapsed(
    config: HtpConfig, ages_us: tuple[int, int], unanswered: int, asked_s: int
) -> DownReason | None:
    """Return why a session is over, if time has ended it.

    Args:
        config: The limits.
        ages_us: Of its keys, and of the peer's last packet.
        unanswered: Probes of ours in a row.
        asked_s: The longest gap between heartbeats.
    """
    keys_us, silent_us = ages_us
    if keys_us >= config.reject_after_us:
        return DownReason.EXPIRED
    if silent_us >= idle_limit(config.idle_us, asked_s):
        return DownReason.IDLE
    if unanswered >= PROBES_UNANSWERED_MAX and silent_us >= config.silence_us:
        return DownReason.SILENT
    return None


def obey(asked_s: int, before_s: int) -> int:
    """Return the gap that the answering end asks for, as far as it may."""
    return asked_s if asked_s in ASKED_S else before_s


def begin(usual_s: int, battery: int, *, lost: bool) -> "KeepAlive | None":
    """Return what learns, if there is a reason to; most are on mains behind a patient NAT."""
    return KeepAlive(usual_s) if lost or battery != ON_MAINS else None


class KeepAlive:
    """What the answering end has learnt of one peer's NAT.

    Args:
        usual_s: The gap asked for where nothing speaks against it.
    """

    __slots__ = ("_dead_at", "_dead_s", "_lives_s", "_usual_s")

    def __init__(self, usual_s: int) -> None:
        self._usual_s = usual_s
        self._lives_s = 0
        self._dead_s = 0
        self._dead_at = Instant(0)

    def learn(self, silence_us: Duration, now: Instant, *, forgotten: bool) -> None:
        """Note what a silence of the peer did to its mapping."""
        silence_s = silence_us // SECOND
        if forgotten:
            self._dead_s = min(silence_s, self._dead_s or silence_s)
            self._dead_at = now
            if self._lives_s >= self._dead_s:
                self._lives_s = 0
        elif not self._dead_s or silence_s < self._dead_s:
            # A longer one proves nothing: some NATs give the same port out again.
            self._lives_s = max(self._lives_s, silence_s)

    def wanted_s(self, battery: int, now: Instant) -> int:
        """Return the longest gap to ask for.

        Args:
            battery: As the peer reports: 0 to 100, 255 on mains. It only concerns the peer's own
                reachability, so it may be believed.
            now: The time.
        """
        if self._dead_s and now - self._dead_at >= BELIEVED_US:
            self._dead_s = 0
        most = self._usual_s
        if battery != ON_MAINS:
            most = max(most, ASKED_S[-1] if battery <= HALF_CHARGE else EASY_S)
        lives, dead = self._lives_s, self._dead_s
        if not dead:
            wanted = max(self._usual_s, 2 * lives)
        elif dead - lives <= CLOSE_ENOUGH_S:
            wanted = lives
        else:
            wanted = (lives + dead) // 2
        return min(max(wanted, ASKED_S[0]), most)

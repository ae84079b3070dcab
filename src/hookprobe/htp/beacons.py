"""The answering end's watch over a peer's beacons (HTP spec 3.4): is it still the same network?

Every packet repeats the last beacon, RDV || PoSF, and heartbeats bring fresh ones. A beacon that is
not the peer's earns a request to attest again and, after a while, the end of the session.
"""

from hookprobe.errors import LimitExceededError
from hookprobe.htp.packet import FLAG_RES_FRESH
from hookprobe.htp.seams import ResonanceCheck
from hookprobe.htp.session import Opened, Session
from hookprobe.wire.instant import SECOND, Instant

BEACON_RATE_PER_S = 2
BEACON_BURST = 20
_STEP_US = SECOND // BEACON_RATE_PER_S
_BURST_US = BEACON_BURST * _STEP_US


class BeaconWatch:
    """What is known of one peer's beacons.

    Args:
        session: Established, with `resonance` set to the beacon of its ATTEST.
        fingerprint: The peer's W_fp; None where its weights are not checked.
        check: Replays the peer's network.
        grace_us: From a mismatch to the end of the session.
    """

    __slots__ = (
        "_before",
        "_check",
        "_fingerprint",
        "_fresh_at",
        "_grace_us",
        "_number",
        "_session",
        "reattest_at",
    )

    def __init__(
        self, session: Session, fingerprint: bytes | None, check: ResonanceCheck, grace_us: int
    ) -> None:
        self._session = session
        self._fingerprint = fingerprint
        self._check = check
        self._grace_us = grace_us
        self._before = session.resonance
        self._number = -1
        self._fresh_at = 0
        self.reattest_at: Instant | None = None

    def renew(self, session: Session, fingerprint: bytes | None) -> None:
        """Watch the session that took over."""
        self._session = session
        self._fingerprint = fingerprint
        self._before = session.resonance
        self._number = -1
        self.reattest_at = None

    @property
    def fingerprint(self) -> bytes | None:
        """W_fp of the peer; None where its weights are not checked."""
        return self._fingerprint

    def receive(self, opened: Opened, now: Instant) -> bool:
        """Take a packet's beacon; True if the peer has to be asked to attest again.

        Raises:
            LimitExceededError: More fresh beacons than a peer may have us check.
        """
        session, resonance = self._session, opened.resonance
        if not opened.header.flags & FLAG_RES_FRESH:
            known = resonance in (session.resonance, self._before)
            return not known and self._mismatch(now)
        # Checking costs a forward pass of the peer's network, so a peer cannot ask for many.
        fresh_at = self._next_fresh(now)
        if fresh_at > now:
            raise LimitExceededError("HEARTBEAT: too many fresh beacons")
        self._fresh_at = fresh_at
        if not self._resonates(resonance):
            return self._mismatch(now)
        if opened.header.nonce > self._number:
            self._number = opened.header.nonce
            self._before, session.resonance = session.resonance, resonance
        return False

    def receive_next(self, number: int, resonance: bytes, now: Instant) -> bool:
        """Take the fresh beacon of the newest packet if there is nothing to object to.

        False: nothing has changed, and `receive` has to judge.
        """
        fresh_at = self._next_fresh(now)
        if fresh_at > now or self.reattest_at is not None or not self._resonates(resonance):
            return False
        self._fresh_at, self._number = fresh_at, number
        session = self._session
        self._before, session.resonance = session.resonance, resonance
        return True

    def _next_fresh(self, now: Instant) -> int:
        return max(self._fresh_at, now - _BURST_US) + _STEP_US

    def _resonates(self, resonance: bytes) -> bool:
        if self._fingerprint is None:
            return True
        session = self._session
        challenge = session.exporter + session.transcript
        rdv, posf = resonance[:32], resonance[32:]
        return self._check.check(session.names.peer, self._fingerprint, challenge, rdv, posf)

    def _mismatch(self, now: Instant) -> bool:
        if self.reattest_at is not None:
            return False
        self.reattest_at = Instant(now + self._grace_us)
        return True

    def freeze(self) -> tuple[bytes, int, int]:
        """Return what `thaw` needs while nothing is wrong: (beacon before, its packet, pace)."""
        return self._before, self._number, self._fresh_at

    def thaw(self, frozen: tuple[bytes, int, int]) -> None:
        """Become what was frozen."""
        self._before, self._number, self._fresh_at = frozen

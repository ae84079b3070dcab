"""The two transition tables, and the dialling machine (HTP spec 3.3).

Rule 1: every change of state goes through `advance`, so these tables are the whole truth.
Rule 2: nothing that arrives unauthenticated is fatal. A bad CHALLENGE or ACCEPT is ignored; the
dialler goes on by its timer, for ever.

    dialler   IDLE -> WAIT_CHALLENGE -> WAIT_ACCEPT -> ESTABLISHED -> (renewal) WAIT_CHALLENGE
    session   NONE -> UNCONFIRMED -> ESTABLISHED -> RETIRED -> CLOSED   (a dialler skips the second)
"""

from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from typing import TypeVar

from hookprobe.crypto.agreement import KEM_SEED_BYTES, X25519_BYTES, AgreementKey
from hookprobe.errors import MalformedError, RemoteError, VerificationError
from hookprobe.htp.config import SUITE_HYBRID, HtpConfig
from hookprobe.htp.effects import RejectCode, Transmit
from hookprobe.htp.exchange import (
    ACCEPT_REPEATED_BYTES,
    ATTEST_REPEATED_BYTES,
    AttestPrefix,
    DiallerExchange,
    join_message,
    signed_statement,
    split_message,
)
from hookprobe.htp.keys import Entropy, SessionKeys, derive_session_keys, key_id
from hookprobe.htp.messages import (
    AcceptBody,
    AttestBody,
    Challenge,
    Hello,
    decode_accept_body,
    decode_rejection,
)
from hookprobe.htp.packet import (
    FLAG_RESPONSE,
    TOKEN_BYTES,
    VERSION,
    Header,
    PacketType,
    check_handshake_header,
    decode_body,
)
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, Seams
from hookprobe.wire.instant import HOUR, SECOND, Instant


class DialState(Enum):
    """Where a dialler stands."""

    IDLE = auto()
    WAIT_CHALLENGE = auto()
    WAIT_ACCEPT = auto()
    ESTABLISHED = auto()


class DialEvent(Enum):
    """What moves it."""

    START = auto()
    CHALLENGE = auto()
    RETRY = auto()
    STALE = auto()
    ACCEPT = auto()
    REJECT = auto()
    LOST = auto()


class Phase(Enum):
    """Where a session stands."""

    __hash__ = object.__hash__  # Enum's own hashes the name, which every lookup would pay for
    NONE = auto()
    UNCONFIRMED = auto()
    ESTABLISHED = auto()
    RETIRED = auto()
    CLOSED = auto()


class PhaseEvent(Enum):
    """What moves it."""

    __hash__ = object.__hash__
    ATTESTED = auto()
    ACCEPTED = auto()
    OPENED = auto()
    SUPERSEDED = auto()
    ENDED = auto()


DIAL_TABLE = {
    (DialState.IDLE, DialEvent.START): DialState.WAIT_CHALLENGE,
    (DialState.WAIT_CHALLENGE, DialEvent.CHALLENGE): DialState.WAIT_ACCEPT,
    (DialState.WAIT_CHALLENGE, DialEvent.RETRY): DialState.WAIT_CHALLENGE,
    (DialState.WAIT_ACCEPT, DialEvent.CHALLENGE): DialState.WAIT_ACCEPT,
    (DialState.WAIT_ACCEPT, DialEvent.RETRY): DialState.WAIT_ACCEPT,
    (DialState.WAIT_ACCEPT, DialEvent.STALE): DialState.WAIT_CHALLENGE,
    (DialState.WAIT_ACCEPT, DialEvent.ACCEPT): DialState.ESTABLISHED,
    (DialState.WAIT_ACCEPT, DialEvent.REJECT): DialState.IDLE,
    (DialState.ESTABLISHED, DialEvent.START): DialState.WAIT_CHALLENGE,
    (DialState.IDLE, DialEvent.LOST): DialState.IDLE,
    (DialState.WAIT_CHALLENGE, DialEvent.LOST): DialState.IDLE,
    (DialState.WAIT_ACCEPT, DialEvent.LOST): DialState.IDLE,
    (DialState.ESTABLISHED, DialEvent.LOST): DialState.IDLE,
}

SESSION_TABLE = {
    (Phase.NONE, PhaseEvent.ATTESTED): Phase.UNCONFIRMED,
    (Phase.NONE, PhaseEvent.ACCEPTED): Phase.ESTABLISHED,
    (Phase.UNCONFIRMED, PhaseEvent.OPENED): Phase.ESTABLISHED,
    (Phase.UNCONFIRMED, PhaseEvent.ENDED): Phase.CLOSED,
    (Phase.ESTABLISHED, PhaseEvent.SUPERSEDED): Phase.RETIRED,
    (Phase.ESTABLISHED, PhaseEvent.ENDED): Phase.CLOSED,
    (Phase.RETIRED, PhaseEvent.ENDED): Phase.CLOSED,
    (Phase.CLOSED, PhaseEvent.ENDED): Phase.CLOSED,
}

_State = TypeVar("_State", DialState, Phase)
_Event = TypeVar("_Event", DialEvent, PhaseEvent)


def advance(table: dict[tuple[_State, _Event], _State], state: _State, event: _Event) -> _State:
    """Return the next state; an event that has no place in the table is our own bug."""
    assert (state, event) in table, f"{event} in {state}"
    return table[state, event]


CAPABILITY_CONTINUE = 1  # with the link's 48-bit stream id in bits 16 to 63 of the field
ATTEMPTS_MAX = 3  # CHALLENGEs answered per HELLO, so that a forged first one cannot win
CANDIDATES_MAX = 3  # copies of one ACCEPT fragment held, for the same reason
_JITTER_PERCENT = 20
_REJECTED_WAIT_MAX_US = HOUR


@dataclass(frozen=True, slots=True, repr=False)
class Accepted:
    """A handshake that succeeded, seen from the dialler.

    Attributes:
        keys: Of the new session.
        body: What the peer granted.
        edge_token: The token the peer will send to.
        beacon: RDV || PoSF that the peer accepted.
        continues: Whether the peer kept the channels of the session being renewed.
        suite: What was negotiated.
        round_trip_us: From ATTEST to ACCEPT, None if the ATTEST was sent more than once.
    """

    keys: SessionKeys
    body: AcceptBody
    edge_token: bytes
    beacon: bytes
    continues: bool
    suite: int
    round_trip_us: int | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sealed refusal."""

    code: RejectCode
    retry_at: Instant


class _Attempt:
    """One answered CHALLENGE."""

    __slots__ = ("beacon", "challenge", "datagrams", "exchange", "fingerprint")

    def __init__(self, challenge: Challenge, exchange: DiallerExchange) -> None:
        self.challenge = challenge
        self.exchange = exchange
        self.beacon = b""
        self.fingerprint = b""
        self.datagrams: list[bytes] = []


class Dial:
    """Keeps one pinned peer connected.

    Args:
        peer: Whom to dial.
        identity: Who we are.
        seams: Resonance, KEM.
        config: Timeouts and suites.
        entropy: Randomness.
    """

    __slots__ = (
        "_attempts",
        "_config",
        "_continuing",
        "_entropy",
        "_hello",
        "_hello_at",
        "_identity",
        "_parts",
        "_seams",
        "_sends",
        "_sent_at",
        "_steps",
        "edge_token",
        "next_at",
        "peer",
        "state",
    )

    def __init__(
        self,
        peer: PinnedPeer,
        identity: LocalIdentity,
        seams: Seams,
        config: HtpConfig,
        entropy: Entropy,
    ) -> None:
        self.peer = peer
        self._identity = identity
        self._seams = seams
        self._config = config
        self._entropy = entropy
        self.state = DialState.IDLE
        self._continuing = 0
        self.edge_token = b""
        self.next_at: Instant | None = None
        self._hello = b""
        self._hello_at = self._sent_at = Instant(0)
        self._attempts: list[_Attempt] = []
        self._parts: tuple[list[bytes], list[bytes]] = ([], [])
        self._sends = 0
        self._steps = 0

    def start(self, now: Instant, *, continuing: int = 0) -> list[Transmit]:
        """Send a first HELLO; `continuing` is the capabilities field of a renewal, or 0."""
        self._continuing = continuing
        self._steps = 0
        self.state = advance(DIAL_TABLE, self.state, DialEvent.START)
        return self._send_hello(now)

    def lose(self, now: Instant) -> None:
        """Note that the session is gone and plan the next attempt within the first step."""
        self.state = advance(DIAL_TABLE, self.state, DialEvent.LOST)
        self._forget()
        wait = self._entropy.jitter(self._config.retry_initial_us, now)
        self.next_at = Instant(now + wait)

    def handle_timeout(self, now: Instant) -> list[Transmit]:
        """Retransmit, or go back to HELLO where the cookie may have died."""
        if self.next_at is None or now < self.next_at:
            return []
        if self.state is DialState.IDLE:
            return self.start(now)
        if self.state is DialState.WAIT_ACCEPT and self._sends < self._config.attest_sends_max:
            self.state = advance(DIAL_TABLE, self.state, DialEvent.RETRY)
            return self._send_attests(self._attempts, now)
        if self.state is DialState.WAIT_ACCEPT:
            self.state = advance(DIAL_TABLE, self.state, DialEvent.STALE)
            return self._send_hello(now)
        self.state = advance(DIAL_TABLE, self.state, DialEvent.RETRY)
        if now - self._hello_at >= self._config.cookie_period_us:
            return self._send_hello(now)
        self._schedule(self._steps, now)
        self._steps += 1
        return [Transmit(self.peer.address, self._hello)]

    def receive_challenge(self, challenge: Challenge, now: Instant) -> list[Transmit]:
        """Answer a CHALLENGE with an ATTEST.

        Raises:
            MalformedError: Not one of the suites we offered.
            VerificationError: Not waiting for one, or too many.
        """
        waiting = (DialState.WAIT_CHALLENGE, DialState.WAIT_ACCEPT)
        known = [attempt.challenge for attempt in self._attempts]
        if self.state not in waiting or challenge in known or len(known) >= ATTEMPTS_MAX:
            raise VerificationError("CHALLENGE: not waited for")
        if challenge.suite not in (1, 2) or not challenge.suite & self._config.suites_offered:
            raise MalformedError("CHALLENGE: a suite that was not offered")
        attempt = self._attest(challenge, now)
        self._attempts.append(attempt)
        self.state = advance(DIAL_TABLE, self.state, DialEvent.CHALLENGE)
        self._sends = 0
        return self._send_attests([attempt], now)

    def receive_reply(
        self, header: Header, data: bytes, now: Instant
    ) -> Accepted | Rejected | None:
        """Read an ACCEPT or sealed REJECT; None while the other half is missing.

        Raises:
            MalformedError: Impossible form.
            VerificationError: No attempt of ours opens it.
        """
        check_handshake_header(header, 1, FLAG_RESPONSE)
        if self.state is not DialState.WAIT_ACCEPT:
            raise VerificationError(f"{header.kind.name}: not waited for")
        messages = self._assemble(header, data)
        for message in messages:
            for attempt in self._attempts:
                try:
                    return self._conclude(header, attempt, message, now)
                except RemoteError:
                    continue
        if messages:
            raise VerificationError(f"{header.kind.name}: opens under no attempt")
        return None

    def _assemble(self, header: Header, data: bytes) -> list[bytes]:
        if header.frag_last == 0:
            return [data]
        if header.frag_last > 1:
            raise MalformedError("ACCEPT: more than two fragments")
        mine, other = self._parts[header.frag_index], self._parts[1 - header.frag_index]
        if data in mine or len(mine) >= CANDIDATES_MAX:
            return []
        mine.append(data)
        pairs = [[data, half] if header.frag_index == 0 else [half, data] for half in other]
        return [join_message(pair, ACCEPT_REPEATED_BYTES) for pair in pairs]

    def _conclude(
        self, header: Header, attempt: _Attempt, message: bytes, now: Instant
    ) -> Accepted | Rejected:
        state, plain = attempt.exchange.read(message)
        self._seams.note_handshake(message, state)
        if header.kind is PacketType.REJECT:
            code, retry_after_s = decode_rejection(decode_body(plain)[1])
            wait = max(self._config.rejected_wait_us, retry_after_s * SECOND)
            self.state = advance(DIAL_TABLE, self.state, DialEvent.REJECT)
            self._forget()
            self.next_at = Instant(now + min(wait, _REJECTED_WAIT_MAX_US))
            return Rejected(code, self.next_at)
        body = decode_accept_body(plain)
        keys = derive_session_keys(state, body.secret_seed, attempt.fingerprint)
        round_trip = now - self._sent_at if self._sends == 1 else None
        continues = self._continuing != 0 and bool(header.flags & FLAG_RESPONSE)
        accepted = Accepted(
            keys,
            body,
            self.edge_token,
            attempt.beacon,
            continues,
            attempt.exchange.suite,
            round_trip,
        )
        self.state = advance(DIAL_TABLE, self.state, DialEvent.ACCEPT)
        self._forget()
        return accepted

    def _forget(self) -> None:
        # The ephemeral keys live in the attempts; dropping these is what gives forward secrecy.
        self._attempts = []
        self._parts = ([], [])
        self.edge_token = b""
        self.next_at = None

    def _send_hello(self, now: Instant) -> list[Transmit]:
        self._forget()
        self.edge_token = self._identity.worker.own(self._entropy.draw(TOKEN_BYTES, now))
        hello = Hello(
            self._entropy.draw(32, now),
            key_id(self.peer.static_key),
            self._config.suites_offered,
            VERSION,
            VERSION,
            self.edge_token,
        )
        self._hello = hello.encode(self.peer.static_key)
        self._hello_at = now
        self._schedule(self._steps, now)
        self._steps += 1
        return [Transmit(self.peer.address, self._hello)]

    def _attest(self, challenge: Challenge, now: Instant) -> _Attempt:
        prefix = AttestPrefix(
            challenge.cookie,
            challenge.generation,
            challenge.suite,
            sha256(self._hello).digest(),
            self.edge_token,
        )
        ephemeral = AgreementKey(self._entropy.draw(X25519_BYTES, now))
        kem_key = None
        if challenge.suite == SUITE_HYBRID:
            kem_key = self._seams.kem.generate(self._entropy.draw(KEM_SEED_BYTES, now))
        exchange = DiallerExchange(prefix, self.peer.static_key, ephemeral, kem_key)
        attempt = _Attempt(challenge, exchange)
        source = self._seams.source
        rdv, posf = source.respond(bytes(32) + exchange.transcript)
        attempt.beacon = rdv + posf
        attempt.fingerprint = source.w_fingerprint()
        node = self._identity.node
        statement = signed_statement(
            exchange.transcript, challenge.cookie, attempt.fingerprint, attempt.beacon, node
        )
        body = AttestBody(
            attempt.beacon,
            node,
            attempt.fingerprint,
            self._identity.signer.sign(statement),
            self._continuing,
        )
        message = exchange.write(body)
        self._seams.note_handshake(message, exchange.state)
        attempt.datagrams = split_message(message, ATTEST_REPEATED_BYTES)
        return attempt

    def _send_attests(self, attempts: list[_Attempt], now: Instant) -> list[Transmit]:
        # Quick repeats first: the CHALLENGE has shown that the peer is there. The wait before the
        # next HELLO follows the long schedule, so a peer that never accepts is asked ever less.
        steps = self._sends
        self._sends += 1
        if self._sends >= self._config.attest_sends_max:
            steps = max(steps, self._steps)
        self._sent_at = now
        self._schedule(steps, now)
        return [Transmit(self.peer.address, part) for one in attempts for part in one.datagrams]

    def _schedule(self, steps: int, now: Instant) -> None:
        step = min(self._config.retry_initial_us << min(steps, 30), self._config.retry_max_us)
        spread = step * _JITTER_PERCENT // 100
        self.next_at = Instant(now + step - spread + self._entropy.jitter(2 * spread, now))

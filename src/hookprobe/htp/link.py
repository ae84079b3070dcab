"""One peer: its session, its channels, its address, its timers (HTP spec 3.3, 3.4 and 3.6).

A link outlives keys: when they are renewed, channels go on and what was on its way is sent again
under the new ones. It ends when the peer is silent, closes, breaks the protocol or is replaced; the
endpoint then reports `SessionDown`. Who dialled decides the duties: the dialling end sends
heartbeats and renews keys, the answering end checks resonance and reports trust.
"""

from typing import NamedTuple

from hookprobe.crypto.sealing import COUNTER_MAX
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.htp.acks import AckTracker
from hookprobe.htp.admission import RateLimiter
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.effects import (
    Address,
    DownReason,
    Effect,
    MessageReceived,
    PeerMoved,
    ResonanceMismatch,
    Transmit,
    TrustReported,
    VitalsReported,
)
from hookprobe.htp.handshake import PhaseEvent
from hookprobe.htp.inbox import Inbox
from hookprobe.htp.keys import Entropy
from hookprobe.htp.messages import (
    ACK_REATTEST,
    Ack,
    CloseCode,
    Vitals,
    decode_ack,
    decode_close,
    decode_heartbeat,
    encode_ack,
    encode_close,
    encode_heartbeat,
)
from hookprobe.htp.outbox import Fragment, Outbox
from hookprobe.htp.packet import (
    FLAG_ACK_ELICITING,
    FLAG_RES_FRESH,
    SEALED_OVERHEAD_BYTES,
    ZERO_TOKEN,
    PacketType,
)
from hookprobe.htp.path import Path
from hookprobe.htp.recovery import Recovery
from hookprobe.htp.seams import Seams
from hookprobe.htp.session import ELICITING, Opened, Session
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import SECOND, Instant

PROBES_UNANSWERED_MAX = 3
HEARTBEAT_S_RANGE = range(15, 121)
STREAM_ID_BYTES = 6
BEACON_RATE_PER_S = 2
BEACON_BURST = 20
REKEY_AFTER_PACKETS = COUNTER_MAX - 2**20
REJECT_AFTER_PACKETS = COUNTER_MAX - 2**10

_REKEY_SPREAD_PERCENT = 10
_SESSION_FLAGS = FLAG_ACK_ELICITING | FLAG_RES_FRESH
_KEEPALIVE_BYTES = SEALED_OVERHEAD_BYTES + 17
_ACK_BYTES = SEALED_OVERHEAD_BYTES + 30


class Probe(NamedTuple):
    """The content of a HEARTBEAT: the beacon it carried."""

    beacon: bytes


class LinkTools(NamedTuple):
    """What every link of an endpoint shares."""

    config: HtpConfig
    seams: Seams
    entropy: Entropy


class Arrival(NamedTuple):
    """Where and when a datagram came in, and its size."""

    address: Address
    size: int
    now: Instant


class Link:
    """The conversation with one peer.

    Args:
        session: Established, with `resonance` set to the beacon of its ATTEST.
        address: Proven in the handshake.
        fingerprint: The peer's W_fp; None where its weights are not checked.
        tools: Configuration and collaborators.
        now: The time.
    """

    __slots__ = (
        "_acks",
        "_beacon_number",
        "_beacons",
        "_fingerprint",
        "_fresh_beacons",
        "_heartbeat_at",
        "_heartbeat_s",
        "_inbox",
        "_outbox",
        "_path",
        "_probe_echo",
        "_reattest_at",
        "_recovery",
        "_rekey_at",
        "_tools",
        "_trust_seen",
        "ended",
        "last_heard",
        "peer",
        "renewal_due",
        "retired",
        "retired_until",
        "session",
        "stream_id",
        "trust",
        "vitals",
    )

    def __init__(
        self,
        session: Session,
        address: Address,
        fingerprint: bytes | None,
        tools: LinkTools,
        now: Instant,
    ) -> None:
        config = tools.config
        self._tools = tools
        self.peer: NodeId = session.names.peer
        self.stream_id = int.from_bytes(session.transcript[:STREAM_ID_BYTES])
        self._fingerprint = fingerprint
        self._path = Path(address, config.path_us)
        self._outbox = Outbox(config.send_queue_max_bytes)
        self._inbox = Inbox(config.window_bytes)
        self._heartbeat_s = config.heartbeat_s
        self.retired: Session | None = None
        self.retired_until = Instant(0)
        self.ended: DownReason | None = None
        self.last_heard = now
        self.trust = 0xFFFF
        self._trust_seen = -1
        self._fresh_beacons = RateLimiter(BEACON_RATE_PER_S, BEACON_BURST, 1)
        self.vitals = Vitals()
        self._recovery: Recovery[Fragment | Probe] = Recovery(
            config.ack_delay_us, config.congestion_max_bytes
        )
        self._adopt(session, now)

    # -- keys ---------------------------------------------------------------------------------

    def _adopt(self, session: Session, now: Instant) -> None:
        config, entropy = self._tools.config, self._tools.entropy
        self.session = session
        self._acks = AckTracker(config.ack_delay_us, config.ack_every)
        self._beacons = (session.resonance, session.resonance)
        self._beacon_number = -1
        self._probe_echo = ZERO_TOKEN
        self._reattest_at: Instant | None = None
        self.renewal_due = False
        self._heartbeat_at: Instant | None = None
        self._rekey_at: Instant | None = None
        if session.names.dialled:
            spread = config.rekey_us * _REKEY_SPREAD_PERCENT // 100
            wait = config.rekey_us - spread + entropy.jitter(2 * spread, now)
            self._rekey_at = Instant(now + wait)
            # The first heartbeat leaves at once: it confirms the session to the answering end.
            self._heartbeat_at = now

    def renew(self, session: Session, fingerprint: bytes | None, now: Instant) -> Session | None:
        """Go on under new keys; return a session that is hereby out of use altogether."""
        gone = self.retired
        self._fingerprint = fingerprint
        self.session.move(PhaseEvent.SUPERSEDED)
        self.retired = self.session
        self.retired_until = Instant(now + self._tools.config.retired_us)
        self._put_back(self._recovery.restart())
        self._adopt(session, now)
        return gone

    def seed_rtt(self, round_trip_us: int) -> None:
        """Take the round trip of the handshake as a first sample."""
        self._recovery.seed_rtt(round_trip_us)

    def ask_heartbeat(self, seconds: int) -> None:
        """Adopt the gap that the answering end asks for, within 15 to 120 s."""
        if seconds in HEARTBEAT_S_RANGE:
            self._heartbeat_s = seconds

    @property
    def address(self) -> Address:
        """Where packets go now."""
        return self._path.address

    # -- commands -----------------------------------------------------------------------------

    def offer(self, channel: Channel, data: bytes) -> bool:
        """Queue a message; False if the queue is full. `flush` sends it."""
        return self._outbox.offer(channel, data)

    def close(self, code: CloseCode, now: Instant) -> list[Effect]:
        """Return the CLOSE packet; it is sent once and not repeated."""
        packet = self.session.seal(PacketType.CLOSE, encode_close(code), now)
        return [Transmit(self.address, packet)]

    # -- receiving ----------------------------------------------------------------------------

    def receive(self, session: Session, opened: Opened, arrival: Arrival) -> list[Effect]:
        """Take a packet that opened under the current or the retired keys.

        Raises:
            RemoteError: The authenticated peer broke the protocol; the link has to end.
        """
        header, now = opened.header, arrival.now
        kind = header.kind
        if header.flags & ~_SESSION_FLAGS or header.mode:
            raise MalformedError("session packet: flags or mode not in use yet")
        if kind is not PacketType.DATA and header.frag_last:
            raise MalformedError(f"{kind.name}: a fragment")
        if header.flags & FLAG_RES_FRESH and kind is not PacketType.HEARTBEAT:
            raise MalformedError(f"{kind.name}: a fresh beacon outside a heartbeat")
        self.last_heard = now
        effects: list[Effect] = []
        if session is self.session:
            eliciting = kind in ELICITING
            self._acks.receive(
                header, now, eliciting=eliciting, at_once=kind is PacketType.HEARTBEAT
            )
            if self._path.arrive(arrival.address, arrival.size, now, newest=opened.newest):
                self._path.probe = self._tools.entropy.draw(8, now)
                effects += self._heartbeat(now)
            effects += self._check_beacon(opened, now)
        if kind is PacketType.DATA:
            for channel, data in self._inbox.receive(header, opened.payload):
                effects.append(MessageReceived(self.peer, channel, data))
        elif session is self.session:
            effects += self._control(kind, opened.payload, now)
        return effects

    def _control(self, kind: PacketType, payload: bytes, now: Instant) -> list[Effect]:
        if kind is PacketType.ACK:
            return self._receive_ack(decode_ack(payload), now)
        if kind is PacketType.CLOSE:
            decode_close(payload)
            self.ended = DownReason.CLOSED_BY_PEER
            return []
        self._probe_echo, vitals = decode_heartbeat(payload)
        if self.session.names.dialled or vitals == self.vitals:
            return []
        self.vitals = vitals
        return [VitalsReported(self.peer, *vitals)]

    def _receive_ack(self, ack: Ack, now: Instant) -> list[Effect]:
        arrived, lost = self._recovery.on_ack(
            ack.ranges, ack.delay_us, self.session.next_number, now
        )
        for content in arrived:
            if isinstance(content, Fragment):
                self._outbox.on_arrived(content)
            elif self.session.names.dialled:
                self.session.resonance = content.beacon
        self._put_back(lost)
        self._outbox.credit = max(self._outbox.credit, ack.credit_kib << 10)
        effects: list[Effect] = []
        if self._path.echo(ack.probe_echo):
            effects.append(PeerMoved(self.peer, self.address))
        if self.session.names.dialled:
            effects += self._follow(ack)
        return effects

    def _follow(self, ack: Ack) -> list[Effect]:
        """Obey the answering end; nothing of this is ever taken from a dialling one."""
        self.ask_heartbeat(ack.heartbeat_s)
        if ack.flags & ACK_REATTEST:
            self.renewal_due = True
        if ack.trust == self._trust_seen:
            return []
        self._trust_seen = ack.trust
        return [TrustReported(self.peer, ack.trust)]

    def _check_beacon(self, opened: Opened, now: Instant) -> list[Effect]:
        if self.session.names.dialled:
            return []
        header, resonance = opened.header, opened.resonance
        if not header.flags & FLAG_RES_FRESH:
            return [] if resonance in self._beacons else self._mismatch(now)
        # Checking costs a forward pass of the peer's network, so a peer cannot ask for many.
        if not self._fresh_beacons.allow(b"", now):
            raise LimitExceededError("HEARTBEAT: too many fresh beacons")
        if not self._resonates(resonance):
            return self._mismatch(now)
        if header.nonce > self._beacon_number:
            self._beacon_number = header.nonce
            self._beacons = (resonance, self._beacons[0])
            self.session.resonance = resonance
        return []

    def _resonates(self, resonance: bytes) -> bool:
        if self._fingerprint is None:
            return True
        challenge = self.session.exporter + self.session.transcript
        rdv, posf = resonance[:32], resonance[32:]
        return self._tools.seams.check.check(self.peer, self._fingerprint, challenge, rdv, posf)

    def _mismatch(self, now: Instant) -> list[Effect]:
        if self._reattest_at is not None:
            return []
        self._reattest_at = Instant(now + self._tools.config.reattest_grace_us)
        return [ResonanceMismatch(self.peer)]

    # -- sending ------------------------------------------------------------------------------

    def flush(self, now: Instant) -> list[Effect]:
        """Send what the congestion window, the credit and the path allow; then a due ACK."""
        out: list[Effect] = []
        if self.session.next_number >= REKEY_AFTER_PACKETS:
            self._wear()
        while (
            self.ended is None
            and not self._recovery.blocked
            and self._path.may_send(DATAGRAM_BYTES)
        ):
            fragment = self._outbox.take()
            if fragment is None:
                break
            out.append(self._send_fragment(fragment, now))
        due = self._ack_deadline()
        if due is not None and now >= due:
            out.append(self._send_ack(now))
        return out

    def _wear(self) -> None:
        """Renew keys whose packet numbers run out; end the session if that came to nothing."""
        self.renewal_due = True
        if self.session.next_number >= REJECT_AFTER_PACKETS:
            self.ended = DownReason.EXPIRED

    def _ack_deadline(self) -> Instant | None:
        # An acknowledgement that an unproven path has no room for waits for the path, not a timer.
        size = _ACK_BYTES + 8 * len(self._acks.ranges)
        return self._acks.deadline if self._path.may_send(size) else None

    def _post(self, packet: bytes) -> Transmit:
        self._path.on_sent(len(packet))
        return Transmit(self._path.address, packet)

    def _send_fragment(self, fragment: Fragment, now: Instant) -> Transmit:
        number = self.session.next_number
        packet = self.session.seal(
            PacketType.DATA,
            fragment.payload(),
            now,
            fragment.message.sequence,
            fragment.frag_index << 8 | fragment.frag_last,
        )
        self._recovery.on_sent(number, len(packet), fragment, now)
        return self._post(packet)

    def _send_ack(self, now: Instant) -> Transmit:
        acks = self._acks
        answering = not self.session.names.dialled
        ack = Ack(
            min(max(0, now - acks.largest_at), 0xFFFFFFFF),
            acks.echo_ts,
            min(self._inbox.credit >> 10, 0xFFFFFFFF),
            self.trust if answering else 0,
            self._tools.config.heartbeat_s if answering else 0,
            ACK_REATTEST if answering and (self._reattest_at or self.renewal_due) else 0,
            self._probe_echo,
            tuple(acks.ranges),
        )
        acks.sent()
        return self._post(self.session.seal(PacketType.ACK, encode_ack(ack), now))

    def _heartbeat(self, now: Instant) -> list[Effect]:
        """Send a HEARTBEAT: a fresh beacon from the dialling end, a path probe from either."""
        if not self._path.may_send(_KEEPALIVE_BYTES):
            return []
        session = self.session
        usual = beacon = session.resonance
        if session.names.dialled:
            beacon = b"".join(
                self._tools.seams.source.respond(session.exporter + session.transcript)
            )
        probe = self._path.probe or ZERO_TOKEN
        number = session.next_number
        session.resonance = beacon
        vitals = self.vitals if session.names.dialled else Vitals()
        packet = session.seal(PacketType.HEARTBEAT, encode_heartbeat(probe, vitals), now)
        session.resonance = usual
        self._recovery.on_sent(number, len(packet), Probe(beacon), now)
        return [self._post(packet)]

    def _put_back(self, contents: "list[Fragment | Probe]") -> None:
        for content in contents:
            if isinstance(content, Fragment):
                self._outbox.put_back(content)

    # -- time ---------------------------------------------------------------------------------

    def next_timeout(self) -> Instant:
        """Return when `handle_timeout` has something to do."""
        config = self._tools.config
        due = min(self.session.created + config.reject_after_us, self.last_heard + config.idle_us)
        for deadline in (
            self._ack_deadline(),
            self._recovery.next_timeout(),
            self._heartbeat_at,
            self._rekey_at,
            self._path.deadline,
            self._reattest_at,
            self.retired_until if self.retired is not None else None,
        ):
            if deadline is not None and deadline < due:
                due = deadline
        return Instant(due)

    def handle_timeout(self, now: Instant) -> list[Effect]:
        """Do what is due; `ended` and `renewal_due` tell the endpoint what it has to do."""
        self.ended = self._lapsed(now)
        if self.ended is not None:
            return self.close(CloseCode.RESONANCE, now) if self._reattest_at else []
        self._path.handle_timeout(now)
        effects: list[Effect] = []
        if self._rekey_at is not None and now >= self._rekey_at:
            self._rekey_at = None
            self.renewal_due = True
        lost, probe = self._recovery.handle_timeout(now)
        self._put_back(lost)
        if probe:
            effects += self._send_probe(now)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_at = self._next_heartbeat(now)
            effects += self._heartbeat(now)
        return effects + self.flush(now)

    def _next_heartbeat(self, now: Instant) -> Instant:
        # U(20, 30) s where 30 is asked for: never later, or a NAT forgets the mapping.
        longest = self._heartbeat_s * SECOND
        return Instant(now + longest * 2 // 3 + self._tools.entropy.jitter(longest // 3, now))

    def _lapsed(self, now: Instant) -> DownReason | None:
        config = self._tools.config
        if now - self.session.created >= config.reject_after_us:
            return DownReason.EXPIRED
        if now - self.last_heard >= config.idle_us:
            return DownReason.IDLE
        unanswered = self._recovery.pto_count >= PROBES_UNANSWERED_MAX
        if unanswered and now - self.last_heard >= config.silence_us:
            return DownReason.SILENT
        if self._reattest_at is not None and now >= self._reattest_at:
            return DownReason.RESONANCE
        return None

    def _send_probe(self, now: Instant) -> list[Effect]:
        """After a probe timeout, send the oldest content again whatever the window says."""
        content = self._recovery.oldest()
        if isinstance(content, Fragment) and self._path.may_send(DATAGRAM_BYTES):
            return [self._send_fragment(content, now)]
        return self._heartbeat(now)

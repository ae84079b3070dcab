"""One peer: its session, its channels, its address, its timers (HTP spec 3.3, 3.4 and 3.6).

A link outlives keys: when they are renewed, channels go on and what was on its way is sent again
under the new ones. It ends when the peer is silent, closes, breaks the protocol or is replaced; the
endpoint then reports `SessionDown`. Who dialled decides the duties: the dialling end sends
heartbeats and renews keys, the answering end checks resonance and reports trust.
"""

from hookprobe.crypto.sealing import COUNTER_MAX
from hookprobe.htp import keepalive
from hookprobe.htp.acks import AckTracker
from hookprobe.htp.beacons import BeaconWatch
from hookprobe.htp.bulk import Run, Span, is_wanted
from hookprobe.htp.channels import BULK_KIND, Channel
from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.effects import (
    Address,
    BulkFragment,
    DatagramReceived,
    DownReason,
    Effect,
    FragmentsReceived,
    MessageReceived,
    MessageWithheld,
    PeerMoved,
    ResonanceMismatch,
    Transmit,
    TransmitRun,
    VitalsReported,
)
from hookprobe.htp.handshake import PhaseEvent
from hookprobe.htp.inbox import Inbox, read_bulk, read_datagram
from hookprobe.htp.keepalive import KeepAlive
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
from hookprobe.htp.outbox import Fragment
from hookprobe.htp.packet import (
    FLAG_ACK_ELICITING,
    FLAG_UNRELIABLE,
    SEALED_OVERHEAD_BYTES,
    ZERO_TOKEN,
    Mode,
    PacketType,
    check_session_header,
)
from hookprobe.htp.path import Arrival, Path
from hookprobe.htp.recovery import Flight
from hookprobe.htp.seams import LinkTools
from hookprobe.htp.session import Opened, Session
from hookprobe.htp.traffic import Beacon, Content, Datagram, Ping, SizeProbe, Traffic
from hookprobe.htp.trust import Level, Standing
from hookprobe.htp.veil import unveil
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, Duration, Instant

STREAM_ID_BYTES = 6
REKEY_AFTER_PACKETS = COUNTER_MAX - 2**20
REJECT_AFTER_PACKETS = COUNTER_MAX - 2**10

_REKEY_SPREAD_PERCENT = 10
_HALF = 1 << 31
_tuple = tuple.__new__
_KEEPALIVE_BYTES = SEALED_OVERHEAD_BYTES + 17
_ACK_BYTES = SEALED_OVERHEAD_BYTES + 30


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
        "_fragments",
        "_heartbeat_at",
        "_inbox",
        "_keepalive",
        "_path",
        "_probe_echo",
        "_rekey_at",
        "_tools",
        "_traffic",
        "_watch",
        "datagram_max_bytes",
        "ended",
        "heartbeat_s",
        "last_heard",
        "peer",
        "renewal_due",
        "retired",
        "retired_until",
        "session",
        "standing",
        "stream_id",
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
        self._path = Path(address, config.path_us)
        # Both come into being on first use: a quiet peer among many should cost little memory.
        self._traffic: Traffic | None = None
        self._inbox: Inbox | None = None
        self._fragments: list[BulkFragment] = []
        self.datagram_max_bytes = config.datagram_max_bytes
        self.heartbeat_s = config.heartbeat_s
        self._keepalive: KeepAlive | None = None  # most peers are on mains behind a patient NAT
        self.retired: Session | None = None
        self.retired_until = Instant(0)
        self.ended: DownReason | None = None
        self.last_heard = now
        self.standing = Standing(self.peer, None if session.names.dialled else tools.seams.trust)
        self.vitals = Vitals()
        self._watch: BeaconWatch | None = None
        if not session.names.dialled:
            grace_us = config.reattest_grace_us
            self._watch = BeaconWatch(session, fingerprint, tools.seams.check, grace_us)
        self._adopt(session, now)

    # -- keys ---------------------------------------------------------------------------------

    def _adopt(self, session: Session, now: Instant) -> None:
        config, entropy = self._tools.config, self._tools.entropy
        self.session = session
        self._acks = AckTracker(config.ack_delay_us, config.ack_every)
        self._probe_echo = ZERO_TOKEN
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
        if self._watch is not None:
            self._watch.renew(session, fingerprint)
        self.session.move(PhaseEvent.SUPERSEDED)
        self.retired = self.session
        self.retired_until = Instant(now + self._tools.config.retired_us)
        if self._traffic is not None:
            self._traffic.renew(now)
        self._adopt(session, now)
        return gone

    def seed_rtt(self, round_trip_us: int | None, now: Instant) -> None:
        """Take the round trip of the handshake, if it is known, as a first sample."""
        if round_trip_us is not None:
            self.traffic.recovery.seed_rtt(round_trip_us, now)

    @property
    def _reattest_at(self) -> Instant | None:
        return None if self._watch is None else self._watch.reattest_at

    @property
    def address(self) -> Address:
        """Where packets go now."""
        return self._path.address

    # -- commands -----------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """What goes to the peer; `flush` sends what is offered to it."""
        if self._traffic is None:
            self._traffic = Traffic(
                self._tools.config,
                dialled=self.session.names.dialled,
                size_max=self.datagram_max_bytes,
            )
        return self._traffic

    @property
    def has_traffic(self) -> bool:
        """Whether anything was ever sent or acknowledged; `traffic` would make room for it."""
        return self._traffic is not None

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
        if opened.header.mode == Mode.GHOST:
            opened = unveil(opened)
        header, now = opened.header, arrival.now
        kind = header.kind
        if kind is not PacketType.DATA or header.flags != FLAG_ACK_ELICITING or header.mode:
            check_session_header(header)
        silence, self.last_heard = now - self.last_heard, now
        effects: list[Effect] = []
        if session is self.session:
            self._acks.receive(header, now)
            moved = self._path.arrive(arrival.address, arrival.size, now, newest=opened.newest)
            if silence >= keepalive.LEAST_US:
                self._learn(silence, now, moved=moved)
            if moved:
                self._path.probe = self._tools.entropy.draw(8, now)
                effects += self._heartbeat(now)
            if self._watch is not None and self._watch.receive(opened, now):
                effects.append(ResonanceMismatch(self.peer))
        if kind is PacketType.DATA:
            if opened.payload[:1] == BULK_KIND and not header.flags & FLAG_UNRELIABLE:
                self._fragments.append(read_bulk(header, opened.payload))
            else:
                effects += self._receive_data(opened)
        elif session is self.session:
            effects += self._control(opened, now)
        return effects

    def _learn(self, silence: int, now: Instant, *, moved: bool) -> None:
        lost = moved or (self.has_traffic and self.traffic.recovery.pto_count > 0)
        if self._watch is not None:
            usual_s, battery = self._tools.config.heartbeat_s, self.vitals.battery
            self._keepalive = self._keepalive or keepalive.begin(usual_s, battery, lost=lost)
        if self._keepalive is not None:
            self._keepalive.learn(Duration(silence), now, forgotten=lost)

    def _receive_data(self, opened: Opened) -> list[Effect]:
        header, payload = opened.header, opened.payload
        if header.flags & FLAG_UNRELIABLE:
            return self.standing.deliver([read_datagram(header, payload)], DatagramReceived)
        if self._inbox is None:
            self._inbox = Inbox(self._tools.config.window_bytes)
        found = self._inbox.receive(header, payload)
        return self.standing.deliver(found, MessageReceived)

    def take_fragments(self) -> list[Effect]:
        """Return the fragments that came since this was last asked, as one effect."""
        if not self._fragments:
            return []
        found, self._fragments = tuple(self._fragments), []
        if not self.standing.may_receive(Channel.FILE):
            return [MessageWithheld(self.peer, Channel.FILE)]
        return [FragmentsReceived(self.peer, found)]

    def _control(self, opened: Opened, now: Instant) -> list[Effect]:
        kind, payload = opened.header.kind, opened.payload
        if kind is PacketType.ACK:
            return self._receive_ack(decode_ack(payload), opened.header.timestamp, now)
        if kind is PacketType.CLOSE:
            decode_close(payload)
            self.ended = DownReason.CLOSED_BY_PEER
            return []
        self._probe_echo, vitals = decode_heartbeat(payload)
        if self.session.names.dialled or vitals == self.vitals:
            return []
        self.vitals = vitals
        return [VitalsReported(self.peer, *vitals)]

    def _receive_ack(self, ack: Ack, sent_ms: int, now: Instant) -> list[Effect]:
        # Their clock less ours when the packet came: its delay, and the offset of the clocks.
        apart_ms = (sent_ms - ack.echo_ts + _HALF & 0xFFFFFFFF) - _HALF
        one_way = apart_ms * MILLISECOND - ack.delay_us
        beacons = self.traffic.on_ack(ack, one_way, self.session.next_number, now)
        if beacons and self.session.names.dialled:
            self.session.resonance = beacons[-1]
        effects: list[Effect] = []
        if self._path.echo(ack.probe_echo):
            self.traffic.begin_path()
            effects.append(PeerMoved(self.peer, self.address))
        if self.session.names.dialled:  # nothing of this is ever taken from who dialled us
            self.heartbeat_s = keepalive.obey(ack.heartbeat_s, self.heartbeat_s)
            self.renewal_due = self.renewal_due or bool(ack.flags & ACK_REATTEST)
            effects += self.standing.hear(ack.trust)
        return effects

    def regrade(self, now: Instant) -> list[Effect]:
        """Look at the trust in a peer who dialled us; tell it at once if its level changed."""
        effects: list[Effect] = [*self.standing.look(now)]
        if self._watch is not None and self.standing.level is Level.CLOSED:
            self.ended = DownReason.TRUST
            return effects + self.close(CloseCode.REATTEST, now)
        if effects and self._acks.ranges:
            self._acks.deadline = now
        return effects

    # -- sending ------------------------------------------------------------------------------

    def flush(self, now: Instant) -> list[Effect]:
        """Send what congestion control, the credit and the path allow; then a due ACK."""
        out: list[Effect] = []
        if self.session.next_number >= REKEY_AFTER_PACKETS:  # numbers run out
            self.renewal_due = True
            if self.session.next_number >= REJECT_AFTER_PACKETS:  # and renewal came to nothing
                self.ended = DownReason.EXPIRED
        if self._traffic is not None and self.ended is None:
            self._send_traffic(self._traffic, out, now)
        due = self._ack_deadline()
        if due is not None and now >= due:
            out += self.regrade(now)
            out.append(self._send_ack(now))
        return out

    def _ack_deadline(self) -> Instant | None:
        # An acknowledgement that an unproven path has no room for waits for the path, not a timer.
        size = _ACK_BYTES + 8 * len(self._acks.ranges)
        return self._acks.deadline if self._path.may_send(size) else None

    def _post(self, packet: bytes) -> Transmit:
        path = self._path
        path.on_sent(len(packet))
        return _tuple(Transmit, (path.address, packet))

    def _send_traffic(self, traffic: Traffic, out: list[Effect], now: Instant) -> None:
        if not traffic.pending:
            traffic.release_at = None
            return
        while traffic.talking and self._path.may_send(DATAGRAM_BYTES):
            taken = traffic.take(traffic.room(now), DATAGRAM_BYTES)
            if taken is None:
                break
            out.append(self._send_content(*taken, now))
        size = traffic.probe_size(now)
        if size is not None and self._path.proven:
            out.append(self._send_padded(traffic, size, SizeProbe(size), now))
            traffic.mtu.on_probe_sent()
        room = traffic.room(now)[1] if traffic.bulk and self._path.proven else 0
        while room > 0 and (run := traffic.bulk.take(room, traffic.mtu.size)):
            sent = self._send_run(traffic, run, now)
            room -= len(sent.packets) * len(sent.packets[0])
            out.append(sent)
        traffic.plan(now)

    def _send_content(self, content: Fragment | Datagram, flight: Flight, now: Instant) -> Transmit:
        number = self.session.next_number
        if isinstance(content, Fragment):
            tail = content.message.mode << 16 | content.frag_index << 8 | content.frag_last
            sequence, payload = content.message.sequence, content.payload()
        else:
            tail, sequence, payload = FLAG_UNRELIABLE << 24, 0, content.payload
        packet = self.session.seal(PacketType.DATA, payload, now, sequence, tail)
        self.traffic.recovery.on_sent(number, len(packet), content, flight, now)
        return self._post(packet)

    def _send_run(self, traffic: Traffic, run: list[Span], now: Instant) -> TransmitRun:
        first, size = self.session.next_number, run[0].chunk.packet_bytes
        packets = self.session.seal_run(run, now)
        numbers = range(first, first + len(packets))
        traffic.recovery.on_run_sent(numbers, size, Run(run), traffic.background, now)
        return TransmitRun(self._path.address, packets)

    def _send_padded(self, traffic: Traffic, size: int, content: Content, now: Instant) -> Transmit:
        vitals = self.vitals if self.session.names.dialled else Vitals()
        number = self.session.next_number
        probe = self._path.probe or ZERO_TOKEN
        packet = self.session.seal_padded(encode_heartbeat(probe, vitals), size, now)
        traffic.recovery.on_sent(number, size, content, None, now)
        return self._post(packet)

    def _send_ack(self, now: Instant) -> Transmit:
        acks, config, inbox = self._acks, self._tools.config, self._inbox
        held_us = now - acks.largest_at
        credit = config.window_bytes if inbox is None else inbox.credit
        trust = heartbeat_s = flags = 0
        if self._watch is not None:
            if self._keepalive is not None:
                self.heartbeat_s = self._keepalive.wanted_s(self.vitals.battery, now)
            trust, heartbeat_s = self.standing.trust, self.heartbeat_s
            flags = ACK_REATTEST if self._watch.reattest_at or self.renewal_due else 0
        fields = (
            min(held_us, 0xFFFFFFFF) if held_us > 0 else 0,
            acks.echo_ts,
            min(credit >> 10, 0xFFFFFFFF),
            trust,
            heartbeat_s,
            flags,
            self._probe_echo,
            tuple(acks.ranges),
        )
        acks.sent()
        packet = self.session.seal(PacketType.ACK, encode_ack(_tuple(Ack, fields)), now)
        return self._post(packet)

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
        traffic = self.traffic
        traffic.recovery.on_sent(number, len(packet), Beacon(beacon), traffic.foreground, now)
        return [self._post(packet)]

    # -- time ---------------------------------------------------------------------------------

    def next_timeout(self) -> Instant:
        """Return when `handle_timeout` has something to do."""
        config = self._tools.config
        forget_at = self.last_heard + keepalive.idle_limit(config.idle_us, self.heartbeat_s)
        due = min(self.session.created + config.reject_after_us, forget_at)
        for deadline in (
            self._ack_deadline(),
            None if self._traffic is None else self._traffic.next_timeout(),
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
        if self._traffic is not None and self._traffic.handle_timeout(now):
            effects += self._send_probe(self._traffic, now)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_at = keepalive.next_beat(self.heartbeat_s, self._tools.entropy, now)
            effects += self._heartbeat(now)
        return effects + self.flush(now)

    def _lapsed(self, now: Instant) -> DownReason | None:
        ages_us = (now - self.session.created, now - self.last_heard)
        unanswered = 0 if self._traffic is None else self._traffic.recovery.pto_count
        gone = keepalive.lapsed(self._tools.config, ages_us, unanswered, self.heartbeat_s)
        due = self._reattest_at
        return DownReason.RESONANCE if gone is None and due is not None and now >= due else gone

    def _send_probe(self, traffic: Traffic, now: Instant) -> list[Effect]:
        """After a probe timeout, send the oldest content again whatever the window says."""
        content, place = traffic.recovery.oldest() or (None, 0)
        # What arrived in another packet meanwhile has no bytes any more that could be sent.
        if isinstance(content, Fragment) and content.wanted and self._path.may_send(DATAGRAM_BYTES):
            return [self._send_content(content, traffic.foreground, now)]
        sent: list[Effect] = []
        if self._path.may_send(_KEEPALIVE_BYTES):
            # A small packet also where the path may have become too narrow for large ones.
            sent.append(self._send_padded(traffic, _KEEPALIVE_BYTES, Ping(), now))
        if isinstance(content, Run) and self._path.proven:
            run = content.pick(1 << place)
            if is_wanted(run[0]):
                sent.append(self._send_run(traffic, run, now))
        return sent

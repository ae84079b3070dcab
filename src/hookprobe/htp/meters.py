"""What one session has done so far, for status, metrics and traces.

Read when asked; nothing is counted on the way of a packet.
"""

from typing import NamedTuple

from hookprobe.htp.config import DATAGRAM_BYTES
from hookprobe.htp.effects import Address
from hookprobe.htp.link import Link
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant


class SessionMeter(NamedTuple):
    """One session.

    Attributes:
        peer: The other end.
        address: Where its packets come from.
        dialled: Whether we started it.
        suite: Of the handshake.
        age_us: Of the present keys.
        silent_us: Since its last packet.
        sent: Packets sealed under the present keys.
        received: The largest packet number that opened under them, and one.
        failed: Packets that did not open under them.
        lost: Packets of ours found lost since the session began.
        probes: Probe timeouts in a row now.
        round_trip_us: Smoothed; 0: not known yet.
        window_bytes: Congestion window of what somebody waits for.
        in_flight_bytes: What of it is on the way.
        held_bytes: Of messages that were not acknowledged yet, sent or not.
        datagram_bytes: The size that the path is known to carry.
        trust: In 1/65535.
        level: What that permits.
        heartbeat_s: The longest gap between heartbeats that is asked for.
    """

    peer: NodeId
    address: Address
    dialled: bool
    suite: int
    age_us: int
    silent_us: int
    sent: int
    received: int
    failed: int
    lost: int
    probes: int
    round_trip_us: int
    window_bytes: int
    in_flight_bytes: int
    held_bytes: int
    datagram_bytes: int
    trust: int
    level: int
    heartbeat_s: int


def measure(link: Link, now: Instant) -> SessionMeter:
    """Read the meters of a link; congestion is not known before anything was sent."""
    session, standing = link.session, link.standing
    traffic = link.traffic if link.has_traffic else None
    return SessionMeter(
        peer=link.peer,
        address=link.address,
        dialled=session.names.dialled,
        suite=session.names.suite,
        age_us=now - session.created,
        silent_us=now - link.last_heard,
        sent=session.next_number,
        received=session.received,
        failed=session.failed,
        lost=traffic.recovery.lost_count if traffic else 0,
        probes=traffic.recovery.pto_count if traffic else 0,
        round_trip_us=traffic.recovery.rtt if traffic else 0,
        window_bytes=traffic.foreground.window if traffic else 0,
        in_flight_bytes=traffic.foreground.in_flight if traffic else 0,
        held_bytes=traffic.outbox.held if traffic else 0,
        datagram_bytes=traffic.mtu.size if traffic else DATAGRAM_BYTES,
        trust=standing.trust,
        level=standing.level.value,
        heartbeat_s=link.heartbeat_s,
    )

"""Ports, timeouts and limits of the transport.

Every limit a peer can push against is a field here, with its unit in its name. The numbers are
those of HTP spec 3.2 to 3.6; fields the specification leaves open say why they are what they are.
"""

from dataclasses import dataclass, replace

from hookprobe.errors import ConfigError
from hookprobe.wire.instant import HOUR, MILLISECOND, MINUTE, SECOND

PORT = 4719
PORT_MSSP = 4478
PORT_VALIDATOR = 7946

SUITE_CLASSICAL = 1  # X25519
SUITE_HYBRID = 2  # X25519 and ML-KEM-768

DATAGRAM_BYTES = 1200  # what every path carries without IP fragments
DATAGRAM_MAX_BYTES = 65_507  # what UDP over IPv4 can carry
MESSAGE_MAX_BYTES = 1 << 20
ALGORITHMS = ("cubic", "newreno", "ledbat")


GHOST_WINDOW_BYTES = 8 * DATAGRAM_BYTES  # what waits for its turn is late, not lost
GHOST_MAX_BYTES_PER_S = 12_000_000  # a tick every 100 microseconds
_UNCHECKED = ("answering", "congestion", "background", "ghost_bytes_per_s")


@dataclass(frozen=True, slots=True)
class HtpConfig:
    """Settings of one endpoint; the defaults suit an edge and a small validator.

    Attributes:
        suites_offered: Bit mask a dialling endpoint offers.
        suites_accepted: Bit mask an answering endpoint takes; it picks the strongest in common.
        answering: Whether HELLOs are answered at all.
        retry_initial_us: First step of the retransmission schedule; it doubles each time.
        retry_max_us: Last step of the schedule.
        attest_sends_max: Transmissions of one ATTEST before a new cookie is fetched.
        rejected_wait_us: Least time between a sealed REJECT and the next attempt.
        cookie_period_us: Life of one cookie generation; the previous one is accepted too.
        used_cookies_max: Answers kept for repeated ATTESTs; the oldest makes room.
        partial_attests_max: ATTESTs waiting for their second datagram.
        partial_attest_us: How long they wait.
        prefixes_max: Address prefixes whose rates are remembered.
        attest_rate_per_s: ATTESTs a prefix may have checked, lasting.
        attest_burst: The same at once.
        reset_rate_per_s: Stateless resets a prefix may cause.
        unconfirmed_max: Sessions that have not yet opened a packet, one for each peer; with so many
            an ATTEST is dropped unread, unless the oldest may make room.
        unconfirmed_us: How long none of them makes room.
        peers_max: Peers that dialled us; beyond it a HELLO is told BUSY.
        ciphers_max: Cipher objects kept; two a busy session.
        awake_max: Peers whose state is at the ready; of those beyond, quiet ones that dialled us
            rest in less than half of the memory.
        heartbeat_s: Longest gap between heartbeats that we ask of a dialling peer.
        silence_us: With three probes unanswered, a peer silent for so long is gone.
        idle_us: Silence after which an answering endpoint forgets a peer.
        rekey_us: Age of keys at which the dialler renews them, +-10 %.
        reject_after_us: Age at which keys are dead.
        retired_us: How long replaced keys still open packets.
        reattest_grace_us: Time from a resonance mismatch to the end of the session.
        path_us: How long a new address may stay unproven.
        failed_open_max: Packets that may fail to open under one key.
        ack_delay_us: Longest wait of an acknowledgement.
        ack_every: Packets acknowledged together in a busy session.
        window_bytes: Message bytes a peer may have on the way to us.
        send_queue_max_bytes: Message bytes accepted for one peer and not yet acknowledged.
        congestion_max_bytes: Upper bound of a congestion window.
        congestion: Algorithm for what somebody waits for: cubic, newreno or ledbat.
        background: Algorithm for files that we send as the dialling end.
        datagram_max_bytes: Datagrams we take, as the answering end tells; 1200 stops the search
            for larger ones.
        ghost_bytes_per_s: Above 0, everything leaves in GHOST mode, at this mean rate whether there
            is something to say or not; see `ghosting`.
    """

    suites_offered: int = SUITE_HYBRID
    suites_accepted: int = SUITE_CLASSICAL | SUITE_HYBRID
    answering: bool = True
    retry_initial_us: int = SECOND
    retry_max_us: int = 60 * SECOND
    attest_sends_max: int = 3
    rejected_wait_us: int = 60 * SECOND
    cookie_period_us: int = 60 * SECOND
    used_cookies_max: int = 8192
    partial_attests_max: int = 4096
    partial_attest_us: int = 3 * SECOND
    prefixes_max: int = 16_384
    attest_rate_per_s: int = 20
    attest_burst: int = 5
    reset_rate_per_s: int = 10
    unconfirmed_max: int = 4096
    unconfirmed_us: int = 5 * SECOND
    peers_max: int = 4096
    ciphers_max: int = 4096
    awake_max: int = 2048
    heartbeat_s: int = 30
    silence_us: int = 30 * SECOND
    idle_us: int = 2 * MINUTE
    rekey_us: int = HOUR
    reject_after_us: int = 75 * MINUTE
    retired_us: int = 30 * SECOND
    reattest_grace_us: int = MINUTE
    path_us: int = 10 * SECOND
    failed_open_max: int = 2**36
    ack_delay_us: int = 25 * MILLISECOND
    ack_every: int = 8
    window_bytes: int = 4 << 20
    send_queue_max_bytes: int = 16 << 20
    congestion_max_bytes: int = 4 << 20
    congestion: str = "cubic"
    background: str = "ledbat"
    datagram_max_bytes: int = 8952
    ghost_bytes_per_s: int = 0

    def ghosting(self, bytes_per_s: int) -> "HtpConfig":
        """Return these settings for GHOST mode: one size of datagram, a small window."""
        return replace(
            self,
            ghost_bytes_per_s=bytes_per_s,
            datagram_max_bytes=DATAGRAM_BYTES,
            congestion_max_bytes=GHOST_WINDOW_BYTES,
        )

    def __post_init__(self) -> None:
        """Refuse settings under which no session could live."""
        problems = [
            f"htp: {name}: must be positive"
            for name in self.__slots__
            if name not in _UNCHECKED and getattr(self, name) <= 0
        ]
        problems += [
            f"htp: {name}: one of {', '.join(ALGORITHMS)}"
            for name in ("congestion", "background")
            if getattr(self, name) not in ALGORITHMS
        ]
        if not DATAGRAM_BYTES <= self.datagram_max_bytes <= DATAGRAM_MAX_BYTES:
            problems.append("htp: datagram_max_bytes: must be from 1200 to 65507")
        if self.suites_offered & ~3 or self.suites_accepted & ~3:
            problems.append("htp: suites: known bits are 1 (X25519) and 2 (X25519 + ML-KEM-768)")
        if not 15 <= self.heartbeat_s <= 120:
            problems.append("htp: heartbeat_s: must be from 15 to 120")
        if not 0 <= self.ghost_bytes_per_s <= GHOST_MAX_BYTES_PER_S:
            problems.append(f"htp: ghost_bytes_per_s: from 0 to {GHOST_MAX_BYTES_PER_S}")
        ghosting = self.ghost_bytes_per_s > 0
        narrow = self.datagram_max_bytes == DATAGRAM_BYTES
        if ghosting and not (narrow and self.congestion_max_bytes <= GHOST_WINDOW_BYTES):
            problems.append("htp: ghost_bytes_per_s: wants the settings that `ghosting` makes")
        if self.rekey_us * 11 // 10 >= self.reject_after_us:
            problems.append("htp: rekey_us: renewal must come before reject_after_us")
        if self.send_queue_max_bytes < 4 * MESSAGE_MAX_BYTES:
            problems.append("htp: send_queue_max_bytes: must hold four messages of 1 MiB")
        if problems:
            raise ConfigError(problems)

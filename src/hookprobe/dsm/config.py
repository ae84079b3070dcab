"""The ledger's settings. What the whole mesh must agree on is in the genesis document instead."""

from dataclasses import dataclass

from hookprobe.wire.instant import DAY, MILLISECOND, MINUTE, SECOND


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """Timers and limits of one node.

    The values are those of the DSM spec, sections 2.3, 2.5, 2.8, 2.9 and 2.10. `keep_blocks` and
    `keep_contents` count partitions of chain time, 0 for ever.
    """

    view_timeout_us: int = 4 * SECOND
    view_timeout_max_us: int = 60 * SECOND
    silent_leader_timeout_us: int = 500 * MILLISECOND
    silent_epochs: int = 10
    rebroadcast_us: int = 4 * SECOND
    cut_grace_us: int = 500 * MILLISECOND
    epoch_gap_us: int = 1 * SECOND
    quorum_alarm_us: int = 30 * SECOND
    have_us: int = 200 * MILLISECOND
    status_us: int = 5 * SECOND
    request_timeout_us: int = 2 * SECOND
    push_delay_us: int = 100 * MILLISECOND
    push_blocks_max: int = 64
    push_validators: int = 2
    push_retry_us: int = 2 * SECOND
    push_window_blocks: int = 1024
    share_payloads: bool = True
    edges_max: int = 1000
    requests_max: int = 256
    waiting_blocks_max: int = 256
    lane_blocks_max: int = 60_000
    open_lanes_max: int = 4
    messages_per_s: int = 2_000
    bytes_per_s: int = 16 << 20
    checks_per_s: int = 30_000
    answers_per_s: int = 100_000
    disconnect_us: int = 10 * MINUTE
    recovery_wait_us: int = 3 * SECOND
    partition_us: int = DAY
    keep_blocks: int = 30
    keep_contents: int = 365

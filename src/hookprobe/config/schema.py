"""Every key an operator may set, with its type, unit and default.

`KEYS` is the whole schema: `config show`, `config check`, the reference page and the loader read
this one table. A key is a dotted path into the YAML file. Keys of features that this version does
not have are not in the table, so setting one is an error and not a silent promise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hookprobe.errors import MalformedError
from hookprobe.identity.directory import parse_address
from hookprobe.neuro.backends.selection import BACKENDS
from hookprobe.wire.identifiers import parse_node_id

Value: TypeAlias = "str | int | tuple[str, ...]"

QUOTED_REGISTERS = ("0", "1", "2", "3", "7")
PROFILES = ("sentinel", "guardian", "fortress", "nexus")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        path: Dotted path in the file.
        parse: Turns the YAML value into the setting; raises `MalformedError`.
        default: The value where no source sets it.
        about: One line for people, with the unit.
    """

    path: str
    parse: Callable[[object], Value]
    default: Value
    about: str


def _text(value: object) -> Value:
    if not isinstance(value, str):
        raise MalformedError("must be text")
    return value


def _choice(*names: str) -> Callable[[object], Value]:
    def parse(value: object) -> Value:
        if value not in names:
            raise MalformedError(f"must be one of {', '.join(names)}")
        return str(value)

    return parse


def _integer(low: int, high: int) -> Callable[[object], Value]:
    def parse(value: object) -> Value:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)  # the environment and flags carry text
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise MalformedError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _addresses(value: object) -> Value:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise MalformedError("must be a list of host:port")
    for item in items:
        parse_address(item, port_min=0)
    if len(items) != 1:
        raise MalformedError("must name one host:port; this version listens on one address")
    return tuple(items)


def _address(value: object) -> Value:
    text = str(_text(value))
    if text:
        parse_address(text, port_min=0)
    return text


def _texts(value: object) -> Value:
    items = [item for item in value.split(",") if item] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise MalformedError("must be a list of text")
    return tuple(items)


def _flag(value: object) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value not in {"true", "false"}:
        raise MalformedError("must be true or false")
    return str(value)


def _absent(what: str) -> Callable[[object], Value]:
    """Return the parser of a switch for what this version does not have: it can only be off."""

    def parse(value: object) -> Value:
        if _flag(value) == "true":
            raise MalformedError(f"{what}; leave it false")
        return "false"

    return parse


def _blocks_backend(value: object) -> Value:
    if value == "leveldb":
        raise MalformedError("leveldb: rocksdb is its successor; sqlite needs no package")
    return _choice("sqlite", "rocksdb")(value)


def _url(*schemes: str) -> Callable[[object], Value]:
    def parse(value: object) -> Value:
        text = str(_text(value))
        if text and text.partition("://")[0] not in schemes:
            # Never quoted: it may hold a password.
            raise MalformedError(f"must be empty or begin with {' or '.join(schemes)} and ://")
        return text

    return parse


def _role(value: object) -> Value:
    if value == "both":
        raise MalformedError(
            "both: run an edge and a validator, each with a file and name of its own"
        )
    return _choice("edge", "validator", "verifier")(value)


def _registers(value: object) -> Value:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list):
        raise MalformedError("must be a list of numbers from 0 to 23")
    found = tuple(str(_integer(0, 23)(item)) for item in items)
    if found != QUOTED_REGISTERS:
        raise MalformedError(f"this version quotes the registers {', '.join(QUOTED_REGISTERS)}")
    return found


def _words(*names: str) -> Callable[[object], Value]:
    def parse(value: object) -> Value:
        found = _texts(value)
        if not isinstance(found, tuple) or any(item not in names for item in found):
            raise MalformedError(f"must be a list of: {', '.join(names)}")
        return found

    return parse


def _node_id(value: object) -> Value:
    return parse_node_id(value)


def _quorum(value: object) -> Value:
    # The documents of the mesh show this key as a float. It is read so that those files work, and
    # refused where it would be lower than the only safe quorum, n - (n-1)//3: here for every n, in
    # `config/agreement.py` for the n of the mesh.
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise MalformedError("must be a number")
    try:
        threshold = float(value)
    except ValueError as error:
        raise MalformedError("must be a number") from error
    if not 0.67 <= threshold <= 1:
        raise MalformedError("a quorum below two thirds is not safe; leave the key out")
    return str(value)


FILE_EXTENSIONS = (
    ".bin", ".conf", ".csv", ".gz", ".hpe", ".json", ".jsonl", ".log", ".md", ".pcap", ".pcapng",
    ".rules", ".tar", ".txt", ".yaml", ".yml", ".zst",
)  # fmt: skip

KEYS = (
    Key("profile", _choice(*PROFILES), "guardian", "tier: sets limits that suit the hardware"),
    Key("dsm.node.id", _node_id, "node", "this node's name; must be that of its key file"),
    Key("dsm.node.role", _role, "edge", "what this node does: edge, validator or verifier"),
    Key("dsm.tpm.enabled", _flag, "false", "read for old files; must fit identity.tpm"),
    Key("dsm.tpm.key_path", _text, "", "read for old files; a TPM keeps its key itself"),
    Key(
        "dsm.tpm.pcr_indices",
        _registers,
        QUOTED_REGISTERS,
        "read for old files; these are quoted",
    ),
    Key("dsm.validator.enabled", _flag, "false", "read for old files; must fit dsm.node.role"),
    Key("dsm.validator.tpm_keys", _texts, (), "TPM keys of applicants that you vouch for"),
    Key("dsm.validator.require_tpm", _flag, "false", "approve only who is tpm-attested"),
    Key(
        "dsm.validator.attestation_ms",
        _integer(1_000, 2_592_000_000),
        86_400_000,
        "an applicant's attestation is stale when its checkpoint is older, ms",
    ),
    Key(
        "dsm.validator.certificate_path",
        _text,
        "",
        "the node's certificate; empty: enrolment.json in identity.path",
    ),
    Key(
        "dsm.consensus.epoch_duration",
        _integer(0, 86_400),
        0,
        "seconds; must be those of genesis.json; 0: as it says",
    ),
    Key(
        "dsm.consensus.quorum_threshold",
        _quorum,
        "n-f",
        "read for old files; the quorum is n-f, and a lower one is refused",
    ),
    Key(
        "dsm.consensus.signature_timeout",
        _integer(0, 600),
        0,
        "say so when no quorum for, s; 0: as dsm.quorum_alarm_ms says",
    ),
    Key(
        "dsm.storage.microblocks.backend",
        _blocks_backend,
        "sqlite",
        "where the ledger is kept: sqlite, or rocksdb (extra rocksdb)",
    ),
    Key(
        "dsm.storage.microblocks.path",
        _text,
        "",
        "folder of rocksdb; empty: in state.path, where sqlite always is",
    ),
    Key(
        "dsm.storage.checkpoints.backend",
        _choice("sqlite", "postgresql"),
        "sqlite",
        "sqlite: with the blocks; postgresql: copied there too (extra postgresql)",
    ),
    Key(
        "dsm.storage.checkpoints.table",
        _choice("dsm_checkpoints"),
        "dsm_checkpoints",
        "the table's name; only with a server",
    ),
    Key(
        "dsm.storage.checkpoints.url",
        _url("postgresql", "postgres"),
        "",
        "postgresql://user@host/database; empty: as PGHOST and its like say",
    ),
    Key(
        "dsm.storage.pending.url",
        _url("redis", "rediss", "valkey", "unix"),
        "",
        "redis or valkey where pending validations are shown; empty: in the process",
    ),
    Key(
        "dsm.storage.microblocks.retention_days",
        _integer(0, 36_500),
        30,
        "days of chain time that blocks are kept; 0: for ever",
    ),
    Key(
        "dsm.storage.checkpoints.retention_days",
        _integer(0, 36_500),
        365,
        "days that ranges and cuts are kept; headers and certificates are kept for ever",
    ),
    Key(
        "dsm.gossip.port",
        _integer(0, 65_535),
        0,
        "UDP port in place of that of htp.listen; 0: as that says",
    ),
    Key(
        "dsm.gossip.bootstrap_nodes",
        _texts,
        (),
        "host:port of validators; each must be one of directory.json, which decides",
    ),
    Key("dsm.gossip.max_peers", _integer(1, 100_000), 1_000, "edges that a validator takes"),
    Key("dsm.integrations.pod_006.enabled", _flag, "true", "follow the sensors' files"),
    Key(
        "dsm.integrations.pod_006.events",
        _words("ids_alert", "threat_detected"),
        ("ids_alert",),
        "what becomes blocks; threat_detected is told as ids_alert",
    ),
    Key(
        "dsm.integrations.pod_007.enabled",
        _absent("this version does not mitigate"),
        "false",
        "write mitigations down",
    ),
    Key(
        "dsm.integrations.pod_007.events",
        _words("mitigation_applied"),
        ("mitigation_applied",),
        "which of them; only with dsm.integrations.pod_007.enabled",
    ),
    Key("dsm.integrations.pod_005.metrics_export", _flag, "true", "answer /metrics in the API"),
    Key(
        "dsm.integrations.pod_005.dashboard",
        _choice("DSM Mesh Overview"),
        "DSM Mesh Overview",
        "deploy/grafana/dsm-mesh-overview.json",
    ),
    Key("state.path", _text, "state", "folder of ledger and status; relative to the file"),
    Key("identity.path", _text, ".", "folder of node.key, genesis.json and directory.json"),
    Key("identity.tpm", _text, "", "this host's TPM, as device:/dev/tpmrm0; empty: none"),
    Key("htp.listen", _addresses, ("0.0.0.0:4719",), "the UDP address; port 0: any free one"),
    Key("htp.retry_initial_ms", _integer(50, 60_000), 1_000, "first step of dialling again, ms"),
    Key(
        "htp.ghost_bytes_per_s",
        _integer(0, 1_000_000),
        0,
        "GHOST mode: all that leaves, at this mean rate, talk or not; 0: off",
    ),
    Key("htp.keylog", _text, "", "SECRET session keys go here, for `inspect --keys`; empty: no"),
    Key("htp.qlog", _text, "", "file for a qlog trace of the sessions with one peer; empty: none"),
    Key("htp.qlog_peer", _text, "", "whose sessions htp.qlog traces"),
    Key("sensors.suricata", _texts, (), "EVE files to follow"),
    Key("sensors.zeek", _texts, (), "Zeek log files to follow"),
    Key("sensors.home_networks", _texts, (), "our networks; empty: RFC 1918 and its like"),
    Key("sensors.start", _choice("beginning", "end"), "end", "where a file not seen before begins"),
    Key("sensors.idle_ms", _integer(100, 3_600_000), 300_000, "silence that closes incidents, ms"),
    Key("dsm.propose_grace_ms", _integer(0, 60_000), 500, "wait for the last cuts, ms"),
    Key("dsm.view_timeout_ms", _integer(100, 60_000), 4_000, "first view timer, ms"),
    Key("dsm.quorum_alarm_ms", _integer(100, 600_000), 30_000, "say so when no quorum for, ms"),
    Key(
        "dsm.epoch_gap_ms", _integer(0, 60_000), 1_000, "least time between epochs catching up, ms"
    ),
    Key("dsm.log.witnesses", _texts, (), "vkeys of witnesses whose cosignatures are kept"),
    Key(
        "dsm.partition_ms",
        _integer(1_000, 2_592_000_000),
        86_400_000,
        "what is dropped as a whole and counted as a day of retention, ms",
    ),
    Key("neuro.interval_ms", _integer(100, 3_600_000), 60_000, "from one TER to the next, ms"),
    Key("neuro.grace_ms", _integer(0, 86_400_000), 600_000, "expired certificates count for, ms"),
    Key("neuro.backend", _choice(*BACKENDS), "pure", "arithmetic; all give the same bits"),
    Key("neuro.tpm_roots", _texts, (), "PEM files of TPM makers that a verifier believes"),
    Key("egress.path", _text, "", "file that records all that leaves this node; empty: none"),
    Key("files.path", _text, "", "folder for peers' files, one folder each; empty: none"),
    Key("files.extensions", _texts, FILE_EXTENSIONS, "ends of names that are served; empty: all"),
    Key("files.quota_mib", _integer(1, 1 << 20), 4_096, "room for each peer's files, MiB"),
    Key("api.listen", _address, "", "host:port of the query API in this process; empty: none"),
    Key("api.anonymous", _choice("none", "reader"), "none", "what may be asked without a token"),
    Key("api.requests_per_s", _integer(1, 10_000), 20, "for each token or address"),
    Key("api.service", _text, "mssp-cloud", "what /api/v1/health calls this service"),
    Key("webhooks.path", _text, "", "file of webhooks (dsm-webhooks.yaml); empty: none"),
    Key("limits.receive_per_wake", _integer(1, 1024), 64, "datagrams taken per wake"),
)

BY_PATH = {key.path: key for key in KEYS}

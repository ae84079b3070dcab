"""Zeek logs, JSON and TSV, into the same records that Suricata's lines become.

Both forms are read into a row of plain values first; one builder per log makes the record. Logs
that no detector reads (`files`, `x509`, `weird`, ...) are counted. JSON lines carry no log name
unless Zeek's streaming writer adds `_path`, so the sensor says which log it is.

Numbers stay exact: TSV times never become floats, and JSON times, which are floats in JSON, are
rounded to the microsecond that Zeek meant.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from hookprobe.detection.address import Address, parse_address
from hookprobe.detection.event import (
    Activity,
    ArpSeen,
    Conversation,
    DhcpSeen,
    DnsSeen,
    FlowSeen,
    HttpSeen,
    LoginSeen,
    Outcome,
    SecurityEvent,
    Severity,
    TlsSeen,
    Unused,
)
from hookprobe.detection.stamp import parse_epoch_seconds
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.instant import SECOND, Instant, parse_iso

LINE_MAX_BYTES = 1 << 20
COLUMNS_MAX = 256
_TEXT_MAX = 4096
_NUMBER_MAX = 2**63

Row: TypeAlias = Mapping[str, object]

_decode = msgspec.json.Decoder(dict[str, object]).decode

_COUNTED = frozenset(
    ["analyzer", "broker", "capture_loss", "cluster", "dce_rpc", "dnp3", "files", "intel", "irc", "kerberos", "known_certs", "known_hosts", "known_services", "ldap", "ldap_search", "loaded_scripts", "modbus", "mqtt_connect", "mqtt_publish", "mysql", "ntlm", "ntp", "ocsp", "packet_filter", "pe", "postgresql", "quic", "radius", "rdp", "reporter", "rfb", "sip", "smb_cmd", "smb_files", "smb_mapping", "smtp", "snmp", "socks", "software", "ssh", "stats", "syslog", "telemetry", "traceroute", "tunnel", "weird", "websocket", "x509"]
)


def parse_zeek_json(line: bytes, log: str = "") -> Activity | Unused:
    """Read one line of a Zeek JSON log.

    Args:
        line: The JSON object.
        log: The log's name (`conn`, `dns`, ...); `_path` in the line wins.

    Raises:
        LimitExceededError: Longer than `LINE_MAX_BYTES`.
        MalformedError: Not UTF-8, not a JSON object, or fields missing or of the wrong type.
    """
    if len(line) > LINE_MAX_BYTES:
        raise LimitExceededError(f"zeek line: {len(line)} bytes, limit {LINE_MAX_BYTES}")
    try:
        line.decode("utf-8")
        row = _decode(line)
    except UnicodeDecodeError as error:
        raise MalformedError(f"zeek line: not UTF-8 at byte {error.start}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedError(f"zeek line: {str(error)[:160]}") from error
    return _build(row, _text(row, "_path") or log)


class ZeekTsvParser:
    """A Zeek TSV log, line by line: the header says what the columns are.

    Args:
        log: The log's name, until `#path` names it.
    """

    def __init__(self, log: str = "") -> None:
        self._log = log
        self._separator = "\t"
        self._set_separator = ","
        self._empty = "(empty)"
        self._unset = "-"
        self._fields: list[str] = []
        self._types: list[str] = []

    def receive_line(self, line: bytes) -> Activity | Unused | None:
        """Take one line; None for header and footer lines.

        Raises:
            LimitExceededError: Longer than `LINE_MAX_BYTES`, or too many columns.
            MalformedError: Not UTF-8, data before the header, or fields that do not fit it.
        """
        if len(line) > LINE_MAX_BYTES:
            raise LimitExceededError(f"zeek line: {len(line)} bytes, limit {LINE_MAX_BYTES}")
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise MalformedError(f"zeek line: not UTF-8 at byte {error.start}") from error
        if text.startswith("#"):
            self._header(text)
            return None
        if not text.strip():
            return None
        return _build(self._row(text), self._log)

    def _header(self, text: str) -> None:
        if text.startswith("#separator "):
            self._separator = _unescape(text.removeprefix("#separator ")) or "\t"
            return
        name, _, rest = text.partition(self._separator)
        if name == "#path":
            self._log = rest
        elif name == "#set_separator":
            self._set_separator = rest or ","
        elif name == "#empty_field":
            self._empty = rest
        elif name == "#unset_field":
            self._unset = rest
        elif name in {"#fields", "#types"}:
            columns = rest.split(self._separator)
            if len(columns) > COLUMNS_MAX:
                raise LimitExceededError(f"zeek header: {len(columns)} columns, max {COLUMNS_MAX}")
            if name == "#fields":
                self._fields, self._types = columns, []
            else:
                self._types = columns

    def _row(self, text: str) -> Row:
        if not self._fields or len(self._fields) != len(self._types):
            raise MalformedError("zeek line: data before a #fields and #types header")
        values = text.split(self._separator)
        if len(values) != len(self._fields):
            raise MalformedError(
                f"zeek line: {len(values)} fields, the header names {len(self._fields)}"
            )
        columns = zip(self._fields, self._types, values, strict=True)
        return {
            name: self._value(kind, value) for name, kind, value in columns if value != self._unset
        }

    def _value(self, kind: str, value: str) -> object:
        if kind.startswith(("vector[", "set[")):
            if value == self._empty:
                return []
            return [_unescape(each) for each in value.split(self._set_separator)]
        if value == self._empty:
            return ""
        if kind in {"count", "int", "port"}:
            return _integer(value)
        if kind == "bool":
            return value == "T"
        return _unescape(value)


_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")


def _unescape(text: str) -> str:
    if "\\x" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise MalformedError("zeek line: not a whole number")
    return int(text)


def _text(row: Row, name: str) -> str:
    value = row.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError(f"zeek line: field {name!r} is not text")
    return value[:_TEXT_MAX]


def _number(row: Row, name: str) -> int:
    value = row.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _NUMBER_MAX:
        raise MalformedError(f"zeek line: field {name!r} is not a count")
    return value


def _texts(row: Row, name: str) -> list[str]:
    value = row.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise MalformedError(f"zeek line: field {name!r} is not a list of texts")
    return value


def _micros(value: object, name: str) -> int:
    """Return a time or interval in microseconds, as exactly as it was written."""
    if isinstance(value, str):
        if "T" in value:
            return parse_iso(value)
        return parse_epoch_seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"zeek line: field {name!r} is not a time")
    if not 0 <= value < 253_402_300_800:
        raise MalformedError(f"zeek line: field {name!r} is out of range")
    return round(value * SECOND)


def _at(row: Row) -> Instant:
    if "ts" not in row:
        raise MalformedError("zeek line: field 'ts' is missing")
    return Instant(_micros(row["ts"], "ts"))


def _conversation(row: Row) -> Conversation:
    source, target = _text(row, "id.orig_h"), _text(row, "id.resp_h")
    ports = _number(row, "id.orig_p"), _number(row, "id.resp_p")
    if not source or not target or max(ports) > 65_535:
        raise MalformedError("zeek line: without usable id.orig_h, id.resp_h and ports")
    return Conversation(
        src=parse_address(source),
        src_port=ports[0],
        dst=parse_address(target),
        dst_port=ports[1],
        proto=_text(row, "proto").upper() or "TCP",
        community_id=_text(row, "community_id"),
        flow_id=_text(row, "uid"),
        in_iface="",
    )


def _conn(row: Row, at: Instant) -> Activity:
    service = _text(row, "service")
    duration_us = _micros(row.get("duration") or 0, "duration")
    return FlowSeen(
        at=at,
        end=Instant(at + duration_us),
        conversation=_conversation(row),
        outcome=_outcome(_text(row, "conn_state"), _text(row, "history")),
        packets_out=_number(row, "orig_pkts"),
        packets_back=_number(row, "resp_pkts"),
        bytes_out=_number(row, "orig_ip_bytes"),
        bytes_back=_number(row, "resp_ip_bytes"),
        app_proto="tls" if service == "ssl" else service,
        state=_text(row, "conn_state"),
        reason="",
    )


def _outcome(state: str, history: str) -> Outcome:
    """Zeek's connection states, as base/protocols/conn documents them.

    S0: no reply. REJ: refused. RSTOS0, SH: the initiator gave up before an answer was seen.
    OTH and the rest without a SYN: picked up midway.
    """
    if state == "REJ":
        return Outcome.REFUSED
    if state in {"S0", "RSTOS0", "SH"}:
        # History starts with S for a SYN, D for data of a protocol without handshakes.
        return Outcome.UNANSWERED if history[:1] in {"S", "D", ""} else Outcome.UNTRACKED
    if state in {"OTH", "RSTRH", "SHR"}:
        return Outcome.UNTRACKED
    if "h" in history and not set(history) & set("AD"):
        return Outcome.HALF_OPEN
    return Outcome.ESTABLISHED


def _dns(row: Row, at: Instant) -> Activity:
    name, rrtype = _text(row, "query"), _text(row, "qtype_name")
    return DnsSeen(at, _conversation(row), name, rrtype, False, _number(row, "trans_id"))


def _ssl(row: Row, at: Instant) -> Activity:
    names = _text(row, "server_name"), _text(row, "subject")
    return TlsSeen(at, _conversation(row), *names, Instant(0), _text(row, "ja3"), _text(row, "ja4"))


def _http(row: Row, at: Instant) -> Activity:
    path = _text(row, "uri").partition("?")[0][:256]
    method, host = _text(row, "method"), _text(row, "host")
    status, depth = _number(row, "status_code"), _number(row, "trans_depth")
    return HttpSeen(at, _conversation(row), method, host, path, status, depth)


def _ssh(row: Row, at: Instant) -> Activity:
    success = row.get("auth_success")
    failed = None if not isinstance(success, bool) else not success
    return LoginSeen(at, _conversation(row), "ssh", failed, _number(row, "auth_attempts"))


_FTP_FAILED, _FTP_WELCOME = 530, 230


def _ftp(row: Row, at: Instant) -> Activity | Unused:
    code = _number(row, "reply_code")
    if _text(row, "command") not in {"PASS", "USER"} or code not in {_FTP_FAILED, _FTP_WELCOME}:
        return Unused("ftp", known=True)
    # Zeek gives FTP commands no number; the time keeps two attempts of one session apart.
    return LoginSeen(at, _conversation(row), "ftp", code == _FTP_FAILED, at)


def _dhcp(row: Row, at: Instant) -> Activity:
    kinds = [kind.lower() for kind in _texts(row, "msg_types")] or ["unknown"]
    return DhcpSeen(
        at=at,
        kind=kinds[-1],
        client_mac=_text(row, "mac").lower(),
        server=_address(row, "server_addr"),
        assigned=_address(row, "assigned_addr") or _address(row, "requested_addr"),
        routers=(),
        transaction=at,
    )


def _arp(row: Row, at: Instant) -> Activity:
    address = _address(row, "orig_h")
    if address is None:
        raise MalformedError("zeek line: arp without orig_h")
    mac = _text(row, "orig_hw") or _text(row, "src_mac")
    return ArpSeen(at, _text(row, "operation"), address, mac.lower(), _address(row, "resp_h"))


def _address(row: Row, name: str) -> Address | None:
    text = _text(row, name)
    return parse_address(text) if text else None


# Notices that an attack was seen, by prefix; the rest are hints. Ids are ours, Zeek has none.
_NOTICES: tuple[tuple[str, int, Severity], ...] = (
    ("Scan::", 9_100_001, Severity.HIGH),
    ("SSH::Password_Guessing", 9_100_002, Severity.HIGH),
    ("FTP::Bruteforcing", 9_100_003, Severity.HIGH),
    ("Heartbleed::", 9_100_004, Severity.HIGH),
    ("HTTP::SQL_Injection", 9_100_005, Severity.HIGH),
    ("ATTACK::", 9_100_006, Severity.HIGH),
    ("SSH::", 9_100_007, Severity.MEDIUM),
)
_OTHER_NOTICE = 9_199_999


def _notice(row: Row, at: Instant) -> Activity:
    note = _text(row, "note")
    found = [(sid, level) for prefix, sid, level in _NOTICES if note.startswith(prefix)]
    signature_id, severity = found[0] if found else (_OTHER_NOTICE, Severity.LOW)
    port = _number(row, "p")
    return SecurityEvent(
        at=at,
        conversation=None,
        signature_id=signature_id,
        signature=f"Zeek notice {note}",
        category="",
        severity=severity,
        techniques=(),
        initiator=_address(row, "src") or _address(row, "id.orig_h"),
        responder=_address(row, "dst") or _address(row, "id.resp_h"),
        responder_port=port if port <= 65_535 else 0,
        blocked=False,
        tx_id=0,
    )


_BUILDERS: dict[str, Callable[[Row, Instant], Activity | Unused]] = {
    "conn": _conn,
    "dns": _dns,
    "ssl": _ssl,
    "http": _http,
    "ssh": _ssh,
    "ftp": _ftp,
    "dhcp": _dhcp,
    "arp": _arp,
    "notice": _notice,
}


def _build(row: Row, log: str) -> Activity | Unused:
    build = _BUILDERS.get(log)
    if build is None:
        return Unused(log[:64], log in _COUNTED)
    return build(row, _at(row))

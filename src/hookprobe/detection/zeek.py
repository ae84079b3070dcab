"""Zeek logs, JSON and TSV, into the same records that Suricata's lines become.

Both forms are read into a row of plain values first; one builder per log makes the record. Logs
that no detector reads (`files`, `x509`, `weird`, ...) are counted. JSON lines carry no log name
unless Zeek's streaming writer adds `_path`, so the sensor says which log it is.

Numbers stay exact: TSV times never become floats, and JSON times, which are floats in JSON, are
rounded to the microsecond that Zeek meant.
"""

from collections.abc import Callable

import msgspec

from hookprobe.detection.address import parse_address
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
from hookprobe.detection.kinds import ZEEK_COUNTED
from hookprobe.detection.zeek_rows import (
    LINE_MAX_BYTES,
    Row,
    TsvReader,
    address_of,
    instant_of,
    micros_of,
    number_of,
    text_of,
    texts_of,
)
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.instant import Instant

_PORT_MAX = 65_535

_decode = msgspec.json.Decoder(dict[str, object]).decode


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
    return _build(row, text_of(row, "_path") or log)


class ZeekTsvParser:
    """A Zeek TSV log, line by line.

    Args:
        log: The log's name, until the header names it.
    """

    def __init__(self, log: str = "") -> None:
        self._reader = TsvReader(log)

    def receive_line(self, line: bytes) -> Activity | Unused | None:
        """Take one line; None for header, footer and empty lines.

        Raises:
            LimitExceededError: Longer than `LINE_MAX_BYTES`, or too many columns.
            MalformedError: Not UTF-8, data before the header, or fields that do not fit it.
        """
        row = self._reader.receive_line(line)
        return None if row is None else _build(row, self._reader.log)


def _conversation(row: Row) -> Conversation:
    source, target = text_of(row, "id.orig_h"), text_of(row, "id.resp_h")
    ports = number_of(row, "id.orig_p"), number_of(row, "id.resp_p")
    if not source or not target or max(ports) > _PORT_MAX:
        raise MalformedError("zeek line: without usable id.orig_h, id.resp_h and ports")
    return Conversation(
        src=parse_address(source),
        src_port=ports[0],
        dst=parse_address(target),
        dst_port=ports[1],
        proto=text_of(row, "proto").upper() or "TCP",
        community_id=text_of(row, "community_id"),
        flow_id=text_of(row, "uid"),
        in_iface="",
    )


def _conn(row: Row, at: Instant) -> Activity:
    service = text_of(row, "service")
    duration_us = micros_of(row.get("duration") or 0, "duration")
    return FlowSeen(
        at=at,
        end=Instant(at + duration_us),
        conversation=_conversation(row),
        outcome=_outcome(text_of(row, "conn_state"), text_of(row, "history")),
        packets_out=number_of(row, "orig_pkts"),
        packets_back=number_of(row, "resp_pkts"),
        bytes_out=number_of(row, "orig_ip_bytes"),
        bytes_back=number_of(row, "resp_ip_bytes"),
        app_proto="tls" if service == "ssl" else service,
        state=text_of(row, "conn_state"),
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
    name, rrtype = text_of(row, "query"), text_of(row, "qtype_name")
    return DnsSeen(at, _conversation(row), name, rrtype, False, number_of(row, "trans_id"))


def _ssl(row: Row, at: Instant) -> Activity:
    names = text_of(row, "server_name"), text_of(row, "subject")
    return TlsSeen(
        at, _conversation(row), *names, Instant(0), text_of(row, "ja3"), text_of(row, "ja4")
    )


def _http(row: Row, at: Instant) -> Activity:
    path = text_of(row, "uri").partition("?")[0][:256]
    method, host = text_of(row, "method"), text_of(row, "host")
    status, depth = number_of(row, "status_code"), number_of(row, "trans_depth")
    return HttpSeen(at, _conversation(row), method, host, path, status, depth)


def _ssh(row: Row, at: Instant) -> Activity:
    success = row.get("auth_success")
    failed = None if not isinstance(success, bool) else not success
    return LoginSeen(at, _conversation(row), "ssh", failed, number_of(row, "auth_attempts"))


_FTP_FAILED, _FTP_WELCOME = 530, 230


def _ftp(row: Row, at: Instant) -> Activity | Unused:
    code = number_of(row, "reply_code")
    if text_of(row, "command") not in {"PASS", "USER"} or code not in {_FTP_FAILED, _FTP_WELCOME}:
        return Unused("ftp", known=True)
    # Zeek gives FTP commands no number; the time keeps two attempts of one session apart.
    return LoginSeen(at, _conversation(row), "ftp", code == _FTP_FAILED, at)


def _dhcp(row: Row, at: Instant) -> Activity:
    kinds = [kind.lower() for kind in texts_of(row, "msg_types")] or ["unknown"]
    return DhcpSeen(
        at=at,
        kind=kinds[-1],
        client_mac=text_of(row, "mac").lower(),
        server=address_of(row, "server_addr"),
        assigned=address_of(row, "assigned_addr") or address_of(row, "requested_addr"),
        routers=(),
        transaction=at,
    )


def _arp(row: Row, at: Instant) -> Activity:
    address = address_of(row, "orig_h")
    if address is None:
        raise MalformedError("zeek line: arp without orig_h")
    mac = text_of(row, "orig_hw") or text_of(row, "src_mac")
    return ArpSeen(at, text_of(row, "operation"), address, mac.lower(), address_of(row, "resp_h"))


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
    note = text_of(row, "note")
    found = [(sid, level) for prefix, sid, level in _NOTICES if note.startswith(prefix)]
    signature_id, severity = found[0] if found else (_OTHER_NOTICE, Severity.LOW)
    port = number_of(row, "p")
    return SecurityEvent(
        at=at,
        conversation=None,
        signature_id=signature_id,
        signature=f"Zeek notice {note}",
        category="",
        severity=severity,
        techniques=(),
        initiator=address_of(row, "src") or address_of(row, "id.orig_h"),
        responder=address_of(row, "dst") or address_of(row, "id.resp_h"),
        responder_port=port if port <= _PORT_MAX else 0,
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
        return Unused(log[:64], log in ZEEK_COUNTED)
    return build(row, instant_of(row))

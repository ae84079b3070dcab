"""One line of Suricata's EVE log in, one record out.

Every event type that Suricata 4 to 8 writes is recognised: those that detectors read become typed
records, the rest are counted by type, and a type that is new to us is counted too. A line that is
not what it claims to be is refused with the reason; the stream goes on.

Left to others: which lines there are (`stream`), doubles (`dedup`), meaning (`pipeline`).
"""

from collections.abc import Callable

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
    SensorHealth,
    Severity,
    TlsSeen,
    Unused,
)
from hookprobe.detection.kinds import EVE_COUNTED
from hookprobe.detection.stamp import parse_stamp
from hookprobe.detection.suricata_shapes import EveLine
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire.instant import Instant

LINE_MAX_BYTES = 1 << 20
TECHNIQUES_MAX = 16
_PATH_MAX = 256

# Suricata's priorities run from 1 (worst) to 4; a rule that says "Critical" itself is believed.
_SEVERITIES = {1: Severity.HIGH, 2: Severity.MEDIUM}

_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_FTP_FAILED, _FTP_WELCOME = "530", "230"

_decode = msgspec.json.Decoder(EveLine).decode


def parse_eve_line(line: bytes) -> Activity | Unused:
    """Read one EVE line.

    Args:
        line: The JSON object, with or without the line end.

    Raises:
        LimitExceededError: Longer than `LINE_MAX_BYTES`.
        MalformedError: Not UTF-8, not a JSON object, a field of the wrong type, or a field missing
            that the event type needs.
    """
    if len(line) > LINE_MAX_BYTES:
        raise LimitExceededError(f"eve line: {len(line)} bytes, limit {LINE_MAX_BYTES}")
    try:
        if not line.isascii():
            line.decode("utf-8")
        eve = _decode(line)
    except UnicodeDecodeError as error:
        raise MalformedError(f"eve line: not UTF-8 at byte {error.start}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        # msgspec names the field and the types, never the value.
        raise MalformedError(f"eve line: {str(error)[:160]}") from error
    build = _BUILDERS.get(eve.event_type)
    if build is None:
        return Unused(eve.event_type, eve.event_type in EVE_COUNTED)
    return build(eve, parse_stamp(eve.timestamp))


def _conversation(eve: EveLine) -> Conversation:
    if not eve.src_ip or not eve.dest_ip:
        raise MalformedError(f"eve line: {eve.event_type} without addresses")
    return Conversation(
        src=parse_address(eve.src_ip),
        src_port=eve.src_port,
        dst=parse_address(eve.dest_ip),
        dst_port=eve.dest_port,
        proto=eve.proto,
        community_id=eve.community_id,
        flow_id=str(eve.flow_id),
        in_iface=eve.in_iface,
    )


def _alert(eve: EveLine, at: Instant) -> Activity:
    alert = eve.alert
    if alert is None:
        raise _missing(eve, "alert")
    # Decoder events carry no addresses: the packet was too broken to have any.
    conversation = _conversation(eve) if eve.src_ip and eve.dest_ip else None
    initiator, responder, port = _ends(eve, conversation)
    severity = _SEVERITIES.get(alert.severity, Severity.LOW)
    if "Critical" in _texts(alert.metadata.get("signature_severity")):
        severity = Severity.CRITICAL
    return SecurityEvent(
        at=at,
        conversation=conversation,
        signature_id=alert.signature_id,
        signature=alert.signature,
        category=alert.category,
        severity=severity,
        techniques=tuple(_texts(alert.metadata.get("mitre_technique_id"))[:TECHNIQUES_MAX]),
        initiator=initiator,
        responder=responder,
        responder_port=port,
        blocked=alert.action == "blocked",
        tx_id=eve.tx_id,
    )


def _texts(value: list[str] | str | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _ends(
    eve: EveLine, conversation: Conversation | None
) -> tuple[Address | None, Address | None, int]:
    """Return initiator, responder and the responder's port.

    A rule may match the victim's answer ("530 Login incorrect"): then the packet's sender is not
    the attacker. Suricata 7 puts the flow's own ends into the alert; before, `direction` tells.
    """
    if conversation is None:
        return None, None, 0
    if eve.flow is not None and eve.flow.src_ip and eve.flow.dest_ip:
        return parse_address(eve.flow.src_ip), parse_address(eve.flow.dest_ip), eve.flow.dest_port
    if eve.direction == "to_client":
        return conversation.dst, conversation.src, conversation.src_port
    return conversation.src, conversation.dst, conversation.dst_port


def _flow(eve: EveLine, at: Instant) -> Activity:
    flow = eve.flow
    if flow is None:
        raise _missing(eve, "flow")
    start = parse_stamp(flow.start) if flow.start else at
    return FlowSeen(
        at=start,
        end=max(start, parse_stamp(flow.end)) if flow.end else start,
        conversation=_conversation(eve),
        outcome=_outcome(eve),
        packets_out=flow.pkts_toserver,
        packets_back=flow.pkts_toclient,
        bytes_out=flow.bytes_toserver,
        bytes_back=flow.bytes_toclient,
        app_proto="" if eve.app_proto == "failed" else eve.app_proto,
        state=flow.state,
        reason=flow.reason,
    )


def _outcome(eve: EveLine) -> Outcome:
    flow, tcp = eve.flow, eve.tcp
    answered = flow is not None and flow.pkts_toclient > 0
    if eve.proto != "TCP" or tcp is None:
        return Outcome.ESTABLISHED if answered else Outcome.UNANSWERED
    out, back = _flags(tcp.tcp_flags_ts), _flags(tcp.tcp_flags_tc)
    if not out & _SYN:
        return Outcome.UNTRACKED
    if not answered:
        return Outcome.UNANSWERED
    if back & _RST and not back & _SYN:
        return Outcome.REFUSED
    return Outcome.ESTABLISHED if out & _ACK else Outcome.HALF_OPEN


def _flags(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as error:
        raise MalformedError("eve line: tcp flags are not hex digits") from error


def _dns(eve: EveLine, at: Instant) -> Activity | Unused:
    dns = eve.dns
    if dns is None:
        raise _missing(eve, "dns")
    name, rrtype = dns.rrname, dns.rrtype
    if not name and dns.queries:
        name, rrtype = dns.queries[0].rrname, dns.queries[0].rrtype
    is_answer = dns.type in {"answer", "response"}
    return DnsSeen(at, _conversation(eve), name, rrtype, is_answer, dns.id)


def _tls(eve: EveLine, at: Instant) -> Activity:
    tls = eve.tls
    if tls is None:
        raise _missing(eve, "tls")
    ja3 = tls.ja3.hash if tls.ja3 is not None else ""
    ends = _not_after(tls.notafter)
    return TlsSeen(at, _conversation(eve), tls.sni, tls.subject, ends, ja3, tls.ja4)


def _not_after(text: str) -> Instant:
    # Suricata writes certificate dates in UTC without saying so. The date is the far server's
    # choice, nonsense included; nonsense is no reason to lose the handshake.
    try:
        return parse_stamp(text + "Z") if text else Instant(0)
    except MalformedError:
        return Instant(0)


def _http(eve: EveLine, at: Instant) -> Activity:
    http = eve.http
    if http is None:
        raise _missing(eve, "http")
    path = http.url.partition("?")[0][:_PATH_MAX]
    conversation = _conversation(eve)
    return HttpSeen(at, conversation, http.http_method, http.hostname, path, http.status, eve.tx_id)


def _ftp(eve: EveLine, at: Instant) -> Activity | Unused:
    ftp = eve.ftp
    if ftp is None:
        raise _missing(eve, "ftp")
    failed = _FTP_FAILED in ftp.completion_code
    if ftp.command != "PASS" or not (failed or _FTP_WELCOME in ftp.completion_code):
        return Unused("ftp", known=True)
    return LoginSeen(at, _conversation(eve), "ftp", failed, eve.tx_id)


def _ssh(eve: EveLine, at: Instant) -> Activity:
    return LoginSeen(at, _conversation(eve), "ssh", None, eve.tx_id)


def _dhcp(eve: EveLine, at: Instant) -> Activity:
    dhcp = eve.dhcp
    if dhcp is None:
        raise _missing(eve, "dhcp")
    is_reply = dhcp.type == "reply"
    return DhcpSeen(
        at=at,
        kind=dhcp.dhcp_type,
        client_mac=dhcp.client_mac.lower(),
        server=parse_address(eve.src_ip) if is_reply and eve.src_ip else None,
        assigned=parse_address(dhcp.assigned_ip) if dhcp.assigned_ip else None,
        routers=tuple(parse_address(text).packed for text in dhcp.routers[:8]),
        transaction=dhcp.id,
    )


def _arp(eve: EveLine, at: Instant) -> Activity:
    arp = eve.arp
    if arp is None:
        raise _missing(eve, "arp")
    target = parse_address(arp.dest_ip) if arp.dest_ip else None
    return ArpSeen(at, arp.opcode, parse_address(arp.src_ip), arp.src_mac.lower(), target)


def _stats(eve: EveLine, at: Instant) -> Activity:
    stats = eve.stats
    if stats is None:
        raise _missing(eve, "stats")
    return SensorHealth(
        at=at,
        packets=stats.capture.kernel_packets or stats.decoder.pkts,
        dropped=stats.capture.kernel_drops,
        invalid=stats.decoder.invalid,
        alerts_lost=stats.detect.alert_queue_overflow,
    )


def _missing(eve: EveLine, part: str) -> MalformedError:
    return MalformedError(f"eve line: {eve.event_type[:40]} event without its {part!r} object")


_BUILDERS: dict[str, Callable[[EveLine, Instant], Activity | Unused]] = {
    "alert": _alert,
    "flow": _flow,
    "dns": _dns,
    "tls": _tls,
    "http": _http,
    "ftp": _ftp,
    "ssh": _ssh,
    "dhcp": _dhcp,
    "arp": _arp,
    "stats": _stats,
}

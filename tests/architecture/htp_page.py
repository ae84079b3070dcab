"""The tables of docs/protocol/htp.md from the code's own, and its conditions from the tests."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

from hookprobe.htp import config, exchange, explain, messages, packet, trust
from hookprobe.htp.channels import ALERTS, PRIORITIES, Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import DownReason, DropReason, RefusedReason, RejectCode
from hookprobe.htp.handshake import DIAL_TABLE, SESSION_TABLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/protocol/htp.md"
TESTS = ROOT / "tests"
_MARK = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TEST = re.compile(r"^(?:async )?def (test_(?:attack_)?(\d\d)_\w+)", re.MULTILINE)

CONDITIONS = {
    1: "a transcript does not open to who only listens, and names nobody",
    2: "a validator without the pinned key",
    3: "a relayed challenge, verbatim or with the signature lifted",
    4: "unknown key share: two edges or two validators swapped",
    5: "every bit of the four handshake messages flipped",
    6: "each of them truncated and extended",
    7: "downgrade of suite or version; a packet of version 1",
    8: "HELLO without or with a wrong mac1 meets silence",
    9: "a cookie from another address, of an old generation, for another suite",
    10: "ATTEST replayed",
    11: "points of low order, malformed ML-KEM keys",
    12: "revoked, suspended and unknown nodes get a sealed REJECT of equal size",
    13: "a storm of forged bare REJECTs",
    14: "an unconfirmed session evicts no live one",
    15: "fragments mixed up, and floods of them",
    16: "loss of each handshake message, and of a quarter of all",
    17: "renewals at once from both ends",
    18: "a random source that repeats itself",
    19: "amplification below 1 before the address is proven",
    20: "a spoofed flood: memory flat, an honest edge connects",
    21: "replay, reordering, duplication",
    22: "a packet reflected to its sender",
    23: "header fields changed, byte by byte",
    24: "packet numbers that jump, up to the limit",
    25: "no nonce twice under a key",
    26: "forged and optimistic acknowledgements",
    27: "NAT rebinding, roaming races, the three-fold limit",
    28: "stateless resets: right, wrong, looping",
    29: "CLOSE replayed",
    30: "beacons of another session, and stale ones",
    31: "trust raised by what a client says of itself",
    32: "sleep of ten hours, clocks set back",
    33: "paths that lead out of the folder",
    34: "compression bombs, wrong checksums and sizes",
    35: "files of 0, 1, 512 MiB + 1 and 2^30 bytes",
    36: "content with another SHA-256 is never visible",
    37: "kill -9 at every step leaves the old file or the new one",
    38: "resuming after a restart, with a changed source",
    39: "the 17th transfer, the quota, a full disk",
    40: "concurrent updates with one if_match",
    41: "loss of 0 to 25 %, reordering, duplication, corruption, black holes",
    42: "sharing a bottleneck with other algorithms",
    43: "segmentation refused by the host",
    44: "any bytes into each parser: a refusal, never another exception",
    45: "any sequence of operations and events",
    46: "GHOST: idle and active sessions cannot be told apart",
    47: "many sessions for long: memory does not grow",
    48: "more handshakes at once than fit: what was begun is finished, the others come later",
}


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def layout(fields: Iterable[tuple[str, int]], start: int) -> str:
    rows, offset = [], start
    for name, size in fields:
        rows.append((offset, size, f"`{name}`"))
        offset += size
    return table("offset | bytes | field", rows)


def enumeration(kinds: type[Enum]) -> str:
    return table("value | name", ((kind.value, kind.name) for kind in kinds))


def transitions(moves: Iterable[tuple[tuple[Enum, Enum], Enum]]) -> str:
    rows = ((state.name, event.name, after.name) for (state, event), after in moves)
    return table("state | event | next state", rows)


def sizes() -> str:
    rows = [
        ("HELLO", config.DATAGRAM_BYTES, config.DATAGRAM_BYTES),
        ("CHALLENGE", messages.CHALLENGE_BYTES, messages.CHALLENGE_BYTES),
        ("ATTEST", *exchange.ATTEST_BYTES.values()),
        ("ACCEPT, sealed REJECT", *exchange.ACCEPT_BYTES.values()),
        ("bare REJECT", messages.BARE_REJECT_BYTES, messages.BARE_REJECT_BYTES),
        ("session packet, at least", *[packet.SEALED_OVERHEAD_BYTES] * 2),
    ]
    return table("message | bytes, suite 1 | bytes, suite 2", rows)


def limits() -> str:
    about = dict(
        re.findall(r"^    +(\w+): (.+(?:\n {9,}.+)*)", HtpConfig.__doc__ or "", re.MULTILINE)
    )
    rows = (
        (f"`{field.name}`", getattr(HtpConfig(), field.name), " ".join(about[field.name].split()))
        for field in dataclasses.fields(HtpConfig)
    )
    return table("setting | default | meaning", rows)


def channels() -> str:
    rows = (
        (
            f"{channel.value:#04x}",
            channel.name,
            PRIORITIES[channel].name,
            ", ".join(
                word
                for word, holds in (
                    ("alerts (BURST)", channel in ALERTS),
                    ("attestation", channel in trust.ATTESTATION),
                )
                if holds
            ),
        )
        for channel in Channel
    )
    return table("kind | channel | priority | remarks", rows)


def levels() -> str:
    borders = {
        trust.Level.CLOSED: (0, trust.ATTESTING_FROM - 1),
        trust.Level.ATTESTING: (trust.ATTESTING_FROM, trust.FULL_FROM - 1),
        trust.Level.FULL: (trust.FULL_FROM, trust.FULL_TRUST),
    }
    rows = (
        (
            level.name,
            f"{low} to {high}",
            ", ".join(channel.name for channel in Channel if trust.permits(level, channel))
            or "none",
        )
        for level, (low, high) in borders.items()
    )
    return table("level | trust, 1/65535 | channels open to the dialling end", rows)


def named_tests() -> dict[int, list[str]]:
    """Return the tests that are named after a condition."""
    found: dict[int, list[str]] = {number: [] for number in CONDITIONS}
    for path in (
        sorted(TESTS.rglob("test_htp*.py"))
        + sorted(TESTS.rglob("test_runtime_*.py"))
        + [TESTS / "integration/test_nat.py"]
    ):
        for name, number in _TEST.findall(path.read_text(encoding="utf-8")):
            found[int(number)].append(name)
    return found


def conditions() -> str:
    tests = named_tests()
    rows = (
        (number, about, "<br>".join(f"`{name}`" for name in tests[number]))
        for number, about in CONDITIONS.items()
    )
    return table("no. | condition | tests", rows)


TABLES: dict[str, Callable[[], str]] = {
    "header": lambda: layout(explain._HEADER, 0),
    "body": lambda: layout(explain._BODY, packet.HEADER_BYTES),
    "types": lambda: enumeration(packet.PacketType),
    "flags": lambda: table("bit | name", explain._FLAGS.items()),
    "modes": lambda: enumeration(packet.Mode),
    "sizes": sizes,
    "hello": lambda: layout(explain._HELLO, packet.PREFIX_BYTES),
    "challenge": lambda: layout(explain._CHALLENGE, packet.PREFIX_BYTES),
    "attest": lambda: layout(explain._ATTEST, packet.HEADER_BYTES),
    "heartbeat": lambda: layout(explain._HEARTBEAT, 0),
    "ack": lambda: layout(explain._ACK, 0),
    "fragment": lambda: layout(explain._FRAGMENT, 0),
    "veil": lambda: layout(explain._VEIL, 0),
    "reject codes": lambda: enumeration(RejectCode),
    "close codes": lambda: enumeration(messages.CloseCode),
    "down reasons": lambda: enumeration(DownReason),
    "drop reasons": lambda: enumeration(DropReason),
    "refused reasons": lambda: enumeration(RefusedReason),
    "channels": channels,
    "levels": levels,
    "dialler": lambda: transitions(DIAL_TABLE.items()),
    "session": lambda: transitions(SESSION_TABLE.items()),
    "limits": limits,
    "conditions": conditions,
}


def page() -> str:
    """Return docs/protocol/htp.md with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    return _MARK.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def shown() -> list[str]:
    """Return the tables that the page shows."""
    return [found[1] for found in _MARK.findall(PAGE.read_text(encoding="utf-8"))]

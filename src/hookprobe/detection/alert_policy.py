"""Which alerts of the sensor matter by themselves.

After CrowdSec's mapping of Suricata priorities: 1 triggers at once, 2 needs three different
signatures of one source, 3 is ignored. Adapted, with reasons:

* The engine's own events (`SURICATA ...`: checksums, reassembly, decoder) are about packets, not
  intent; checksum offload alone makes thousands. Two name an exploit and trigger.
* Hunting, informational, policy, chat, games and user-agent rules describe what software is in use.
  They never trigger, but three of them next to real evidence support it.
* A rule whose name states a compromise ("likely bot", "checkin", "CnC") triggers whatever its
  priority: priorities come from the class, and classes are chosen carelessly.
* One signature of priority 2 that names an attack and repeats ten times is a guesser or scanner at
  work, which a single hit does not show.
* Priority 2 and supporting alerts count towards incidents that are open for the same source.
"""

from enum import IntEnum, unique

from hookprobe.detection.event import SecurityEvent, Severity


@unique
class Weight(IntEnum):
    """What one alert is worth."""

    NOTHING = 0
    SUPPORT = 1  # counts only beside other evidence
    SUSPICION = 2  # three different signatures make an incident
    TRIGGER = 3


_ENGINE_PREFIX = "SURICATA "
_ENGINE_TRIGGERS = frozenset({2230013, 2230014})  # TLS heartbeat beyond its record: Heartbleed
_SUPPORT_PREFIXES = (
    "ET INFO",
    "ET HUNTING",
    "ET POLICY",
    "ET CHAT",
    "ET GAMES",
    "ET P2P",
    "ET USER_AGENTS",
    "ET DNS",
    "ET JA3",
    "ET CINS",
    "ET DROP",
    "ET 3CORESec",
    "ET TOR",
    "ET DYN_DNS",
    "ET ICMP",
    "ET INAPPROPRIATE",
    "ET ADWARE_PUP",
    "ET COMPROMISED",
    "GPL ICMP_INFO",
    "GPL ICMP",
    "GPL POLICY",
)
_COMPROMISE_WORDS = ("likely bot", "checkin", " cnc ", "trojan", "backdoor", "ransom", "heartbleed")


def weigh(event: SecurityEvent) -> Weight:
    """Return what an alert is worth."""
    if event.signature_id in _ENGINE_TRIGGERS:
        return Weight.TRIGGER
    if event.signature.startswith(_ENGINE_PREFIX):
        return Weight.NOTHING
    lowered = event.signature.lower()
    if any(word in lowered for word in _COMPROMISE_WORDS):
        return Weight.TRIGGER
    if event.signature.startswith(_SUPPORT_PREFIXES):
        return Weight.SUPPORT
    if event.severity >= Severity.HIGH:
        return Weight.TRIGGER
    return Weight.SUSPICION if event.severity is Severity.MEDIUM else Weight.SUPPORT


def severity_of(event: SecurityEvent) -> Severity:
    """Return the severity of the incident that a trigger opens."""
    return max(event.severity, Severity.HIGH)

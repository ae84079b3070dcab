"""What each finding and each rule of a sensor means in MITRE ATT&CK, and how bad it is.

Technique ids are those of ATT&CK for Enterprise v15. A rule's own `mitre_technique_id` wins; these
tables serve the many rules that carry none. A technique is named only where the evidence shows
it: a user-agent rule, for one, proves a program's name and nothing else.
"""

from dataclasses import dataclass
from enum import Enum, unique

from hookprobe.detection.event import Severity


@unique
class Category(Enum):
    """What kind of thing an incident is; the word that is shared."""

    RECONNAISSANCE = "reconnaissance"
    CREDENTIAL_ACCESS = "credential-access"
    DENIAL_OF_SERVICE = "denial-of-service"
    COMMAND_AND_CONTROL = "command-and-control"
    EXFILTRATION = "exfiltration"
    EXPLOITATION = "exploitation"
    LATERAL_MOVEMENT = "lateral-movement"
    SPOOFING = "spoofing"
    MALWARE = "malware"
    HYGIENE = "hygiene"
    SUSPICIOUS = "suspicious"


@unique
class Hostile(Enum):
    """Which end of an incident is the attacker's, and so the one worth telling others."""

    SOURCE = "source"
    TARGET = "target"
    NEITHER = "neither"


@unique
class Family(Enum):
    """What our own detectors find; the value is the local signature id."""

    VERTICAL_SCAN = 9_000_001
    HORIZONTAL_SCAN = 9_000_002
    SLOW_SCAN = 9_000_003
    SYN_FLOOD = 9_000_010
    SLOW_HTTP = 9_000_011
    PACKET_FLOOD = 9_000_012
    ADDRESS_FLOOD = 9_000_013
    SSH_BRUTE_FORCE = 9_000_020
    LOGIN_BRUTE_FORCE = 9_000_021
    SERVICE_BRUTE_FORCE = 9_000_022
    BEACON = 9_000_030
    DNS_TUNNEL = 9_000_040
    ICMP_TUNNEL = 9_000_041
    ARP_SPOOFING = 9_000_050
    ARP_SCAN = 9_000_051
    ROGUE_DHCP = 9_000_052
    DHCP_STARVATION = 9_000_053
    EXPIRED_CERTIFICATE = 9_000_060
    MANY_SIGNATURES = 9_000_090


@dataclass(frozen=True, slots=True)
class Profile:
    """The story of one kind of incident, for operators and for sharing."""

    title: str
    category: Category
    severity: Severity
    techniques: tuple[str, ...]
    hostile: Hostile


_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
_RECON, _DOS, _SPOOF = Category.RECONNAISSANCE, Category.DENIAL_OF_SERVICE, Category.SPOOFING
_ACCESS, _C2 = Category.CREDENTIAL_ACCESS, Category.COMMAND_AND_CONTROL
_SRC, _DST, _NONE = Hostile.SOURCE, Hostile.TARGET, Hostile.NEITHER

PROFILES: dict[Family, Profile] = {
    Family.VERTICAL_SCAN: Profile("Vertical port scan", _RECON, _MEDIUM, ("T1046",), _SRC),
    Family.HORIZONTAL_SCAN: Profile("Horizontal port scan", _RECON, _MEDIUM, ("T1046",), _SRC),
    Family.SLOW_SCAN: Profile("Slow port scan", _RECON, _MEDIUM, ("T1046",), _SRC),
    # Flood sources are forged: blocking or sharing them would hurt bystanders.
    Family.SYN_FLOOD: Profile("SYN flood", _DOS, _HIGH, ("T1499.001",), _NONE),
    Family.SLOW_HTTP: Profile("Slow HTTP attack", _DOS, _HIGH, ("T1499.002",), _SRC),
    Family.PACKET_FLOOD: Profile("Packet flood", _DOS, _HIGH, ("T1498.001",), _NONE),
    Family.ADDRESS_FLOOD: Profile("Flood of made-up addresses", _DOS, _HIGH, ("T1498.001",), _NONE),
    Family.SSH_BRUTE_FORCE: Profile("SSH password guessing", _ACCESS, _HIGH, ("T1110",), _SRC),
    Family.LOGIN_BRUTE_FORCE: Profile("Password guessing", _ACCESS, _HIGH, ("T1110",), _SRC),
    Family.SERVICE_BRUTE_FORCE: Profile(
        "Repeated short logins to a service", _ACCESS, _MEDIUM, ("T1110",), _SRC
    ),
    Family.BEACON: Profile("Periodic connections (beacon)", _C2, _MEDIUM, ("T1071",), _DST),
    Family.DNS_TUNNEL: Profile("Data carried in DNS names", _C2, _HIGH, ("T1071.004",), _DST),
    Family.ICMP_TUNNEL: Profile("Data carried in ICMP", _C2, _HIGH, ("T1095",), _DST),
    Family.ARP_SPOOFING: Profile("Two owners of one address", _SPOOF, _HIGH, ("T1557.002",), _NONE),
    Family.ARP_SCAN: Profile("ARP scan", _RECON, _MEDIUM, ("T1018",), _SRC),
    Family.ROGUE_DHCP: Profile("Two DHCP servers disagree", _SPOOF, _HIGH, ("T1557.003",), _NONE),
    Family.DHCP_STARVATION: Profile("DHCP pool exhaustion", _DOS, _HIGH, ("T1499",), _NONE),
    Family.EXPIRED_CERTIFICATE: Profile(
        "Expired server certificate", Category.HYGIENE, _LOW, (), _NONE
    ),
    Family.MANY_SIGNATURES: Profile(
        "Several suspicious signatures from one source", Category.SUSPICIOUS, _MEDIUM, (), _SRC
    ),
}


# First match wins: a phrase of the rule's name, the category, techniques the phrase itself shows.
_BY_NAME: tuple[tuple[str, Category, tuple[str, ...]], ...] = (
    ("heartbleed", Category.EXPLOITATION, ("T1190",)),
    ("brute", Category.CREDENTIAL_ACCESS, ("T1110",)),
    ("dcerpc svcctl", Category.LATERAL_MOVEMENT, ("T1569.002",)),
    ("psexec", Category.LATERAL_MOVEMENT, ("T1569.002", "T1021.002")),
    ("mirai", Category.MALWARE, ()),
    ("likely bot", Category.COMMAND_AND_CONTROL, ()),
    (" cnc ", Category.COMMAND_AND_CONTROL, ("T1071",)),
    ("nmap", Category.RECONNAISSANCE, ("T1046",)),
    ("port scan", Category.RECONNAISSANCE, ("T1046",)),
    ("address_scan", Category.RECONNAISSANCE, ("T1046",)),
    ("port_scan", Category.RECONNAISSANCE, ("T1046",)),
    ("password_guessing", Category.CREDENTIAL_ACCESS, ("T1110",)),
)

_BY_PREFIX: tuple[tuple[str, Category, tuple[str, ...]], ...] = (
    ("ET SCAN", Category.RECONNAISSANCE, ("T1595",)),
    ("ET EXPLOIT", Category.EXPLOITATION, ()),
    ("ET WEB_SERVER", Category.EXPLOITATION, ()),
    ("ET WEB_SPECIFIC_APPS", Category.EXPLOITATION, ()),
    ("ET SQL", Category.EXPLOITATION, ()),
    ("ET MALWARE", Category.MALWARE, ()),
    ("ET TROJAN", Category.MALWARE, ()),
    ("ET WORM", Category.MALWARE, ()),
    ("ET MOBILE_MALWARE", Category.MALWARE, ()),
    ("ET COINMINER", Category.MALWARE, ("T1496",)),
    ("ET DOS", Category.DENIAL_OF_SERVICE, ()),
    ("ET RPC", Category.LATERAL_MOVEMENT, ()),
    ("ET NETBIOS", Category.LATERAL_MOVEMENT, ()),
    ("ET PHISHING", Category.CREDENTIAL_ACCESS, ("T1566",)),
    ("ET ATTACK_RESPONSE", Category.EXPLOITATION, ()),
)

_BY_CLASS: dict[str, Category] = {
    "A Network Trojan was detected": Category.MALWARE,
    "Malware Command and Control Activity Detected": Category.COMMAND_AND_CONTROL,
    "Domain Observed Used for C2 Detected": Category.COMMAND_AND_CONTROL,
    "Crypto Currency Mining Activity Detected": Category.MALWARE,
    "Exploit Kit Activity Detected": Category.EXPLOITATION,
    "Attempted Administrator Privilege Gain": Category.EXPLOITATION,
    "Attempted User Privilege Gain": Category.EXPLOITATION,
    "Successful Administrator Privilege Gain": Category.EXPLOITATION,
    "Successful User Privilege Gain": Category.EXPLOITATION,
    "Web Application Attack": Category.EXPLOITATION,
    "Attempted Information Leak": Category.RECONNAISSANCE,
    "Detection of a Network Scan": Category.RECONNAISSANCE,
    "Attempted Denial of Service": Category.DENIAL_OF_SERVICE,
    "Detection of a Denial of Service Attack": Category.DENIAL_OF_SERVICE,
    "Unsuccessful User Privilege Gain": Category.CREDENTIAL_ACCESS,
    "Successful Credential Theft Detected": Category.CREDENTIAL_ACCESS,
}

# An infected machine inside talks to its master outside: the far end is the hostile one.
_OUTBOUND = frozenset({Category.MALWARE, Category.COMMAND_AND_CONTROL, Category.EXFILTRATION})


def classify_alert(signature: str, class_name: str) -> tuple[Category, tuple[str, ...]]:
    """Return category and techniques of a sensor's rule.

    Args:
        signature: The rule's message.
        class_name: The rule's classification text; may be empty.
    """
    lowered = signature.lower()
    for phrase, category, techniques in _BY_NAME:
        if phrase in lowered:
            return category, techniques
    for prefix, category, techniques in _BY_PREFIX:
        if signature.startswith(prefix):
            return category, techniques
    return _BY_CLASS.get(class_name, Category.SUSPICIOUS), ()


def is_outbound(category: Category) -> bool:
    """Whether incidents of this category start inside and their far end is the hostile one."""
    return category in _OUTBOUND

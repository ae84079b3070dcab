"""Password guessing, from refused logins where the sensor sees them, else from the shape of flows.

* FTP replies 530 and HTTP answers 401 are refusals: few honest people get eight in two minutes.
* A posted login form answers 200 either way; only posts to paths that name a login count.
* SSH is encrypted. Guessing is many short connections of the size that key exchange and a few
  refused passwords take. Automation (a loop of `scp`) can look the same: the incident says
  "guessing", the operator's own automation belongs into a home network's exceptions.
* Databases and desktops reached over and over from outside: applications keep their connections
  and sit inside, guessers do neither.
"""

from hookprobe.detection.address import Networks
from hookprobe.detection.attack import Family
from hookprobe.detection.config import BruteForceConfig
from hookprobe.detection.event import Activity, Conversation, FlowSeen, HttpSeen, LoginSeen, Outcome
from hookprobe.detection.evidence import EvidenceTable
from hookprobe.detection.finding import Finding, findings
from hookprobe.wire.instant import Instant

_UNAUTHORIZED = 401
_SSH_PORT = 22
_LOGIN_WORDS = ("login", "signin", "sign-in", "logon", "xmlrpc", "auth")


class BruteForceDetector:
    """Password guessing against SSH, FTP, HTTP and other services."""

    def __init__(self, config: BruteForceConfig, home: Networks) -> None:
        self._config = config
        self._home = home
        self._ssh = EvidenceTable(config.ssh)
        self._refused = EvidenceTable(config.refused)
        self._posted = EvidenceTable(config.service)
        self._service = EvidenceTable(config.service)

    def observe(self, record: Activity) -> list[Finding]:
        if isinstance(record, FlowSeen):
            return self._flow(record)
        if isinstance(record, LoginSeen) and record.failed:
            return self._refusal(record.conversation, record.tx_id, record.at)
        if isinstance(record, HttpSeen):
            if record.status == _UNAUTHORIZED:
                return self._refusal(record.conversation, record.tx_id, record.at)
            return self._post(record)
        return []

    def _refusal(self, between: Conversation, tx_id: int, at: Instant) -> list[Finding]:
        sightings = self._refused.observe(_key(between), (between.src_port, tx_id), at)
        return findings(Family.LOGIN_BRUTE_FORCE, sightings, between)

    def _post(self, http: HttpSeen) -> list[Finding]:
        path = http.path.lower()
        if http.method != "POST" or not any(word in path for word in _LOGIN_WORDS):
            return []
        between = http.conversation
        item = (between.src_port, http.tx_id)
        sightings = self._posted.observe((*_key(between), path), item, http.at)
        return findings(Family.LOGIN_BRUTE_FORCE, sightings, between)

    def _flow(self, flow: FlowSeen) -> list[Finding]:
        between = flow.conversation
        if between.proto != "TCP" or flow.outcome is not Outcome.ESTABLISHED:
            return []
        if self._is_ssh_guess(flow):
            sightings = self._ssh.observe(_key(between), between.src_port, flow.at)
            return findings(Family.SSH_BRUTE_FORCE, sightings, between)
        if self._is_service_guess(flow):
            sightings = self._service.observe(_key(between), between.src_port, flow.at)
            return findings(Family.SERVICE_BRUTE_FORCE, sightings, between)
        return []

    def _is_ssh_guess(self, flow: FlowSeen) -> bool:
        config = self._config
        is_ssh = flow.app_proto == "ssh" or (
            not flow.app_proto and flow.conversation.dst_port == _SSH_PORT
        )
        return (
            is_ssh
            and config.ssh_packets_min <= flow.packets_out <= config.ssh_packets_max
            and flow.bytes_out <= config.ssh_bytes_max
        )

    def _is_service_guess(self, flow: FlowSeen) -> bool:
        config, between = self._config, flow.conversation
        return (
            between.dst_port in config.service_ports
            and between.src not in self._home
            and flow.bytes_out > 0
            and flow.packets_back > 1
            and flow.packets_out <= config.service_packets_max
        )


def _key(between: Conversation) -> tuple[bytes, bytes, int]:
    return (between.src.packed, between.dst.packed, between.dst_port)

"""Servers that show an expired certificate: a weakness to mend, or a sign of a hasty fake."""

from hookprobe.detection.attack import Family
from hookprobe.detection.event import Activity, TlsSeen
from hookprobe.detection.evidence import Sighting
from hookprobe.detection.finding import Finding


class CertificateDetector:
    """Compares a certificate's end with the time of the handshake; keeps no state."""

    def observe(self, record: Activity) -> list[Finding]:
        if not isinstance(record, TlsSeen) or not 0 < record.not_after < record.at:
            return []
        between = record.conversation
        return [
            Finding(
                Family.EXPIRED_CERTIFICATE,
                Sighting(record.at, record.at, 1),
                target=between.dst,
                target_port=between.dst_port,
                apart=between.dst.packed + between.dst_port.to_bytes(2, "big"),
            )
        ]

"""SHA-256 under a label."""

import hashlib

from hookprobe.crypto.domains import Domain

DIGEST_BYTES = 32


def digest(domain: Domain, data: bytes) -> bytes:
    """Return H(label, data) = SHA-256(label || 0x00 || data), 32 bytes (DSM spec 2.1)."""
    return hashlib.sha256(domain.prefix + data).digest()

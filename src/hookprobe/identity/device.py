"""A registered device and the states it passes through.

    PENDING -> ACTIVE -> SUSPENDED -> ACTIVE
    any     -> REVOKED, which is final

Only ACTIVE devices hold sessions. Everything that changes a status goes through `next_status`.
"""

from enum import Enum

from hookprobe.errors import LocalError


class DeviceStatus(Enum):
    """What the registry says about a device; stored in lower case."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class StatusChange(Enum):
    """What may be asked of the registry."""

    APPROVE = "approve"
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"


_NEXT = {
    (DeviceStatus.PENDING, StatusChange.APPROVE): DeviceStatus.ACTIVE,
    (DeviceStatus.ACTIVE, StatusChange.SUSPEND): DeviceStatus.SUSPENDED,
    (DeviceStatus.SUSPENDED, StatusChange.RESUME): DeviceStatus.ACTIVE,
    (DeviceStatus.PENDING, StatusChange.REVOKE): DeviceStatus.REVOKED,
    (DeviceStatus.ACTIVE, StatusChange.REVOKE): DeviceStatus.REVOKED,
    (DeviceStatus.SUSPENDED, StatusChange.REVOKE): DeviceStatus.REVOKED,
}


def next_status(status: DeviceStatus, change: StatusChange) -> DeviceStatus:
    """Return the status after a change.

    Raises:
        LocalError: The table has no such step.
    """
    found = _NEXT.get((status, change))
    if found is None:
        raise LocalError(f"device: a {status.value} device cannot {change.value}")
    return found

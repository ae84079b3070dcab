"""Is this still the device that was enrolled? Scored component by component.

    component        weight   what it is
    tpm              decides  hash of the TPM endorsement key
    serial             30     processor serial, or the system UUID
    macs               25     permanent MAC addresses, by the share in common
    disks              20     serials of disks and cards, by the share in common
    machine-id         15     written at installation; copied by image clones
    model              10     processor and board name

    score = sum(weight * match) / sum(weight), over the components present at enrolment

In basis points: from 7,000 the same device; from 4,000 an operator looks; below, another device.
What is compared are keyed hashes under the tenant's key, never the identifiers. This catches
cloned cards and mistakes, not attackers: everything but a TPM can be copied by root.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from hookprobe.crypto.domains import Domain
from hookprobe.errors import LimitExceededError, MalformedError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId

TPM = "tpm"
WEIGHTS: Mapping[str, int] = {
    "serial": 30, "macs": 25, "disks": 20, "machine-id": 15, "model": 10
}  # fmt: skip
SAME_BP = 7_000
REVIEW_BP = 4_000
VALUES_MAX = 16
_FULL_BP = 10_000
_HASH_BYTES = 32
_SIZE_MAX_BYTES = 1 << 15


class Match(Enum):
    """What a comparison says."""

    SAME = "same"
    REVIEW = "review"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Keyed hashes of a device's components, sorted; an absent component is an empty tuple."""

    components: tuple[tuple[str, tuple[bytes, ...]], ...]

    def values(self, name: str) -> tuple[bytes, ...]:
        """Return a component's hashes."""
        return dict(self.components).get(name, ())

    def digest(self) -> bytes:
        """Return 32 bytes that name this exact set of components: an enrolment's identifier."""
        return hashlib.sha256(self.encode()).digest()

    def encode(self) -> bytes:
        """Return the canonical document."""
        document: dict[str, Json] = {"type": "F", "v": 1}
        for name, values in self.components:
            listed: list[Json] = [value.hex() for value in values]
            document[name] = listed
        return canonical.encode(document)


def take(facts: Mapping[str, Sequence[str]], tenant_key: bytes) -> Fingerprint:
    """Return the fingerprint of a host's facts.

    Args:
        facts: For each component the identifiers found; unknown names are refused.
        tenant_key: Two tenants cannot compare their devices.

    Raises:
        MalformedError: A component nobody knows.
        LimitExceededError: More identifiers than a device has.
    """
    unknown = [name for name in sorted(facts) if name not in WEIGHTS and name != TPM]
    if unknown:
        raise MalformedError(f"hardware fingerprint: unknown component {unknown[0][:40]!r}")
    found = []
    for name in sorted((TPM, *WEIGHTS)):
        plain = [text for value in facts.get(name, ()) if (text := value.strip().lower())]
        if len(plain) > VALUES_MAX:
            raise LimitExceededError(f"hardware fingerprint: {len(plain)} values of {name}")
        hashes = [_keyed(tenant_key, name, text) for text in plain]
        found.append((name, tuple(sorted(dict.fromkeys(hashes)))))
    return Fingerprint(tuple(found))


def _keyed(tenant_key: bytes, name: str, text: str) -> bytes:
    message = Domain.HARDWARE.value + b"\0" + name.encode() + b"\0" + text.encode()
    return hmac.digest(tenant_key, message, "sha256")


def decode(data: bytes) -> Fingerprint:
    """Read what `Fingerprint.encode` returned.

    Raises:
        MalformedError: Not a fingerprint.
    """
    fields = Fields(canonical.decode_object(data, limit=_SIZE_MAX_BYTES), "hardware fingerprint")
    fields.literal("type", "F")
    fields.literal("v", 1)
    found = []
    for name in sorted((TPM, *WEIGHTS)):
        listed = fields.array(name, limit=VALUES_MAX)
        values = [Fields({name: item}, "hardware fingerprint").hex(name, _HASH_BYTES)
                  for item in listed]  # fmt: skip
        if values != sorted(dict.fromkeys(values)):
            raise MalformedError(f"hardware fingerprint: {name} is not sorted")
        found.append((name, tuple(values)))
    fields.finish()
    return Fingerprint(tuple(found))


def score(enrolled: Fingerprint, seen: Fingerprint) -> int:
    """Return the likeness in basis points, over the components present at enrolment."""
    if enrolled.values(TPM):
        return _FULL_BP if enrolled.values(TPM) == seen.values(TPM) else 0
    total = matched = 0
    for name, weight in WEIGHTS.items():
        ours, theirs = enrolled.values(name), seen.values(name)
        if not ours:
            continue
        common = sum(value in theirs for value in ours)
        union = len(ours) + len(theirs) - common
        total += weight * _FULL_BP
        matched += weight * _FULL_BP * common // union
    return matched * _FULL_BP // total if total else 0


def judge(enrolled: Fingerprint, seen: Fingerprint) -> Match:
    """Return whether this is the enrolled device."""
    reached = score(enrolled, seen)
    if reached >= SAME_BP:
        return Match.SAME
    return Match.REVIEW if reached >= REVIEW_BP else Match.OTHER


def find_clones(
    devices: Mapping[NodeId, Fingerprint], newcomer: NodeId, seen: Fingerprint
) -> tuple[NodeId, ...]:
    """Return the other enrolled devices that the newcomer's hardware or image is a copy of.

    Besides a matching score, an equal machine-id on other hardware counts: two installations never
    share one, copied images do.
    """
    copied = seen.values("machine-id")
    return tuple(
        node
        for node in sorted(devices)
        if node != newcomer
        and (
            judge(devices[node], seen) is Match.SAME
            or (copied and copied == devices[node].values("machine-id"))
        )
    )

"""Update manifests: a release pipeline announces which measurement follows which.

    {"h_integrity": hex, "replaces": [hex, ...], "type": "M", "v": 1, "valid_from": us,
     "version": n, "window": us}

signed by an update key. From `valid_from` on a device that measures one of `replaces` may move to
`h_integrity`, once and in that direction only; until the window ends both are fine, after it only
the new one. Versions only grow, so an old manifest cannot roll a fleet back (HP-NEURO-1 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import LocalError, MalformedError
from hookprobe.neuro import envelope
from hookprobe.neuro.ter import INTEGRITY_BYTES
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields
from hookprobe.wire.instant import DAY, HOUR, Instant

REPLACES_MAX = 16
WINDOW_MAX_US = 30 * DAY
WINDOW_DEFAULT_US = 72 * HOUR


@dataclass(frozen=True, slots=True)
class Manifest:
    """One approved update; times in microseconds."""

    version: int
    h_integrity: bytes
    replaces: tuple[bytes, ...]
    valid_from: Instant
    window_us: int

    @property
    def ends(self) -> int:
        """From here on only the new measurement counts."""
        return self.valid_from + self.window_us

    def to_json(self) -> JsonObject:
        replaces: list[Json] = [item.hex() for item in self.replaces]
        return {
            "h_integrity": self.h_integrity.hex(),
            "replaces": replaces,
            "type": "M",
            "v": 1,
            "valid_from": self.valid_from,
            "version": self.version,
            "window": self.window_us,
        }


def from_json(document: JsonObject) -> Manifest:
    """Read a manifest's document.

    Raises:
        MalformedError: Not one, or it replaces nothing, itself or one thing twice.
    """
    fields = Fields(document, "update manifest")
    fields.literal("type", "M")
    fields.literal("v", 1)
    manifest = Manifest(
        version=fields.integer("version", low=1),
        h_integrity=fields.hex("h_integrity", INTEGRITY_BYTES),
        replaces=tuple(_measurement(item) for item in fields.array("replaces", limit=REPLACES_MAX)),
        valid_from=Instant(fields.integer("valid_from")),
        window_us=fields.integer("window", high=WINDOW_MAX_US),
    )
    fields.finish()
    if list(manifest.replaces) != sorted(dict.fromkeys(manifest.replaces)):
        raise MalformedError("update manifest: `replaces` is not sorted or names one twice")
    if not manifest.replaces or manifest.h_integrity in manifest.replaces:
        raise MalformedError("update manifest: it replaces nothing, or itself")
    return manifest


def _measurement(value: Json) -> bytes:
    return Fields({"replaces": value}, "update manifest").hex("replaces", INTEGRITY_BYTES)


def sign_manifest(manifest: Manifest, signer: Signer) -> bytes:
    """Return the signed document.

    Raises:
        LocalError: The manifest is not one that `open_manifest` would accept.
    """
    try:
        from_json(manifest.to_json())
    except MalformedError as error:
        raise LocalError(error.message) from error
    return envelope.seal(manifest.to_json(), Domain.NEURO_MANIFEST, signer)


def open_manifest(data: bytes, keys: Sequence[bytes], scheme: SignatureScheme) -> Manifest:
    """Return a manifest that one of `keys` signed.

    Raises:
        MalformedError: Not a manifest.
        UnauthorizedError: Signed by somebody else.
        VerificationError: The signature does not hold.
    """
    return from_json(envelope.open_sealed(data, Domain.NEURO_MANIFEST, keys, scheme))

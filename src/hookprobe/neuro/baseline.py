"""Reference values: which measurement a device may report at which moment (RFC 9334 section 2).

A baseline walks along a device's records. Each record meets it and gets an answer: the golden
measurement at that moment, and the baseline for the next record. The walk is a pure function of
the records, so a verifier that restarts walks the same way again.
"""

from dataclasses import dataclass, replace

from hookprobe.errors import LimitExceededError, VerificationError
from hookprobe.neuro import manifest as manifests
from hookprobe.neuro.manifest import Manifest
from hookprobe.neuro.ter import INTEGRITY_BYTES, Ter
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields

PENDING_MAX = 8


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is golden now and what may follow.

    Attributes:
        golden: The measurement that was enrolled, or reached by an approved update; empty while
            nobody has named one: then the first record's becomes it, and everybody is told that no
            human looked at it.
        version: The highest manifest version seen; lower ones are refused.
        pending: Updates not made yet, by version.
    """

    golden: bytes
    version: int = 0
    pending: tuple[Manifest, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the first measurement will be taken as golden."""
        return not self.golden

    def announce(self, manifest: Manifest) -> "Baseline":
        """Return the baseline that also allows an update.

        Raises:
            VerificationError: Its version is not above every version seen (rollback).
            LimitExceededError: Too many updates are waiting.
        """
        if manifest.version <= self.version:
            raise VerificationError(
                f"update manifest: version {manifest.version} after {self.version}"
            )
        if len(self.pending) >= PENDING_MAX:
            raise LimitExceededError(f"baseline: {PENDING_MAX} updates are waiting already")
        return replace(self, version=manifest.version, pending=(*self.pending, manifest))

    def meet(self, record: Ter) -> tuple["Baseline", bool]:
        """Return the baseline after a record, and whether the record made an update.

        The record's measurement is golden exactly if it equals the new baseline's.
        """
        if self.is_open:
            return replace(self, golden=record.h_integrity), False
        current = self._expired(record)
        if record.h_integrity == current.golden:
            return current, current.golden != self.golden
        for update in current.pending:
            if (
                update.h_integrity == record.h_integrity
                and current.golden in update.replaces
                and update.valid_from <= record.timestamp
            ):
                return current.after_update(update), True
        return current, False

    def accept(self, h_integrity: bytes) -> "Baseline":
        """Return the baseline after an operator confirmed a measurement."""
        return replace(self, golden=h_integrity)

    def _expired(self, record: Ter) -> "Baseline":
        # After an update's window the new measurement is the golden one, made or not.
        current = self
        for update in self.pending:
            if update.ends <= record.timestamp and current.golden in update.replaces:
                current = current.after_update(update)
        return current

    def after_update(self, update: Manifest) -> "Baseline":
        left = tuple(item for item in self.pending if item.version > update.version)
        return replace(self, golden=update.h_integrity, pending=left)

    def to_json(self) -> JsonObject:
        pending: list[Json] = [item.to_json() for item in self.pending]
        return {"golden": self.golden.hex(), "pending": pending, "version": self.version}


def from_json(document: JsonObject) -> Baseline:
    """Read what `Baseline.to_json` returned.

    Raises:
        MalformedError: Not a baseline.
    """
    fields = Fields(document, "baseline")
    pending = fields.array("pending", limit=PENDING_MAX)
    baseline = Baseline(
        golden=_golden(fields),
        version=fields.integer("version"),
        pending=tuple(_update(item) for item in pending),
    )
    fields.finish()
    return baseline


def _golden(fields: Fields) -> bytes:
    text = fields.text("golden", limit=2 * INTEGRITY_BYTES)
    return Fields({"golden": text}, "baseline").hex("golden", INTEGRITY_BYTES) if text else b""


def _update(value: Json) -> Manifest:
    return manifests.from_json(Fields({"pending": value}, "baseline").object("pending"))

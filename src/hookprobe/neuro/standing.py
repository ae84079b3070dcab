"""What a verifier keeps about one device, in memory and as bytes.

    u32 length | canonical JSON | snapshot of the state

The JSON holds everything but the weights: name, key, baseline, latches, trust. The whole is as
secret as the seed.
"""

from dataclasses import dataclass, replace

from hookprobe.crypto.signing import PUBLIC_KEY_BYTES
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.neuro import baseline as baselines
from hookprobe.neuro import snapshot
from hookprobe.neuro.appraisal import walk
from hookprobe.neuro.backends.engine import EngineFactory
from hookprobe.neuro.baseline import Baseline
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.state import NeuroState
from hookprobe.neuro.ter import TER_BYTES, Ter
from hookprobe.neuro.trust import Trust
from hookprobe.neuro.verdict import BY_NAME, Verdict
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import NodeId, parse_node_id
from hookprobe.wire.instant import Instant
from hookprobe.wire.reader import Reader, Writer

# Records kept to compare a second claim with: 17 hours at one a minute. An older claim is refused
# as REJECT_SEQ all the same, only the fork is not proven.
RECENT_MAX = 1024
_JSON_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Standing:
    """A device as its verifier knows it.

    Attributes:
        node: Its name.
        key: Its Ed25519 operating key.
        epoch: Its weight epoch.
        state: Its state after every record taken.
        baseline: Its reference values there.
        trust: Its trust.
        verdict: The last verdict; None before the first.
        broken_at: First record with a measurement that no operator has accepted.
        forked: A second device used its state; nothing counts until a new epoch.
        recent: The last records taken, 64 bytes each.
    """

    node: NodeId
    key: bytes
    epoch: int
    state: NeuroState
    baseline: Baseline
    trust: Trust
    verdict: Verdict | None = None
    broken_at: int | None = None
    forked: bool = False
    recent: bytes = b""

    def took(self, records: tuple[Ter, ...]) -> bytes:
        """Return `recent` after more records."""
        joined = self.recent + b"".join(record.encode() for record in records)
        return joined[-RECENT_MAX * TER_BYTES :]

    def taken(self, index: int) -> bytes | None:
        """Return the record taken under an index; None if it is not kept or not there."""
        kept = len(self.recent) // TER_BYTES
        place = index - (self.state.count - kept)
        if not 0 <= place < kept:
            return None
        return self.recent[place * TER_BYTES : (place + 1) * TER_BYTES]

    def follow(self, first_index: int, records: tuple[Ter, ...]) -> "Standing":
        """Return the standing after records that were verified before a restart.

        Raises:
            VerificationError: They do not continue this standing.
        """
        skipped = self.state.count - first_index
        if skipped < 0:
            raise VerificationError(f"{self.node}: verified records are missing before a restart")
        fresh = records[skipped:]
        if not fresh:
            return self
        met = walk(fresh, self.state.count, self.baseline)
        state = self.state.copy()
        state.advance(fresh)
        broken = self.broken_at if self.broken_at is not None else met.first_bad
        return replace(
            self,
            state=state,
            baseline=met.baseline,
            broken_at=broken,
            verdict=Verdict.RESONANT if broken is None else Verdict.TAMPER_REPORTED,
            recent=self.took(fresh),
        )


def encode_standing(standing: Standing) -> bytes:
    """Return the stored form; secret."""
    document = canonical.encode(
        {
            "baseline": standing.baseline.to_json(),
            "broken_at": standing.broken_at,
            "forked": standing.forked,
            "key": standing.key.hex(),
            "node": standing.node,
            "trust": standing.trust.basis_points,
            "trust_at": standing.trust.at,
            "verdict": None if standing.verdict is None else standing.verdict.value,
        }
    )
    data = snapshot.encode(Snapshot(standing.epoch, standing.state))
    return Writer().block32(document).block32(standing.recent).put(data).finish()


def decode_standing(data: bytes, engine: EngineFactory) -> Standing:
    """Read what `encode_standing` returned.

    Raises:
        MalformedError: Torn, damaged, or not a standing.
    """
    reader = Reader(data, "NEURO standing")
    document = reader.block32(_JSON_MAX_BYTES)
    recent = reader.block32(RECENT_MAX * TER_BYTES)
    held = snapshot.decode(reader.rest(), engine)
    fields = Fields(canonical.decode_object(document), "NEURO standing")
    standing = Standing(
        node=parse_node_id(fields.take("node")),
        key=fields.hex("key", PUBLIC_KEY_BYTES),
        epoch=held.epoch,
        state=held.state,
        baseline=baselines.from_json(fields.object("baseline")),
        trust=Trust(fields.integer("trust"), Instant(fields.integer("trust_at"))),
        verdict=_verdict(fields),
        broken_at=_index(fields),
        forked=fields.flag("forked"),
        recent=recent,
    )
    fields.finish()
    if len(recent) % TER_BYTES or len(recent) > standing.state.count * TER_BYTES:
        raise MalformedError("NEURO standing: recent records of another length")
    return standing


def _verdict(fields: Fields) -> Verdict | None:
    value = fields.take("verdict")
    if value is None:
        return None
    found = BY_NAME.get(value) if isinstance(value, str) else None
    if found is None:
        raise MalformedError("NEURO standing: unknown verdict")
    return found


def _index(fields: Fields) -> int | None:
    value = fields.take("broken_at")
    if value is None:
        return None
    return Fields({"broken_at": value}, "NEURO standing").integer("broken_at")

"""The genesis document: what every member of one mesh must agree on before the first epoch.

Its canonical JSON is hashed to the chain id, which is inside every signed message, so nothing
signed for one mesh means anything in another (DSM spec 2.1).
"""

from dataclasses import dataclass

from hookprobe.crypto.bls import VoteScheme
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.validators import VALIDATORS_MAX, ValidatorEntry, ValidatorSet, parse_entry
from hookprobe.errors import VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id
from hookprobe.wire.instant import HOUR, MILLISECOND, Instant

CA_KEYS_MAX = 16
FLOOR_CAP_BLOCKS = 50_000
GENESIS_MAX_BYTES = 1 << 17
EPOCH_DURATION_MIN_US = 100 * MILLISECOND
EPOCH_DURATION_MAX_US = 24 * HOUR
FAULT_TOLERANT_MIN = 4
VERSION = 2  # of meshes that are founded now


@dataclass(frozen=True, slots=True)
class Genesis:
    """The agreed start of a chain.

    Args:
        name: The mesh's name, same form as a node id.
        start: When epoch 0 begins.
        epoch_duration_us: D; epoch e opens at start + (e+1) * D.
        ca_keys: Ed25519 keys that may certify nodes, sorted.
        validators: Sorted by id.
        floor_cap: The most blocks of one chain that an epoch has to take.
        dev: Must be true for fewer than 4 validators: no fault tolerance.
        version: 1: nodes are revoked by name; 2: with every key that they used (`dead_keys`).
    """

    name: str
    start: Instant
    epoch_duration_us: int
    ca_keys: tuple[bytes, ...]
    validators: tuple[ValidatorEntry, ...]
    floor_cap: int = FLOOR_CAP_BLOCKS
    dev: bool = False
    version: int = 1

    def encode(self) -> bytes:
        """Return the canonical JSON."""
        validators: list[Json] = [entry.to_json() for entry in self.validators]
        ca_keys: list[Json] = [key.hex() for key in self.ca_keys]
        return canonical.encode(
            {
                "ca_keys": ca_keys,
                "dev": self.dev,
                "epoch_duration_us": self.epoch_duration_us,
                "floor_cap": self.floor_cap,
                "name": self.name,
                "start": self.start,
                "type": "G",
                "v": self.version,
                "validators": validators,
            }
        )

    def epochs_in(self, span_us: int) -> int:
        """Return how many epochs make up a span of chain time, at least one."""
        return max(1, span_us // self.epoch_duration_us)

    def chain_id(self) -> bytes:
        """Return H(genesis, canonical document), 32 bytes."""
        return digest(Domain.GENESIS, self.encode())

    def check(self, scheme: VoteScheme) -> ValidatorSet:
        """Check what only computation can show and return the validator set.

        Raises:
            VerificationError: Unsorted or repeated keys, a BLS key without proof of possession,
                or fewer than 4 validators without the dev flag.
        """
        if list(self.ca_keys) != sorted(dict.fromkeys(self.ca_keys)) or not self.ca_keys:
            raise VerificationError("genesis: CA keys must be sorted, distinct and not empty")
        validators = ValidatorSet(self.validators)
        if validators.size < FAULT_TOLERANT_MIN and not self.dev:
            raise VerificationError(
                f"genesis: {validators.size} validators tolerate no fault",
                hint="name 4 or more validators, or set dev: true for a mesh without tolerance",
            )
        validators.check_keys(scheme)
        return validators


def decode_genesis(data: bytes) -> Genesis:
    """Read a genesis document.

    Raises:
        MalformedError: Not the canonical form of a genesis document.
    """
    fields = Fields(canonical.decode_object(data, limit=GENESIS_MAX_BYTES), "genesis")
    fields.literal("type", "G")
    version = fields.integer("v", low=1, high=VERSION)
    validators = tuple(
        parse_entry(item) for item in fields.array("validators", limit=VALIDATORS_MAX)
    )
    genesis = Genesis(
        name=parse_node_id(fields.text("name")),
        start=Instant(fields.integer("start")),
        epoch_duration_us=fields.integer(
            "epoch_duration_us", low=EPOCH_DURATION_MIN_US, high=EPOCH_DURATION_MAX_US
        ),
        ca_keys=tuple(_key(item) for item in fields.array("ca_keys", limit=CA_KEYS_MAX)),
        validators=validators,
        floor_cap=fields.integer("floor_cap", low=1, high=FLOOR_CAP_BLOCKS),
        dev=fields.flag("dev"),
        version=version,
    )
    fields.finish()
    return genesis


def _key(value: Json) -> bytes:
    return Fields({"ca_key": value}, "genesis").hex("ca_key", 32)

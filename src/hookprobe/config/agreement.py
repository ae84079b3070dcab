"""Where settings must fit each other and the mesh: what the schema cannot see, key by key.

quorum   threshold t of n validators means ceil(t * n); it must not be below n - (n-1)//3
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from hookprobe.config.load import Config
from hookprobe.errors import ConfigError

_US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class MeshFacts:
    """What the mesh has agreed on.

    Attributes:
        validators: How many there are.
        epoch_duration_us: How long an epoch is.
        addresses: Where validators answer, as host:port.
    """

    validators: int
    epoch_duration_us: int
    addresses: Sequence[str]


def check(config: Config, mesh: MeshFacts) -> None:
    """Check a node's settings against its mesh.

    Raises:
        ConfigError: Names every setting that does not fit.
    """
    problems = [*_own(config), *_consensus(config, mesh)]
    problems += [
        f"dsm.gossip.bootstrap_nodes: {address[:80]} is not in directory.json"
        for address in config.texts("dsm.gossip.bootstrap_nodes")
        if address not in mesh.addresses
    ]
    if problems:
        raise ConfigError(problems, hint="hookprobe config show says where each value comes from")


def _own(config: Config) -> list[str]:
    problems: list[str] = []
    role = config.text("dsm.node.role")
    said = config.origins["dsm.validator.enabled"] != "default"
    if said and config.flag("dsm.validator.enabled") != (role == "validator"):
        problems.append(f"dsm.validator.enabled: does not fit dsm.node.role {role}")
    said = config.origins["dsm.tpm.enabled"] != "default"
    if said and config.flag("dsm.tpm.enabled") != bool(config.text("identity.tpm")):
        problems.append("dsm.tpm.enabled: does not fit identity.tpm, which names the TPM")
    storage = "dsm.storage."
    rocks = config.text(storage + "microblocks.backend") == "rocksdb"
    if config.text(storage + "microblocks.path") and not rocks:
        problems.append(f"{storage}microblocks.path: sqlite keeps blocks in state.path")
    server = config.text(storage + "checkpoints.backend") == "postgresql"
    if config.text(storage + "checkpoints.url") and not server:
        problems.append(f"{storage}checkpoints.url: goes with backend postgresql only")
    if config.integer("dsm.gossip.port") and config.origins["htp.listen"] != "default":
        problems.append("dsm.gossip.port: htp.listen is set too; leave one of them out")
    return problems


def _consensus(config: Config, mesh: MeshFacts) -> list[str]:
    problems: list[str] = []
    duration_s = config.integer("dsm.consensus.epoch_duration")
    if duration_s and duration_s * _US_PER_S != mesh.epoch_duration_us:
        agreed = Fraction(mesh.epoch_duration_us, _US_PER_S)
        problems.append(
            f"dsm.consensus.epoch_duration: {duration_s} s, the mesh agreed on {float(agreed):g} s"
        )
    threshold = config.text("dsm.consensus.quorum_threshold")
    problem = quorum_problem(threshold, mesh.validators) if threshold != "n-f" else ""
    return [*problems, *([f"dsm.consensus.quorum_threshold: {problem}"] if problem else [])]


def quorum_problem(threshold: str, size: int) -> str:
    """Return why a threshold is not safe for so many validators; empty where it is.

    Args:
        threshold: A share of them as a decimal number.
        size: How many there are.
    """
    needed = size - (size - 1) // 3
    asked = ceil(Fraction(threshold) * size)
    if asked < needed:
        return f"{threshold} of {size} validators are {asked}, {needed} are needed to be safe"
    return "" if asked <= size else f"{threshold} is more than all validators"

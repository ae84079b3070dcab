"""Found a mesh and enrol nodes: keys, genesis document, certificates and directory in one go.

The mesh authority (its CA key) signs two things: a certificate for each node, which the node's
first block carries into the ledger, and the directory, which says who answers where. Both are
documents of their rooms; here they are only brought together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hookprobe.crypto.agreement import AgreementKey
from hookprobe.crypto.bls import BlsSigner
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Ed25519Signer, Signer
from hookprobe.dsm.enrolment import NodeCertificate, issue
from hookprobe.dsm.genesis import VERSION, Genesis
from hookprobe.dsm.validators import ValidatorEntry
from hookprobe.errors import LocalError
from hookprobe.identity import directory as directories
from hookprobe.identity import secrets
from hookprobe.identity.device import DeviceStatus
from hookprobe.identity.directory import Device, Directory
from hookprobe.identity.grant import DeviceGrant
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.node.resonance import device_state
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import ChainId, NodeId
from hookprobe.wire.instant import DAY, MILLISECOND, MINUTE, Instant

RandomBytes = Callable[[int], bytes]

CERTIFICATE_LIFE_US = 825 * DAY
DIRECTORY_LIFE_US = 90 * DAY
_CLOCK_TOLERANCE_US = 5 * MINUTE
_TENANT_PSEUDONYM_DIGITS = 16


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node to be enrolled; `address` is `host:port`, empty where nobody dials it."""

    node: NodeId
    role: str
    tenant: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """The mesh authority's own secrets: its CA seed and the key its tenants' keys derive from."""

    seed: bytes
    tenant_root: bytes

    def signer(self) -> Signer:
        return Ed25519Signer(self.seed)

    def tenant_key(self, tenant: str) -> bytes:
        """Return the key that the nodes of one tenant share for their pseudonyms."""
        return digest(Domain.PSEUDONYM, self.tenant_root + b"key" + tenant.encode())

    def tenant_pseudonym(self, tenant: str) -> str:
        """Return the opaque name under which other tenants see this one."""
        name = digest(Domain.PSEUDONYM, self.tenant_root + b"name" + tenant.encode())
        return "t-" + name.hex()[:_TENANT_PSEUDONYM_DIGITS]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One enrolled node: its secrets, its certificate body, its directory entry."""

    secrets: NodeSecrets
    enrolment: bytes
    device: Device

    def grant(self) -> DeviceGrant:
        """Return what a verifier must know of it; secret."""
        ours = self.secrets
        return DeviceGrant(
            node=ours.node,
            tenant=self.device.tenant,
            signing_key=self.device.signing_key,
            neuro=ours.neuro,
            salt=ours.salt,
            provisioned=ours.provisioned,
        )


@dataclass(frozen=True, slots=True)
class Mesh:
    """A founded mesh."""

    authority: Authority
    genesis: Genesis
    directory: bytes
    nodes: tuple[Enrolled, ...]

    def grants(self) -> tuple[DeviceGrant, ...]:
        """Return the grants of the devices that attest: the edges."""
        return tuple(node.grant() for node in self.nodes if node.device.role == "edge")


def found(
    name: NodeId,
    plans: Sequence[NodePlan],
    epoch_duration_us: int,
    now: Instant,
    random_bytes: RandomBytes,
) -> Mesh:
    """Found a mesh of these nodes.

    Args:
        name: The mesh's name.
        plans: Its nodes; fewer than 4 validators make a mesh without fault tolerance.
        epoch_duration_us: How long an epoch lasts.
        now: The founding time; epoch 0 begins here.
        random_bytes: A cryptographic source.

    Raises:
        LocalError: Two nodes of one name, or no validator.
    """
    names = [plan.node for plan in plans]
    if len(dict.fromkeys(names)) != len(names):
        raise LocalError("mesh: two nodes have the same name")
    authority = Authority(random_bytes(32), random_bytes(32))
    drawn = [
        secrets.generate(plan.node, authority.tenant_key(plan.tenant), now, random_bytes)
        for plan in plans
    ]
    voters = [ours for plan, ours in zip(plans, drawn, strict=True) if plan.role == "validator"]
    if not voters:
        raise LocalError("mesh: at least one validator is needed")
    genesis = Genesis(
        name=name,
        start=now,
        epoch_duration_us=epoch_duration_us,
        ca_keys=(authority.signer().public_key,),
        validators=tuple(sorted(map(_entry, voters), key=lambda entry: entry.validator_id)),
        dev=len(voters) < 4,
        version=VERSION,
    )
    chain = genesis.chain_id()
    enrolled = tuple(
        _enrol(plan, ours, chain, authority, now) for plan, ours in zip(plans, drawn, strict=True)
    )
    devices = [node.device for node in enrolled]
    directory = publish(authority, chain, devices, version=1, now=now)
    return Mesh(authority, genesis, directory, enrolled)


def enrol(
    plan: NodePlan,
    chain: bytes,
    authority: Authority,
    now: Instant,
    random_bytes: RandomBytes,
) -> Enrolled:
    """Enrol one more node of an existing mesh."""
    ours = secrets.generate(plan.node, authority.tenant_key(plan.tenant), now, random_bytes)
    return _enrol(plan, ours, chain, authority, now)


def publish(
    authority: Authority, chain: bytes, devices: Sequence[Device], *, version: int, now: Instant
) -> bytes:
    """Sign a version of the directory."""
    directory = Directory(
        chain=ChainId(chain.hex()),
        version=version,
        issued=now,
        expires=Instant(now + DIRECTORY_LIFE_US),
        devices=tuple(sorted(devices, key=lambda device: device.node)),
    )
    return directories.sign(directory, authority.signer())


def _entry(ours: NodeSecrets) -> ValidatorEntry:
    voting = BlsSigner(ours.voting)
    return ValidatorEntry(
        validator_id=ours.node,
        key=Ed25519Signer(ours.signing).public_key,
        vote_key=voting.public_key,
        possession_proof=voting.prove_possession(),
    )


def _enrol(
    plan: NodePlan, ours: NodeSecrets, chain: bytes, authority: Authority, now: Instant
) -> Enrolled:
    signing_key = Ed25519Signer(ours.signing).public_key
    tenant = authority.tenant_pseudonym(plan.tenant)
    certificate = NodeCertificate(
        chain=chain,
        node_id=plan.node,
        role=plan.role,
        tenant=tenant,
        key=signing_key,
        not_before_ms=(now - _CLOCK_TOLERANCE_US) // MILLISECOND,
        not_after_ms=(now + CERTIFICATE_LIFE_US) // MILLISECOND,
    )
    device = Device(
        node=plan.node,
        role=plan.role,
        tenant=tenant,
        status=DeviceStatus.ACTIVE,
        signing_key=signing_key,
        agreement_key=AgreementKey(ours.agreement).public_key if plan.address else b"",
        addresses=(plan.address,) if plan.address else (),
        w_fingerprint=device_state(ours).commitments().w_fingerprint,
    )
    body = canonical.encode(issue(certificate, authority.signer()).to_body())
    return Enrolled(ours, body, device)

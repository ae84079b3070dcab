"""The only composition root: documents, settings and keys in, a node out.

Everything a node is made of is put together here, so that a process, the simulator and a test get
the same node from the same parts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Sensor
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.edge import EdgeHost, EdgeKeys, EdgeLedger
from hookprobe.dsm.enrolment import parse_enrolment
from hookprobe.dsm.genesis import Genesis, decode_genesis
from hookprobe.dsm.store import StoreReader
from hookprobe.dsm.validator import ValidatorKeys, ValidatorLedger
from hookprobe.errors import LocalError, VerificationError
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import LocalIdentity, PinnedPeer, Seams
from hookprobe.identity import directory as directories
from hookprobe.identity.directory import Device, Directory, parse_address
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.node.edge import EdgeNode
from hookprobe.node.links import DirectoryRegistry, MeshLinks
from hookprobe.node.resonance import DeviceResonance, EnrolledFingerprints, device_state
from hookprobe.node.sensors import SensorFeed
from hookprobe.node.validator import ValidatorNode
from hookprobe.wire import canonical
from hookprobe.wire.instant import Instant

DIALS_MAX = 4  # an edge keeps this many validators; it pushes to the nearest of them
SCHEMES = Schemes(Ed25519(), Bls())


@dataclass(frozen=True, slots=True)
class Documents:
    """What a node's folder holds, as bytes and secrets."""

    secrets: NodeSecrets
    enrolment: bytes
    genesis: bytes
    directory: bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """What the host contributes."""

    reader: StoreReader
    random_bytes: Callable[[int], bytes]
    now: Instant


@dataclass(frozen=True, slots=True)
class Settings:
    """The rooms' settings."""

    ledger: LedgerConfig
    transport: HtpConfig
    detection: DetectionConfig


@dataclass(frozen=True, slots=True)
class _Mesh:
    """The checked documents of the mesh, and our own entry."""

    genesis: Genesis
    directory: Directory
    device: Device


def build_validator(documents: Documents, settings: Settings, parts: Parts) -> ValidatorNode:
    """Build a validator.

    Raises:
        RemoteError: A document does not hold.
        LocalError: The keys are not those of a validator of this mesh.
    """
    mesh = _check(documents, parts.now)
    ours = documents.secrets
    keys = ValidatorKeys(ours.node, Ed25519Signer(ours.signing), BlsSigner(ours.voting))
    ledger = ValidatorLedger(mesh.genesis, keys, SCHEMES, parts.reader, settings.ledger)
    dials = [_pinned(peer) for peer in mesh.directory.validators() if peer.node > ours.node]
    resonance = DeviceResonance(ours.node, device_state(ours))
    endpoint = _endpoint(ours, resonance, mesh.directory, settings.transport, parts)
    return ValidatorNode(ledger, MeshLinks(endpoint, ledger, dials))


def build_edge(
    documents: Documents, settings: Settings, parts: Parts, sensors: Mapping[str, Sensor]
) -> EdgeNode:
    """Build an edge that follows these sensor files (path to sensor).

    Raises:
        RemoteError: A document does not hold.
        LocalError: The keys are not those of the enrolled device.
    """
    mesh = _check(documents, parts.now)
    ours = documents.secrets
    enrolment = parse_enrolment(canonical.decode_object(documents.enrolment))
    resonance = DeviceResonance(ours.node, device_state(ours))
    keys = EdgeKeys(ours.node, Ed25519Signer(ours.signing), enrolment, resonance.bind)
    host = EdgeHost(parts.reader, parts.random_bytes)
    ledger = EdgeLedger(mesh.genesis, keys, SCHEMES, host, settings.ledger)
    dials = [_pinned(peer) for peer in _spread(mesh.directory.validators(), ours.node)]
    endpoint = _endpoint(ours, resonance, mesh.directory, settings.transport, parts)
    feeds = {path: SensorFeed(sensor, path, parts.reader) for path, sensor in sensors.items()}
    links = MeshLinks(endpoint, ledger, dials)
    return EdgeNode(ledger, links, feeds, settings.detection, ours.tenant, parts.reader)


def _check(documents: Documents, now: Instant) -> _Mesh:
    genesis = decode_genesis(documents.genesis)
    directory = directories.accept(documents.directory, genesis.ca_keys, SCHEMES.signatures, now)
    if directory.chain != genesis.chain_id().hex():
        raise VerificationError("directory and genesis document are of different meshes")
    device = directory.find(documents.secrets.node)
    if device is None:
        raise LocalError(
            f"{documents.secrets.node} is not in the directory",
            hint="copy the mesh's current directory.json into the node's folder",
        )
    if device.signing_key != Ed25519Signer(documents.secrets.signing).public_key:
        raise LocalError(f"the keys at hand are not those enrolled for {device.node}")
    return _Mesh(genesis, directory, device)


def _pinned(device: Device) -> PinnedPeer:
    host, port = parse_address(device.addresses[0])
    return PinnedPeer(device.node, Address(host, port), device.agreement_key)


def _spread(validators: tuple[Device, ...], node: str) -> list[Device]:
    """Return `DIALS_MAX` validators, starting at a place that differs from edge to edge."""
    start = sum(node.encode()) % max(len(validators), 1)
    return list((validators[start:] + validators[:start])[:DIALS_MAX])


def _endpoint(
    ours: NodeSecrets,
    resonance: DeviceResonance,
    directory: Directory,
    config: HtpConfig,
    parts: Parts,
) -> Endpoint:
    identity = LocalIdentity(
        node=ours.node,
        signer=Ed25519Signer(ours.signing),
        static_key=AgreementKey(ours.agreement),
        reset_key=ours.reset,
    )
    seams = Seams(
        registry=DirectoryRegistry(directory),
        source=resonance,
        check=EnrolledFingerprints(directory),
        signatures=SCHEMES.signatures,
        kem=MlKem(),
    )
    return Endpoint(config, identity, seams, parts.random_bytes, parts.now)

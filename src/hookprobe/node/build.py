"""The only composition root: documents, settings and keys in, a node out.

Everything a node is made of is put together here, so that a process, the simulator and a test get
the same node from the same parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hookprobe.crypto.agreement import AgreementKey, MlKem
from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.detection.config import DetectionConfig
from hookprobe.detection.event import Sensor
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.edge import EdgeKeys, EdgeLedger
from hookprobe.dsm.enrolment import parse_enrolment
from hookprobe.dsm.genesis import Genesis, decode_genesis
from hookprobe.dsm.scribe import ChainHost
from hookprobe.dsm.steps import ValidatorKeys
from hookprobe.dsm.store import StoreReader
from hookprobe.dsm.validator import ValidatorLedger
from hookprobe.errors import LocalError, VerificationError
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.seams import KeyLog, LocalIdentity, PinnedPeer, Seams
from hookprobe.htp.trust import FullTrust, TrustSource
from hookprobe.identity import directory as directories
from hookprobe.identity.directory import Device, Directory, parse_address
from hookprobe.identity.grant import DeviceGrant
from hookprobe.identity.secrets import NodeSecrets
from hookprobe.neuro.attester import Attester, AttesterConfig
from hookprobe.neuro.backends.selection import load_backend
from hookprobe.neuro.certificate import ResonanceCertificate
from hookprobe.neuro.config import NeuroConfig
from hookprobe.neuro.quotes import Quotes
from hookprobe.neuro.snapshot import Snapshot
from hookprobe.neuro.ter import Ter
from hookprobe.neuro.verifier import Verifier, VerifierIdentity
from hookprobe.node.appraisals import Appraisals
from hookprobe.node.attestation import Attestation, Surroundings, kept_certificate
from hookprobe.node.edge import DetectionParts, EdgeNode
from hookprobe.node.links import DirectoryRegistry, MeshLinks
from hookprobe.node.resonance import (
    DeviceResonance,
    EnrolledFingerprints,
    Fingerprints,
    KnownFingerprints,
    device_state,
)
from hookprobe.node.rooms import LedgerRoom, Room
from hookprobe.node.sensors import SensorFeed
from hookprobe.node.validator import ValidatorNode
from hookprobe.node.verification import Verification, VerifierHost
from hookprobe.node.verifier import VerifierNode
from hookprobe.wire import canonical
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

DIALS_MAX = 4  # an edge keeps this many validators; it pushes to the nearest of them
SCHEMES = Schemes(Ed25519(), Bls())


@dataclass(frozen=True, slots=True)
class Documents:
    """What a node's folder holds, as bytes and secrets.

    `spare_voting` are the seeds of other voting keys, for the time of a rotation.
    """

    secrets: NodeSecrets
    enrolment: bytes
    genesis: bytes
    directory: bytes
    spare_voting: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Documents(node={self.secrets.node!r})"


@dataclass(frozen=True, slots=True)
class DeviceHistory:
    """A device's own NEURO history as its disk holds it, and what it runs on.

    Attributes:
        start: The snapshot to continue from.
        records: The log's records behind it.
        hardware: Keyed hashes of the hardware's components, encoded; may be empty.
        tpm: What the device says its TPM is, encoded; empty: it has none.
    """

    start: Snapshot
    records: tuple[Ter, ...] = ()
    hardware: bytes = b""
    tpm: bytes = b""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the host contributes.

    `history` is needed by edges of a mesh with a verifier; `tpm_roots` are makers' certificates
    (DER) that a verifier believes. `keylog` gets the keys of sessions where that was ordered.
    """

    reader: StoreReader
    random_bytes: Callable[[int], bytes]
    now: Instant
    history: DeviceHistory | None = None
    tpm_roots: tuple[bytes, ...] = ()
    keylog: KeyLog | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The rooms' settings."""

    ledger: LedgerConfig
    transport: HtpConfig
    detection: DetectionConfig
    neuro: NeuroConfig = field(default_factory=NeuroConfig)


@dataclass(frozen=True, slots=True)
class _Peers:
    """What the transport is told about others: who they are, what they show, how good they are."""

    directory: Directory
    known: Fingerprints | None
    trust: TrustSource = field(default_factory=FullTrust)


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
    enrolment = parse_enrolment(canonical.decode_object(documents.enrolment))
    signer, voter = Ed25519Signer(ours.signing), BlsSigner(ours.voting)
    others = tuple((signer, BlsSigner(seed)) for seed in documents.spare_voting)
    keys = ValidatorKeys(ours.node, signer, voter, enrolment, others)
    host = ChainHost(parts.reader, parts.random_bytes)
    ledger = ValidatorLedger(mesh.genesis, keys, SCHEMES, host, settings.ledger)
    dials = [_pinned(peer) for peer in mesh.directory.validators() if peer.node > ours.node]
    resonance = DeviceResonance(ours.node, device_state(ours))
    rooms: list[Room] = [LedgerRoom(ledger)]
    appraisals, peers = None, _Peers(mesh.directory, EnrolledFingerprints(mesh.directory))
    if mesh.directory.verifiers():
        grace_us = settings.neuro.grace_us
        appraisals = Appraisals(mesh.directory, SCHEMES.signatures, parts.reader, grace_us)
        rooms = [LedgerRoom(ledger, appraisals), appraisals]
        peers = _Peers(mesh.directory, appraisals, appraisals)
    endpoint = _endpoint(ours, resonance, peers, settings.transport, parts)
    return ValidatorNode(ledger, MeshLinks(endpoint, rooms, dials), appraisals)


def build_edge(
    documents: Documents, settings: Settings, parts: Parts, sensors: Mapping[str, Sensor]
) -> EdgeNode:
    """Build an edge that follows these sensor files (path to sensor).

    Raises:
        RemoteError: A document does not hold.
        LocalError: The keys are not those of the enrolled device, or the mesh has a verifier and
            `parts` no history.
    """
    mesh = _check(documents, parts.now)
    ours = documents.secrets
    enrolment = parse_enrolment(canonical.decode_object(documents.enrolment))
    resonance = DeviceResonance(ours.node, device_state(ours))
    keys = EdgeKeys(ours.node, Ed25519Signer(ours.signing), enrolment, resonance.bind)
    host = ChainHost(parts.reader, parts.random_bytes)
    ledger = EdgeLedger(mesh.genesis, keys, SCHEMES, host, settings.ledger)
    dials = [_pinned(peer) for peer in _spread(mesh.directory.validators(), ours.node)]
    rooms: list[Room] = [LedgerRoom(ledger)]
    attestation = None
    if mesh.directory.verifiers():
        attestation = _attestation(mesh, ours, resonance, settings.neuro, parts)
        rooms.append(attestation)
        dials.insert(0, _pinned(_verifier_of(mesh.directory, ours.node)))
    peers = _Peers(mesh.directory, EnrolledFingerprints(mesh.directory))
    endpoint = _endpoint(ours, resonance, peers, settings.transport, parts)
    feeds = {path: SensorFeed(sensor, path, parts.reader) for path, sensor in sensors.items()}
    detection = DetectionParts(settings.detection, ours.tenant, parts.reader)
    return EdgeNode(ledger, MeshLinks(endpoint, rooms, dials), feeds, detection, attestation)


def build_verifier(
    documents: Documents, settings: Settings, parts: Parts, grants: Sequence[DeviceGrant]
) -> VerifierNode:
    """Build the verifier of these devices.

    Raises:
        RemoteError: A document or the store does not hold.
        LocalError: The keys are not those of the enrolled verifier.
        ConfigError: The backend is not installed.
    """
    mesh = _check(documents, parts.now)
    ours = documents.secrets
    signer = Ed25519Signer(ours.signing)
    quotes = Quotes(parts.tpm_roots, parts.random_bytes)
    identity = VerifierIdentity(ours.node, signer, SCHEMES.signatures)
    verifier = Verifier(identity, parts.random_bytes, quotes.attestation)
    host = VerifierHost(
        grants={
            grant.node: grant
            for grant in grants
            if _verifier_of(mesh.directory, grant.node).node == ours.node
        },
        validators=tuple(device.node for device in mesh.directory.validators()),
        signer=signer,
        reader=parts.reader,
        engine=load_backend(settings.neuro.backend),
    )
    verification = Verification(verifier, quotes, host, parts.now)
    dials = [_pinned(peer) for peer in mesh.directory.validators()]
    resonance = DeviceResonance(ours.node, device_state(ours))
    # Devices are judged by the batches they prove, not by what they present in a handshake: a
    # clone must be let in to convict itself.
    peers = _Peers(mesh.directory, None, verification)
    endpoint = _endpoint(ours, resonance, peers, settings.transport, parts)
    return VerifierNode(verification, MeshLinks(endpoint, [verification], dials))


def build_endpoint(
    documents: Documents, config: HtpConfig, parts: Parts
) -> tuple[Endpoint, tuple[PinnedPeer, ...]]:
    """Build a node's transport alone, for programs that speak for themselves.

    Returns it with the validators that an edge dials; one that answers dials nobody.

    Raises:
        RemoteError: A document does not hold.
        LocalError: The keys are not those of the enrolled node, or it is to answer and is neither
            validator nor verifier.
    """
    mesh = _check(documents, parts.now)
    ours = documents.secrets
    if config.answering and mesh.device.role == "edge":
        raise LocalError(
            f"{ours.node} is enrolled as an edge: nobody dials it", hint="leave is_validator out"
        )
    resonance = DeviceResonance(ours.node, device_state(ours))
    peers = _Peers(mesh.directory, EnrolledFingerprints(mesh.directory))
    endpoint = _endpoint(ours, resonance, peers, config, parts)
    validators = () if config.answering else _spread(mesh.directory.validators(), ours.node)
    return endpoint, tuple(_pinned(peer) for peer in validators if peer.node != ours.node)


def _attestation(
    mesh: _Mesh,
    ours: NodeSecrets,
    resonance: DeviceResonance,
    config: NeuroConfig,
    parts: Parts,
) -> Attestation:
    if parts.history is None:
        raise LocalError("the mesh has a verifier, but this edge was given no history to prove")
    history = parts.history
    verifiers = mesh.directory.verifiers()
    around = Surroundings(
        node=ours.node,
        verifier=_verifier_of(mesh.directory, ours.node).node,
        keys=tuple(device.signing_key for device in verifiers),
        validators=tuple(device.node for device in mesh.directory.validators()),
        scheme=SCHEMES.signatures,
        begin_epoch=lambda epoch: device_state(ours, epoch),
        hardware=history.hardware,
        tpm=history.tpm,
    )
    kept = kept_certificate(parts.reader, around.keys, around.scheme)
    attester = Attester(
        AttesterConfig(
            node=ours.node,
            verifier=around.verifier,
            signer=Ed25519Signer(ours.signing),
            started=parts.now,
            provisioned=ours.provisioned,
            interval_us=config.interval_us,
            acknowledged=_acknowledged(kept, history.start.epoch),
        ),
        history.start,
        history.records,
    )
    return Attestation(attester, resonance, around, kept)


def _acknowledged(kept: tuple[ResonanceCertificate, bytes] | None, epoch: int) -> int:
    """Return how many records the verifier is known to have taken."""
    return kept[0].ter_index + 1 if kept is not None and kept[0].epoch == epoch else 0


def _verifier_of(directory: Directory, node: NodeId) -> Device:
    """Return the verifier that a device belongs to: the same one for everybody who asks."""
    verifiers = directory.verifiers()
    return verifiers[sum(node.encode()) % len(verifiers)]


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
    peers: _Peers,
    config: HtpConfig,
    parts: Parts,
) -> Endpoint:
    directory, known = peers.directory, peers.known
    identity = LocalIdentity(
        node=ours.node,
        signer=Ed25519Signer(ours.signing),
        static_key=AgreementKey(ours.agreement),
        reset_key=ours.reset,
    )
    seams = Seams(
        registry=DirectoryRegistry(directory, known),
        source=resonance,
        check=KnownFingerprints(known or EnrolledFingerprints(directory)),
        signatures=SCHEMES.signatures,
        kem=MlKem(),
        trust=peers.trust,
        keylog=parts.keylog,
    )
    return Endpoint(config, identity, seams, parts.random_bytes, parts.now)

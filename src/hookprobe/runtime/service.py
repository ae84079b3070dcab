"""Run a node as a process: its folder, its ledger, its socket, its sensors, until told to stop."""

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hookprobe.config import agreement
from hookprobe.config.agreement import MeshFacts
from hookprobe.config.load import Config
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.detection.address import HOME_NETWORKS
from hookprobe.detection.config import DetectionConfig, IncidentConfig
from hookprobe.detection.event import Format, Sensor
from hookprobe.dsm.config import LedgerConfig
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.notes import parse_key
from hookprobe.dsm.pending import pending_of
from hookprobe.dsm.tree_log import TreeLog
from hookprobe.dsm.validators import VALIDATORS_MAX
from hookprobe.errors import ConfigError, HostError, LocalError
from hookprobe.htp.config import HtpConfig
from hookprobe.htp.effects import Address, RefusedReason, SendRefused
from hookprobe.htp.meters import SessionMeter
from hookprobe.identity import directory as directories
from hookprobe.neuro.backends.selection import load_backend
from hookprobe.neuro.config import NeuroConfig
from hookprobe.node.build import (
    SCHEMES,
    Documents,
    Parts,
    Settings,
    build_edge,
    build_validator,
    build_verifier,
)
from hookprobe.node.edge import EdgeNode
from hookprobe.node.host import Effect, FileNode, Node
from hookprobe.node.observations import Observation
from hookprobe.node.seats import Terms
from hookprobe.node.sensors import Place
from hookprobe.node.validator import ValidatorNode
from hookprobe.node.verifier import VerifierNode
from hookprobe.runtime import (
    control,
    file_control,
    folders,
    record_desk,
    status,
    validator_desk,
    verifier_desk,
)
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.device_host import DeviceHost, Machine, machine_of, read_history
from hookprobe.runtime.driver import Driver
from hookprobe.runtime.egress import EgressRecord
from hookprobe.runtime.file_pump import Room
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_store import StoreLimits
from hookprobe.runtime.folders import NodeFolder
from hookprobe.runtime.keylog import open_keylog
from hookprobe.runtime.keystore import read_roots
from hookprobe.runtime.ledger_store import LedgerStore, open_store, place_of
from hookprobe.runtime.log_publisher import LogPublisher
from hookprobe.runtime.logs import JsonLog, Level
from hookprobe.runtime.outside import Outside
from hookprobe.runtime.power import tell_power
from hookprobe.runtime.qlog import open_trace
from hookprobe.runtime.record_desk import RecordDesk
from hookprobe.runtime.supervision import Supervisor, settle, stop_event
from hookprobe.runtime.tailer import Chunk, Tailer, end_of
from hookprobe.runtime.udp import UdpSocket
from hookprobe.runtime.validator_desk import Admission, ValidatorDesk
from hookprobe.runtime.verifier_desk import VerifierDesk
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MILLISECOND, SECOND, Duration, Instant

TAIL_EVERY_S = 0.05
STATUS_EVERY_S = 1.0
HEADER_LINE_MAX_BYTES = 1 << 16
HEADER_LINES_MAX = 64


@dataclass(slots=True)
class _Process:
    """The parts of a running node."""

    driver: Driver
    socket: UdpSocket
    board: status.StatusBoard
    clock: Clock
    state: Path
    log: JsonLog
    files: FileService
    outside: Outside
    chores: Sequence[Callable[[], Coroutine[None, None, None]]]
    desks: Mapping[str, control.Perform]
    sessions: Callable[[Instant], list[SessionMeter]]


@dataclass(frozen=True, slots=True)
class _Sensors:
    """The files to follow, and where one not seen before begins."""

    files: Mapping[str, Sensor]
    start: str


def settings_of(config: Config) -> Settings:
    """Turn the operator's settings into those of the rooms."""
    retry_us = config.integer("htp.retry_initial_ms") * MILLISECOND
    ledger = LedgerConfig(
        cut_grace_us=config.integer("dsm.propose_grace_ms") * MILLISECOND,
        view_timeout_us=config.integer("dsm.view_timeout_ms") * MILLISECOND,
        quorum_alarm_us=_quorum_alarm_us(config),
        edges_max=config.integer("dsm.gossip.max_peers"),
        keep_blocks=config.integer("dsm.storage.microblocks.retention_days"),
        keep_contents=config.integer("dsm.storage.checkpoints.retention_days"),
        epoch_gap_us=config.integer("dsm.epoch_gap_ms") * MILLISECOND,
        partition_us=config.integer("dsm.partition_ms") * MILLISECOND,
    )
    answering = config.text("dsm.node.role") in {"validator", "verifier"}
    # Whom the ledger would take must get as far as the ledger: edges and all validators.
    peers = max(HtpConfig().peers_max, ledger.edges_max + VALIDATORS_MAX)
    transport = HtpConfig(retry_initial_us=retry_us, answering=answering, peers_max=peers)
    if config.integer("htp.ghost_bytes_per_s"):
        transport = transport.ghosting(config.integer("htp.ghost_bytes_per_s"))
    incidents = IncidentConfig(idle_us=config.integer("sensors.idle_ms") * MILLISECOND)
    home = config.texts("sensors.home_networks") or HOME_NETWORKS
    detection = DetectionConfig(home_networks=home, incidents=incidents)
    neuro = NeuroConfig(
        interval_us=Duration(config.integer("neuro.interval_ms") * MILLISECOND),
        grace_us=Duration(config.integer("neuro.grace_ms") * MILLISECOND),
        backend=config.text("neuro.backend"),
    )
    return Settings(ledger, transport, detection, neuro)


def _quorum_alarm_us(config: Config) -> int:
    seconds = config.integer("dsm.consensus.signature_timeout")
    return seconds * SECOND if seconds else config.integer("dsm.quorum_alarm_ms") * MILLISECOND


def listening_of(config: Config) -> Address:
    """Return the UDP address to listen on."""
    host, port = directories.parse_address(config.texts("htp.listen")[0], port_min=0)
    return Address(host, config.integer("dsm.gossip.port") or port)


def _check_agreement(config: Config, folder: NodeFolder) -> None:
    genesis = decode_genesis(folder.genesis)
    directory = directories.accept(folder.directory, genesis.ca_keys, Ed25519(), Clock().now())
    addresses = [address for peer in directory.validators() for address in peer.addresses]
    agreement.check(
        config, MeshFacts(len(genesis.validators), genesis.epoch_duration_us, addresses)
    )


def sensors_of(config: Config) -> dict[str, Sensor]:
    """Return the sensor files to follow: path to what writes it."""
    if not config.flag("dsm.integrations.pod_006.enabled"):
        return {}
    found = {
        str(config.folder / path): Sensor("suricata") for path in config.texts("sensors.suricata")
    }
    for path in config.texts("sensors.zeek"):
        log = Path(path).name.partition(".")[0]
        found[str(config.folder / path)] = Sensor("zeek", _zeek_format(config.folder / path), log)
    return found


def _zeek_format(path: Path) -> Format:
    try:
        with path.open("rb") as file:
            return Format.ZEEK_TSV if file.read(1) == b"#" else Format.ZEEK_JSON
    except OSError:
        return Format.ZEEK_TSV  # Zeek's own default, for a file that is yet to come


def run(config: Config, role: str, log: JsonLog, *, stop_with_stdin: bool = False) -> None:
    """Run the node of `config` until SIGTERM or SIGINT.

    Args:
        config: The node's settings.
        role: edge, validator or verifier.
        log: Takes observations.
        stop_with_stdin: Also stop when standard input ends, so that a node started by a program
            never outlives it.

    Raises:
        ConfigError: The settings are those of another role or node.
        HostError: Disk, socket or store failed.
        RemoteError: A document of the node's folder does not hold.
    """
    if config.text("dsm.node.role") != role:
        raise ConfigError(
            [f"dsm.node.role: is {config.text('dsm.node.role')}, not {role}"],
            hint=f"run: hookprobe {config.text('dsm.node.role')} run",
        )
    asyncio.run(_run(config, role, log, stop_with_stdin))


async def _run(config: Config, role: str, log: JsonLog, stop_with_stdin: bool) -> None:
    certificate = config.text("dsm.validator.certificate_path")
    enrolment = config.folder / certificate if certificate else None
    folder = folders.read_node(config.file("identity.path"), enrolment)
    if folder.secrets.node != config.text("dsm.node.id"):
        raise ConfigError(
            [f"dsm.node.id: is {config.text('dsm.node.id')}, the key file is of another node"]
        )
    _check_agreement(config, folder)
    config.file("state.path").mkdir(mode=0o700, parents=True, exist_ok=True)
    store = open_store(place_of(config))
    egress, keylog = _egress(config), open_keylog(config, log)
    try:
        parts = Parts(store, secrets.token_bytes, Clock().now(), keylog=keylog)
        built = _build(role, config, folder, parts)
        process = _join(built, config, folder, log, (store, egress))
        log.event("Started", Level.INFO, node=folder.secrets.node, role=role, pid=os.getpid())
        port = process.outside.start()
        if port is not None:
            log.event("ApiStarted", Level.INFO, port=port)
        stop = stop_event(with_stdin=stop_with_stdin)
        sensors = _Sensors(sensors_of(config), config.text("sensors.start"))
        settle()
        await _serve(process, built.node, stop, sensors)
        log.event("Stopped", Level.INFO, node=folder.secrets.node)
    finally:
        store.close()
        for record in (egress, keylog):
            if record is not None:
                record.close()


@dataclass(frozen=True, slots=True)
class _Built:
    """A node, and what it runs on if it is an edge."""

    node: FileNode
    machine: Machine | None = None


def _join(
    built: _Built,
    config: Config,
    folder: NodeFolder,
    log: JsonLog,
    kept: tuple[LedgerStore, EgressRecord | None],
) -> _Process:
    """Put a node and its surroundings together."""
    clock, genesis, node = Clock(), decode_genesis(folder.genesis), built.node
    validators = len(genesis.validators)
    role, state = config.text("dsm.node.role"), config.file("state.path")
    follows = isinstance(node, ValidatorNode)
    schedule = (genesis.start, genesis.epoch_duration_us) if follows else None
    board = status.StatusBoard(folder.secrets.node, role, validators, schedule)
    board.members = partial(status.members_of, node, validators)
    board.labels = partial(status.labels_of, node)
    outside = Outside(config, genesis, folder.secrets.node, clock, board)
    outside.failed = log.failed
    socket = UdpSocket(listening_of(config))
    carrier = _FileCarrier(node, clock)
    files = FileService(carrier, *_file_settings(config), clock, node.doubt)
    observers = [log.report, board.report, files.report, outside.report]
    if isinstance(node, EdgeNode):
        board.oldest_waiting_ms = node.ledger.chain.oldest_waiting_ms
    device = None
    if isinstance(node, EdgeNode) and built.machine is not None:
        device = DeviceHost(node, built.machine, clock, log.failed)
    publisher = None
    if isinstance(node, ValidatorNode):
        publisher = _publisher(node, config, folder, kept[0])
        board.pending = partial(pending_of, node.ledger)
        observers.append(publisher.report)
    name, desk = _desk_of(node, (genesis.ca_keys, publisher, admission_of(config)), clock)
    if isinstance(desk, VerifierDesk):
        observers.append(desk.report)
    trace = open_trace(config, clock)
    if trace is not None:
        observers.append(trace.report)
    driver = Driver(node, socket, kept[0], clock, _each(observers), kept[1])
    driver.trace = trace
    if device is not None:
        driver.perform = device.perform
    for speaker in (carrier, device, desk, publisher):
        if speaker is not None:
            speaker.execute = driver.execute
    desks = {name: desk.perform, file_control.SOCKET_FILE: file_control.answering(files)}
    supervisor = Supervisor(os.environ)
    driver.started = supervisor.ready
    chores = [item.run for item in (device, publisher, supervisor) if item is not None]
    return _Process(
        driver, socket, board, clock, state, log, files, outside, chores, desks, node.sessions
    )


def _publisher(
    node: ValidatorNode, config: Config, folder: NodeFolder, store: LedgerStore
) -> LogPublisher:
    witnesses = [parse_key(text) for text in config.texts("dsm.log.witnesses")]
    log = TreeLog(node.ledger.history, store, witnesses, SCHEMES.signatures)
    return LogPublisher(log, Ed25519Signer(folder.secrets.signing))


def admission_of(config: Config) -> Admission:
    """Return what this operator asks of applicants."""
    age_max_us = Duration(config.integer("dsm.validator.attestation_ms") * MILLISECOND)
    terms = Terms(config.texts("dsm.validator.tpm_keys"), age_max_us)
    return Admission(terms, config.flag("dsm.validator.require_tpm"))


def _desk_of(
    node: FileNode, parts: tuple[Sequence[bytes], LogPublisher | None, Admission], clock: Clock
) -> tuple[str, RecordDesk | VerifierDesk | ValidatorDesk]:
    """Return what takes an operator's orders for this kind of node, and its socket's name."""
    ca_keys, publisher, admission = parts
    match node:
        case EdgeNode():
            return record_desk.SOCKET_FILE, RecordDesk(node, clock)
        case VerifierNode():
            return verifier_desk.SOCKET_FILE, VerifierDesk(node, ca_keys, clock)
        case ValidatorNode() if publisher is not None:
            return validator_desk.SOCKET_FILE, ValidatorDesk(node, publisher, clock, admission)
        case _:
            raise LocalError(f"no orders are known for a {type(node).__name__}")


def _egress(config: Config) -> EgressRecord | None:
    path = config.text("egress.path")
    return EgressRecord(config.folder / path) if path else None


def _build(role: str, config: Config, folder: NodeFolder, parts: Parts) -> _Built:
    papers = (folder.enrolment, folder.genesis, folder.directory)
    documents = Documents(folder.secrets, *papers, folder.spare_voting)
    settings = settings_of(config)
    match role:
        case "edge":
            machine = machine_of(config, folder.secrets)
            engine = load_backend(settings.neuro.backend)
            parts = replace(parts, history=read_history(machine, folder.secrets, engine))
            return _Built(build_edge(documents, settings, parts, sensors_of(config)), machine)
        case "verifier":
            grants = folders.read_grants(config.file("identity.path"))
            roots = [read_roots(config.folder / name) for name in config.texts("neuro.tpm_roots")]
            parts = replace(parts, tpm_roots=tuple(itertools.chain.from_iterable(roots)))
            return _Built(build_verifier(documents, settings, parts, grants))
        case _:
            return _Built(build_validator(documents, settings, parts))


def _file_settings(config: Config) -> tuple[Path | None, StoreLimits]:
    path = config.text("files.path")
    limits = StoreLimits(
        quota_bytes=config.integer("files.quota_mib") << 20,
        extensions=tuple(end.lower() for end in config.texts("files.extensions")),
    )
    return (config.folder / path if path else None), limits


class _FileCarrier:
    """Carries messages of the file service; `execute` is the driver's, which comes later."""

    def __init__(self, node: FileNode, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self.execute: Callable[[Sequence[Effect]], None] = lambda _: None

    def message(self, peer: NodeId, data: bytes) -> Room:
        effects = self._node.send_file(peer, data, self._clock.now())
        for effect in effects:
            if isinstance(effect, SendRefused):
                return Room.FULL if effect.reason is RefusedReason.QUEUE_FULL else Room.GONE
        self.execute(effects)
        return Room.SENT

    def room(self, peer: NodeId) -> int:
        return self._node.chunk_room(peer)

    def chunks(self, peer: NodeId, chunks: list[tuple[bytes, bytes]]) -> None:
        self.execute(self._node.send_chunks(peer, chunks, self._clock.now()))


def _each(
    observers: Sequence[Callable[[Observation], None]],
) -> Callable[[Observation], None]:
    def report(observation: Observation) -> None:
        for observe in observers:
            observe(observation)

    return report


async def _serve(process: _Process, node: Node, stop: asyncio.Event, sensors: _Sensors) -> None:
    chores = [
        asyncio.create_task(_write_status(process)),
        asyncio.create_task(process.files.run()),
        asyncio.create_task(process.outside.run()),
    ]
    chores += [asyncio.create_task(chore()) for chore in process.chores]
    chores += [_answer(process, name, perform) for name, perform in process.desks.items()]
    if isinstance(node, EdgeNode):
        chores.append(asyncio.create_task(tell_power(node)))
        chores += [
            asyncio.create_task(_follow(process, node, path, sensors.start))
            for path in sensors.files
        ]
    running = asyncio.create_task(process.driver.run(stop))
    try:
        # Whoever ends first decides: a failed chore stops the node, with its error.
        await asyncio.wait([running, *chores], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        for chore in chores:
            if chore.done():
                chore.result()
        await running
    finally:
        for task in (running, *chores):
            task.cancel()
        await process.files.end()
        await process.outside.end()
        _write_board(process)


def _answer(process: _Process, name: str, perform: control.Perform) -> asyncio.Task[None]:
    listener = control.bind(process.state, name)
    return asyncio.create_task(control.serve(listener, perform))


async def _follow(process: _Process, node: EdgeNode, path: str, start: str) -> None:
    if node.place(path).inode == 0 and start == "end":
        node.begin_at(path, Place(*end_of(Path(path))))
    place = node.place(path)
    if place.offset:
        head = header_of(Path(path))
        process.driver.execute(node.receive_preamble(path, head, process.clock.now()))
    tailer = Tailer(Path(path), inode=place.inode, position=place.offset)
    behind = False
    try:
        while True:
            events = tailer.read()
            for event in events:
                now = process.clock.now()
                if isinstance(event, Chunk):
                    process.driver.execute(node.receive_bytes(path, event.data, now))
                else:
                    process.driver.execute(node.receive_rotation(path, event.inode, now))
            if behind and not events:
                process.log.event("SensorCaughtUp", Level.DEBUG, path=path, **_read_so_far(node))
            behind = bool(events)
            # A storm must not starve the network: give way after every chunk.
            await asyncio.sleep(0 if events else TAIL_EVERY_S)
    finally:
        tailer.close()


def header_of(path: Path) -> bytes:
    """Return the leading `#` lines of a Zeek log; nothing for other files, or if it is not there.

    Whoever goes on reading in the middle of such a log needs them to know its columns.
    """
    lines: list[bytes] = []
    try:
        with path.open("rb") as file:
            while len(lines) < HEADER_LINES_MAX:
                line = file.readline(HEADER_LINE_MAX_BYTES)
                if not line.startswith(b"#"):
                    break
                lines.append(line)
    except OSError:
        return b""
    return b"".join(lines)


def _read_so_far(node: EdgeNode) -> dict[str, int]:
    counts = node.counts()
    return {"lines": counts.lines, "refused": sum(counts.refused.values())}


async def _write_status(process: _Process) -> None:
    while True:
        _write_board(process)
        await asyncio.sleep(STATUS_EVERY_S)


def _write_board(process: _Process) -> None:
    # A status that cannot be written is no reason to stop protecting; the next try may work.
    process.outside.count()
    with contextlib.suppress(HostError):
        now = process.clock.now()
        process.board.sessions = process.sessions(now)
        if process.driver.trace is not None:
            process.driver.trace.measured(process.board.sessions)
        document = process.board.document(now, process.socket.sent_bytes)
        status.write(process.state, document)

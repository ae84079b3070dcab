"""`HookProbeTransport` as the public documents use it, over real sockets, and misused."""

import asyncio
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hookprobe.htp
from hookprobe.errors import (
    HookProbeError,
    HostError,
    LocalError,
    MalformedError,
    UnavailableError,
)
from hookprobe.htp import (
    AsyncHookProbeTransport,
    FileOperation,
    HookProbeTransport,
    MessageType,
    SwarmCollector,
)
from hookprobe.htp.channels import Channel
from hookprobe.htp.config import HtpConfig
from hookprobe.node import provision
from hookprobe.node.provision import NodePlan
from hookprobe.runtime import folders
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.local_mesh import free_ports
from hookprobe.runtime.transport import WAITING_MAX, TransportSettings
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import MINUTE, SECOND

VALIDATOR, EDGE = "mssp-cloud-001", "edge-1"
QUICK = TransportSettings("127.0.0.1", config=HtpConfig(retry_initial_us=SECOND // 20))

# The deployment guide's program, word for word but for the import (the room that owns the name),
# the port (any free one) and the end of its loop.
GUIDE = """
from hookprobe.htp import HookProbeTransport
import sys

print('Starting HTP validator on port 4478...')
validator = HookProbeTransport(
    node_id='mssp-cloud-001',
    listen_port=4478,
    is_validator=True
)
print(f'HTP validator listening on {validator.local_address}')

# Run forever
try:
    while True:
        validator.receive_data(timeout=30.0)
except KeyboardInterrupt:
    print('Shutting down HTP validator')
    sys.exit(0)
"""

# The architecture document's file session, word for word but for the import.
FILES = """
from hookprobe.htp import HTPFileTransfer

async def story(htp_session):
    async with HTPFileTransfer(htp_session) as ft:
        # Create file
        await ft.create('/remote/path/file.txt', b'file contents')

        # Read file
        data = await ft.read('/remote/path/file.txt')

        # Update file
        await ft.update('/remote/path/file.txt', b'new contents')

        # Delete file
        await ft.delete('/remote/path/file.txt')

        # Get metadata
        metadata = await ft.stat('/remote/path/file.txt')

        # List directory
        entries = await ft.list('/remote/path/')
"""

TYPES = {
    "HELLO": 0x01, "CHALLENGE": 0x02, "ATTEST": 0x03, "ACCEPT": 0x04, "REJECT": 0x05,
    "DATA": 0x10, "HEARTBEAT": 0x20, "ACK": 0x21, "CLOSE": 0xFF,
}  # fmt: skip
OPERATIONS = {
    "CREATE": 0x30, "READ": 0x31, "UPDATE": 0x32, "DELETE": 0x33, "STAT": 0x34, "LIST": 0x35,
    "CHUNK": 0x36, "COMPLETE": 0x37, "ERROR": 0x38,
}  # fmt: skip


class Place:
    """A mesh of one validator and one edge in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        plans = [
            NodePlan(NodeId(VALIDATOR), "validator", "operator", f"127.0.0.1:{self.port}"),
            NodePlan(NodeId(EDGE), "edge", "tenant-a"),
        ]
        mesh = provision.found(NodeId("m"), plans, MINUTE, Clock().now(), secrets.token_bytes)
        for plan, enrolled in zip(plans, mesh.nodes, strict=True):
            documents = (mesh.genesis.encode(), mesh.directory)
            folders.write_node(folder / plan.node, enrolled, documents, {})

    def validator(self, files: Path | None = None) -> HookProbeTransport:
        where, settings = self.folder / VALIDATOR, TransportSettings("127.0.0.1", files)
        return HookProbeTransport(
            VALIDATOR, self.port, is_validator=True, folder=where, settings=settings
        )

    def edge(self) -> HookProbeTransport:
        where = self.folder / EDGE
        return HookProbeTransport(EDGE, 0, folder=where, settings=QUICK)

    @contextmanager
    def both(self) -> Iterator[tuple[HookProbeTransport, HookProbeTransport]]:
        with self.validator() as validator, self.edge() as edge:
            yield validator, edge


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("mesh"))


def test_the_documents_tables_are_ours() -> None:
    assert {kind.name: kind.value for kind in MessageType} == TYPES
    assert {one.name: one.value for one in FileOperation} == OPERATIONS


def test_every_name_can_be_imported_and_importing_the_room_stays_pure() -> None:
    for name in hookprobe.htp.FACES:
        assert getattr(hookprobe.htp, name) is not None
    with pytest.raises(AttributeError):
        hookprobe.htp.HTPDreams  # type: ignore[attr-defined]  # noqa: B018
    code = (
        "import hookprobe.htp, sys; io = ('sqlite3', 'socket', 'asyncio');"
        "print([name for name in sys.modules if 'runtime' in name or name in io])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_deployment_guides_program(place: Place) -> None:
    program = GUIDE.replace("listen_port=4478", f"listen_port={place.port}")
    # Where the tests themselves run in the background, SIGINT is ignored unless asked for.
    heeding = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-u", "-c", heeding + program]
    with subprocess.Popen(
        command, cwd=place.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "Starting HTP validator on port 4478...\n"
            listening = running.stdout.readline()
            assert listening == f"HTP validator listening on ('0.0.0.0', {place.port})\n"
            with place.edge() as edge:
                assert edge.send_data(b"are you there?", timeout=20) == VALIDATOR
            running.send_signal(2)
            out, error = running.communicate(timeout=20)
            assert (running.returncode, out) == (0, "Shutting down HTP validator\n"), error
        finally:
            running.kill()


def test_messages_both_ways_in_order(place: Place) -> None:
    with place.both() as (validator, edge):
        for number in range(200):
            edge.send_data(b"up %d" % number)
        for number in range(200):
            received = validator.receive_data(timeout=20)
            assert received == (EDGE, Channel.TER, b"up %d" % number)
        assert validator.send_data(b"down", EDGE, channel=Channel.ADVISORY) == EDGE
        assert edge.receive_data(timeout=20) == (VALIDATOR, Channel.ADVISORY, b"down")
        assert edge.receive_data(timeout=0.01) is None
        assert (edge.peers, validator.peers) == ((VALIDATOR,), (EDGE,))


def test_more_than_the_queue_holds_waits_for_who_reads(place: Place) -> None:
    count, text = 3 * WAITING_MAX, b"x" * 2000
    with place.both() as (validator, edge):
        sender = threading.Thread(
            target=lambda: [edge.send_data(text, timeout=60) for _ in range(count)]
        )
        sender.start()
        edge_waits = time.monotonic() + 0.5
        while time.monotonic() < edge_waits and validator._inner._reading:
            time.sleep(0.01)
        assert validator._inner._waiting.qsize() < 2 * WAITING_MAX
        for _ in range(count):
            received = validator.receive_data(timeout=20)
            assert received is not None
            assert received.data == text
        sender.join()


def test_a_set_of_messages_is_collected_whole(place: Place) -> None:
    letters = [b"%d" % number * 500 for number in range(400)]
    sets: list[list[bytes]] = []
    collector = SwarmCollector(lambda _, found: sets.append(found))
    with place.both() as (validator, edge):
        edge.send_data(b"first")
        first = validator.receive_data(timeout=20)
        assert first is not None
        with pytest.raises(MalformedError):
            collector.receive(first.data)
        with pytest.raises(LocalError):
            edge.send_swarm([])
        edge.send_swarm(letters, [VALIDATOR], timeout=30)
        while not sets:
            received = validator.receive_data(timeout=20)
            assert received is not None
            collector.receive(received.data)
    assert sets == [letters]


def test_an_interrupted_receive_takes_no_message(place: Place) -> None:
    with place.both() as (validator, edge):
        found: list[object] = []
        waiting = [
            threading.Thread(target=lambda: found.append(validator.receive_data(timeout=0.05)))
            for _ in range(3)
        ]
        for one in waiting:
            one.start()
        for one in waiting:
            one.join()
        assert found == [None] * 3
        edge.send_data(b"late")
        received = validator.receive_data(timeout=20)
        assert received is not None
        assert received.data == b"late"


def test_the_architecture_documents_file_session(place: Place, tmp_path: Path) -> None:
    scope: dict[str, Callable[[object], Awaitable[None]]] = {}
    # The document deletes the file before it asks about it; here that is put right.
    deleting = "        # Delete file\n        await ft.delete('/remote/path/file.txt')\n"
    assert deleting in FILES
    text = FILES.replace(deleting, "") + deleting
    exec(text, scope)

    async def play() -> None:
        where = place.folder / EDGE
        async with AsyncHookProbeTransport(EDGE, 0, folder=where, settings=QUICK) as edge:
            await edge.send_data(b"hello", VALIDATOR, timeout=20)
            await scope["story"](edge.session(VALIDATOR))

    with place.validator(files=tmp_path / "served"):
        asyncio.run(play())
    assert list((tmp_path / "served" / EDGE / "remote/path").iterdir()) == []


def wrong_folder(place: Place) -> object:
    return HookProbeTransport(EDGE, 0, folder=place.folder / VALIDATOR)


def no_folder(place: Place) -> object:
    del place
    return HookProbeTransport("edge-9", 0)


def an_edge_that_answers(place: Place) -> object:
    return HookProbeTransport(EDGE, 0, is_validator=True, folder=place.folder / EDGE)


def a_port_twice(place: Place) -> object:
    with place.validator():
        return place.validator()


@pytest.mark.parametrize(
    ("misuse", "error"),
    [
        (wrong_folder, LocalError),
        (no_folder, HostError),
        (an_edge_that_answers, LocalError),
        (a_port_twice, HostError),
    ],
)
def test_misuse_is_told_and_leaves_no_thread(
    place: Place, misuse: Callable[[Place], object], error: type[HookProbeError]
) -> None:
    before = threading.active_count()
    with pytest.raises(error):
        misuse(place)
    assert threading.active_count() <= before


def test_nobody_in_reach_is_told_in_time(place: Place) -> None:
    with place.edge() as edge, pytest.raises(UnavailableError, match="no session"):
        edge.send_data(b"hello?", timeout=0.1)
    with pytest.raises(UnavailableError, match="closed"):
        edge.receive_data()
    with place.both() as (_, edge), pytest.raises(LocalError):
        edge.send_data(bytes(1 << 21), timeout=20)

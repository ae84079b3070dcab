"""One file from process to process over the loopback: HTP beside aioquic, qh3, and TLS over TCP.

Every round takes all of them in turn, with the same file. Each sender hashes the file first; each
receiver hashes what came, makes it durable with fsync and only then answers; the clock runs from
before the hash to the answer. CPU time is that of the sending and of the receiving process while
the clock runs. HTP runs twice: kept to datagrams of 1200 bytes, as QUIC libraries are by default,
and with the search for the path's size, which finds 8952 bytes on the loopback. It sends under
LEDBAT++, as edges do. The floor is what no sealed transfer at 1200 bytes can do without.
"""

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.bench_htp import Plain, endpoint
from benchmarks.bulk_floor import floor_receive, floor_send
from benchmarks.certificates import certify

from hookprobe.htp.channels import Channel
from hookprobe.htp.config import DATAGRAM_BYTES, HtpConfig
from hookprobe.htp.effects import Address, SendRefused, SessionUp
from hookprobe.htp.endpoint import Endpoint
from hookprobe.htp.path import Received
from hookprobe.htp.seams import PinnedPeer
from hookprobe.htp.traffic import Chunks
from hookprobe.node.host import Effect
from hookprobe.runtime.clock import Clock
from hookprobe.runtime.driver import Driver
from hookprobe.runtime.file_pump import Room
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_store import StoreLimits
from hookprobe.runtime.file_transfer import HTPFileTransfer, WriteTarget
from hookprobe.runtime.udp import UdpSocket
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

ROUNDS = 3
MIB = 1 << 20
LOOPBACK = "127.0.0.1"
BLOCK_BYTES = 1 << 16
WAIT_S = 120
KINDS = ("htp", "htp, jumbo", "floor", "qh3", "aioquic", "tls")
SIZES = {"aioquic": 12 * MIB}  # the slowest; all figures are for a mebibyte

Row = tuple[str, float, str]
Work = Callable[[dict[str, Any]], Coroutine[object, object, None]]


class Bare:
    """An endpoint as a node, with nothing above it but files."""

    def __init__(self, found: Endpoint, dial: PinnedPeer | None) -> None:
        self.endpoint = found
        self.dial = dial

    def start(self, now: Instant) -> list[Effect]:
        return [] if self.dial is None else [*self.endpoint.connect(self.dial, now)]

    def receive_datagram(self, data: bytes, address: Address, now: Instant) -> list[Effect]:
        return [*self.endpoint.receive_datagram(data, address, now)]

    def receive_batch(self, received: Received, now: Instant) -> list[Effect]:
        return [*self.endpoint.receive_batch(received, now)]

    def next_timeout(self) -> Instant | None:
        return self.endpoint.next_timeout()

    def handle_timeout(self, now: Instant) -> list[Effect]:
        return [*self.endpoint.handle_timeout(now)]


class NoStore:
    """Nothing is to be remembered."""

    def apply(self, batches: Sequence[object]) -> None:
        assert not batches


class BareCarrier:
    """What `FileService` sends by."""

    def __init__(self, found: Endpoint, driver: Driver, clock: Clock) -> None:
        self.endpoint = found
        self.driver = driver
        self.clock = clock

    def message(self, peer: NodeId, data: bytes) -> Room:
        effects = self.endpoint.send(peer, Channel.FILE, data, self.clock.now())
        if any(isinstance(effect, SendRefused) for effect in effects):
            return Room.FULL
        self.driver.execute(effects)
        return Room.SENT

    def room(self, peer: NodeId) -> int:
        return self.endpoint.chunk_room(peer)

    def chunks(self, peer: NodeId, chunks: Chunks) -> None:
        self.driver.execute(self.endpoint.send_chunks(peer, chunks, self.clock.now()))


class HtpEnd:
    """One process of an HTP transfer."""

    def __init__(self, name: str, root: Path | None, dial_port: int, largest: int) -> None:
        plain, clock = Plain(), Clock()
        config = HtpConfig(datagram_max_bytes=largest)
        _, other = endpoint("validator" if name == "edge" else "edge", plain)
        found, _ = endpoint(name, plain, config, clock.now())
        self.peer = other.node
        dial = None
        if dial_port:
            key = other.static_key.public_key
            dial = PinnedPeer(other.node, Address(LOOPBACK, dial_port), key)
        self.socket = UdpSocket(Address(LOOPBACK, 0))
        self.up, self.stop = asyncio.Event(), asyncio.Event()
        self.driver = Driver(Bare(found, dial), self.socket, NoStore(), clock, self.report)
        carrier = BareCarrier(found, self.driver, clock)
        self.files = FileService(carrier, root, StoreLimits(1 << 32), clock)

    def report(self, effect: object) -> None:
        self.files.report(effect)  # type: ignore[arg-type] # effects of the transport are observations
        if isinstance(effect, SessionUp):
            self.up.set()


async def htp_receive(task: dict[str, Any]) -> None:
    end = HtpEnd("validator", Path(task["folder"]), 0, task["largest"])
    running = asyncio.create_task(end.driver.run(end.stop))
    await say({"port": end.socket.address.port})
    await asyncio.to_thread(sys.stdin.readline)
    begin = time.process_time()
    await asyncio.to_thread(sys.stdin.readline)
    await say({"cpu": time.process_time() - begin})
    end.stop.set()
    await running
    await end.files.end()


async def htp_send(task: dict[str, Any]) -> None:
    end = HtpEnd("edge", None, task["port"], task["largest"])
    running = asyncio.create_task(end.driver.run(end.stop))
    await asyncio.wait_for(end.up.wait(), WAIT_S)
    path = Path(task["file"])
    async with HTPFileTransfer(end.files.session(end.peer), compress=False) as transfer:
        # A first file lets both ends learn the path, as in any session that is not brand-new.
        await transfer.create("first", bytes(MIB))
        await say({})
        begin, cpu = time.perf_counter(), time.process_time()
        await transfer.put(path, WriteTarget("second"))
        await say({"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu})
    end.stop.set()
    await running
    await end.files.end()


async def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


class Sink:
    """What a receiver of a stream does: size (8), content; hash, fsync, the hash in answer."""

    def __init__(self, folder: str) -> None:
        self.file = (Path(folder) / f"stream-{os.getpid()}").open("wb")
        self.size: int | None = None
        self.head = b""
        self.have = 0
        self.sha = hashlib.sha256()

    def take(self, data: bytes) -> bytes | None:
        if self.size is None:
            self.head += data
            if len(self.head) < 8:
                return None
            self.size, data = int.from_bytes(self.head[:8]), self.head[8:]
        self.file.write(data)
        self.sha.update(data)
        self.have += len(data)
        if self.have < self.size:
            return None
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.sha.digest()


def hashed(path: Path) -> bytes:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(MIB):
            found.update(data)
    return found.digest()


def size_of(path: Path) -> bytes:
    return path.stat().st_size.to_bytes(8)


async def pour(path: Path, write: Callable[[bytes], Coroutine[object, object, None]]) -> None:
    await write(size_of(path))
    with path.open("rb") as file:
        while data := file.read(BLOCK_BYTES):
            await write(data)


# -- QUIC: aioquic and qh3, which has the same interface ------------------------------------------


def quic_parts(kind: str) -> Any:
    names = ("asyncio", "asyncio.protocol", "quic.configuration", "quic.events")
    return [importlib.import_module(f"{kind}.{name}") for name in names]


async def quic_receive(task: dict[str, Any]) -> None:
    api, protocol, configuration, events = quic_parts(task["kind"])
    done = asyncio.Event()

    class Server(protocol.QuicConnectionProtocol):  # type: ignore[name-defined,misc]
        sinks: ClassVar[dict[int, Sink]] = {}

        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, events.StreamDataReceived):
                sink = self.sinks.setdefault(event.stream_id, Sink(task["folder"]))
                answer = sink.take(event.data)
                if answer is not None:
                    self._quic.send_stream_data(event.stream_id, answer, end_stream=True)
                    self.transmit()
                    done.set()

    settings = configuration.QuicConfiguration(is_client=False, alpn_protocols=["bulk"],
        max_data=1 << 30, max_stream_data=1 << 30)  # fmt: skip
    settings.load_cert_chain(task["certificate"], task["key"])
    server = await api.serve(LOOPBACK, 0, configuration=settings, create_protocol=Server)
    transport = getattr(server, "_transport", None)
    await say({"port": transport.get_extra_info("sockname")[1]})  # type: ignore[union-attr]
    await asyncio.to_thread(sys.stdin.readline)
    begin = time.process_time()
    await asyncio.to_thread(sys.stdin.readline)
    await say({"cpu": time.process_time() - begin})
    server.close()


async def quic_send(task: dict[str, Any]) -> None:
    api, _, configuration, _ = quic_parts(task["kind"])
    settings = configuration.QuicConfiguration(is_client=True, alpn_protocols=["bulk"])
    settings.verify_mode = ssl.CERT_NONE
    path = Path(task["file"])
    async with api.connect(LOOPBACK, task["port"], configuration=settings) as client:
        reader, writer = await client.create_stream()
        await say({})
        begin, cpu = time.perf_counter(), time.process_time()
        sha = await asyncio.to_thread(hashed, path)

        async def write(data: bytes) -> None:
            writer.write(data)  # their writers have nothing to wait for

        await pour(path, write)
        assert await reader.readexactly(32) == sha
        await say({"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu})


# -- TLS 1.3 over TCP -----------------------------------------------------------------------------


async def tls_receive(task: dict[str, Any]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(task["certificate"], task["key"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sink, answer = Sink(task["folder"]), None
        while answer is None:
            answer = sink.take(await reader.read(BLOCK_BYTES * 4))
        writer.write(answer)
        await writer.drain()

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=context)
    await say({"port": server.sockets[0].getsockname()[1]})
    await asyncio.to_thread(sys.stdin.readline)
    begin = time.process_time()
    await asyncio.to_thread(sys.stdin.readline)
    await say({"cpu": time.process_time() - begin})


async def tls_send(task: dict[str, Any]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    path = Path(task["file"])
    reader, writer = await asyncio.open_connection(LOOPBACK, task["port"], ssl=context)
    await say({})
    begin, cpu = time.perf_counter(), time.process_time()
    sha = await asyncio.to_thread(hashed, path)

    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    await pour(path, write)
    assert await reader.readexactly(32) == sha
    await say({"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu})
    writer.close()


WORKS: dict[str, tuple[Work, Work]] = {
    "htp": (htp_receive, htp_send),
    "htp, jumbo": (htp_receive, htp_send),
    "floor": (lambda task: floor_receive(task, say), lambda task: floor_send(task, say)),
    "qh3": (quic_receive, quic_send),
    "aioquic": (quic_receive, quic_send),
    "tls": (tls_receive, tls_send),
}


class Child:
    """One end in a process of its own, one JSON line for each thing it has to say."""

    def __init__(
        self, end: int, task: dict[str, Any], module: str = "benchmarks.bench_htp_bulk"
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(end), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "an end of the benchmark died"
        row: dict[str, Any] = json.loads(line)
        return row

    def poke(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=5)
        self.process.kill()
        self.process.wait()


def transfer(kind: str, task: dict[str, Any]) -> tuple[float, float, float]:
    """Return (wall, CPU of the sender, CPU of the receiver) in milliseconds for a mebibyte."""
    largest = 8952 if "jumbo" in kind else DATAGRAM_BYTES
    task = {**task, "kind": kind, "largest": largest}
    receiver = Child(0, task)
    port = receiver.hear()["port"]
    sender = Child(1, {**task, "port": port})
    try:
        sender.hear()
        receiver.poke()
        sent = sender.hear()
        receiver.poke()
        cpu = receiver.hear()["cpu"]
    finally:
        sender.stop()
        receiver.stop()
    scale = 1000 * MIB / Path(task["file"]).stat().st_size
    return sent["wall"] * scale, sent["cpu"] * scale, cpu * scale


def run() -> list[Row]:
    """Measure everything, in turn."""
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cert, key = certify(folder)
        files = {}
        for size in {SIZES.get(kind, 48 * MIB) for kind in KINDS}:
            files[size] = folder / f"{size}.bin"
            files[size].write_bytes(os.urandom(size))
        for turn in range(ROUNDS):
            for kind in KINDS:
                where = folder / f"{kind.replace(', ', '-')}-{turn}"
                where.mkdir()
                task = {"certificate": cert, "key": key, "folder": str(where),
                        "file": str(files[SIZES.get(kind, 48 * MIB)])}  # fmt: skip
                found[kind].append(transfer(kind, task))
    best = {kind: tuple(min(column) for column in zip(*rows, strict=True))
            for kind, rows in found.items()}  # fmt: skip
    return rows_of(best)


def rows_of(best: dict[str, tuple[float, ...]]) -> list[Row]:
    rows: list[Row] = []
    for kind, (wall, sending, receiving) in best.items():
        label = {"htp": "HTP at 1200 B", "htp, jumbo": "HTP at 8952 B",
                 "floor": "floor, a bare loop at 1200 B"}.get(kind, kind)  # fmt: skip
        rows.append((f"bulk, fsync and SHA-256: {label}", MIB / 1e6 * 1000 / wall, "MB/s"))
        rows.append((f"bulk, sending: {label}", sending, "ms of CPU/MiB"))
        rows.append((f"bulk, receiving: {label}", receiving, "ms of CPU/MiB"))
    for place, what in ((1, "sending"), (2, "receiving")):
        ratio = best["htp"][place] / best["floor"][place]
        rows.append((f"bulk, {what}: HTP at 1200 B / the floor", ratio, "times the CPU"))
    for kind, label in (("htp", "HTP at 1200 B"), ("htp, jumbo", "HTP at 8952 B")):
        for peer in ("qh3", "aioquic", "tls"):
            ratio = best[peer][0] / best[kind][0]
            rows.append((f"bulk: {label} / {peer}", ratio, "times as fast"))
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 2:
        given = json.loads(sys.argv[2])
        asyncio.run(WORKS[given["kind"]][int(sys.argv[1])](given))
    else:
        for what, value, unit in run():
            print(f"{what:45} {value:12,.2f} {unit}")

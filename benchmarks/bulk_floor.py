"""The least a sealed transfer over UDP costs here: no protocol, only what none can do without.

The sender hashes the file, reads it, seals packets of 1200 bytes and hands runs of them to the
host. The receiver takes runs, opens them, writes them to the file, hashes the file, makes it
durable. Numbers, headers, acknowledgements, pacing and repair of losses are left out: a count of
runs that came back keeps the receiver's buffer from running over, and a lost packet is an error.
"""

import asyncio
import hashlib
import os
import select
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hookprobe.htp.effects import Address, TransmitRun
from hookprobe.htp.packet import HEADER_BYTES, SEALED_OVERHEAD_BYTES, Block
from hookprobe.htp.path import Burst
from hookprobe.runtime.udp import UdpSocket

LOOPBACK = "127.0.0.1"
PACKET_BYTES = 1200
PIECE_BYTES = PACKET_BYTES - SEALED_OVERHEAD_BYTES - 16
RUN = 54
AHEAD = 8  # runs that may be on their way
WAIT_S = 30
HEADER = bytes(HEADER_BYTES)
FRONT = bytes(SEALED_OVERHEAD_BYTES - HEADER_BYTES - 16 + 16)
CIPHER = ChaCha20Poly1305(bytes(32))

Say = Callable[[dict[str, Any]], Awaitable[None]]


def nonces(first: int, count: int) -> list[bytes]:
    return [number.to_bytes(12) for number in range(first, first + count)]


def hash_file(handle: int) -> bytes:
    found, buffer, offset = hashlib.sha256(), memoryview(bytearray(1 << 17)), 0
    while size := os.preadv(handle, [buffer], offset):
        found.update(buffer[:size])
        offset += size
    return found.digest()


def size_of(path: Path) -> int:
    return path.stat().st_size


def seal_run(data: bytes, first: int) -> list[bytes]:
    pieces = [data[at : at + PIECE_BYTES].ljust(PIECE_BYTES, b"\0")
              for at in range(0, len(data), PIECE_BYTES)]  # fmt: skip
    return [HEADER + CIPHER.encrypt(nonce, FRONT + piece, HEADER)
            for nonce, piece in zip(nonces(first, len(pieces)), pieces, strict=True)]  # fmt: skip


def wait(here: UdpSocket) -> list[Burst]:
    """Return what comes next, all of it as bursts."""
    ready, _, _ = select.select([here._socket], [], [], WAIT_S)
    assert ready, "nothing came: a packet was lost"
    return [one if isinstance(one, Burst) else Burst(one[0], one[1], len(one[0]))
            for one in here.drain()]  # fmt: skip


def pour(path: Path, here: UdpSocket, there: Address) -> None:
    handle = os.open(path, os.O_RDONLY)
    digest, sent, back, offset = hash_file(handle), 0, 0, 0
    while data := os.pread(handle, RUN * PIECE_BYTES, offset):
        while sent - back >= AHEAD:
            back += sum(len(one.data) for one in wait(here))
        packets = seal_run(data, offset // PIECE_BYTES)
        here.send_batch([TransmitRun(there, packets)])
        sent, offset = sent + 1, offset + len(data)
    os.close(handle)
    answer = b""
    while not answer.strip(b"\0"):  # of runs that came back
        answer = wait(here)[-1].data
    assert answer == digest, "another file arrived"


def fill(path: Path, size: int, here: UdpSocket) -> None:
    there, have, first, waiting = Address("", 0), 0, 0, 0
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while have < size:
        pieces: list[bytes] = []
        for burst in wait(here):
            headers, sealed = zip(*Block(burst.data, burst.size).rows, strict=True)
            found = map(CIPHER.decrypt, nonces(first, len(sealed)), sealed, headers)
            pieces += [plain[len(FRONT) :] for plain in found]
            first += len(sealed)
            there = burst.address
        data = b"".join(pieces)[: size - have]
        os.pwrite(handle, data, have)
        have += len(data)
        waiting += len(pieces)
        if waiting >= RUN:
            here.send(there, bytes(waiting // RUN))
            waiting %= RUN
    digest = hash_file(handle)
    os.fsync(handle)
    here.send(there, digest)
    os.close(handle)


async def floor_receive(task: dict[str, Any], say: Say) -> None:
    here = UdpSocket(Address(LOOPBACK, 0))
    await say({"port": here.address.port})
    path, size = (
        Path(task["folder"]) / "floor",
        await asyncio.to_thread(size_of, Path(task["file"])),
    )
    begin = time.process_time()
    await asyncio.to_thread(fill, path, size, here)
    await say({"cpu": time.process_time() - begin})
    here.shut()


async def floor_send(task: dict[str, Any], say: Say) -> None:
    here = UdpSocket(Address(LOOPBACK, 0))
    await say({})
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.to_thread(pour, Path(task["file"]), here, Address(LOOPBACK, task["port"]))
    await say({"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu})
    here.shut()

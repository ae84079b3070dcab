"""How a command speaks with the running node: a socket in the node's state folder.

A node has one session with each peer and one store, so another process cannot have its own; it asks
the node. One request a connection, one JSON object a line:

    -> {"op":"put","peer":"validator-1","path":"a.txt","local":"/home/me/a.txt","replace":false}
    <- {"done":8192,"size":20000}
    <- {"result":[{"path":"a.txt","size":20000,"sha256":"..."}]}
    <- {"error":"E-FILE","message":"...","hint":""}

The sockets are for the node's own user only.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from hookprobe.errors import HookProbeError, HostError, MalformedError, UnavailableError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import JsonObject
from hookprobe.wire.fields import Fields

LINE_MAX_BYTES = 1 << 16
CONNECTIONS_MAX = 16
_BACKLOG = 8

Row = dict[str, object]
Say: TypeAlias = Callable[[Row], None]
Perform: TypeAlias = Callable[[Fields, Say], Awaitable[list[Row]]]
"""Carries out one request; `Say` writes a line before the result."""


@contextlib.contextmanager
def _address(state: Path, name: str) -> Iterator[str]:
    """Yield a short name of the socket: the paths of sockets have 108 bytes at most."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def bind(state: Path, name: str) -> socket.socket:
    """Return the listening socket of a node.

    Raises:
        HostError: It cannot be made.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        (state / name).unlink(missing_ok=True)  # of a process that was killed
        with _address(state, name) as address:
            found.bind(address)
        (state / name).chmod(0o600)
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise HostError(f"{state / name}: {error.strerror}") from error
    return found


def connect(state: Path, name: str) -> socket.socket:
    """Return a connection to the node whose state folder this is.

    Raises:
        UnavailableError: It does not run, or not for this user.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _address(state, name) as address:
            found.connect(address)
    except OSError as error:
        found.close()
        raise UnavailableError(
            f"{state / name}: {error.strerror}", hint="is the node running, and yours?"
        ) from error
    return found


def ask(state: Path, name: str, request: JsonObject) -> Iterator[Mapping[str, object]]:
    """Yield the lines that a running node answers a request with; the last is the result.

    Raises:
        UnavailableError: It does not run, or ended before it had answered.
    """
    with connect(state, name) as connection:
        connection.sendall(canonical.encode(request) + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                yield said
                if "result" in said or "error" in said:
                    return
    raise UnavailableError("the node ended before it had answered", hint="look at its log")


async def serve(listener: socket.socket, perform: Perform) -> None:
    """Answer requests until cancelled."""
    open_now = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now > CONNECTIONS_MAX:
                raise UnavailableError("the node is busy with other requests")
            await _handle(reader, writer, perform)
        except HookProbeError as error:
            _write(writer, {"error": error.code, "message": error.message, "hint": error.hint})
        finally:
            open_now -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_unix_server(take, sock=listener, limit=LINE_MAX_BYTES)
    async with server:
        await server.serve_forever()


async def _handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, perform: Perform
) -> None:
    try:
        line = await reader.readline()
    except ValueError:
        raise MalformedError(f"request of more than {LINE_MAX_BYTES} bytes") from None

    def say(row: Row) -> None:
        _write(writer, row)

    fields = Fields(canonical.decode_object(line.removesuffix(b"\n")), "request")
    work = asyncio.ensure_future(perform(fields, say))
    gone = asyncio.create_task(reader.read(1))
    # Whoever asked may go away, by Ctrl-C for example: then the work stops.
    await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
        return
    _write(writer, {"result": work.result()})
    with contextlib.suppress(ConnectionError):
        await writer.drain()


def _write(writer: asyncio.StreamWriter, said: Row) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")

"""How `hookprobe file` speaks with the running node: a socket in the node's state folder.

A node has one session with each peer, so another process cannot have one of its own; it asks the
node. One request a connection, one JSON object a line:

    -> {"op":"put","peer":"validator-1","path":"a.txt","local":"/home/me/a.txt","replace":false}
    <- {"done":8192,"size":20000}
    <- {"result":[{"path":"a.txt","size":20000,"sha256":"..."}]}
    <- {"error":"E-FILE","message":"...","hint":""}

The socket is for the node's own user only. Local files are opened by the node.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hookprobe.errors import HookProbeError, HostError, MalformedError, UnavailableError
from hookprobe.htp.transfer_codec import ANY_CONTENT, FileFacts
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_transfer import HTPFileTransfer, WriteTarget
from hookprobe.wire import canonical
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id
from hookprobe.wire.instant import Instant, format_iso

SOCKET_FILE = "files.sock"
LINE_MAX_BYTES = 1 << 16
PROGRESS_STEPS = 200
CONNECTIONS_MAX = 16
_PATH_MAX = 4096
_BACKLOG = 8

Row = dict[str, object]


@contextlib.contextmanager
def _address(state: Path) -> Iterator[str]:
    """Yield a short name of the socket: the paths of sockets have 108 bytes at most."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_FILE}"
    finally:
        os.close(folder)


def bind(state: Path) -> socket.socket:
    """Return the listening socket of a node.

    Raises:
        HostError: It cannot be made.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        (state / SOCKET_FILE).unlink(missing_ok=True)  # of a process that was killed
        with _address(state) as address:
            found.bind(address)
        (state / SOCKET_FILE).chmod(0o600)
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise HostError(f"{state / SOCKET_FILE}: {error.strerror}") from error
    return found


def connect(state: Path) -> socket.socket:
    """Return a connection to the node whose state folder this is.

    Raises:
        UnavailableError: It does not run, or not for this user.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _address(state) as address:
            found.connect(address)
    except OSError as error:
        found.close()
        raise UnavailableError(
            f"{state / SOCKET_FILE}: {error.strerror}", hint="is the node running, and yours?"
        ) from error
    return found


async def serve(listener: socket.socket, service: FileService) -> None:
    """Answer requests until cancelled."""
    open_now = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now > CONNECTIONS_MAX:
                raise UnavailableError("the node is busy with other requests")
            await _handle(reader, writer, service)
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
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: FileService
) -> None:
    try:
        line = await reader.readline()
    except ValueError:
        raise MalformedError(f"request of more than {LINE_MAX_BYTES} bytes") from None
    work = asyncio.create_task(
        _perform(
            Fields(canonical.decode_object(line.removesuffix(b"\n")), "request"), writer, service
        )
    )
    gone = asyncio.create_task(reader.read(1))
    # Whoever asked may go away, by Ctrl-C for example: then the transfer stops, and can be resumed.
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


async def _perform(fields: Fields, writer: asyncio.StreamWriter, service: FileService) -> list[Row]:
    operation = fields.text("op")
    peer = parse_node_id(fields.text("peer"))
    path = fields.text("path", limit=_PATH_MAX)
    if_match = fields.hex("if_match", len(ANY_CONTENT)) if fields.has("if_match") else ANY_CONTENT
    replace = fields.flag("replace") if fields.has("replace") else False
    local = Path(fields.text("local", limit=_PATH_MAX)) if fields.has("local") else None
    fields.finish()
    progress = _Progress(writer)
    async with HTPFileTransfer(service.session(peer)) as transfer:
        match operation:
            case "put" if local is not None:
                target = WriteTarget(path, replace, if_match)
                return [_facts(path, await transfer.put(local, target, progress))]
            case "get" if local is not None:
                facts = await transfer.get(path, local, replace=replace, progress=progress)
                return [_facts(path, facts)]
            case "ls":
                return [
                    {"name": entry.name, "kind": _kind(entry.is_folder), "size": entry.size}
                    for entry in await transfer.list(path)
                ]
            case "stat":
                return [await _stat(transfer, path)]
            case "rm":
                await transfer.delete(path, if_match=if_match)
                return [{"path": path}]
            case _:
                raise MalformedError("request: no such operation, or no local file")


async def _stat(transfer: HTPFileTransfer, path: str) -> Row:
    found = await transfer.stat(path)
    row: Row = {"path": path, "kind": _kind(found.is_folder)}
    if not found.is_folder:
        row |= {"size": found.facts.size, "sha256": found.facts.sha256.hex()}
    return row | {"mode": f"{found.mode:04o}", "modified": format_iso(Instant(found.modified_us))}


def _kind(is_folder: bool) -> str:
    return "folder" if is_folder else "file"


def _facts(path: str, facts: FileFacts) -> Row:
    return {"path": path, "size": facts.size, "sha256": facts.sha256.hex()}


class _Progress:
    """Writes a line for each two-hundredth of the way."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._told = -1

    def __call__(self, done: int, size: int) -> None:
        step = done * PROGRESS_STEPS // max(size, 1)
        if step > self._told:
            self._told = step
            _write(self._writer, {"done": done, "size": size})

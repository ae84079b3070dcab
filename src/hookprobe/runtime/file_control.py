"""What `hookprobe file` may ask of the running node; see `runtime.control` for the socket.

Local files are opened by the node. A transfer whose asker goes away stops, and can be resumed.
"""

from pathlib import Path

from hookprobe.errors import MalformedError
from hookprobe.htp.transfer_codec import ANY_CONTENT, FileFacts
from hookprobe.runtime.control import Perform, Row, Say
from hookprobe.runtime.file_service import FileService
from hookprobe.runtime.file_transfer import HTPFileTransfer, WriteTarget
from hookprobe.wire.fields import Fields
from hookprobe.wire.identifiers import parse_node_id
from hookprobe.wire.instant import Instant, format_iso

SOCKET_FILE = "files.sock"
PROGRESS_STEPS = 200
_PATH_MAX = 4096


def answering(service: FileService) -> Perform:
    """Return what carries out requests about files."""

    async def perform(fields: Fields, say: Say) -> list[Row]:
        return await _perform(fields, say, service)

    return perform


async def _perform(fields: Fields, say: Say, service: FileService) -> list[Row]:
    operation = fields.text("op")
    peer = parse_node_id(fields.text("peer"))
    path = fields.text("path", limit=_PATH_MAX)
    if_match = fields.hex("if_match", len(ANY_CONTENT)) if fields.has("if_match") else ANY_CONTENT
    replace = fields.flag("replace") if fields.has("replace") else False
    local = Path(fields.text("local", limit=_PATH_MAX)) if fields.has("local") else None
    fields.finish()
    progress = _Progress(say)
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

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told = -1

    def __call__(self, done: int, size: int) -> None:
        step = done * PROGRESS_STEPS // max(size, 1)
        if step > self._told:
            self._told = step
            self._say({"done": done, "size": size})

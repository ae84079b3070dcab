"""The messages of file operations: a header of 16 bytes and a body (HTP spec 3.5).

    file_op 1 | flags 1 | chunk_index 2 | file_id 4 | total_chunks 4 | file_hash 4 | body

`file_id` is chosen by who asks; whatever the asked end sends about it carries RESPONSE, so both
ends may choose the same number. `file_hash` is the front of the SHA-256 and only catches mix-ups.

A file is cut into chunks of 64 KiB, the last one shorter; see ADR 20. Of the 65,536 that the 16-bit
index can count, the largest file has a quarter.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from hookprobe.errors import LimitExceededError, MalformedError, RemoteError
from hookprobe.htp.transfer_paths import PATH_MAX_BYTES, check_path
from hookprobe.wire.reader import Reader, Writer

HEADER_BYTES = 16
FILE_MAX_BYTES = 1 << 30
CHUNK_LOG2 = 16
CHUNK_BYTES = 1 << CHUNK_LOG2
CHUNKS_MAX = FILE_MAX_BYTES >> CHUNK_LOG2
SHA256_BYTES = 32
ANY_CONTENT = bytes(SHA256_BYTES)  # as `if_match`: no condition
RANGES_MAX = CHUNKS_MAX // 2
LIST_MAX = 256
MODE_BITS = 0o7777


class FileOperation(IntEnum):
    """The first byte of a file message."""

    CREATE = 0x30
    READ = 0x31
    UPDATE = 0x32
    DELETE = 0x33
    STAT = 0x34
    LIST = 0x35
    CHUNK = 0x36
    COMPLETE = 0x37
    ERROR = 0x38


class FileFlags(IntFlag):
    """The second byte."""

    COMPRESSED = 0x01
    LAST = 0x02
    RESUME = 0x04
    RESPONSE = 0x08
    NOREPLACE = 0x10


# Enumerations are slow to look up by value, and this happens for every chunk.
_OPERATIONS = {operation.value: operation for operation in FileOperation}
_FLAGS = [FileFlags(flags) for flags in range(0x20)]
_HEADER = struct.Struct(">BBHII4s")


class FileError(IntEnum):
    """Why an operation failed; the body of ERROR."""

    MALFORMED = 1
    NOT_FOUND = 2
    EXISTS = 3
    CONFLICT = 4  # the file is not the one that `if_match` names
    FORBIDDEN = 5
    TOO_LARGE = 6
    QUOTA = 7
    NO_SPACE = 8
    BUSY = 9
    HASH = 10  # what arrived has another SHA-256
    CHANGED = 11  # the source changed while it was read
    NOT_A_FILE = 12
    HOST = 13
    INCOMPLETE = 14


class FileRefusedError(RemoteError):
    """A file operation came to nothing.

    Args:
        reason: The code that ERROR carries.
        message: What was asked for.
    """

    code = "E-FILE"

    def __init__(self, reason: FileError, message: str) -> None:
        super().__init__(f"{message}: {reason.name.lower().replace('_', ' ')}")
        self.reason = reason


class FileHeader(NamedTuple):
    """The 16 bytes."""

    operation: FileOperation
    flags: FileFlags
    chunk_index: int
    file_id: int
    total_chunks: int
    file_hash: bytes


class ChunkRange(NamedTuple):
    """Chunks `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is, whatever its name.

    Attributes:
        size: In bytes.
        sha256: Of the content, 32 bytes.
    """

    size: int
    sha256: bytes

    def __post_init__(self) -> None:
        """Refuse sizes and hashes that no transfer can have."""
        if self.size > FILE_MAX_BYTES:
            raise LimitExceededError(f"file of {self.size} bytes, limit {FILE_MAX_BYTES}")
        if len(self.sha256) != SHA256_BYTES:
            raise MalformedError("file: a SHA-256 has 32 bytes")

    @property
    def chunks(self) -> int:
        """How many chunks there are; none for an empty file."""
        return -(-self.size >> CHUNK_LOG2)

    def chunk_size(self, index: int) -> int:
        """Return the bytes of one chunk; only the last one may be short."""
        return min(CHUNK_BYTES, self.size - (index << CHUNK_LOG2))


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """CREATE or UPDATE.

    Attributes:
        facts: Size and SHA-256 of what is to come.
        compressible: Whether chunks may be compressed.
        mode: Permission bits.
        if_match: UPDATE: SHA-256 of the file to replace, or `ANY_CONTENT`.
        path: Relative, checked.
    """

    facts: FileFacts
    compressible: bool
    mode: int
    if_match: bytes
    path: str


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """READ: the chunks that hold `length` bytes from `offset` on."""

    path: str
    offset: int
    length: int
    if_match: bytes


@dataclass(frozen=True, slots=True)
class PathRequest:
    """STAT and DELETE; `if_match` is a condition of DELETE."""

    path: str
    if_match: bytes = ANY_CONTENT


@dataclass(frozen=True, slots=True)
class ListRequest:
    """LIST: at most `limit` names of a folder that sort behind `cursor`."""

    path: str
    cursor: str
    limit: int


@dataclass(frozen=True, slots=True)
class FileStat:
    """The answer to STAT; a folder has size 0 and no hash.

    Attributes:
        is_folder: Whether it is a folder.
        facts: Size and SHA-256.
        mode: Permission bits.
        modified_us: When the content last changed.
    """

    is_folder: bool
    facts: FileFacts
    mode: int
    modified_us: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a folder."""

    name: str
    is_folder: bool
    size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to LIST; `more` if names remain behind the last one."""

    entries: tuple[Entry, ...]
    more: bool


def encode_frame(header: FileHeader, body: bytes = b"") -> bytes:
    """Return a message.

    Raises:
        ValueError: A number does not fit its field.
    """
    try:
        return _HEADER.pack(*header) + body
    except struct.error as error:
        raise ValueError("file message: a number does not fit its field") from error


def decode_frame(data: bytes) -> tuple[FileHeader, bytes]:
    """Return header and body.

    Raises:
        MalformedError: Too short, an unknown operation or flag, impossible chunk numbers.
    """
    if len(data) < HEADER_BYTES:
        raise MalformedError(f"file message: {len(data)} bytes, a header has {HEADER_BYTES}")
    code, flags, index, file_id, total, file_hash = _HEADER.unpack_from(data)
    operation = _OPERATIONS.get(code)
    if operation is None:
        raise MalformedError(f"file message: unknown operation {code:#04x}")
    if flags >= len(_FLAGS):
        raise MalformedError(f"file message: unknown flags {flags:#04x}")
    if total > CHUNKS_MAX or index >= max(total, 1):
        raise MalformedError("file message: impossible chunk numbers")
    header = FileHeader(operation, _FLAGS[flags], index, file_id, total, file_hash)
    return header, data[HEADER_BYTES:]


def plain_header(operation: FileOperation, flags: FileFlags, file_id: int) -> FileHeader:
    """Return the header of a message that is about no content."""
    return FileHeader(operation, flags, 0, file_id, 0, bytes(4))


def _put_text(writer: Writer, text: str) -> Writer:
    return writer.block16(text.encode())


def _text(reader: Reader) -> str:
    raw = reader.block16(PATH_MAX_BYTES)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedError("file message: text is not UTF-8") from None


def encode_write(request: WriteRequest, *, update: bool) -> bytes:
    """Return the body of CREATE or UPDATE."""
    facts = request.facts
    writer = Writer().u64(facts.size).u8(CHUNK_LOG2).u8(request.compressible)
    writer.u16(request.mode).put(facts.sha256)
    if update:
        writer.put(request.if_match)
    return _put_text(writer, request.path).finish()


def decode_write(body: bytes, *, update: bool) -> WriteRequest:
    """Parse the body of CREATE or UPDATE.

    Raises:
        MalformedError: Not such a body, or another chunk size than the file's.
        LimitExceededError: Larger than 1 GiB.
        UnauthorizedError: A path that may not be.
    """
    reader = Reader(body, "CREATE or UPDATE")
    size, chunk_log2, compressible, mode = reader.u64(), reader.u8(), reader.u8(), reader.u16()
    facts = FileFacts(size, reader.take(SHA256_BYTES))
    if_match = reader.take(SHA256_BYTES) if update else ANY_CONTENT
    path = _text(reader)
    reader.finish()
    if chunk_log2 != CHUNK_LOG2 or compressible > 1 or mode & ~MODE_BITS:
        raise MalformedError("CREATE or UPDATE: impossible chunk size, compression or mode")
    return WriteRequest(facts, bool(compressible), mode, if_match, check_path(path))


def encode_read(request: ReadRequest) -> bytes:
    """Return the body of READ."""
    writer = Writer().u64(request.offset).u64(request.length).put(request.if_match)
    return _put_text(writer, request.path).finish()


def decode_read(body: bytes) -> ReadRequest:
    """Parse the body of READ.

    Raises:
        MalformedError: Not such a body.
        UnauthorizedError: A path that may not be.
    """
    reader = Reader(body, "READ")
    offset, length, if_match = reader.u64(), reader.u64(), reader.take(SHA256_BYTES)
    path = _text(reader)
    reader.finish()
    return ReadRequest(check_path(path), offset, length, if_match)


def encode_path(request: PathRequest) -> bytes:
    """Return the body of STAT or DELETE."""
    return _put_text(Writer().put(request.if_match), request.path).finish()


def decode_path(body: bytes, *, folder: bool) -> PathRequest:
    """Parse the body of STAT or DELETE.

    Raises:
        MalformedError: Not such a body.
        UnauthorizedError: A path that may not be.
    """
    reader = Reader(body, "STAT or DELETE")
    if_match, path = reader.take(SHA256_BYTES), _text(reader)
    reader.finish()
    return PathRequest(check_path(path, folder=folder), if_match)


def encode_list(request: ListRequest) -> bytes:
    """Return the body of LIST."""
    writer = _put_text(Writer().u16(request.limit), request.path)
    return _put_text(writer, request.cursor).finish()


def decode_list(body: bytes) -> ListRequest:
    """Parse the body of LIST.

    Raises:
        MalformedError: Not such a body.
        LimitExceededError: More than 256 names asked for.
        UnauthorizedError: A path that may not be.
    """
    reader = Reader(body, "LIST")
    limit, path, cursor = reader.u16(), _text(reader), _text(reader)
    reader.finish()
    if not 0 < limit <= LIST_MAX:
        raise LimitExceededError(f"LIST: {limit} names asked for, limit {LIST_MAX}")
    return ListRequest(check_path(path, folder=True), cursor, limit)


def encode_ranges(ranges: tuple[ChunkRange, ...]) -> bytes:
    """Return the missing chunks, the body of the answer to CREATE and UPDATE."""
    writer = Writer().u16(len(ranges))
    for first, last in ranges:
        writer.u16(first).u16(last)
    return writer.finish()


def decode_ranges(body: bytes, chunks: int) -> tuple[ChunkRange, ...]:
    """Parse missing chunks of a file of `chunks` chunks.

    Raises:
        MalformedError: Not ascending, touching, or outside of the file.
    """
    reader = Reader(body, "missing chunks")
    found = []
    lowest = 0
    for _ in range(reader.u16()):
        first, last = reader.u16(), reader.u16()
        if not lowest <= first <= last < chunks:
            raise MalformedError("missing chunks: out of order or outside of the file")
        lowest = last + 2
        found.append(ChunkRange(first, last))
    reader.finish()
    return tuple(found)


def encode_facts(facts: FileFacts) -> bytes:
    """Return the body of COMPLETE and of the answer to READ: sha256 32 | size 8."""
    return Writer().put(facts.sha256).u64(facts.size).finish()


def decode_facts(body: bytes) -> FileFacts:
    """Parse the body of COMPLETE or of the answer to READ.

    Raises:
        MalformedError: Not such a body.
        LimitExceededError: Larger than 1 GiB.
    """
    reader = Reader(body, "COMPLETE")
    sha256, size = reader.take(SHA256_BYTES), reader.u64()
    reader.finish()
    return FileFacts(size, sha256)


def encode_error(file_id: int, code: FileError, flags: FileFlags) -> bytes:
    """Return an ERROR message."""
    header = plain_header(FileOperation.ERROR, flags, file_id)
    return encode_frame(header, Writer().u16(code).finish())


def decode_error(body: bytes) -> FileError:
    """Parse the body of ERROR.

    Raises:
        MalformedError: Not such a body, or an unknown code.
    """
    reader = Reader(body, "ERROR")
    code = reader.u16()
    reader.finish()
    if code not in FileError.__members__.values():
        raise MalformedError(f"ERROR: unknown code {code}")
    return FileError(code)


def encode_stat(stat: FileStat) -> bytes:
    """Return the answer to STAT."""
    writer = Writer().u8(stat.is_folder).u64(stat.facts.size).put(stat.facts.sha256)
    return writer.u16(stat.mode).u64(stat.modified_us).finish()


def decode_stat(body: bytes) -> FileStat:
    """Parse the answer to STAT.

    Raises:
        MalformedError: Not such a body.
        LimitExceededError: Larger than 1 GiB.
    """
    reader = Reader(body, "answer to STAT")
    is_folder, size, sha256 = reader.u8(), reader.u64(), reader.take(SHA256_BYTES)
    mode, modified_us = reader.u16(), reader.u64()
    reader.finish()
    if is_folder > 1 or mode & ~MODE_BITS:
        raise MalformedError("answer to STAT: impossible kind or mode")
    return FileStat(bool(is_folder), FileFacts(size, sha256), mode, modified_us)


def encode_listing(listing: Listing) -> bytes:
    """Return the answer to LIST."""
    writer = Writer().u8(listing.more).u16(len(listing.entries))
    for entry in listing.entries:
        _put_text(writer.u8(entry.is_folder).u64(entry.size), entry.name)
    return writer.finish()


def decode_listing(body: bytes) -> Listing:
    """Parse the answer to LIST.

    Raises:
        MalformedError: Not such a body, or names out of order.
        LimitExceededError: More than 256 names.
        UnauthorizedError: A name that may not be.
    """
    reader = Reader(body, "answer to LIST")
    more, count = reader.u8(), reader.u16()
    if more > 1 or count > LIST_MAX:
        raise LimitExceededError(f"answer to LIST: {count} names, limit {LIST_MAX}")
    entries: list[Entry] = []
    for _ in range(count):
        is_folder, size, name = reader.u8(), reader.u64(), check_path(_text(reader))
        if is_folder > 1 or "/" in name or (entries and name <= entries[-1].name):
            raise MalformedError("answer to LIST: impossible kind or names out of order")
        entries.append(Entry(name, bool(is_folder), size))
    reader.finish()
    return Listing(tuple(entries), bool(more))

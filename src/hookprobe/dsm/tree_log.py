"""The history of a chain as a transparency log in the formats of C2SP.

Leaf e of the tree is the header hash of epoch e, so the tree of size e is the one whose root stands
in the header of epoch e. There is one index space: (epoch, index), the epoch being the leaf of this
tree and the index that of a block in the tree of its epoch.

| document | what |
|---|---|
| checkpoint | a signed note over the tree head (`dsm.notes`) |
| tile/L/N, tile/L/N.p/W | up to 256 hashes of complete subtrees of 2^(8L) leaves |
| tile/entries/N, .../N.p/W | up to 256 leaves, each behind its length u16 |
| .tlog-proof | that a header, and through `extra` a block, is in a checkpoint |

A witness cosigns only what extends what it saw before. With its cosignature on a checkpoint even
more than f validators together cannot show two histories to two readers who trust that witness.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hookprobe.crypto import merkle
from hookprobe.crypto.growing_tree import GrowingTree
from hookprobe.crypto.merkle import PROOF_HASHES_MAX, Proof
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.dsm.checkpoint import Header, header_hash, parse_header
from hookprobe.dsm.history import History
from hookprobe.dsm.notes import (
    LOG_KEY,
    WITNESS_KEYS,
    Note,
    NoteKey,
    NoteSignature,
    TreeHead,
    check_note,
    origin_of,
    parse_decimal,
    parse_head,
    parse_note,
    sign_note,
    unbase64,
)
from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.errors import LimitExceededError, LocalError, MalformedError, VerificationError
from hookprobe.wire import canonical
from hookprobe.wire.canonical import Json
from hookprobe.wire.fields import Fields

TILE_WIDTH = 256
COSIGNATURE_PREFIX = b"cosignature/"
NOTE_ROW = b"log/note"  # in Table.META: the last checkpoint that this validator signed
WITNESSES_MAX = 64
PROOF_MAX_BYTES = 512 << 10
_TILE_PATH = re.compile(
    r"tile/(?P<kind>entries|[0-9]{1,2})/(?P<groups>(x[0-9]{3}/){0,5})(?P<last>[0-9]{3})"
    r"(\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_PROOF_TITLE = "c2sp.org/tlog-proof@v1"


class TreeLog:
    """Serves the history of one validator as a log.

    Args:
        history: The agreed past.
        reader: The store.
        witnesses: Whose cosignatures are accepted.
        scheme: Checks them.
    """

    def __init__(
        self,
        history: History,
        reader: StoreReader,
        witnesses: Sequence[NoteKey],
        scheme: SignatureScheme,
    ) -> None:
        if len(witnesses) > WITNESSES_MAX or any(key.kind not in WITNESS_KEYS for key in witnesses):
            raise LocalError(f"log: at most {WITNESSES_MAX} witness keys, all of type 4 or 6")
        self._history = history
        self._reader = reader
        self._witnesses = tuple(witnesses)
        self._scheme = scheme
        self._tree = GrowingTree()

    @property
    def origin(self) -> str:
        return origin_of(self._history.court.chain)

    def tree(self) -> GrowingTree:
        """Return the tree over all final headers that are durable."""
        while (sealed := self._history.sealed(self._tree.size)) is not None:
            self._tree.append(sealed.hash)
        return self._tree

    def head(self, size: int | None = None) -> TreeHead:
        """Return the tree head at a size, by default the latest."""
        tree = self.tree()
        wanted = tree.size if size is None else size
        return TreeHead(self.origin, wanted, tree.root(wanted))

    def checkpoint(self, signer: Signer, size: int | None = None) -> Note:
        """Return the tree head signed by a validator, with the cosignatures held for it."""
        head = self.head(size)
        key = NoteKey(self.origin, LOG_KEY, signer.public_key)
        note = sign_note(head.text(), key, signer)
        return Note(note.text, (*note.signatures, *self._cosignatures(head.size)))

    def _cosignatures(self, size: int) -> list[NoteSignature]:
        prefix = COSIGNATURE_PREFIX + size.to_bytes(8, "big")
        rows = self._reader.scan(Table.META, prefix, prefix_end(prefix), WITNESSES_MAX)
        return [parse_note(b"-\n\n" + value).signatures[0] for _, value in rows]

    def accept(self, data: bytes) -> tuple[Write, ...]:
        """Take a checkpoint that witnesses cosigned; returns the rows that keep what they signed.

        Raises:
            VerificationError: It is not our tree at that size, or no witness that we know signed.
        """
        note = parse_note(data)
        head = parse_head(note.text)
        if head.size > self.tree().size or head != self.head(head.size):
            raise VerificationError(f"checkpoint of size {head.size}: not a tree head of this log")
        signed = check_note(note, self._witnesses, self._scheme)
        ids = {key.id(): key for key in signed}
        prefix = COSIGNATURE_PREFIX + head.size.to_bytes(8, "big")
        return tuple(
            (Table.META, prefix + line.key_id, line.encode().encode())
            for line in note.signatures
            if line.key_id in ids and line.name == ids[line.key_id].name
        )

    # -- tiles --------------------------------------------------------------------------------

    def tile(self, level: int, index: int, width: int = TILE_WIDTH) -> bytes:
        """Return a tile of hashes.

        Raises:
            LocalError: The log is not that large.
        """
        start = _tile_start(index, width)
        return b"".join(self.tree().nodes(8 * level, start, start + width))

    def entries(self, index: int, width: int = TILE_WIDTH) -> bytes:
        """Return a bundle of leaves.

        Raises:
            LocalError: The log is not that large.
        """
        start = _tile_start(index, width)
        found = [self._history.sealed(epoch) for epoch in range(start, start + width)]
        hashes = [sealed.hash for sealed in found if sealed is not None]
        if len(hashes) != width:
            raise LocalError(f"log: no entries {start} to {start + width}")
        return b"".join(len(item).to_bytes(2, "big") + item for item in hashes)

    # -- proofs -------------------------------------------------------------------------------

    def prove(self, epoch: int, size: int) -> Proof:
        """Return the proof that the header of an epoch is in the tree of a size."""
        return self.tree().prove_inclusion(epoch, size)

    def prove_consistency(self, old_size: int, size: int) -> Proof:
        """Return the proof that the tree of a size extends the one of an earlier size."""
        return self.tree().prove_consistency(old_size, size)

    def proof(self, epoch: int, note: Note, extra: bytes = b"") -> bytes:
        """Return the .tlog-proof that the header of an epoch is in a checkpoint."""
        path = self.prove(epoch, parse_head(note.text).size)
        return encode_proof(LogProof(epoch, path, note, extra))


def _tile_start(index: int, width: int) -> int:
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise LocalError(f"log: no tile {index} of width {width}")
    return index * TILE_WIDTH


def tile_path(level: int | None, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile, or of a bundle of entries (level None), in tlog-tiles."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    part = f".p/{width}" if width < TILE_WIDTH else ""
    kind = "entries" if level is None else str(level)
    return f"tile/{kind}/{'/'.join(groups)}{part}"


def parse_tile_path(text: str) -> tuple[int | None, int, int]:
    """Read what `tile_path` returned: level (None for entries), index, width.

    Raises:
        MalformedError: Not the one way to write a tile.
    """
    found = _TILE_PATH.fullmatch(text)
    if found is None:
        raise MalformedError(f"log: not the path of a tile: {text[:60]!r}")
    level = None if found["kind"] == "entries" else int(found["kind"])
    index = int(found["groups"].replace("/", "").replace("x", "") + found["last"])
    width = int(found["width"] or TILE_WIDTH)
    if tile_path(level, index, width) != text:
        raise MalformedError(f"log: not the one way to write a tile: {text[:60]!r}")
    return level, index, width


@dataclass(frozen=True, slots=True)
class LogProof:
    """A .tlog-proof: leaf `index` is in the tree of the note, by this path; `extra` is opaque."""

    index: int
    path: Proof
    note: Note
    extra: bytes = b""


def encode_proof(proof: LogProof) -> bytes:
    """Return the text of a proof."""
    lines = [_PROOF_TITLE]
    if proof.extra:
        lines.append(f"extra {b64encode(proof.extra).decode()}")
    lines += [f"index {proof.index}", *(b64encode(item).decode() for item in proof.path), "", ""]
    return "\n".join(lines).encode() + proof.note.encode()


def decode_proof(data: bytes) -> LogProof:
    """Read the text of a proof; nothing is verified.

    Raises:
        MalformedError: Not a proof.
        LimitExceededError: Too large.
    """
    if len(data) > PROOF_MAX_BYTES:
        raise LimitExceededError(f"proof of {len(data)} bytes, limit {PROOF_MAX_BYTES}")
    head, gap, rest = data.partition(b"\n\n")
    try:
        title, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("proof: not text") from error
    if not gap or title != _PROOF_TITLE:
        raise MalformedError(f"proof: {_PROOF_TITLE} and a checkpoint are wanted")
    extra = unbase64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else b""
    if not lines or not lines[0].startswith("index "):
        raise MalformedError("proof: the index is missing")
    path = tuple(unbase64(line) for line in lines[1:])
    if len(path) > PROOF_HASHES_MAX:
        raise LimitExceededError(f"proof: path of {len(path)} hashes")
    return LogProof(parse_decimal(lines[0][6:]), path, parse_note(rest), extra)


def check_proof(
    proof: LogProof, leaf: bytes, keys: Iterable[NoteKey], scheme: SignatureScheme
) -> dict[NoteKey, int]:
    """Check that a leaf is in a checkpoint that known keys signed, and return these.

    Raises:
        VerificationError: It is not, or nobody known signed.
    """
    head = parse_head(proof.note.text)
    merkle.check_inclusion(leaf, proof.index, head.size, proof.path, head.root)
    return check_note(proof.note, keys, scheme)


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block stands: (epoch, index), and what proves it up to the header of the epoch."""

    header_raw: bytes
    index: int
    path: Proof

    @property
    def header(self) -> Header:
        return parse_header(self.header_raw)

    def leaf(self) -> bytes:
        """Return the leaf of the log that the header is."""
        return header_hash(self.header_raw)

    def check(self, block_id: bytes) -> Header:
        """Check that a block stands here and return its header.

        Raises:
            VerificationError: It does not.
        """
        header = self.header
        merkle.check_inclusion(block_id, self.index, header.count, self.path, header.merkle_root)
        return header

    def encode(self) -> bytes:
        """Return the canonical JSON that goes into `extra`."""
        path: list[Json] = [item.hex() for item in self.path]
        header = canonical.decode_object(self.header_raw)
        return canonical.encode({"header": header, "index": self.index, "path": path})


def parse_place(data: bytes) -> BlockPlace:
    """Read what `BlockPlace.encode` returned.

    Raises:
        MalformedError: Not its form.
    """
    fields = Fields(canonical.decode_object(data, limit=PROOF_MAX_BYTES), "block place")
    raw = canonical.encode(fields.object("header"))
    index = fields.integer("index")
    path = tuple(
        Fields({"path": item}, "block place").hex("path", 32)
        for item in fields.array("path", limit=PROOF_HASHES_MAX)
    )
    fields.finish()
    if parse_header(raw).encode() != raw:
        raise MalformedError("block place: the header is not in its one form")
    return BlockPlace(raw, index, path)

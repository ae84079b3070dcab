"""Signed notes of C2SP: tree heads of the history, signed by validators and witnesses.

    checkpoint  origin LF size LF base64(root) LF               c2sp.org/tlog-checkpoint
    note        text LF signature lines                         c2sp.org/signed-note
    line        "— " name " " base64(key id u32 || signature) LF
    key id      SHA-256(name LF type public key)[:4], type 1 for a log, 4 or 6 for a witness
    cosignature time u64 || signature                           c2sp.org/tlog-cosignature
      type 4    Ed25519 over "cosignature/v1" LF "time " time LF text
      type 6    ML-DSA-44 over "subtree/v1" LF NUL, name, time u64, origin, 0 u64, size u64, root;
                name and origin with their length in one byte before them

The origin of a chain is hookprobe/ and its id in hex; it is also the key name of its validators'
signatures, which the key id tells apart. They are made with the Ed25519 key of the validator set.
Everything else that this key signs is a hash of 32 bytes, and a note is longer, so no note can pass
for anything else. C2SP prefers ML-DSA-44 cosignatures for new witnesses. Lines of types and keys
that we do not know are ignored.
"""

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hookprobe.crypto import lattice
from hookprobe.crypto.signing import SignatureScheme, Signer
from hookprobe.errors import LimitExceededError, MalformedError, VerificationError

NOTE_MAX_BYTES = 256 << 10  # 64 witnesses with ML-DSA-44
SIGNATURES_MAX = 256
SIZE_MAX = 2**63 - 1
LOG_KEY, WITNESS_KEY, LATTICE_WITNESS_KEY = 1, 4, 6
WITNESS_KEYS = (WITNESS_KEY, LATTICE_WITNESS_KEY)
_KEY_BYTES = {LOG_KEY: 32, WITNESS_KEY: 32, LATTICE_WITNESS_KEY: lattice.PUBLIC_KEY_BYTES}
_SUBTREE = b"subtree/v1\n\0"
_NAME_MAX_BYTES = 255
_DASH = "— "


def origin_of(chain: bytes) -> str:
    """Return the origin line of a chain's log."""
    return f"hookprobe/{chain.hex()}"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key with its name; `kind` is the signature type."""

    name: str
    kind: int
    key: bytes

    def id(self) -> bytes:
        """Return the 4 bytes that stand before its signatures."""
        stem = self.name.encode() + b"\n" + bytes((self.kind,)) + self.key
        return hashlib.sha256(stem).digest()[:4]

    def encode(self) -> str:
        """Return the vkey form: name+id+base64(type || key)."""
        material = b64encode(bytes((self.kind,)) + self.key).decode()
        return f"{self.name}+{self.id().hex()}+{material}"


def parse_key(text: str) -> NoteKey:
    """Read a vkey.

    Raises:
        MalformedError: Not one of Ed25519 or ML-DSA-44, or its id is not that of its key.
    """
    name, _, rest = text.partition("+")
    key_id, _, material = rest.partition("+")
    raw = unbase64(material)
    if not _is_name(name) or len(raw) < 2 or len(raw) - 1 != _KEY_BYTES.get(raw[0]):
        raise MalformedError(f"note key: not a verifier key of a known type: {text[:60]!r}")
    if raw[0] == LATTICE_WITNESS_KEY and len(name.encode()) > _NAME_MAX_BYTES:
        raise MalformedError(f"note key: a name of more than {_NAME_MAX_BYTES} bytes")
    found = NoteKey(name, raw[0], raw[1:])
    if found.id().hex() != key_id:
        raise MalformedError(f"note key of {name[:60]}: the id is not that of the key")
    return found


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> str:
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, its final newline included, and its signature lines."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        lines = "".join(signature.encode() for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What a checkpoint says: the first `size` header hashes of a chain have this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def sign_note(text: str, key: NoteKey, signer: Signer) -> Note:
    """Sign a text as a log."""
    return Note(text, (NoteSignature(key.name, key.id(), signer.sign(text.encode())),))


def cosign(text: str, key: NoteKey, signer: Signer, time_s: int) -> NoteSignature:
    """Sign a checkpoint as a witness that found it consistent at that time."""
    signature = signer.sign(_cosigned(text, time_s))
    return NoteSignature(key.name, key.id(), time_s.to_bytes(8, "big") + signature)


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def cosigned_subtree(name: str, head: TreeHead, time_s: int) -> bytes:
    """Return what a witness signs with ML-DSA-44 of a whole tree."""
    who, origin = name.encode(), head.origin.encode()
    about = time_s.to_bytes(8, "big") + bytes((len(origin),)) + origin
    place = bytes(8) + head.size.to_bytes(8, "big")
    return _SUBTREE + bytes((len(who),)) + who + about + place + head.root


def merge(notes: Sequence[Note]) -> Note:
    """Join the signatures of notes over one text.

    Raises:
        VerificationError: They are of different texts.
    """
    first = notes[0]
    if any(note.text != first.text for note in notes):
        raise VerificationError("notes: of different texts")
    lines = dict.fromkeys(line for note in notes for line in note.signatures)
    return Note(first.text, tuple(lines))


def parse_note(data: bytes) -> Note:
    """Read a note; signatures are not verified.

    Raises:
        MalformedError: Not a note.
        LimitExceededError: Too large, or too many signatures.
    """
    if len(data) > NOTE_MAX_BYTES:
        raise LimitExceededError(f"note of {len(data)} bytes, limit {NOTE_MAX_BYTES}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("note: not UTF-8") from error
    if any(ord(character) < 0x20 and character != "\n" for character in whole):
        raise MalformedError("note: control character")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not lines.endswith("\n") or not text:
        raise MalformedError("note: text, an empty line and signatures are wanted")
    rows = lines[:-1].split("\n")
    if len(rows) > SIGNATURES_MAX:
        raise LimitExceededError(f"note with {len(rows)} signatures, limit {SIGNATURES_MAX}")
    return Note(text + "\n", tuple(_parse_line(row) for row in rows))


def _parse_line(row: str) -> NoteSignature:
    name, _, encoded = row.removeprefix(_DASH).partition(" ")
    raw = unbase64(encoded)
    if not row.startswith(_DASH) or not _is_name(name) or len(raw) < 5:
        raise MalformedError("note: not a signature line")
    return NoteSignature(name, raw[:4], raw[4:])


def parse_head(text: str) -> TreeHead:
    """Read the text of a checkpoint; extension lines are refused.

    Raises:
        MalformedError: Not a checkpoint of ours.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedError("checkpoint: origin, size and root are wanted")
    size = parse_decimal(lines[1])
    root = unbase64(lines[2])
    if not lines[0] or len(root) != 32:
        raise MalformedError("checkpoint: origin or root is not what it must be")
    return TreeHead(lines[0], size, root)


def parse_decimal(text: str) -> int:
    """Read an ASCII decimal without leading zeroes.

    Raises:
        MalformedError: Anything else, or 2^63 or more.
    """
    if not text.isascii() or not text.isdigit() or (text[0] == "0" and text != "0"):
        raise MalformedError(f"not a decimal number: {text[:20]!r}")
    if len(text) > 19 or int(text) > SIZE_MAX:
        raise MalformedError("decimal number of 2^63 or more")
    return int(text)


def check_note(note: Note, keys: Iterable[NoteKey], scheme: SignatureScheme) -> dict[NoteKey, int]:
    """Verify the signatures of known keys; returns each that signed, witnesses with their time.

    Raises:
        VerificationError: A known key did not sign what its line says, or no known key signed.
    """
    known = {(key.name, key.id()): key for key in keys}
    signed: dict[NoteKey, int] = {}
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        time_s = int.from_bytes(line.signature[:8], "big") if key.kind in WITNESS_KEYS else 0
        if time_s > SIZE_MAX or not _holds(line, key, note.text, scheme):
            raise VerificationError(f"note: the signature of {line.name} does not hold")
        signed[key] = time_s
    if not signed:
        raise VerificationError("note: not signed by anybody that is known")
    return signed


def _holds(line: NoteSignature, key: NoteKey, text: str, scheme: SignatureScheme) -> bool:
    if key.kind == LOG_KEY:
        return scheme.verify(key.key, text.encode(), line.signature)
    time_s, signature = int.from_bytes(line.signature[:8], "big"), line.signature[8:]
    if key.kind == WITNESS_KEY:
        return scheme.verify(key.key, _cosigned(text, time_s), signature)
    head = parse_head(text)
    if len(head.origin.encode()) > _NAME_MAX_BYTES:
        return False
    return lattice.verify(key.key, cosigned_subtree(key.name, head, time_s), signature)


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(item.isspace() for item in name)


def unbase64(text: str) -> bytes:
    """Read standard base64 in its one spelling.

    Raises:
        MalformedError: Anything else.
    """
    try:
        raw = b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("note: not base64") from error
    if b64encode(raw).decode() != text:
        raise MalformedError("note: base64 with a second spelling")
    return raw

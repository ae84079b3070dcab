"""Names and numbers that must not be mixed up: distinct types, checked once at the edge.

* `NodeId`: 1 to 32 characters of `a-z 0-9 . -`, starting with a letter or digit. Readable by
  people, and it fits the 32-byte field of HTP (zero-padded there).
* `TenantId`: the same form.
* `BlockId`: 64 lower-case hex digits, the SHA-256 id of a microblock.
* `ChainId`: 64 lower-case hex digits, the hash of the genesis document.
* `Epoch`: a non-negative integer below 2^53.
"""

import re
from typing import NewType

from hookprobe.errors import MalformedError

NodeId = NewType("NodeId", str)
TenantId = NewType("TenantId", str)
BlockId = NewType("BlockId", str)
ChainId = NewType("ChainId", str)
Epoch = NewType("Epoch", int)

NODE_ID_BYTES = 32
ZERO_ID = "0" * 64
INTEGER_MAX = 2**53 - 1  # the largest integer that RFC 8785 JSON carries exactly

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_node_id(text: object) -> NodeId:
    """Check a node name."""
    return NodeId(_name(text, "node id"))


def parse_tenant_id(text: object) -> TenantId:
    """Check a tenant name."""
    return TenantId(_name(text, "tenant id"))


def _name(text: object, what: str) -> str:
    if not isinstance(text, str) or _NAME.fullmatch(text) is None:
        raise MalformedError(
            f"not a {what}: {str(text)[:40]!r}",
            hint="use 1 to 32 characters of a-z, 0-9, '.', '-', starting with a letter or digit",
        )
    return text


def parse_block_id(text: object) -> BlockId:
    """Check the hex form of a microblock's id."""
    return BlockId(_hex64(text, "block id"))


def parse_chain_id(text: object) -> ChainId:
    """Check the hex form of a genesis document's hash."""
    return ChainId(_hex64(text, "chain id"))


def _hex64(text: object, what: str) -> str:
    if not isinstance(text, str) or _HEX64.fullmatch(text) is None:
        raise MalformedError(f"not a {what} (64 lower-case hex digits): {str(text)[:80]!r}")
    return text


def parse_epoch(value: object) -> Epoch:
    """Check an epoch number."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INTEGER_MAX:
        raise MalformedError(f"not an epoch number: {str(value)[:40]!r}")
    return Epoch(value)


def pack_node_id(node: NodeId) -> bytes:
    """Return the 32-byte field of a node id, padded with zero bytes."""
    return node.encode("ascii").ljust(NODE_ID_BYTES, b"\0")


def unpack_node_id(field: bytes) -> NodeId:
    """Read a 32-byte field; the one inverse of `pack_node_id`.

    Raises:
        MalformedError: Wrong length, padding inside the name, or not a node id.
    """
    if len(field) != NODE_ID_BYTES:
        raise MalformedError(f"node id field of {len(field)} bytes, want {NODE_ID_BYTES}")
    try:
        text = field.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("node id field is not ASCII") from error
    return parse_node_id(text)

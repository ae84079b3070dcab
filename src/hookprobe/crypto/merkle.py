"""RFC 6962 Merkle trees: roots, inclusion, consistency and contiguous-range proofs.

Formulas (RFC 6962 section 2.1), for leaf data d and k the largest power of two below n:

    leaf:  SHA-256(0x00 || d)
    node:  SHA-256(0x01 || left || right)
    root:  MTH({}) = SHA-256(""),  MTH(D[n]) = node(MTH(D[0:k]), MTH(D[k:n]))

An odd node is never duplicated (CVE-2012-2459 class). Leaves are given as their data. Proofs are
tuples of 32-byte hashes. `prove_*` raises `LocalError` on a range outside the tree (our caller's
bug); `check_*` returns nothing and raises `VerificationError` unless the proof is exactly right.
"""

import hashlib
from collections.abc import Iterator, Sequence

from hookprobe.errors import LocalError, MalformedError, VerificationError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
PROOF_HASHES_MAX = 128  # two sides of at most 64 levels

Proof = tuple[bytes, ...]

_LEAF = hashlib.sha256(b"\0")
_NODE = hashlib.sha256(b"\1")


def leaf_hash(data: bytes) -> bytes:
    """Return SHA-256(0x00 || data)."""
    state = _LEAF.copy()
    state.update(data)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    state = _NODE.copy()
    state.update(left + right)
    return state.digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf data; `EMPTY_ROOT` for no leaves.

    Pairing neighbours level by level and promoting a lone last node unchanged gives the same tree
    as the recursive definition, without its slices.
    """
    if not leaves:
        return EMPTY_ROOT
    copy_leaf = _LEAF.copy
    level: list[bytes] = []
    for data in leaves:
        state = copy_leaf()
        state.update(data)
        level.append(state.digest())
    return _root_of_hashes(level)


def _root_of_hashes(level: list[bytes]) -> bytes:
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def _parents(level: list[bytes]) -> list[bytes]:
    copy_node = _NODE.copy
    parents: list[bytes] = []
    for left, right in zip(level[::2], level[1::2], strict=False):
        state = copy_node()
        state.update(left + right)
        parents.append(state.digest())
    if len(level) % 2:
        parents.append(level[-1])
    return parents


def prove_inclusion(leaves: Sequence[bytes], index: int) -> Proof:
    """Return PATH(index, D[n]) (RFC 6962 section 2.1.1), lowest sibling first."""
    if not 0 <= index < len(leaves):
        raise LocalError(f"inclusion proof: no leaf {index} in a tree of {len(leaves)}")
    level = [leaf_hash(data) for data in leaves]
    proof: list[bytes] = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return tuple(proof)


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes
) -> None:
    """Check that `leaf` stands at `index` of the tree of `size` leaves with `expected_root`.

    Raises:
        VerificationError: The proof does not show it.
    """
    if not 0 <= index < size:
        raise VerificationError(f"inclusion proof: no leaf {index} in a tree of {size}")
    _check_form(proof)
    siblings = iter(proof)
    current = leaf_hash(leaf)
    last = size - 1
    while last:
        if index & 1:
            current = node_hash(_next(siblings), current)
        elif index != last:
            current = node_hash(current, _next(siblings))
        index >>= 1
        last >>= 1
    _finish(siblings, current, expected_root, "inclusion proof")


def prove_consistency(leaves: Sequence[bytes], old_size: int) -> Proof:
    """Return PROOF(old_size, D[n]) (RFC 6962 section 2.1.2); empty for old size n."""
    size = len(leaves)
    if not 0 < old_size <= size:
        raise LocalError(f"consistency proof: old size {old_size} in a tree of {size}")
    if old_size == size:
        return ()
    hashes = [leaf_hash(data) for data in leaves]
    return tuple(_subproof(hashes, old_size, whole=True))


def _subproof(hashes: list[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    # SUBPROOF(m, D[n], b) of RFC 6962: b (`whole`) says that the old tree is known by its root.
    size = len(hashes)
    if old_size == size:
        return [] if whole else [_root_of_hashes(hashes)]
    split = _split(size)
    if old_size <= split:
        inner = _subproof(hashes[:split], old_size, whole=whole)
        return [*inner, _root_of_hashes(hashes[split:])]
    inner = _subproof(hashes[split:], old_size - split, whole=False)
    return [*inner, _root_of_hashes(hashes[:split])]


def _split(size: int) -> int:
    """Return the largest power of two below `size` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def check_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `new_size` extends the tree of `old_size` (RFC 9162, 2.1.4.2).

    Every tree extends the empty one, so an old size of 0 would show nothing and is refused.

    Raises:
        VerificationError: The proof does not show it.
    """
    if not 0 < old_size <= new_size:
        raise VerificationError(f"consistency proof: sizes {old_size} and {new_size}")
    _check_form(proof)
    if old_size == new_size:
        if proof or old_root != new_root:
            raise VerificationError("consistency proof: equal sizes, other roots")
        return
    hashes = iter(proof)
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old = new = _next(hashes) if node else old_root
    while last:
        if node & 1:
            sibling = _next(hashes)
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        elif node < last:
            new = node_hash(new, _next(hashes))
        node >>= 1
        last >>= 1
    if old != old_root:
        raise VerificationError("consistency proof: it leads to another old root")
    _finish(hashes, new, new_root, "consistency proof")


def prove_range(leaves: Sequence[bytes], start: int, stop: int) -> Proof:
    """Return the siblings that, with leaves[start:stop], give the root.

    Order: level by level from the leaves up, the left sibling before the right one.
    """
    size = len(leaves)
    if not 0 <= start < stop <= size:
        raise LocalError(f"range proof: [{start}, {stop}) in a tree of {size}")
    level = [leaf_hash(data) for data in leaves]
    proof: list[bytes] = []
    first, last = start, stop - 1
    while len(level) > 1:
        if first & 1:
            proof.append(level[first - 1])
        if not last & 1 and last + 1 < len(level):
            proof.append(level[last + 1])
        level = _parents(level)
        first >>= 1
        last >>= 1
    return tuple(proof)


def check_range(
    range_leaves: Sequence[bytes],
    start: int,
    size: int,
    proof: Sequence[bytes],
    expected_root: bytes,
) -> None:
    """Check that `range_leaves` are the leaves from `start` on of a tree of `size` leaves.

    Raises:
        VerificationError: The proof does not show it.
    """
    stop = start + len(range_leaves)
    if not 0 <= start < stop <= size:
        raise VerificationError(f"range proof: [{start}, {stop}) in a tree of {size}")
    _check_form(proof)
    siblings = iter(proof)
    level = [leaf_hash(data) for data in range_leaves]
    first, width = start, size
    while width > 1:
        last = first + len(level) - 1
        if first & 1:
            level.insert(0, _next(siblings))
        if not last & 1 and last + 1 < width:
            level.append(_next(siblings))
        level = _parents(level)
        first >>= 1
        width = (width + 1) >> 1
    _finish(siblings, level[0], expected_root, "range proof")


def _check_form(proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX or any(len(item) != HASH_BYTES for item in proof):
        raise VerificationError("proof: hashes of 32 bytes are wanted, 128 at most")


def _next(hashes: Iterator[bytes]) -> bytes:
    found = next(hashes, None)
    if found is None:
        raise VerificationError("proof: too short")
    return found


def _finish(rest: Iterator[bytes], found: bytes, wanted: bytes, what: str) -> None:
    if next(rest, None) is not None:
        raise VerificationError(f"{what}: hashes left over")
    if found != wanted:
        raise VerificationError(f"{what}: it leads to another root")


class CompactRange:
    """The roots of the complete subtrees of a growing log: append and root in O(log n).

    `nodes` holds one hash per set bit of `size`, largest subtree first.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        if len(nodes) != size.bit_count() or any(len(node) != HASH_BYTES for node in nodes):
            raise MalformedError(f"compact range: {len(nodes)} hashes for {size} leaves")
        self._size = size
        self._nodes = list(nodes)

    @property
    def size(self) -> int:
        return self._size

    @property
    def nodes(self) -> Proof:
        return tuple(self._nodes)

    def copy(self) -> "CompactRange":
        return CompactRange(self._size, self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf; each trailing one bit of the old size merges two equal subtrees."""
        node = leaf_hash(leaf)
        size = self._size
        while size & 1:
            node = node_hash(self._nodes.pop(), node)
            size >>= 1
        self._nodes.append(node)
        self._size += 1

    def root(self) -> bytes:
        if not self._nodes:
            return EMPTY_ROOT
        current = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            current = node_hash(node, current)
        return current

    def encode(self) -> bytes:
        """Return size (u64) and the hashes."""
        return self._size.to_bytes(8, "big") + b"".join(self._nodes)

    @classmethod
    def decode(cls, data: bytes) -> "CompactRange":
        """Read what `encode` wrote.

        Raises:
            MalformedError: Another number of hashes than the size wants.
        """
        size = int.from_bytes(data[:8], "big")
        if len(data) != 8 + HASH_BYTES * size.bit_count():
            raise MalformedError(f"compact range: {len(data)} bytes for {size} leaves")
        return cls(size, [data[at : at + HASH_BYTES] for at in range(8, len(data), HASH_BYTES)])

"""An RFC 6962 tree that only grows: append O(1) amortised, any root or proof O(log n).

All complete subtrees are kept, level by level, so a proof in a tree of any earlier size needs no
leaf to be hashed again, and the tiles of C2SP tlog-tiles are slices of every eighth level. Same
trees and proofs as `crypto.merkle`; 64 bytes a leaf.
"""

from collections.abc import Iterable

from hookprobe.crypto.merkle import EMPTY_ROOT, Proof, leaf_hash, node_hash
from hookprobe.errors import LocalError


class GrowingTree:
    """A tree over leaf data appended so far."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf and whatever subtrees it completes."""
        node, level = leaf_hash(leaf), 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row.append(node)
            if len(row) % 2:
                return
            node, level = node_hash(row[-2], row[-1]), level + 1

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the tree as it was at a size, by default now."""
        wanted = self._checked(self.size if size is None else size)
        return self._range(0, wanted) if wanted else EMPTY_ROOT

    def nodes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Return hashes of complete subtrees of 2^level leaves.

        Raises:
            LocalError: They are not complete.
        """
        row = self._levels[level] if level < len(self._levels) else []
        if not 0 <= start < stop <= len(row):
            raise LocalError(f"tree: no nodes {start} to {stop} at level {level}")
        return row[start:stop]

    def prove_inclusion(self, index: int, size: int) -> Proof:
        """Return PATH(index, D[size]) (RFC 6962 section 2.1.1), lowest sibling first."""
        if not 0 <= index < self._checked(size):
            raise LocalError(f"inclusion proof: no leaf {index} in a tree of {size}")
        return tuple(self._path(index, 0, size))

    def _path(self, index: int, start: int, stop: int) -> list[bytes]:
        if stop - start == 1:
            return []
        middle = start + _split(stop - start)
        if index < middle:
            return [*self._path(index, start, middle), self._range(middle, stop)]
        return [*self._path(index, middle, stop), self._range(start, middle)]

    def prove_consistency(self, old_size: int, size: int) -> Proof:
        """Return PROOF(old_size, D[size]) (RFC 6962 section 2.1.2)."""
        if not 0 < old_size <= self._checked(size):
            raise LocalError(f"consistency proof: old size {old_size} in a tree of {size}")
        return tuple(self._subproof(old_size, 0, size, whole=True))

    def _subproof(self, old: int, start: int, stop: int, *, whole: bool) -> list[bytes]:
        if old == stop - start:
            return [] if whole else [self._range(start, stop)]
        split = _split(stop - start)
        middle = start + split
        if old <= split:
            return [*self._subproof(old, start, middle, whole=whole), self._range(middle, stop)]
        inner = self._subproof(old - split, middle, stop, whole=False)
        return [*inner, self._range(start, middle)]

    def _range(self, start: int, stop: int) -> bytes:
        """Return the hash of the leaves start..stop-1; the start is a multiple of their span."""
        size = stop - start
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(size)
        return node_hash(self._range(start, middle), self._range(middle, stop))

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise LocalError(f"tree of {self.size} leaves was never of size {size}")
        return size


def _split(size: int) -> int:
    """Return the largest power of two below `size` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)

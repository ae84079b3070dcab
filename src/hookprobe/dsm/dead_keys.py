"""Which Ed25519 keys nobody may use any more (DSM spec 2.6): a revoked key has no other name.

A chain's first block says whose key signs it. The book remembers, from final checkpoints only,
which nodes used which key. When a node is revoked or convicted,

* every key that it used is dead for ever, and so is the key that its evidence proves;
* every node that used a dead key, before or after, is revoked with it, and so on.

So a key that was stolen, or that signed two things, does not come back under another name: no
application with it is heard, and of a chain that begins with it nothing counts from the checkpoint
on that follows. All of it is a function of final checkpoints, in their order, so all validators of
one chain hold the same book. Chains whose genesis document is of version 1 keep none: their
validators agreed on names only, and must go on agreeing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hookprobe.dsm.store import StoreReader, Table, Write, prefix_end
from hookprobe.wire.identifiers import NodeId

OWNERS_PREFIX = b"key/"
DEAD_PREFIX = b"dead key/"
ROWS_MAX = 1_000_000
_BETWEEN = b"\n"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A node's key as a final checkpoint shows it.

    Args:
        node: Whose.
        key: Ed25519, 32 bytes.
        convicted: Evidence in the checkpoint proves that this key contradicted itself.
    """

    node: NodeId
    key: bytes
    convicted: bool = False


class KeyBook:
    """Who used which key, and which are dead.

    Args:
        founders: What the genesis document says of its validators.
        reader: The store as it was left.
    """

    def __init__(self, founders: Iterable[KeyUse], reader: StoreReader) -> None:
        self.dead: dict[bytes, int] = {}  # key -> epoch that decided it
        self._owners: dict[bytes, tuple[NodeId, ...]] = {}
        self._keys: dict[NodeId, tuple[bytes, ...]] = {}
        for use in founders:
            self._add(use.node, use.key)
        for key, value in _rows(reader, OWNERS_PREFIX):
            for name in value.split(_BETWEEN):
                self._add(NodeId(name.decode()), key)
        for key, value in _rows(reader, DEAD_PREFIX):
            self.dead[key] = int.from_bytes(value, "big")

    def _add(self, node: NodeId, key: bytes) -> bool:
        owners = self._owners.get(key, ())
        if node in owners:
            return False
        self._owners[key] = tuple(sorted((*owners, node)))
        self._keys[node] = (*self._keys.get(node, ()), key)
        return True

    def learn(self, uses: Sequence[KeyUse], epoch: int) -> tuple[list[Write], list[NodeId]]:
        """Take the keys of an epoch, in the order of its checkpoint.

        Returns:
            The rows that keep what changed, and the nodes that are revoked by it.
        """
        writes: list[Write] = []
        guilty: list[NodeId] = []
        for use in uses:
            if self._add(use.node, use.key):
                owners = _BETWEEN.join(name.encode() for name in self._owners[use.key])
                writes.append((Table.META, OWNERS_PREFIX + use.key, owners))
            if use.key in self.dead or use.convicted:
                guilty.append(use.node)
        more, revoked = self.bury(guilty, epoch)
        return writes + more, revoked

    def bury(self, nodes: Iterable[NodeId], epoch: int) -> tuple[list[Write], list[NodeId]]:
        """Let the keys of nodes die, and all that hangs on them.

        Returns:
            The rows that keep it, and these nodes with all that fall with them, sorted.
        """
        writes: list[Write] = []
        found = dict.fromkeys(nodes, True)
        waiting = list(found)
        while waiting:
            for key in self._keys.get(waiting.pop(), ()):
                if key in self.dead:
                    continue  # whoever used it fell with it
                self.dead[key] = epoch
                writes.append((Table.META, DEAD_PREFIX + key, epoch.to_bytes(8, "big")))
                fresh = [owner for owner in self._owners[key] if owner not in found]
                found |= dict.fromkeys(fresh, True)
                waiting += fresh
        return writes, sorted(found)


def _rows(reader: StoreReader, prefix: bytes) -> list[tuple[bytes, bytes]]:
    rows = reader.scan(Table.META, prefix, prefix_end(prefix), ROWS_MAX)
    return [(key[len(prefix) :], value) for key, value in rows]

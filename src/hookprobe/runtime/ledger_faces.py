"""The ledger under the names of the public documents; each is a thin face over the room's own."""

from collections.abc import Sequence

from hookprobe.crypto import merkle
from hookprobe.dsm.certificate import quorum
from hookprobe.errors import LocalError, VerificationError
from hookprobe.wire.identifiers import parse_block_id


def bft_quorum_required(total_validators: int) -> int:
    """Return how many of so many validators must agree: n - (n-1)//3.

    Raises:
        LocalError: No validators.
    """
    if total_validators < 1:
        raise LocalError(f"a quorum of {total_validators} validators")
    return quorum(total_validators)


class MerkleTree:
    """The RFC 6962 tree over block ids, in the order given.

    Args:
        block_ids: 64 hex digits each.
    """

    def __init__(self, block_ids: Sequence[str]) -> None:
        self._leaves = [bytes.fromhex(parse_block_id(item)) for item in block_ids]

    def root(self) -> str:
        """Return the root, 64 hex digits; of no blocks it is SHA-256 of nothing."""
        return merkle.root(self._leaves).hex()

    def prove(self, index: int) -> list[str]:
        """Return the path from a block to the root, lowest sibling first.

        Raises:
            LocalError: No such block.
        """
        return [item.hex() for item in merkle.prove_inclusion(self._leaves, index)]

    def verify(self, block_id: str, index: int, path: Sequence[str]) -> bool:
        """Say whether a path shows that a block stands at this index."""
        proof = [bytes.fromhex(parse_block_id(item)) for item in path]
        leaf = bytes.fromhex(parse_block_id(block_id))
        expected = merkle.root(self._leaves)
        try:
            merkle.check_inclusion(leaf, index, len(self._leaves), proof, expected)
        except VerificationError:
            return False
        return True

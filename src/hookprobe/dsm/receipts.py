"""Receipts: one range proof per chain and epoch shows that a checkpoint holds all its blocks.

The blocks of one chain are neighbours in the epoch tree, so a proof of at most 2 log2(N) hashes is
a receipt for all of them (DSM spec 2.9). Validators push it to the edge when the epoch is final;
the edge keeps it as long as it wishes to prove anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hookprobe.crypto import merkle
from hookprobe.dsm.backlog import Backlog
from hookprobe.dsm.checkpoint import FinalCheckpoint, Header, Range, parse_header
from hookprobe.dsm.effects import Effect, Send
from hookprobe.dsm.frames import read_receipt, write_receipt
from hookprobe.dsm.history import History
from hookprobe.dsm.messages import GetReceipts, Receipt
from hookprobe.dsm.microblock import LaneKey, lane_row
from hookprobe.dsm.peers import Peer, PeerBook
from hookprobe.dsm.roll import Roll
from hookprobe.dsm.store import StoreReader, Table, prefix_end
from hookprobe.dsm.tree_log import BlockPlace
from hookprobe.errors import LocalError, VerificationError
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.reader import Reader, Writer

BLOCK_ID_BYTES = 32
RECEIPTS_PER_REQUEST_MAX = 16
TREES_CACHED_MAX = 4


@dataclass(frozen=True, slots=True)
class EpochTree:
    """The epoch tree with all its levels: built once, then a proof costs O(log n)."""

    ranges: tuple[Range, ...]
    levels: tuple[tuple[bytes, ...], ...]

    def prove(self, covered: Range) -> tuple[int, merkle.Proof]:
        """Return the index of a range's first leaf and its range proof.

        Raises:
            LocalError: The range is not one of this epoch.
        """
        start = 0
        for item in self.ranges:
            if item == covered:
                return start, self._siblings(start, start + item.count - 1)
            start += item.count
        raise LocalError("receipt: the range is not in this epoch")

    def prove_leaf(self, index: int) -> merkle.Proof:
        """Return the inclusion proof of one leaf.

        Raises:
            LocalError: There is none.
        """
        if not 0 <= index < len(self.levels[0]):
            raise LocalError(f"receipt: no block {index} in an epoch of {len(self.levels[0])}")
        return self._siblings(index, index)

    def _siblings(self, first: int, last: int) -> merkle.Proof:
        # The order is that of merkle.prove_range: level by level, left before right.
        proof: list[bytes] = []
        for level in self.levels[:-1]:
            if first & 1:
                proof.append(level[first - 1])
            if not last & 1 and last + 1 < len(level):
                proof.append(level[last + 1])
            first >>= 1
            last >>= 1
        return tuple(proof)


def build_tree(ranges: Sequence[Range], block_ids: Sequence[bytes]) -> EpochTree:
    """Build the tree of an epoch (RFC 6962 section 2.1) over its block ids."""
    level = [merkle.leaf_hash(block_id) for block_id in block_ids]
    levels = [tuple(level)]
    while len(level) > 1:
        parents = [
            merkle.node_hash(left, right)
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        level = parents + level[-1:] if len(level) % 2 else parents
        levels.append(tuple(level))
    return EpochTree(tuple(ranges), tuple(levels))


def make_receipt(final: FinalCheckpoint, tree: EpochTree, covered: Range) -> Receipt:
    """Return the receipt for one range of a final epoch."""
    start, proof = tree.prove(covered)
    return Receipt(final.checkpoint.raw, final.certificate, covered, start, proof)


def check_receipt(receipt: Receipt, block_ids: Sequence[bytes], roll: Roll) -> Header:
    """Check that a certified checkpoint holds these blocks and return its header.

    Args:
        receipt: What was received.
        block_ids: The ids of the blocks first..last of the range, in order.
        roll: The validator sets that are known.

    Raises:
        VerificationError: Another chain or range, no certificate, or the proof does not hold.
    """
    header = parse_header(receipt.header_raw)
    if len(block_ids) != receipt.range.count or block_ids[-1] != receipt.range.head:
        raise VerificationError("receipt: it is not about these blocks")
    merkle.check_range(block_ids, receipt.start, header.count, receipt.proof, header.merkle_root)
    return roll.check(receipt.header_raw, receipt.certificate)


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the stored form of a receipt."""
    writer = Writer()
    write_receipt(writer, receipt)
    return writer.finish()


def decode_receipt(data: bytes) -> Receipt:
    """Read what `encode_receipt` returned."""
    reader = Reader(data, "receipt")
    receipt = read_receipt(reader)
    reader.finish()
    return receipt


class ReceiptDesk:
    """Hands receipts to edges: when an epoch becomes final, and when they ask.

    Args:
        history: The final checkpoints.
        peers: The connected peers.
        backlog: Whose signatures are not checked yet.
        reader: The blocks of final epochs.
    """

    def __init__(
        self, history: History, peers: PeerBook, backlog: Backlog, reader: StoreReader
    ) -> None:
        self._history = history
        self._peers = peers
        self._backlog = backlog
        self._reader = reader
        self._trees: dict[int, EpochTree] = {}

    def push(self, final: FinalCheckpoint, block_ids: Sequence[bytes]) -> list[Effect]:
        """Send every connected edge the receipt of each of its chains in this epoch."""
        ranges = final.checkpoint.content.ranges
        served = [item for item in ranges if self._is_edge(item.node_id)]
        if not served:
            return []
        tree = self._keep(final.checkpoint.header.epoch, build_tree(ranges, block_ids))
        return [Send(item.node_id, make_receipt(final, tree, item)) for item in served]

    def _is_edge(self, node_id: NodeId) -> bool:
        peer = self._peers.peers.get(node_id)
        return peer is not None and peer.place is None

    def _keep(self, epoch: int, tree: EpochTree) -> EpochTree:
        if len(self._trees) >= TREES_CACHED_MAX:
            del self._trees[min(self._trees)]
        self._trees[epoch] = tree
        return tree

    def receive_get(self, peer: Peer, message: GetReceipts) -> list[Effect]:
        """Answer an edge with the receipts of its own chain from a block on."""
        lane = lane_row((peer.node_id, message.inc))
        start = lane + message.first.to_bytes(8, "big")
        rows = self._reader.scan(Table.COVERAGE, start, prefix_end(lane), RECEIPTS_PER_REQUEST_MAX)
        effects: list[Effect] = []
        for _, value in rows:
            receipt = self.receipt((peer.node_id, message.inc), int.from_bytes(value, "big"))
            if receipt is not None:
                effects.append(Send(peer.node_id, receipt))
        return effects

    def place(self, epoch: int, index: int) -> BlockPlace | None:
        """Return what proves the block (epoch, index); None while blocks of it are missing.

        Raises:
            LocalError: The epoch has fewer blocks.
        """
        final = self._history.checkpoint(epoch)
        tree = self._tree(final) if final is not None else None
        if final is None or tree is None:
            return None
        return BlockPlace(final.checkpoint.raw, index, tree.prove_leaf(index))

    def receipt(self, lane: LaneKey, epoch: int) -> Receipt | None:
        """Return the receipt of a chain in a final epoch; None while blocks are missing."""
        final = self._history.checkpoint(epoch)
        if final is None:
            return None
        ranges = final.checkpoint.content.ranges
        covered = next((item for item in ranges if item.lane == lane), None)
        tree = self._tree(final)
        if tree is None or covered is None:
            return None
        return make_receipt(final, tree, covered)

    def _tree(self, final: FinalCheckpoint) -> EpochTree | None:
        header, ranges = final.checkpoint.header, final.checkpoint.content.ranges
        if not self._backlog.proves(header.epoch):
            return None  # signatures are still being checked
        tree = self._trees.get(header.epoch)
        if tree is None:
            block_ids = self._stored_ids(ranges)
            if merkle.root(block_ids) != header.merkle_root:
                return None
            tree = self._keep(header.epoch, build_tree(ranges, block_ids))
        return tree

    def _stored_ids(self, ranges: Sequence[Range]) -> list[bytes]:
        block_ids: list[bytes] = []
        for item in ranges:
            lane = lane_row(item.lane)
            start = lane + item.first.to_bytes(8, "big")
            stop = lane + (item.last + 1).to_bytes(8, "big")
            rows = self._reader.scan(Table.BLOCKS, start, stop, item.count)
            block_ids += [key[-BLOCK_ID_BYTES:] for key, _ in rows]
        return block_ids

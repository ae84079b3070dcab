"""What a client of the query API checks before it believes an answer; nothing of it asks anybody.

The client pins the chain: its id, or the genesis document itself. From there:

    checkpoint   canonical header -> hash -> FINALIZE certificate by n-f keys of its epoch's set
    set          genesis document -> each change certified by the set before it
    block        canonical text -> id; in a checkpoint by its RFC 6962 path from the id to the root
    author       first block of the chain -> certificate by a CA of the genesis -> Ed25519 signature
    payload      its salted hash is the one in the signed block
    history      consistency proof between the roots in two certified headers

A server can withhold what it likes and be slow; it cannot show another history than the mesh's.
"""

from collections.abc import Sequence

from hookprobe.crypto import merkle
from hookprobe.crypto.bls import Bls
from hookprobe.crypto.signing import Ed25519
from hookprobe.dsm.certificate import QuorumCertificate
from hookprobe.dsm.checkpoint import (
    Checkpoint,
    Content,
    FinalCheckpoint,
    Header,
    header_hash,
    parse_header,
)
from hookprobe.dsm.court import Court, Schemes, convene
from hookprobe.dsm.enrolment import check_enrolment, parse_enrolment
from hookprobe.dsm.genesis import decode_genesis
from hookprobe.dsm.microblock import LaneKey, SignedBlock, verify_block
from hookprobe.dsm.roll import Roll
from hookprobe.errors import MalformedError, VerificationError
from hookprobe.runtime.ledger_answers import (
    check_same,
    read_block,
    read_change,
    read_header,
    read_proof,
    read_ranges,
    show_checkpoint,
)
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.fields import Fields


def trusted_court(genesis_raw: bytes, chain: bytes | None) -> Court:
    """Return the court of a genesis document.

    Args:
        genesis_raw: Its canonical bytes.
        chain: The chain id that it must have; None where the document itself is what is trusted.

    Raises:
        VerificationError: Another chain, or the document does not hold.
    """
    court = convene(decode_genesis(genesis_raw), Schemes(Ed25519(), Bls()))
    if chain is not None and court.chain != chain:
        raise VerificationError(
            f"genesis document of chain {court.chain.hex()[:16]}, not of the trusted one"
        )
    return court


class AnswerChecker:
    """Checks answers against one chain.

    Args:
        court: The chain's court.
    """

    def __init__(self, court: Court) -> None:
        self.court = court
        self.roll = Roll(court)
        self._keys: dict[LaneKey, bytes] = {}

    # -- checkpoints ------------------------------------------------------------------------

    def check_checkpoint(self, document: JsonObject, epoch: int | None = None) -> Header:
        """Check a checkpoint as the API shows it.

        Args:
            document: The answer.
            epoch: The epoch asked for; None for any.

        Raises:
            RemoteError: It is not a final checkpoint of this chain, or shows other fields than
                those that were certified.
        """
        fields = Fields(document, "checkpoint")
        raw, certificate = read_header(fields)
        header = self._check_header(raw, certificate, epoch)
        ranges = read_ranges(fields)
        content = Content(ranges, (), ())
        if fields.integer("ranges_hidden") == 0:
            if content.ranges_root() != header.ranges_root:
                raise VerificationError(f"checkpoint {header.epoch}: ranges are not its own")
        elif len(ranges) > header.count:
            raise VerificationError(f"checkpoint {header.epoch}: more ranges than blocks")
        author = fields.hex("signature", 64)
        checkpoint = Checkpoint(header, raw, header_hash(raw), author, content)
        shown = show_checkpoint(FinalCheckpoint(checkpoint, certificate), ranges)
        check_same(document, shown, "checkpoint")
        return header

    def _check_header(
        self, raw: bytes, certificate: QuorumCertificate, epoch: int | None
    ) -> Header:
        header = self.roll.check(raw, certificate)
        if epoch is not None and header.epoch != epoch:
            raise VerificationError(f"checkpoint of epoch {header.epoch}, not {epoch}")
        return header

    # -- validators -------------------------------------------------------------------------

    def lacks(self, document: JsonObject) -> bool:
        """Whether an answer rests on a validator set that is not known here."""
        header = parse_header(str(document.get("canonical", "")).encode())
        return header.validators_hash != self.roll.at(header.epoch).hash

    def follow(self, documents: Sequence[Json]) -> None:
        """Take changes of the validator set, oldest first.

        Raises:
            RemoteError: One is not certified by the set before it.
        """
        for document in documents:
            self.roll.accept(read_change(document))

    # -- blocks -----------------------------------------------------------------------------

    def check_inclusion(self, document: JsonObject, block_id: bytes, epoch: int) -> SignedBlock:
        """Check that a certified checkpoint of this epoch holds this very block.

        Raises:
            RemoteError: The answer does not show it.
        """
        fields = Fields(document, "inclusion proof")
        raw, certificate = read_header(fields)
        header = self._check_header(raw, certificate, epoch)
        signed, _ = read_block(fields.take("block"))
        if signed.id != block_id:
            raise VerificationError(f"inclusion proof of block {signed.id.hex()[:16]}")
        if signed.block.chain != self.court.chain:
            raise VerificationError("microblock of another chain")
        if fields.integer("epoch") != epoch:
            raise VerificationError("inclusion proof for another epoch")
        path = read_proof(fields, "path")
        merkle.check_inclusion(
            block_id, fields.integer("index"), header.count, path, header.merkle_root
        )
        fields.finish()
        return signed

    def learn(self, enrolments: Sequence[SignedBlock]) -> None:
        """Take the first blocks of a node's chains: from then on its signatures can be checked.

        Raises:
            RemoteError: One is not certified by a CA of the genesis document.
        """
        for signed in enrolments:
            enrolment = parse_enrolment(signed.block.body or {})
            if enrolment.certificate.node_id != signed.block.node_id or signed.seq != 1:
                raise VerificationError(f"enrolment of {signed.block.node_id}: of another node")
            key = check_enrolment(
                enrolment,
                self.court.chain,
                signed.block.timestamp_ms,
                self.court.ca_keys,
                self.court.signatures,
            )
            verify_block(signed, key, self.court.signatures)
            self._keys[signed.lane] = key

    def knows(self, lane: LaneKey) -> bool:
        """Whether the key of a chain was learned."""
        return lane in self._keys

    def check_block(self, document: object) -> SignedBlock:
        """Check a block's author, and its payload if that is shown; the author was learned.

        Raises:
            RemoteError: Another chain, an unknown author, or a signature or hash does not hold.
        """
        if not isinstance(document, dict):
            raise MalformedError("microblock: an object is wanted")
        signed, payload = read_block(document)
        what = f"microblock {signed.block.node_id}/{signed.block.inc}/{signed.seq}"
        if signed.block.chain != self.court.chain:
            raise VerificationError(f"{what}: of another chain")
        key = self._keys.get(signed.lane)
        if key is None:
            raise VerificationError(f"{what}: nobody vouches for its author")
        verify_block(signed, key, self.court.signatures)
        if payload is not None and payload.hash() != signed.block.payload_hash:
            raise VerificationError(f"{what}: the payload is not the one it was signed with")
        return signed

    def check_run(self, blocks: Sequence[SignedBlock], first: int) -> None:
        """Check that blocks of one node follow each other without a gap.

        Args:
            blocks: In the order of the chain, incarnation by incarnation.
            first: The number at which each incarnation must begin.

        Raises:
            VerificationError: One is missing, out of order, or follows another block.
        """
        before: SignedBlock | None = None
        for signed in blocks:
            what = f"microblock {signed.block.node_id}/{signed.block.inc}/{signed.seq}"
            if before is None or before.block.inc < signed.block.inc:
                if signed.seq != first:
                    raise VerificationError(f"{what}: blocks before it are missing")
            elif before.lane != signed.lane or before.seq + 1 != signed.seq:
                raise VerificationError(f"{what}: blocks before it are missing or out of order")
            elif signed.block.prev != before.id:
                raise VerificationError(f"{what}: it does not follow the block before it")
            before = signed

    # -- history ----------------------------------------------------------------------------

    def check_history(self, document: JsonObject, old: Header, new: Header) -> None:
        """Check that the history under one certified header continues that under an older one.

        Raises:
            RemoteError: The proof does not show it.
        """
        fields = Fields(document, "consistency proof")
        proof = read_proof(fields, "proof")
        merkle.check_consistency(
            old.history_size, new.history_size, old.history_root, new.history_root, proof
        )

"""Blocks of a final range, taken at the word of its head (DSM spec 2.8).

A certified checkpoint names the id of the last block of each range, and every block names the one
before it. So whoever holds bytes that hash to that id, and so on down, holds exactly the bytes that
a quorum has parsed and verified: nothing needs parsing again. The link is read off the fixed end of
the canonical form,

    ,"payload_hash":"<64>","prev":"<64>","seq":N,"timestamp":N,"type":"M","v":1}

which cannot stand inside a text, where quotes are escaped, nor inside `body` or `neuro`, which come
earlier. Signatures are beside the hashed bytes, so they prove nothing here and are checked later.
"""

import re
from dataclasses import dataclass

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.microblock import (
    BLOCK_MAX_BYTES,
    SIGNATURE_BYTES,
    LaneKey,
    SignedBlock,
    lane_row,
    parse_block,
)
from hookprobe.errors import MalformedError
from hookprobe.wire.reader import Reader, Writer

_TAIL = re.compile(
    rb',"payload_hash":"([0-9a-f]{64})","prev":"([0-9a-f]{64})","seq":([1-9][0-9]{0,15})'
    rb',"timestamp":[0-9]{1,16},"type":"M","v":1\}\Z'
)
_TAIL_BYTES = 300
_BODY = b'{"body":'


@dataclass(frozen=True, slots=True)
class LinkedBlock:
    """A block of a lane as bytes, with what its end says."""

    lane: LaneKey
    raw: bytes
    signature: bytes
    id: bytes
    seq: int
    prev: bytes
    payload_hash: bytes

    @property
    def has_body(self) -> bool:
        """Whether it may matter to more than its own chain: `body` is the first key there is."""
        return self.raw.startswith(_BODY)

    def parse(self) -> SignedBlock:
        """Read all of it.

        Raises:
            MalformedError: Not a block, or one of another lane.
        """
        signed = parse_block(self.raw, self.signature)
        if signed.lane != self.lane:
            raise MalformedError("linked block: of another chain")
        return signed

    def row_key(self) -> bytes:
        return lane_row(self.lane) + self.seq.to_bytes(8, "big") + self.id

    def write(self, writer: Writer) -> None:
        writer.block16(self.raw).put(self.signature)

    def encode(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()


def link(lane: LaneKey, raw: bytes, signature: bytes) -> LinkedBlock:
    """Read the end of a block.

    Raises:
        MalformedError: It is not the end of one.
    """
    found = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if found is None:
        raise MalformedError("linked block: not the end of a microblock")
    payload_hash, prev, seq = found.groups()
    return LinkedBlock(
        lane,
        raw,
        signature,
        digest(Domain.MICROBLOCK, raw),
        int(seq),
        bytes.fromhex(prev.decode()),
        bytes.fromhex(payload_hash.decode()),
    )


def read_linked(reader: Reader, lane: LaneKey) -> LinkedBlock:
    """Read what `LinkedBlock.write` wrote."""
    return link(lane, reader.block16(BLOCK_MAX_BYTES), reader.take(SIGNATURE_BYTES))

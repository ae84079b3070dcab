"""Frozen forms of the ledger: a changed hash here is another protocol.

The values were computed by this code with the keys of the seeds below; Ed25519 and BLS signatures
are deterministic. The hash of a document is also built by hand, from the specification's words.
"""

from hashlib import sha256

from hookprobe.crypto.bls import BlsSigner
from hookprobe.crypto.signing import Ed25519Signer
from hookprobe.dsm.certificate import VoteKind, vote_message
from hookprobe.dsm.checkpoint import Content, Header, Range, header_hash
from hookprobe.dsm.cut import Cut, sign_cut
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.microblock import Microblock, Payload, sign_block
from hookprobe.dsm.misbehaviour import proposal_statement
from hookprobe.dsm.validators import ValidatorEntry
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import Instant

SIGNER = Ed25519Signer(bytes(range(32)))
VOTER = BlsSigner(bytes(range(32)))
NODE = NodeId("edge-1")
CHAIN = bytes(range(32))
PAYLOAD = Payload(b"salt" * 4, b"alert")


def tagged(label: bytes, data: bytes) -> bytes:
    return sha256(b"hookprobe/" + label + b"\0" + data).digest()


def block() -> Microblock:
    return Microblock(
        *(CHAIN, NODE, 3, 2, b"p" * 32, 1_700_000_000_000, "ids_alert", PAYLOAD.hash())
    )


def test_a_microblock() -> None:
    signed = sign_block(block(), SIGNER)
    wanted = (
        b'{"chain":"' + CHAIN.hex().encode() + b'","event_type":"ids_alert","inc":3,'
        b'"node_id":"edge-1","payload_hash":"' + PAYLOAD.hash().hex().encode() + b'",'
        b'"prev":"' + (b"p" * 32).hex().encode() + b'","seq":2,"timestamp":1700000000000,'
        b'"type":"M","v":1}'
    )
    assert signed.raw == wanted
    assert signed.id == tagged(b"dsm/microblock/v1", wanted)
    assert signed.signature == SIGNER.sign(tagged(b"dsm/microblock-sig/v1", signed.id))
    assert PAYLOAD.hash() == tagged(b"dsm/payload/v1", b"salt" * 4 + b"alert")
    assert signed.id.hex() == "15b2692b0d746906622bc47de0701ef76fa301c35a24cf327faee23c4ca58afd"


def test_a_cut_and_a_proposal() -> None:
    cut = Cut(CHAIN, 7, b"h" * 32, 5, NODE, (((NODE, 3), 2),), (b"\1",))
    signed = sign_cut(cut, SIGNER)
    assert signed.id == tagged(b"dsm/cut/v1", signed.raw)
    assert signed.id.hex() == "799512858b0cff4ba3fd5869cc9698bcbe5499a77356cdce38ecc887c8b08b9d"
    statement = proposal_statement(CHAIN, 7, 2, b"d" * 32)
    parts = CHAIN + (7).to_bytes(8, "big") + (2).to_bytes(4, "big") + b"d" * 32
    assert statement == tagged(b"dsm/proposal/v1", parts)


def test_a_header_and_its_roots() -> None:
    content = Content((Range(NODE, 3, 1, 2, b"i" * 32),), (), ())
    packed = b"edge-1".ljust(32, b"\0") + (3).to_bytes(4, "big")
    packed += (1).to_bytes(8, "big") + (2).to_bytes(8, "big") + b"i" * 32
    assert content.ranges_root() == tagged(b"dsm/ranges/v1", packed)
    header = Header(
        chain=CHAIN,
        epoch=7,
        prev=b"h" * 32,
        timestamp_ms=9,
        merkle_root=b"m" * 32,
        count=2,
        ranges_root=content.ranges_root(),
        cuts_root=content.cuts_root(),
        evidence_root=content.evidence_root(),
        history_root=b"t" * 32,
        history_size=7,
        validators_hash=b"v" * 32,
        next_validators_hash=b"v" * 32,
        validator_id=NodeId("v00"),
    )
    assert header_hash(header.encode()) == tagged(b"dsm/checkpoint/v1", header.encode())
    assert (
        header_hash(header.encode()).hex()
        == "7b9d264c42476b6c09c696d297d5e23fb49e7d778d8829555e1dcb7e641876b9"
    )


def test_a_vote() -> None:
    message = vote_message(CHAIN, VoteKind.FINALIZE, 7, 2, b"d" * 32)
    assert (
        sha256(VOTER.sign(message)).hexdigest()
        == "5309f065f20b370e68190abf65ecc8ef111ed739e7b392df579879609de8c24e"
    )


def test_a_genesis_document() -> None:
    entry = ValidatorEntry(
        NodeId("v00"), SIGNER.public_key, VOTER.public_key, VOTER.prove_possession()
    )
    genesis = Genesis("mesh", Instant(10**15), 10**6, (SIGNER.public_key,), (entry,), dev=True)
    assert genesis.chain_id() == tagged(b"identity/genesis/v1", genesis.encode())
    assert (
        genesis.chain_id().hex()
        == "05e24c49218493778e437bfcd0f021083256c08e6413b4339fdb89638095c36e"
    )

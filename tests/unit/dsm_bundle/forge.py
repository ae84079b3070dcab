"""Bundles as honest nodes export them, and any other: every key of a small mesh is at hand."""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hookprobe.crypto import merkle
from hookprobe.crypto.bls import Bls, BlsSigner
from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.bundle import export_bundle
from hookprobe.dsm.certificate import QuorumCertificate, VoteKind, encode_bitmap, vote_message
from hookprobe.dsm.chain import Author, Chain, Event
from hookprobe.dsm.checkpoint import Header, Range, header_hash
from hookprobe.dsm.court import Schemes
from hookprobe.dsm.effects import Effect
from hookprobe.dsm.enrolment import NodeCertificate, issue
from hookprobe.dsm.genesis import Genesis
from hookprobe.dsm.messages import Receipt
from hookprobe.dsm.microblock import NeuroBinding, SignedBlock, decode_block
from hookprobe.dsm.receipts import build_tree, encode_receipt
from hookprobe.dsm.roll import SetChange
from hookprobe.dsm.store import MemoryStore, Persist, Table
from hookprobe.dsm.validators import ValidatorEntry, ValidatorSet
from hookprobe.wire.identifiers import NodeId
from hookprobe.wire.instant import HOUR, MILLISECOND, SECOND, Instant

START = Instant(1_700_000_000 * SECOND)
EDGE, OTHER = NodeId("edge-a"), NodeId("edge-b")
CA, FOREIGN_CA = Ed25519Signer(b"\xca" * 32), Ed25519Signer(b"\xcb" * 32)
Document = dict[str, Any]


class Remembering(Bls):
    """The production scheme; equal questions are computed once."""

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, ...], bool] = {}

    def verify_aggregate(
        self, public_keys: Sequence[bytes], message: bytes, signature: bytes
    ) -> bool:
        question = (*public_keys, message, signature)
        if question not in self._answers:
            self._answers[question] = super().verify_aggregate(public_keys, message, signature)
        return self._answers[question]

    def check_key(self, public_key: bytes, possession_proof: bytes) -> bool:
        question = (public_key, possession_proof)
        if question not in self._answers:
            self._answers[question] = super().check_key(public_key, possession_proof)
        return self._answers[question]


def edge_signer(name: str) -> Ed25519Signer:
    return Ed25519Signer(hashlib.sha256(name.encode()).digest())


@cache
def vote_signer(place: int) -> BlsSigner:
    return BlsSigner(bytes([place + 1]) * 32)


@cache
def entry(place: int) -> ValidatorEntry:
    signer = vote_signer(place)
    key = Ed25519Signer(bytes([place + 101]) * 32).public_key
    name = NodeId(f"validator-{place:02}")
    return ValidatorEntry(name, key, signer.public_key, signer.prove_possession())


@dataclass
class Mesh:
    """One mesh of `size` validators."""

    size: int = 4
    name: str = "mesh"
    genesis: Genesis = field(init=False)
    epoch: int = 0
    places: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        members = tuple(entry(place) for place in range(self.size))
        dev = self.size < 4
        self.genesis = Genesis(
            self.name, START, 10 * SECOND, (CA.public_key,), members, 50_000, dev
        )
        self.chain = self.genesis.chain_id()
        self.validators_hash = ValidatorSet(members).hash
        self.places = tuple(range(self.size))

    @property
    def quorum(self) -> int:
        return len(self.places) - (len(self.places) - 1) // 3

    def certify(
        self,
        document: Document,
        *,
        signers: Sequence[int] | None = None,
        kind: VoteKind = VoteKind.FINALIZE,
        **claims: Any,
    ) -> Document:
        """Return a certificate; `claims` say what was voted on if not this header."""
        chosen = tuple(range(self.quorum)) if signers is None else signers
        said = {"chain": self.chain, "epoch": document["epoch"], "view": 1, "header": document}
        said |= claims
        message = vote_message(
            said["chain"], kind, said["epoch"], said["view"], header_hash(write(said["header"]))
        )
        votes = [vote_signer(self.places[place]).sign(message) for place in chosen]
        return {
            "bitmap": encode_bitmap(chosen, len(self.places)).hex(),
            "signature": Bls().aggregate(votes).hex(),
            "view": 1,
        }


def write(document: Any) -> bytes:
    """Return the canonical form, of what the profile forbids too."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


@dataclass
class Writer:
    """One node: writes blocks into a store."""

    mesh: Mesh
    name: NodeId = EDGE
    store: MemoryStore = field(default_factory=MemoryStore)
    blocks: list[SignedBlock] = field(default_factory=list)
    salts: int = 0

    def __post_init__(self) -> None:
        certificate = NodeCertificate(
            self.mesh.chain,
            self.name,
            "edge",
            "t-1",
            edge_signer(self.name).public_key,
            START // MILLISECOND - 1000,
            START // MILLISECOND + HOUR // MILLISECOND,
        )
        self.author = Author(
            self.mesh.chain, self.name, edge_signer(self.name), issue(certificate, CA)
        )
        self.open()

    def open(self) -> None:
        """Begin a chain, or the next one after a loss."""
        self.machine = Chain(self.author, self.store, self._salt)
        self._execute(self.machine.begin([], START))

    def _salt(self, count: int) -> bytes:
        self.salts += 1
        return hashlib.sha256(f"{self.name} salt {self.salts}".encode()).digest()[:count]

    def append(self, *events: Event) -> None:
        self._execute(self.machine.append(events, START))

    def _execute(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.store.apply(effect)
        rows = self.store.scan(Table.BLOCKS, b"", b"\xff" * 80, 1000)
        known = {block.id for block in self.blocks}
        found = [decode_block(value) for _, value in rows]
        self.blocks += [block for block in found if block.id not in known]


def header_document(mesh: Mesh, epoch: int, ids: Sequence[bytes]) -> Document:
    zero = bytes(32)
    header = Header(
        chain=mesh.chain,
        epoch=epoch,
        prev=zero,
        timestamp_ms=START // MILLISECOND + epoch,
        merkle_root=merkle.root(ids),
        count=len(ids),
        ranges_root=digest(Domain.RANGES, b""),
        cuts_root=digest(Domain.CUTS, b""),
        evidence_root=digest(Domain.EVIDENCE, b""),
        history_root=merkle.EMPTY_ROOT,
        history_size=0,
        validators_hash=mesh.validators_hash,
        next_validators_hash=mesh.validators_hash,
        validator_id=mesh.genesis.validators[0].validator_id,
    )
    document: Document = json.loads(header.encode())
    return document


def seal(mesh: Mesh, groups: Sequence[tuple[Writer, Sequence[SignedBlock]]]) -> None:
    """Make the blocks final in one checkpoint and give every writer its receipt."""
    ranges = [
        Range(writer.name, blocks[0].block.inc, blocks[0].seq, blocks[-1].seq, blocks[-1].id)
        for writer, blocks in groups
    ]
    ids = [block.id for _, blocks in groups for block in blocks]
    header = header_document(mesh, mesh.epoch, ids)
    certificate = certificate_of(mesh, header)
    tree = build_tree(ranges, ids)
    for (writer, _), covered in zip(groups, ranges, strict=True):
        start, proof = tree.prove(covered)
        receipt = Receipt(write(header), certificate, covered, start, proof)
        key = covered.inc.to_bytes(4, "big") + covered.first.to_bytes(8, "big")
        writer.store.apply(Persist(((Table.RECEIPTS, key, encode_receipt(receipt)),)))
    mesh.epoch += 2


def certificate_of(mesh: Mesh, header: Document) -> QuorumCertificate:
    found = mesh.certify(header)
    return QuorumCertificate(
        VoteKind.FINALIZE,
        header["epoch"],
        1,
        header_hash(write(header)),
        bytes.fromhex(found["bitmap"]),
        bytes.fromhex(found["signature"]),
    )


def set_of(places: Sequence[int]) -> ValidatorSet:
    return ValidatorSet([entry(place) for place in places])


def change_document(mesh: Mesh, epoch: int, places: Sequence[int]) -> Document:
    """Return the line of a header of the present set that names these members as the next one."""
    header = header_document(mesh, epoch, [])
    header["next_validators_hash"] = set_of(places).hash.hex()
    return {
        "certificate": mesh.certify(header),
        "header": header,
        "type": "change",
        "validators": json.loads(set_of(places).encode()),
    }


def turn(mesh: Mesh, writers: Sequence[Writer], places: Sequence[int]) -> None:
    """Change the validator set in a checkpoint without blocks; the writers hear of it."""
    document = change_document(mesh, mesh.epoch, places)
    raw = write(document["header"])
    certificate = certificate_of(mesh, document["header"])
    change = SetChange(raw, certificate, set_of(places).encode())
    row = (Table.CHANGES, mesh.epoch.to_bytes(8, "big"), change.encode())
    for writer in writers:
        writer.store.apply(Persist((row,)))
    mesh.places, mesh.validators_hash = tuple(places), set_of(places).hash
    mesh.epoch += 2


def turning(mesh: Mesh) -> bytes:
    """A bundle over two changes of the set: one joins, then one leaves."""
    writer = Writer(mesh)
    writer.append(Event("scan", b"under the first set"))
    seal(mesh, [(writer, writer.blocks)])
    turn(mesh, [writer], (0, 1, 2, 3, 4))
    writer.append(Event("scan", b"under the second"))
    seal(mesh, [(writer, writer.blocks[2:])])
    turn(mesh, [writer], (1, 2, 3, 4))
    writer.append(Event("scan", b"under the third"))
    seal(mesh, [(writer, writer.blocks[3:])])
    return export_bundle(mesh.genesis, EDGE, writer.store)


NEURO = NeuroBinding("ab" * 32, "cd" * 32, "ef" * 16)


def sample(mesh: Mesh) -> bytes:
    """A bundle with all there is: three receipts, two incarnations, a payload held back."""
    writer, other = Writer(mesh), Writer(mesh, OTHER)
    writer.append(Event("scan", b'{"score":1}'), Event("älert", b"two", neuro=NEURO))
    other.append(Event("scan", b"elsewhere"))
    seal(mesh, [(writer, writer.blocks[:3]), (other, other.blocks)])
    writer.append(Event("note", b"", body={"about": [1, None, True]}), Event("scan", b"five"))
    seal(mesh, [(writer, writer.blocks[3:5])])
    writer.open()
    writer.append(Event("scan", b"after the loss"))
    seal(mesh, [(writer, writer.blocks[5:7])])
    hidden: Persist = Persist(((Table.PAYLOADS, writer.blocks[4].id, None),))
    writer.store.apply(hidden)
    return export_bundle(mesh.genesis, EDGE, writer.store)


# -- taking bundles apart ------------------------------------------------------------------------


def read(data: bytes) -> list[Document]:
    return [json.loads(line) for line in data.splitlines()]


def lines_of(documents: Sequence[Document]) -> bytes:
    return b"".join(write(document) + b"\n" for document in documents)


def manifest(documents: Sequence[Document]) -> Document:
    """Return a first line that fits the others."""
    found = hashlib.sha256(lines_of(documents[1:])).hexdigest()
    chain = digest(Domain.GENESIS, write(documents[1]["document"])).hex()
    kinds = [document.get("type") for document in documents]
    return {
        "blocks": kinds.count("block"),
        "chain": chain,
        "digest": found,
        "receipts": kinds.count("receipt"),
        "type": "hookprobe-bundle",
        "v": 1,
    }


def pack(documents: Sequence[Document]) -> bytes:
    """Return a bundle whose first line fits, so that only what is wrong is wrong."""
    return lines_of([manifest(documents), *documents[1:]])


def sign_line(line: Document, name: str = EDGE) -> None:
    """Sign a changed block as its node would."""
    block_id = digest(Domain.MICROBLOCK, write(line["block"]))
    signature = edge_signer(name).sign(digest(Domain.MICROBLOCK_SIGNATURE, block_id))
    line["signature"] = signature.hex()


def reseal(mesh: Mesh, documents: list[Document], receipt: int) -> None:
    """Make header, proof and certificate of a receipt fit its changed blocks, one tree of them."""
    document = documents[receipt]
    ids = []
    for line in documents[receipt + 1 :]:
        if line["type"] != "block":
            break
        ids.append(digest(Domain.MICROBLOCK, write(line["block"])))
    document["header"] |= {"count": len(ids), "merkle_root": merkle.root(ids).hex()}
    document |= {"proof": [], "start": 0}
    document["certificate"] = mesh.certify(document["header"])


def copied(documents: Sequence[Document]) -> list[Document]:
    return copy.deepcopy(list(documents))


def schemes() -> Schemes:
    return Schemes(Ed25519(), Remembering())

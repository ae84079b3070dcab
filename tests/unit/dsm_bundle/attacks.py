"""Forged bundles: each is what an attacker with some of the keys could make.

Lines of the sample: 1 manifest, 2 genesis, 3 receipt of blocks 4-6, 7 receipt of 8-9, and of the
node's second chain 10 receipt of 11-12. `line` is where a verifier must find the fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.unit.dsm_bundle.forge import (
    CA,
    FOREIGN_CA,
    OTHER,
    START,
    Document,
    Mesh,
    copied,
    edge_signer,
    lines_of,
    pack,
    read,
    reseal,
    sample,
    sign_line,
    vote_signer,
    write,
)

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.crypto.signing import Signer
from hookprobe.dsm.certificate import VoteKind
from hookprobe.wire.instant import MILLISECOND

MESH = Mesh()
INFINITY = "c0" + "00" * 95
Edit = Callable[[list[Document]], Any]


@dataclass(frozen=True)
class Attack:
    """A bundle that must be refused, and the number of the line that is at fault."""

    name: str
    data: bytes
    line: int


@cache
def sample_bytes() -> bytes:
    return sample(MESH)


def documents() -> list[Document]:
    return read(sample_bytes())


def edited(name: str, line: int, edit: Edit) -> Attack:
    """An attack whose first line fits the others again."""
    found = documents()
    replaced = edit(found)
    return Attack(name, pack(replaced if isinstance(replaced, list) else found), line)


def certified(name: str, **claims: Any) -> Attack:
    """The first receipt with another certificate, genuinely signed."""

    def edit(docs: list[Document]) -> None:
        docs[2]["certificate"] = MESH.certify(docs[2]["header"], **claims)

    return edited(name, 6, edit)


def put(name: str, line: int, path: str, value: Any) -> Attack:
    """Set one field, `index.key.key`, of the sample."""

    def edit(docs: list[Document]) -> None:
        index, *keys, last = path.split(".")
        target: Any = docs[int(index)]
        for key in keys:
            target = target[int(key) if key.isdigit() else key]
        target[int(last) if last.isdigit() else last] = value

    return edited(name, line, edit)


def blocks_changed(name: str, line: int, edit: Edit) -> Attack:
    """Changed blocks that the node signs and a quorum certifies: only the rule refuses them."""

    def whole(docs: list[Document]) -> None:
        edit(docs)
        for place in (3, 4, 5):
            sign_line(docs[place])
        reseal(MESH, docs, 2)

    return edited(name, line, whole)


def enrolled(name: str, signer: Signer, ca_key: bytes, **changes: Any) -> Attack:
    """A first block whose certificate says something else; everybody else is deceived."""

    def edit(docs: list[Document]) -> None:
        body = docs[3]["block"]["body"]
        body["certificate"] |= changes
        body["ca_key"] = ca_key.hex()
        hashed = digest(Domain.NODE_CERTIFICATE, write(body["certificate"]))
        body["ca_signature"] = signer.sign(hashed).hex()
        relink(docs)

    return blocks_changed(name, 4, edit)


def relink(docs: list[Document]) -> None:
    """Make the blocks of the first receipt follow each other again."""
    for before, after in ((3, 4), (4, 5)):
        docs[after]["block"]["prev"] = digest(Domain.MICROBLOCK, write(docs[before]["block"])).hex()


def certificate_attacks() -> list[Attack]:
    forged_view = documents()[2]["certificate"] | {"view": 2}
    three = MESH.certify(documents()[2]["header"])
    two = MESH.certify(documents()[2]["header"], signers=(0, 1))
    return [
        certified("certificate of two of four", signers=(0, 1)),
        certified("NOTARIZE", kind=VoteKind.NOTARIZE),
        certified("NULLIFY", kind=VoteKind.NULLIFY),
        certified("certificate of another epoch", epoch=2),
        certified("certificate of another view", view=2),
        certified("certificate of another chain", chain=b"x" * 32),
        certified("certificate of another header", header=documents()[6]["header"]),
        put("view changed", 6, "2.certificate", forged_view),
        put("three bits, two signatures", 6, "2.certificate", two | {"bitmap": "07"}),
        put("four bits, three signatures", 6, "2.certificate.bitmap", "0f"),
        put("other three bits", 6, "2.certificate.bitmap", "0e"),
        put("bit 4 of four", 6, "2.certificate.bitmap", "17"),
        put("bit 7 of four", 6, "2.certificate.bitmap", "83"),
        put("bitmap too long", 6, "2.certificate.bitmap", "0700"),
        put("no bitmap", 6, "2.certificate.bitmap", ""),
        put("bitmap of 17 bytes", 3, "2.certificate.bitmap", "07" * 17),
        put("signature at infinity", 6, "2.certificate.signature", INFINITY),
        put("signature of one", 6, "2.certificate.signature", vote_signer(0).sign(b"").hex()),
        put("view 0", 3, "2.certificate.view", 0),
        put("view of five bytes", 3, "2.certificate", three | {"view": 2**32}),
        edited("certificates swapped", 6, swap_certificates),
        four_of_seven(),
    ]


def four_of_seven() -> Attack:
    mesh = Mesh(7)
    found = read(sample(mesh))
    found[2]["certificate"] = mesh.certify(found[2]["header"], signers=(0, 1, 2, 3))
    return Attack("certificate of four of seven", pack(found), 6)


def swap_certificates(docs: list[Document]) -> None:
    first, second = docs[2], docs[6]
    first["certificate"], second["certificate"] = second["certificate"], first["certificate"]


def header_attacks() -> list[Attack]:
    def other_set(docs: list[Document]) -> None:
        docs[2]["header"]["validators_hash"] = "00" * 32
        docs[2]["certificate"] = MESH.certify(docs[2]["header"])

    def other_chain(docs: list[Document]) -> None:
        docs[2]["header"]["chain"] = "00" * 32
        docs[2]["certificate"] = MESH.certify(docs[2]["header"])

    def spaced(docs: list[Document]) -> None:
        docs[2]["header"]["cuts_root"] = " " + docs[2]["header"]["cuts_root"][2:] + " "
        docs[2]["certificate"] = MESH.certify(docs[2]["header"])

    return [
        edited("certified header of other validators", 6, other_set),
        edited("certified header of another chain", 6, other_chain),
        edited("hash with spaces", 3, spaced),
        put("header without type", 3, "2.header.type", "D"),
        put("epoch changed", 6, "2.header.epoch", 2),
        put("count changed", 6, "2.header.count", 6),
        put("count too small", 6, "2.header.count", 2),
        put("validator name", 3, "2.header.validator_id", "Validator"),
        put("header too large", 3, "2.header.prev", "00" * 4096),
    ]


def receipt_attacks() -> list[Attack]:
    proof = documents()[2]["proof"]
    return [
        put("proof of another tree", 6, "2.proof", documents()[6]["proof"]),
        put("proof too long", 6, "2.proof", [*proof, "00" * 32]),
        put("proof too short", 6, "2.proof", proof[:-1]),
        put("proof reordered", 6, "2.proof", proof[::-1]),
        put("proof of short hashes", 3, "2.proof", ["00" * 31]),
        put("proof of a number", 3, "2.proof", [1]),
        put("proof of 129 hashes", 3, "2.proof", ["00" * 32] * 129),
        put("start moved", 6, "2.start", 1),
        put("start behind the tree", 6, "2.start", 2**53 - 1),
        put("last before first", 3, "2.last", 0),
        put("last too small", 5, "2.last", 2),
        put("last too large", 7, "2.last", 4),
        put("first too large", 3, "2.first", 2),
        put("first and last equal but wrong", 7, "6.first", 6),
        put("other node", 4, "2.node_id", OTHER),
        put("other incarnation", 4, "2.inc", 1),
        put("incarnation 0", 3, "2.inc", 0),
        put("receipt of another type", 3, "2.type", "block"),
        edited("receipts reordered", 3, lambda d: [*d[:2], *d[6:9], *d[2:6], *d[9:]]),
        edited("incarnations reordered", 6, lambda d: [*d[:2], *d[9:], *d[2:9]]),
        edited("receipt twice", 10, lambda d: [*d[:9], *d[6:9], *d[9:]]),
        edited("no first receipt", 3, lambda d: [*d[:2], *d[6:]]),
        edited("no receipts", 2, lambda d: d[:2]),
        edited("blocks missing at the end", 11, lambda d: d[:-1]),
        edited("receipt without blocks", 7, lambda d: d[:7]),
    ]


def block_attacks() -> list[Attack]:
    def of_other(docs: list[Document]) -> None:
        docs[4]["block"]["node_id"] = OTHER
        relink(docs)

    def by_other(docs: list[Document]) -> None:
        sign_line(docs[4], OTHER)

    def fork(docs: list[Document]) -> None:
        docs[4]["block"]["prev"] = "11" * 32

    def gap(docs: list[Document]) -> None:
        docs[4]["block"]["seq"] = 3

    def orphan(docs: list[Document]) -> None:
        docs[4]["block"]["prev"] = "00" * 32

    def parent(docs: list[Document]) -> None:
        docs[3]["block"]["prev"] = "11" * 32
        relink(docs)

    def foreign_key(docs: list[Document]) -> None:
        docs[4]["block"]["body"] = {"ä": 1}
        relink(docs)

    def chain(docs: list[Document]) -> None:
        docs[4]["block"]["chain"] = "00" * 32
        relink(docs)

    def spaces(docs: list[Document]) -> None:
        docs[4]["block"]["payload_hash"] = " " + docs[4]["block"]["payload_hash"][2:] + " "
        del docs[4]["payload"], docs[4]["salt"]  # nothing else is wrong with it
        relink(docs)

    def deep(docs: list[Document]) -> None:
        # Eight levels in the block, nine in its line.
        docs[4]["block"]["body"] = {"x": [[[[[[1]]]]]]}
        relink(docs)

    return [
        blocks_changed("block that nests too deep for its line", 5, deep),
        blocks_changed("block of another node", 5, of_other),
        blocks_changed("block that follows another", 5, fork),
        blocks_changed("block with another number", 5, gap),
        blocks_changed("second block without parent", 5, orphan),
        blocks_changed("first block with a parent", 4, parent),
        blocks_changed("key that is not ASCII", 5, foreign_key),
        blocks_changed("block of another chain", 5, chain),
        blocks_changed("block hash with spaces", 5, spaces),
        edited("block signed by another node", 5, by_other),
        edited("blocks swapped", 5, lambda d: [*d[:4], d[5], d[4], *d[6:]]),
        edited("block twice", 6, lambda d: [*d[:5], d[4], *d[5:]]),
        put("signature zero", 5, "4.signature", "00" * 64),
        put("time changed", 5, "4.block.timestamp", 1),
        put("block of another type", 5, "4.block.type", "N"),
        put("version", 5, "4.block.v", True),
        put("event type too long", 5, "4.block.event_type", "x" * 65),
        put("body too large", 5, "4.block.body", {"x": "y" * 8192}),
        put("body no object", 5, "4.block.body", []),
        put("block too large", 5, "4.block.body", {"x": "y" * 13_000}),
        put("neuro hash too long", 6, "5.block.neuro.ter_hash", "ab" * 129),
        put("neuro hash odd", 6, "5.block.neuro.ter_hash", "abc"),
        put("neuro hash upper case", 6, "5.block.neuro.ter_hash", "AB"),
    ]


def payload_attacks() -> list[Attack]:
    def swapped(docs: list[Document]) -> None:
        for name in ("payload", "salt"):
            docs[4][name], docs[5][name] = docs[5][name], docs[4][name]

    def shifted(docs: list[Document]) -> None:
        # The same bytes under the hash, but the last byte of the salt has become payload.
        salt = docs[4]["salt"]
        docs[4]["payload"] = salt[-2:] + docs[4]["payload"]
        docs[4]["salt"] = salt[:-2] + "  "

    def shifted_short(docs: list[Document]) -> None:
        salt = docs[4]["salt"]
        docs[4]["payload"] = salt[-2:] + docs[4]["payload"]
        docs[4]["salt"] = salt[:-2]

    return [
        edited("payloads swapped", 5, swapped),
        edited("salt shifted into the payload, padded", 5, shifted),
        edited("salt shifted into the payload", 5, shifted_short),
        put("payload changed", 5, "4.payload", "00"),
        put("payload empty", 5, "4.payload", ""),
        put("payload odd", 5, "4.payload", "0"),
        put("payload with spaces", 5, "4.payload", "00 0"),
        edited("payload without salt", 5, lambda d: d[4].pop("salt") and d),
        edited("salt without payload", 5, lambda d: d[4].pop("payload") and d),
    ]


def enrolment_attacks() -> list[Attack]:
    now = START // MILLISECOND
    ca = CA.public_key
    foreign = FOREIGN_CA.public_key
    other_key = edge_signer(OTHER).public_key.hex()
    return [
        enrolled("foreign authority", FOREIGN_CA, foreign),
        enrolled("foreign authority in the name of ours", FOREIGN_CA, ca),
        enrolled("certificate of another node", CA, ca, node_id=OTHER),
        enrolled("certificate of another key", CA, ca, key=other_key),
        enrolled("node certificate of another chain", CA, ca, chain="00" * 32),
        enrolled("certificate of the past", CA, ca, not_after=now - 1),
        enrolled("certificate of the future", CA, ca, not_before=now + 1),
        enrolled("unknown role", CA, ca, role="king"),
        enrolled("tenant too long", CA, ca, tenant="t" * 65),
        enrolled("certificate with more", CA, ca, more=1),
        edited("recovery with spaces, signed and certified", 11, spaced_recovery),
        put("no enrolment", 4, "3.block.body", {}),
        put("enrolment of another kind", 4, "3.block.body.kind", "recover"),
        put("role changed", 4, "3.block.body.certificate.role", "validator"),
        put("recovery of another block", 11, "10.block.body.last_head", "00" * 32),
        put("recovery of nothing", 11, "10.block.body.kind", "enrol"),
    ]


def spaced_recovery(docs: list[Document]) -> None:
    body = docs[10]["block"]["body"]
    body["last_head"] = " " + body["last_head"][2:] + " "
    sign_line(docs[10])
    docs[11]["block"]["prev"] = digest(Domain.MICROBLOCK, write(docs[10]["block"])).hex()
    sign_line(docs[11])
    reseal(MESH, docs, 9)


def genesis_attacks() -> list[Attack]:
    def genesis(docs: list[Document]) -> Document:
        found: Document = docs[1]["document"]
        return found

    def without_possession(docs: list[Document]) -> None:
        first, second = genesis(docs)["validators"][:2]
        first["possession"], second["possession"] = second["possession"], first["possession"]

    def unsorted(docs: list[Document]) -> None:
        genesis(docs)["validators"].reverse()

    def doubled(docs: list[Document]) -> None:
        genesis(docs)["validators"][1] |= {
            name: genesis(docs)["validators"][0][name] for name in ("vote_key", "possession")
        }

    def few(docs: list[Document]) -> None:
        del genesis(docs)["validators"][3:]

    other = Mesh(name="other")
    return [
        edited("possession proofs swapped", 2, without_possession),
        edited("validators unsorted", 2, unsorted),
        edited("one key of two validators", 2, doubled),
        edited("three validators", 2, few),
        put("no validators", 2, "1.document.validators", []),
        put("no authority", 2, "1.document.ca_keys", []),
        put("authority twice", 2, "1.document.ca_keys", [CA.public_key.hex()] * 2),
        put("authority with spaces", 2, "1.document.ca_keys", [" " * 64]),
        put("authority upper case", 2, "1.document.ca_keys", ["AB" * 32]),
        put("validator key with spaces", 2, "1.document.validators.0.key", "  " + "ab" * 31),
        put("vote key at infinity", 2, "1.document.validators.0.vote_key", "c0" + "00" * 47),
        put("possession at infinity", 2, "1.document.validators.0.possession", INFINITY),
        put("mesh of another name", 4, "1.document.name", "else"),
        put("mesh with another start", 4, "1.document.start", 1),
        put("epochs of no length", 2, "1.document.epoch_duration_us", 0),
        put("dev is 1", 2, "1.document.dev", 1),
        put("other genesis", 4, "1.document", read(sample(other))[1]["document"]),
        put("genesis type", 2, "1.type", "receipt"),
        put("genesis no object", 2, "1.document", 1),
        Attack("genesis missing", lines_of(documents()[:1]), 1),
    ]


def manifest_attacks() -> list[Attack]:
    found = documents()

    def changed(name: str, **changes: Any) -> Attack:
        return Attack(name, lines_of([found[0] | changes, *found[1:]]), 1)

    return [
        changed("more blocks", blocks=8),
        changed("fewer receipts", receipts=2),
        changed("blocks as text", blocks="7"),
        changed("digest of other lines", digest="00" * 32),
        changed("digest with spaces", digest=found[0]["digest"][:-2] + "  "),
        changed("another chain", chain="00" * 32),
        changed("version 2", v=2),
        changed("version true", v=True),
        changed("another type", type="bundle"),
        changed("one more field", more=1),
        Attack("no manifest", lines_of(found[1:]), 1),
    ]


def form_attacks() -> list[Attack]:
    data = sample_bytes()
    lines = data.splitlines(keepends=True)

    def line(name: str, number: int, changed: bytes) -> Attack:
        return Attack(name, b"".join([*lines[: number - 1], changed, *lines[number:]]), number)

    return [
        Attack("nothing", b"", 1),
        Attack("one newline", b"\n", 1),
        Attack("no newline at the end", data[:-1], 12),
        Attack("one newline more", data + b"\n", 13),
        Attack("half a line more", data + b"{", 13),
        Attack("a byte order mark", b"\xef\xbb\xbf" + data, 1),
        line("carriage return", 3, lines[2][:-1] + b"\r\n"),
        line("a space", 5, b" " + lines[4]),
        line("a repeated key", 5, b'{"block":1,' + lines[4][1:]),
        line("another order of keys", 1, b'{"v":1,' + lines[0][1:].replace(b',"v":1', b"")),
        line("an escape", 5, lines[4].replace(b'"block"', b'"bl\\u006fck"', 1)),
        line("a float", 3, lines[2].replace(b'"view":1', b'"view":1.0')),
        line("a large number", 3, lines[2].replace(b'"view":1', b'"view":' + b"9" * 5000)),
        line("not a number", 3, lines[2].replace(b'"view":1', b'"view":NaN')),
        line("minus zero", 3, lines[2].replace(b'"start":0', b'"start":-0')),
        line("no UTF-8", 6, lines[5].replace("ä".encode(), b"\xe4")),
        line("a lone surrogate", 6, lines[5].replace("ä".encode(), b"\\ud800")),
        line("deep nesting", 5, b"[" * 50_000 + b"]" * 50_000 + b"\n"),
        line("nine levels", 5, b'{"block":' + b"[" * 8 + b"]" * 8 + b"}\n"),
        line("deep nesting in text", 5, b'"' + b"[" * 5000 + b'"\n'),
        line("a list", 5, b"[]\n"),
        line("a line too long", 5, b'{"block":"' + b"x" * (1 << 20) + b'"}\n'),
    ]


def extra_fields() -> list[Attack]:
    """One more field in every object of every line."""
    attacks = []
    for index, document in enumerate(documents()):
        for path in paths(document):
            # What is under a body is the application's; there the changed hash is at fault.
            changed = copied(documents())
            target: Any = changed[index]
            for key in path:
                target = target[key]
            target["zzz"] = 1
            name = ".".join(map(str, (index + 1, *path)))
            attacks.append(Attack(f"one more field in {name}", lines_of(changed), index + 1))
    return attacks


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all objects in a value."""
    if isinstance(value, dict):
        inner = [found for key in value for found in paths(value[key], (*path, key))]
        return [path, *inner]
    if isinstance(value, list):
        return [found for place, item in enumerate(value) for found in paths(item, (*path, place))]
    return []


@cache
def attacks() -> tuple[Attack, ...]:
    families = (
        certificate_attacks,
        header_attacks,
        receipt_attacks,
        block_attacks,
        payload_attacks,
        enrolment_attacks,
        genesis_attacks,
        manifest_attacks,
        form_attacks,
        extra_fields,
    )
    return tuple(attack for family in families for attack in family())

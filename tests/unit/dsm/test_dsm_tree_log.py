"""The history as a C2SP log: published vectors, an independent library, and forgeries."""

import base64
import hashlib
from dataclasses import replace

import pymerkle
import pytest
from tests.unit.dsm.kit import NOW, Net
from tests.unit.dsm.ledger_net import V0, V1, V2, running, validator

from hookprobe.crypto import merkle
from hookprobe.crypto.growing_tree import GrowingTree
from hookprobe.crypto.signing import Ed25519, Ed25519Signer
from hookprobe.dsm.notes import (
    LOG_KEY,
    WITNESS_KEY,
    Note,
    NoteKey,
    check_note,
    cosign,
    merge,
    parse_head,
    parse_key,
    parse_note,
    sign_note,
)
from hookprobe.dsm.store import Persist
from hookprobe.dsm.tree_log import (
    TreeLog,
    check_proof,
    decode_proof,
    encode_proof,
    parse_place,
    tile_path,
)
from hookprobe.errors import LocalError, RemoteError, VerificationError
from hookprobe.wire.instant import SECOND

# golang.org/x/mod/sumdb/note, note_test.go: the reference implementation's own example.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
    "Zb6KE6RyyBwJnAM=\n"
)
# transparency-dev/formats, note_cosigv1_test.go: a witness key.
WITNESS = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
# c2sp.org/tlog-cosignature: the example checkpoint.
C2SP = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Z"
    "hcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
    "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
SCHEME = Ed25519()
LEAVES = [hashlib.sha256(bytes([number])).digest() for number in range(40)]


def log_of(net: Net, *witnesses: NoteKey) -> TreeLog:
    node = validator(net, V0)
    return TreeLog(node.history, net.stores[V0], witnesses, net.mesh.keys.schemes.signatures)


@pytest.fixture(scope="module", name="net")
def _net() -> Net:
    net, _ = running(5)
    net.run(NOW + 12 * SECOND)
    return net


# -- formats -------------------------------------------------------------------------------------


def test_our_notes_are_those_of_the_reference_implementation() -> None:
    key, signer = parse_key(GO_KEY), Ed25519Signer(GO_SEED)
    assert key.encode() == GO_KEY
    assert signer.public_key == key.key
    made = sign_note(GO_TEXT, key, signer)
    assert made.encode() == (GO_TEXT + "\n" + GO_LINE).encode()
    assert parse_note(made.encode()) == made
    assert check_note(made, [key], SCHEME) == {key: 0}


def test_a_published_witness_key_is_read() -> None:
    key = parse_key(WITNESS)
    assert (key.kind, key.encode()) == (WITNESS_KEY, WITNESS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        GO_KEY[:-1],
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("PeterNeumann", "Peter Neumann"),
        GO_KEY.replace("PeterNeumann", ""),
        GO_KEY.replace("+ARpc", "+BRpc"),
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
    ],
)
def test_mangled_keys_are_refused(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_key(text)


def test_the_published_checkpoint_is_read_to_the_byte() -> None:
    note = parse_note(C2SP.encode())
    assert note.encode() == C2SP.encode()
    head = parse_head(note.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.text() == note.text
    assert [len(line.signature) for line in note.signatures] == [64, 72]
    assert int.from_bytes(note.signatures[1].signature[:8], "big") == 1679315147


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno line\n",
        GO_TEXT.encode() + b"\n" + GO_LINE.encode()[:-1],
        GO_TEXT.encode() + b"\n" + GO_LINE.encode().replace(b"AM=", b"AN="),
        GO_TEXT.encode() + b"\t\n" + GO_LINE.encode(),
        GO_TEXT.encode() + b"\xff\n\n" + GO_LINE.encode(),
        GO_TEXT.encode() + b"\n" + GO_LINE.encode() * 300,
        b"x" * 200_000,
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        parse_note(data)


@pytest.mark.parametrize("size", ["00", "01", "-1", "+1", "1 ", "", "9" * 20, "٣"])
def test_a_size_has_one_spelling(size: str) -> None:
    root = base64.b64encode(bytes(32)).decode()
    with pytest.raises(RemoteError):
        parse_head(f"origin\n{size}\n{root}\n")


def test_unknown_signers_are_ignored_and_known_ones_must_hold() -> None:
    key, signer = parse_key(GO_KEY), Ed25519Signer(GO_SEED)
    other = NoteKey("other", LOG_KEY, Ed25519Signer(b"o" * 32).public_key)
    note = sign_note(GO_TEXT, key, signer)
    with pytest.raises(VerificationError, match="anybody"):
        check_note(note, [other], SCHEME)
    forged = replace(note.signatures[0], signature=bytes(64))
    with pytest.raises(VerificationError, match="does not hold"):
        check_note(Note(GO_TEXT, (forged,)), [key], SCHEME)
    with pytest.raises(VerificationError, match="does not hold"):
        check_note(Note(GO_TEXT + "!\n", note.signatures), [key], SCHEME)
    as_witness = NoteKey(key.name, WITNESS_KEY, key.key)
    with pytest.raises(VerificationError):
        check_note(note, [as_witness], SCHEME)
    stranger = replace(note.signatures[0], name="stranger")
    assert check_note(Note(GO_TEXT, (stranger, *note.signatures)), [key], SCHEME) == {key: 0}


def test_a_cosignature_covers_its_time_and_the_whole_text() -> None:
    signer = Ed25519Signer(b"w" * 32)
    key = NoteKey("witness.example", WITNESS_KEY, signer.public_key)
    text = parse_note(C2SP.encode()).text
    line = cosign(text, key, signer, 1_700_000_000)
    assert check_note(Note(text, (line,)), [key], SCHEME) == {key: 1_700_000_000}
    message = b"cosignature/v1\ntime 1700000000\n" + text.encode()
    assert SCHEME.verify(key.key, message, line.signature[8:])
    for wrong in (
        replace(line, signature=bytes(8) + line.signature[8:]),
        replace(line, signature=b"\xff" + line.signature[1:]),
        replace(line, signature=line.signature[:-1]),
    ):
        with pytest.raises(VerificationError):
            check_note(Note(text, (wrong,)), [key], SCHEME)


def test_tile_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(2, 0, 17) == "tile/2/000.p/17"
    assert tile_path(None, 273, 112) == "tile/entries/273.p/112"
    assert tile_path(1, 1000) == "tile/1/x001/000"


# -- trees ---------------------------------------------------------------------------------------


def test_the_growing_tree_gives_the_same_roots_and_proofs_as_the_plain_one() -> None:
    tree = GrowingTree(LEAVES)
    for size in range(len(LEAVES) + 1):
        assert tree.root(size) == merkle.root(LEAVES[:size])
        for index in range(size):
            proof = tree.prove_inclusion(index, size)
            assert proof == merkle.prove_inclusion(LEAVES[:size], index)
        for old in range(1, size + 1):
            proof = tree.prove_consistency(old, size)
            assert proof == merkle.prove_consistency(LEAVES[:size], old)
    for wrong in (lambda: tree.prove_inclusion(40, 40), lambda: tree.root(41)):
        with pytest.raises(LocalError):
            wrong()


def test_an_independent_library_accepts_our_proofs_and_we_its_roots() -> None:
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    ours = GrowingTree()
    for leaf in LEAVES:
        theirs.append_entry(leaf)
        ours.append(leaf)
        assert theirs.get_root() == ours.root()
    for size in (1, 2, 3, 7, 8, 21, 40):
        for index in range(size):
            proof = theirs.prove_inclusion(index + 1, size)
            path = proof.serialize()["path"][1:]
            assert [bytes.fromhex(item) for item in path] == list(ours.prove_inclusion(index, size))
            base = hashlib.sha256(b"\0" + LEAVES[index]).digest()
            pymerkle.verify_inclusion(base, ours.root(size), proof)
    for old, size in ((1, 2), (3, 7), (8, 40), (21, 40)):
        proof = theirs.prove_consistency(old, size)
        pymerkle.verify_consistency(ours.root(old), ours.root(size), proof)


def test_tiles_hold_the_tree_of_the_specification() -> None:
    tree = GrowingTree(number.to_bytes(4, "big") for number in range(70_000))
    widths = [len(tree._levels[8 * level]) for level in range(3)]
    assert [divmod(width, 256) for width in widths] == [(273, 112), (1, 17), (0, 1)]
    first = tree.nodes(0, 0, 256)
    level = first
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [merkle.node_hash(left, right) for left, right in pairs]
    assert tree.nodes(8, 0, 1) == level


# -- a running chain -----------------------------------------------------------------------------


def test_the_log_is_the_history_that_headers_commit_to(net: Net) -> None:
    log = log_of(net)
    history = validator(net, V0).history
    for epoch in range(1, history.next_epoch):
        sealed = history.sealed(epoch)
        assert sealed is not None
        head = log.head(epoch)
        assert (head.size, head.root) == (sealed.header.history_size, sealed.header.history_root)
    assert log.head().origin == f"hookprobe/{net.mesh.chain.hex()}"


def test_entries_hash_to_the_tile_and_the_tile_to_the_root(net: Net) -> None:
    log = log_of(net)
    size = log.head().size
    entries = log.entries(0, size)
    leaves = [entries[at + 2 : at + 34] for at in range(0, len(entries), 34)]
    assert [entries[at : at + 2] for at in range(0, len(entries), 34)] == [b"\0\x20"] * size
    assert log.tile(0, 0, size) == b"".join(map(merkle.leaf_hash, leaves))
    assert merkle.root(leaves) == log.head().root
    for level, index, width in ((0, 0, 256), (1, 0, 1), (0, 1, 1), (0, 0, 257), (0, -1, 1)):
        with pytest.raises(LocalError):
            log.tile(level, index, width)
    with pytest.raises(LocalError):
        log.entries(1, 1)


def test_validators_sign_the_same_head_and_their_notes_merge(net: Net) -> None:
    keys, notes = net.mesh.keys, []
    for name in (V0, V1, V2):
        node = validator(net, name)
        log = TreeLog(node.history, net.stores[name], (), keys.schemes.signatures)
        notes.append(log.checkpoint(keys.signer(name), 5))
    note = merge(notes)
    origin = log_of(net).origin
    known = [NoteKey(origin, LOG_KEY, keys.signer(name).public_key) for name in (V0, V1, V2)]
    assert set(check_note(note, known, keys.schemes.signatures)) == set(known)
    other = log_of(net).checkpoint(keys.signer(V0), 4)
    with pytest.raises(VerificationError):
        merge([notes[0], other])


def test_cosignatures_of_known_witnesses_are_kept_and_served(net: Net) -> None:
    keys = net.mesh.keys
    witness = NoteKey("w.example", WITNESS_KEY, keys.signer("witness").public_key)
    log = log_of(net, witness)
    note = log.checkpoint(keys.signer(V0), 6)
    line = cosign(note.text, witness, keys.signer("witness"), 1_700_000_123)
    stranger = replace(line, name="stranger.example")
    rows = log.accept(Note(note.text, (*note.signatures, line, stranger)).encode())
    assert len(rows) == 1
    net.stores[V0].apply(Persist(rows))
    served = log.checkpoint(keys.signer(V0), 6)
    assert served.signatures[1:] == (line,)
    assert check_note(served, [witness], keys.schemes.signatures) == {witness: 1_700_000_123}
    elsewhere = replace(parse_head(note.text), root=bytes(32)).text()
    for wrong in (
        Note(note.text, note.signatures),
        Note(note.text, (replace(line, signature=bytes(72)),)),
        Note(elsewhere, (cosign(elsewhere, witness, keys.signer("witness"), 1),)),
        Note(replace(parse_head(note.text), size=10**6).text(), (line,)),
    ):
        with pytest.raises(VerificationError):
            log.accept(wrong.encode())
    with pytest.raises(LocalError):
        log_of(net, replace(witness, kind=LOG_KEY))


def test_a_block_is_proven_from_its_place_up_to_a_cosigned_checkpoint(net: Net) -> None:
    node, keys = validator(net, V0), net.mesh.keys
    log = log_of(net)
    epoch = next(
        number
        for number in range(node.history.next_epoch)
        if (final := node.history.checkpoint(number)) and final.checkpoint.header.count > 1
    )
    place = node.receipts.place(epoch, 1)
    final = node.history.checkpoint(epoch)
    assert place is not None
    assert final is not None
    covered = final.checkpoint.content.ranges[0]
    (block,) = node.book.branch(covered.lane, covered.first + 1, covered.first + 1, bytes(32))
    assert place.check(block.id).epoch == epoch
    key = NoteKey(log.origin, LOG_KEY, keys.signer(V0).public_key)
    text = log.proof(epoch, log.checkpoint(keys.signer(V0)), place.encode())
    proof = decode_proof(text)
    assert encode_proof(proof) == text
    assert parse_place(proof.extra) == place
    assert list(check_proof(proof, place.leaf(), [key], keys.schemes.signatures)) == [key]
    for wrong in (
        replace(proof, index=epoch + 1),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=(bytes(32), *proof.path[1:])),
    ):
        with pytest.raises(VerificationError):
            check_proof(wrong, place.leaf(), [key], keys.schemes.signatures)
    for index in (0, 2):
        with pytest.raises(VerificationError):
            replace(place, index=index).check(block.id)
    with pytest.raises(LocalError):
        node.receipts.place(epoch, 10**6)
    with pytest.raises(VerificationError):
        check_proof(proof, bytes(32), [key], keys.schemes.signatures)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("index ", "index 0"),
        ("index ", "place "),
        ("extra ", "extra !"),
        ("\n\n", "\n"),
    ],
)
def test_what_is_no_proof_is_refused(net: Net, old: str, new: str) -> None:
    log = log_of(net)
    text = log.proof(3, log.checkpoint(net.mesh.keys.signer(V0), 7), b"{}").decode()
    assert decode_proof(text.encode()).index == 3
    with pytest.raises(RemoteError):
        decode_proof(text.replace(old, new, 1).encode())


def test_consistency_between_any_two_heads(net: Net) -> None:
    log = log_of(net)
    size = log.head().size
    for old in range(1, size + 1):
        proof = log.prove_consistency(old, size)
        merkle.check_consistency(old, size, log.head(old).root, log.head().root, proof)
        if old < size:
            with pytest.raises(VerificationError):
                merkle.check_consistency(old, size, bytes(32), log.head().root, proof)

"""Forged changes of the validator set in bundles."""

from functools import cache
from typing import Any

from tests.unit.dsm_bundle.attacks import Attack, Edit
from tests.unit.dsm_bundle.forge import (
    Document,
    Mesh,
    change_document,
    copied,
    pack,
    read,
    turning,
    write,
)

from hookprobe.crypto.digest import digest
from hookprobe.crypto.domains import Domain
from hookprobe.dsm.certificate import VoteKind


@cache
def turning_bytes() -> bytes:
    return turning(Mesh())


def change_attacks() -> list[Attack]:
    """Lines 3 and 4 change the set; receipts are lines 5, 8 and 10."""
    mesh = Mesh()
    honest = read(turning_bytes())

    def made(name: str, line: int, edit: Edit) -> Attack:
        docs = copied(honest)
        edit(docs)
        return Attack(name, pack(docs), line)

    def field(name: str, line: int, key: str, value: Any) -> Attack:
        return made(name, line, lambda docs: docs[line - 1].__setitem__(key, value))

    rogue = copied(honest)[2]
    rogue["validators"][4]["possession"] = rogue["validators"][0]["possession"]
    hashed = digest(Domain.VALIDATORS, write(rogue["validators"])).hex()
    rogue["header"]["next_validators_hash"] = hashed
    rogue["certificate"] = mesh.certify(rogue["header"])
    idle = change_document(mesh, 2, (0, 1, 2, 3))
    early = change_document(mesh, 2, (0, 1, 2, 3, 4))
    few = copied(honest)[2]
    few["certificate"] = mesh.certify(few["header"], signers=(0, 1))
    notarized = copied(honest)[2]
    notarized["certificate"] = mesh.certify(notarized["header"], kind=VoteKind.NOTARIZE)
    receipt_last = honest[-1]
    return [
        made("change left out", 3, lambda docs: docs.pop(2)),
        made("second change left out", 10, lambda docs: docs.pop(3)),
        made("changes in another order", 3, lambda docs: docs.insert(2, docs.pop(3))),
        made("a change twice", 4, lambda docs: docs.insert(3, docs[2])),
        made("a change behind a receipt", 7, lambda docs: docs.insert(6, docs.pop(3))),
        made("a change that changes nothing", 3, lambda docs: docs.__setitem__(2, idle)),
        made("a change by too few", 3, lambda docs: docs.__setitem__(2, few)),
        made("a change that was only notarised", 3, lambda docs: docs.__setitem__(2, notarized)),
        made("a new key without possession", 3, lambda docs: docs.__setitem__(2, rogue)),
        field("other members", 3, "validators", honest[3]["validators"]),
        field("no members", 3, "validators", []),
        field("members out of order", 3, "validators", honest[2]["validators"][::-1]),
        field("a field more", 3, "zzz", 1),
        field("a certificate of another change", 4, "certificate", honest[2]["certificate"]),
        made(
            "a receipt of the old set after the change",
            9,
            lambda docs: _as_of_old_set(docs, 7),
        ),
        made("an earlier change once more", 5, lambda docs: docs.insert(4, early)),
        made("cut behind a change", 3, lambda docs: docs.__delitem__(slice(3, None))),
        made("one block more", len(honest) + 1, lambda docs: docs.append(receipt_last)),
    ]


def _as_of_old_set(docs: list[Document], receipt: int) -> None:
    """Let the first set, in office once, certify a later epoch."""
    mesh = Mesh()
    docs[receipt]["header"]["validators_hash"] = mesh.validators_hash.hex()
    docs[receipt]["certificate"] = mesh.certify(docs[receipt]["header"])

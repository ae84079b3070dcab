"""The names of the public documents, and that importing the room stays pure."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import hookprobe.dsm
from hookprobe.dsm import MerkleTree, bft_quorum_required
from hookprobe.errors import LocalError, MalformedError

IDS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(7)]


def test_every_name_can_be_imported_and_typed() -> None:
    text = Path((hookprobe.dsm.__file__ or "") + "i").read_text(encoding="utf-8")
    for name, place in hookprobe.dsm.FACES.items():
        assert getattr(hookprobe.dsm, name).__name__ == name
        assert f"from {place.partition(':')[0]} import {name} as {name}" in text
    with pytest.raises(AttributeError):
        hookprobe.dsm.DSMDreams  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_room_imports_nothing_that_does_input_or_output() -> None:
    code = (
        "import hookprobe.dsm, sys; io = ('sqlite3', 'http.client', 'asyncio');"
        "print([name for name in sys.modules if 'runtime' in name or name in io])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(("total", "needed"), [(1, 1), (3, 3), (4, 3), (7, 5), (10, 7), (103, 69)])
def test_the_documents_quorum(total: int, needed: int) -> None:
    assert bft_quorum_required(total) == needed


def test_there_is_no_quorum_of_nobody() -> None:
    for total in (0, -1):
        with pytest.raises(LocalError):
            bft_quorum_required(total)


def test_a_tree_proves_each_of_its_blocks_and_no_other() -> None:
    tree = MerkleTree(IDS)
    for index, block_id in enumerate(IDS):
        path = tree.prove(index)
        assert tree.verify(block_id, index, path)
        assert not tree.verify(block_id, (index + 1) % 7, path)
        assert not tree.verify(IDS[index - 1], index, path)
        assert not tree.verify(block_id, index, path[:-1])
    assert MerkleTree([]).root() == hashlib.sha256(b"").hexdigest()
    with pytest.raises(MalformedError):
        MerkleTree(["abc"])

"""The stand-alone verifier: it agrees with the product, and depends on nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.dsm_bundle.attacks import MESH, Attack, attacks, sample_bytes
from tests.unit.dsm_bundle.change_attacks import change_attacks, turning_bytes
from tests.unit.dsm_bundle.forge import Mesh, pack, read, sample, schemes
from tools import verify_bundle

from hookprobe.dsm.bundle import BundleVerifier
from hookprobe.errors import RemoteError

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools/verify_bundle.py"
FROZEN = ROOT / "tests/data/bundles/edge-a.hpe"
GENESIS = ROOT / "tests/data/bundles/edge-a-genesis.json"
product = BundleVerifier(schemes())


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_several_bundles_are_judged_each(tmp_path: Path) -> None:
    broken = tmp_path / "broken.hpe"
    broken.write_bytes(FROZEN.read_bytes()[:-2])
    done = run(broken, FROZEN, "--trust", GENESIS)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{broken}: FAIL ")
    assert f"{FROZEN}: VERIFIED 7 blocks" in done.stdout
    assert run(FROZEN, FROZEN, "--trust", GENESIS).returncode == 0
    assert run(FROZEN, tmp_path / "none", "--trust", GENESIS).returncode == 2


def line_of(data: bytes, *, by_product: bool) -> int:
    """Return the line at fault, 0 when all is well."""
    try:
        if by_product:
            product.check(data)
        else:
            verify_bundle.verify(data)
    except (RemoteError, verify_bundle.BundleError) as error:
        return int(str(error).removeprefix("line ").partition(":")[0])
    return 0


def test_it_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(TOOL.read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    assert names
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names)


@pytest.mark.parametrize("attack", [*attacks(), *change_attacks()], ids=lambda attack: attack.name)
def test_attacks_are_refused_at_the_same_line(attack: Attack) -> None:
    with pytest.raises(verify_bundle.BundleError, match=rf"^line {attack.line}: "):
        verify_bundle.verify(attack.data)


def test_it_follows_changes_of_the_validator_set() -> None:
    assert "VERIFIED 4 blocks" in verify_bundle.verify(turning_bytes(), MESH.chain.hex())


@pytest.mark.slow
def test_both_name_the_same_line_for_any_changed_byte() -> None:
    data = sample_bytes()
    for place in range(0, len(data), 23):
        changed = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        line = line_of(changed, by_product=True)
        assert line
        assert line == line_of(changed, by_product=False), place


def test_both_name_the_same_line_for_any_missing_end() -> None:
    data = sample_bytes()
    ends = [place + 1 for place, byte in enumerate(data) if byte == 10]
    for stop in [*range(0, len(data), 199), *ends[:-1]]:
        line = line_of(data[:stop], by_product=True)
        assert line
        assert line == line_of(data[:stop], by_product=False), stop


@pytest.mark.parametrize("size", [1, 4, 7])
def test_both_accept_what_is_sound(size: int) -> None:
    assert line_of(sample(Mesh(size)), by_product=True) == 0
    assert line_of(sample(Mesh(size)), by_product=False) == 0


def test_both_accept_less_than_everything() -> None:
    documents = read(sample_bytes())
    documents[4].pop("payload")
    documents[4].pop("salt")
    shorter = pack([*documents[:6], *documents[9:]])
    assert line_of(shorter, by_product=True) == line_of(shorter, by_product=False) == 0


def test_it_says_what_is_proven() -> None:
    said = verify_bundle.verify(sample_bytes(), MESH.chain.hex())
    assert "VERIFIED 7 blocks of edge-a" in said
    assert f"chain {MESH.chain.hex()} (trusted)" in said
    assert "at least 3 of 4 validators" in said
    assert "not pinned" in verify_bundle.verify(sample_bytes())


def test_another_chain_than_the_trusted_one_is_refused() -> None:
    with pytest.raises(verify_bundle.BundleError, match=r"line 2: .*trusted"):
        verify_bundle.verify(sample_bytes(), "00" * 32)


@pytest.mark.slow
def test_the_program_verifies_with_nothing_installed() -> None:
    done = run(FROZEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("VERIFIED 7 blocks of edge-a\n")
    assert "not pinned" in done.stdout
    for trust in (MESH.chain.hex(), GENESIS):
        done = run(FROZEN, "--trust", trust)
        assert done.returncode == 0
        assert "(trusted)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["NOTARIZE", "certificate of two of four", "other three bits", "possession proofs swapped"],
)
def test_the_program_refuses_with_its_own_pairings(name: str, tmp_path: Path) -> None:
    attack = next(item for item in attacks() if item.name == name)
    path = tmp_path / "forged.hpe"
    path.write_bytes(attack.data)
    done = run(path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"FAIL line {attack.line}: ")


def test_wrong_usage_is_told_from_a_wrong_bundle(tmp_path: Path) -> None:
    bad = tmp_path / "genesis.json"
    bad.write_bytes(b"{}")
    for arguments in (
        (),
        ("--help",),
        (tmp_path / "nowhere",),
        (FROZEN, "--trust"),
        (FROZEN, "--trust", "abc"),
        (FROZEN, "--trust", bad),
        (FROZEN, "--fast"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr
    assert run(FROZEN, "--trust", "00" * 32).returncode == 1

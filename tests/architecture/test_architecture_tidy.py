"""House rules that import contracts and ruff cannot see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/hookprobe"
CORES = ("errors.py", "wire", "crypto", "identity", "neuro", "htp", "detection", "dsm", "node")
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "core", "misc"}
BANNED_CALLS = {"hash", "open", "print", "input", "eval", "exec", "compile", "__import__"}
ENTRY_POINTS = {"hookprobe.__main__", "hookprobe.sim.__main__"}

FACES = (SOURCE / "dsm/__init__.py", SOURCE / "htp/__init__.py")
MODULES = sorted(SOURCE.rglob("*.py"))
CORE_MODULES = [
    path for path in MODULES if path.relative_to(SOURCE).parts[0] in CORES
]  # fmt: skip
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_and_function_sizes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MODULE_LINES_MAX, f"{name(path)} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, FUNCTION):
            assert length(node) <= FUNCTION_LINES_MAX, f"{name(path)}:{node.lineno} {node.name}"


def test_tests_stay_readable_too() -> None:
    long = [
        name(path)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path.read_text(encoding="utf-8").count("\n") > MODULE_LINES_MAX
    ]
    assert long == []


def test_no_module_is_called_after_nothing() -> None:
    assert [name(path) for path in MODULES if path.stem in BANNED_NAMES] == []


def test_packages_only_introduce_themselves() -> None:
    for path in SOURCE.rglob("__init__.py"):
        body = tree(path).body
        extra = [node for node in body[1:] if not isinstance(node, ast.Assign)]
        if path in FACES:
            # A room whose public names are looked up on first use: nothing is imported but that.
            imported = [node for node in extra if isinstance(node, ast.ImportFrom)]
            looked_up = [node for node in extra if isinstance(node, ast.FunctionDef)]
            assert [node.module for node in imported] == ["hookprobe.faces"]
            assert [node.name for node in looked_up] == ["__getattr__"]
            extra = [node for node in extra if node not in [*imported, *looked_up]]
        assert ast.get_docstring(tree(path)), f"{name(path)} does not say what the room is"
        assert extra == [], f"{name(path)} holds code"


def _calls(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


@pytest.mark.parametrize("path", CORE_MODULES, ids=name)
def test_cores_call_nothing_that_depends_on_the_host(path: Path) -> None:
    banned = [(line, called) for line, called in _calls(tree(path)) if called in BANNED_CALLS]
    assert banned == [], f"{name(path)}: {banned}"


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"set", "frozenset"}
    return False


def set_iterations(module: ast.Module) -> list[int]:
    """Lines that iterate over a set on the spot; its order changes with the hash seed."""
    found = []
    for node in ast.walk(module):
        iterated: list[ast.expr] = []
        if isinstance(node, ast.For | ast.comprehension):
            iterated = [node.iter]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"list", "tuple", "enumerate", "iter", "next"}:
                iterated = list(node.args[:1])
        elif isinstance(node, ast.Starred):
            iterated = [node.value]
        found += [item.lineno for item in iterated if _is_set(item)]
    return found


@pytest.mark.parametrize("path", CORE_MODULES, ids=name)
def test_cores_do_not_iterate_over_sets(path: Path) -> None:
    assert set_iterations(tree(path)) == [], name(path)


def test_the_set_rule_can_fail() -> None:
    planted = "for x in {1, 2}: pass\ny = list(set(a))\nz = [i for i in frozenset(b)]\n"
    assert set_iterations(ast.parse(planted)) == [1, 2, 3]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_is_dead() -> None:
    modules = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path
        for path in MODULES
        if path.name != "__init__.py"
    }
    used = {imported for path in MODULES for imported in _imported(path)}
    # Entry points and lazily imported commands are named as "module:attribute".
    sources = [ROOT / "pyproject.toml", SOURCE / "cli/main.py", *FACES]
    named = "".join(path.read_text(encoding="utf-8") for path in sources)
    scripts = re.findall(r'"(hookprobe[\w.]*):\w+"', named)
    dead = sorted(set(modules) - used - ENTRY_POINTS - set(scripts))
    assert dead == []


def test_no_broad_excepts() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                kind = node.type
                if kind is None or (
                    isinstance(kind, ast.Name)
                    and kind.id in {"Exception", "BaseException", "ImportError"}
                ):
                    found.append(f"{name(path)}:{node.lineno}")
    assert found == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(dict.fromkeys(names)) == sorted(names)

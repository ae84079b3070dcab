"""The seeded simulator compiled by mypyc, for runs of very many seeds.

    python tools/native_sim.py --seeds 1000000 --seed 0 --jobs 2

The options are those of `python -m hookprobe.sim`, and one more, `--check`. The sources are copied
to `build/native-sim-STAMP`, twice: as they are, and compiled. Before the run both go through the
first seeds; one trace digest that differs, and nothing runs. The copies stay, so that a second run
starts at once and a long one does not see what is edited meanwhile.

A class that mypyc compiles has no `slots=True`, and the methods that `dataclass` makes would stay
Python: in the copy they are written out. A copied class is not frozen; whether anything assigns to
a frozen one is for mypy and the interpreted tests to say.

Needs mypy (a development dependency), a C compiler, and setuptools, which nothing else here needs:

    python tools/pip-26.3-py3-none-any.whl/pip install --target build/setuptools setuptools
"""

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("dsm/*.py", "sim/*.py", "wire/*.py", "crypto/*tree.py", "errors.py")
INTERPRETED = (
    "__init__.py",
    "__main__.py",
    "domains.py",  # its enumeration has an __init__, for which mypyc's type checks come too early
    "mesh.py",  # its attribute `_real` becomes a keyword of the C compiler
    "pulls.py",  # generic data classes, and a Counter: mypyc mistakes its 0 for an error
)
CHECKED = 200
SETUPTOOLS = ROOT / "build" / "setuptools"

SETUP = """\
import sys
from setuptools import setup
from mypyc.build import mypycify

flags = ["--explicit-package-bases", "--namespace-packages"]
extensions = mypycify([*flags, *sys.argv[1:]], multi_file=True, opt_level="2", debug_level="0")
setup(name="sim", packages=[], ext_modules=extensions, script_args=["build_ext", "--inplace"])
"""


def fail(sentence: str) -> NoReturn:
    """Stop with one sentence."""
    sys.exit(f"native_sim: {sentence}")


# -- rewriting --------------------------------------------------------------------------------


def rewrite(source: str) -> str:
    """Return a module whose data classes mypyc can compile as a whole."""
    lines = source.split("\n")
    for node, decorator in reversed(list(_data_classes(ast.parse(source)))):
        options = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}
        options.pop("slots", None)
        methods = _methods(node, frozen=bool(options.get("frozen")))
        if not methods:
            left = ", ".join(f"{name}={value}" for name, value in options.items())
            lines[decorator.lineno - 1] = f"@dataclass({left})"
            continue
        lines[node.end_lineno : node.end_lineno] = methods
        lines[decorator.lineno - 1] = "@dataclass(init=False, eq=False)"
    return "\n".join(lines)


def _data_classes(module: ast.Module) -> Iterator[tuple[ast.ClassDef, ast.Call]]:
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
                    yield node, decorator


def _methods(node: ast.ClassDef, *, frozen: bool) -> list[str]:
    """Return the lines of __init__, __eq__ and __hash__; none for a class that is too special."""
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    special = any("init=False" in ast.unparse(item) for item in fields)
    if special or not fields:
        return []
    taken, kept = zip(*map(_parameter, fields), strict=True)
    names = [ast.unparse(item.target) for item in fields]
    equal = " and ".join(f"self.{name} == other.{name}" for name in names)
    lines = ["", f"    def __init__(self, {', '.join(taken)}) -> None:"]
    lines += [f"        self.{name} = {value}" for name, value in zip(names, kept, strict=True)]
    lines += ["", "    def __eq__(self, other: object) -> bool:"]
    lines += ["        if type(other) is not type(self):", "            return NotImplemented"]
    lines += [f"        assert isinstance(other, {node.name})", f"        return {equal}"]
    if frozen:
        values = "".join(f"self.{name}, " for name in names)
        lines += ["", "    def __hash__(self) -> int:", f"        return hash(({values}))"]
    return lines


def _parameter(field: ast.AnnAssign) -> tuple[str, str]:
    """Return how __init__ takes a field, and what it assigns."""
    name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
    match field.value:
        case None:
            return f"{name}: {kind}", name
        case ast.Call(func=ast.Name("field"), keywords=[ast.keyword("default_factory", factory)]):
            made = f"{ast.unparse(factory)}() if {name} is None else {name}"
            return f"{name}: {kind} | None = None", made
        case value:
            return f"{name}: {kind} = {ast.unparse(value)}", name


# -- building ---------------------------------------------------------------------------------


def stamp(package: Path) -> str:
    """Return a hash over everything that decides what is built."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {version('mypy')}".encode())
    for path in [Path(__file__), *sorted(package.rglob("*.py"))]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def build(package: Path, folder: Path) -> None:
    """Copy the package and compile a second copy, unless both are there already."""
    marker = folder / "built"
    if marker.exists():
        return
    sys.stderr.write(f"native_sim: compiling into {folder} (some minutes, once)\n")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("plain", "native"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / name / package.name, ignore=ignored)
    native = folder / "native"
    found = [path for glob in COMPILED for path in sorted((native / package.name).glob(glob))]
    modules = [path for path in found if path.name not in INTERPRETED]
    for path in modules:
        path.write_text(rewrite(path.read_text()))
    compile_modules(native, modules)
    marker.touch()


def compile_modules(native: Path, modules: Sequence[Path]) -> None:
    """Let mypyc make an extension beside each module."""
    (native / "setup.py").write_text(SETUP)
    names = [str(path.relative_to(native)) for path in modules]
    command = [sys.executable, "setup.py", *names]
    environment = {**os.environ, "MYPYPATH": ".", "PYTHONPATH": str(SETUPTOOLS)}
    with (native / "compiler.log").open("w") as log:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, cwd=native, env=environment, stdout=log, stderr=log, check=False
        )
    missing = [path.name for path in modules if not list(path.parent.glob(f"{path.stem}.*.so"))]
    if done.returncode or missing:
        ended = f"status {done.returncode}, {len(missing)} modules missing"
        fail(f"mypyc failed ({ended}); {log.name} says why. Is setuptools there? See --help.")


# -- running ----------------------------------------------------------------------------------


def simulator(folder: Path, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment that run the simulator of a folder."""
    command = [sys.executable, "-P", "-m", "hookprobe.sim", *arguments]
    return command, {**os.environ, "PYTHONPATH": str(folder)}


def check(folder: Path, arguments: Sequence[str]) -> None:
    """Refuse to go on unless both copies print the same trace digests."""
    traces = []
    for name in ("plain", "native"):
        command, environment = simulator(folder / name, [*arguments, "--trace"])
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, env=environment, capture_output=True, text=True, check=False
        )
        traces.append(done.stdout.splitlines())
        if not traces[-1]:
            fail(f"the {name} simulator fell: {done.stderr[-400:]}")
    for plain, native in zip_longest(*traces):
        if plain != native:
            fail(f"compiled code behaves differently, nothing is run: {native!r}, not {plain!r}.")
    sys.stderr.write(f"native_sim: same traces, {traces[0][-1]}\n")


def main() -> None:
    """Build, check, and become the compiled simulator."""
    parser = argparse.ArgumentParser(
        prog="tools/native_sim.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument(
        "--check", type=int, default=CHECKED, help="how many of them to compare with Python first"
    )
    options, passed = parser.parse_known_args()
    package = ROOT / "src" / "hookprobe"
    folder = ROOT / "build" / f"native-sim-{stamp(package)}"
    build(package, folder)
    compared = max(1, min(options.check, options.seeds))
    check(folder, ["--seeds", str(compared), *passed])
    command, environment = simulator(folder / "native", ["--seeds", str(options.seeds), *passed])
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()

"""Prepare this checkout and run its tasks; needs nothing but python3.

`python3 bootstrap.py TASK ...` makes `.venv` with the locked, hashed packages the first time and
runs the tasks; `make TASK` is the same. Without a task it only prepares. A second run finds the
stamp of the lock files and starts at once.

A bare Debian has neither pip nor ensurepip, so the virtual environment is made without pip and the
pip wheel in tools/ installs the rest; its own SHA-256 stands below.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / os.environ.get("HOOKPROBE_VENV", ".venv")
PYTHON = VENV / "bin" / "python"
PIP_WHEEL = ROOT / "tools" / "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
LOCKS = ("requirements/run.txt", "requirements/dev.txt", "pyproject.toml")
OLDEST, NEWEST = (3, 11), (3, 14)

PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
SOURCES = ["src", "tests", "benchmarks", "tools", "bootstrap.py"]


def fail(sentence: str) -> NoReturn:
    """Stop with one sentence that says what is missing."""
    sys.exit(f"bootstrap: {sentence}")


def check_host() -> None:
    """Refuse a machine that cannot work, in one sentence."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        fail(f"Python 3.11 to 3.14 is needed, this is {sys.version.split()[0]}.")
    try:
        import ssl
        import venv  # noqa: F401
    except ImportError as error:
        fail(f"this Python has no module {error.name}: apt-get install python3.")
    named = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    paths = ssl.get_default_verify_paths()
    if not (named or paths.cafile or Path("/etc/ssl/certs/ca-certificates.crt").exists()):
        fail("no CA bundle, so no package can be fetched safely: apt-get install ca-certificates.")


def stamp() -> str:
    """Return a hash over everything that decides what is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in LOCKS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def prepare() -> None:
    """Make the virtual environment unless it is already the wanted one."""
    marker = VENV / "prepared"
    wanted = stamp()
    if marker.exists() and marker.read_text() == wanted:
        return
    check_host()
    if hashlib.sha256(PIP_WHEEL.read_bytes()).hexdigest() != PIP_SHA256:
        fail(f"{PIP_WHEEL.name} is not the file it should be: check out the repository again.")
    print("bootstrap: preparing", VENV.name, "(once)", file=sys.stderr, flush=True)
    run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(VENV)])
    pip = [str(PYTHON), str(PIP_WHEEL / "pip"), "--disable-pip-version-check", "-q"]
    run([*pip, "install", "--require-hashes", "-r", str(ROOT / "requirements" / "dev.txt")])
    run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    marker.write_text(wanted)


def run(command: list[str]) -> None:
    """Run a command in the checkout; its failure is ours."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def python(*arguments: str) -> None:
    """Run the prepared interpreter."""
    run([str(PYTHON), *arguments])


def demo(*arguments: str) -> None:
    """The five-minute story on recorded sensor output: no root, no network."""
    python("-m", "hookprobe", "demo", *arguments)


def lint(*_: str) -> None:
    """Formatting, ruff, mypy, import contracts, house rules, spelling, and docs that build."""
    python("-m", "ruff", "format", "--check", "-q", *SOURCES)
    python("-m", "ruff", "check", "-q", *SOURCES)
    python("-m", "mypy")
    run([str(VENV / "bin" / "lint-imports"), "--no-cache"])
    python("-m", "pytest", "-q", "tests/architecture")
    spelled = ["src", "docs", "README.md", "CONTRIBUTING.md", "SECURITY.md"]
    # "checkin" is a word of the sensors' rules.
    run([str(VENV / "bin" / "codespell"), "--ignore-words-list", "checkin", *spelled])
    docs()


def fix(*_: str) -> None:
    """Repair what ruff can repair."""
    python("-m", "ruff", "check", "-q", "--fix", *SOURCES)
    python("-m", "ruff", "format", "-q", *SOURCES)


def unit(*arguments: str) -> None:
    """The fast, pure tests only."""
    python(*PYTEST, "tests/unit", "tests/property", "tests/conformance", *arguments)


def test(*arguments: str) -> None:
    """Every test; installs the programs they drive where it may."""
    python("tests/prerequisites.py")
    python(*PYTEST, *arguments)


def sim(*arguments: str) -> None:
    """The seeded mesh simulator: sim --seeds N --seed X."""
    python("-m", "hookprobe.sim", *arguments)


def native(*arguments: str) -> None:
    """The simulator compiled, for very many seeds: native --seeds N --seed X."""
    python("tools/native_sim.py", *arguments)


def fuzz(*arguments: str) -> None:
    """Mutated real traffic into every decoder: fuzz --seconds N --seed X."""
    python("-m", "tests.fuzz.lane", *arguments)


def bench(*arguments: str) -> None:
    """Benchmarks as ratios; writes docs/benchmarks.md."""
    python("-m", "benchmarks.run", *arguments)


def docs(*_: str) -> None:
    """Build the documentation into build/site."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    python("-m", "mkdocs", "build", "-q", "--strict", "-d", str(ROOT / "build" / "site"))


def fresh(*_: str) -> None:
    """Both README commands in a minimal Debian root (root and debootstrap needed)."""
    run(["bash", str(ROOT / "tests" / "fresh" / "run.sh")])


def services(*_: str) -> None:
    """The units of deploy/systemd under a real systemd (root and systemd-nspawn needed)."""
    run(["bash", str(ROOT / "tests" / "systemd" / "run.sh")])


def clean(*_: str) -> None:
    """Remove everything that is not source."""
    for name in (".venv", "build", "demo", ".mypy_cache", ".ruff_cache", ".hypothesis"):
        shutil.rmtree(ROOT / name, ignore_errors=True)


TASKS = (demo, lint, fix, unit, test, sim, native, fuzz, bench, docs, fresh, services, clean)


def main(arguments: list[str]) -> None:
    """Prepare, then run one task with its arguments or several without."""
    known = {task.__name__: task for task in TASKS}
    if arguments and arguments[0] in ("-h", "--help", "help"):
        for name, task in known.items():
            print(f"  {name:8} {task.__doc__}")
        return
    if arguments and arguments[0] not in known:
        fail(f"no task {arguments[0]!r}; there are {', '.join(known)}.")
    if arguments[:1] == ["clean"]:
        clean()
        return
    prepare()
    if all(argument in known for argument in arguments):
        for argument in arguments:
            known[argument]()
    else:
        known[arguments[0]](*arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

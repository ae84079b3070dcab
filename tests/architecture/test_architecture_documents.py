"""What the documents say is what the program does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.architecture import documents

from hookprobe.cli.main import COMMANDS

ROOT = documents.ROOT
PAGES = sorted((ROOT / "docs").rglob("*.md")) + [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
WORKPLACE = re.compile(r"/work/|/tmp/[a-z]|pypi\.org|deb\.debian\.org|files\.pythonhosted")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_generated_pages_are_current() -> None:
    command = "python -m tests.architecture.documents"
    assert documents.STATUS_PAGE.read_text(encoding="utf-8") == documents.status_page(), command
    assert documents.KEYS_PAGE.read_text(encoding="utf-8") == documents.keys_page(), command
    assert documents.EVENTS_PAGE.read_text(encoding="utf-8") == documents.events_page(), command


@pytest.mark.parametrize("entry", documents.capabilities(), ids=lambda entry: str(entry["name"]))
def test_a_capability_that_works_has_tests(entry: dict[str, object]) -> None:
    tests = documents.named_tests(entry)
    assert entry["state"] in documents.STATES
    assert bool(tests) is (entry["state"] != "absent")
    if entry["state"] != "works":
        assert entry.get("remark"), "say what is missing"
    for test in tests:
        assert list((ROOT / "tests").rglob(test)), f"no test file {test}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"[\w/-]+\.md", text)
    assert yaml.safe_load(text.replace("!!", ""))["nav"]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_the_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"hookprobe (\w+)", text):
        assert command in COMMANDS, f"README: hookprobe {command}"
    for target in re.findall(r"\bmake (\w+)", text):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"README: make {target}"


def test_make_and_bootstrap_know_the_same_tasks() -> None:
    listed = subprocess.run(
        [sys.executable, "bootstrap.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tasks = {line.split()[0] for line in listed.splitlines()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE)) - {"help", "lock"}
    assert targets == tasks


def test_nothing_speaks_of_one_machine() -> None:
    folders = [ROOT / name for name in ("src", "tests", "docs", "benchmarks", "tools", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*")]
    files += [*ROOT.glob("*.*"), ROOT / "Makefile"]
    kinds = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ""}
    own = Path(__file__).name
    found = [
        name(path)
        for path in sorted(files)
        if path.is_file()
        and path.suffix in kinds
        and path.name not in {own, ".git"}
        and WORKPLACE.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []

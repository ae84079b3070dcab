"""Commands that the pages for operators name are there, with the options that they name."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hookprobe.cli.main import program

PAGES = sorted((Path(__file__).resolve().parents[3] / "docs/operate").glob("*.md"))
COMMAND = re.compile(r"`hookprobe ((?:[a-z]+ ?)+)([^`]*)`")


def commands() -> list[tuple[str, str, str]]:
    return [
        (page.name, words.strip(), rest)
        for page in PAGES
        if page.name in {"runbooks.md", "storage.md"}
        for words, rest in COMMAND.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "words", "rest"), commands())
def test_a_page_names_commands_that_exist(page: str, words: str, rest: str) -> None:
    shown = CliRunner().invoke(program, [*words.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest):
        assert option in shown.output, f"{page}: {words} {option}"


def test_there_are_such_commands() -> None:
    assert len(commands()) > 15

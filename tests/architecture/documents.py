"""Pages that are generated: `python -m tests.architecture.documents` writes them anew."""

import tomllib
from pathlib import Path

from tests.architecture import htp_page

from hookprobe.config.schema import KEYS
from hookprobe.runtime.metrics import METRICS
from hookprobe.runtime.webhook_events import KINDS

ROOT = Path(__file__).parents[2]
STATUS_SOURCE = ROOT / "docs/status.toml"
STATUS_PAGE = ROOT / "docs/status.md"
KEYS_PAGE = ROOT / "docs/reference/configuration.md"
EVENTS_PAGE = ROOT / "docs/reference/metrics.md"
STATES = {"works": "✓ works", "part": "◐ in part", "absent": "○ not yet"}

_STATUS_HEAD = """# Status

What works today. Each line that says so names tests that fail when it does not; a test checks that
they exist and that this page is current.

| capability | state | shown by | remarks |
|---|---|---|---|
"""
_KEYS_HEAD = """# Configuration

Every key of `hookprobe.yaml`; generated from the schema. Later wins: defaults, profile
(`sentinel`, `guardian`, `fortress`, `nexus`), file, environment, command line. The variable of a
key is `HOOKPROBE_` and its path in capitals with dots as underscores, for example
`HOOKPROBE_DSM_NODE_ID`. `${NAME}` in the file is replaced from the environment. A key that is not
in this table is an error.

| key | default | meaning |
|---|---|---|
"""
_EVENTS_HEAD = """# Metrics and events

Generated from the tables of the program. Every value of a label is in the list.

| metric | kind | label | meaning |
|---|---|---|---|
"""
_WEBHOOKS_HEAD = """
## Webhook events

| event | meaning |
|---|---|
"""


def capabilities() -> list[dict[str, object]]:
    """Return the entries of docs/status.toml."""
    entries: list[dict[str, object]] = tomllib.loads(STATUS_SOURCE.read_text(encoding="utf-8"))[
        "capability"
    ]
    return entries


def named_tests(entry: dict[str, object]) -> list[str]:
    """Return the test files of an entry."""
    tests = entry.get("tests", [])
    assert isinstance(tests, list)
    return [str(test) for test in tests]


def status_page() -> str:
    """Return docs/status.md."""
    rows = [
        f"| {entry['name']} | {STATES[str(entry['state'])]} |"
        f" {', '.join(f'`{test}`' for test in named_tests(entry))} | {entry.get('remark', '')} |"
        for entry in capabilities()
    ]
    return _STATUS_HEAD + "\n".join(rows) + "\n"


def keys_page() -> str:
    """Return docs/reference/configuration.md."""
    rows = []
    for key in KEYS:
        default = ", ".join(key.default) if isinstance(key.default, tuple) else str(key.default)
        rows.append(f"| `{key.path}` | {f'`{default}`' if default else ''} | {key.about} |")
    return _KEYS_HEAD + "\n".join(rows) + "\n"


def events_page() -> str:
    """Return docs/reference/metrics.md."""
    rows = [
        f"| `{metric.name}` | {metric.kind.value} |"
        f" {f'{metric.label}: ' + ', '.join(metric.words) if metric.label else ''} |"
        f" {metric.about} |"
        for metric in METRICS
    ]
    events = sorted((kind.name, kind.about) for kinds in KINDS.values() for kind in kinds)
    told = [f"| `{name}` | {about} |" for name, about in events]
    return _EVENTS_HEAD + "\n".join(rows) + "\n" + _WEBHOOKS_HEAD + "\n".join(told) + "\n"


def main() -> None:
    """Write the pages."""
    STATUS_PAGE.write_text(status_page(), encoding="utf-8")
    KEYS_PAGE.write_text(keys_page(), encoding="utf-8")
    EVENTS_PAGE.write_text(events_page(), encoding="utf-8")
    htp_page.PAGE.write_text(htp_page.page(), encoding="utf-8")


if __name__ == "__main__":
    main()

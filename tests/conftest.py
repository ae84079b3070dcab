"""What every test run shares: in CI a skipped test is a failure, and the count is written down."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COUNTS = ROOT / "build" / "test-counts.txt"
# The only accepted reasons to skip in CI: what this kernel or hardware truly cannot do.
CANNOT = ("kernel:", "hardware:")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(text).removeprefix("Skipped: ")


@pytest.hookimpl(hookwrapper=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    yield
    if hasattr(config, "workerinput"):
        return
    stats = terminalreporter.stats
    skipped = stats.get("skipped", [])
    unexcused = [report for report in skipped if not _reason(report).startswith(CANNOT)]
    strict = bool(os.environ.get("CI"))
    if strict and unexcused:
        for report in unexcused:
            terminalreporter.write_line(f"skipped in CI: {report.nodeid}: {_reason(report)}")
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    failed += len(unexcused) if strict else 0
    passed = len(stats.get("passed", []))
    shown = len(skipped) - (len(unexcused) if strict else 0)
    COUNTS.parent.mkdir(exist_ok=True)
    COUNTS.write_text(f"{passed} passed, {failed} failed, {shown} skipped\n", encoding="utf-8")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or not os.environ.get("CI"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, pytest.TerminalReporter)
    unexcused = [
        report
        for report in reporter.stats.get("skipped", [])
        if not _reason(report).startswith(CANNOT)
    ]
    if unexcused and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""Ends a run of these tests with a summary that can be pasted into an issue."""

from __future__ import annotations

from pathlib import Path

import gpu_summary
import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Only where these tests were asked for: in a run of all tests they are a few lines among many."""
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if not asked or not all(path.is_relative_to(HERE) for path in asked):
        return
    lines = []
    for outcome, reported in (("passed", "passed"), ("failed", "failed"), ("error", "failed"), ("skipped", "skipped")):
        for report in terminalreporter.getreports(outcome):
            # A file that cannot be imported is reported too, and has measured nothing.
            measured = gpu_summary.told(getattr(report, "user_properties", ()))
            why = gpu_summary.reason(report.longrepr) if report.longrepr else ""
            test = report.nodeid.removeprefix("tests/gpu/")
            lines.append(gpu_summary.Line(test=test, outcome=reported, told="; ".join(filter(None, (measured, why)))))
    for line in ("", *gpu_summary.summary(lines)):
        terminalreporter.write_line(line)

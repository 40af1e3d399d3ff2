"""Fixtures shared by all tests, and the switch between a real and the embedded ROS 2."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 200)))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

try:
    from usx_runtime import hook
except ModuleNotFoundError:  # a machine with ROS 2 needs no embedded runtime
    hook = None
if hook is not None:
    hook.install()

REAL_DATA = {"run": 0, "skipped": 0}


@pytest.fixture(scope="session")
def usx_data() -> Path:
    """Folder of real data (environment variable USX_DATA); skips with a reason where it is missing."""
    folder = os.environ.get("USX_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("USX_DATA names no folder of real data")
    return Path(folder)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "real_data" not in report.keywords:
        return
    if report.skipped:
        REAL_DATA["skipped"] += 1
    elif report.when == "call":
        REAL_DATA["run"] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"real_data tests: {REAL_DATA['run']} run, {REAL_DATA['skipped']} skipped")

"""Fixtures shared by all tests, and the switch between a real and the embedded ROS 2."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run; `--hypothesis-profile explore` looks for others.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

# Two workers and the nodes they start share two cores. OpenBLAS' threads spin while they wait for each other: on busy
# cores that made one triangulation take minutes. The launch files do the same for the nodes.
for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

if "PYTEST_XDIST_WORKER" in os.environ:  # workers inherit the environment, but must not meet on one domain
    os.environ.pop("ROS_DOMAIN_ID", None)
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 200)))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

try:
    from usx_runtime import hook
except ModuleNotFoundError:  # a machine with ROS 2 needs no embedded runtime
    hook = None
if hook is not None:
    hook.install()

REAL_DATA = {"run": 0, "skipped": 0}
# Tests of processes that wait for each other: one after the other, beside tests that only compute.
PROCESSES = ("nodes", "system", "unit/usx_runtime", "unit/usx_viewer", "unit/workspace",
             "unit/usx_xray/test_storage.py", "real/test_spine_phantom_node.py", "real/test_spine_phantom_launch.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Where tests run in two workers (pytest-xdist): a file stays in one of them, and so do all tests of processes."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRoom(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0].removeprefix("tests/")
            return "processes" if path.startswith(PROCESSES) else path

    return ByRoom(config, log)


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

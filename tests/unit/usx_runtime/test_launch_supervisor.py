"""Processes of a launch: output, exits, respawning, signals at any moment, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LIMIT = 30.0


class Launch:
    """A launch file run by `usx launch` in a process of its own. `{mark}` in its text is found again in the
    command lines of what it starts."""

    def __init__(self, folder: Path, body: str) -> None:
        self.mark = uuid.uuid4().hex
        self.file = folder / "test.launch.xml"
        self.file.write_text(f"<launch>{body.replace('{mark}', self.mark)}</launch>")
        self.log = folder / "log.txt"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "usx_runtime", "launch", str(self.file)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "USX_ROS": "embedded", "TMPDIR": str(self.temporary)},
            )

    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def alive(self) -> list[str]:
        """Command lines of running processes that carry the mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if self.mark in line:
                    found.append(line)
        return found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[str], Launch]]:
    started: list[Launch] = []

    def start(body: str) -> Launch:
        started.append(Launch(tmp_path, body))
        return started[-1]

    yield start
    for item in started:
        if item.process.poll() is None:
            item.process.kill()
        until(lambda item=item: not item.alive())


def test_output_carries_the_name_and_a_failed_exit_is_told(launch: Callable[[str], Launch]) -> None:
    run = launch(
        """<executable name="one" cmd="sh -c 'echo out; echo err >&amp;2; printf unfinished'"/>
        <executable name="two" cmd="sh -c 'exit 3'"/>
        <executable name="three" cmd="/no/such/program"/>"""
    )
    assert run.wait() == 0
    output = run.output()
    assert re.findall(r"^\[one-1\] (.*)$", output, re.M) == ["out", "err", "unfinished"]
    assert re.search(r"\[ERROR\] \[two-2\]: process has died \[pid \d+, exit code 3, cmd 'sh -c exit 3'\]", output)
    assert re.search(r"\[ERROR\] .*\[three-3\] cannot be started: .*/no/such/program", output)


@pytest.mark.parametrize("code", [0, 4])
def test_on_exit_shutdown_ends_everything(code: int, launch: Callable[[str], Launch]) -> None:
    run = launch(
        f"""<executable cmd="sh -c 'sleep 0.3; exit {code}' {{mark}}" on_exit="shutdown"/>
        <executable cmd="sh -c 'sleep 1000' {{mark}}" respawn="true"/>
        <executable cmd="sh -c 'sleep 1000 &amp; sleep 1000' {{mark}}"/>"""
    )
    assert run.wait() == (1 if code else 0)
    assert "which ends the launch" in run.output()
    assert run.alive() == []


def test_respawning(launch: Callable[[str], Launch], tmp_path: Path) -> None:
    count = tmp_path / "count"
    run = launch(
        f"""<executable name="phoenix" respawn="true" respawn_delay="0.05"
                       cmd="sh -c 'echo x >> {count}; exit 1' {{mark}}"/>
        <executable name="once" cmd="sh -c 'exit 1' {{mark}}"/>"""
    )
    until(lambda: count.exists() and count.read_text().count("x") >= 3)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 0
    assert run.output().count("[once-2]: process started") == 1


def test_interrupting_gives_processes_time_to_end_well(launch: Callable[[str], Launch]) -> None:
    script = "trap 'echo saving; sleep 0.3; echo saved; exit 0' INT; echo ready; while :; do sleep 0.05; done"
    run = launch(f"""<executable name="careful" cmd="sh -c &quot;{script}&quot; {{mark}}"/>""")
    until(lambda: "[careful-1] ready" in run.output())
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 0
    assert "[careful-1] saved" in run.output() and "finished cleanly" in run.output()


def test_who_does_not_listen_is_killed(launch: Callable[[str], Launch]) -> None:
    run = launch("""<executable cmd="sh -c 'trap : INT TERM; echo ready; while :; do sleep 0.05; done' {mark}"/>""")
    until(lambda: "ready" in run.output())
    for expected in ("SIGINT received", "sending SIGTERM", "sending SIGKILL"):  # impatience saves the waiting
        run.process.send_signal(signal.SIGINT)
        until(lambda expected=expected: expected in run.output())
    assert run.wait() == 0
    assert run.alive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.2, 0.3, 0.5])
def test_a_signal_at_any_moment_of_the_start_leaves_nothing(
    number: signal.Signals, moment: float, launch: Callable[[str], Launch]
) -> None:
    processes = """<executable cmd="python3 -c 'import time; time.sleep(1000)' {mark}"/>""" * 8
    run = launch(processes)
    time.sleep(moment)
    run.process.send_signal(number)
    run.wait()
    assert run.alive() == []
    assert list(run.temporary.glob("usx_launch_*")) == []


def test_kill_9_of_the_launcher_leaves_nothing(launch: Callable[[str], Launch]) -> None:
    run = launch(
        """<executable cmd="sh -c 'trap : INT TERM; echo ready; while :; do sleep 0.05; done' {mark}"/>
        <executable cmd="python3 -c 'import time; time.sleep(1000)' {mark}"/>
        <executable cmd="sh -c 'python3 -c &quot;import time; time.sleep(1000)&quot; {mark} &amp; wait' {mark}"/>"""
    )
    until(lambda: "ready" in run.output() and len(run.alive()) == 4)
    run.process.kill()
    run.wait()
    until(lambda: not run.alive())
    until(lambda: not list(run.temporary.glob("usx_launch_*")))


NODE = """
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

def main():
    rclpy.init()
    node = Node("toy")
    print("spinning", flush=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    node.destroy_node()
    rclpy.try_shutdown()
"""


@pytest.fixture
def toy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python distribution `toy` whose executable `node` is a node that spins."""
    info = tmp_path / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nnode = toy_node:main\n")
    (tmp_path / "site" / "toy_node.py").write_text(NODE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.4, 0.8, 1.2, None])
def test_nodes_end_well_at_any_moment_of_their_start(
    number: signal.Signals, moment: float | None, toy_package: None, launch: Callable[[str], Launch]
) -> None:
    nodes = "".join(f"""<node pkg="toy" exec="node" name="toy_{i}" args="{{mark}}"/>""" for i in range(3))
    run = launch(nodes)
    if moment is None:
        until(lambda: run.output().count("spinning") == 3)
    else:
        time.sleep(moment)
    run.process.send_signal(number)
    code = run.wait()
    assert run.alive() == []
    if "process started" in run.output():
        assert "has died" not in run.output() and "Traceback" not in run.output(), run.output()
    if "process started" in run.output():
        assert code == 0

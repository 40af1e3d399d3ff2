"""The command `usx`: executables of packages, help, errors in one line, and stepping aside for a real ROS 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NODE = """
import signal, sys, time

def main():
    import rclpy
    print("rclpy of", rclpy.init.__module__.split(".")[0], "arguments", sys.argv[1:], flush=True)

def init():
    import rclpy, rclpy.node
    rclpy.init()
    rclpy.node.Node("node")

def number(): return 3
def text(): return "what went wrong"
def crash(): raise RuntimeError("a fault of the program")
def wait():
    print("waiting", flush=True)
    time.sleep(60)
"""
SCRIPTS = "\n".join(f"{name} = toy_node:{name}" for name in ("main", "init", "number", "text", "crash", "wait"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A Python distribution `toy` with executables, one of which takes a second to import."""
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[console_scripts]\n{SCRIPTS}\nslow = slow_node:main\n[other]\nhidden = x:y\n"
    )
    (tmp_path / "toy_node.py").write_text(NODE)
    (tmp_path / "slow_node.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\nmain = None\n")
    return tmp_path


def start(site: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if key != "USX_ROS"}
    return subprocess.Popen(
        [sys.executable, "-m", "usx_runtime", *words],
        env={**clean, "PYTHONPATH": str(site), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def usx(site: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of `usx WORDS`."""
    process = start(site, *words, **environment)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_an_executable_runs_with_its_arguments_on_the_embedded_rclpy(site: Path) -> None:
    code, output, errors = usx(site, "run", "toy", "main", "--flag", "--ros-args", "-p", "a:=1")
    assert (code, errors) == (0, "")
    assert output == "rclpy of usx_runtime arguments ['--flag', '--ros-args', '-p', 'a:=1']\n"


@pytest.mark.parametrize(("executable", "code", "error"), [("number", 3, ""), ("text", 1, "what went wrong\n")])
def test_exit_codes_are_those_of_a_console_script(executable: str, code: int, error: str, site: Path) -> None:
    assert usx(site, "run", "toy", executable) == (code, "", error)


def test_a_fault_of_the_program_is_not_hidden(site: Path) -> None:
    code, _, errors = usx(site, "run", "toy", "crash")
    assert code == 1 and "Traceback" in errors and "RuntimeError: a fault of the program" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("run", "toy", "absent"),
            "usx run: package 'toy' has no executable 'absent'; it has: crash, init, main, number",
        ),
        (("run", "moon", "x"), "usx run: package 'moon' is not installed"),
        (("run", "--prefix", "x"), "usx run: unknown option '--prefix'"),
        (("fly",), "usx fly: unknown command 'fly'; the commands are: run, launch, bag, topic"),
        (("launch", "no.launch.xml"), "no.launch.xml' does not exist"),
        (("launch", "moon", "x.launch.xml"), "usx launch: package 'moon' not found"),
        (("launch", "moon"), "usx launch: which launch file of 'moon'?"),
        (("bag", "info", "/no/such"), "usx bag: bag '/no/such' does not exist"),
        (("topic", "echo", "/absent"), "usx topic: topic /absent does not appear to be published"),
        (("topic", "echo", "/absent", "moon_msgs/msg/X"), "'moon_msgs/msg/X'"),
    ],
)
def test_errors_take_one_line_and_code_2(words: tuple[str, ...], message: str, site: Path) -> None:
    code, output, errors = usx(site, *words)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


@pytest.mark.parametrize(("variable", "value"), [("ROS_DOMAIN_ID", "999"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "MARS")])
@pytest.mark.parametrize("words", [("topic", "list"), ("run", "toy", "init")])
def test_a_domain_that_cannot_be_joined_is_told(variable: str, value: str, words: tuple, site: Path) -> None:
    code, _, errors = usx(site, *words, **{variable: value})
    assert code == 2 and errors.startswith(f"usx {words[0]}: {variable} = {value}: must be") and errors.count("\n") == 1


def test_the_executables_of_a_package_are_listed(site: Path) -> None:
    assert usx(site, "run", "toy")[:2] == (0, "crash\ninit\nmain\nnumber\nslow\ntext\nwait\n")


@pytest.mark.parametrize("words", [(), ("run",), ("launch",), ("bag",), ("bag", "play"), ("bag", "record"), ("topic",)])
def test_help_says_how(words: tuple[str, ...], site: Path) -> None:
    code, output, errors = usx(site, *words, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("usage: usx") and len(output) > 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("executable", "sign"), [("slow", "importing"), ("wait", "waiting")])
def test_an_interrupt_ends_an_executable_without_a_traceback(
    executable: str, sign: str, number: signal.Signals, site: Path
) -> None:
    process = start(site, "run", "toy", executable)
    assert process.stdout is not None and process.stdout.readline() == f"{sign}\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (-number, 128 + number) and errors == ""


def test_with_a_real_ros_usx_becomes_ros2(site: Path) -> None:
    (site / "rclpy").mkdir()
    (site / "rclpy" / "__init__.py").write_text("raise ImportError('for another Python')")
    program = site / "bin" / "ros2"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "ros2 got: $*"\nexit 7\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    assert usx(site, "bag", "play", "x", "--clock", PATH=path) == (7, "ros2 got: bag play x --clock\n", "")
    code, _, errors = usx(site, "bag", "play", "x", PATH=str(site))
    assert code == 2 and "no `ros2` is on the PATH" in errors
    assert usx(site, "run", "toy", "main", PATH=path, USX_ROS="embedded")[0] == 0
    assert usx(site, "run", "toy", "main", USX_ROS="both")[2].startswith("usx run: USX_ROS=both: must be")


def test_launch_arguments_are_shown(site: Path, tmp_path: Path) -> None:
    share = tmp_path / "prefix" / "share"
    (share / "ament_index/resource_index/packages").mkdir(parents=True)
    (share / "ament_index/resource_index/packages" / "toy").touch()
    (share / "toy" / "launch").mkdir(parents=True)
    (share / "toy" / "launch" / "a.launch.xml").write_text(
        "<launch><arg name='bag' description='a recording'/><arg name='rate' default='1.0'/></launch>"
    )
    prefix = str(tmp_path / "prefix")
    code, output, _ = usx(site, "launch", "toy", "a.launch.xml", "--show-args", AMENT_PREFIX_PATH=prefix)
    assert code == 0 and "'bag':\n        a recording\n" in output and "(default: '1.0')" in output
    code, _, errors = usx(site, "launch", "toy", "b.launch.xml", AMENT_PREFIX_PATH=prefix)
    assert code == 2 and "no launch file 'b.launch.xml'" in errors and "it has: a.launch.xml" in errors
    code, _, errors = usx(site, "launch", "toy", "a.launch.xml", AMENT_PREFIX_PATH=prefix)
    assert code == 2 and "'bag' (a recording) is required" in errors


def test_a_reader_that_goes_away_is_no_fault(site: Path) -> None:
    process = start(site, "run", "toy")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.returncode in (0, 1)

"""Wrong input to whole programs: one clear line, the right exit code, nothing left running, nothing lost."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

USX = [sys.executable, "-m", "usx_runtime"]


def run(*words: str, timeout: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 200))} | environment
    return subprocess.run([*USX, *words], env=settings, capture_output=True, text=True, check=False, timeout=timeout)


NODES = [
    ("usx_compounding", "compounding_node", "spacing:=-1.0", "spacing"),
    ("usx_compounding", "compounding_node", "image_to_probe:=[1.0,2.0]", "image_to_probe"),
    ("usx_xray", "xray_node", "dicom_port:=70000", "dicom_port"),
    ("usx_registration", "registration_node", "xray_placement:=guess", "xray_placement"),
    ("usx_completion", "completion_node", "method:=magic", "method"),
    ("usx_viewer", "viewer_node", "port:=0", "port"),
]


@pytest.mark.parametrize(("package", "executable", "assignment", "name"), NODES)
def test_a_bad_parameter_is_named_and_ends_the_node(package, executable, assignment, name):
    result = run("run", package, executable, "--ros-args", "-p", assignment)
    assert result.returncode == 2
    assert name in result.stderr and "Traceback" not in result.stderr


def test_a_domain_out_of_range_is_named():
    result = run("run", "usx_registration", "registration_node", ROS_DOMAIN_ID="500")
    assert result.returncode == 2 and "500" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(("package", "executable", "parameter"), [
    ("usx_xray", "xray_node", "dicom_port"), ("usx_viewer", "viewer_node", "port")])
def test_a_taken_port_is_named(package, executable, parameter):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("run", package, executable, "--ros-args", "-p", f"{parameter}:={port}")
    assert result.returncode == 2 and str(port) in result.stderr and "Traceback" not in result.stderr


def test_an_unknown_launch_argument_file_and_package_are_named():
    for words, name in ((("usx_bringup", "nothing.launch.xml"), "nothing.launch.xml"),
                        (("usx_nothing", "replay.launch.xml"), "usx_nothing"),
                        (("usx_bringup", "replay.launch.xml"), "bag")):
        result = run("launch", *words)
        assert result.returncode != 0 and name in result.stderr + result.stdout
        assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def acquisition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "acquisition"
    made = run("run", "usx_phantom", "make_phantom", "--out", str(folder), "--seed", "5", "--duration", "3", "--frames",
               "30", "--no-cbct", "--quiet", timeout=200)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("damage", ["empty folder", "no metadata", "cut file", "no such folder"])
def test_a_damaged_bag_is_refused(acquisition, tmp_path, damage):
    bag = tmp_path / "bag"
    if damage != "no such folder":
        bag.mkdir()
    if damage == "no metadata":
        shutil.copy(acquisition / "bag" / "bag.mcap", bag)
    if damage == "cut file":
        shutil.copy(acquisition / "bag" / "metadata.yaml", bag)
        (bag / "bag.mcap").write_bytes((acquisition / "bag" / "bag.mcap").read_bytes()[:200_000])
    played = run("bag", "play", str(bag))
    assert played.returncode != 0 and "Traceback" not in played.stderr and str(bag) in played.stderr
    shown = run("run", "usx_bringup", "demo", "--acquisition", str(tmp_path), "--out", str(tmp_path / "out"))
    assert shown.returncode == 2 and str(bag) in shown.stderr and "Traceback" not in shown.stderr


@pytest.mark.timeout(200)
def test_without_poses_every_frame_is_rejected_and_the_nodes_live_on(acquisition, tmp_path):
    """The pose stream is missing: nothing can be compounded, and the account says so."""
    environment = {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 200))}
    launch = subprocess.Popen(
        [*USX, "run", "usx_compounding", "compounding_node", "--ros-args", "--params-file",
         str(acquisition / "params.yaml"), "-p", "idle_timeout:=1.0"],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        ready = run("run", "usx_bringup", "when_ready", "--nodes", "compounding_node", "--", *USX, "bag", "play",
                    str(acquisition / "bag"), "--topics", "/us/image_raw", timeout=120, **environment)
        assert ready.returncode == 0, ready.stderr
        deadline = time.monotonic() + 60
        account: dict[str, int] = {}
        while (time.monotonic() < deadline and account.get("received", 0) != sum(
                n for k, n in account.items() if k.startswith("rejected."))) or not account:
            account = _account(run("topic", "echo", "--once", "/diagnostics", **environment).stdout)
        assert account["received"] == 30 and account["used"] == 0 and account["pending"] == 0
        assert launch.poll() is None
    finally:
        launch.send_signal(signal.SIGINT)
        launch.communicate(timeout=30)
    assert launch.returncode == 0


def _account(text: str) -> dict[str, int]:
    """The image stream's counters in the text of a DiagnosticArray."""
    block = text.split("us/image_raw", 1)[-1].split("- level:", 1)[0]
    lines = [line.strip() for line in block.splitlines()]
    found = {}
    for key, value in itertools.pairwise(lines):
        name = key.removeprefix("- ").removeprefix("key: ").strip("'")
        number = value.removeprefix("value: ").strip("'")
        if number.isdigit():
            found[name] = int(number)
    return found

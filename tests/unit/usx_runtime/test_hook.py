"""Which rclpy is used: a real one where there is one, the embedded one elsewhere, never half of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that sees `tmp_path` first on its module path."""
    clean = {key: value for key, value in os.environ.items() if key not in ("USX_ROS", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-c", "from usx_runtime import hook\n" + code],
        env={**clean, "PYTHONPATH": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def real_rclpy(folder: Path, content: str = "NAME = 'the real one'\n") -> None:
    (folder / "rclpy").mkdir()
    (folder / "rclpy" / "__init__.py").write_text(content)


def check(result: subprocess.CompletedProcess[str], expected: str) -> None:
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == expected.split()


def test_nothing_is_mapped_before_install(tmp_path: Path) -> None:
    result = run("import rclpy", tmp_path)
    assert "ModuleNotFoundError" in result.stderr


def test_embedded_modules_answer_to_their_ros_names(tmp_path: Path) -> None:
    code = """
import sys
hook.install(); hook.install()
import rclpy, rclpy.node, rclpy.qos, tf2_ros, message_filters
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
import std_srvs.srv
import usx_runtime.rclpy.node, usx_runtime.tf2_ros
print(hook.active(), len([f for f in sys.meta_path if type(f).__module__ == "usx_runtime.hook"]))
print(rclpy.node is usx_runtime.rclpy.node, rclpy.node.Node is usx_runtime.rclpy.node.Node)
print(tf2_ros.Buffer is usx_runtime.tf2_ros.Buffer, Image().header.stamp == Time(), std_srvs.srv.Trigger.__name__)
print(rclpy.node.__spec__.name, sys.meta_path[-1].__class__.__module__)
"""
    check(run(code, tmp_path), "True 1 True True True True Trigger usx_runtime.rclpy.node usx_runtime.hook")


def test_a_stand_in_can_be_patched(tmp_path: Path) -> None:
    code = "hook.install()\nimport rclpy, usx_runtime.rclpy\nrclpy.ok = 'patched'\nprint(usx_runtime.rclpy.ok)"
    check(run(code, tmp_path), "patched")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("import rclpy.lifecycle", "No module named 'rclpy.lifecycle': the embedded ROS 2 runtime does not have it"),
        ("import moon_msgs.msg", "No module named 'moon_msgs'"),
        ("import ordinary_missing_module", "No module named 'ordinary_missing_module'"),
    ],
)
def test_what_is_missing_is_named(statement: str, message: str, tmp_path: Path) -> None:
    result = run(f"hook.install()\n{statement}", tmp_path)
    assert "ModuleNotFoundError" in result.stderr and message in result.stderr


def test_a_real_rclpy_is_left_alone(tmp_path: Path) -> None:
    real_rclpy(tmp_path)
    code = "hook.install()\nimport rclpy\nprint(rclpy.NAME, hook.active())\nimport tf2_ros"
    result = run(code, tmp_path)
    assert result.stdout.strip() == "the real one False"
    assert "No module named 'tf2_ros'" in result.stderr  # not half of each


def test_a_real_rclpy_that_does_not_import_is_explained(tmp_path: Path) -> None:
    real_rclpy(tmp_path, "import _rclpy_pybind11_for_another_python\n")
    result = run("hook.install()", tmp_path)
    for words in ("RuntimeChoiceError", str(tmp_path), "_rclpy_pybind11_for_another_python", "USX_ROS=embedded"):
        assert words in result.stderr


def test_embedded_can_be_forced_past_a_real_one(tmp_path: Path) -> None:
    real_rclpy(tmp_path, "raise ImportError('broken')\n")
    code = "hook.install()\nimport rclpy\nprint(hook.active(), rclpy.init.__module__.split('.')[0])"
    check(run(code, tmp_path, USX_ROS="embedded"), "True usx_runtime")


def test_a_stray_package_cannot_shadow_the_embedded_one(tmp_path: Path) -> None:
    (tmp_path / "tf2_ros.py").write_text("Buffer = None\n")
    check(
        run("hook.install()\nimport tf2_ros\nprint(tf2_ros.Buffer.__module__)", tmp_path), "usx_runtime.tf2_ros.buffer"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [("real", "no rclpy can be found"), ("other", "must be 'real' or 'embedded'")],
)
def test_choices_that_cannot_be_met(value: str, message: str, tmp_path: Path) -> None:
    result = run("hook.install()", tmp_path, USX_ROS=value)
    assert "RuntimeChoiceError" in result.stderr and message in result.stderr


def test_install_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "hook.install()\nimport sys\nprint([m for m in ('numpy', 'rosbags', 'cyclonedds', 'yaml') if m in sys.modules])"
    )
    check(run(code, tmp_path), "[]")

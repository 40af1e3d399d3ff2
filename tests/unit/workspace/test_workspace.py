"""The workspace as ROS tools see it: manifests, colcon, the one ROS edge, launch and configuration files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from catkin_pkg.package import parse_package

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(p.parent for p in ROOT.glob("src/*/package.xml"))
ROS_MODULES = ("rclpy", "tf2_ros", "message_filters", "builtin_interfaces", "rcl_interfaces", "sensor_msgs", "std_msgs",
               "geometry_msgs", "visualization_msgs", "diagnostic_msgs", "std_srvs", "tf2_msgs", "rosgraph_msgs")
SUITE = ("usx_common", "usx_compounding", "usx_xray", "usx_registration", "usx_completion", "usx_phantom",
         "usx_viewer", "usx_bringup")


def test_all_packages_are_there():
    assert [p.name for p in PACKAGES] == sorted(SUITE)


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_the_manifest_is_valid(folder):
    warnings: list[str] = []
    package = parse_package(folder / "package.xml", warnings=warnings)
    package.validate(warnings=warnings)
    assert package.name == folder.name and not warnings
    assert package.get_build_type() == "ament_python"
    assert package.licenses == ["Apache-2.0"]
    assert (folder / "resource" / folder.name).is_file()


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_manifest_and_imports_name_the_same_usx_packages(folder):
    declared = {d.name for d in parse_package(folder / "package.xml").exec_depends if d.name.startswith("usx_")}
    imported = set()
    for path in (folder / folder.name).rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and words[1].startswith("usx_"):
                imported.add(words[1].split(".")[0])
    assert imported - {folder.name} <= declared
    assert "usx_runtime" not in imported


def test_colcon_builds_the_workspace_and_installs_launch_and_configuration(tmp_path):
    workspace = tmp_path / "workspace"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.nbi", "*.nbc")
    for name in ("src", "launch", "config"):
        shutil.copytree(ROOT / name, workspace / name, ignore=ignore)
    shutil.copy(ROOT / "colcon.meta", workspace)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONWARNINGS": "ignore"}
    command = ["colcon", "--log-base", "log", "build", "--executor", "sequential", "--metas", "colcon.meta"]
    result = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    share = workspace / "install" / "usx_bringup" / "share" / "usx_bringup"
    assert {p.name for p in (share / "launch").iterdir()} == {p.name for p in (ROOT / "launch").glob("*.launch.xml")}
    assert {p.name for p in (share / "config").iterdir()} == {p.name for p in (ROOT / "config").glob("*.*")}
    assert not (workspace / "install" / "usx_runtime").exists()
    assert (workspace / "install/usx_compounding/lib/usx_compounding/compounding_node").is_file()


def _ros_free_modules(package: str) -> list[str]:
    folder = ROOT / "src" / package / package
    files = [p for p in folder.rglob("*.py") if p.name != "node.py" and p.parent.name != "ros"]
    return [".".join(p.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__") for p in files]


@pytest.mark.parametrize("package", SUITE)
def test_everything_but_node_py_imports_without_ros(package):
    names = _ros_free_modules(package)
    code = ("import sys, importlib\n"
            f"blocked = {ROS_MODULES!r}\n"
            "class Block:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] in blocked: raise ImportError('blocked: ' + name)\n"
            "sys.meta_path.insert(0, Block())\n"
            f"[importlib.import_module(name) for name in {names!r}]\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/*_node.yaml")), ids=lambda p: p.stem)
def test_a_configuration_names_its_node_and_known_parameters(path):
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["/**"]  # rclpy knows this wildcard alone
    package = {"compounding_node": "usx_compounding", "xray_node": "usx_xray", "registration_node": "usx_registration",
               "completion_node": "usx_completion", "viewer_node": "usx_viewer"}[path.stem]
    parameters = pytest.importorskip(f"{package}.parameters")
    known = {p.name for p in parameters.TABLE} | {"use_sim_time"}
    assert set(content["/**"]["ros__parameters"]) <= known

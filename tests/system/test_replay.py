"""The whole chain on a short acquisition: real processes, real DDS, a real bag, real DICOM."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from usx_bringup.acquisition import read_recording, read_truth
from usx_bringup.report import completed_meshes, truth_in_spine
from usx_bringup.results import Results, read_results
from usx_common.levels import LEVELS
from usx_common.meshes import sample_surface

pytestmark = pytest.mark.timeout(420)
SEED = 3
USX = [sys.executable, "-m", "usx_runtime"]
NODES = ("compounding_node", "xray_node", "registration_node", "completion_node")
EDGES = {"us_volume": "world", "us_image": "us_probe", "spine": "us_volume", "cbct": "us_volume"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    domain = str(random.SystemRandom().randint(1, 200))
    return os.environ | {"ROS_DOMAIN_ID": domain, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def acquisition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "acquisition"
    command = [*USX, "run", "usx_phantom", "make_phantom", "--out", str(folder), "--seed", str(SEED), "--duration", "8",
               "--frames", "120", "--quiet"]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def demo(acquisition: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    command = [*USX, "run", "usx_bringup", "demo", "--acquisition", str(acquisition), "--out", str(out)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=360)
    log = (out / "launch.log").read_text() if (out / "launch.log").is_file() else ""
    assert result.returncode == 0, result.stdout + result.stderr + log[-8000:]
    return out


@pytest.fixture(scope="module")
def results(demo: Path) -> Results:
    return read_results(demo)


def test_every_frame_of_the_bag_is_accounted_for(acquisition, results):
    frames = read_recording(acquisition / "bag").frames
    account = results.account()
    assert account["received"] == frames == 120
    assert account["pending"] == 0
    assert account["used"] + account["rejected"] == frames
    assert account["used"] >= 0.95 * frames


def test_playback_began_when_all_nodes_were_there(demo):
    log = (demo / "launch.log").read_text()
    assert all(name in log.split("all nodes are there")[0] for name in NODES)


def test_the_results_answer_the_last_frame(acquisition, results):
    last = results.stamps["us/bone"]
    assert last <= read_recording(acquisition / "bag").last_stamp
    assert results.stamps["spine/partial"] == results.stamps["spine/completed"] == last


def test_every_frame_has_one_parent(results):
    parents = results.parents
    for child, parent in EDGES.items():
        assert parents[child] == [parent]
    assert all(len(found) == 1 for found in parents.values()), parents
    assert {f"vertebra_{level}" for level in LEVELS} <= set(parents)


def test_each_level_is_within_3_mm_of_the_truth(acquisition, results):
    truth = truth_in_spine(results, read_truth(acquisition))
    completed = completed_meshes(results)
    assert list(completed) == list(LEVELS)
    for level in LEVELS:
        assert completed[level].is_watertight
        assert _surface_distance(completed[level], truth[level]) < 3.0, level


def _surface_distance(first, second) -> float:
    """Mean symmetric distance of dense samples, mm: scipy's tree, independent of the metrics under test."""
    from scipy.spatial import cKDTree

    a, b = sample_surface(first, 20000, 1), sample_surface(second, 20000, 2)
    return float(0.5 * (cKDTree(a).query(b)[0].mean() + cKDTree(b).query(a)[0].mean()))


def test_the_report_holds_what_it_promises(demo):
    header = "level,part,assd_mm,hd95_mm,cd_t_e4,f1,emd_e4,unit_mm,placed_mean_assd_mm"
    lines = (demo / "metrics.csv").read_text().splitlines()
    assert lines[0] == header and len(lines) == 1 + 3 * len(LEVELS)
    for row in (line.split(",") for line in lines[1:]):
        if row[1] == "whole":
            assert float(row[2]) < float(row[8]), f"{row[0]} is no better than the mean shape placed"
    text = (demo / "report.md").read_text()
    for name in ("volume.png", "xray.png", "spine.png"):
        assert f"({name})" in text and (demo / name).stat().st_size > 20_000
    assert (demo / "volume.nrrd").is_file()
    for level in LEVELS:
        assert b"frame spine (LPS" in (demo / "meshes" / f"{level}.ply").read_bytes()[:300]


def test_no_process_is_left(demo, environment):
    domain = environment["ROS_DOMAIN_ID"]
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("ROS_DOMAIN_ID") == domain:
                left.append(process.cmdline())
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    assert not left


def test_nodes_say_what_became_of_every_input(results):
    for name, status in results.statuses.items():
        if "received" in status:
            rejected = sum(int(v) for k, v in status.items() if k.startswith("rejected."))
            assert int(status["received"]) == int(status["used"]) + rejected + int(status["pending"]), name


def test_nothing_is_played_while_a_node_is_missing(environment, tmp_path):
    flag = tmp_path / "played"
    command = [*USX, "run", "usx_bringup", "when_ready", "--nodes", "absent_node", "--timeout", "3", "--", "touch",
               str(flag)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1 and "absent_node" in result.stderr and not flag.exists()


def test_the_partial_cloud_is_the_joint_space(results):
    partial = results.clouds["spine/partial"]
    assert set(np.unique(np.round(partial["source"]))) == {0.0, 1.0}
    assert {20.0, 21.0, 22.0, 23.0, 24.0} <= set(np.unique(np.round(partial["label"])))
    cranial = [results.points_mm("spine/partial")[np.round(partial["label"]) == label, 2].mean()
               for label in range(20, 25)]
    assert all(np.diff(cranial) < -15.0)

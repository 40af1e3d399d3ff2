"""The whole chain on a short acquisition: real processes, real DDS, a real bag, real DICOM."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from rosbags.highlevel import AnyReader
from scipy.spatial import cKDTree

from usx_bringup.acquisition import read_recording, read_truth
from usx_bringup.dry_run import examine
from usx_bringup.report import completed_meshes, truth_in_spine
from usx_bringup.results import Results, read_results
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, label_of_level
from usx_common.meshes import sample_surface
from usx_common.transforms import apply
from usx_completion.rigid import align
from usx_phantom.acquisition import AcquisitionSettings
from usx_phantom.sweep import SweepSettings
from usx_viewer.colours import LEVEL_COLOURS

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from browser import Browser, chromium, levels_seen

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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*USX, "run", "usx_bringup", "demo", "--acquisition", str(acquisition), "--out", str(out), "--view",
               "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        words = _until(process, "stays open")
        log = (out / "launch.log").read_text() if (out / "launch.log").is_file() else ""
        assert "stays open" in words, words + log[-8000:]
        if chromium() is not None:
            _look(f"http://127.0.0.1:{port}", out)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 0
    return out


def _until(process: subprocess.Popen[str], word: str) -> str:
    """What a process says, up to the line with ``word`` or its end."""
    said = ""
    for line in process.stdout:
        said += line
        if word in line:
            break
    return said


def _look(url: str, out: Path) -> None:
    """Open the page and wait until the five levels are drawn; keep a picture and the words of the page."""
    with Browser(url, (1440, 900)) as browser:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            time.sleep(2.0)
            browser.screenshot(out / "browser.png")
            if len(levels_seen(out / "browser.png", LEVEL_COLOURS)) == len(LEVELS):
                break
        (out / "browser.txt").write_text(browser.evaluate("document.body.innerText"))


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


def test_the_chain_without_nodes_sees_the_same(results, acquisition):
    """`dry_run`, which the completion network learns from, with the CBCT that a pool of examples does without."""
    truth = read_truth(acquisition)
    dry = examine(truth.meshes, AcquisitionSettings(SEED, SweepSettings(duration=8.0, frame_rate=15.0)),
                  with_cbct=True)
    here = np.concatenate([mesh.vertices for mesh in truth_in_spine(results, truth).values()])
    there = np.concatenate([mesh.transformed(dry.cbct_to_spine).vertices for mesh in truth.meshes.values()])
    there_to_here = align(there, here)
    assert np.abs(apply(there_to_here, there) - here).max() < 0.01
    assert np.degrees(np.arccos((np.trace(there_to_here[:3, :3]) - 1.0) / 2.0)) < 0.5
    cloud, partial = results.clouds["spine/partial"], dry.partial
    nodes, mine = 1000.0 * np.stack([cloud[axis] for axis in "xyz"], axis=1), apply(there_to_here, partial.points)
    theirs, ours = cloud["source"] == SOURCE_ULTRASOUND, partial.sources == SOURCE_ULTRASOUND
    distance, near = cKDTree(mine[ours]).query(nodes[theirs])
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.05)
    assert np.quantile(distance, 0.9) < 0.4 and np.quantile(cKDTree(nodes[theirs]).query(mine[ours])[0], 0.9) < 0.4
    assert (partial.labels[ours][near] == cloud["label"][theirs]).mean() > 0.95
    for level in LEVELS:
        bodies = [points[~seen & (labels == label_of_level(level))] for points, seen, labels in
                  ((nodes, theirs, cloud["label"]), (mine, ours, partial.labels))]
        assert len(bodies[0]) == len(bodies[1])
        apart = bodies[0].mean(axis=0) - bodies[1].mean(axis=0)
        assert np.abs(apart[1:]).max() < 0.1, level


def test_playback_began_when_all_nodes_were_there(demo):
    log = (demo / "launch.log").read_text()
    assert all(name in log.split("all nodes are there")[0] for name in NODES)


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_completed_levels_and_what_every_node_says(demo):
    assert levels_seen(demo / "browser.png", LEVEL_COLOURS) == set(LEVELS)
    text = (demo / "browser.txt").read_text()
    assert all(name in text for name in NODES)


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_the_viewer_got_every_kind_of_result(results):
    streams = {name.removeprefix("viewer_node: "): status for name, status in results.statuses.items()
               if name.startswith("viewer_node: ")}
    for topic in ("us/bone", "us/slice", "cbct/bone", "xray/bodies", "xray/image", "spine/partial", "spine/completed",
                  "spine/meshes"):
        assert int(streams[topic]["used"]) > 0, topic


def test_the_results_answer_the_last_frame(acquisition, results):
    last = results.stamps["us/bone"]
    if results.account()["rejected"] == 0:
        assert last == read_recording(acquisition / "bag").last_stamp
    assert results.stamps["spine/partial"] == results.stamps["spine/completed"] == last


def test_every_frame_has_one_parent(results):
    parents = results.parents
    for child, parent in EDGES.items():
        assert parents[child] == [parent]
    assert all(len(found) == 1 for found in parents.values()), parents
    for leaf, root in (("us_image", "world"), ("xray", "world"), ("vertebra_L1", "world"), ("vertebra_L5", "world")):
        assert _root(leaf, parents) == root
    assert {f"vertebra_{level}" for level in LEVELS} <= set(parents)


def _root(frame: str, parents: dict[str, list[str]]) -> str:
    while frame in parents:
        frame = parents[frame][0]
    return frame


def test_the_nodes_edges_are_none_of_the_robots(acquisition, results):
    """One publisher per edge: the player alone publishes what the bag holds, and the bag holds no edge of the nodes."""
    with AnyReader([acquisition / "bag"]) as reader:
        connections = [c for c in reader.connections if c.topic in ("/tf", "/tf_static")]
        recorded = {t.child_frame_id for connection, _, data in reader.messages(connections)
                    for t in reader.deserialize(data, connection.msgtype).transforms}
    added = set(results.parents) - recorded
    vertebrae = {f"vertebra_{level}" for level in LEVELS}
    assert added == {"us_volume", "us_image", "spine", "cbct", "xray"} | vertebrae
    assert recorded <= set(results.parents)
    player = set(results.publishers["/tf"])
    assert len(results.publishers["/tf"]) == 1 and player.isdisjoint(NODES)  # the robot's edges: the player alone
    static = [name for name in results.publishers["/tf_static"] if name not in player]
    assert static == ["compounding_node", "registration_node"]  # each its own edges, once


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

"""When a sweep is answered, what is missing when it is not, and that results survive their file."""

from __future__ import annotations

import numpy as np
import pytest

from usx_bringup.results import FRAMES_STREAM, Results, read_results, triangle_mesh

CLOUD = {"x": np.array([0.001], np.float32), "y": np.array([0.002], np.float32), "z": np.array([0.003], np.float32)}


def account(received: int, used: int, pending: int = 0, **rejected: int) -> dict[str, str]:
    return {"received": str(received), "used": str(used), "pending": str(pending),
            **{f"rejected.{k}": str(v) for k, v in rejected.items()}}


def test_the_answer_to_the_last_frame_completes():
    results = Results(frames=10, last_stamp=99)
    assert not results.complete()
    results.add_cloud("spine/completed", CLOUD, "spine", 98)
    assert not results.complete()
    results.add_cloud("spine/completed", CLOUD, "spine", 99)
    assert results.complete() and not results.settled(60.0) and results.settled(0.0)


@pytest.mark.parametrize(("status", "bone", "complete"), [
    (account(10, 9, no_later_pose=1), 98, True),
    (account(10, 8, pending=1, no_later_pose=1), 98, False),
    (account(9, 8, no_later_pose=1), 98, False),
    (account(10, 9, no_later_pose=1), 97, False),
])
def test_a_rejected_last_frame_is_waited_for_no_longer(status, bone, complete):
    results = Results(frames=10, last_stamp=99)
    results.add_cloud("us/bone", CLOUD, "us_volume", bone)
    results.add_cloud("spine/completed", CLOUD, "spine", 98)
    results.add_status(FRAMES_STREAM, "", status)
    assert results.complete() is complete


def test_what_is_missing_names_counts_and_the_nodes_words():
    results = Results(frames=10, last_stamp=99)
    results.add_status(FRAMES_STREAM, "", account(7, 5, speed=2))
    results.add_status("xray_node: state", "waiting for an X-ray", {})
    text = results.what_is_missing()
    assert "7 of 10" in text and "5 used" in text and "2 rejected" in text and "waiting for an X-ray" in text


def test_results_survive_their_file(tmp_path):
    results = Results(frames=10, last_stamp=99)
    results.add_cloud("spine/partial", {**CLOUD, "label": np.array([20.0])}, "spine", 98)
    results.add_image("xray/image", np.arange(6, dtype=np.uint16).reshape(2, 3))
    results.add_marker("L1", 20, [(0.0, 0.0, 0.0), (0.01, 0.0, 0.0), (0.0, 0.01, 0.0)])
    results.add_transform("world", "us_volume", np.eye(4) * [1, 1, 1, 1])
    results.add_saved("compounding_node", True, "out/volume.nrrd")
    results.write(tmp_path)
    back = read_results(tmp_path)
    np.testing.assert_allclose(back.points_mm("spine/partial"), [[1, 2, 3]], rtol=1e-6)
    np.testing.assert_array_equal(back.images["xray/image"], results.images["xray/image"])
    np.testing.assert_array_equal(back.matrix("us_volume", "world"), np.eye(4))
    assert back.matrix("spine", "us_volume") is None and back.stamps == {"spine/partial": 98}
    assert back.saved["compounding_node"]["success"]
    mesh = triangle_mesh(back.meshes["L1/20"])
    assert len(mesh.vertices) == 3 and np.ptp(mesh.vertices) == pytest.approx(10.0)


def test_a_newer_answer_forgets_the_vertebrae_of_the_older():
    results = Results(frames=1, last_stamp=1)
    results.add_marker("L1", 20, [(0.0, 0.0, 0.0)] * 3)
    results.clear_meshes()
    results.add_marker("L2", 21, [(0.0, 0.0, 0.0)] * 3)
    assert list(results.meshes) == ["L2/21"]


def test_a_partial_cloud_that_is_still_being_fitted_is_waited_for():
    results = Results(frames=10, last_stamp=99)
    results.add_cloud("spine/completed", CLOUD, "spine", 99)
    results.add_cloud("spine/partial", CLOUD, "spine", 99)
    assert not results.settled(0.0) and results.settled(0.0, patience_s=0.0)
    results.add_cloud("spine/completed", CLOUD, "spine", 99)
    assert results.settled(0.0)


def test_a_sweep_without_an_answer_is_given_up_when_all_frames_are_decided():
    results = Results(frames=10, last_stamp=99)
    results.add_status(FRAMES_STREAM, "", account(10, 8, pending=2))
    assert not results.abandoned(0.0)
    results.add_status(FRAMES_STREAM, "", account(10, 8, gap=2))
    assert results.abandoned(0.0) and not results.abandoned(60.0)

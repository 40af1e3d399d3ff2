"""Acquisition folders, command names, the demo's options and the drawing of meshes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib import pyplot as plt
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from usx_bringup import demo, ros_command
from usx_bringup.acquisition import read_recording, read_truth
from usx_common import drawing
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, write_mesh

CUBE = Mesh(np.array([[x, y, z] for x in (0, 10) for y in (0, 10) for z in (0, 10)], float),
            np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]))


def write_bag(folder: Path, stamps: list[int], topic: str = "/us/image_raw") -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    with Writer(folder, version=9) as writer:
        connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
        for stamp in stamps:
            time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = types["std_msgs/msg/Header"](stamp=time, frame_id="us_image")
            image = types["sensor_msgs/msg/Image"](header=header, height=2, width=2, encoding="mono8", is_bigendian=0,
                                                   step=2, data=np.zeros(4, np.uint8))
            writer.write(connection, stamp + 7, store.serialize_cdr(image, "sensor_msgs/msg/Image"))


def test_a_recording_tells_its_frames_and_their_own_stamps(tmp_path):
    stamps = [1_700_000_000_123_456_789, 1_700_000_001_000_000_001, 1_700_000_002_999_999_999]
    write_bag(tmp_path / "bag", stamps)
    recording = read_recording(tmp_path / "bag")
    assert (recording.frames, recording.first_stamp, recording.last_stamp) == (3, stamps[0], stamps[-1])
    assert recording.duration_s == pytest.approx(2.876543, abs=1e-6)


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsxError, match=r"no metadata\.yaml"):
        read_recording(tmp_path / "empty")
    write_bag(tmp_path / "other", [1], topic="/camera")
    with pytest.raises(UsxError, match="no image on /us/image_raw"):
        read_recording(tmp_path / "other")
    write_bag(tmp_path / "cut", [1, 2])
    for path in (tmp_path / "cut").glob("*"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UsxError, match="cut"):
        read_recording(tmp_path / "cut")


def test_truth_is_optional_and_read_where_it_is(tmp_path):
    assert read_truth(tmp_path) is None
    (tmp_path / "truth").mkdir()
    matrix = np.eye(4)
    matrix[0, 3] = 5.0
    (tmp_path / "truth" / "transforms.yaml").write_text(yaml.safe_dump({"cbct_to_world": matrix.ravel().tolist()}))
    write_mesh(tmp_path / "truth" / "L3.ply", CUBE)
    truth = read_truth(tmp_path)
    assert list(truth.meshes) == ["L3"] and truth.cbct_to_world[0, 3] == 5.0


def test_the_command_of_ros_is_found_beside_python_or_on_the_path(tmp_path, monkeypatch):
    tool = tmp_path / "ros2"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ros_command.resolve(["ros2", "bag", "play"]) == [str(tool), "bag", "play"]
    assert ros_command.resolve(["touch", "file"]) == ["touch", "file"]
    tool.unlink()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsxError, match="neither"):
        ros_command.ros_command()


def test_the_demos_options():
    settings, options = demo.parse_arguments(["--seed", "7", "--out", "out/x"])
    assert settings.acquisition == Path("out/x/acquisition") and options.seed == 7 and not settings.view
    with pytest.raises(SystemExit):
        demo.parse_arguments(["--rate", "0"])


def test_the_demo_refuses_a_folder_that_is_no_acquisition(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo", "--acquisition", str(tmp_path / "nothing"), "--out", str(tmp_path)])
    assert demo.main() == 2
    assert "nothing" in capsys.readouterr().err


def test_views_look_from_where_they_say():
    behind = drawing.FROM_BEHIND.project(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(behind, [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-12)  # patient left is on the left
    left = drawing.FROM_LEFT.project(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(left, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_only_faces_towards_the_viewer_are_drawn_and_lit_by_their_tilt():
    figure, axes = plt.subplots()
    drawing.draw_meshes(axes, [CUBE], ["#ffffff"], drawing.View(right=(1, 0, 0), up=(0, 1, 0)))
    collection = axes.collections[0]
    assert len(collection.get_paths()) == 2
    expected = drawing.AMBIENT + (1 - drawing.AMBIENT) * drawing.LIGHT[2] / np.linalg.norm(drawing.LIGHT)
    np.testing.assert_allclose(collection.get_facecolors()[:, 0], expected, atol=0.01)
    plt.close(figure)

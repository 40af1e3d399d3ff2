"""The real sweep through the node: a bag in, a saved volume out, the same figures as off-line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from usx_common.ros import conversion, interface
from usx_common.volumes import read_volume
from usx_compounding.igs_to_bag import main as igs_to_bag

sys.path.insert(0, str(Path(__file__).parent))
import spine_phantom as oracle_of

pytestmark = [pytest.mark.real_data, pytest.mark.timeout(200)]
CONFIGURATION = "PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml"
CONFIG = Path(__file__).parents[2] / "config" / "compounding_node.yaml"
NODE = "from usx_runtime import hook; hook.install(); " if "usx_runtime" in sys.modules else ""


class Client(Node):
    """Watches the node under test and calls its services."""

    def __init__(self) -> None:
        super().__init__("watcher")
        self.bone: PointCloud2 | None = None
        self.streams: dict[str, dict[str, str]] = {}
        self.create_subscription(PointCloud2, "us/bone", self._on_bone, interface.LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.saver = self.create_client(Trigger, "compounding_node/save")

    def _on_bone(self, message: PointCloud2) -> None:
        self.bone = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.streams[status.name] = {value.key: value.value for value in status.values} | {"text": status.message}

    def spin_until(self, done, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.05)
        return bool(done())


@pytest.fixture(scope="module")
def acquisition(usx_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("igs") / "acquisition"
    sweep = usx_data / "sweeps" / "SpinePhantomFreehand.igs.mha"
    assert igs_to_bag([str(sweep), "--calibration", str(usx_data / "sweeps" / CONFIGURATION), "--out", str(folder),
                       "--quiet"]) == 0
    return folder


@pytest.fixture
def client():
    rclpy.init(args=[])
    node = Client()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def start_node(acquisition: Path, save_folder: Path, combination: str) -> subprocess.Popen:
    program = NODE + "import sys; from usx_compounding.node import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--ros-args", "--params-file", str(CONFIG), "--params-file",
               str(acquisition / "params.yaml"), "-p", f"save_folder:={save_folder}", "-p",
               f"combination:={combination}", "-p", "save_name:=volume", "-p", "idle_timeout:=2.0"]
    return subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"})


def last_stamp(folder: Path) -> int:
    header = (folder / "sweeps" / "SpinePhantomFreehand.igs.mha").read_bytes().split(b"ElementDataFile")[0]
    return round(float(re.findall(rb"_Timestamp = (\S+)", header)[-1]) * 1e9)


@pytest.mark.parametrize("combination", ["mean", "maximum"])
def test_bag_in_volume_out(usx_data, acquisition, client, tmp_path, combination):
    process = start_node(acquisition, tmp_path / "saved", combination)
    try:
        frames = "compounding_node: us/image_raw"
        assert client.spin_until(lambda: frames in client.streams, 60), "the node did not start"
        player = "usx_runtime" if "usx_runtime" in sys.modules else None
        play = [sys.executable, "-m", player] if player else ["ros2"]
        subprocess.run([*play, "bag", "play", str(acquisition / "bag")], check=True, timeout=60)
        complete = "sweep 1 complete"
        assert client.spin_until(lambda: client.streams.get("compounding_node: state", {}).get("text") == complete, 60)
        assert client.spin_until(lambda: client.streams[frames]["pending"] == "0", 10)
        assert (client.streams[frames]["received"], client.streams[frames]["used"]) == ("21", "21"), client.streams
        answer = client.saver.call_async(Trigger.Request())
        assert client.spin_until(answer.done, 60) and answer.result().success, answer.result()
    finally:
        process.terminate()
        process.wait(20)
    assert process.returncode == 0
    assert client.bone is not None and client.bone.width > 200
    assert conversion.stamp_nanoseconds(client.bone.header.stamp) == last_stamp(usx_data)

    volume = read_volume(tmp_path / "saved" / "volume.nrrd")
    expected, origin = oracle_of.reference(usx_data, combination)
    shift = (volume.grid.origin - origin) / oracle_of.SPACING
    assert np.abs(shift - np.rint(shift)).max() < 0.01
    result = oracle_of.on_reference(volume.values, volume.grid.origin, origin, expected.shape)
    correlation, overlap = oracle_of.hit_in_both(result, result > 0, expected)
    print(f"through the node, {combination}: correlation {correlation:.5f}, {overlap:.3f} of the reference hit")
    assert correlation >= oracle_of.LIMITS[combination]

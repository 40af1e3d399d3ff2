"""Acquisition folders: complete, consistent with the truth, the same for the same seed, and safe with bad input."""

import hashlib

import numpy as np
import pytest
import yaml
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_common.meshes import read_mesh
from usx_common.transforms import parse_matrix, rotation_angle
from usx_common.volumes import read_volume
from usx_phantom import acquisition, phantom_source, robot
from usx_phantom.make_phantom import main
from usx_phantom.overlap import BoneSurface
from usx_phantom.spine import Spine

STORE = get_typestore(Stores.ROS2_JAZZY)
FRAMES = 24
SHORT = ["--seed", "5", "--frames", str(FRAMES), "--duration", "3", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("acquisition") / "acq"
    assert main([*SHORT, "--out", str(out)]) == 0
    return out


def matrix(transform):
    result = np.eye(4)
    q, t = transform.rotation, transform.translation
    result[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    result[:3, 3] = np.array([t.x, t.y, t.z]) * 1e3
    return result


@pytest.fixture(scope="module")
def bag(folder):
    """topic -> list of (log time, message), read with rosbags."""
    found = {}
    with Reader(folder / "bag") as reader:
        for connection, time, data in reader.messages():
            message = STORE.deserialize_cdr(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time, message))
    return found


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def truth(folder, name):
    return parse_matrix(yaml.safe_load((folder / "truth" / "transforms.yaml").read_text())[name])


def test_folder_holds_everything(folder):
    assert {p.name for p in folder.iterdir()} == {"bag", "xray", "cbct", "truth", "params.yaml", "acquisition.yaml"}
    assert len(list((folder / "cbct").glob("*.dcm"))) > 50
    assert len(list((folder / "xray").glob("*.dcm"))) == 1
    labels = read_volume(folder / "truth" / "labelmap.nrrd")
    assert set(np.unique(labels.values)) == {0, 20, 21, 22, 23, 24}
    assert all(read_mesh(folder / "truth" / f"{level}.ply").is_watertight for level in LEVELS)
    assert not folder.with_name("acq.partial").exists()


def test_bag_has_the_topics_types_and_offered_qos(folder):
    metadata = yaml.safe_load((folder / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 9 and metadata["storage_identifier"] == "mcap"
    with Reader(folder / "bag") as reader:
        found = {c.topic: c for c in reader.connections}
    assert {name: c.msgtype for name, c in found.items()} == {
        "/us/image_raw": "sensor_msgs/msg/Image", "/joint_states": "sensor_msgs/msg/JointState",
        "/tf": "tf2_msgs/msg/TFMessage", "/tf_static": "tf2_msgs/msg/TFMessage"}
    static = found["/tf_static"].ext.offered_qos_profiles[0]
    assert static.durability == QosDurability.TRANSIENT_LOCAL and static.reliability == QosReliability.RELIABLE
    assert found["/us/image_raw"].ext.offered_qos_profiles[0].durability == QosDurability.VOLATILE


def test_streams_cover_each_other(bag):
    images, joints, tf = bag["/us/image_raw"], bag["/joint_states"], bag["/tf"]
    assert len(images) == FRAMES
    stamps = [nanoseconds(m.header.stamp) for _, m in images]
    tf_stamps = np.array([nanoseconds(m.transforms[0].header.stamp) for _, m in tf])
    assert (np.diff(stamps) > 0).all()
    assert tf_stamps[0] < stamps[0] - 10**8 and tf_stamps[-1] > stamps[-1] + 10**8
    assert set(np.diff(tf_stamps)) == {10**7}  # 100 Hz
    assert len(joints) == len(tf)
    assert bag["/tf_static"][0][0] <= min(tf[0][0], images[0][0])
    logs = [time for topic in bag.values() for time, _ in topic]
    assert min(logs) == bag["/tf_static"][0][0]
    for time, message in images:
        assert message.encoding == "mono8" and (message.height, message.width, message.step) == (480, 640, 640)
        assert message.header.frame_id == "us_image"
        assert time >= nanoseconds(message.header.stamp)
        assert message.data.std() > 10


def static_transforms(bag):
    return {(m.header.frame_id, m.child_frame_id): matrix(m.transform) for m in bag["/tf_static"][0][1].transforms}


def test_tf_is_the_forward_kinematics_of_the_joint_states(bag):
    static = static_transforms(bag)
    assert set(static) == {("world", "lbr_floating_link"), ("lbr_floating_link", "lbr_link_0"),
                           ("lbr_link_7", "lbr_link_ee"), ("lbr_link_ee", "us_probe")}
    for (_, joints), (_, tf) in list(zip(bag["/joint_states"], bag["/tf"], strict=True))[::40]:
        assert list(joints.name) == list(robot.NAMING["rolling"].joints)
        assert [t.child_frame_id for t in tf.transforms] == [f"lbr_link_{i}" for i in range(1, 8)]
        chain = np.eye(4)
        for step in tf.transforms:
            chain = chain @ matrix(step.transform)
        chain = chain @ static["lbr_link_7", "lbr_link_ee"]
        assert np.allclose(chain, robot.forward(np.array(joints.position)), atol=1e-6)
        assert (np.abs(joints.velocity) < robot.VELOCITY_LIMITS).all()


def test_bone_echoes_lie_on_the_true_bones(folder, bag):
    """From pixels through calibration, TF and the true pose: bright pixels over a shadow are bone."""
    static = static_transforms(bag)
    before = static["world", "lbr_floating_link"] @ static["lbr_floating_link", "lbr_link_0"]
    after = static["lbr_link_7", "lbr_link_ee"] @ static["lbr_link_ee", "us_probe"]
    world_to_cbct = np.linalg.inv(truth(folder, "cbct_to_world"))
    stamps = np.array([nanoseconds(m.transforms[0].header.stamp) for _, m in bag["/tf"]])
    bones = np.concatenate([read_mesh(folder / "truth" / f"{level}.ply").vertices for level in LEVELS])
    points = []
    for _, image in bag["/us/image_raw"]:
        nearest = int(np.abs(stamps - nanoseconds(image.header.stamp)).argmin())
        chain = np.eye(4)
        for step in bag["/tf"][nearest][1].transforms:
            chain = chain @ matrix(step.transform)
        pixels = image.data.reshape(480, 640).astype(float)
        below = np.array([pixels[row + 15:row + 75].mean(0) if row < 400 else np.full(640, 255.0)
                          for row in range(480)])
        rows, columns = np.nonzero((pixels > 200) & (below < 25) & (np.arange(480)[:, None] > 70))
        pixel = np.stack([columns, rows, 0 * rows, 0 * rows + 1.0])
        points.append((world_to_cbct @ before @ chain @ after @ truth(folder, "image_to_probe") @ pixel)[:3].T)
    points = np.concatenate(points)
    assert len(points) > 50
    assert np.median(cKDTree(bones).query(points)[0]) < 1.5
    assert np.ptp(points[:, 2]) > 80


def test_parameters_are_what_an_operator_knows(folder):
    parameters = yaml.safe_load((folder / "params.yaml").read_text())
    assert list(parameters) == ["/**"]  # rclpy knows this wildcard alone
    compounding = registration = parameters["/**"]["ros__parameters"]
    assert np.allclose(parse_matrix(compounding["image_to_probe"]), truth(folder, "image_to_probe"))
    assert len(compounding["mask_fan"]) == 6
    error = parse_matrix(registration["cbct_to_world"]) @ np.linalg.inv(truth(folder, "cbct_to_world"))
    assert np.degrees(rotation_angle(error)) == pytest.approx(3.0, abs=1e-6)
    middle = truth(folder, "cbct_to_world") @ [*read_mesh(folder / "truth" / "L3.ply").vertices.mean(0), 1.0]
    assert np.linalg.norm((error @ middle - middle)[:3]) == pytest.approx(5.0, abs=1e-3)
    up = truth(folder, "cbct_to_world")[:3, 1]
    assert up @ registration["patient_posterior_axis"] > np.cos(np.radians(10))
    head = truth(folder, "cbct_to_world")[:3, 2]
    assert head @ registration["patient_cranial_axis"] > np.cos(np.radians(10))
    assert "truth" not in (folder / "params.yaml").read_text()


def test_clicks_are_in_the_bodies_but_not_in_their_middles(folder):
    from usx_phantom.phantom_scene import body_centres

    seeds = yaml.safe_load((folder / "params.yaml").read_text())["/**"]["ros__parameters"]
    assert seeds["seed_labels"] == [20, 21, 22, 23, 24]
    xray_to_cbct = truth(folder, "xray_to_cbct")
    centres = body_centres(read_volume(folder / "truth" / "labelmap.nrrd"))
    import pydicom

    image = pydicom.dcmread(next((folder / "xray").iterdir()))
    spacing, sid = image.ImagerPixelSpacing[0], image.DistanceSourceToDetector
    for number, level in enumerate(LEVELS):
        p = np.linalg.inv(xray_to_cbct) @ [*centres[level], 1.0]
        middle = p[:2] / p[2] * sid / spacing + (np.array([image.Columns, image.Rows]) - 1) / 2
        click = np.array([seeds["seed_columns"][number], seeds["seed_rows"][number]])
        off = np.linalg.norm(click - middle) * spacing * p[2] / sid
        assert 1.9 < off < 3.7


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_seed_same_bytes(folder, tmp_path):
    again = tmp_path / "again"
    assert main([*SHORT, "--out", str(again), "--no-cbct"]) == 0
    for name in ("bag/bag.mcap", "truth/L1.ply", "truth/L5.ply", "truth/transforms.yaml", "params.yaml",
                 "truth/labelmap.nrrd", "xray/lateral.dcm"):
        mine = again / name
        if name.endswith(".mcap"):
            mine = next((again / "bag").glob("*.mcap"))
            assert digest(mine) == digest(next((folder / "bag").glob("*.mcap")))
        else:
            assert digest(mine) == digest(folder / name), name


def test_reused_replaced_and_never_overwritten(folder, tmp_path, capsys, monkeypatch):
    before = (folder / "acquisition.yaml").stat().st_mtime_ns
    assert main([*SHORT, "--out", str(folder)]) == 0
    assert "reused" in capsys.readouterr().out
    assert (folder / "acquisition.yaml").stat().st_mtime_ns == before
    monkeypatch.setattr(acquisition, "IMAGES", acquisition.IMAGES + 1)
    assert main([*SHORT, "--out", str(folder)]) == 2  # made by simulators of another revision
    monkeypatch.undo()
    other = [*SHORT, "--out", str(folder)]
    other[1] = "6"
    assert main(other) == 2
    assert "--overwrite" in capsys.readouterr().err
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    assert main([*SHORT, "--out", str(precious), "--overwrite"]) == 2
    assert (precious / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--seed", "-1"], "--seed -1"), (["--seed", str(2**31)], "--seed"), (["--frames", "1"], "--frames 1"),
    (["--duration", "0"], "duration"), (["--duration", "nan"], "duration"), (["--frame-rate", "0"], "frame_rate"),
    (["--frames", "50", "--duration", "0"], "must be"), (["--meshes", "/nowhere/at/all"], "does not exist"),
])
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_out_in_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main([*SHORT, "--out", str(tmp_path / "file")]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.fixture
def known_bones(folder, monkeypatch):
    """The bones of the acquisition made before, instead of sampling them again."""
    meshes = {level: read_mesh(folder / "truth" / f"{level}.ply") for level in LEVELS}
    monkeypatch.setattr(phantom_source, "sample_spine", lambda seed: Spine(meshes, {}))


def test_nothing_half_made_is_left_when_it_fails(tmp_path, monkeypatch, known_bones):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(acquisition.dicom_xray, "write", fail)
    out = tmp_path / "out"
    assert main([*SHORT, "--out", str(out), "--no-cbct"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_label_map_and_other_naming_scheme(folder, tmp_path):
    """The label map of one acquisition makes another of the same bones."""
    out = tmp_path / "humble"
    assert main(["--seed", "5", "--frames", "3", "--duration", "3", "--naming", "humble", "--no-cbct", "--quiet",
                 "--labelmap", str(folder / "truth" / "labelmap.nrrd"), "--out", str(out)]) == 0
    assert yaml.safe_load((out / "acquisition.yaml").read_text())["source"]["kind"] == "labelmap"
    again, before = ({level: read_mesh(place / "truth" / f"{level}.ply") for level in LEVELS}
                     for place in (out, folder))
    # Bones of a label map are centred to whole millimetres.
    shift = np.round(before["L3"].vertices.min(0) - again["L3"].vertices.min(0))
    for level in LEVELS:
        distance = BoneSurface(before[level]).signed_distance(again[level].vertices + shift)[0]
        assert np.abs(distance).mean() < 0.2
    with Reader(out / "bag") as reader:
        for connection, _, data in reader.messages():
            if connection.topic == "/joint_states":
                assert STORE.deserialize_cdr(data, connection.msgtype).name[0] == "A1"
            elif connection.topic == "/tf_static":
                edges = STORE.deserialize_cdr(data, connection.msgtype).transforms
                assert ("lbr/world", "lbr/link_0") in {(e.header.frame_id, e.child_frame_id) for e in edges}

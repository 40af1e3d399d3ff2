"""Saving, calibration files, temporal calibration, parameters, and the two commands."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader

from usx_common.errors import UsxError
from usx_common.parameters import document, validate
from usx_common.transforms import make_transform
from usx_common.volumes import Volume, VolumeGrid, read_volume
from usx_compounding import parameters
from usx_compounding.calibration import BadCalibration, pixel_spacing, read_calibration
from usx_compounding.compound_cli import main as compound
from usx_compounding.igs_to_bag import main as igs_to_bag
from usx_compounding.saving import CannotSave, save_volume
from usx_compounding.sequence import Sequence, matrix_text
from usx_compounding.sequence_files import write_sequence
from usx_compounding.sequence_poses import place_frames
from usx_compounding.temporal_calibration import CannotCalibrate, bottom_depth, find_delay, main_motion

CALIBRATION = np.array([[0.4, 0.01, 0, -8], [0, 0.02, 0.4, 1], [0.01, 0.4, 0, 0], [0, 0, 0, 1]])
VOLUME = Volume(np.random.default_rng(0).integers(0, 255, (4, 5, 6), dtype=np.uint8),
                VolumeGrid(np.array([1.0, -2, 3]), np.full(3, 0.5), (6, 5, 4)))


# -- saving -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["nrrd", "nii.gz", "mha"])
def test_what_is_saved_reads_back(tmp_path, kind):
    path = save_volume(tmp_path / "new" / "folder", "sweep_1", kind, VOLUME)
    again = read_volume(path)
    assert np.array_equal(again.values, VOLUME.values) and np.allclose(again.grid.origin, VOLUME.grid.origin)
    assert [p.name for p in path.parent.iterdir()] == [f"sweep_1.{kind}"]


@pytest.mark.parametrize(("folder", "name", "kind", "words"), [
    ("", "a", "nrrd", "save_folder"), ("x", "../a", "nrrd", "refused"), ("x", "a/b", "nrrd", "refused"),
    ("x", "/etc/passwd", "nrrd", "refused"), ("x", "", "nrrd", "refused"), ("x", ".hidden", "nrrd", "refused"),
    ("x", "a", "exe", "unknown"), ("file/below", "a", "nrrd", "cannot be saved")])
def test_bad_places_are_refused(tmp_path, monkeypatch, folder, name, kind, words):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    with pytest.raises(CannotSave, match=words):
        save_volume(folder, name, kind, VOLUME)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.suffix) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 10))
    with pytest.raises(CannotSave, match="disk is full"):
        save_volume(tmp_path, "a", "nrrd", VOLUME)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_silently_is_noticed(tmp_path, monkeypatch):
    from usx_compounding import saving

    def torn(path, volume):
        Path(path).write_bytes(b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: raw\n\n" + bytes(120))

    monkeypatch.setattr(saving, "write_volume", torn)
    (tmp_path / "a.nrrd").write_text("an older volume")
    with pytest.raises(CannotSave, match="read back"):
        save_volume(tmp_path, "a", "nrrd", VOLUME)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"] and (tmp_path / "a.nrrd").read_text() == "an older volume"


# -- calibration files --------------------------------------------------------------------------------------------

def test_calibrations_are_taken_exactly(tmp_path):
    (tmp_path / "a.xml").write_text(f'<P><CoordinateDefinitions><Transform From="Image" To="Probe" '
                                    f'Matrix="{matrix_text(CALIBRATION)}"/></CoordinateDefinitions></P>')
    nested = {"/**": {"ros__parameters": {"image_to_probe": CALIBRATION.reshape(-1).tolist()}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(nested))
    for name in ("a.xml", "a.yaml"):
        assert np.array_equal(read_calibration(tmp_path / name), CALIBRATION)
    assert pixel_spacing(CALIBRATION) == pytest.approx((np.hypot(0.4, 0.01), np.sqrt(0.01**2 + 0.02**2 + 0.4**2)))


@pytest.mark.parametrize(("name", "text", "words"), [
    ("a.xml", "<P/>", "Image"), ("a.xml", "<P", "no XML"), ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><P/>', "entities"),
    ("a.xml", '<P><Transform From="Image" To="Probe" Matrix="1 2 3"/></P>', "16"),
    ("a.xml", '<P><Transform From="Image" To="Probe" Matrix="a b"/></P>', "not numbers"),
    ("a.yaml", "x: 1", "image_to_probe"), ("a.yaml", "image_to_probe: 5", "list"), ("a.yaml", "[1, 2", "no YAML"),
    ("a.yaml", "image_to_probe: [" + "1, " * 15 + "1]", "last row")])
def test_bad_calibrations_are_refused_by_name(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadCalibration, match=words) as told:
        read_calibration(tmp_path / name)
    assert name in str(told.value) and "\n" not in str(told.value)


def test_a_missing_calibration_file(tmp_path):
    with pytest.raises(BadCalibration, match="cannot be read"):
        read_calibration(tmp_path / "none.xml")


# -- temporal calibration -----------------------------------------------------------------------------------------

def motion(times):
    return np.sin(2 * np.pi * 0.8 * times) + 0.3 * np.sin(2 * np.pi * 0.31 * times + 1)


@pytest.mark.parametrize("lag", [-0.2, -0.0648, 0.0, 0.03, 0.31])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_known_delay_is_found(lag, sign):
    random = np.random.default_rng(3)
    images, tracker = np.sort(random.uniform(0, 12, 300)), np.sort(random.uniform(0, 12, 500))
    # what the tracker stamps with t happened at t - lag on the images' clock
    found = find_delay(images, 40 + 9 * motion(images), tracker, sign * 5 * motion(tracker - lag))
    assert found.tracker_lag == pytest.approx(lag, abs=0.003) and np.sign(found.correlation) == sign


@pytest.mark.parametrize(("change", "words"), [
    (lambda t, s: (t[:5], s[:5]), "usable samples"), (lambda t, s: (t, np.zeros_like(s)), "does not move"),
    (lambda t, s: (t + 100, s), "overlap"), (lambda t, s: (t, s[:-1]), "values for"),
    (lambda t, s: (t, np.random.default_rng(0).normal(size=s.shape)), "correlate|edge")])
def test_signals_that_tell_nothing(change, words):
    times = np.linspace(0, 12, 400)
    with pytest.raises(CannotCalibrate, match=words):
        find_delay(times, motion(times), *change(times, motion(times)))


def test_depth_of_a_tilted_broken_bottom():
    images = np.random.default_rng(0).integers(0, 20, (3, 200, 160), dtype=np.uint8)
    for number, depth in enumerate((60, 90)):
        for column in range(0, 160):
            if column % 40 > 12:
                images[number, round(depth + 0.2 * (column - 79.5)), column] = 200
    depth = bottom_depth(images)
    assert depth[:2] == pytest.approx([60, 90], abs=0.6) and np.isnan(depth[2])


def test_main_motion_is_along_the_largest_spread():
    t = np.linspace(0, 1, 50)
    positions = np.outer(np.sin(9 * t), [3.0, 4.0, 0.0]) + np.outer(np.cos(30 * t), [0, 0, 0.2])
    assert abs(np.corrcoef(main_motion(positions), np.sin(9 * t))[0, 1]) > 0.999


# -- parameters ---------------------------------------------------------------------------------------------------

def values(**changes):
    table = {p.name: p for p in parameters.TABLE}
    return {name: validate(p, changes.get(name, p.default)) for name, p in table.items()}


def test_defaults_make_settings_and_the_table_documents_itself():
    assert parameters.live_settings(values()).sweep is None
    settings = parameters.live_settings(values(image_to_probe=CALIBRATION.reshape(-1).tolist(), mask_kind="fan",
                                               mask_fan=[20.0, -5.0, 10.0, 60.0, -30.0, 30.0], pose_max_gap=0.2))
    assert np.array_equal(settings.sweep.image_to_probe, CALIBRATION) and settings.gates.max_gap == 0.2
    assert settings.sweep.mask.fan.radius_max == 60.0
    text = document(parameters.TABLE)
    assert all(f"`{p.name}`" in text for p in parameters.TABLE)


@pytest.mark.parametrize("bad", [
    {"image_to_probe": [1.0] * 15}, {"image_to_probe": [0.0] * 16}, {"volume_to_world": [2.0, *[0.0] * 15]},
    {"spacing": 0.0}, {"distribution": "cubic"}, {"threads": 0}, {"pose_max_gap": -1.0}, {"mask_fan": [1.0]},
    {"save_name": "../x"}, {"save_format": "exe"}, {"rejection_threshold": 300}, {"update_period": 5.0},
    {"spacing": "wide"}, {"mask_kind": "star"}])
def test_bad_values_are_refused_by_name(bad):
    with pytest.raises(UsxError, match=next(iter(bad))):
        values(**bad)


@pytest.mark.parametrize("contradiction", [{"mask_kind": "fan"}, {"mask_kind": "rectangle"},
                                           {"mask_kind": "fan", "mask_fan": [0.0, 0.0, 5.0, 1.0, -3.0, 3.0]}])
def test_values_that_contradict_each_other(contradiction):
    with pytest.raises(UsxError, match=r"mask_|fan"):
        parameters.live_settings(values(**contradiction))


def test_the_shipped_configuration_is_valid():
    shipped = yaml.safe_load((Path(__file__).parents[3] / "config" / "compounding_node.yaml").read_text())
    given = shipped["/**"]["ros__parameters"]
    assert set(given) <= {p.name for p in parameters.TABLE}
    parameters.live_settings(values(**given))


# -- commands -----------------------------------------------------------------------------------------------------

def recording(tmp_path, count=6, invalid=(2,), bad_image=(4,)):
    images = np.random.default_rng(1).integers(0, 255, (count, 24, 32), dtype=np.uint8)
    reference = make_transform(np.eye(3), [5.0, 6.0, 7.0])
    fields = []
    for number in range(count):
        probe = make_transform(np.eye(3), [5.0, 6.0 + 0.5 * number, 7.0])
        fields.append({"ProbeToTrackerTransform": matrix_text(probe),
                       "ReferenceToTrackerTransform": matrix_text(reference),
                       "ProbeToTrackerTransformStatus": "INVALID" if number in invalid else "OK",
                       "ReferenceToTrackerTransformStatus": "OK", "Timestamp": str(100 + 0.1 * number),
                       "ImageStatus": "INVALID" if number in bad_image else "OK"})
    path = tmp_path / "sweep.igs.mha"
    write_sequence(path, Sequence(images, fields))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"image_to_probe": CALIBRATION.reshape(-1).tolist()}))
    return path, images


def test_a_sequence_becomes_an_acquisition(tmp_path):
    path, images = recording(tmp_path)
    out = tmp_path / "acquisition"
    assert igs_to_bag([str(path), "--calibration", str(tmp_path / "c.yaml"), "--out", str(out), "--quiet"]) == 0
    frames, poses = {}, {}
    with AnyReader([out / "bag"]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic == "/us/image_raw":
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                frames[stamp] = np.asarray(message.data).reshape(message.height, message.width)
            else:
                edge = message.transforms[0]
                assert (edge.header.frame_id, edge.child_frame_id) == ("world", "us_probe")
                poses[edge.header.stamp.sec * 10**9 + edge.header.stamp.nanosec] = edge.transform.translation.y
    stamps = [round((100 + 0.1 * number) * 1e9) for number in range(6)]
    assert list(frames) == [s for n, s in enumerate(stamps) if n != 4]
    assert all(np.array_equal(frames[stamps[n]], images[n]) for n in (0, 1, 2, 3, 5))
    assert {s: pytest.approx(y * 1e3) for s, y in poses.items()} == {stamps[n]: 0.5 * n for n in (0, 1, 3, 5)}
    known = yaml.safe_load((out / "params.yaml").read_text())["/**"]["ros__parameters"]
    assert known["image_to_probe"] == CALIBRATION.reshape(-1).tolist() and known["pose_max_gap"] >= 0.2
    parameters.live_settings(values(**known))
    about = yaml.safe_load((out / "acquisition.yaml").read_text())
    assert (about["frames"], about["poses"], about["invalid_poses"]) == (5, 4, 1)


def test_the_chain_of_a_file():
    fields = [{"AToTTransform": matrix_text(make_transform(np.eye(3), [1.0, 2, 3]))}]
    from usx_compounding.sequence_poses import TransformNames

    placed = place_frames(Sequence(np.zeros((1, 2, 2), np.uint8), fields), TransformNames("AToT", ""))
    assert placed.probe_to_world[0, :3, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize("command", ["igs_to_bag", "compound"])
@pytest.mark.parametrize(("change", "words"), [
    (["--probe", "NoseToTracker"], "at hand: ProbeToTracker"), (["--calibration", "none.xml"], "none.xml"),
    (["--rectangle", "500", "0", "600", "10"], "leaves no pixel"), (["--spacing", "-1"], "spacing"),
    (["--fan", "0", "0", "9", "3", "-5", "5"], "radii")])
def test_commands_tell_bad_input_in_one_line(tmp_path, capsys, command, change, words):
    path, _ = recording(tmp_path)
    calibration = [] if "--calibration" in change else ["--calibration", str(tmp_path / "c.yaml")]
    if command == "igs_to_bag":
        code = igs_to_bag([str(path), *calibration, "--out", str(tmp_path / "out"), "--quiet", *change])
    else:
        code = compound([str(path), str(tmp_path / "v.nrrd"), *calibration, "--quiet", *change])
    told = capsys.readouterr().err
    assert code == 2 and words in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_no_pose_at_all(tmp_path, capsys):
    path, _ = recording(tmp_path, invalid=range(6))
    for command, out in ((igs_to_bag, ["--out", str(tmp_path / "o")]), (compound, [str(tmp_path / "v.nrrd")])):
        assert command([str(path), *out, "--calibration", str(tmp_path / "c.yaml"), "--quiet"]) == 2
        assert "none of the 6 frames" in capsys.readouterr().err


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    path, _ = recording(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep")
    calibration = str(tmp_path / "c.yaml")
    assert igs_to_bag([str(path), "--calibration", calibration, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "not empty" in capsys.readouterr().err and (tmp_path / "out" / "precious.txt").exists()


def test_compound_writes_the_volume(tmp_path):
    path, _ = recording(tmp_path)
    arguments = [str(path), str(tmp_path / "v.nii.gz"), "--calibration", str(tmp_path / "c.yaml"), "--quiet",
                 "--spacing", "0.7"]
    assert compound([*arguments, "--distribution", "linear", "--fill", "nearest", "--threads", "1"]) == 0
    volume = read_volume(tmp_path / "v.nii.gz")
    assert volume.values.dtype == np.uint8 and (volume.values > 0).mean() > 0.5
    assert np.allclose(volume.grid.spacing, 0.7)
    assert compound([*arguments, "--memory-limit", "1e-6"]) == 2


def test_only_the_node_file_touches_ros():
    import ast

    package = Path(parameters.__file__).parent
    ros = {"rclpy", "tf2_ros", "tf2_msgs", "sensor_msgs", "geometry_msgs", "visualization_msgs", "std_srvs", "std_msgs"}
    for path in sorted(package.glob("*.py")):
        names = set()
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.Import):
                names |= {alias.name for alias in part.names}
            elif isinstance(part, ast.ImportFrom):
                names.add(part.module or "")
        touched = {name for name in names if name.split(".")[0] in ros or name.startswith("usx_common.ros")}
        assert bool(touched) == (path.name == "node.py"), (path.name, touched)

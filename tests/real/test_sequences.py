"""Sequence files, poses and temporal calibration on real PLUS recordings."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from usx_common.transforms import invert, rotation_angle
from usx_compounding.beams import make_tables
from usx_compounding.bone_response import BoneDetector
from usx_compounding.mask import Fan, MaskSettings
from usx_compounding.pose_buffer import PoseBuffer, PoseGates, PoseSample
from usx_compounding.sequence_files import read_sequence, write_sequence
from usx_compounding.sequence_poses import place_frames, stamp_nanoseconds
from usx_compounding.temporal_calibration import bottom_depth, find_delay, main_motion

pytestmark = pytest.mark.real_data
PLUS_LAG = -0.0648266


@pytest.fixture(scope="module")
def sweeps(usx_data):
    return usx_data / "sweeps"


@pytest.mark.parametrize("name", ["BoneUltrasound_L14", "TransformInterpolationTest",
                                  "UltrasonixCurvilinearScanConvertedData", "fCal_Test_Calibration_3NWires_fCal2.0"])
def test_pixels_equal_those_of_simpleitk(sweeps, name):
    path = sweeps / f"{name}.igs.mha"
    assert np.array_equal(read_sequence(path).images, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_beams_stored_across_are_turned(sweeps):
    path = sweeps / "UltrasonixCurvilinearBrightnessData.igs.mha"  # orientation FM: rows are beams
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(read_sequence(path).images, np.swapaxes(stored, 1, 2))


@pytest.mark.parametrize("kind", ["igs.mha", "igs.nrrd"])
def test_a_recording_survives_being_written(sweeps, tmp_path, kind):
    first = read_sequence(sweeps / "TransformInterpolationTest.igs.mha")
    write_sequence(tmp_path / f"copy.{kind}", first)
    again = read_sequence(tmp_path / f"copy.{kind}")
    assert again.fields == first.fields and np.array_equal(again.images, first.images)


def test_the_invalid_pose_is_left_out_and_counted(sweeps):
    placed = place_frames(read_sequence(sweeps / "TransformInterpolationTest.igs.mha"))
    assert placed.rejected == {"pose_invalid": 1} and len(placed.numbers) == 499 and 7 not in placed.numbers


def test_interpolated_poses_are_near_the_measured_ones(sweeps):
    """Every second real pose is hidden and found again by interpolation (limits of PLUS: 0.5 mm, 1 degree)."""
    sequence = read_sequence(sweeps / "TransformInterpolationTest.igs.mha")
    placed = place_frames(sequence)
    stamps = [stamp_nanoseconds(sequence.timestamp(int(number))) for number in placed.numbers]
    buffer = PoseBuffer(PoseGates(max_gap=0.1, max_speed=0, max_turn_rate=0))
    for stamp, pose in list(zip(stamps, placed.probe_to_world, strict=True))[::2]:
        assert buffer.add(PoseSample(stamp, pose)) == "added"
    errors = []
    for stamp, pose in list(zip(stamps, placed.probe_to_world, strict=True))[1:-1:2]:
        answer = buffer.at(stamp)
        if answer.probe_to_world is not None:
            difference = invert(pose) @ answer.probe_to_world
            errors.append((np.linalg.norm(difference[:3, 3]), np.degrees(rotation_angle(difference))))
    assert len(errors) > 200
    assert np.percentile(errors, 95, axis=0) == pytest.approx([0, 0], abs=1.0)
    assert np.median(errors, axis=0)[0] < 0.5


def test_temporal_calibration_finds_the_lag_of_plus(sweeps):
    sequence = read_sequence(sweeps / "WaterTankBottomTranslationCombined.igs.mha")
    placed = place_frames(sequence)
    times = sequence.timestamps()
    delay = find_delay(times, bottom_depth(sequence.images), times[placed.numbers],
                       main_motion(placed.probe_to_world[:, :3, 3]))
    print(f"tracker lag {delay.tracker_lag:+.4f} s (PLUS {PLUS_LAG:+.4f}), correlation {delay.correlation:.3f}")
    assert abs(delay.tracker_lag - PLUS_LAG) <= 0.005


def test_bone_in_vivo_is_found_on_its_bright_arch(sweeps):
    """The response of real bone lies on the arch at depth, not in the tissue above it nor in the shadow."""
    sequence = read_sequence(sweeps / "BoneUltrasound_L14.igs.mha")
    image = sequence.images[5]
    response = BoneDetector(MaskSettings("rectangle", rectangle=(187, 0, 631, 600)), image.shape, (0.085, 0.085)
                            ).response(image)
    rows, _ = np.nonzero(response > 40)
    on_arch = ((rows > 240) & (rows < 400)).mean()
    assert len(rows) > 2000 and on_arch > 0.75
    assert image[response > 40].mean() > 3 * image[240:600, 187:631].mean()


def test_beams_of_a_real_curved_probe_are_straight(sweeps):
    """Before scan conversion a frame is 96 beams; sampling the converted frame along its rays must give them back."""
    beams = read_sequence(sweeps / "UltrasonixCurvilinearBrightnessData.igs.mha").images[2]
    image = read_sequence(sweeps / "UltrasonixCurvilinearScanConvertedData.igs.mha").images[2]
    from usx_compounding.beams import sample_beams

    fan = Fan(409.5, 87 - 10 / 0.15, 10 / 0.15, 82 / 0.15, -74.9, 74.9)
    tables = make_tables(MaskSettings("fan", fan=fan), image.shape, (0.15, 0.15))
    found = sample_beams(np.ascontiguousarray(image), tables.columns, tables.rows)
    along = beams if beams.shape[0] == 96 else beams.T
    pick, near = (np.ix_(*(np.linspace(0, size - 1, count).astype(int)
                           for size, count in zip(values.shape, (48, 200), strict=True))) for values in (along, found))
    straight = np.corrcoef(along[pick].ravel().astype(float), found[near].ravel())[0, 1]
    mirrored = np.corrcoef(along[pick][::-1].ravel().astype(float), found[near].ravel())[0, 1]
    assert max(straight, mirrored) > 0.8

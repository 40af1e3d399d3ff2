from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from usx_common.volumes import Volume, VolumeGrid
from usx_xray.ct_bone import BoneSettings, bone_surface, coarsened
from usx_xray.ct_series import SeriesLimits, read_series
from usx_xray.refusal import Refused

Maker = Callable[..., list[Path]]


def ramp() -> np.ndarray:
    return (np.arange(6 * 8 * 9) % 1500).reshape(6, 8, 9).astype(np.int32) - 700


def test_slices_are_sorted_by_position(ct_folder: Maker) -> None:
    series = read_series(ct_folder(ramp(), spacing=2.5))
    np.testing.assert_array_equal(series.volume.values, ramp())
    np.testing.assert_allclose(series.volume.grid.origin, (-10, -20, 30))
    np.testing.assert_allclose(series.volume.grid.spacing, (1, 1, 2.5))
    np.testing.assert_allclose(series.volume.grid.index_to_world[:3, :3] @ (1, 2, 3), (1, 2, 7.5))


def test_feet_first_stack_keeps_the_patients_directions(ct_folder: Maker) -> None:
    """Columns to the right and rows to the front: the normal still points to the head."""
    paths = ct_folder(ramp(), ImageOrientationPatient=["-1", "0", "0", "0", "-1", "0"])
    grid = read_series(paths).volume.grid
    np.testing.assert_allclose(grid.direction, np.diag([-1.0, -1.0, 1.0]))
    assert np.linalg.det(grid.direction) == pytest.approx(1.0)


def edited(paths: list[Path], index: int, **attributes: object) -> None:
    dataset = pydicom.dcmread(paths[index])
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(paths[index])


@pytest.mark.parametrize(("change", "reason"), [
    (lambda paths: paths.pop(2), "missing_slices"),
    (lambda paths: paths.append(paths[1]), "duplicate_slices"),
    (lambda paths: [paths.pop() for _ in range(5)], "missing_slices"),
    (lambda paths: paths.clear(), "empty_series"),
    (lambda paths: edited(paths, 2, ImagePositionPatient=["-10", "-20", "32.3"]), "missing_slices"),
    (lambda paths: edited(paths, 2, ImagePositionPatient=None), "no_geometry"),
    (lambda paths: edited(paths, 2, ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]), "bad_attribute"),
    (lambda paths: edited(paths, 2, ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"]), "mixed_series"),
    (lambda paths: edited(paths, 2, PixelSpacing=["2", "2"]), "mixed_series"),
    (lambda paths: edited(paths, 2, SeriesInstanceUID="1.2.3"), "mixed_series"),
    (lambda paths: edited(paths, 2, RescaleSlope=None), "missing_attribute"),
    (lambda paths: edited(paths, 2, RescaleSlope="0"), "bad_attribute"),
    (lambda paths: edited(paths, 2, Modality="MR"), "modality"),
    (lambda paths: edited(paths, 2, Rows=4, PixelData=b"\0" * 72), "mixed_series"),
    (lambda paths: edited(paths, 2, PixelData=b"\0" * 10), "truncated"),
])
def test_no_partial_volume(ct_folder: Maker, change: Callable, reason: str) -> None:
    paths = ct_folder(ramp())
    change(paths)
    with pytest.raises(Refused) as caught:
        read_series(paths)
    assert caught.value.reason == reason


def test_tilted_gantry_and_memory_bound(ct_folder: Maker) -> None:
    paths = ct_folder(ramp())
    for index in range(6):
        edited(paths, index, ImagePositionPatient=["-10", str(-20 + 0.4 * index), str(30 + index)])
    with pytest.raises(Refused) as caught:
        read_series(paths)
    assert caught.value.reason == "tilted_gantry"
    with pytest.raises(Refused) as caught:
        read_series(ct_folder(ramp(), folder="other"), SeriesLimits(volume_bytes=800))
    assert caught.value.reason == "too_large" and "864" in str(caught.value)


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def test_enhanced_ct(ct_folder: Maker, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(ct_folder(ramp())[0])
    order = [3, 0, 5, 1, 4, 2]
    dataset.NumberOfFrames, dataset.PixelData = 6, (ramp()[order] + 1024).astype(np.uint16).tobytes()
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=["1", "1"])],
                  PlaneOrientationSequence=[item(ImageOrientationPatient=list("100010"))],
                  PixelValueTransformationSequence=[item(RescaleSlope="1", RescaleIntercept="-1024")])
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=["0", "0", str(z)])]) for z in order]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_series([path]).volume.values, ramp())
    dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence = []
    dataset.save_as(path)
    with pytest.raises(Refused):
        read_series([path])


def ball(spacing: float, radius: float = 15.0, marrow: float | None = None) -> Volume:
    count = int(50 / spacing)
    axis = (np.arange(count) - (count - 1) / 2.0) * spacing
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    values = np.clip((radius - distance) / spacing + 0.5, 0.0, 1.0) * 1000.0 - 500.0
    if marrow is not None:
        noise = np.random.default_rng(0).normal(size=values.shape) * 60.0
        values = np.where(distance < radius - 2.5, marrow + noise, values)
    return Volume(values.astype(np.float32), VolumeGrid(np.array([7.0, 8.0, 9.0]) + axis[0], np.full(3, spacing),
                                                        values.shape[::-1]))


@pytest.mark.parametrize("spacing", [0.35, 0.7, 1.0])
def test_surface_of_a_ball_is_sub_voxel(spacing: float) -> None:
    points = bone_surface(ball(spacing), BoneSettings(threshold=0.0, point_spacing=0.5))
    radii = np.linalg.norm(points - [7.0, 8.0, 9.0], axis=1)
    assert abs(radii.mean() - 15.0) < 0.1 and radii.std() < 0.15


def test_marrow_about_the_threshold_gives_no_points() -> None:
    points = bone_surface(ball(1.0, marrow=0.0), BoneSettings(threshold=0.0))
    radii = np.linalg.norm(points - [7.0, 8.0, 9.0], axis=1)
    assert radii.min() > 13.0 and len(points) > 1000


def test_islands_are_left_out_and_the_cloud_is_bounded() -> None:
    volume = ball(1.0)
    volume.values[1:4, 1:4, 1:4] = 900.0
    points = bone_surface(volume, BoneSettings(threshold=0.0, most_points=300))
    assert len(points) <= 300
    assert np.linalg.norm(points - [7.0, 8.0, 9.0], axis=1).max() < 17.0


@pytest.mark.parametrize("value", [-1000.0, 2000.0])
def test_no_bone_or_nothing_but_bone(value: float) -> None:
    grid = VolumeGrid(np.zeros(3), np.ones(3), (9, 9, 9))
    with pytest.raises(Refused) as caught:
        bone_surface(Volume(np.full((9, 9, 9), value, np.float32), grid))
    assert caught.value.reason == "no_bone" and "cbct_bone_threshold" in str(caught.value)


def test_coarsening_keeps_places_and_means() -> None:
    grid = VolumeGrid(np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.3, 0.6]), (9, 6, 4))
    volume = coarsened(Volume(np.arange(4 * 6 * 9, dtype=np.int16).reshape(4, 6, 9), grid), 0.7)
    assert volume.grid.size == (4, 3, 4)
    np.testing.assert_allclose(volume.grid.origin, (1.15, 2.15, 3.0))
    assert volume.values[0, 0, 0] == np.mean([0, 1, 9, 10])

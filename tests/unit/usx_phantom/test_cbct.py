"""CBCT volumes and their DICOM series: known densities, geometry read back by two readers, determinism, bad input."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from usx_common.errors import UsxError
from usx_common.transforms import rotation_about_axis
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import cbct
from usx_phantom.cbct import CbctSettings
from usx_phantom.density import Material, gas_pockets
from usx_xray.ct_series import read_series


class Back:
    """Skin at y = 80 mm; the trunk reaches 300 mm forward."""

    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, 80.0)

    def inside(self, points: np.ndarray) -> np.ndarray:
        return (points[:, 1] <= 80.0) & (points[:, 1] > -220.0)


@dataclass
class Patient:
    labelmap: Volume
    skin: Back


@dataclass
class ScannedPatient(Patient):
    intensities: Volume


def ball(centre: tuple, radius: float, spacing: float = 0.7) -> Volume:
    low = np.array(centre) - radius - 5.0
    size = np.full(3, int(2 * (radius + 5.0) / spacing))
    z, y, x = np.meshgrid(*(low[a] + spacing * np.arange(size[a]) for a in (2, 1, 0)), indexing="ij")
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2
    return Volume(np.where(inside, 22, 0).astype(np.uint8), VolumeGrid(low, np.full(3, spacing), tuple(size)))


CENTRE = (12.0, -7.5, 31.0)
CLEAN = CbctSettings(spacing=1.0, diameter=200.0, margin=8.0, blur=0.0, noise=0.0, cupping=0.0,
                     truncation=0.0, material=Material(texture=0.0))
PATIENT = Patient(ball(CENTRE, 14.0), Back())


def world(volume: Volume) -> np.ndarray:
    grid = volume.grid
    z, y, x = np.meshgrid(*(grid.origin[a] + grid.spacing[a] * np.arange(grid.size[a]) for a in (2, 1, 0)),
                          indexing="ij")
    return np.stack([x, y, z], axis=-1)


def test_known_materials_have_their_hounsfield_units() -> None:
    volume = cbct.simulate(PATIENT, CLEAN, 0)
    points, values = world(volume), volume.values
    radius = np.linalg.norm(points - CENTRE, axis=-1)
    from_axis = np.hypot(points[..., 0] - CENTRE[0], points[..., 1] - CENTRE[1])
    in_field = from_axis < 95.0
    assert np.abs(values[radius < 10.0] - 160).max() <= 1  # spongiosa
    assert values[np.abs(radius - 13.5) < 0.3].mean() > 600  # cortex
    soft = in_field & (radius > 16.0) & (points[..., 1] < 65.0) & (points[..., 1] > -20.0)
    assert (values[soft] == 45).all()
    assert (values[in_field & (points[..., 1] > 72.0) & (points[..., 1] < 79.0)] == -95).all()  # fat below the skin
    assert (values[in_field & (points[..., 1] > 81.5)] == -1000).all()  # air
    assert (values[from_axis > 101.0] == -1000).all()  # beyond the field
    assert values.dtype == np.int16


def test_bone_threshold_finds_the_surface() -> None:
    """The shell above 300 HU lies on the sphere, and none of the noise of soft tissue is above it."""
    volume = cbct.simulate(PATIENT, CbctSettings(diameter=120.0), 1)
    radius = np.linalg.norm(world(volume) - CENTRE, axis=-1)
    bone = volume.values > 300
    shell = bone & (radius > 12.0)
    assert radius[shell].max() < 15.2
    assert abs(np.median(radius[shell]) - 13.3) < 0.7
    assert (bone & (radius > 17.0)).mean() < 1e-5
    assert (volume.values[np.abs(radius - 13.3) < 0.4] > 300).mean() > 0.95  # closed


def test_noise_and_cupping_are_as_large_as_asked() -> None:
    noisy = cbct.simulate(PATIENT, replace(CLEAN, noise=40.0, cupping=30.0), 2).values.astype(float)
    clean = cbct.simulate(PATIENT, CLEAN, 2).values.astype(float)
    difference = (noisy - clean)[:, 85:115, 85:115]
    assert difference.std() == pytest.approx(40.0 * 1.1, rel=0.06)
    assert difference.mean() == pytest.approx(-29.0, abs=2.0)
    neighbours = np.corrcoef(difference[:, :, 1:].ravel(), difference[:, :, :-1].ravel())[0, 1]
    assert 0.2 < neighbours < 0.7


def test_gas_is_where_the_radiograph_has_it() -> None:
    volume = cbct.simulate(PATIENT, replace(CLEAN, spacing=2.5, diameter=300.0, margin=60.0), 3)
    points, checked = world(volume), 0
    for pocket in gas_pockets(PATIENT.labelmap, 3):
        inside = pocket.inside(points) & (np.hypot(points[..., 0] - CENTRE[0], points[..., 1] - CENTRE[1]) < 145.0)
        if inside.any():
            assert (volume.values[inside] == -960).all()
            checked += 1
    assert checked >= 3


def test_a_ct_of_the_same_spacing_is_not_blurred() -> None:
    """Values that change from voxel to voxel come out as they are, wherever the CT's grid lies."""
    grid = VolumeGrid(np.array(CENTRE) - 30.37, np.ones(3), (61, 61, 61))
    z, y, x = np.indices((61, 61, 61))
    bone = (x - 30.0) ** 2 + (y - 30.0) ** 2 + (z - 30.0) ** 2 <= 13.0**2
    fine = np.where(bone, 400.0 + 150.0 * (-1.0) ** (x + y + z), 45.0).astype(np.float32)
    one = ScannedPatient(Volume(np.where(bone, 22, 0).astype(np.uint8), grid), Back(), Volume(fine, grid))
    found = cbct.simulate(one, replace(CLEAN, diameter=80.0))
    step = grid.origin - found.grid.origin
    np.testing.assert_allclose(step, np.rint(step), atol=1e-9)
    first = np.rint(step).astype(int)
    middle = np.argwhere(bone) + first[::-1]
    assert np.abs(found.values[tuple(middle.T)] - fine[bone]).max() <= 1.0


def test_the_grid_is_centred_and_axis_aligned() -> None:
    grid = cbct.simulate(PATIENT, CLEAN, 0).grid
    middle = grid.origin + grid.spacing * (np.array(grid.size) - 1) / 2.0
    assert np.abs(middle - CENTRE).max() < 0.71
    assert grid.size[:2] == (200, 200) and (grid.direction == np.eye(3)).all()


def test_the_series_reads_back_by_pydicom_and_by_gdcm(tmp_path: Path) -> None:
    volume = cbct.simulate(PATIENT, replace(CLEAN, spacing=0.9, noise=20.0), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = cbct.write_series(volume, tmp_path / "ct", seed=4)
    assert len(paths) == volume.values.shape[0]
    for k in (0, 7, len(paths) - 1):
        dataset = pydicom.dcmread(paths[k])
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2" and dataset.Modality == "CT"
        hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert (hounsfield == volume.values[k]).all()
        np.testing.assert_allclose([float(v) for v in dataset.ImagePositionPatient],
                                   volume.grid.origin + [0, 0, k * 0.9], atol=1e-9)
        assert [float(v) for v in dataset.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
        assert [float(v) for v in dataset.PixelSpacing] == [0.9, 0.9] and float(dataset.SliceThickness) == 0.9
        assert dataset.InstanceNumber == k + 1
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    assert (sitk.GetArrayFromImage(image) == volume.values).all()
    np.testing.assert_allclose(image.GetOrigin(), volume.grid.origin, atol=1e-9)
    np.testing.assert_allclose(image.GetSpacing(), 0.9, atol=1e-6)


@pytest.mark.parametrize("turn", [0.0, 17.0])
def test_the_series_reads_back_by_the_x_ray_package_in_any_order(turn: float, tmp_path: Path) -> None:
    """Spacing, orientation and place exact; the names of the files say nothing."""
    random = np.random.default_rng(5)
    direction = rotation_about_axis([0.2, -0.4, 1.0], np.radians(turn))
    grid = VolumeGrid([-33.25, 41.125, -512.375], [0.7, 0.9, 1.3], (24, 18, 13), direction)
    volume = Volume(random.integers(-1000, 2000, grid.size[::-1]).astype(np.int16), grid)
    paths = cbct.write_series(volume, tmp_path / "ct", seed=2)
    for path, name in zip(paths, random.permutation(len(paths)), strict=True):
        path.rename(tmp_path / "ct" / f"image{name}")
    read = read_series(sorted((tmp_path / "ct").iterdir(), key=lambda path: -int(path.name[5:]))).volume
    assert (read.values == volume.values).all()
    np.testing.assert_allclose(read.grid.origin, grid.origin, atol=1e-9)
    np.testing.assert_allclose(read.grid.spacing, grid.spacing, atol=1e-9)
    np.testing.assert_allclose(read.grid.direction, grid.direction, atol=1e-12)


def test_truncation_brightens_the_rim_where_the_body_goes_on() -> None:
    plain = cbct.simulate(PATIENT, CLEAN, 0).values.astype(int)
    cut = cbct.simulate(PATIENT, replace(CLEAN, truncation=120.0, truncation_depth=8.0), 0)
    more = cut.values.astype(int) - plain
    points = world(cut)
    from_axis = np.hypot(points[..., 0] - CENTRE[0], points[..., 1] - CENTRE[1])
    forwards = points[..., 1] < CENTRE[1] - 20.0
    for depth, expected in ((2.0, 120.0 * np.exp(-0.25)), (8.0, 120.0 / np.e), (40.0, 120.0 * np.exp(-5.0))):
        ring = forwards & (np.abs(from_axis - (100.0 - depth)) < 0.3) & (plain > -500)
        assert more[ring].mean() == pytest.approx(expected, abs=3.0)
    behind = (points[..., 1] > 70.0) & (np.abs(points[..., 0] - CENTRE[0]) < 30.0) & (from_axis < 97.0)
    assert np.abs(more[behind]).max() == 0  # the skin lies within the field there
    assert (cut.values[from_axis > 101.0] == -1000).all()


def test_one_series_one_frame_many_instances(tmp_path: Path) -> None:
    volume = cbct.simulate(PATIENT, replace(CLEAN, spacing=4.0), 0)
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in cbct.write_series(volume, tmp_path, 5)]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({dataset[name].value for dataset in read}) == 1
    assert len({dataset.SOPInstanceUID for dataset in read}) == len(read)
    assert all(dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID for dataset in read)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = CbctSettings(spacing=3.0)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        cbct.write_series(cbct.simulate(PATIENT, settings, seed), tmp_path / name, seed)
    read = {name: [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert read["a"] == read["b"] and read["a"][0] != read["c"][0]


@pytest.mark.parametrize("change", [
    {"spacing": 0.0}, {"diameter": -5.0}, {"margin": np.nan}, {"noise": -1.0}, {"truncation": -1.0},
    {"truncation_depth": 0.0}, {"blur": 99.0}, {"cupping": np.inf}])
def test_absurd_settings_are_refused_by_name(change: dict) -> None:
    with pytest.raises(UsxError, match=next(iter(change))):
        CbctSettings(**change)


def test_scenes_and_volumes_that_make_no_series_are_refused(tmp_path: Path) -> None:
    empty = Volume(np.zeros_like(PATIENT.labelmap.values), PATIENT.labelmap.grid)
    with pytest.raises(UsxError, match="no label"):
        cbct.simulate(Patient(empty, Back()), CLEAN, 0)
    with pytest.raises(UsxError, match="too large"):
        cbct.simulate(PATIENT, CbctSettings(spacing=0.1, diameter=600.0), 0)
    with pytest.raises(UsxError, match="seed"):
        cbct.simulate(PATIENT, CLEAN, -3)
    grid = VolumeGrid(np.zeros(3), np.ones(3), (4, 4, 4))
    sheared = replace(grid, direction=np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]))
    for volume in (Volume(np.full((4, 4, 4), 5000), grid), Volume(np.full((4, 4, 4), np.nan), grid),
                   Volume(np.zeros((4, 4, 4)), sheared)):
        with pytest.raises(UsxError):
            cbct.write_series(volume, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsxError, match="ct_0001"):
        cbct.write_series(Volume(np.zeros((4, 4, 4)), grid), tmp_path / "file")

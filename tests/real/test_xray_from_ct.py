"""Radiograph and CBCT of a real CT that was cut close to the spine: no edge of it shows, the vertebrae are its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from usx_common.transforms import apply, invert
from usx_common.volumes import Volume
from usx_phantom import cbct, dicom_xray, xray
from usx_phantom.ct_density import ct_part
from usx_phantom.density import Material
from usx_phantom.phantom_scene import body_centres, build_scene
from usx_phantom.phantom_source import Source
from usx_phantom.scene import Scene
from usx_phantom.xray_measure import contrasts
from usx_phantom.xray_settings import XraySettings
from usx_xray.ct_series import read_series
from usx_xray.xray_image import read_xray

pytestmark = pytest.mark.real_data
SETTINGS = XraySettings(columns=342, rows=427, spacing=0.9, gas=0, mottle=0.0)


@pytest.fixture(scope="module", params=["008", "007"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """As `make_phantom` reads them; 007 holds L1 to L3 only."""
    folder: Path = request.getfixturevalue("usx_data") / "ct"
    bones = Source(labelmap=folder / f"sub-verse{request.param}_seg-vert_msk.nii.gz",
                   ct=folder / f"sub-verse{request.param}_ct.nii.gz", complete=False).read()
    return build_scene(bones.meshes, 0, ct=bones.ct)


def test_no_edge_of_the_ct_shows(scene: Scene) -> None:
    """Near the CT's faces and its unscanned corners the picture is that of the trunk alone."""
    with_ct, pose = xray.line_integrals(scene, SETTINGS, 0)
    dense, _, grid = xray.dense_part(scene, SETTINGS, 0)
    for face in (dense.values[:, 0], dense.values[:, -1], dense.values[:, :, 0], dense.values[:, :, -1]):
        assert np.percentile(np.abs(face), 99.0) < 0.05  # of water
    front = grid.origin + grid.spacing * (np.array(grid.size) - 1) / 2.0
    steps = []
    for y in np.arange(grid.origin[1] - 8.0, grid.origin[1] + 1.5, 1.0):
        points = np.array([[front[0], y, z] for z in np.linspace(grid.origin[2] + 50.0, grid.origin[2] + 150.0, 21)])
        pixels = apply(invert(pose), points) @ xray.camera_matrix(SETTINGS).T
        rows, columns = pixels[:, 1] / pixels[:, 2], pixels[:, 0] / pixels[:, 2]
        steps.append(ndimage.map_coordinates(with_ct, [rows, columns], order=1).mean())
    assert np.abs(np.diff(steps)).max() < 0.01  # half a millimetre of water; a CT that is not faded steps by more


def test_labelled_vertebrae_keep_their_hounsfield_units(scene: Scene) -> None:
    part = ct_part(scene, Material())
    index = np.argwhere(scene.labelmap.values > 0)[::97, ::-1]
    points = index * scene.labelmap.grid.spacing + scene.labelmap.grid.origin
    original, made = (ndimage.map_coordinates(
        volume, ((points - grid.origin) / grid.spacing).T[::-1], order=1, mode="nearest") for volume, grid in (
            (scene.intensities.values, scene.intensities.grid), (part.hounsfield, part.grid)))
    assert np.percentile(np.abs(np.clip(original, -1000, 3071) - made), 97.0) < 1.0


def test_bodies_stand_out_as_on_real_devices_and_where_the_file_says(scene: Scene, tmp_path: Path) -> None:
    full = XraySettings(columns=700, rows=900)
    bodies = contrasts(scene, full, 0)
    assert 2.0 < np.mean([body.to_noise for body in bodies]) < 7.3  # 2.1 to 7.2 in Lai 2020
    pose = xray.place(scene.labelmap, SETTINGS)
    radiograph = xray.Radiograph(np.ones((SETTINGS.rows, SETTINGS.columns), np.uint16), pose, SETTINGS, 0)
    dicom_xray.write(radiograph, tmp_path / "x.dcm")
    centres = np.array(list(body_centres(scene.labelmap).values()))
    read = read_xray(tmp_path / "x.dcm").geometry.points_to_pixels(apply(invert(radiograph.xray_to_cbct), centres))
    np.testing.assert_allclose(read, radiograph.project(centres), atol=1e-6)


def patches(volume: Volume, scene: Scene) -> np.ndarray:
    """(levels, 8) mean HU in the octants of a ball of 18 mm in the middle of each body."""
    steps = np.arange(-8.5, 9.0, 1.0)
    ball = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    ball = ball[np.linalg.norm(ball, axis=1) < 9.0]
    octants = (ball > 0.0) @ [1, 2, 4]
    means = []
    for centre in body_centres(scene.labelmap).values():
        index = ((centre + ball - volume.grid.origin) / volume.grid.spacing).T[::-1]
        values = ndimage.map_coordinates(volume.values.astype(float), index, order=1)
        means.append(np.bincount(octants, values) / np.bincount(octants))
    return np.array(means)


def test_the_cbct_reads_back_and_holds_the_ct_s_bone(scene: Scene, tmp_path: Path) -> None:
    """Spongiosa has the CT's Hounsfield units: within 1.5 without noise, within four standard errors with it."""
    settings = cbct.CbctSettings(spacing=1.0, cupping=0.0, truncation=0.0)
    volume = cbct.simulate(scene, settings, 0)
    read = read_series(cbct.write_series(volume, tmp_path)).volume
    assert (read.values == volume.values).all()
    expected = patches(scene.intensities, scene)
    clean = patches(cbct.simulate(scene, replace(settings, noise=0.0), 0), scene)
    assert np.abs(clean.mean(1) - expected.mean(1)).max() < 1.5
    error = patches(read, scene) - expected
    assert (np.abs(error.mean(1)) < 4.0 * error.std(1, ddof=1) / np.sqrt(8.0)).all()
    plain = patches(cbct.simulate(replace(scene, intensities=None), settings, 0), scene)
    assert np.abs(plain.mean(1) - expected.mean(1)).max() > 40.0  # what the label map alone would give

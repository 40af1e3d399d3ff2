"""Radiograph and CBCT of a real CT that was cut close to the spine: no edge of it shows, the vertebrae are its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from usx_common.transforms import apply, invert
from usx_phantom import cbct, dicom_xray, xray
from usx_phantom.ct_density import ct_part
from usx_phantom.ct_files import CtScene, read_ct_scene
from usx_phantom.density import Material
from usx_phantom.xray_measure import body_centres, contrasts
from usx_phantom.xray_settings import XraySettings
from usx_xray.ct_series import read_series
from usx_xray.xray_image import read_xray

pytestmark = pytest.mark.real_data
SETTINGS = XraySettings(columns=342, rows=427, spacing=0.9, gas=0, mottle=0.0)


@pytest.fixture(scope="module", params=["008", "007"])
def scene(request: pytest.FixtureRequest) -> CtScene:
    folder: Path = request.getfixturevalue("usx_data") / "ct"
    return read_ct_scene(folder / f"sub-verse{request.param}_ct.nii.gz",
                         folder / f"sub-verse{request.param}_seg-vert_msk.nii.gz")


def test_no_edge_of_the_ct_shows(scene: CtScene) -> None:
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


def test_labelled_vertebrae_keep_their_hounsfield_units(scene: CtScene) -> None:
    part = ct_part(scene, Material())
    index = np.argwhere(scene.labelmap.values > 0)[::97, ::-1]
    points = index * scene.labelmap.grid.spacing + scene.labelmap.grid.origin
    original, made = (ndimage.map_coordinates(
        volume, ((points - grid.origin) / grid.spacing).T[::-1], order=1, mode="nearest") for volume, grid in (
            (scene.intensities.values, scene.intensities.grid), (part.hounsfield, part.grid)))
    assert np.percentile(np.abs(np.clip(original, -1000, 3071) - made), 97.0) < 1.0


def test_bodies_stand_out_as_on_real_devices_and_where_the_file_says(scene: CtScene, tmp_path: Path) -> None:
    full = XraySettings(columns=700, rows=900)
    bodies = contrasts(scene, full, 0)
    assert 2.0 < np.mean([body.to_noise for body in bodies]) < 7.3  # 2.1 to 7.2 in Lai 2020
    pose = xray.place(scene.labelmap, SETTINGS)
    radiograph = xray.Radiograph(np.ones((SETTINGS.rows, SETTINGS.columns), np.uint16), pose, SETTINGS, 0)
    dicom_xray.write(radiograph, tmp_path / "x.dcm")
    centres = np.array(list(body_centres(scene.labelmap).values()))
    read = read_xray(tmp_path / "x.dcm").geometry.points_to_pixels(apply(invert(radiograph.xray_to_cbct), centres))
    np.testing.assert_allclose(read, radiograph.project(centres), atol=1e-6)


def test_the_cbct_reads_back_and_holds_the_ct_s_bone(scene: CtScene, tmp_path: Path) -> None:
    volume = cbct.simulate(scene, cbct.CbctSettings(spacing=2.0), 0)
    read = read_series(cbct.write_series(volume, tmp_path)).volume
    assert (read.values == volume.values).all()
    plain = cbct.simulate(replace(scene, intensities=None), cbct.CbctSettings(spacing=2.0), 0)
    points = np.array(list(body_centres(scene.labelmap).values()))
    index = np.rint((points - read.grid.origin) / read.grid.spacing).astype(int)
    patches = [[v.values[k - 1:k + 2, j - 1:j + 2, i - 1:i + 2].mean() for i, j, k in index] for v in (read, plain)]
    assert np.mean(patches[0]) < np.mean(patches[1])  # these two people's spongiosa is lighter than the phantom's

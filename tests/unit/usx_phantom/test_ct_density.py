"""A CT within a trunk: the vertebrae are its own, nothing of its edges shows, and what cannot be right is refused."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import cbct, xray
from usx_phantom.ct_density import beside, ct_part
from usx_phantom.ct_scan import FAT, SOFT_TISSUE
from usx_phantom.density import Ellipsoid, Material, check_upright
from usx_phantom.xray_settings import XraySettings


class Wide:
    """A trunk far wider than the CT; its back is at y = 70 mm."""

    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast(x, z).shape, 70.0)

    def inside(self, points: np.ndarray) -> np.ndarray:
        return (np.abs(points[:, 0]) < 150.0) & (points[:, 1] < 70.0) & (points[:, 1] > -150.0)


@dataclass
class Patient:
    labelmap: Volume
    intensities: Volume | None = None
    skin: Wide = field(default_factory=Wide)


GRID = VolumeGrid([-50.0, -45.0, -80.0], [2.0, 2.0, 2.0], (51, 54, 81))
SETTINGS = XraySettings(columns=160, rows=200, spacing=2.0, gas=0, mottle=0.0)
SOFT = 40.0


def coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z, y, x = np.meshgrid(*(GRID.origin[a] + GRID.spacing[a] * np.arange(GRID.size[a]) for a in (2, 1, 0)),
                          indexing="ij")
    return x, y, z


def patient(noise: float = 12.0) -> Patient:
    """Two bones of 22 x 22 x 30 mm above each other in muscle with noise; two streaks of fat cross the CT's faces."""
    x, y, z = coordinates()
    values = SOFT + np.random.default_rng(3).normal(0.0, noise, x.shape)
    labels = np.zeros(x.shape, np.uint8)
    for label, middle in ((20, 30.0), (21, -20.0)):
        bone = (np.abs(x) < 12.0) & (np.abs(y) < 12.0) & (np.abs(z - middle) < 16.0)
        values[bone], labels[bone] = 400.0, label
    return Patient(Volume(labels, GRID), Volume(values.astype(np.float32), GRID))


def excess(one: Patient) -> np.ndarray:
    part = ct_part(one, Material())
    assert part is not None
    return part.hounsfield - part.trunk


def test_a_scene_without_ct_has_no_part_of_it() -> None:
    assert ct_part(replace(patient(), intensities=None), Material()) is None


def test_the_vertebrae_are_the_ct_s_own_to_the_last_voxel() -> None:
    one = patient()
    part = ct_part(one, Material())
    inside = one.labelmap.values > 0
    np.testing.assert_allclose(part.hounsfield[inside], one.intensities.values[inside], atol=1e-3)
    assert part.soft == pytest.approx(SOFT, abs=1.0)


def test_the_ct_fades_towards_its_faces() -> None:
    one = patient(noise=0.01)
    x = coordinates()[0]
    one.intensities.values[one.labelmap.values == 0] += 60.0 * (x[one.labelmap.values == 0] > 0)
    more = excess(one)
    for face in (more[0], more[-1], more[:, 0], more[:, -1], more[:, :, 0], more[:, :, -1]):
        assert np.abs(face).max() < 4.0
    assert np.ptp(more[40, 8]) > 55.0  # yet within, its tissues are as they are


def halo(one: Patient) -> float:
    """Largest step between neighbouring pixels of the line integrals, bones and the trunk's own edges left out."""
    path, _ = xray.line_integrals(one, SETTINGS, 0)
    bare, _ = xray.line_integrals(patient(noise=0.01), SETTINGS, 0)
    wanted = (bare > 4.0)
    difference = ndimage.gaussian_filter(path - bare, 1.0)
    rows, columns = np.gradient(difference)
    return float(np.hypot(rows, columns)[ndimage.binary_erosion(wanted, iterations=4)].max())


FILLS = {"water": 0.0, "air": -1000.0, "lowest": -1024.0}


@pytest.mark.parametrize("fill", FILLS)
def test_corners_that_were_never_scanned_show_no_halo(fill: str) -> None:
    """A CT that was turned before it was resampled has wedges of one value at its faces."""
    one = patient()
    x, y, z = coordinates()
    plain = halo(one)
    one.intensities.values[(x + 0.5 * z > 70.0) | (y - 0.4 * z < -50.0)] = FILLS[fill]
    assert halo(one) < max(1.5 * plain, 0.008)


def test_the_halo_would_be_seen() -> None:
    """The same wedge as real air within the CT (not at a face) is kept, and shows."""
    one = patient()
    x, y, z = coordinates()
    one.intensities.values[(np.abs(x) < 30.0) & (np.abs(y + 25.0) < 6.0) & (np.abs(z) < 20.0)] = -990.0
    assert halo(one) > 0.1


def test_air_that_a_face_cuts_is_soft_tissue_and_closed_gas_is_kept() -> None:
    one = patient()
    x, y, z = coordinates()
    lung = (z > 40.0) & (y < -20.0) & (np.abs(x) > 15.0)
    closed = (x**2 + (y + 30.0) ** 2 + (z + 40.0) ** 2) < 8.0**2
    back = y > 56.0
    one.intensities.values[lung | closed | back] = -900.0
    more = excess(one)
    assert np.abs(more[lung]).max() < 1e-3 and np.abs(more[back]).max() < 1e-3
    assert more[closed].mean() < -800.0


def test_what_a_scene_was_filled_with_is_soft_tissue_of_this_patient() -> None:
    """`build_scene` puts tissue of 40 HU where nothing was scanned and fat behind the back; this patient has -20 HU."""
    one = patient()
    x, y, z = coordinates()
    values, labels = one.intensities.values, one.labelmap.values
    values[labels == 0] -= 60.0
    wedge, back = (x + 0.5 * z > 50.0) & (labels == 0), y > 40.0
    values[wedge], values[back] = SOFT_TISSUE, FAT
    more = excess(one)
    assert np.abs(more[wedge]).max() < 1e-3 and np.abs(more[back]).max() < 1e-3
    assert ct_part(one, Material()).soft == pytest.approx(-20.0, abs=1.0)


def test_labels_that_reach_beyond_what_was_scanned_bring_no_air() -> None:
    """A label map resampled by nearest voxels may cover voxels that hold the fill value."""
    one = patient()
    x = coordinates()[0]
    one.intensities.values[x > 9.0] = -1024.0  # through the bones
    assert excess(one).min() > -150.0


def test_rays_beside_the_ct_cross_the_trunk_alone() -> None:
    one = patient()
    path, _ = xray.line_integrals(one, SETTINGS, 0)
    above = path[8, 60:100]
    expected = 0.02059 * 300.0 * (1.0 + SOFT / 1000.0)
    assert above.min() > 0.99 * expected and above.max() < 1.04 * expected  # 1.04: slanted rays are longer


def test_pockets_of_gas_stay_out_of_the_ct() -> None:
    out, within = Ellipsoid((0.0, -90.0, 0.0), (10.0, 10.0, 10.0)), Ellipsoid((0.0, -50.0, 0.0), (10.0, 10.0, 10.0))
    assert beside((out, within), GRID) == (out,)


def test_the_cbct_shows_the_ct_and_the_same_trunk() -> None:
    one = patient(noise=5.0)
    settings = cbct.CbctSettings(spacing=2.0, diameter=150.0, blur=0.0, noise=0.0, cupping=0.0, truncation=0.0)
    volume = cbct.simulate(one, settings, 0)
    for label in (20, 21):
        centre = np.argwhere(one.labelmap.values == label).mean(axis=0)[::-1] * 2.0 + GRID.origin
        index = np.rint((centre - volume.grid.origin) / 2.0).astype(int)
        assert volume.values[index[2], index[1], index[0]] == pytest.approx(400.0, abs=1.0)
    middle = volume.values[volume.values.shape[0] // 2]
    assert middle[middle.shape[0] // 2, 3] == pytest.approx(SOFT, abs=1.0)  # beside the CT
    assert middle[0, 0] == -1000  # beyond the field


def broken(kind: str) -> Patient:
    one = patient()
    values, grid = one.intensities.values, GRID
    if kind == "nan":
        values[3, 4, 5] = np.nan
    if kind == "transposed":
        return replace(one, intensities=Volume(np.ascontiguousarray(values.transpose(2, 1, 0)),
                                               replace(GRID, size=GRID.size[::-1])))
    if kind == "shifted":
        return replace(one, intensities=Volume(values, replace(GRID, origin=GRID.origin + [40.0, 0.0, 0.0])))
    if kind == "elsewhere":
        return replace(one, intensities=Volume(values, replace(GRID, origin=GRID.origin + [900.0, 0.0, 0.0])))
    if kind == "raw":
        return replace(one, intensities=Volume(values + 1024.0, grid))
    if kind == "turned":
        return replace(one, intensities=Volume(values, replace(GRID, direction=np.diag([-1.0, -1.0, 1.0]))))
    if kind == "blank":
        values[:] = -1000.0
    if kind == "labels nan":
        labels = one.labelmap.values.astype(np.float32)
        labels[0, 0, 0] = np.nan
        return replace(one, labelmap=Volume(labels, GRID))
    if kind == "labels empty":
        one.labelmap.values[:] = 0
    if kind == "labels upside down":
        return replace(one, labelmap=Volume(np.where(one.labelmap.values > 0, 41 - one.labelmap.values, 0), GRID))
    return one


@pytest.mark.parametrize(("kind", "words"), [
    ("nan", "not finite"), ("transposed", "on no bone"), ("shifted", "on no bone"), ("elsewhere", "one frame"),
    ("raw", "Hounsfield"), ("turned", "axes of the CT"), ("blank", "Hounsfield"), ("labels nan", "not finite"),
    ("labels empty", "no label"), ("labels upside down", "transposed or flipped")])
def test_what_cannot_be_right_is_refused_with_one_sentence(kind: str, words: str) -> None:
    for simulate in (lambda scene: xray.simulate_lateral(scene, SETTINGS, 0), lambda scene: cbct.simulate(scene)):
        with pytest.raises(UsxError, match=words) as error:
            simulate(broken(kind))
        assert "\n" not in str(error.value)


def test_a_label_map_lying_on_its_side_is_refused() -> None:
    one = patient().labelmap
    for axes in ((2, 1, 0), (1, 0, 2)):
        values = one.values.transpose(axes)
        with pytest.raises(UsxError, match="transposed"):
            check_upright(Volume(values, replace(GRID, size=values.shape[::-1])))
    check_upright(one)

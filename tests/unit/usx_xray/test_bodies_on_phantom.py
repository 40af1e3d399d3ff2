"""Bodies found in simulated radiographs, DICOM file and all, against the projected bodies of the truth.

The aim: outline within 2 mm and Dice of 0.9 at least, with clicks 2 to 3 mm off.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from usx_common.transforms import apply, invert
from usx_phantom import dicom_xray, xray
from usx_phantom.mesh_import import read_spine
from usx_phantom.phantom_scene import build_scene
from usx_phantom.spine import sample_spine
from usx_xray.bodies import filled, segment_bodies
from usx_xray.seeds import Seed
from usx_xray.xray_image import read_xray


def body_points(values: np.ndarray, grid, label: int) -> np.ndarray:
    """Voxels (N, 3), mm, of a vertebra's body: what lies before the spinal canal, seen along the canal.

    The direction of the canal is that in which the hole of the vertebra is widest open.
    """
    points = np.argwhere(values == label)[:, ::-1] * grid.spacing + grid.origin
    centre = points.mean(axis=0)
    best = (0.0, np.zeros(len(points), bool))
    for angle in np.radians(np.arange(-45.0, 46.0, 3.0)):
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        turned = (points - centre) @ turn.T
        cells = np.floor(turned[:, :2]).astype(int) + 80
        seen = np.zeros((160, 160), bool)
        seen[cells[:, 1], cells[:, 0]] = True
        seen = ndimage.binary_closing(seen)
        holes, count = ndimage.label(ndimage.binary_fill_holes(seen) & ~seen)
        if count:
            sizes = ndimage.sum_labels(np.ones_like(holes), holes, range(1, count + 1))
            if sizes.max() > best[0]:
                wall = np.argwhere(holes == sizes.argmax() + 1)[:, 0].min() - 80
                best = (float(sizes.max()), turned[:, 1] < wall)
    return points[best[1]]


def truth_masks(scene, radiograph) -> dict[int, np.ndarray]:
    masks = {}
    for label in range(20, 25):
        points = body_points(scene.labelmap.values, scene.labelmap.grid, label)
        pixels = radiograph.project(points)
        mask = np.zeros(radiograph.pixels.shape, np.uint8)
        size = float(radiograph.camera_matrix[0, 0] / apply(invert(radiograph.xray_to_cbct), points)[:, 2].mean()
                     * scene.labelmap.grid.spacing.max() / 2.0)
        for column, row in pixels:
            cv2.circle(mask, (round(column), round(row)), max(round(size), 1), 1, -1)
        masks[label] = ndimage.binary_opening(ndimage.binary_fill_holes(mask), iterations=3)
    return masks


def check(meshes: dict, seed: int, folder: Path, limits: tuple[float, float], leave_out: tuple[int, ...] = ()) -> None:
    scene = build_scene(meshes, seed, spacing=1.0)
    radiograph = xray.simulate_lateral(scene, seed=seed)
    dicom_xray.write(radiograph, folder / "x.dcm")
    image = read_xray(folder / "x.dcm")
    np.testing.assert_allclose(image.geometry.camera_matrix, radiograph.camera_matrix)
    truth, spacing = truth_masks(scene, radiograph), image.geometry.midplane_spacing[0]
    rng = np.random.default_rng(seed)
    for _ in range(2):
        seeds = []
        for label, mask in truth.items():
            angle, off = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(2.0, 3.0) / spacing
            row, column = np.argwhere(mask).mean(axis=0)
            seeds.append(Seed(label, column + off * np.cos(angle), row + off * np.sin(angle)))
        found = segment_bodies(image.pixels, image.geometry, seeds)
        assert [body.label for body in found.bodies] == list(truth), found.problems
        scores = [score(body.outline, truth[body.label], spacing) for body in found.bodies
                  if body.label not in leave_out]
        dice, distance = np.array(scores).T
        print(f"seed {seed}: Dice {np.round(dice, 3)}, outline {np.round(distance, 2)} mm, confidence "
              f"{[round(body.confidence, 2) for body in found.bodies]}")
        assert dice.min() >= limits[0] and distance.max() <= limits[1]


def score(outline: np.ndarray, truth: np.ndarray, spacing: float) -> tuple[float, float]:
    """Dice, and mean symmetric distance of the outlines in mm."""
    ours = filled(outline, truth.shape)
    border = np.argwhere(truth & ~ndimage.binary_erosion(truth))[:, ::-1]
    ends = np.roll(outline, -1, axis=0)
    dense = np.concatenate([outline + (ends - outline) * part for part in (0.0, 0.25, 0.5, 0.75)])
    forth, back = cKDTree(border).query(dense)[0].mean(), cKDTree(dense).query(border)[0].mean()
    return 2.0 * (ours & truth).sum() / (ours.sum() + truth.sum()), (forth + back) / 2.0 * spacing


@pytest.mark.parametrize("seed", [3, 11])
def test_sampled_spines(seed: int, tmp_path: Path) -> None:
    check(sample_spine(seed).meshes, seed, tmp_path, (0.9, 2.0))


@pytest.mark.real_data
@pytest.mark.parametrize(("subject", "collapsed"), [("verse004", (20,)), ("verse008", ()), ("verse009", ())])
def test_real_spines(subject: str, collapsed: tuple[int, ...], usx_data: Path, tmp_path: Path) -> None:
    """The collapsed L1 of verse004 is no box any more: Dice 0.70 to 0.80, a known limit."""
    check(read_spine(usx_data / "shapes" / subject), 1, tmp_path, (0.88, 2.0), collapsed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for number in range(20):
            check(sample_spine(number).meshes, number, Path(name), (0.0, 20.0))

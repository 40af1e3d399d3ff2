"""Puts a spine under a skin and on a table: from meshes to a `Scene`."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh
from usx_common.volumes import Volume
from usx_phantom import ct_scan
from usx_phantom.anatomy import levels_of, middle_level
from usx_phantom.scan_files import memory_watched
from usx_phantom.scene import Scene, SkinSurface
from usx_phantom.voxels import label_meshes

# Skin to spinous process: 12-30 mm in adults, here the least along the back.
SKIN_CLEARANCE = 16.0
# Prone on a table in front of the robot: posterior = up, cranial = +y of world (mm).
NOMINAL_POSTERIOR = (0.0, 0.0, 1.0)
NOMINAL_CRANIAL = (0.0, 1.0, 0.0)
TABLE_CENTRE = (560.0, 0.0, 140.0)


def build_scene(meshes: dict[str, Mesh], seed: int, spacing: float = 0.8, ct: Volume | None = None) -> Scene:
    """Scene of closed bone meshes L1..L5, or at least three of them (mm, LPS). `spacing` is that of the label map.

    `ct`: their CT (HU, frame of the meshes, direction identity); its skin is taken where it shows it reliably.

    The patient lies prone, turned about the vertical by up to 6 degrees and tilted by up to 2, as `seed` says.
    """
    rng = np.random.default_rng(np.random.SeedSequence([0x5343454E, int(seed)]))
    turn = Rotation.from_euler("zyx", np.radians(rng.uniform(-1.0, 1.0, 3) * (6.0, 2.0, 2.0))).as_matrix()
    nominal = np.column_stack([np.cross(NOMINAL_POSTERIOR, NOMINAL_CRANIAL), NOMINAL_POSTERIOR, NOMINAL_CRANIAL])
    rotation = turn @ nominal
    middle = meshes[middle_level(meshes)].vertices.mean(0)
    place = np.array(TABLE_CENTRE) + rng.uniform(-1.0, 1.0, 3) * (15.0, 15.0, 8.0)
    cbct_to_world = transforms.make_transform(rotation, place - rotation @ middle)
    skin, intensities = fit_skin(meshes), None
    if ct is not None:
        with memory_watched("the CT"):
            skin, intensities = ct_scan.skin_of(ct, meshes) or skin, ct_scan.filled(ct)
    return Scene(meshes, label_meshes(meshes, spacing), skin, cbct_to_world, intensities)


def fit_skin(meshes: dict[str, Mesh], clearance: float = SKIN_CLEARANCE) -> SkinSurface:
    """Skin over the spinous processes: a parabola along the back that nowhere comes nearer than `clearance` mm."""
    bones = [meshes[level].vertices for level in levels_of(meshes)]
    tips = np.array([bone[bone[:, 1].argmax()] for bone in bones])
    x0, z0 = float(tips[:, 0].mean()), float(tips[:, 2].mean())
    s = tips[:, 2] - z0
    c2, c1, _ = np.polyfit(s, tips[:, 1], 2)
    # Fat and muscle smooth the back: it follows the processes less closely than a fit would.
    c2 = float(np.clip(0.6 * c2, -8e-4, 8e-4))
    shape = SkinSurface(x0, z0, (0.0, float(c1), c2))
    points = np.concatenate([mesh.vertices for mesh in meshes.values()])
    c0 = float((points[:, 1] - shape.height(points[:, 0], points[:, 2])).max()) + clearance
    return SkinSurface(x0, z0, (c0, float(c1), c2))


def body_centres(labelmap: Volume) -> dict[str, np.ndarray]:
    """Centre (3,) mm LPS of the vertebral body of each of L1..L5 that a label map in LPS axes holds.

    In a slab of 6 mm about the middle plane the canal parts body and spinous process: the widest gap along y.
    """
    centres = {}
    grid = labelmap.grid
    for level in LEVELS:
        z, y, x = np.nonzero(labelmap.values == label_of_level(level))
        if len(z) == 0:
            continue
        points = np.stack([x, y, z], -1) * grid.spacing + grid.origin
        middle = _middle_x(points)
        slab = points[np.abs(points[:, 0] - middle) < 3.0]
        ys = np.unique(slab[:, 1])
        gap = int(np.argmax(np.diff(ys)))
        body = slab[slab[:, 1] <= ys[gap]] if np.diff(ys)[gap] > 2.0 * grid.spacing[1] else slab[
            slab[:, 1] < np.quantile(slab[:, 1], 0.6)]
        wall = body[:, 1].max()
        whole = points[points[:, 1] <= wall - 2.0]
        centres[level] = np.array([whole[:, 0].mean(), body[:, 1].mean(), body[:, 2].mean()])
    return centres


def _middle_x(points: np.ndarray) -> float:
    """x of the middle plane: that of the front half, which is the body."""
    front = points[points[:, 1] < np.quantile(points[:, 1], 0.45)]
    return float(0.5 * (front[:, 0].min() + front[:, 0].max()))

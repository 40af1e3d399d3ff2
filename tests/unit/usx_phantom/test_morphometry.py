"""Measures of vertebrae: a vertebra made of blocks whose sizes are known, bad meshes, real ones, published means."""

import itertools

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh
from usx_phantom.marching_cubes import iso_surface
from usx_phantom.mesh_import import AXES
from usx_phantom.morphometry import MEASURES, asymmetry, examine, measure, measure_spine

SPACING = 0.8
# Sizes of the block vertebra: body 44 wide, 32 deep, 28 high in front and 24 behind; canal 22 wide, 16 deep; pedicles
# 9 wide from z = 0 to 10; transverse processes from tip to tip 80; spinous process 52 behind the back wall.
SIZES = {"endplate_width_superior": 44.0, "endplate_width_inferior": 44.0, "endplate_depth_superior": 32.06,
         "endplate_depth_inferior": 32.06, "body_height_anterior": 28.0, "body_height_posterior": 24.0,
         "canal_width": 22.0, "canal_depth": 16.0, "pedicle_width": 9.0, "transverse_span": 80.0,
         "spinous_length": 52.0}


def block(x, y, z, low, high):
    """Field of a box from `low` to `high`, negative inside."""
    out = [np.maximum(low[i] - c, c - high[i]) for i, c in enumerate((x, y, z))]
    return np.maximum.reduce(np.broadcast_arrays(*out))


def block_vertebra(longer=0.0):
    axes = [np.arange(low, high, SPACING) for low, high in ((-44, 50), (-20, 72), (-22, 22))]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    half = 13.0 - y / 16.0
    body = np.maximum.reduce(np.broadcast_arrays(np.abs(x) - 22.0, np.abs(y) - 16.0, np.abs(z) - half))
    parts = [body]
    for side in (-1, 1):
        wall = sorted((side * 11.0, side * 20.0))
        parts.append(block(x, y, z, (wall[0], 15.0, 0.0), (wall[1], 34.0, 10.0)))
        tip = sorted((side * 15.0, side * (40.0 + (longer if side > 0 else 0.0))))
        parts.append(block(x, y, z, (tip[0], 26.0, 2.0), (tip[1], 33.0, 8.0)))
    parts.append(block(x, y, z, (-20.0, 32.0, -10.0), (20.0, 40.0, 10.0)))
    parts.append(block(x, y, z, (-4.0, 38.0, -14.0), (4.0, 68.0, 4.0)))
    field = np.minimum.reduce(parts)
    return iso_surface(field.astype(np.float32), np.array([a[0] for a in axes]), SPACING)


@pytest.fixture(scope="module")
def blocks():
    return block_vertebra()


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (-25.0, 6.0, -8.0), (12.0, -5.0, 10.0)])
def test_block_vertebra_measures_as_it_was_made_however_it_lies(blocks, turn):
    pose = transforms.make_transform(Rotation.from_euler("xyz", turn, degrees=True).as_matrix(),
                                     np.array([12.0, -30.0, 70.0]))
    found = measure(blocks.transformed(pose))
    assert list(found) == list(MEASURES)
    # Marching cubes cuts the edges of a block by up to half a grid step on either side.
    wrong = {name: (round(value, 2), SIZES[name]) for name, value in found.items() if abs(value - SIZES[name]) > 1.0}
    assert not wrong


def test_a_larger_vertebra_measures_larger(blocks):
    small, large = measure(blocks), measure(Mesh(1.2 * blocks.vertices, blocks.faces))
    for name, value in small.items():
        assert large[name] == pytest.approx(1.2 * value, abs=0.5)


def test_corners_and_spacing_of_a_stack(blocks):
    """Two block vertebrae 40 mm apart and 3 mm to the back: spacing and disc height by hand."""
    lower = blocks.transformed(transforms.make_transform(np.eye(3), np.array([0.0, 3.0, -40.0])))
    upper = examine(blocks)
    corner = upper.landmarks["SA"]
    assert np.allclose(corner, (0.0, -16.0, 14.0), atol=0.8)
    found = measure_spine({"L1": upper, "L2": examine(lower)})
    assert found["body_spacing", "L1-L2"] == pytest.approx(np.hypot(40.0, 3.0), abs=0.3)
    # From (y, z) of the lower plate of the upper body to the upper plate of the lower one, in front, middle and behind.
    gaps = [np.hypot(3.0, 40.0 - height) for height in (28.0, 26.0, 24.0)]
    assert found["disc_height", "L1-L2"] == pytest.approx(np.mean(gaps), abs=1.0)
    assert found["transverse_span", "L2"] == pytest.approx(80.0, abs=1.0)


def test_asymmetry_is_nil_for_mirror_images_and_grows_with_one_side(blocks):
    even = asymmetry(blocks)
    uneven = asymmetry(block_vertebra(longer=8.0))
    assert even < 0.2
    assert even + 0.15 < uneven < 1.5


@pytest.mark.parametrize("solid", [trimesh.creation.icosphere(3, 20.0), trimesh.creation.box((40.0, 80.0, 30.0))])
def test_solids_that_are_no_vertebra_are_refused(solid):
    with pytest.raises(UsxError, match="canal"):
        measure(Mesh(np.asarray(solid.vertices), np.asarray(solid.faces)))


def test_a_vertebra_without_pedicles_is_refused():
    body = trimesh.creation.box((44.0, 32.0, 26.0))
    arch = trimesh.creation.box((40.0, 30.0, 20.0))
    arch.apply_translation((0.0, 50.0, 0.0))
    both = trimesh.util.concatenate([body, arch])
    with pytest.raises(UsxError, match="pedicle"):
        measure(Mesh(np.asarray(both.vertices), np.asarray(both.faces)))


PLAUSIBLE = {"endplate_width_superior": (36, 62), "endplate_width_inferior": (38, 68),
             "endplate_depth_superior": (26, 42), "endplate_depth_inferior": (26, 42),
             "body_height_anterior": (20, 36), "body_height_posterior": (19, 34), "canal_width": (17, 36),
             "canal_depth": (10, 24), "pedicle_width": (4, 24), "transverse_span": (60, 120),
             "spinous_length": (34, 66)}


@pytest.mark.real_data
def test_a_real_spine_measures_within_what_is_human(usx_data):
    folder = usx_data / "shapes" / "verse008"
    spine = {level: examine(read_mesh(folder / f"{level}.ply").transformed(AXES["RAS"])) for level in LEVELS}
    found = measure_spine(spine)
    for level in LEVELS:
        wrong = {name: value for name, value in spine[level].values.items()
                 if not PLAUSIBLE[name][0] < value < PLAUSIBLE[name][1]}
        assert not wrong, level
    for upper, lower in itertools.pairwise(LEVELS):
        assert 3.0 < found["disc_height", f"{upper}-{lower}"] < 16.0
        assert 26.0 < found["body_spacing", f"{upper}-{lower}"] < 46.0


@pytest.mark.real_data
def test_the_mean_of_87_patients_measures_as_its_authors_say(usx_data):
    """Means of L2 to L5 of the 87 (Clouthier 2023, the model's *_y.csv files): body depth 35.04, height 27.75, spinous
    process with the canal 51.60, canal 26.69 wide and 16.68 deep (mm). Their landmarks are not published."""
    folder = usx_data / "shapes" / "clouthier_mean87"
    found = [measure(read_mesh(folder / f"{level}.ply").transformed(AXES["RAS"])) for level in LEVELS[1:]]
    mean = {name: np.mean([one[name] for one in found]) for name in MEASURES}
    depth = 0.5 * (mean["endplate_depth_superior"] + mean["endplate_depth_inferior"])
    height = 0.5 * (mean["body_height_anterior"] + mean["body_height_posterior"])
    assert depth == pytest.approx(35.04, rel=0.06)
    assert height == pytest.approx(27.75, rel=0.06)
    assert mean["spinous_length"] == pytest.approx(51.60, rel=0.06)
    assert mean["canal_width"] == pytest.approx(26.69, rel=0.12)
    assert mean["canal_depth"] == pytest.approx(16.68, rel=0.12)

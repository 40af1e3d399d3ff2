"""The command that draws the imaging pictures: one picture of a toy spine, and bad input."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from matplotlib import image

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import imaging_pictures
from usx_phantom.scene import Scene, SkinSurface


def toy_scene() -> Scene:
    """Five boxes below a flat back."""
    meshes = {}
    for number, level in enumerate(LEVELS):
        z = -36.0 * number
        solid = trimesh.creation.box(bounds=[[-20, -40, z - 14], [20, 0, z + 14]])
        meshes[level] = Mesh(solid.vertices, solid.faces)
    labels = Volume(np.zeros((2, 2, 2), np.uint8), VolumeGrid(np.zeros(3), np.ones(3), (2, 2, 2)))
    return Scene(meshes, labels, SkinSurface(0.0, -72.0, (20.0, 0.0, 0.0)), np.eye(4))


def test_frames_are_drawn(tmp_path: Path) -> None:
    path = imaging_pictures.draw_bmode(toy_scene(), tmp_path / "b.png", 1)
    picture = image.imread(path)[..., :3]
    assert picture.shape[1] > 800 and picture.max() > 0.9 and (picture < 0.05).mean() > 0.3


def test_a_view_along_the_spine_looks_into_the_back_with_the_head_on_one_side() -> None:
    pose = imaging_pictures.sagittal_pose(toy_scene(), -72.0, 6.0)
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3)) and np.linalg.det(pose[:3, :3]) > 0
    assert pose[0, 3] == 6.0 and pose[1, 2] == pytest.approx(-1.0) and abs(pose[2, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--meshes", "/nowhere/at/all"]])
def test_bad_input_ends_with_one_line_and_status_2(arguments: list, tmp_path: Path, capsys) -> None:
    assert imaging_pictures.main(["--out", str(tmp_path), *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("imaging_pictures: ") and "\n" not in message
    assert list(tmp_path.iterdir()) == []

"""Penetration depths against closed forms and another library's ray-cast signed distances."""

import numpy as np
import pytest
import trimesh

from usx_common.meshes import Mesh
from usx_phantom.mesh_import import read_spine
from usx_phantom.overlap import BoneSurface, OpenBone, overlaps, penetration
from usx_phantom.spine import mean_spine


def ball(radius, centre=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.asarray(mesh.vertices) + centre, np.asarray(mesh.faces))


def block(size):
    mesh = trimesh.creation.box((size, size, size))
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.4).meshes


def test_distances_to_a_block_are_exact_at_faces_edges_and_corners():
    points = np.random.default_rng(0).uniform(-9.0, 9.0, (4000, 3))
    q = np.abs(points) - 5.0
    exact = np.linalg.norm(np.maximum(q, 0.0), axis=1) + np.minimum(q.max(1), 0.0)
    distance, outward = BoneSurface(block(10.0)).signed_distance(points)
    assert np.allclose(distance, exact, atol=1e-9)
    ahead = BoneSurface(block(10.0)).signed_distance(points + 1e-4 * outward)[0]
    assert np.quantile((ahead - distance) * 1e4, 0.05) > 0.99  # not where the nearest face changes


def test_distances_to_a_vertebra_against_open3d(spine):
    o3d = pytest.importorskip("open3d")
    mesh = spine["L3"]
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(mesh.vertices.astype(np.float32)),
                        o3d.core.Tensor(mesh.faces.astype(np.uint32)))
    points = np.random.default_rng(1).uniform(mesh.vertices.min(0) - 3.0, mesh.vertices.max(0) + 3.0, (5000, 3))
    oracle = scene.compute_signed_distance(o3d.core.Tensor(points.astype(np.float32)), nsamples=7).numpy()
    distance = BoneSurface(mesh).signed_distance(points)[0]
    assert (np.abs(distance - oracle) < 1e-4).mean() > 0.999


@pytest.mark.parametrize("gap", [-3.0, -0.5, 0.5])
def test_two_balls(gap):
    a, b = BoneSurface(ball(10.0)), BoneSurface(ball(6.0))
    pose = np.eye(4)
    pose[:3, 3] = (16.0 + gap) * np.array([0.6, 0.0, 0.8])
    assert penetration(a, b, pose) == pytest.approx(max(-gap, 0.0), abs=0.05)


def test_a_small_bone_swallowed_by_a_large_one_is_found():
    assert penetration(BoneSurface(ball(2.0)), BoneSurface(ball(10.0))) == pytest.approx(8.0, abs=0.05)


def test_folded_faces_do_not_invent_an_overlap():
    """A vertex pushed through the opposite side turns the faces around it over: outside stays outside."""
    mesh = ball(10.0)
    vertices = mesh.vertices.copy()
    top = int(vertices[:, 2].argmax())
    near = np.flatnonzero(np.linalg.norm(vertices - vertices[top], axis=1) < 1.5)
    vertices[near] = vertices[near] * (-1.0, -1.0, 1.0)
    folded = BoneSurface(Mesh(vertices, mesh.faces))
    above = np.array([0.0, 0.0, 9.99]) + np.random.default_rng(2).uniform(-0.3, 0.3, (200, 3)) * (1, 1, 0)
    above[:, 2] = 9.9995
    assert folded.deepest(above)[0] < 0.2


def test_neighbours_of_a_spine_and_a_pushed_one(spine):
    assert max(overlaps(spine).values()) == 0.0
    pushed = dict(spine)
    pushed["L2"] = Mesh(spine["L2"].vertices - (0.0, 0.0, 8.0), spine["L2"].faces)
    found = overlaps(pushed)
    assert found["L2", "L3"] > 2.0 and found["L3", "L4"] == 0.0
    assert ("L1", "L3") not in overlaps({"L1": spine["L1"], "L3": spine["L3"]})


def test_open_bones_are_refused_by_name(spine):
    holed = Mesh(spine["L4"].vertices, spine["L4"].faces[:-3])
    with pytest.raises(OpenBone, match="L4 is not closed"):
        overlaps({"L3": spine["L3"], "L4": holed})
    doubled = Mesh(spine["L4"].vertices, np.vstack([spine["L4"].faces, spine["L4"].faces]))
    with pytest.raises(OpenBone):
        BoneSurface(doubled)
    with pytest.raises(OpenBone):
        BoneSurface(Mesh(np.zeros((3, 3)), np.zeros((0, 3))))


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse008", "verse010"])
def test_real_columns_hardly_overlap(usx_data, subject):
    """Their facet joints touch: masks of neighbours share borders and meshes were smoothed one by one."""
    assert max(overlaps(read_spine(usx_data / "shapes" / subject)).values()) < 0.3

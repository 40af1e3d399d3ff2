"""The parametric vertebra: closed surfaces of genus 1 with an open canal and the published sizes."""

import hashlib

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_phantom.implicit_surface import evaluate, evaluate_grid
from usx_phantom.marching_cubes import case_table, iso_surface
from usx_phantom.sampling import sample_subject, sample_vertebra
from usx_phantom.shape_comparison import compare, main, mean_surface_distance, similarity_fit
from usx_phantom.template import carried_mesh, shape_mesh, template_mesh
from usx_phantom.vertebra import PAIRED_PARTS, PARTS, VertebraShape, mean_vertebra


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("level", LEVELS)
def test_mean_vertebra_is_closed_with_one_canal(level):
    solid = as_trimesh(template_mesh(level))
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.body_count == 1
    assert solid.euler_number == 0  # genus 1: the canal is the only hole
    assert 30e3 < solid.volume < 75e3


@pytest.mark.parametrize("level", LEVELS)
def test_canal_is_open_and_ringed_by_bone(level):
    shape = mean_vertebra(level).shape
    z = np.linspace(-40, 40, 81)
    middle = np.stack([np.zeros_like(z), shape.canal[2] + shape.canal[4] * z, z], -1)
    assert (shape.solid().field(middle) > 3.0).all()
    assert shape.solid().field(np.array([[0.0, 0.0, 0.0]]))[0] < -5.0
    spinous = shape.part("spinous_middle")[:3]
    assert shape.solid().field(spinous[None])[0] < 0.0


# (measure, level, published mean, SD): transverse-process span by CT of 771 people (CTSpinoPelvic1K); superior
# end-plate width from the same (711 people). The end plates' rims are measured here from outside to outside.
SPANS = {"L1": (73.0, 9.0), "L2": (81.6, 8.2), "L3": (90.5, 9.2), "L4": (87.2, 9.1), "L5": (93.2, 8.3)}
WIDTHS = {"L1": (40.9, 4.8), "L2": (42.3, 4.6), "L3": (44.5, 5.5), "L4": (46.8, 6.1), "L5": (51.0, 9.1)}


@pytest.mark.parametrize("level", LEVELS)
def test_mean_sizes_are_the_published_ones(level):
    v = template_mesh(level).vertices
    span, sd = SPANS[level]
    assert abs(np.ptp(v[:, 0]) - span) < sd
    shape = mean_vertebra(level).shape
    top = v[(v[:, 2] > 0.5 * shape.body[2]) & (v[:, 1] < 0.3 * shape.body[1])]
    width, sd = WIDTHS[level]
    assert abs(np.ptp(top[:, 0]) - width) < 2.0 * sd


def test_mean_is_symmetric_and_samples_are_not():
    rng = np.random.default_rng(2)
    points = rng.uniform(-50, 70, (4000, 3))
    flip = points * (-1, 1, 1)
    solid = mean_vertebra("L3").shape.solid()
    left, right = solid.field(points), solid.field(flip)
    near = np.abs(left) < 6.0
    assert near.sum() > 200 and np.allclose(left[near], right[near], atol=0.01)
    sample = sample_vertebra("L3", sample_subject(rng), rng).solid()
    assert np.abs(sample.field(points) - sample.field(flip))[near].max() > 0.3


@pytest.mark.parametrize("seed", range(4))
def test_samples_are_closed_and_vary_as_people_do(seed):
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng)
    for level in ("L1", "L4"):
        mesh = shape_mesh(sample_vertebra(level, subject, rng))
        solid = as_trimesh(mesh)
        assert solid.is_watertight and solid.euler_number == 0 and solid.body_count == 1
        mean = template_mesh(level)
        fitted = mean.transformed(similarity_fit(mean, mesh, steps=20))
        assert 0.4 < mean_surface_distance(fitted, mesh) < 2.2


def test_carried_mesh_lies_on_the_sampled_surface_with_the_template_faces():
    rng = np.random.default_rng(8)
    shape = sample_vertebra("L2", sample_subject(rng), rng)
    mesh = carried_mesh(shape, "L2")
    assert np.array_equal(mesh.faces, template_mesh("L2").faces)
    assert np.quantile(np.abs(shape.solid().field(mesh.vertices)), 0.999) < 0.05
    assert as_trimesh(mesh).is_watertight
    assert mean_surface_distance(mesh, shape_mesh(shape)) < 0.25


def test_vector_round_trip():
    shape = mean_vertebra("L5").shape
    again = VertebraShape.from_vector(shape.vector())
    assert np.array_equal(again.vector(), shape.vector())
    assert shape.part("lamina").shape == (11,) and len(PARTS) == len(PAIRED_PARTS) + 3


def test_field_does_not_depend_on_how_it_is_asked():
    solid = mean_vertebra("L3").shape.solid()
    origin, spacing, size = np.array([-20.0, -10.0, -15.0]), 2.0, (21, 17, 16)
    grid = solid.grid(origin, spacing, size)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1).reshape(-1, 3)
    single = solid.field(origin + spacing * index).reshape(size)
    near = np.abs(single) < 5.0
    assert near.sum() > 500
    assert np.allclose(grid[near], single[near], atol=1e-4)
    assert ((grid < 0) == (single < 0)).all()
    assert evaluate.py_func is not None and evaluate_grid.py_func is not None


def test_marching_cubes_of_a_ball_against_geometry():
    axis = np.arange(40) - 19.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    mesh = iso_surface(np.sqrt(x**2 + y**2 + z**2) - 15.0, np.full(3, -19.5 * 0.5), 0.5)
    ball = as_trimesh(mesh)
    assert ball.is_watertight and ball.euler_number == 2
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 7.5**3, rel=0.01)
    assert np.allclose(np.linalg.norm(mesh.vertices, axis=1), 7.5, atol=0.03)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_marching_cubes_of_any_field_is_closed(seed):
    values = np.pad(np.random.default_rng(seed).normal(size=(6, 7, 5)), 1, constant_values=1.0)
    mesh = iso_surface(values, np.zeros(3), 1.0)
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth = {tuple(e) for e in edges.tolist()}
    assert len(forth) == len(edges)  # no edge twice in one direction
    assert forth == {(b, a) for a, b in forth}  # each once in the other
    assert as_trimesh(mesh).volume > 0


def test_case_table_covers_all_patterns():
    table = case_table()
    assert table.shape[0] == 256
    assert (table[0] < 0).all() and (table[255] < 0).all()
    assert all((table[i] >= 0).any() for i in range(1, 255))


@pytest.mark.parametrize(("values", "message"), [
    (np.ones((4, 4, 4)), "no surface"),
    (-np.ones((4, 4, 4)), "leaves the grid"),
    (np.ones((1, 4, 4)), "no cells"),
    (np.ones((4, 4)), "no cells"),
])
def test_fields_without_a_closed_surface_are_refused(values, message):
    with pytest.raises(UsxError, match=message):
        iso_surface(values, np.zeros(3), 1.0)


def test_same_seed_same_bytes():
    digests = set()
    for _ in range(2):
        rng = np.random.default_rng(5)
        mesh = shape_mesh(sample_vertebra("L1", sample_subject(rng), rng), 2.0)
        digests.add(hashlib.sha256(mesh.vertices.tobytes() + mesh.faces.tobytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.real_data
def test_mean_is_near_the_mean_of_87_patients(usx_data):
    found = compare(usx_data / "shapes" / "clouthier_mean87")
    assert list(found) == ["L2", "L3", "L4", "L5"]
    assert max(found.values()) < 0.6


@pytest.mark.real_data
def test_real_people_are_as_far_from_the_mean_as_samples_are(usx_data):
    """1.0 to 1.5 mm after a similarity fit for healthy people; L1 of verse004 is fractured."""
    found = compare(usx_data / "shapes" / "verse008")
    assert 0.6 < np.mean(list(found.values())) < 2.0


def test_comparison_refuses_a_folder_without_meshes(tmp_path, capsys):
    assert main(["--meshes", str(tmp_path)]) == 2
    assert "none of L1.ply" in capsys.readouterr().err


def test_surface_distance_of_shifted_balls():
    """Two balls of radius 20 shifted by 1 mm: the mean distance is near 1/2 (|cos| over the sphere), by geometry."""
    ball = trimesh.creation.icosphere(5, 20.0)
    a = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces))
    b = Mesh(a.vertices + (1.0, 0.0, 0.0), a.faces)
    assert mean_surface_distance(a, b) == pytest.approx(0.5, abs=0.03)
    fit = similarity_fit(a, Mesh(1.1 * a.vertices + (3.0, 4.0, 5.0), a.faces))
    assert np.cbrt(np.linalg.det(fit[:3, :3])) == pytest.approx(1.1, abs=0.01)
    assert np.allclose(fit[:3, 3], (3, 4, 5), atol=0.1)

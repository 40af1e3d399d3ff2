from __future__ import annotations

import itertools

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion import metrics
from usx_completion.surface_distance import surface_distances


def sphere(radius: float, centre=(0.0, 0.0, 0.0)) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.asarray(ball.vertices) + centre, np.asarray(ball.faces))


def grid(step: float, count: int = 6) -> np.ndarray:
    axis = np.arange(count) * step
    return np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)


def test_a_shifted_grid_has_closed_form_chamfer_f1_and_emd():
    truth = grid(0.1)
    moved = truth + [0.005, 0.0, 0.0]
    assert metrics.chamfer_p(truth, moved) == pytest.approx(0.005)
    assert metrics.chamfer_t(truth, moved) == pytest.approx(2 * 0.005**2)
    assert metrics.f1_score(truth, moved) == 1.0
    assert metrics.f1_score(truth, truth + [0.0101, 0.0, 0.0]) == 0.0
    assert metrics.earth_mover(truth, moved) == pytest.approx(0.005)


def test_metrics_agree_with_brute_force_distances():
    random = np.random.default_rng(1)
    a, b = random.random((80, 3)), random.random((110, 3))
    d = cdist(a, b)
    assert metrics.chamfer_t(a, b) == pytest.approx((d.min(1) ** 2).mean() + (d.min(0) ** 2).mean())
    assert metrics.chamfer_p(a, b) == pytest.approx(0.5 * (d.min(1).mean() + d.min(0).mean()))
    recall, precision = (d.min(1) < 0.1).mean(), (d.min(0) < 0.1).mean()
    assert metrics.f1_score(a, b, 0.1) == pytest.approx(2 * recall * precision / (recall + precision))


def test_emd_is_the_best_of_all_assignments():
    random = np.random.default_rng(2)
    a, b = random.random((6, 3)), random.random((6, 3))
    d = cdist(a, b)
    best = min(d[np.arange(6), list(order)].mean() for order in itertools.permutations(range(6)))
    assert metrics.earth_mover(a, b) == pytest.approx(best)


def test_f1_counts_one_sided_matches_and_is_zero_when_nothing_is_near():
    truth = np.zeros((4, 3))
    prediction = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    assert metrics.f1_score(truth, prediction) == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert metrics.f1_score(truth, prediction + 5.0) == 0.0


def test_surface_distances_are_exact_against_open3d():
    open3d = pytest.importorskip("open3d")
    mesh = sphere(20.0)
    points = np.random.default_rng(3).normal(0, 20, (400, 3))
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(mesh.vertices.astype(np.float32)),
                        open3d.core.Tensor(mesh.faces.astype(np.uint32)))
    expected = scene.compute_distance(open3d.core.Tensor(points.astype(np.float32))).numpy()
    np.testing.assert_allclose(surface_distances(points, mesh), expected, atol=2e-4)


@pytest.mark.parametrize("point, distance", [
    ((0.2, 0.2, 3.0), 3.0),  # above the face
    ((-1.0, -1.0, 0.0), np.sqrt(2)),  # nearest a corner
    ((0.5, -2.0, 0.0), 2.0),  # nearest an edge
    ((1.0, 1.0, 0.0), np.sqrt(0.5)),  # nearest the long edge
    ((0.25, 0.25, 0.0), 0.0),  # on it
])
def test_distance_to_one_triangle(point, distance):
    triangle = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    assert surface_distances(np.array([point]), triangle)[0] == pytest.approx(distance, abs=1e-12)


def test_concentric_spheres_have_the_difference_of_radii():
    truth, prediction = metrics.SampledSurface.of(sphere(20.0)), metrics.SampledSurface.of(sphere(21.0))
    scores = metrics.compare(truth, prediction, unit_mm=100.0)
    for part in metrics.PARTS:
        assert scores[part].assd_mm == pytest.approx(1.0, abs=0.03)
        assert scores[part].hd95_mm == pytest.approx(1.0, abs=0.05)
        assert scores[part].cd_p_e4 >= 1e4 * 0.0099


def test_arch_and_body_are_cut_at_the_mean_y_of_the_truth():
    truth = metrics.SampledSurface.of(sphere(20.0, (0, 5, 0)))
    moved_back = metrics.SampledSurface.of(sphere(20.0, (0, 5, 6)))
    masks = metrics.part_masks(truth.points, truth.points)
    plane = truth.points[:, 1].mean()
    assert truth.points[masks["arch"], 1].min() > plane >= truth.points[masks["body"], 1].max()
    assert plane == pytest.approx(5.0, abs=0.3)
    assert metrics.compare(truth, moved_back, 130.0)["whole"].assd_mm > 1.0


def test_a_part_without_predicted_points_is_not_a_number():
    truth = metrics.SampledSurface.of(sphere(20.0))
    behind = metrics.SampledSurface.of(sphere(5.0, (0, 30, 0)))
    scores = metrics.compare(truth, behind, 130.0)
    assert np.isnan(scores["body"].assd_mm) and np.isfinite(scores["arch"].assd_mm)


def test_sampling_is_even_and_repeatable():
    first, second = metrics.surface_points(sphere(20.0)), metrics.surface_points(sphere(20.0))
    assert first.shape == (4096, 3) and np.array_equal(first, second)
    spacing = np.sort(cdist(first[:800], first), axis=1)[:, 1]
    assert spacing.min() > 0.5 * np.median(spacing)


def test_unit_is_the_left_right_extent_plus_30_mm():
    cloud = np.array([[-40.0, 0, 0], [35.0, 99, 3], [0, 0, 7]])
    assert metrics.unit_of_partial(cloud) == pytest.approx(105.0)


@pytest.mark.parametrize("call", [
    lambda: metrics.unit_of_partial(np.empty((0, 3))),
    lambda: metrics.chamfer_t(np.empty((0, 3)), np.zeros((3, 3))),
    lambda: metrics.compare(metrics.SampledSurface(sphere(1), np.zeros((4, 3))),
                            metrics.SampledSurface(sphere(1), np.zeros((4, 3))), 0.0),
    lambda: surface_distances(np.zeros((1, 3)), Mesh(np.zeros((3, 3)), np.empty((0, 3), int))),
])
def test_what_cannot_be_measured_is_refused(call):
    with pytest.raises(UsxError):
        call()


def test_rows_and_csv_have_the_promised_columns(tmp_path):
    rows = metrics.level_rows("L3", sphere(20.0), sphere(20.5), sphere(22.0), 110.0)
    metrics.write_metrics_csv(tmp_path / "metrics.csv", rows)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "level,part,assd_mm,hd95_mm,cd_t_e4,f1,emd_e4,unit_mm,placed_mean_assd_mm"
    assert [line.split(",")[:2] for line in lines[1:]] == [["L3", "whole"], ["L3", "arch"], ["L3", "body"]]
    values = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(values["assd_mm"]) == pytest.approx(0.5, abs=0.03)
    assert float(values["placed_mean_assd_mm"]) == pytest.approx(2.0, abs=0.05)

from __future__ import annotations

import itertools

import numpy as np
import pytest
import trimesh
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion import metrics
from usx_completion.assignment import assign
from usx_completion.surface_distance import nearest_faces, surface_distances


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


def test_open3d_agrees_on_the_distances_between_clouds():
    open3d = pytest.importorskip("open3d")
    random = np.random.default_rng(4)
    a, b = random.random((300, 3)), random.random((200, 3))
    clouds = [open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points)) for points in (a, b)]
    there, back = (np.asarray(first.compute_point_cloud_distance(second))
                   for first, second in (clouds, clouds[::-1]))
    assert metrics.chamfer_t(a, b) == pytest.approx((there**2).mean() + (back**2).mean())
    assert metrics.chamfer_p(a, b) == pytest.approx(0.5 * (there.mean() + back.mean()))


def test_emd_of_a_permuted_and_moved_grid_is_the_move():
    points = grid(0.1, 5)
    shuffled = np.random.default_rng(5).permutation(points) + [0.0, 0.02, 0.0]
    assert metrics.earth_mover(points, shuffled, count=len(points)) == pytest.approx(0.02)
    assert metrics.earth_mover(points, points[::-1], count=len(points)) == 0.0


def test_emd_on_a_line_is_that_of_sorted_points():
    random = np.random.default_rng(6)
    a, b = random.random(200), 0.3 + random.random(200) ** 2
    line = [np.column_stack([values, np.zeros((200, 2))]) for values in (a, b)]
    assert metrics.earth_mover(*line) == pytest.approx(np.abs(np.sort(a) - np.sort(b)).mean())


def test_the_auction_is_at_most_its_step_above_the_exact_emd():
    truth, prediction = metrics.surface_points(sphere(20.0)), metrics.surface_points(sphere(21.0, (1, 0, 2)))
    exact = metrics.earth_mover(truth, prediction, count=400)
    for step in (0.5, 0.02):
        assert exact <= metrics.earth_mover_by_auction(truth, prediction, step, count=400) <= exact + step


def test_density_aware_chamfer_has_its_closed_forms():
    points = grid(1.0, 4)
    assert metrics.density_aware_chamfer(points, points) == 0.0
    moved = points + [0.02, 0.0, 0.0]
    assert metrics.density_aware_chamfer(points, moved) == pytest.approx(1 - np.exp(-1000 * 0.02**2))
    assert metrics.density_aware_chamfer(points, points + 50.0) == pytest.approx(1.0)
    # 2 and 3 share the predicted 2: one gives 1 - 1/2, the other 1 (it is far); the predicted 50 has nobody near
    truth, prediction = (np.column_stack([values, np.zeros((4, 2))]) for values in ([0.0, 1, 2, 3], [0.0, 1, 2, 50]))
    assert metrics.density_aware_chamfer(truth, prediction) == pytest.approx(0.5 * (1.5 / 4 + 1.0 / 4))


def test_density_aware_chamfer_sees_uneven_density_that_chamfer_hardly_does():
    even = metrics.surface_points(sphere(0.5))
    lumped = even[np.r_[np.arange(1024), np.arange(1024), np.arange(1024), np.arange(1024)]]
    assert metrics.density_aware_chamfer(even, lumped) > 0.5
    assert metrics.chamfer_t(even, lumped) < 0.005


def test_shifted_planes_have_exact_distances_and_equal_normals():
    flat = trimesh.creation.box((40.0, 40.0, 1e-3))
    truth = metrics.SampledSurface.of(Mesh(np.asarray(flat.vertices), np.asarray(flat.faces)))
    moved = metrics.SampledSurface.of(Mesh(np.asarray(flat.vertices) + [0, 0, 2.0], np.asarray(flat.faces)))
    scores = metrics.compare(truth, moved, 100.0)["whole"]
    assert scores.assd_mm == pytest.approx(2.0, abs=1e-3) and scores.hd95_mm == pytest.approx(2.0, abs=1.1e-3)
    assert scores.normal_consistency == pytest.approx(1.0, abs=1e-3)


def test_normals_of_a_tilted_disc_agree_by_the_cosine():
    flat = trimesh.creation.cylinder(20.0, 1e-3, sections=64)
    mesh = Mesh(np.asarray(flat.vertices), np.asarray(flat.faces))
    angle = np.radians(30.0)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    truth = metrics.SampledSurface.of(mesh)
    for motion, expected in ((turn, 1.0), (tilt, np.cos(angle))):
        scores = metrics.compare(truth, metrics.SampledSurface.of(mesh.transformed(motion)), 100.0, emd=False)
        assert scores["whole"].normal_consistency == pytest.approx(expected, abs=0.01)


def test_a_bare_cloud_is_measured_to_its_points():
    truth = metrics.SampledSurface.of(sphere(20.0))
    few = metrics.surface_points(sphere(21.0))[:512]
    cloud, mesh = metrics.SampledCloud.of(few), metrics.SampledSurface.of(sphere(21.0))
    scores, of_mesh = (metrics.compare(truth, one, 100.0, emd=False)["whole"] for one in (cloud, mesh))
    to_points = cdist(truth.points, few).min(axis=1)
    assert scores.assd_mm == pytest.approx(0.5 * (to_points.mean() + 1.0), abs=0.02)
    assert scores.assd_mm > of_mesh.assd_mm + 0.2
    assert scores.normal_consistency == pytest.approx(1.0, abs=0.02)  # found from neighbours, the sign is left open
    assert np.isnan(scores.emd_e4)


def test_sigma_covers_normal_errors_as_the_normal_distribution_says():
    """A sphere whose vertices are off by normal errors of known, uneven spread: 68.3 % within, 95.4 % within twice."""
    random = np.random.default_rng(6)
    truth = metrics.SampledSurface.of(sphere(40.0))
    directions = random.standard_normal((20_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sigma = np.where(directions[:, 1] > 0, 0.5, 2.0)
    vertices = (40.0 + sigma * random.standard_normal(len(sigma)))[:, None] * directions
    for part, (one, two) in metrics.coverage(truth, vertices, sigma).items():
        # the sphere is faceted: up to 0.05 mm
        assert one == pytest.approx(0.683, abs=0.012) and two == pytest.approx(0.954, abs=0.008), part
    one, two = metrics.coverage(truth, vertices, 2.0 * sigma)["whole"]
    assert one == pytest.approx(0.954, abs=0.01) and two > 0.99
    nothing = metrics.coverage(truth, vertices[directions[:, 1] > 0.2], sigma[directions[:, 1] > 0.2])["body"]
    assert np.isnan(nothing).all()


def test_a_large_cloud_is_thinned_and_a_bad_one_is_refused():
    assert len(metrics.SampledCloud.of(np.random.default_rng(8).random((6000, 3))).points) == 4096
    for bad in (np.zeros((3, 3)), np.full((50, 3), np.nan), np.zeros((50, 2))):
        with pytest.raises(UsxError, match="cloud"):
            metrics.sampled(bad)
    with pytest.raises(UsxError, match="finite"):
        metrics.sampled(Mesh(np.full((3, 3), np.inf), np.array([[0, 1, 2]])))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_assignments_are_as_cheap_as_those_of_scipy(size):
    random = np.random.default_rng(size)
    for cost in (random.random((size, size)), random.integers(0, 4, (size, size)).astype(float),
                 np.zeros((size, size)), cdist(random.random((size, 3)), random.random((size, 3)) + 30.0)):
        column = assign(cost)
        rows, columns = linear_sum_assignment(cost)
        assert sorted(column) == list(range(size))
        assert cost[rows, column].sum() == pytest.approx(cost[rows, columns].sum())


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.full((2, 2), np.nan)])
def test_costs_that_cannot_be_assigned_are_refused(bad):
    with pytest.raises(UsxError, match="square and finite"):
        assign(bad)


def test_the_nearest_face_is_the_one_whose_plane_the_point_stands_on():
    box = trimesh.creation.box((2.0, 2.0, 2.0)).subdivide().subdivide()
    mesh = Mesh(np.asarray(box.vertices), np.asarray(box.faces))
    random = np.random.default_rng(9)
    points = np.column_stack([random.uniform(-0.9, 0.9, (200, 2)), np.full(200, 1.7)])
    distances, faces = nearest_faces(points, mesh)
    np.testing.assert_allclose(distances, 0.7)
    corners = mesh.vertices[mesh.faces[faces]]
    assert (corners[:, :, 2] == 1.0).all()
    assert (corners[:, :, :2].min(axis=1) <= points[:, :2]).all() and (corners[:, :, :2].max(axis=1)
                                                                        >= points[:, :2]).all()


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

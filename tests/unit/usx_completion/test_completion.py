"""The fit against spines whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS, SOURCE_XRAY
from usx_common.meshes import read_mesh
from usx_common.transforms import make_transform, rotation_about_axis
from usx_completion import output, parameters
from usx_completion.fit_level import LevelState
from usx_completion.level_shape import level_shapes
from usx_completion.surface_distance import surface_distances


def error(mesh, truth):
    forward = surface_distances(mesh.vertices, truth).mean()
    return 0.5 * (forward + surface_distances(truth.vertices[::3], mesh).mean())


def ultrasound_of(partial):
    keep = partial.sources != SOURCE_XRAY
    return partial.points[keep], partial.labels[keep], partial.sources[keep]


def test_a_held_out_spine_is_completed_better_than_by_the_placed_mean(completion, method, partial, held_out_spine):
    placed = method.place_mean(partial.points, partial.labels, partial.sources)
    assert tuple(completion.levels) == LEVELS and not completion.reasons
    for level, truth in held_out_spine.items():
        fitted = error(completion.levels[level].mesh, truth)
        assert fitted < 1.5
        assert fitted < error(placed.levels[level].mesh, truth)


def test_completed_meshes_are_watertight_and_in_place(completion, held_out_spine):
    for level, completed in completion.levels.items():
        assert completed.mesh.is_watertight
        assert np.linalg.norm(completed.mesh.vertices.mean(axis=0) - held_out_spine[level].vertices.mean(axis=0)) < 6.0


def test_the_answer_does_not_depend_on_earlier_calls_or_on_the_order_of_points(completion, method, partial):
    half = slice(None, None, 2)
    method.complete(partial.points[half], partial.labels[half], partial.sources[half])
    again = method.complete(partial.points, partial.labels, partial.sources)
    shuffled = np.random.default_rng(0).permutation(len(partial.points))
    other = method.complete(partial.points[shuffled], partial.labels[shuffled], partial.sources[shuffled])
    for level in LEVELS:
        assert np.array_equal(again.levels[level].mesh.vertices, completion.levels[level].mesh.vertices)
        np.testing.assert_allclose(other.levels[level].mesh.vertices, completion.levels[level].mesh.vertices, atol=0.05)


def test_sigma_covers_the_errors_and_grows_where_nothing_is_seen(completion, held_out_spine, method, partial,
                                                                 shape_model):
    inside, twice = [], []
    for level, completed in completion.levels.items():
        distance = surface_distances(completed.mesh.vertices, held_out_spine[level])
        inside.append(np.mean(distance < completed.sigma))
        twice.append(np.mean(distance < 2 * completed.sigma))
    assert np.mean(inside) > 0.6 and np.mean(twice) > 0.9
    y, sigma = completion.levels["L3"].mesh.vertices[:, 1], completion.levels["L3"].sigma
    assert sigma[y > np.quantile(y, 0.9)].mean() < sigma[shape_model.body].mean()
    # all bodies unseen but L3's neighbours': the unseen body must be less certain
    hidden = (partial.sources == SOURCE_XRAY) & (partial.labels == 22)
    without = method.complete(partial.points[~hidden], partial.labels[~hidden], partial.sources[~hidden])
    body = shape_model.body
    assert without.levels["L3"].sigma[body].mean() > 1.05 * completion.levels["L3"].sigma[body].mean()


def test_a_displaced_xray_is_noticed_and_does_little_harm(method, partial, held_out_spine):
    moved = partial.points.copy()
    moved[partial.sources == SOURCE_XRAY] += [0.0, 2.0, -2.0]
    result = method.complete(moved, partial.labels, partial.sources)
    assert result.xray_shift[0] < -0.3 and result.xray_shift[1] > 0.3
    assert np.mean([error(result.levels[level].mesh, held_out_spine[level]) for level in LEVELS]) < 1.8


def test_a_turned_and_moved_spine_is_completed_as_well(method, partial, held_out_spine):
    turn = make_transform(rotation_about_axis([0.3, 0.2, 1.0], 0.1), [12.0, -30.0, 80.0])
    points = partial.points @ turn[:3, :3].T + turn[:3, 3]
    result = method.complete(points, partial.labels, partial.sources)
    for level in LEVELS:
        assert error(result.levels[level].mesh, held_out_spine[level].transformed(turn)) < 1.6


def test_without_an_xray_the_levels_are_counted_or_the_reason_is_told(method, partial, held_out_spine):
    points, labels, sources = ultrasound_of(partial)
    result = method.complete(points, np.zeros_like(labels), sources)
    if result.levels:
        assert "counted" in result.reasons["xray"]
        for level in LEVELS:
            assert error(result.levels[level].mesh, held_out_spine[level]) < 3.0
    else:
        assert all("spinous" in result.reasons[level] for level in LEVELS)
    upper = points[:, 2] > np.median(points[:, 2])
    partly = method.complete(points[upper], np.zeros(upper.sum(), int), sources[upper])
    assert not partly.levels
    assert all("cannot be told" in partly.reasons[level] for level in LEVELS)


def test_a_level_with_too_few_points_is_left_out_with_the_reason(method, partial):
    ultrasound = partial.sources != SOURCE_XRAY
    keep = ~(ultrasound & (partial.labels == 20))
    keep[np.flatnonzero(~keep)[:20]] = True
    result = method.complete(partial.points[keep], partial.labels[keep], partial.sources[keep])
    assert tuple(result.levels) == ("L2", "L3", "L4", "L5")
    assert "60 are needed" in result.reasons["L1"]
    assert "L1" in output.describe(result)


@pytest.mark.parametrize("label", [20, 22])
def test_a_body_missing_in_the_xray_is_bridged_by_its_neighbours(method, partial, held_out_spine, label):
    keep = ~((partial.sources == SOURCE_XRAY) & (partial.labels == label))
    result = method.complete(partial.points[keep], partial.labels[keep], partial.sources[keep])
    level = LEVELS[label - 20]
    assert level in result.levels
    assert error(result.levels[level].mesh, held_out_spine[level]) < 2.5


@pytest.mark.parametrize("shown", [20, 22, 24])
def test_one_body_in_the_xray_is_enough_to_find_all_levels(method, partial, held_out_spine, shown):
    keep = (partial.sources != SOURCE_XRAY) | (partial.labels == shown)
    result = method.complete(partial.points[keep], partial.labels[keep], partial.sources[keep])
    assert tuple(result.levels) == LEVELS and not result.reasons
    for level, completed in result.levels.items():
        assert error(completed.mesh, held_out_spine[level]) < 2.5


def test_foreign_points_are_ignored(completion, method, partial):
    random = np.random.default_rng(5)
    count = len(partial.points) // 10
    stray = random.uniform([-60, 0, -110], [60, 70, 110], (count, 3))
    result = method.complete(np.vstack([partial.points, stray]), np.r_[partial.labels, random.integers(20, 25, count)],
                             np.r_[partial.sources, np.zeros(count, int)])
    for level in LEVELS:
        moved = result.levels[level].mesh.vertices - completion.levels[level].mesh.vertices
        assert np.linalg.norm(moved, axis=1).mean() < 1.5


def test_the_jacobian_is_the_derivative(shape_model):
    shape = level_shapes(shape_model)["L2"]
    random = np.random.default_rng(6)
    pose = make_transform(rotation_about_axis([1, 2, 3], 0.4), [10, 20, 30])
    state = LevelState.at(shape, pose, random.normal(size=20) * 0.3)
    rows = np.array([3, 700, 2100])
    directions = random.normal(size=(3, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    jacobian = state.jacobian(rows, directions, 20)
    for column in (0, 1, 2, 3, 5, 6, 15, 25):
        step = np.zeros(26)
        step[column] = 1e-2
        change = (state.moved(step).vertices - state.moved(-step).vertices)[rows] / 2e-2
        np.testing.assert_allclose(np.sum(change * directions, axis=1), jacobian[:, column], rtol=2e-3, atol=2e-3)


def test_meshes_are_saved_whole_and_refusals_are_told(completion, tmp_path):
    files = output.save_meshes(str(tmp_path / "out"), completion)
    assert [file.name for file in files] == ["L1.ply", "L2.ply", "L3.ply", "L4.ply", "L5.ply"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [file.name for file in files]
    assert b"comment mm, frame spine (LPS" in files[0].read_bytes()[:300]
    np.testing.assert_allclose(read_mesh(files[2]).vertices.mean(axis=0),
                               completion.levels["L3"].mesh.vertices.mean(axis=0), atol=1e-3)
    (tmp_path / "file").write_text("in the way")
    for folder, what in (("", completion), (str(tmp_path), None), (str(tmp_path / "file"), completion)):
        with pytest.raises(ValueError):
            output.save_meshes(folder, what)


def test_the_cloud_holds_all_levels_with_sigma_in_metres(completion):
    points, labels, sigma = output.completed_cloud(completion)
    assert len(points) == len(labels) == len(sigma) and set(labels) == {20, 21, 22, 23, 24}
    assert 1e-4 < np.median(sigma) < 5e-3
    empty = replace(completion, levels={})
    assert [len(part) for part in output.completed_cloud(empty)] == [0, 0, 0]
    assert output.describe(empty).startswith("no level completed")


def test_parameters_reach_the_settings():
    values = {parameter.name: parameter.default for parameter in parameters.TABLE}
    result = parameters.completion_settings({**values, "voxel_size": 3.0, "xray_sd": 2.0, "xray_shift_sd": 0.0})
    assert result.observation.voxel_mm == 3.0 and result.fit.xray_sd == 2.0 and result.fit.xray_shift_sd_mm > 0.0
    assert parameters.completion_settings(values).fit == type(result.fit)()
    assert parameters.model_path(values).is_file()
    assert parameters.model_path({**values, "model_folder": "/somewhere"}).parent.name == "somewhere"

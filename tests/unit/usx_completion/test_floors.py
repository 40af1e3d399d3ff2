"""What the examination's errors cost a method that knows every bone, and what its input does not tell of a shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS, SOURCE_ULTRASOUND
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.evaluation.case import CaseInput
from usx_completion.evaluation.datasets import DatasetPlan
from usx_completion.evaluation.floors import POSE, SHAPE, floors_of
from usx_completion.evaluation.pose_floor import moved_bones, own_points
from usx_completion.evaluation.scoring import true_surfaces
from usx_completion.evaluation.settings import DatasetSettings
from usx_completion.evaluation.shape_floor import _most_likely, told_exactly
from usx_completion.evaluation.tables import floor_table
from usx_completion.metrics import SampledSurface, mean_surface_distances


@pytest.fixture(scope="module")
def case():
    return DatasetPlan("synthetic-paper", 1, DatasetSettings("paper", 1901, 1, 1)).open().case(0)


def _moved(case, offset):
    given = case.given
    points = given.points + np.where(given.sources == SOURCE_ULTRASOUND, 1.0, 0.0)[:, None] * offset
    return replace(case, given=CaseInput(given.inputs, points, given.labels, given.sources))


def _whole(case, bones, part="whole"):
    return [mean_surface_distances(SampledSurface.of(case.truth[level]), SampledSurface.of(bone))[part]
            for level, bone in bones.items()]


def test_flawless_points_cost_nothing_and_moved_ones_what_they_are_moved_by(case):
    still = moved_bones(case, own_points(case))
    assert list(still) == list(LEVELS)
    assert max(_whole(case, still)) < 0.15
    # a closed surface moved by d is |d . n| from where it was: d / 2 on average for a sphere, here for bones
    other = _moved(case, [0.0, -2.0, 0.0])
    assert 0.6 < np.mean(_whole(case, moved_bones(other, own_points(other)))) < 1.4


def test_a_level_that_is_hardly_seen_has_no_row(case):
    given = case.given
    keep = (given.points[:, 2] < case.truth["L2"].vertices[:, 2].min()) | (given.sources != SOURCE_ULTRASOUND)
    less = replace(case, given=CaseInput(given.inputs, given.points[keep], given.labels[keep], given.sources[keep]))
    rows = floors_of(less, true_surfaces(less))
    assert "L1" not in [row.level for row in rows] and "L5" in [row.level for row in rows]
    for kind in (POSE, SHAPE):
        line, = floor_table(rows, kind)
        assert line[:2] == ["synthetic-paper", str(len(rows) // 2)] and len(line) == 7
    assert floor_table([], POSE) == []
    unknown = replace(less, units=dict.fromkeys(less.units, float("nan")))  # no level had enough for an input
    assert floors_of(unknown, true_surfaces(unknown)) == []


def test_what_was_seen_is_known_and_what_was_not_is_likely(case):
    own = own_points(case)
    told = told_exactly(case, case.truth, own)
    arch, body = (np.mean(_whole(case, told, part)) for part in ("arch", "body"))
    assert 0.1 < arch < body < 1.2  # ultrasound sees the arch; of the body only the outline is told
    given = case.given
    blind = replace(case, given=CaseInput(given.inputs, *(values[given.sources == SOURCE_ULTRASOUND] for values in
                                                          (given.points, given.labels, given.sources))))
    assert np.mean(_whole(case, told_exactly(blind, case.truth, own), "body")) > 1.1 * body


def test_a_shape_of_the_prior_is_told_by_its_normals(real_model):
    mean = real_model.means[2]
    normals = vertex_normals(Mesh(mean, real_model.faces))
    wanted = 1.5 * real_model.modes[0] * real_model.mode_sd[2, 0] * real_model.spread.mode_scale[2]
    rows = np.arange(0, len(mean), 3)
    found = _most_likely(real_model, 2, rows, normals[rows], np.einsum("vi,vi->v", wanted, normals)[rows])
    left = np.abs(np.einsum("vi,vi->v", found - wanted, normals))
    assert left.mean() < 0.25 * np.abs(np.einsum("vi,vi->v", wanted, normals)).mean()
    nothing = _most_likely(real_model, 2, rows, normals[rows], np.zeros(len(rows)))
    assert np.abs(nothing).max() < 1e-9


def test_the_likely_shape_is_the_conditional_mean_of_the_whole_prior(real_model):
    """The prior of some vertices as one matrix of all their coordinates, conditioned by the textbook."""
    random = np.random.default_rng(5)
    index = 1
    mean, spread = real_model.means[index], real_model.spread
    normals = vertex_normals(Mesh(mean, real_model.faces))
    near = np.argsort(np.sum((mean - mean[700]) ** 2, axis=1))[:8]  # closer than the field is wide
    every = np.concatenate([near, random.choice(len(mean), 8, replace=False)])
    rows, asked = every[::2], every[1::2]
    scaled = real_model.modes[:, every] * (real_model.mode_sd[index] * spread.mode_scale[index])[:, None, None]
    centred = (mean - mean.mean(axis=0))[every]
    turns = [np.cross(axis, centred) / 30.0 for axis in np.eye(3)]
    shifts = [np.tile(axis, (len(every), 1)) for axis in np.eye(3)]
    columns = np.concatenate([scaled, 5.0 * np.stack(shifts + turns)]).reshape(-1, 3 * len(every))
    far = np.sum((mean[every][:, None] - mean[every]) ** 2, axis=2)
    field = spread.process_sd_mm[index] ** 2 * np.exp(-0.5 * far / spread.kernel_width_mm[0] ** 2)
    prior = columns.T @ columns + np.kron(field, np.eye(3))
    shows = np.zeros((len(rows), 3 * len(every)))
    for k, row in enumerate(rows):
        shows[k, 6 * k:6 * k + 3] = normals[row]
    told = random.standard_normal(len(rows))
    gain = prior @ shows.T @ np.linalg.inv(shows @ prior @ shows.T + 0.3**2 * np.eye(len(rows)))
    expected = (gain @ told).reshape(-1, 3)[1::2]
    assert np.abs(_most_likely(real_model, index, rows, normals[rows], told)[asked] - expected).max() < 1e-8

"""What the examination's errors cost a method that knows every bone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS, SOURCE_ULTRASOUND
from usx_completion.evaluation.case import CaseInput
from usx_completion.evaluation.datasets import DatasetPlan
from usx_completion.evaluation.pose_floor import floor_of, floor_table
from usx_completion.evaluation.settings import DatasetSettings


@pytest.fixture(scope="module")
def case():
    return DatasetPlan("synthetic-paper", 1, DatasetSettings("paper", 1901, 1, 1)).open().case(0)


def _moved(case, offset):
    given = case.given
    points = given.points + np.where(given.sources == SOURCE_ULTRASOUND, 1.0, 0.0)[:, None] * offset
    return replace(case, given=CaseInput(given.inputs, points, given.labels, given.sources))


def test_flawless_points_cost_nothing_and_moved_ones_what_they_are_moved_by(case):
    still = floor_of(case)
    assert [row.level for row in still] == list(LEVELS)
    assert max(row.assd_mm["whole"] for row in still) < 0.15
    # a closed surface moved by d is |d . n| from where it was: d / 2 on average for a sphere, here for bones
    moved = np.mean([row.assd_mm["whole"] for row in floor_of(_moved(case, [0.0, -2.0, 0.0]))])
    assert 0.6 < moved < 1.4


def test_a_level_that_is_hardly_seen_has_no_row(case):
    given = case.given
    keep = (given.points[:, 2] < case.truth["L2"].vertices[:, 2].min()) | (given.sources != SOURCE_ULTRASOUND)
    less = replace(case, given=CaseInput(given.inputs, given.points[keep], given.labels[keep], given.sources[keep]))
    rows = floor_of(less)
    assert "L1" not in [row.level for row in rows] and "L5" in [row.level for row in rows]
    assert floor_table(rows)[0][:2] == ["synthetic-paper", str(len(rows))] and floor_table([]) == []

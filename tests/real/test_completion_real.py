"""Real columns, from whose shapes the shape model has learned nothing: simulated partial clouds of them completed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from usx_completion.completion import ShapeModelCompletion
from usx_completion.shape_model import load_shape_model
from usx_completion.shape_report import read_column, row

SUBJECTS = ("verse004", "verse008", "verse009")


@functools.lru_cache
def distances(folder: Path) -> np.ndarray:
    """(5, 2) mm: mean symmetric surface distance of the fit and of the mean shape placed."""
    return np.array(row(read_column(folder), ShapeModelCompletion(load_shape_model()[0])))


@pytest.mark.real_data
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_level_of_a_real_column_is_completed_within_3_mm(usx_data, subject):
    assert (distances(usx_data / "shapes" / subject)[:, 0] < 3.0).all()


@pytest.mark.real_data
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_level_of_a_real_column_is_nearer_than_the_placed_mean(usx_data, subject):
    fitted, placed = distances(usx_data / "shapes" / subject).T
    assert (fitted < placed).all()

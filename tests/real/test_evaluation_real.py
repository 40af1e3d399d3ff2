"""Real people as test cases: those that no model has learned from, and what the baselines make of them."""

from __future__ import annotations

import numpy as np
import pytest

from usx_completion.evaluation.datasets import Wanted, plan_datasets
from usx_completion.evaluation.running import Evaluator, Job
from usx_completion.evaluation.settings import read_settings
from usx_completion.evaluation.summary import summarise


@pytest.mark.real_data
def test_the_fit_is_nearer_than_the_placed_mean_on_both_people(usx_data, monkeypatch):
    monkeypatch.setenv("USX_DATA", str(usx_data))
    plans, notes = plan_datasets(read_settings(), Wanted(["real-paper"], quick=True))
    assert (plans[0].cases, notes) == (2, [])
    evaluator = Evaluator(plans, ["mean", "SSM+GP"])
    rows = [row for number in range(2) for row in evaluator.run(Job(0, number)).rows]
    assert {row.subject for row in rows} == {"verse008", "verse009"}
    found = {(row.method, row.part): row for row in summarise(rows)}
    for part in ("whole", "arch", "body"):
        mean, fit = found["mean", part], found["SSM+GP", part]
        assert (fit.n, fit.left_out) == (10, 0)
        assert fit.mean["assd_mm"] < mean.mean["assd_mm"] and fit.mean["cd_t_e4"] < mean.mean["cd_t_e4"]
    assert 0.3 < found["SSM+GP", "whole"].mean["assd_mm"] < 1.2  # a study of the same kind found 1.15
    assert all(90.0 < row.unit_mm < 150.0 for row in rows)
    assert np.isfinite([row.metrics.normal_consistency for row in rows]).all()

"""Left-right of the levels, which a lateral X-ray does not tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS
from usx_completion.correction.scene import observation_of
from usx_completion.correction.start import starting_poses
from usx_completion.placement import place
from usx_completion.sideways import moved_sideways


@pytest.fixture(scope="module")
def example(maker):
    return maker.example(0)


def _across(example, poses, model):
    """How far each placed mean vertebra's middle is from the true one, left-right, mm."""
    return {level: float((poses[level] @ [*model.means[k].mean(axis=0), 1.0])[0] - example.vertices[k].mean(axis=0)[0])
            for k, level in enumerate(LEVELS) if level in poses}


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_half_of_the_ultrasound_is_enough(real_model, example, side, monkeypatch):
    """Less than half as far off as the middle of what is seen, and what follows takes it from there."""
    whole = observation_of(example.scene)
    keep = side * (whole.points[:, 0] - np.median(whole.points[:, 0])) > 0.0
    half = replace(whole, points=whole.points[keep], labels=whole.labels[keep])
    for observation, most in ((whole, 3.0), (half, 10.0)):
        off = _across(example, place(real_model, observation).poses, real_model)
        assert list(off) == list(LEVELS) and np.abs(list(off.values())).max() < most
    off = _across(example, starting_poses(real_model, half).poses, real_model)
    assert np.abs(list(off.values())).max() < 5.0
    by_line = np.abs(list(_across(example, place(real_model, half).poses, real_model).values())).mean()
    monkeypatch.setattr("usx_completion.placement.moved_sideways", lambda model, observation, poses: dict(poses))
    by_middle = np.abs(list(_across(example, place(real_model, half).poses, real_model).values())).mean()
    assert by_line < 0.5 * by_middle


def test_a_level_seen_from_one_side_alone_is_put_onto_the_line_of_the_others(real_model, example):
    observation = observation_of(example.scene)
    poses = place(real_model, observation).poses
    astray = {**poses, "L2": poses["L2"].copy()}
    astray["L2"][0, 3] += 15.0
    found = _across(example, moved_sideways(real_model, observation, astray), real_model)
    assert abs(found["L2"]) < 4.0
    assert np.allclose(list(_across(example, moved_sideways(real_model, observation, poses), real_model).values()),
                       list(_across(example, poses, real_model).values()))  # what is in its place stays there


def test_without_an_xray_or_a_level_nothing_moves(real_model, example):
    observation = observation_of(example.scene)
    poses = place(real_model, observation).poses
    blind = replace(observation, plane=None, outlines={})
    for level, pose in moved_sideways(real_model, blind, poses).items():
        assert np.array_equal(pose, poses[level])
    assert moved_sideways(real_model, observation, {}) == {}
    alone = moved_sideways(real_model, observation, {"L3": poses["L3"]})
    assert np.abs(alone["L3"][:3, 3] - poses["L3"][:3, 3]).max() < 10.0
